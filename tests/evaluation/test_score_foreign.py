"""Scores of points in the files of ImageJ and QuPath."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellcount_jax import cli
from cellcount_jax.evaluation.pairing import find_pairs
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.imagej_rois import write_rois
from cellcount_jax.images.imagej_stack import Stack
from cellcount_jax.images.points import write_points
from cellcount_jax.images.qupath_points import write_geojson

# At neither a place nor a plane of another.
DOTS = np.array([[0, 5, 9], [1, 22, 30], [1, 9, 33], [2, 27, 4], [2, 14, 17]], np.float32)


def score(folder: Path, *arguments: object) -> dict[str, Any]:
    output = folder / "scored"
    assert cli.main(["score", *map(str, arguments), "--output", str(output)]) == 0
    content: dict[str, Any] = json.loads((output / "scores.json").read_text())
    return content["pooled"] if "pooled" in content else content["per_image"][0]


def test_a_stack_of_channels_in_all_formats(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (3, 2, 32, 40)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZCYX"})
    write_points(tmp_path / "dots.csv", DOTS)
    write_rois(tmp_path / "found.zip", DOTS[1:], stack=Stack(planes=3, channels=2))
    write_geojson(tmp_path / "found.geojson", DOTS[1:], np.ones(4))
    markers = "".join(
        f"<Marker><MarkerX>{x}</MarkerX><MarkerY>{y}</MarkerY><MarkerZ>{2 * z + 2}</MarkerZ>"
        "</Marker>"
        for z, y, x in DOTS[1:].astype(int)
    )
    (tmp_path / "found.xml").write_text(
        "<CellCounter_Marker_File><Image_Properties><Image_Filename>a.tif</Image_Filename>"
        f"</Image_Properties><Marker_Data><Marker_Type><Type>3</Type>{markers}</Marker_Type>"
        "</Marker_Data></CellCounter_Marker_File>"
    )
    for name in ("found.zip", "found.geojson", "found.xml"):
        options = ("--tolerance", "0.5px", "--image", tmp_path / "a.tif", "--channel", "1")
        found = score(tmp_path, tmp_path / name, tmp_path / "dots.csv", *options)
        assert (found["tp"], found["fp"], found["fn"]) == (4, 0, 1), name


def test_folders_are_paired_by_the_names_that_programs_give(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    write_image(theirs / "a.tif", np.ones((32, 40), np.uint8))
    write_rois(theirs / "a_rois.zip", DOTS[:, 1:])
    write_image(theirs / "b_cp_masks.tif", np.ones((32, 40), np.uint8))
    (theirs / "a.xml").write_text("<OME/>")
    for name in "ab":
        write_geojson(ours / f"{name}.geojson", DOTS[:, 1:], np.ones(5))
    pairs, alone = find_pairs(ours, theirs)
    assert not alone
    (a, b) = pairs
    assert a[1].points == theirs / "a_rois.zip" and a[1].image == theirs / "a.tif"
    assert b[1].labels == theirs / "b_cp_masks.tif" and b[1].points is None


def test_without_its_image_a_volume_is_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rois(tmp_path / "a.zip", DOTS)
    write_rois(tmp_path / "b.zip", DOTS)
    both = [str(tmp_path / "a.zip"), str(tmp_path / "b.zip")]
    assert cli.main(["score", *both, "--tolerance", "2px"]) == 1
    assert "on several slices, but the image is 2D" in capsys.readouterr().err
