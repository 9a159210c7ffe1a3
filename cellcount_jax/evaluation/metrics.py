"""How right predicted locations and counts are: one-to-one matching, F1, count errors.

Pure functions on NumPy arrays, 2D and 3D alike. Points are `(N, D)` in index order, voxel
centres at integers; `spacing` `(D,)` is the voxel size, and without it distances are in
voxels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.spatial import cKDTree

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.assignment import least_cost_matching
from cellcount_jax.images.regions import voxels_of


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Counts of true and false detections, of one image or summed over several.

    Attributes:
      tp: predicted cells that are matched with a true one.
      fp: predicted cells that are not.
      fn: true cells that are not matched.
    """

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float:
        """tp / (tp + fp); with nothing predicted 0, or 1 where nothing is there."""
        return _ratio(self.tp, self.tp + self.fp, empty=self.fn == 0)

    @property
    def recall(self) -> float:
        """tp / (tp + fn); with nothing there 0, or 1 where nothing is predicted."""
        return _ratio(self.tp, self.tp + self.fn, empty=self.fp == 0)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, see `f1_score`."""
        return f1_score(self.tp, self.fp, self.fn)


@dataclasses.dataclass(frozen=True, eq=False)
class Matching(Scores):
    """Which predicted cell is which true one.

    Attributes:
      pairs: `(tp, 2)` int, index of the predicted and of the true cell, sorted by the
        first.
      distances: `(tp,)` float64, of each pair, in the units of `spacing`.
    """

    pairs: np.ndarray
    distances: np.ndarray


def match_points(
    predicted: np.ndarray,
    true: np.ndarray,
    *,
    max_distance: float,
    spacing: Sequence[float] | None = None,
) -> Matching:
    """Matches predicted and true cells one to one within a distance.

    Of all matchings with as many pairs as possible it gives one of the least total
    distance, so that the score depends neither on the order of the points nor on which
    set is called predicted:

        minimise the sum of d_ij over the pairs (i, j),
        as many pairs as possible, d_ij <= max_distance

    Only pairs within the distance are ever held, so memory grows with their number.

    Args:
      predicted: `(N, D)` points, in voxels.
      true: `(M, D)` points, in voxels.
      max_distance: the largest distance of a pair (it may be equal), in the units of
        `spacing`.
      spacing: `(D,)` voxel size; ones by default.

    Returns:
      The matching.

    Raises:
      InputError: if the points are not two `(N, D)` arrays of finite numbers of one D,
        `spacing` is not D positive numbers, or `max_distance` is not positive.

    Source: the paper, section 3: a detection is valid within a radius of a dot.

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import match_points
      >>> found = np.array([[10.0, 10.0], [30.0, 30.0], [50.0, 50.0]])
      >>> true = np.array([[11.0, 10.0], [30.0, 32.0]])
      >>> scores = match_points(found, true, max_distance=5)
      >>> scores.tp, scores.fp, scores.fn, scores.f1
      (2, 1, 0, 0.8)
    """
    predicted = _checked_points(predicted, "predicted")
    true = _checked_points(true, "true")
    if predicted.shape[1] != true.shape[1]:
        raise InputError(
            f"predicted has shape {predicted.shape} and true {true.shape}; "
            "both must have as many coordinates."
        )
    if not 0 < max_distance < np.inf:
        raise InputError(f"max_distance is {max_distance}; it must be a positive number.")
    scale = _checked_spacing(spacing, predicted.shape[1])
    rows, columns, distances = _near_pairs(predicted * scale, true * scale, max_distance)
    shape = (len(predicted), len(true))
    chosen = least_cost_matching(rows, columns, distances / max_distance, shape)
    pairs = np.stack([rows[chosen], columns[chosen]], axis=1)
    return _matching(pairs, distances[chosen], len(predicted), len(true))


def match_labels(
    predicted: np.ndarray, labels: np.ndarray, *, spacing: Sequence[float] | None = None
) -> Matching:
    """Matches predicted cells with fully annotated ones: inside the cell is right.

    A point belongs to the voxel floor(x + 0.5). Of several points in one cell the one
    nearest to the cell's centroid counts; the others are false positives.

    Args:
      predicted: `(N, D)` points, in voxels, inside the image.
      labels: `(*spatial,)` integers, 0 = background, each cell its own positive number.
      spacing: `(D,)` voxel size; ones by default.

    Returns:
      The matching; the index of a true cell is the rank of its label among those present,
      distances are to the centroid of the cell.

    Raises:
      InputError: if the points are not `(N, D)` finite numbers inside the image, the
        labels no such integers, or `spacing` not D positive numbers.

    Source: the paper, section 3: a detection is valid within a full annotation of a cell.
    """
    predicted = _checked_points(predicted, "predicted")
    labels = np.asarray(labels)
    if predicted.shape[1] != labels.ndim:
        raise InputError(
            f"predicted has shape {predicted.shape} and labels {labels.shape}; "
            "a point needs one coordinate per axis of the labels."
        )
    if not np.issubdtype(labels.dtype, np.integer) or (labels.size and labels.min() < 0):
        raise InputError(
            f"labels are {labels.dtype}, the least is {labels.min(initial=0)}; "
            "they must be integers, 0 for background and positive for cells."
        )
    scale = _checked_spacing(spacing, labels.ndim)
    voxels = voxels_of(predicted)
    outside = ((voxels < 0) | (voxels >= np.array(labels.shape))).any(axis=1)
    if outside.any():
        raise InputError(
            f"{int(outside.sum())} of {len(predicted)} predicted points lie outside the labels of "
            f"shape {labels.shape}, the first at {predicted[outside][0].tolist()}."
        )

    foreground = np.nonzero(labels)
    present, rank = np.unique(labels[foreground], return_inverse=True)
    sums = [np.bincount(rank, weights=axis, minlength=len(present)) for axis in foreground]
    sizes = np.bincount(rank, minlength=len(present))
    centroids = np.stack(sums, axis=1) / sizes[:, None]

    hit = labels[tuple(voxels.T)]
    rows = np.flatnonzero(hit)
    columns = np.searchsorted(present, hit[rows])
    distances = _distances(predicted[rows] * scale, centroids[columns] * scale)
    order = np.lexsort((distances, columns))
    _, first = np.unique(columns[order], return_index=True)
    chosen = order[first]
    pairs = np.stack([rows[chosen], columns[chosen]], axis=1)
    return _matching(pairs, distances[chosen], len(predicted), len(present))


def f1_score(tp: int, fp: int, fn: int) -> float:
    """The harmonic mean of precision and recall.

        F1 = 2 tp / (2 tp + fp + fn)

    Args:
      tp: true positives.
      fp: false positives.
      fn: false negatives.

    Returns:
      0 to 1; 1 where nothing is there and nothing is predicted.

    Examples:
      >>> from cellcount_jax import f1_score
      >>> f1_score(8, 1, 3)
      0.8
    """
    return _ratio(2 * tp, 2 * tp + fp + fn, empty=True)


def pooled(scores: Iterable[Scores]) -> Scores:
    """Sums the counts of several images, so that each cell weighs the same.

    Args:
      scores: of each image, at least one; matchings are scores.

    Returns:
      The sums, with their precision, recall and F1.

    Raises:
      InputError: if there is no image.
    """
    each = list(scores)
    if not each:
        raise InputError("There are no images to pool the scores of; there must be one or more.")
    return Scores(
        tp=sum(s.tp for s in each), fp=sum(s.fp for s in each), fn=sum(s.fn for s in each)
    )


def mean_absolute_error(
    predicted_counts: Sequence[float] | np.ndarray, true_counts: Sequence[float] | np.ndarray
) -> float:
    """The mean over images of |predicted count - true count| (MAE).

    Args:
      predicted_counts: `(n,)` cells per image, n at least 1.
      true_counts: `(n,)`.

    Returns:
      The error in cells.

    Raises:
      InputError: if the two are not as many, or none.

    Examples:
      >>> from cellcount_jax import mean_absolute_error
      >>> mean_absolute_error([98, 52], [100, 50])
      2.0
    """
    return float(np.abs(_count_errors(predicted_counts, true_counts)).mean())


def root_mean_squared_error(
    predicted_counts: Sequence[float] | np.ndarray, true_counts: Sequence[float] | np.ndarray
) -> float:
    """The root of the mean over images of the squared count error (RMSE).

    Args and Raises as in `mean_absolute_error`.

    Returns:
      The error in cells; at least the MAE, more where errors differ between images.
    """
    return float(np.sqrt((_count_errors(predicted_counts, true_counts) ** 2).mean()))


def _ratio(numerator: int, denominator: int, *, empty: bool) -> float:
    return numerator / denominator if denominator else float(empty)


def _matching(pairs: np.ndarray, distances: np.ndarray, n_predicted: int, n_true: int) -> Matching:
    order = np.argsort(pairs[:, 0])
    tp = len(pairs)
    return Matching(tp, n_predicted - tp, n_true - tp, pairs[order], distances[order])


def _checked_points(points: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"{name} has shape {values.shape}; points must have shape (N, D).")
    if not np.isfinite(values).all():
        raise InputError(f"{name} has NaN or infinite coordinates; every one must be a number.")
    return values


def _checked_spacing(spacing: Sequence[float] | None, ndim: int) -> np.ndarray:
    scale = np.ones(ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    if scale.shape != (ndim,) or not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError(f"spacing is {spacing}; it must be {ndim} positive numbers.")
    return scale


def _count_errors(
    predicted_counts: Sequence[float] | np.ndarray, true_counts: Sequence[float] | np.ndarray
) -> np.ndarray:
    predicted, true = np.asarray(predicted_counts, float), np.asarray(true_counts, float)
    if predicted.ndim != 1 or predicted.shape != true.shape or predicted.size == 0:
        raise InputError(
            f"The predicted counts have shape {predicted.shape}, the true ones {true.shape}; "
            "there must be one of each per image, and at least one image."
        )
    return predicted - true


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a - b) ** 2).sum(axis=1))


def _near_pairs(
    a: np.ndarray, b: np.ndarray, max_distance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs within a distance: their indices in `a` and `b`, and their distances."""
    if len(a) == 0 or len(b) == 0:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0)
    # The tree's own rounding must not decide about a pair at exactly the distance.
    near = cKDTree(a).sparse_distance_matrix(
        cKDTree(b), max_distance * (1 + 1e-9), output_type="ndarray"
    )
    distances = _distances(a[near["i"]], b[near["j"]])
    within = distances <= max_distance
    return near["i"][within], near["j"][within], distances[within]
