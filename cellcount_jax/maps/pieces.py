"""Peaks and components of a map that is read a part at a time, equal to those of the whole map.

The parts' cores tile the map. A peak belongs to the core that it lies in; a margin around the
core is read to decide about it. Components are measured core by core and joined across the
faces of the cores. Pure functions of a map that is indexed by slices, 2D and 3D alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Region, around, extent, within
from cellcount_jax.maps.maxima import label, local_maxima, window_reach

_MAX_PLATEAU_VOXELS = 2**27  # read around a core to find the end of a plateau


def peaks(
    read: Callable[[Region], np.ndarray],
    shape: Sequence[int],
    core: Region,
    *,
    threshold_abs: float,
    min_distance: int | Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """The peaks in a part of a map.

    The peaks of all parts together are those of `detect.find_peaks`, once `maxima.first_of_equal`
    has removed equal peaks in each other's window, also across parts.

    Args:
      read: gives a part of the map, `(*region,)`.
      shape: `(D,)` of the map.
      core: the part.
      threshold_abs: see `find_peaks`.
      min_distance: see `find_peaks`.

    Returns:
      `(P, D)` int64 indices in the map, sorted, and their values `(P,)`.

    Raises:
      InputError: the map is flat, and above the threshold, over so large a region that its end
        is not found.
    """
    reach = window_reach(min_distance, len(shape))
    nothing = np.zeros((0, len(shape)), np.int64), np.zeros(0, np.float32)
    # A plateau is one peak as a whole: where it does not end within the margin, more is read.
    for grown in range(8):
        margin = [(r + 2) * 4**grown for r in reach]
        outer = around(core, margin, shape)
        if grown and math.prod(extent(outer)) > _MAX_PLATEAU_VOXELS:
            break
        values = read(outer)
        if not (values[within(core, outer)] > threshold_abs).any():
            return nothing
        found, limits, is_peak = local_maxima(values, threshold_abs=threshold_abs, reach=reach)
        start = np.array([o.start for o in outer])
        lowest, highest = limits[:, 0] + start, limits[:, 1] + start
        begin, end = (np.array([getattr(c, side) for c in core]) for side in ("start", "stop"))
        seen_from = [o.start + r if o.start else 0 for o, r in zip(outer, reach, strict=True)]
        seen_to = [
            o.stop - r if o.stop < n else n for o, r, n in zip(outer, reach, shape, strict=True)
        ]
        meets = ((highest >= begin) & (lowest < end)).all(1)
        ends = ((lowest >= seen_from) & (highest < seen_to)).all(1)
        if not (meets & ~ends).any():
            places = found + start
            own = is_peak & ((places >= begin) & (places < end)).all(1)
            return places[own].astype(np.int64), values[tuple(found[own].T)]
    raise InputError(
        "the model's map is flat, and above the threshold, over a large region near"
        f" {tuple(int(c.start) for c in core)}: that is no map of cells; is the model trained?"
    )


class Pieces(NamedTuple):
    """The pieces of components that lie in a part of a map.

    Attributes:
      sizes: `(K,)` voxels of each.
      sums: `(K, D)` of its voxels' indices.
      highest: `(K,)` its largest value.
      first: `(K,)` the number of its first voxel, counted along the whole map.
      begins: number of each voxel on the faces where the core begins, and its component.
      ends: the same of each voxel beyond the faces where the core ends, and the component that
        it touches.
    """

    sizes: np.ndarray
    sums: np.ndarray
    highest: np.ndarray
    first: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


def pieces(
    values: np.ndarray, shape: Sequence[int], core: Region, *, threshold_abs: float
) -> Pieces:
    """The components above a threshold in a part of a map.

    Args:
      values: `(*core,)` of the map.
      shape: `(D,)` of the map.
      core: the part.
      threshold_abs: see `detect.find_components`, whose components touch by faces.
    """
    ndim = len(shape)
    members, component, count = label(
        values > threshold_abs, ndimage.generate_binary_structure(ndim, 1)
    )
    highest = np.full(count, -np.inf, values.dtype)
    np.maximum.at(highest, component, values[tuple(members.T)])
    places = members + [c.start for c in core]
    strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(ndim)], np.int64)
    numbers = places.astype(np.int64) @ strides
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, component, numbers)
    begins, ends = [], []
    for axis, (part, size) in enumerate(zip(core, shape, strict=True)):
        if part.start > 0:
            here = places[:, axis] == part.start
            begins.append(np.stack([numbers[here], component[here]], 1))
        if part.stop < size:
            here = places[:, axis] == part.stop - 1
            ends.append(np.stack([numbers[here] + strides[axis], component[here]], 1))
    nothing = np.zeros((0, 2), np.int64)
    return Pieces(
        sizes=np.bincount(component, minlength=count),
        sums=np.stack([np.bincount(component, p, minlength=count) for p in places.T], 1),
        highest=highest,
        first=first,
        begins=np.unique(np.concatenate([nothing, *begins]), axis=0),
        ends=np.concatenate([nothing, *ends]),
    )


def joined(parts: Iterable[Pieces], ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """The components of a map, from the pieces in its parts.

    Args:
      parts: from `pieces`, one for each of the cores that tile the map.
      ndim: D.

    Returns:
      As `detect.find_components`: `(N, D)` float32 centroids in the order of the components'
      first voxels, and their largest values.
    """
    parts = list(parts)
    offsets = np.cumsum([0, *(len(part.sizes) for part in parts)])
    total = int(offsets[-1])
    if not total:
        return np.zeros((0, ndim), np.float32), np.zeros(0, np.float32)
    begins, ends = (
        np.concatenate([p + [0, o] for p, o in zip(side, offsets, strict=False)])
        for side in ([part.begins for part in parts], [part.ends for part in parts])
    )
    begins = begins[np.argsort(begins[:, 0], kind="stable")]
    at = np.searchsorted(begins[:, 0], ends[:, 0])
    meets = at < len(begins)
    meets[meets] = begins[at[meets], 0] == ends[meets, 0]
    pairs = np.stack([ends[meets, 1], begins[at[meets], 1]])
    links = sparse.coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), shape=(total, total))
    count, number = csgraph.connected_components(links, directed=False)

    sizes = np.bincount(number, np.concatenate([part.sizes for part in parts]), count)
    sums = np.concatenate([part.sums for part in parts])
    means = np.stack([np.bincount(number, axis, count) for axis in sums.T], 1) / sizes[:, None]
    highest = np.full(count, -np.inf, parts[0].highest.dtype)
    np.maximum.at(highest, number, np.concatenate([part.highest for part in parts]))
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, number, np.concatenate([part.first for part in parts]))
    order = np.argsort(first)
    return means[order].astype(np.float32), highest[order]
