"""Parts of detection: local maxima, plateaus as one peak each, connected components.

Pure functions on NumPy arrays, 2D and 3D alike. In a part of a map they give the same as in the
whole map, apart from its margin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from cellcount_jax.errors import InputError

# Up to this share of a map's voxels plateaus are found voxel by voxel, from there on in the map.
_FEW = 1 / 16


def local_maxima(
    values: np.ndarray, *, threshold_abs: float, reach: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plateaus, of one voxel or more, that are higher than all voxels that touch them.

    Those that are also the highest in their window are the peaks of `find_peaks`, apart from equal
    peaks in each other's window: see `first_of_equal`.

    Args:
      values: `(*spatial,)` float32 or float64, no NaN.
      threshold_abs: see `find_peaks`.
      reach: `(D,)` `min_distance` of each axis.

    Returns:
      `(P, D)` whole numbers, sorted by their indices: the voxel that stands for each plateau;
      `(P, 2, D)` the least and greatest indices of each; and `(P,)` bool: whether its voxel is the
      highest in its window.
    """
    touching = tuple(min(r, 1) for r in reach)
    top = (values == _highest_touching(values, touching)) & (values > threshold_abs)
    members = np.argwhere(top)
    around = _Surroundings(values, reach)
    plateau, count = _plateaus(members, values.shape, touching)

    # A plateau that touches a higher value is a shoulder.
    touched = around.highest(members, touching, others=True)
    is_peak = np.ones(count, bool)
    is_peak[plateau[touched == values[tuple(members.T)]]] = False
    # Relative to a member, so that the origin of the map decides no tie.
    from_first = members - members[np.unique(plateau, return_index=True)[1]][plateau]
    offset = from_first - centroids(from_first, plateau, count)[plateau]
    order = np.lexsort(((offset**2).sum(axis=1), plateau))
    _, first = np.unique(plateau[order], return_index=True)
    middle = order[first][is_peak]
    middle.sort()
    peaks = members[middle]
    extent = np.stack(
        [
            np.full((count, values.ndim), np.iinfo(np.intp).max),
            np.zeros((count, values.ndim), np.intp),
        ],
        1,
    )
    np.minimum.at(extent[:, 0], plateau, members)
    np.maximum.at(extent[:, 1], plateau, members)
    extent = extent[plateau[middle]]

    highest = values[tuple(peaks.T)]
    if reach != touching:
        highest = around.highest(peaks, reach)
    return peaks, extent, values[tuple(peaks.T)] == highest


def first_of_equal(peaks: np.ndarray, reach: tuple[int, ...]) -> np.ndarray:
    """The first, in index order, of equal peaks in each other's window.

    Args:
      peaks: `(P, D)` as from `local_maxima`; those in each other's window are equal.
      reach: `(D,)` `min_distance` of each axis.

    Returns:
      `(P,)` bool, which peaks stay.
    """
    keep = np.ones(len(peaks), bool)
    if len(peaks) < 2:
        return keep
    # Scaled so that a window has the half-width 1: one voxel more is at least 1 + 1 / reach.
    scaled = peaks * np.array([1 / r if r else 2.0 for r in reach])
    pairs = cKDTree(scaled).query_pairs(1 + 0.5 / max(reach), p=np.inf, output_type="ndarray")
    for earlier, later in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if keep[earlier]:
            keep[later] = False
    return keep


def window_reach(min_distance: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """`min_distance` of `find_peaks` as one int per axis.

    Raises:
      InputError: it is no such number.
    """
    reach = np.asarray(min_distance)
    if reach.ndim == 0:
        reach = np.repeat(reach, ndim)
    if (
        reach.shape != (ndim,)
        or not np.issubdtype(reach.dtype, np.integer)
        or reach.min() < 0
        or reach.max() < 1
    ):
        raise InputError(
            f"min_distance is {min_distance}; it must be one whole number of voxels, at least 1, "
            f"or {ndim} of them (one per axis), not all 0."
        )
    return tuple(int(r) for r in reach)


def label(mask: np.ndarray, structure: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Connected components of a mask: `(K, D)` voxels, their `(K,)` number from 0, count."""
    labels, count = ndimage.label(mask, structure=structure)
    return np.argwhere(mask), labels[mask].astype(np.intp) - 1, int(count)


def centroids(members: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """The `(count, D)` means of the members of each component."""
    sizes = np.bincount(number, minlength=count)
    sums = [np.bincount(number, weights=axis, minlength=count) for axis in members.T]
    return np.stack(sums, axis=1) / sizes[:, None]


class _Surroundings:
    """A map with a margin, for what is around a few of its voxels."""

    def __init__(self, values: np.ndarray, reach: tuple[int, ...]) -> None:
        self._reach = reach
        beyond = np.pad(values, [(r, r) for r in reach], constant_values=-np.inf)
        self._flat = beyond.ravel()
        self._strides = np.cumprod([1, *beyond.shape[:0:-1]])[::-1]

    def highest(
        self, places: np.ndarray, reach: tuple[int, ...], *, others: bool = False
    ) -> np.ndarray:
        """The `(P,)` highest values in the windows, within the map, around places `(P, D)`; of the
        `others` alone, those at these places do not count."""
        at = (places + self._reach) @ self._strides
        values = self._flat[at]
        if others:
            self._flat[at] = -np.inf
        highest = np.full(len(places), -np.inf, self._flat.dtype)
        for step in itertools.product(*(range(-r, r + 1) for r in reach)):
            np.maximum(highest, self._flat[at + int(step @ self._strides)], out=highest)
        self._flat[at] = values
        return highest


def _highest_touching(values: np.ndarray, touching: tuple[int, ...]) -> np.ndarray:
    """The highest of each voxel and those that touch it, along axes where `touching` is 1."""
    highest = values
    for axis, touches in enumerate(touching):
        if touches:
            along = (slice(None),) * axis
            first, last = (*along, slice(None, -1)), (*along, slice(1, None))
            wider = highest.copy()
            np.maximum(wider[first], highest[last], out=wider[first])
            np.maximum(wider[last], highest[first], out=wider[last])
            highest = wider
    return highest


def _plateaus(
    members: np.ndarray, shape: tuple[int, ...], touching: tuple[int, ...]
) -> tuple[np.ndarray, int]:
    """The number `(K,)`, from 0, of the plateau of each of some voxels `(K, D)`, sorted by their
    indices, and how many plateaus there are."""
    if len(members) > _FEW * math.prod(shape):
        mask = np.zeros(shape, bool)
        mask[tuple(members.T)] = True
        structure = np.zeros([3] * len(shape), bool)
        structure[tuple(slice(1 - t, 2 + t) for t in touching)] = True
        _, plateau, count = label(mask, structure)
        return plateau, count
    # With a voxel between one row and the next none touches the row's end.
    strides = np.cumprod([1, *(n + 1 for n in shape[:0:-1])])[::-1]
    at = members @ strides
    pairs = []
    for step in itertools.product(*(range(-t, t + 1) for t in touching)):
        if step > (0,) * len(shape):
            other = at + int(step @ strides)
            found = np.minimum(np.searchsorted(at, other), len(at) - 1)
            touch = np.flatnonzero(at[found] == other)
            pairs.append(np.stack([touch, found[touch]]))
    first, second = np.concatenate(pairs, axis=1)
    links = sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(len(at),) * 2)
    count, plateau = csgraph.connected_components(links, directed=False)
    return plateau.astype(np.intp), int(count)
