"""The points of a count in the formats of other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellcount_jax.images import exports
from cellcount_jax.images.imagej_rois import write_rois
from cellcount_jax.images.imagej_stack import stack_of
from cellcount_jax.images.qupath_points import write_geojson
from cellcount_jax.images.regions import Resampled
from cellcount_jax.images.sources import Source, open_source


class Format(NamedTuple):
    """A format of points.

    Attributes:
      file: its name in the folder of a count.
      use: what it is for, as a part of a sentence.
    """

    file: str
    use: str


# The points in other formats, by the name that --export gives them.
FORMATS = {
    "cellfinder": Format("points.xml", "for cellfinder and brainmapper"),
    "imagej": Format("points_imagej.zip", "for ImageJ's ROI Manager"),
    "napari": Format("points_napari.csv", "which napari opens by dropping"),
    "parquet": Format("points.parquet", "for millions of cells"),
    "qupath": Format("points.geojson", "for QuPath"),
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
        path = folder / FORMATS[name].file
        match name:
            case "cellfinder":
                exports.write_cellfinder(path, points)
            case "imagej":
                write_rois(path, points, stack=stack)
            case "napari":
                exports.write_napari(path, points)
            case "parquet":
                exports.write_parquet(path, points, scores, spacing=source.spacing)
            case "qupath":
                full = _at_full_size(points, source)
                write_geojson(path, full, scores, time=stack.time)


def _at_full_size(points: np.ndarray, source: Source) -> np.ndarray:
    """Points of a level of a pyramid in voxels of the largest, which QuPath counts in."""
    if not source.selection.level:
        return points
    with open_source(source.path, dataclasses.replace(source.selection, level=0)) as largest:
        return Resampled(largest, source.shape).back(points)
