"""The choice of a detection threshold, and how sure it is. Pure functions on NumPy arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.metrics import f1_score

# Thresholds that are tried, as fractions of the target's value at a lone dot.
FRACTIONS = np.arange(1, 50) / 50
_TOLERANCE = 0.002
# Of neighbouring candidates, and in dots: with a few dots F1 steps at each cell, by chance.
_SMOOTHING = 1.0
_TOLERANCE_DOTS = 0.25
_RESAMPLES = 1000
_LEVEL = 0.9  # of the interval
_ENOUGH_LOSS = 0.01  # of F1, by the choice of the threshold: fewer are not worth more dots
_ENOUGH_WIDTH = 0.1  # of the count to either side, likewise


def calibrate_threshold(
    count_at: Callable[[float], tuple[int, int, int]],
    thresholds: Sequence[float] | np.ndarray,
    *,
    tolerance: float = _TOLERANCE,
    smoothing: float = 0.0,
) -> tuple[float, float]:
    """Chooses the detection threshold on labelled images.

    Often a wide range of thresholds is about as good as the best one, which is decided by chance.
    The middle of the range is furthest from both of its ends, where cells are lost or background
    is counted, and so transfers best to other images.

    Args:
      count_at: threshold -> `(tp, fp, fn)`, summed over the images.
      thresholds: candidates, strictly increasing.
      tolerance: thresholds with an F1 within this of the best one are as good as it.
      smoothing: sigma of a Gaussian over neighbouring candidates, which averages the counts first;
        0 = none.

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
    counts = np.array([count_at(threshold) for threshold in candidates], float)
    chosen = _choose(*counts.T, tolerance=tolerance, smoothing=smoothing)
    return candidates[chosen], f1_score(*(int(count) for count in counts[chosen]))


def calibrate_on_dots(
    count_at: Callable[[float], tuple[int, int, int]],
    thresholds: Sequence[float] | np.ndarray,
    *,
    dots: int,
) -> tuple[float, float]:
    """`calibrate_threshold` for any number of dots, with the counts smoothed a little.

    Thresholds whose F1 is less than a quarter of a dot, or 0.002, from the best are as good as it:
    on blocks of 15 to 200 dots of c-Fos, microglia and VGG training images, scored on the rest of
    these images, this loses F1 0.0118 against the best threshold in the mean; the middle of what is
    within 0.002 without smoothing 0.0127, the best itself more than any.
    """
    return calibrate_threshold(
        count_at,
        thresholds,
        tolerance=max(_TOLERANCE, _TOLERANCE_DOTS / max(dots, 1)),
        smoothing=_SMOOTHING,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What a model finds at each of some thresholds, where dots are known.

    Attributes:
      thresholds: `(T,)`, strictly increasing.
      hits: `(T, M)` bool, whether each dot is found.
      wrong: `(T, F)` bool, whether each place without a dot is taken for a cell.
    """

    thresholds: np.ndarray
    hits: np.ndarray
    wrong: np.ndarray

    @property
    def dots(self) -> int:
        """The number of dots."""
        return self.hits.shape[1]

    @property
    def f1(self) -> np.ndarray:
        """`(T,)` F1 at each threshold."""
        return _f1(self.hits.sum(1), self.wrong.sum(1), self.dots)

    @property
    def found(self) -> np.ndarray:
        """`(T,)` cells found at each threshold."""
        found: np.ndarray = self.hits.sum(1) + self.wrong.sum(1)
        return found

    def choose(self) -> int:
        """The index of the threshold that `calibrate_on_dots` chooses."""
        hits = dict(zip(self.thresholds.tolist(), self.hits.sum(1).tolist(), strict=True))
        wrong = dict(zip(self.thresholds.tolist(), self.wrong.sum(1).tolist(), strict=True))
        threshold, _ = calibrate_on_dots(
            lambda t: (hits[t], wrong[t], self.dots - hits[t]), self.thresholds, dots=self.dots
        )
        return int(np.searchsorted(self.thresholds, threshold))


def pooled(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of several images, with the same thresholds."""
    hits, wrong = ([getattr(part, name) for part in parts] for name in ("hits", "wrong"))
    return Evidence(parts[0].thresholds, np.concatenate(hits, 1), np.concatenate(wrong, 1))


@dataclasses.dataclass(frozen=True)
class Certainty:
    """How sure a chosen threshold is, by the bootstrap.

    Attributes:
      cells_per_found: the interval (90 %) of the number of cells for one that is found.
      f1: to be expected on other parts of such images; that on the dots is too high, as the
        threshold was chosen on them.
      loss: of F1, against the best threshold, to be expected from having no more dots.
      more_dots: that would be worth while: with them the loss is below 0.01, and the interval about
        10 % to either side; 0 if they are now.
    """

    cells_per_found: tuple[float, float]
    f1: float
    loss: float
    more_dots: int


def certainty(evidence: Evidence, chosen: int, *, seed: int = 0) -> Certainty:
    """How sure a threshold is that was chosen on some dots.

    Dots and wrong places are drawn again, each Poisson(1) times, and the threshold is chosen anew
    in each resample b. The error that it makes there stands for that of the choice itself:

        log r = log r(t) + log r(t_b) - log r_b(t_b),  r = dots / found

    where r and t are those of all dots, and r_b and t_b those of the resample.

    Args:
      evidence: of the dots.
      chosen: index of the threshold.
      seed: of the resamples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    rng = np.random.default_rng(seed)
    count, dots = _RESAMPLES, evidence.dots
    weights = rng.poisson(1.0, (count, dots)).astype(np.float32)
    hits = weights @ evidence.hits.T.astype(np.float32)
    total = weights.sum(1)
    wrong = np.zeros_like(hits)
    for column in evidence.wrong.T:  # one at a time, as there may be very many
        wrong += rng.poisson(1.0, (count, 1)).astype(np.float32) * column
    tolerances = np.maximum(_TOLERANCE, _TOLERANCE_DOTS / np.maximum(total, 1))
    picked = np.array(
        [
            _choose(h, w, n - h, tolerance=float(tolerance), smoothing=_SMOOTHING)
            for h, w, n, tolerance in zip(hits, wrong, total, tolerances, strict=True)
        ]
    )
    rows = np.arange(count)
    f1 = evidence.f1
    f1_there = _f1(hits[rows, picked], wrong[rows, picked], total)
    # Half a cell more, so that nothing found is no infinity.
    ratio = (dots + 0.5) / (evidence.found + 0.5)
    ratio_there = (total + 0.5) / (hits[rows, picked] + wrong[rows, picked] + 0.5)
    errors = np.log(ratio[picked]) - np.log(ratio_there)
    tail = (1 - _LEVEL) / 2
    low, high = ratio[chosen] * np.exp(np.quantile(errors, [tail, 1 - tail]))
    loss = max(0.0, float(np.mean(f1[chosen] - f1[picked])))
    width = float(np.log(high / low) / 2)
    # The loss falls with the number of dots, the width with its root.
    needed = dots * max(loss / _ENOUGH_LOSS, (width / _ENOUGH_WIDTH) ** 2)
    return Certainty(
        (float(low), float(high)),
        float(np.clip(f1[chosen] - np.mean(f1_there - f1[picked]), 0, 1)),
        loss,
        max(0, 10 * math.ceil((needed - dots) / 10)),
    )


def _choose(
    hits: np.ndarray, wrong: np.ndarray, missed: np.ndarray, *, tolerance: float, smoothing: float
) -> int:
    """The index that `calibrate_threshold` chooses, for counts `(T,)` at each candidate."""
    if smoothing:
        hits, wrong, missed = (
            ndimage.gaussian_filter1d(counts, smoothing, mode="nearest")
            for counts in (hits, wrong, missed)
        )
    scores = _f1(hits, wrong, hits + missed)
    best = scores.max()
    if best == 0:
        return len(scores) - 1
    run, _ = ndimage.label(scores >= best - tolerance)
    longest = max(np.unique(run[scores == best]), key=lambda number: np.sum(run == number))
    members = np.flatnonzero(run == longest)
    return int(members[(len(members) - 1) // 2])


def _f1(hits: np.ndarray, wrong: np.ndarray, dots: np.ndarray | float) -> np.ndarray:
    """`metrics.f1_score` of arrays, which smoothing makes no whole numbers."""
    total = hits + wrong + dots
    return np.where(total > 0, 2 * hits / np.maximum(total, 1e-9), 1.0)
