"""Which dots are seen in a plane of a volume, and how those of nearby planes are drawn in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Ghosts(NamedTuple):
    """Dots of nearby planes, as they are drawn.

    Attributes:
      rows: `(G,)` of the dots, the furthest first, so that nearer ones are drawn over them.
      points: `(G, D)` voxels, moved into the plane.
      after: `(G,)` bool: they lie in later planes; those of earlier ones point the other way.
      nearness: `(G,)` in (0, 1): 1 in the plane itself, lower with the distance; of size and
        opacity.
    """

    rows: np.ndarray
    points: np.ndarray
    after: np.ndarray
    nearness: np.ndarray


def in_plane(points: np.ndarray, *, axis: int, index: int) -> np.ndarray:
    """`(P,)` rows of the dots `(N, D)` (voxels) that lie in a plane: at floor(x + 0.5)."""
    return np.flatnonzero(np.floor(points[:, axis] + 0.5) == index)


def near_plane(points: np.ndarray, *, axis: int, index: int, reach: int) -> Ghosts:
    """Dots in the `reach` planes before and after one, but not in it.

    Args:
      points: `(N, D)` voxels.
      axis: that the planes are across.
      index: of the plane.
      reach: how many planes; 0 for none.
    """
    apart = np.floor(points[:, axis] + 0.5) - index
    rows = np.flatnonzero((apart != 0) & (np.abs(apart) <= reach))
    rows = rows[np.argsort(-np.abs(apart[rows]), kind="stable")]
    moved = points[rows].copy()
    moved[:, axis] = index
    nearness = 1 - np.abs(apart[rows]) / (reach + 1)
    return Ghosts(rows, moved, apart[rows] > 0, nearness)
