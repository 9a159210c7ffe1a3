"""Points for other programs, of the part of a file that was counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile

from cellcount_jax.counting import point_exports
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source


def test_points_of_a_level_are_in_pixels_of_the_whole_slide_for_qupath(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (64, 96)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(image, subifds=1, metadata={"axes": "YX"})
        file.write(image[::2, ::2], subfiletype=1)
    points, scores = np.array([[0, 0], [10, 20]], np.float32), np.ones(2)
    with open_source(tmp_path / "a.ome.tif", Selection(level=1)) as source:
        assert source.shape == (32, 48)
        formats = tuple(point_exports.FORMATS)
        point_exports.write(tmp_path, points, scores, source, formats=formats)
    features = json.loads((tmp_path / "points.geojson").read_text())["features"]
    # The corner of pixel 20 of the level is at 40 of the whole; its middle is at 41.
    found = [feature["geometry"]["coordinates"] for feature in features]
    assert found == [[1, 1], [41, 21]]
    names = {one.file for one in point_exports.FORMATS.values()}
    assert names <= {path.name for path in tmp_path.iterdir()}
