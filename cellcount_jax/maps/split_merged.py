"""Cells that lie on each other: as many points as the integral of the density.

Two cells closer than the network can separate give one peak, yet the integral of a density map
counts both. Where the part of the density that belongs to a peak holds more than one cell, the
peak is replaced by as many points. Pure functions on NumPy arrays, 2D and 3D alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import voxels_of

_MAX_ITERATIONS = 50
_MAX_TIES = 8  # points that are equally near to a voxel


def split_merged(
    points: np.ndarray,
    scores: np.ndarray,
    density: np.ndarray,
    *,
    least: float,
    reach: float,
    spacing: Sequence[float] | None = None,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces points that stand for several cells.

    A voxel of the density belongs to the nearest point, if it is within `reach`. A point whose
    voxels sum to n stands for max(1, floor(n - least) + 2) cells: for two from `least` on, for
    three from `least` + 1 on. They are placed by k-means on its voxels, weighted by their
    density, which starts along the longest axis of the group.

    Args:
      points: `(N, D)` locations in voxels, inside the image.
      scores: `(N,)`, which the new points take over from the old one.
      density: `(*spatial,)` cells per voxel; negative values count as 0.
      least: integral from which a point stands for two cells, above 1; infinity: none does.
      reach: distance in the units of `spacing`, about that at which a lone cell's density ends.
      spacing: `(D,)` voxel size; ones by default.
      own: `(N,)` bool, the points to replace and to return; the others, of which voxels may be
        nearer, only keep those. Default: all.

    Returns:
      Points `(M, D)` float32 and their scores `(M,)`, M at least N; a point that is not replaced
      keeps its place and order, and new points follow each other in place of the old one.

    Raises:
      InputError: `least` or `reach` cannot be used.
    """
    if not least > 1:
        raise InputError(f"least is {least}; it must be above 1, which is one cell.")
    if not 0 < reach < np.inf:
        raise InputError(f"reach is {reach}; it must be a positive number.")
    own = np.ones(len(points), bool) if own is None else own
    if not own.any() or least == np.inf:
        return points[own], scores[own]
    edges = np.ones(density.ndim) if spacing is None else np.asarray(spacing, float)
    # Large volumes are mostly background: only voxels near a point are looked up in the tree.
    seeds = np.zeros(density.shape, bool)
    seeds[tuple(voxels_of(points).T)] = True
    box = [2 * int(reach / edge + 1) + 1 for edge in edges]
    voxels = np.argwhere((density > 0) & ndimage.maximum_filter(seeds, size=box))
    weights = density[tuple(voxels.T)].astype(np.float64)
    distances, owners = cKDTree(points * edges).query(
        voxels * edges, k=range(1, _MAX_TIES + 1), distance_upper_bound=reach * (1 + 1e-9)
    )
    # The first of equally near points, so that points that are farther off decide nothing.
    nearest = distances <= distances[:, :1] * (1 + 1e-9)
    owner = np.where(nearest, owners, len(points)).min(1)
    owned = np.isfinite(distances[:, 0])
    voxels, weights, owner = voxels[owned], weights[owned], owner[owned]
    integral = np.bincount(owner, weights=weights, minlength=len(points))
    numbers = np.maximum(1, np.floor(integral - least).astype(int) + 2)

    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(points) + 1))
    placed = []
    for i in np.flatnonzero(own):
        if numbers[i] == 1:
            placed.append(points[i][None])
            continue
        part = order[starts[i] : starts[i + 1]]
        centres = _weighted_means(voxels[part] * edges, weights[part], numbers[i])
        placed.append(centres / edges)
    counts = [len(p) for p in placed]
    return np.concatenate(placed).astype(np.float32), np.repeat(scores[own], counts)


def _weighted_means(places: np.ndarray, weights: np.ndarray, number: int) -> np.ndarray:
    """k-means of weighted places, which starts at equal shares along their longest axis."""
    number = min(number, len(places))
    mean = np.average(places, axis=0, weights=weights)
    spread = np.cov(places.T, aweights=weights, ddof=0).reshape(mean.size, mean.size)
    along = (places - mean) @ np.linalg.eigh(spread)[1][:, -1]
    order = np.argsort(along, kind="stable")
    before = np.cumsum(weights[order]) - weights[order] / 2
    group = np.empty(len(places), int)
    group[order] = np.minimum(before / weights.sum() * number, number - 1).astype(int)
    for _ in range(_MAX_ITERATIONS):
        total = np.bincount(group, weights=weights, minlength=number)
        sums = [np.bincount(group, weights=weights * a, minlength=number) for a in places.T]
        centres = np.stack(sums, axis=1) / total[:, None]
        nearest = cKDTree(centres).query(places)[1]
        if np.array_equal(nearest, group) or len(np.unique(nearest)) < number:
            break
        group = nearest
    return centres
