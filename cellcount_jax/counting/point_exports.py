"""The points of a count in the formats of other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.images import exports
from cellcount_jax.images.imagej_rois import write_rois
from cellcount_jax.images.imagej_stack import stack_of
from cellcount_jax.images.qupath_points import write_geojson
from cellcount_jax.images.regions import Resampled
from cellcount_jax.images.sources import Source, open_source

# The points in other formats, by the name that --export gives them.
FORMATS = {
    "cellfinder": "points.xml, for cellfinder and brainmapper",
    "imagej": "points_imagej.zip, for ImageJ's ROI Manager",
    "napari": "points_napari.csv, which napari opens by dropping",
    "parquet": "points.parquet, for millions of cells",
    "qupath": "points.geojson, for QuPath",
}


def write(
    folder: Path,
    points: np.ndarray,
    scores: np.ndarray,
    source: Source,
    *,
    formats: Sequence[str],
) -> None:
    """Writes the points in the formats that are wanted.

    Args:
      folder: for the files.
      points: `(N, D)` in voxels of the image.
      scores: `(N,)`.
      source: the image.
      formats: names of `FORMATS`.

    Raises:
      InputError: the extra for Parquet is not installed.
    """
    stack = stack_of(source)
    for name in formats:
        match name:
            case "cellfinder":
                exports.write_cellfinder(folder / "points.xml", points)
            case "imagej":
                write_rois(folder / "points_imagej.zip", points, stack=stack)
            case "napari":
                exports.write_napari(folder / "points_napari.csv", points)
            case "parquet":
                path, spacing = folder / "points.parquet", source.spacing
                exports.write_parquet(path, points, scores, spacing=spacing)
            case "qupath":
                full = _at_full_size(points, source)
                write_geojson(folder / "points.geojson", full, scores, time=stack.time)


def _at_full_size(points: np.ndarray, source: Source) -> np.ndarray:
    """Points of a level of a pyramid in voxels of the largest, which QuPath counts in."""
    if not source.selection.level:
        return points
    with open_source(source.path, dataclasses.replace(source.selection, level=0)) as largest:
        return Resampled(largest, source.shape).back(points)
