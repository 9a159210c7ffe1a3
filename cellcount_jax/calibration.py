"""The detection threshold, chosen on the training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.metrics import f1_score


def calibrate(
    count_at: Callable[[float], tuple[int, int, int]],
    thresholds: Sequence[float] | np.ndarray,
    *,
    tolerance: float = 0.002,
) -> tuple[float, float]:
    """Chooses the detection threshold on the training images.

    A model fits its few training images so well that a wide range of thresholds is as
    good as perfect on them, and the very best one is decided by chance. The middle of the
    range is furthest from both of its ends, where cells are lost or background is
    counted, and so transfers best to other images.

    Args:
      count_at: threshold -> `(tp, fp, fn)`, summed over the training images.
      thresholds: candidates, strictly increasing.
      tolerance: thresholds with an F1 within this of the best one are as good as it.

    Returns:
      `(threshold, f1)`: the middle (the lower of two) of the longest run of neighbouring
      candidates that are as good as the best and contain it (the first of equal ones),
      and its F1. If F1 is 0 everywhere, the highest candidate and 0.

    Raises:
      InputError: if there is no candidate or they do not increase.
    """
    candidates = [float(threshold) for threshold in thresholds]
    if not candidates or not np.all(np.diff(candidates) > 0):
        raise InputError(
            f"thresholds are {candidates}; they must be one or more increasing numbers."
        )
    scores = np.array([f1_score(*count_at(threshold)) for threshold in candidates])
    best = scores.max()
    if best == 0:
        return candidates[-1], 0.0
    run, _ = ndimage.label(scores >= best - tolerance)
    longest = max(np.unique(run[scores == best]), key=lambda number: np.sum(run == number))
    members = np.flatnonzero(run == longest)
    middle = int(members[(len(members) - 1) // 2])
    return candidates[middle], float(scores[middle])
