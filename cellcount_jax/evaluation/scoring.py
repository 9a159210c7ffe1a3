"""Scores of cells found in labelled images. Pure functions on NumPy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellcount_jax.data.sample import Sample
from cellcount_jax.evaluation import metrics
from cellcount_jax.images.regions import voxels_of


@dataclasses.dataclass(frozen=True, eq=False)
class ImageResult:
    """The cells found in one image, with their scores.

    Attributes:
      sample: the image.
      points: `(N, D)` predicted, inside the valid region.
      scores: `(N,)` their scores.
      true: `(M, D)` dots inside the valid region.
      matching: by distance.
      inside: by 'inside the annotated cell', where there are labels.
      integral: number of cells by the integral of a density, where there is one.
    """

    sample: Sample
    points: np.ndarray
    scores: np.ndarray
    true: np.ndarray
    matching: metrics.Matching
    inside: metrics.Matching | None
    integral: float | None


def score_image(
    sample: Sample,
    points: np.ndarray,
    scores: np.ndarray,
    *,
    max_distance: float,
    integral: float | None = None,
) -> ImageResult:
    """Matches the cells found in an image with its dots, inside the valid region.

    Args:
      sample: a labelled image.
      points: `(N, D)` predicted, in voxels.
      scores: `(N,)` their scores.
      max_distance: of a true detection, in the units of the sample's spacing.
      integral: number of cells by a density's integral over the valid region.
    """
    true, labels = np.asarray(sample.points), sample.labels
    kept = is_valid(points, sample)
    points, scores, true = points[kept], scores[kept], true[is_valid(true, sample)]
    matching = match(sample, points, max_distance=max_distance)
    if labels is not None and sample.valid is not None:
        labels = np.where(sample.valid, labels, 0)
    inside = None
    if labels is not None:
        inside = metrics.match_labels(points, labels, spacing=sample.spacing)
    return ImageResult(sample, points, scores, true, matching, inside, integral)


def match(sample: Sample, points: np.ndarray, *, max_distance: float) -> metrics.Matching:
    """Points matched with an image's dots by distance, both inside the valid region."""
    true = np.asarray(sample.points)
    return metrics.match_points(
        points[is_valid(points, sample)],
        true[is_valid(true, sample)],
        max_distance=max_distance,
        spacing=sample.spacing,
    )


def is_valid(points: np.ndarray, sample: Sample) -> np.ndarray:
    """Which `(N,)` of some points lie in the valid region of an image."""
    if sample.valid is None:
        return np.ones(len(points), bool)
    return sample.valid[tuple(voxels_of(points).T)]


def pooled_scores(results: Sequence[ImageResult]) -> dict[str, Any]:
    """Scores of a set of images: cells are pooled, counts compared image by image.

    Returns:
      Images, true and predicted cells, precision, recall, F1, MAE and RMSE; under 'inside_cell'
      the ratios by that rule, if all images have labels.
    """
    predicted = [len(r.points) for r in results]
    true = [len(r.true) for r in results]
    scores: dict[str, Any] = {
        "images": len(results),
        "true": sum(true),
        "predicted": sum(predicted),
        **_ratios(metrics.pooled(r.matching for r in results)),
        **_count_errors(predicted, true),
    }
    inside = [r.inside for r in results if r.inside is not None]
    if len(inside) == len(results):
        scores["inside_cell"] = _ratios(metrics.pooled(inside))
    return scores


def integral_scores(results: Sequence[ImageResult]) -> dict[str, float] | None:
    """MAE and RMSE of the counts by integral; None if there are none."""
    integrals = [r.integral for r in results if r.integral is not None]
    if len(integrals) < len(results):
        return None
    return _count_errors(integrals, [len(r.true) for r in results])


def table_row(set_name: str, rule: str, result: ImageResult) -> dict[str, Any]:
    """One image's line of per_image.csv."""
    m = result.matching
    return {
        "set": set_name,
        "image": result.sample.name,
        "rule": rule,
        "true": len(result.true),
        "predicted": len(result.points),
        **({} if result.integral is None else {"integral": round(result.integral, 2)}),
        "tp": m.tp,
        "fp": m.fp,
        "fn": m.fn,
        **{name: round(value, 4) for name, value in _ratios(m).items()},
    }


def _ratios(found: metrics.Scores) -> dict[str, float]:
    return {"precision": found.precision, "recall": found.recall, "f1": found.f1}


def _count_errors(predicted: Sequence[float], true: Sequence[float]) -> dict[str, float]:
    return {
        "mae": metrics.mean_absolute_error(predicted, true),
        "rmse": metrics.root_mean_squared_error(predicted, true),
    }
