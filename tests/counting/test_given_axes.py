"""Axes that are given in place of a file's own, through the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_jax.data.blocks import DONE
from cellcount_jax.data.entries import entry_of
from cellcount_jax.data.entry_content import read_entry
from cellcount_jax.errors import InputError
from cellcount_jax.images.selection import Selection
from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.label.session import Session

Call = Callable[..., int]
VOLUME = np.random.default_rng(0).integers(0, 200, (8, 24, 20)).astype(np.uint8)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A volume whose planes were saved as time points."""
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, imagej=True, metadata={"axes": "TYX"})
    return tmp_path / "a.tif"


@pytest.fixture
def model(untrained_model: Callable[..., TrainedModel], tmp_path: Path) -> Path:
    """A model of volumes, whose cells do not matter."""
    path = tmp_path / "model.zip"
    model_file.export_model(untrained_model(3), path, card="a model\n")
    return path


def test_a_count_with_other_axes_is_another_count(
    stack: Path, model: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(stack.with_name("b.tif"), VOLUME, imagej=True, metadata={"axes": "ZYX"})
    output = stack.parent / "counted"

    def count(name: str, *options: str) -> int:
        path = str(stack.with_name(name))
        return call("count", path, "--model", str(model), "--output", str(output), *options)

    assert count("a.tif") == 1
    assert "give --axes ZYX if its time points are planes" in capsys.readouterr().err
    assert count("a.tif", "--time", "3") == 1
    assert "on 3D images with 1; give --axes ZYX if its time" in capsys.readouterr().err
    assert count("a.tif", "--axes", "zyx") == 0 and count("b.tif") == 0
    points = [(output / name / "points.csv").read_text() for name in "ab"]
    assert points[0] == points[1] and len(points[0].splitlines()) > 3
    summary = json.loads((output / "a" / "summary.json").read_text())
    assert (summary["axes"], summary["axes_given"]) == ("ZYX", "ZYX")
    assert "ZYX (given)" in (output / "a" / "report.html").read_text()
    capsys.readouterr()
    assert count("a.tif", "--axes", "ZXY") == 1
    assert "differs in axes_given (there 'ZYX', given 'ZXY')" in capsys.readouterr().err


def test_labels_are_trained_on_with_the_axes_that_they_were_made_with(stack: Path) -> None:
    with Session(stack, Selection(axes="ZYX"), block=(8, 24, 20)) as session:
        session.add((1, 2, 3))
        session.mark([(0, 0, 0)], DONE)
    sample = read_entry(entry_of(stack), with_dots=True)
    np.testing.assert_array_equal(sample.image[..., 0], VOLUME)
    with pytest.raises(InputError, match="with --axes ZYX; axes ZXY do not fit"):
        read_entry(entry_of(stack), Selection(axes="ZXY"), with_dots=True)
    with pytest.raises(InputError, match="with --axes ZYX, but the image was opened with --axes Z"):
        Session(stack, Selection(axes="ZXY"))


def test_the_axes_of_training_images_are_a_setting(stack: Path) -> None:
    stack.with_suffix(".csv").write_text("z,y,x\n1,2,3\n")
    sample = read_entry(entry_of(stack), Selection(axes="ZYX"), with_dots=True)
    np.testing.assert_array_equal(sample.image[..., 0], VOLUME)
