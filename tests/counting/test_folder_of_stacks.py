"""A folder of volumes whose planes were saved as time points or channels."""

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
