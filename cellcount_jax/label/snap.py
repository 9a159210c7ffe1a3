"""The brightest place near a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

_SIGMA = 1.0  # voxels, against noise


def local_maximum(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    shape: Sequence[int],
    point: np.ndarray,
    reach: np.ndarray,
) -> np.ndarray:
    """The maximum of the smoothed image near a point, sub-voxel.

    Args:
      read: gives the intensities of a region.
      shape: `(D,)` of the image.
      point: `(D,)` voxels.
      reach: `(D,)` voxels, how far it may be along each axis: an ellipsoid.

    Returns:
      `(D,)` voxels: the largest value, moved by the vertex of the parabola through it and its
      neighbours along each axis, at most half a voxel.
    """
    centre = np.floor(point + 0.5).astype(int)
    margin = reach + 1 + int(4 * _SIGMA + 0.5)
    start = np.maximum(centre - margin, 0)
    stop = np.minimum(centre + margin + 1, shape)
    values = read(tuple(map(slice, start.tolist(), stop.tolist())))
    smooth = ndimage.gaussian_filter(values.astype(np.float64), _SIGMA, mode="nearest")
    away = np.stack(np.meshgrid(*map(np.arange, start, stop), indexing="ij"), -1) - centre
    near = np.square(away / reach).sum(-1) <= 1
    top = np.unravel_index(int(np.argmax(np.where(near, smooth, -np.inf))), smooth.shape)
    found = start + np.asarray(top, np.float64)
    for axis in range(len(shape)):
        line = smooth[tuple(slice(None) if a == axis else i for a, i in enumerate(top))]
        at = top[axis]
        if 0 < at < len(line) - 1:
            low, middle, high = line[at - 1 : at + 2]
            bend = low - 2 * middle + high
            if bend < 0:
                found[axis] += np.clip(0.5 * (low - high) / bend, -0.5, 0.5)
    return np.round(np.clip(found, -0.499, np.asarray(shape) - 0.501), 3)
