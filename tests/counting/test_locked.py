"""One folder of results is written by one count at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax.counting import claim
from cellcount_jax.images.image_files import write_image
from cellcount_jax.inference import model_file

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture
def held(tmp_path: Path, held_elsewhere: Callable[..., Any]) -> Iterator[Path]:
    """The folder of results for `a.png`, which another thread holds as another process would."""
    folder = tmp_path / "out" / "a"
    with held_elsewhere(claim.locked(folder)):
        yield folder


def test_a_second_count_is_refused_and_another_input_is_not(
    tmp_path: Path,
    held: Path,
    untrained_model: Callable[..., model_file.TrainedModel],
    cells_2d: Path,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model_file.export_model(untrained_model(2), tmp_path / "model.zip", card="")
    pixels = (cells_2d / "a0.png").read_bytes()
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(pixels)
    options = ("--model", tmp_path / "model.zip", "--output", tmp_path / "out")
    for further in ([], ["--overwrite"]):
        assert call("count", tmp_path / "a.png", *options, *further) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {held}: another count is writing its results there (proc")
        assert ", since " in error and "give another --output" in error and error.count("\n") == 1
    assert call("count", tmp_path / "a.png", *options, "--dry-run") == 0
    assert [path.name for path in held.iterdir()] == [".cellcount.lock"]
    assert call("count", tmp_path / "b.png", *options) == 0
    assert "points.csv" in [path.name for path in (tmp_path / "out" / "b").iterdir()]


def test_nothing_is_left_of_a_count_that_failed(
    tmp_path: Path,
    untrained_model: Callable[..., model_file.TrainedModel],
    call: Callable[..., int],
) -> None:
    model_file.export_model(untrained_model(3), tmp_path / "model.zip", card="")
    write_image(tmp_path / "a.png", np.ones((8, 8), np.uint8))
    options = ("--model", tmp_path / "model.zip", "--output", tmp_path / "out" / "deep")
    assert call("count", tmp_path / "a.png", *options) == 1
    assert not (tmp_path / "out" / "deep" / "a").exists()
