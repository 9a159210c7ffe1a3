"""The size of cells that `cellcount train` takes, says and stores, and the words of its errors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.data.entries import scan
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import evaluate
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import model_file
from cellcount_jax.inference.fitted import fit
from cellcount_jax.label.session import Session
from cellcount_jax.training.command import make_config
from cellcount_jax.training.own_words import own_words


def write_discs(path: Path, *, radius: float, spacing: Any = None) -> None:
    y, x = np.indices((90, 120))
    away = np.hypot(y % 30 - 15, x % 30 - 15)
    noise = np.random.default_rng(0).normal(20, 2, away.shape)
    pixels = np.where(away <= radius, 130 + noise, noise).astype(np.uint8)
    write_image(path, pixels, spacing=spacing)
    path.with_suffix(".csv").write_text("y,x\n15,15\n45,45\n")


def made(folder: Path, caplog: pytest.LogCaptureFixture, **options: Any) -> tuple[Any, str]:
    """The settings, and what is said of the size of cells."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="absl"):
        config = make_config(folder, scan(folder), **options)
    (told,) = [text for text in caplog.messages if text.startswith("cells ")]
    return config, told


def test_the_size_is_told_and_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_discs(tmp_path / "a.tif", radius=8)
    write_discs(tmp_path / "b.tif", radius=10)
    config, told = made(tmp_path, caplog)
    assert config.data.diameter == pytest.approx(18, rel=0.06)
    assert config.evaluation.max_distance == config.data.diameter / 2
    assert (
        told
        == f"cells of about {config.data.diameter:.3g} pixels, measured (the median of 2 images)"
    )
    with Session(tmp_path / "a.tif", radius=7.0) as session:
        session.add((1, 1))
    config, told = made(tmp_path, caplog)
    assert config.data.diameter == 14
    assert told == "cells of about 14 pixels, as in the labelling tool (in one image)"
    config, told = made(tmp_path, caplog, diameter=12)
    assert config.data.diameter == 12 and told == "cells of about 12 pixels, as --diameter says"


def test_the_size_in_micrometres(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_discs(tmp_path / "a.tif", radius=8, spacing=(0.5, 0.5))
    config, told = made(tmp_path, caplog)
    assert config.evaluation.max_distance == pytest.approx(4, rel=0.06)  # um
    assert config.data.diameter == pytest.approx(16, rel=0.06)  # pixels
    assert told.startswith("cells of about 7.") and told.endswith(" um, measured (in one image)")


def test_a_size_that_is_not_known_is_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "a.tif", np.ones((40, 40), np.uint8))
    (tmp_path / "a.csv").write_text("y,x\n1,1\n")
    config, told = made(tmp_path, caplog)
    assert config.data.diameter == 0 and config.evaluation.max_distance == 5
    assert "assumed" in told and told.endswith("give --diameter")


def test_going_on_from_a_model_tells_the_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, untrained_model: Any
) -> None:
    write_discs(tmp_path / "images" / "a.tif", radius=8)
    origin = str(tmp_path / "m.zip")
    changes = {"data__normalisation": "levels", "predict__estimate_diameter": True}
    model_file.export_model(
        untrained_model(2, data__diameter=10.0, **changes), Path(origin), card=""
    )
    _, told = made(tmp_path / "images", caplog, init_from=origin)
    assert told.startswith(
        "cells are measured in each image; images are resampled to the 10 pixels"
    )
    _, told = made(tmp_path / "images", caplog, init_from=origin, diameter=16)
    assert told.startswith("cells of about 16 pixels, as --diameter says; images are resampled")
    with pytest.raises(InputError, match="--diameter 0: must be a positive number"):
        made(tmp_path / "images", caplog, init_from=origin, diameter=0)


def test_a_count_takes_the_diameter_of_a_model_that_stores_one(untrained_model: Any) -> None:
    image = Array(np.zeros((40, 40, 1), np.float32), 2)
    assert fit(untrained_model(2, data__diameter=9.0), image, diameter=18).image.shape == (20, 20)
    with pytest.raises(InputError, match=r"cellcount train \(with --diameter\) stores it"):
        fit(untrained_model(2), image, diameter=18)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("config.train.steps = 7: must be tens", "--steps 7: must be tens"),
        ("config.data.from_diameter = 25: the model", "--diameter 25: the model"),
        ("set config.model.features = 16.", "set --set model.features=16."),
        ("is smaller than --config.train.crop; choose", "is smaller than --set train.crop; choose"),
        ("config.data.dir = 'x': is empty", "FOLDER 'x': is empty"),
        (
            "see cellcount_jax/config.py and a.config.b",
            "see cellcount_jax/config.py and a.config.b",
        ),
    ],
)
def test_the_words_of_the_command(message: str, wanted: str) -> None:
    assert own_words(message) == wanted


def test_errors_name_the_options_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_discs(tmp_path / "images" / "a.tif", radius=8)
    for arguments, told in (
        (["--steps", "7"], "--steps 7"),
        (["--set", "model.features=0"], "--set model.features=0"),
        (["--diameter", "-2"], "--diameter -2"),
    ):
        command = ["train", str(tmp_path / "images"), "--output", str(tmp_path / "run"), *arguments]
        assert cli.main(command) == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert told in line and "config." not in line


def test_the_table_of_the_rule_in_use() -> None:
    scores = {"images": 1, "true": 2, "predicted": 3, "precision": 0.5, "recall": 1.0, "f1": 0.66}
    rules = {"peaks": {**scores, "mae": 1.0, "rmse": 1.0}, "integral": {"mae": 2.0, "rmse": 2.0}}
    content = {
        "sets": {"test": rules, "train": rules},
        "rule": "peaks",
        "thresholds": {"peaks": 0.3},
        "max_distance": 4.0,
        "max_distance_unit": "um",
    }
    heading, *lines, caption = evaluate.as_table(content, all_rules=False).splitlines()
    assert heading.split()[:4] == ["set", "threshold", "images", "true"]
    assert [line.split()[:4] for line in lines] == [[s, "0.3", "1", "2"] for s in ("test", "train")]
    assert caption == "true within 4 um"
