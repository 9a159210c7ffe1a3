"""From a map to cell locations: local maxima, or a threshold and connected components.

Pure functions on NumPy arrays, 2D and 3D alike. A map is `(*spatial,)`; locations are
float32 `(N, D)` in index order (`y, x` or `z, y, x`), voxel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.maps.maxima import centroids, label, local_maxima, thin_equal, window_reach


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
    reach = window_reach(min_distance, values.ndim)
    peaks, _, highest = local_maxima(values, threshold_abs=threshold_abs, reach=reach)
    peaks = thin_equal(peaks[highest], reach)
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
    members, component, count = label(values > threshold_abs, structure)
    points = centroids(members, component, count).astype(np.float32)
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
