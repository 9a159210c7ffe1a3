"""Cell locations in a map: local maxima, connected components, and the detection rules.

Pure functions on NumPy arrays, 2D and 3D alike. A map is `(*spatial,)`; locations are
float32 `(N, D)` in index order (`y, x` or `z, y, x`), voxel centres at integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.maps.maxima import (
    centroids,
    first_of_equal,
    label,
    local_maxima,
    window_reach,
)

# By FIDT's rule: its fraction of a map's maximum, and the share of the target's peak below which
# the maximum of a map is no cell.
FIDT_FRACTION = 100 / 255
FAINT = 0.1


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

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import find_peaks
      >>> find_peaks(np.array([[0.1, 0.9, 0.1, 0.0, 0.6]]), threshold_abs=0.5).tolist()
      [[0.0, 1.0], [0.0, 4.0]]
    """
    values = _checked_map(map, threshold_abs)
    reach = window_reach(min_distance, values.ndim)
    peaks, _, highest = local_maxima(values, threshold_abs=threshold_abs, reach=reach)
    peaks = peaks[highest]
    peaks = peaks[first_of_equal(peaks, reach)]
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

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import find_components
      >>> find_components(np.array([[0.7, 0.9, 0.7, 0.0, 0.6]]), threshold_abs=0.5).tolist()
      [[0.0, 1.0], [0.0, 4.0]]
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


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Where cells may be in a map, from which a rule chooses: see `choose`.

    Attributes:
      points: `(C, D)` float32, the peaks of the map above the floor.
      scores: `(C,)` their values.
      floor: the lowest threshold for which the candidates are complete.
      components: gives the centroids `(N, D)` and largest values `(N,)` of the map's components
        above a threshold, as `find_components` does.
    """

    points: np.ndarray
    scores: np.ndarray
    floor: float
    components: Callable[[float], tuple[np.ndarray, np.ndarray]]


def find_candidates(
    map: np.ndarray, *, floor: float, min_distance: int | Sequence[int]
) -> Candidates:
    """The candidates in a map `(*spatial,)`: its peaks above the floor; see `find_peaks`."""
    points, scores = find_peaks(
        map, threshold_abs=floor, min_distance=min_distance, return_scores=True
    )

    def components(threshold: float) -> tuple[np.ndarray, np.ndarray]:
        return find_components(map, threshold_abs=threshold, return_scores=True)

    return Candidates(points, scores, floor, components)


class Chosen(NamedTuple):
    """The cells that a rule chose.

    Attributes:
      points: `(N, D)` float32.
      scores: `(N,)` the map's largest value of each.
      threshold: on the map's values, which the scores are greater than.
    """

    points: np.ndarray
    scores: np.ndarray
    threshold: float


def choose(
    candidates: Candidates, *, rule: str, threshold: float, target_peak: float = 1.0
) -> Chosen:
    """The cells among the candidates by one of the detection rules.

    'peaks' are the candidates above the threshold, 'components' the paper's rule (section 3) with
    the same threshold. 'fidt' are the candidates above a threshold relative to the map's maximum,

        t = threshold * max M

    which serves maps whose scale differs from the training images'. A map with a maximum below a
    tenth of the target's peak holds no cells by that rule: its threshold is then that tenth.

    Args:
      candidates: of a map.
      rule: 'peaks', 'components' or 'fidt'.
      threshold: on the map's values, at least the candidates' floor; for 'fidt' the fraction of
        the maximum, which is raised to the floor.
      target_peak: the training target's value at a lone dot.

    Returns:
      The cells, and the threshold on the map's values, always finite.

    Raises:
      InputError: the rule is unknown.

    Source of 'fidt': Liang et al., "Focal Inverse Distance Transform Maps for Crowd
    Localization", and the numbers of its code.
    """
    if rule == "components":
        return Chosen(*candidates.components(threshold), threshold)
    if rule == "fidt":
        highest = float(candidates.scores.max(initial=0.0))
        faint = FAINT * target_peak
        threshold = faint if highest < faint else max(threshold * highest, candidates.floor)
    elif rule != "peaks":
        raise InputError(f"rule is {rule!r}; it must be peaks, components or fidt.")
    above = candidates.scores > threshold
    return Chosen(candidates.points[above], candidates.scores[above], threshold)


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
