"""The scene that is shown of a session: pixels, contrast, and the dots in and near a plane."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from cellcount_jax.images.regions import all_of, voxels_of
from cellcount_jax.label.session import Session

_MAX_VOXELS_IN_MEMORY = 2**26  # of larger images planes are read as they are shown


class Pixels:
    """A session's image as an array for napari, read at each index; the mean of channels."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.shape = tuple(session.grid.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.float32)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        region: list[slice] = []
        index: list[slice | int] = []
        for part, size in zip(key, self.shape, strict=True):
            if isinstance(part, slice):
                start, stop, step = part.indices(size)
                region.append(slice(start, stop))
                index.append(slice(None, None, step))
            else:
                at = int(part) % size
                region.append(slice(at, at + 1))
                index.append(0)
        values: np.ndarray = self._session.intensities(tuple(region))[tuple(index)]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)


def pixels(session: Session) -> Pixels | np.ndarray:
    """The image of a session, in memory where it is small."""
    lazy = Pixels(session)
    return np.asarray(lazy) if lazy.size <= _MAX_VOXELS_IN_MEMORY else lazy


def contrast_limits(session: Session) -> tuple[float, float]:
    """Intensities shown as black and white: percentiles of the middle plane."""
    shape = session.grid.shape
    plane = list(all_of(shape))
    if len(shape) == 3:
        plane[0] = slice(shape[0] // 2, shape[0] // 2 + 1)
    values = session.intensities(tuple(plane))
    low, high = np.percentile(values, (0.5, 99.8)).tolist()
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1)


class Ghosts(NamedTuple):
    """Dots of nearby planes, as they are drawn in one.

    Attributes:
      rows: `(G,)` of the dots, the furthest first, so that nearer ones are drawn over them.
      points: `(G, D)` voxels, moved into the plane.
      after: `(G,)` bool: whether they lie in later planes.
      nearness: `(G,)` in (0, 1), lower with the distance; 1 would be in the plane itself.
    """

    rows: np.ndarray
    points: np.ndarray
    after: np.ndarray
    nearness: np.ndarray


def in_plane(points: np.ndarray, *, axis: int, index: int) -> np.ndarray:
    """`(P,)` rows of the dots `(N, D)` (voxels) whose voxels lie in a plane."""
    return np.flatnonzero(voxels_of(points[:, axis]) == index)


def near_plane(points: np.ndarray, *, axis: int, index: int, reach: int) -> Ghosts:
    """Dots in the `reach` planes before and after one, but not in it.

    Args:
      points: `(N, D)` voxels.
      axis: at right angles to the planes.
      index: of the plane.
      reach: number of planes; 0 for none.
    """
    apart = voxels_of(points[:, axis]) - index
    rows = np.flatnonzero((apart != 0) & (np.abs(apart) <= reach))
    rows = rows[np.argsort(-np.abs(apart[rows]), kind="stable")]
    moved = points[rows].copy()
    moved[:, axis] = index
    nearness = 1 - np.abs(apart[rows]) / (reach + 1)
    return Ghosts(rows, moved, apart[rows] > 0, nearness)
