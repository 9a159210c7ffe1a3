"""Found cells against a person's: matched within a tolerance, and what speaks against the score."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import metrics
from cellcount_jax.images.regions import size_text, voxels_of

LEAST_PIXELS = 4.0  # of a tolerance that is taken from labels
# A score is doubted from so many points on each side.
_ENOUGH = 10
_LOW = 0.5  # F1 below which another reading of the coordinates is tried
_SHIFT = 0.75  # voxels, of the pairs' median, that are told
_SPREAD = 1.5  # how much wider one side may spread


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The cells that were found in an image, matched with a person's.

    Attributes:
      found: `(N, D)` voxels, those in the scored region.
      true: `(M, D)` likewise.
      matching: one to one, within the tolerance.
      inside: by 'a point in the cell is right', where there are labels.
      tolerance: in `unit`.
      unit: "um" or "px".
      remarks: what a reader of the score should know.
    """

    found: np.ndarray
    true: np.ndarray
    matching: metrics.Matching
    inside: metrics.Matching | None
    tolerance: float
    unit: str
    remarks: tuple[str, ...]

    @property
    def hits(self) -> tuple[np.ndarray, np.ndarray]:
        """`(N,)` and `(M,)` bool: which of the found and of the true cells have a partner."""
        pairs = self.matching.pairs.T
        found, true = np.zeros(len(self.found), bool), np.zeros(len(self.true), bool)
        found[pairs[0]], true[pairs[1]] = True, True
        return found, true


def compare(
    found: np.ndarray,
    true: np.ndarray,
    *,
    tolerance: float,
    unit: str,
    spacing: Sequence[float] | None = None,
    labels: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> Comparison:
    """Matches found cells with a person's.

    Args:
      found: `(N, D)` voxels, in the image or up to a voxel outside.
      true: `(M, D)` likewise.
      tolerance: the largest distance of a pair, in `unit`.
      unit: "um", which needs `spacing`, or "px": voxels, whatever their shape.
      spacing: `(D,)` voxel edges in micrometres, or None.
      labels: `(*spatial,)` instance labels of the true cells, for the second rule.
      valid: `(*spatial,)` bool, where the true cells are complete; None = everywhere. Found and
        true cells elsewhere do not count.

    Returns:
      The matching, and remarks where the score may not be what it seems.

    Raises:
      InputError: found and true cells do not fit, but would if the coordinates of one were in
        micrometres or in another order.
    """
    scale = spacing if unit == "um" else None
    remarks = [*_same_places(found, "found points"), *_same_places(true, "dots")]
    if valid is not None:
        kept = [_inside(points, valid) for points in (found, true)]
        remarks.append(
            f"scored is only where the dots are complete, {valid.mean():.3g} of the image:"
            f" {np.sum(~kept[0])} found points and {np.sum(~kept[1])} dots elsewhere do not count"
        )
        found, true = found[kept[0]], true[kept[1]]
        labels = None if labels is None else np.where(valid, labels, 0)
    matching = metrics.match_points(found, true, max_distance=tolerance, spacing=scale)
    _check_frame(found, true, matching.f1, tolerance, scale, spacing)
    remarks += _doubts(found, true, matching, f"{tolerance:.4g} {unit}")
    inside = None
    if labels is not None:
        at_border = np.clip(found, 0, np.asarray(labels.shape) - 1)
        inside = metrics.match_labels(at_border, labels, spacing=spacing)
    return Comparison(found, true, matching, inside, tolerance, unit, tuple(remarks))


def labels_tolerance(labels: np.ndarray, spacing: Sequence[float] | None) -> float:
    r"""Half the median diameter of labelled cells, but at least 4 of the shortest voxel edges.

    The diameter is that of the circle of a cell's area :math:`A`, or of the sphere of its volume
    :math:`V`: :math:`2 \sqrt{A / \pi}` or :math:`2 \sqrt[3]{3 V / 4 \pi}`.

    Args:
      labels: `(*spatial,)` integers, 0 = background.
      spacing: `(D,)` voxel edges in micrometres; None = unknown.

    Returns:
      In um, or in voxels without `spacing`; the least where there is no cell.
    """
    edges = np.ones(labels.ndim) if spacing is None else np.asarray(spacing, np.float64)
    least = LEAST_PIXELS * float(edges.min())
    _, sizes = np.unique(labels[labels > 0], return_counts=True)
    if not len(sizes):
        return least
    size = sizes * float(np.prod(edges))
    if labels.ndim == 2:
        radii = np.sqrt(size / np.pi)
    else:
        radii = np.cbrt(3 * size / (4 * np.pi))
    return max(least, float(np.median(radii)))


def summarise(compared: Sequence[Comparison]) -> dict[str, Any]:
    """The scores of a set of images: cells pooled, and each image alike.

    Args:
      compared: at least one.

    Returns:
      Sums of cells, hits (tp), false (fp) and missed (fn) ones, precision, recall and F1 of the
      sums, the error of the summed count; `mean_f1` of the images, `mean_absolute_count_error`,
      and `median_relative_count_error`, of |found - true| / true over the images that have cells
      (None if none has), since for others it is not defined: `images_without_cells` and what was
      found there tell of them. `inside_cell` has the ratios by labels, if all have them.
    """
    found, true = ([len(getattr(c, s)) for c in compared] for s in ("found", "true"))
    counts = list(zip(found, true, strict=True))
    relative = [abs(f - t) / t for f, t in counts if t]
    inside = [c.inside for c in compared if c.inside is not None]
    return {
        "images": len(counts),
        "true": sum(true),
        "found": sum(found),
        **ratios(metrics.pooled(c.matching for c in compared)),
        "count_error": sum(found) - sum(true),
        "relative_count_error": relative_error(sum(found), sum(true)),
        "mean_f1": float(np.mean([c.matching.f1 for c in compared])),
        "mean_absolute_count_error": metrics.mean_absolute_error(found, true),
        "median_relative_count_error": float(np.median(relative)) if relative else None,
        "images_without_cells": len(counts) - len(relative),
        "found_in_images_without_cells": sum(f for f, t in counts if not t),
        "inside_cell": ratios(metrics.pooled(inside)) if len(inside) == len(counts) else None,
    }


def ratios(scores: metrics.Scores) -> dict[str, float]:
    """tp, fp, fn, precision, recall and F1, by name."""
    names = ("tp", "fp", "fn", "precision", "recall", "f1")
    return {name: getattr(scores, name) for name in names}


def relative_error(found: int, true: int) -> float | None:
    """(found - true) / true; None, not defined, where nothing is true."""
    return (found - true) / true if true else None


def _inside(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    voxels = np.clip(voxels_of(points), 0, np.asarray(valid.shape) - 1)
    return np.asarray(valid[tuple(voxels.T)], bool)


def _same_places(points: np.ndarray, name: str) -> list[str]:
    again = len(points) - len(np.unique(points, axis=0))
    return [f"{again} of the {name} stand where another one does: twice the same?"] if again else []


def _check_frame(
    found: np.ndarray,
    true: np.ndarray,
    f1: float,
    tolerance: float,
    scale: Sequence[float] | None,
    spacing: Sequence[float] | None,
) -> None:
    """Refuses points that match badly as they are, and well in another unit or order."""
    if min(len(found), len(true)) < _ENOUGH or f1 >= _LOW:
        return
    ndim = found.shape[1]
    tried = []
    if spacing is not None:
        edges = np.asarray(spacing)
        tried = [
            ("the found points were in micrometres", found / edges, true),
            ("the dots were in micrometres", found, true / edges),
        ]
    axes = "zyx"[-ndim:]
    for order in itertools.permutations(range(ndim)):
        if order != tuple(range(ndim)):
            names = ", ".join(axes[i] for i in order)
            tried.append((f"the columns of one were {names}", found[:, order], true))
    for what, ours, theirs in tried:
        other = metrics.match_points(ours, theirs, max_distance=tolerance, spacing=scale).f1
        if other >= max(_LOW, f1 + 0.3):
            raise InputError(
                f"found points and dots do not fit (F1 {f1:.3f}), but would if {what} (F1"
                f" {other:.3f}); coordinates are in voxels, in columns"
                f" {','.join(axes)}. Give --points-unit um for dots in micrometres, and name the"
                " columns as they are."
            )


def _doubts(
    found: np.ndarray, true: np.ndarray, matching: metrics.Matching, tolerance: str
) -> list[str]:
    """What speaks against a score, as sentences without a full stop."""
    if not len(found) or not len(true):
        return []
    doubts = []
    if not matching.tp:
        doubts.append(
            f"no found point is within {tolerance} of a dot: are both of this image, in voxels"
            " counted from 0?"
        )
    spans = [np.stack([p.min(axis=0), p.max(axis=0)]) for p in (found, true)]
    wide = [span[1] - span[0] + 1 for span in spans]
    axis = int(np.argmax(np.abs(np.log(wide[0] / wide[1]))))
    unlike = max(wide[0][axis] / wide[1][axis], wide[1][axis] / wide[0][axis])
    if unlike > _SPREAD and matching.f1 < 0.8 and min(len(found), len(true)) >= _ENOUGH:
        letter = "zyx"[-found.shape[1] :][axis]
        ours, theirs = (f"{span[0, axis]:.0f} to {span[1, axis]:.0f}" for span in spans)
        doubts.append(
            f"found points reach over {letter} {ours}, dots over {letter} {theirs}: are dots in a"
            " part of the image only (a mask NAME_valid.tif beside them says where), or is one of"
            " the two in micrometres?"
        )
    if matching.tp >= _ENOUGH:
        moved = found[matching.pairs[:, 0]] - true[matching.pairs[:, 1]]
        shift = np.median(moved, axis=0)
        # The standard error of a median, by the median absolute deviation.
        error = 1.25 * 1.48 * np.median(np.abs(moved - shift), axis=0) / len(moved) ** 0.5
        if (np.abs(shift) >= np.maximum(_SHIFT, 3 * error)).any():
            doubts.append(
                f"hits lie off their dots by {size_text([float(round(s, 2)) for s in shift])}"
                " voxels in the median: is one of the two counted from 1?"
            )
    return doubts
