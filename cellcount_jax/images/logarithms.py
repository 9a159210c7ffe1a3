"""Median and spread of the logarithm of an image, from a histogram of its intensities."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.background import MAD_TO_DEVIATION, ROUNDING

# The distance of the 10th and 90th percentile of a normal distribution divided by its standard
# deviation.
_DECILES_TO_DEVIATION = 2.563
_MAX_LEVELS = 2**27  # different intensities in a histogram for a median


def median_and_spread(slabs: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Median and spread per channel of log(1 + image) where it is not 0; no spread of one level.

    Args:
      slabs: parts of an image, `(*spatial, channels)`.

    Raises:
      InputError: negative intensities, or more different ones than a histogram here holds.
    """
    levels: list[tuple[np.ndarray, np.ndarray]] = []
    for slab in slabs:
        lowest = float(slab.min())
        if lowest < 0:
            raise InputError(
                f"the image has negative intensities (lowest {lowest:g}), which"
                " config.data.normalisation = 'robust_log' cannot take; use 'standardise'"
            )
        own = [np.unique(c, return_counts=True) for c in np.moveaxis(slab, -1, 0)]
        levels = [_merged(*both) for both in zip(levels, own, strict=True)] if levels else own
        if max(len(values) for values, _ in levels) > _MAX_LEVELS:
            raise InputError(
                f"the image has more than {_MAX_LEVELS} different intensities, too many for"
                " config.data.normalisation = 'robust_log'; save it with 16 bits"
            )
    centres, scales = [], []
    for intensities, numbers in levels:
        values = np.log1p(intensities[intensities > 0].astype(np.float32))
        counts = numbers[intensities > 0]
        centre = _quantile(values, counts, 0.5) if len(values) else 0.0
        centres.append(centre)
        spread = _spread(values, counts, centre) if len(values) else 0.0
        if len(intensities) > 1 and spread > 0:
            step = float(np.diff(intensities.astype(np.float64)).min())
            spread = max(spread, ROUNDING * math.log1p(step / math.exp(centre)))
        scales.append(spread)
    return np.asarray(centres), np.asarray(scales)


def _merged(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Increasing values with counts, of two such."""
    values, place = np.unique(np.concatenate([one[0], other[0]]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, place, np.concatenate([one[1], other[1]]))
    return values, counts


def _spread(values: np.ndarray, counts: np.ndarray, centre: float) -> float:
    """The MAD as a standard deviation; where half of the values are one grey level (8-bit
    images), that of the 10th to 90th percentile, or the standard deviation itself."""
    apart = np.abs(values - centre)
    order = np.argsort(apart, kind="stable")
    mad = _quantile(apart[order], counts[order], 0.5)
    low, high = (_quantile(values, counts, share) for share in (0.1, 0.9))
    mean = np.average(values, weights=counts)
    deviation = math.sqrt(np.average(np.square(values - mean), weights=counts))
    return MAD_TO_DEVIATION * mad or (high - low) / _DECILES_TO_DEVIATION or deviation


def _quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    """A quantile, as NumPy's linear between neighbours, of increasing values with counts."""
    last = np.cumsum(counts) - 1
    at = share * float(last[-1])
    low, high = (float(values[np.searchsorted(last, f(at))]) for f in (math.floor, math.ceil))
    return low + (at - math.floor(at)) * (high - low)
