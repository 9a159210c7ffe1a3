"""Dots of an image from a CSV file, checked against the image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.images.point_units import UNKNOWN_UNIT, DotUnit, check_spread
from cellcount_jax.images.points import check_points_inside, read_points


def read_image_points(
    path: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    spacing: Sequence[float] | None,
    known: DotUnit = UNKNOWN_UNIT,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Reads the dots of an image as `read_points`, and makes sure that they are of it.

    Args:
      path: see `read_points`.
      shape: `(D,)` of the image.
      spacing: `(D,)` its voxel edges in micrometres; None = unknown.
      known: what is known of their unit.
      valid: `(*shape)` bool, where dots are expected; None = everywhere.

    Returns:
      `(N, D)` float32 dots in voxels, all inside.

    Raises:
      InputError: see `read_points`; a dot outside; or dots that lie as micrometres would.
    """
    edges = known.spacing or spacing
    points = read_points(path, ndim=len(shape), unit=known.unit, spacing=edges)
    check_image_points(points, shape, path, spacing=edges, known=known, valid=valid)
    return points


def check_image_points(
    points: np.ndarray,
    shape: Sequence[int],
    path: str | os.PathLike[str],
    *,
    spacing: Sequence[float] | None,
    known: DotUnit = UNKNOWN_UNIT,
    valid: np.ndarray | None = None,
) -> None:
    """Makes sure that dots are those of an image and in voxels; see `read_image_points`.

    Raises:
      InputError: a dot outside; or dots that lie as micrometres would.
    """
    asked = known.unit is None
    check_points_inside(points, shape, path, spacing=spacing if asked else None)
    if asked and known.everywhere:
        check_spread(points, shape, Path(path), spacing=spacing, valid=valid)
