"""Dots in micrometres through the commands that read dots."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax import cli, variants
from cellcount_jax.data import datasets
from cellcount_jax.data.blocks import DONE
from cellcount_jax.data.entries import entry_of
from cellcount_jax.data.entry_content import read_entry
from cellcount_jax.data.sample import Sample
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.point_units import DotUnit
from cellcount_jax.images.points import write_points
from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.label.session import Session

SPACING = (0.5, 0.25)
SHAPE = (60, 80)
DOTS = np.random.default_rng(0).uniform(1, np.array(SHAPE) - 2, (30, 2)).round(2)


def points_of(sample: Sample) -> np.ndarray:
    assert sample.points is not None
    return sample.points


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image, and its dots in micrometres beside it."""
    folder = tmp_path / "images"
    write_image(folder / "a.tif", np.eye(*SHAPE, dtype=np.uint8), spacing=SPACING)
    write_points(folder / "a.csv", DOTS * SPACING)
    return folder / "a.tif"


def test_training_refuses_or_converts(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(image.parent), "--output", str(image.parent / "run")]) == 1
    assert "a.csv: its 30 points may be micrometres" in capsys.readouterr().err
    data = variants.folder_config(ndim=2).data
    data.dir = str(image.parent)
    data.points_unit = "um"
    (sample,) = datasets.load(data, seed=0).labelled
    np.testing.assert_allclose(points_of(sample), DOTS, atol=2e-3)
    data.spacing = (1.0, 0.25)  # in place of the file's
    (sample,) = datasets.load(data, seed=0).labelled
    np.testing.assert_allclose(points_of(sample), DOTS * (0.5, 1), atol=5e-3)
    data.points_unit, data.spacing, data.region = "", (), "y<31,x<21"  # where dots may well be
    (sample,) = datasets.load(data, seed=0).labelled
    np.testing.assert_allclose(points_of(sample), DOTS * SPACING, atol=2e-3)


def test_labelling_converts_once(image: Path) -> None:
    with pytest.raises(InputError, match="may be micrometres"):
        Session(image)
    for _ in range(2):  # what it has saved is in voxels
        with Session(image, points_unit="um") as session:
            np.testing.assert_allclose(session.dots.points, DOTS, atol=3e-3)
            session.mark([(0, 0)], DONE)
            session.save()
    sample = read_entry(entry_of(image), with_dots=True, known=DotUnit("um"))
    np.testing.assert_allclose(points_of(sample), DOTS, atol=3e-3)


def test_scoring_refuses_or_converts(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, output = image.parent.parent / "found.csv", image.parent.parent / "scored"
    write_points(found, DOTS * SPACING)
    arguments = ["score", str(found), str(image.with_suffix(".csv")), "--image", str(image)]
    arguments += ["--tolerance", "0.1px", "--output", str(output)]
    assert cli.main(arguments) == 1
    assert "give --points-unit um if they are micrometres" in capsys.readouterr().err
    assert cli.main([*arguments, "--points-unit", "um"]) == 0
    scores = json.loads((output / "scores.json").read_text())
    assert (scores["tp"], scores["fp"], scores["fn"]) == (30, 0, 0)


def test_calibration_refuses_or_converts(
    image: Path,
    untrained_model: Callable[..., TrainedModel],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = dataclasses.replace(untrained_model(2, zero=True), spacing=SPACING, spacing_known=True)
    path = image.parent / "model.zip"
    model_file.export_model(model, path, card="a model\n")
    arguments = ["calibrate", str(image), "--model", str(path), "--output", f"{path}.new.zip"]
    assert cli.main(arguments) == 1
    assert "a.csv: its 30 points may be micrometres" in capsys.readouterr().err
    # All dots are in this part only when they are converted.
    part = ["--points-unit", "um", "--region", "y>=31"]
    assert cli.main([*arguments, *part]) == 1
    within = int((DOTS[:, 0] >= 30.5).sum())
    assert f"F1 is 0.00 on {within} dots" in capsys.readouterr().err
