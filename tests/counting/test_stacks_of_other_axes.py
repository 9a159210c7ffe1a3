"""Volumes and masks whose planes were saved as time points or channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.mark.parametrize(("axes", "words"), [("TYX", "time points"), ("CYX", "channels")])
def test_the_axes_to_give_are_told(
    tmp_path: Path,
    untrained_model: Callable[..., TrainedModel],
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    axes: str,
    words: str,
) -> None:
    model_file.export_model(untrained_model(3), tmp_path / "model.zip", card="a model\n")
    folder = tmp_path / "stacks"
    folder.mkdir()
    for number in range(2):
        volume = np.random.default_rng(number).integers(0, 200, (8, 24, 20)).astype(np.uint8)
        tifffile.imwrite(folder / f"s{number}.tif", volume, imagej=True, metadata={"axes": axes})
    command = ("count", folder, "--model", tmp_path / "model.zip", "--output", tmp_path / "out")
    assert call(*command) == 1
    assert f"--axes ZYX if its {words} are planes" in capsys.readouterr().err
    assert call(*command, "--axes", "ZYX") == 0
    assert (tmp_path / "out" / "s1" / "points.csv").exists()


@pytest.mark.parametrize("option", ["--mask", "--regions"])
@pytest.mark.parametrize("axes", ["TYX", "CYX"])
def test_labels_of_other_axes_are_refused_with_what_to_do(
    tmp_path: Path,
    untrained_model: Callable[..., TrainedModel],
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    axes: str,
    option: str,
) -> None:
    """`--axes` is of the image; its labels are never read as another volume in silence."""
    model_file.export_model(untrained_model(3), tmp_path / "model.zip", card="a model\n")
    volume = np.random.default_rng(0).integers(0, 200, (8, 24, 20)).astype(np.uint8)
    for name in ("a.tif", "mask.tif"):
        tifffile.imwrite(tmp_path / name, volume, imagej=True, metadata={"axes": axes})
    command = ("count", tmp_path / "a.tif", "--model", tmp_path / "model.zip", "--axes", "ZYX")
    assert call(*command, option, tmp_path / "mask.tif", "--output", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "mask.tif: " in error and "axes z, y, x" in error
