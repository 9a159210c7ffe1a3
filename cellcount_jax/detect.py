"""From a map to cell locations: local maxima, or a threshold and connected components.

Pure functions on NumPy arrays, 2D and 3D alike. A map is `(*spatial,)`; locations are
float32 `(N, D)` in index order (`y, x` or `z, y, x`), voxel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cellcount_jax.errors import InputError


@overload
def find_peaks(
    map: np.ndarray,
    *,
    threshold_abs: float,
    min_distance: int | Sequence[int] = ...,
    return_scores: Literal[False] = ...,
) -> np.ndarray: ...
@overload
def find_peaks(
    map: np.ndarray,
    *,
    threshold_abs: float,
    min_distance: int | Sequence[int] = ...,
    return_scores: Literal[True],
) -> tuple[np.ndarray, np.ndarray]: ...
def find_peaks(
    map: np.ndarray,
    *,
    threshold_abs: float,
    min_distance: int | Sequence[int] = 1,
    return_scores: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Finds the local maxima of a map, one per plateau.

    A peak is above the threshold and the largest value of the window of
    `2 * min_distance + 1` voxels per axis around it (at the border, of the part inside
    the map). Voxels of equal value that touch are one plateau: it has no peak where it
    touches a higher value (it is a shoulder), else its member nearest to its mean stands
    for it, because networks that compute in half precision give flat tops and a cell must
    not count twice. Of equal peaks within each other's window the first in index order
    stays.

    Args:
      map: `(*spatial,)`, no NaN.
      threshold_abs: a peak's value is greater than this; infinity means no peaks.
      min_distance: voxels, one for all axes or one per axis, because voxels can be
        anisotropic; 0 on an axis means that its slices are searched one by one.
      return_scores: whether to return the peaks' values too.

    Returns:
      `(N, D)` float32 points, sorted by their indices; with `return_scores` also their
      `(N,)` values.

    Raises:
      InputError: if the map has a NaN or no axis, the threshold is NaN, or
        `min_distance` is no such number.

    Source: the rule of FIDT, Liang et al., "Focal Inverse Distance Transform Maps for
    Crowd Localization" (a 3x3 maximum filter), with ties made unique.
    """
    values = _checked_map(map, threshold_abs)
    reach = _window_reach(min_distance, values.ndim)
    touching = tuple(min(r, 1) for r in reach)

    top = (values == _window_maximum(values, touching)) & (values > threshold_abs)
    shoulder = top & (_window_maximum(np.where(top, -np.inf, values), touching) == values)
    neighbourhood = np.ones([3] * values.ndim, bool)
    for axis, step in enumerate(touching):
        if step == 0:
            side = np.moveaxis(neighbourhood, axis, 0)
            side[0] = side[2] = False
    members, plateau, count = _label(top, neighbourhood)

    is_peak = np.ones(count, bool)
    is_peak[plateau[shoulder[tuple(members.T)]]] = False
    offset = members - _centroids(members, plateau, count)[plateau]
    order = np.lexsort(((offset**2).sum(axis=1), plateau))
    _, first = np.unique(plateau[order], return_index=True)
    peaks = members[np.sort(order[first][is_peak])]

    if reach != touching:
        highest = _window_maximum(values, reach)
        index = tuple(peaks.T)
        peaks = peaks[values[index] == highest[index]]
    peaks = _thin(peaks, reach)
    points = peaks.astype(np.float32)
    return (points, values[tuple(peaks.T)]) if return_scores else points


@overload
def find_components(
    map: np.ndarray,
    *,
    threshold_abs: float,
    connectivity: int = ...,
    return_scores: Literal[False] = ...,
) -> np.ndarray: ...
@overload
def find_components(
    map: np.ndarray, *, threshold_abs: float, connectivity: int = ..., return_scores: Literal[True]
) -> tuple[np.ndarray, np.ndarray]: ...
def find_components(
    map: np.ndarray,
    *,
    threshold_abs: float,
    connectivity: int = 1,
    return_scores: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Finds the connected components above a threshold, as the paper does (section 3).

    Args:
      map: `(*spatial,)`, no NaN.
      threshold_abs: a component is made of the voxels greater than this.
      connectivity: voxels are connected when they differ by one on at most this many
        axes, 1 to D. The default, faces only, keeps cells apart that touch at an edge or a
        corner: merged cells are this rule's main error.
      return_scores: whether to return the components' largest values too.

    Returns:
      `(N, D)` float32 unweighted centroids (sub-voxel; of a bent component it may lie
      outside), in the order of the components' first voxels; with `return_scores` also
      the `(N,)` largest values.

    Raises:
      InputError: if the map has a NaN or no axis, the threshold is NaN, or the
        connectivity is out of range.
    """
    values = _checked_map(map, threshold_abs)
    if connectivity not in range(1, values.ndim + 1):
        raise InputError(f"connectivity is {connectivity}; it must be 1 to {values.ndim}.")
    structure = ndimage.generate_binary_structure(values.ndim, connectivity)
    members, component, count = _label(values > threshold_abs, structure)
    points = _centroids(members, component, count).astype(np.float32)
    if not return_scores:
        return points
    scores = np.full(count, -np.inf, values.dtype)
    np.maximum.at(scores, component, values[tuple(members.T)])
    return points, scores


def fidt_threshold(map: np.ndarray, *, fraction: float = 100 / 255, floor: float = 0.1) -> float:
    r"""The threshold of FIDT, relative to each map's own maximum.

    .. math:: t = \text{fraction} \cdot \max_i M(i)

    It needs no calibration, and so serves maps whose scale differs from the training
    images'. A map with a maximum below the floor holds no cells.

    Args:
      map: `(*spatial,)`, in units of the target (1 at a dot), no NaN.
      fraction: of the maximum.
      floor: of the maximum; below it the threshold is infinite.

    Returns:
      The threshold, for `find_peaks`.

    Raises:
      InputError: if the map is empty or has a NaN.

    Source: Liang et al., "Focal Inverse Distance Transform Maps for Crowd Localization",
    and the numbers of its code.
    """
    values = _checked_map(map, 0.0)
    if values.size == 0:
        raise InputError(f"The map has shape {values.shape}; an empty map has no maximum.")
    highest = float(values.max())
    return float("inf") if highest < floor else fraction * highest


def locate(
    map: np.ndarray,
    *,
    rule: str,
    threshold: float,
    min_distance: int | Sequence[int] = 1,
    fidt_floor: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Cell locations by one of the detection rules.

    Args:
      map: `(*spatial,)`, no NaN.
      rule: 'peaks' (`find_peaks`), 'components' (`find_components`, the paper's), or 'fidt',
        peaks above `threshold` times the map's own maximum (`fidt_threshold`).
      threshold: on the map's values; for 'fidt' a fraction.
      min_distance: of peaks, see `find_peaks`.
      fidt_floor: of the map's maximum, see `fidt_threshold`.

    Returns:
      Points `(N, D)` float32 and their scores `(N,)`, the largest values of each.

    Raises:
      InputError: the rule is unknown.
    """
    if rule == "components":
        return find_components(map, threshold_abs=threshold, return_scores=True)
    if rule == "fidt":
        threshold = fidt_threshold(map, fraction=threshold, floor=fidt_floor)
    elif rule != "peaks":
        raise InputError(f"rule is {rule!r}; it must be peaks, components or fidt.")
    return find_peaks(map, threshold_abs=threshold, min_distance=min_distance, return_scores=True)


def _checked_map(map: np.ndarray, threshold_abs: float) -> np.ndarray:
    """The map as float32 or float64 (SciPy's filters know no half precision)."""
    values = np.asarray(map)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if values.ndim == 0:
        raise InputError("The map is a single number; it must have spatial axes.")
    if (missing := np.isnan(values)).any():
        first = tuple(int(i) for i in np.argwhere(missing)[0])
        raise InputError(
            f"The map has {int(missing.sum())} NaN of {values.size} values, the first at {first}; "
            "every value must be a number."
        )
    if np.isnan(threshold_abs):
        raise InputError("threshold_abs is NaN; it must be a number or infinity.")
    return values


def _window_reach(min_distance: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """`min_distance` as one int per axis."""
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


def _window_maximum(values: np.ndarray, reach: tuple[int, ...]) -> np.ndarray:
    """The maximum over `2 * reach + 1` voxels per axis, within the map."""
    size = [2 * r + 1 for r in reach]
    return ndimage.maximum_filter(values, size=size, mode="constant", cval=-np.inf)


def _label(mask: np.ndarray, structure: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Connected components of a mask: `(K, D)` voxels, their `(K,)` number from 0, count."""
    labels, count = ndimage.label(mask, structure=structure)
    return np.argwhere(mask), labels[mask].astype(np.intp) - 1, int(count)


def _centroids(members: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """The `(count, D)` means of the members of each component."""
    sizes = np.bincount(number, minlength=count)
    sums = [np.bincount(number, weights=axis, minlength=count) for axis in members.T]
    return np.stack(sums, axis=1) / sizes[:, None]


def _thin(peaks: np.ndarray, reach: tuple[int, ...]) -> np.ndarray:
    """Drops every peak that lies within the window of an earlier one that stays."""
    if len(peaks) < 2:
        return peaks
    # Scaled so that a window has the half-width 1: one voxel more is at least 1 + 1 / reach.
    scaled = peaks * np.array([1 / r if r else 2.0 for r in reach])
    pairs = cKDTree(scaled).query_pairs(1 + 0.5 / max(reach), p=np.inf, output_type="ndarray")
    keep = np.ones(len(peaks), bool)
    for earlier, later in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if keep[earlier]:
            keep[later] = False
    return peaks[keep]
