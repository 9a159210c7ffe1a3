"""`cellcount count --scene`: one of several images in a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.usefixtures("quick_compiling")


def test_the_only_image_of_a_file_is_one_count(
    tmp_path: Path, run_2d: Path, call: Callable[..., int]
) -> None:
    """With --scene and without."""
    path, output = tmp_path / "a.ome.tif", tmp_path / "out"
    image = np.random.default_rng(0).integers(0, 255, (40, 40), "u1")
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(image, metadata={"axes": "YX", "Name": "left"})
    for given in ([], ["--scene", "0"]):
        assert call("count", path, *given, "--model", run_2d, "--output", output) == 0
    with (output / "counts.csv").open(newline="") as file:
        assert [row["folder"] for row in csv.DictReader(file)] == ["a"]
    assert call("count", path, "--scene", "1", "--model", run_2d, "--output", output) == 1


def test_two_scenes_of_a_file_are_two_counts(
    tmp_path: Path, run_2d: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Into one folder, each equal to that of the scene saved on its own."""
    path, output = tmp_path / "a.ome.tif", tmp_path / "out"
    scenes = [np.random.default_rng(k).integers(0, 255, (40, 40 + 8 * k), "u1") for k in range(2)]
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, image in zip(["left", "right"], scenes, strict=True):
            file.write(image, metadata={"axes": "YX", "Name": name})
    assert call("count", path, "--model", run_2d, "--output", output) == 1
    error = capsys.readouterr().err
    assert "holds 2 images: 0 (left), 1 (right); choose one with --scene" in error
    for scene, image in zip(["left", "1"], scenes, strict=True):
        assert call("count", path, "--scene", scene, "--model", run_2d, "--output", output) == 0
        alone = tmp_path / f"{scene}.tif"
        tifffile.imwrite(alone, image)
        assert call("count", alone, "--model", run_2d, "--output", tmp_path / "alone") == 0
        number = {"left": "0", "1": "1"}[scene]
        found, expected = output / f"a_scene_{number}", tmp_path / "alone" / scene
        assert (found / "points.csv").read_text() == (expected / "points.csv").read_text()
        assert json.loads((found / "summary.json").read_text())["scene"] == number
    # By its other name it is the same count.
    assert call("count", path, "--scene", "right", "--model", run_2d, "--output", output) == 0
    with (output / "counts.csv").open(newline="") as file:
        rows = [(row["folder"], row["scene"]) for row in csv.DictReader(file)]
    assert rows == [("a_scene_0", "0"), ("a_scene_1", "1")]
    assert "scene 1 of 2 (right)" in capsys.readouterr().out
