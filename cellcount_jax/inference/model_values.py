"""What the numbers in the file of a model may be, which anyone may have made."""

from __future__ import annotations

from typing import Any

from cellcount_jax import config as settings
from cellcount_jax.inference.job import Model

_MAX_CHANNELS = 1000
_TINY, _HUGE = 1e-30, 1e30  # what float32 can hold


def values_of(model: Model) -> dict[str, tuple[Any, bool, str]]:
    """What prediction uses of a model from a file, beside its config and its arrays.

    Returns:
      The name in the file -> the value, whether it can be, and what it must be.
    """
    n, rule, ndim = model.normalisation, model.config.detect.rule, model.config.data.ndim
    channels = model.channels if n.method == "dataset" else 0
    axes = ndim if n.method in ("signal_to_noise", "contrast") else 0
    ends = [end for pair in model.reference.values() for end in pair]
    scales = len(n.scale) == channels and all(_is_number(x, above=0) for x in n.scale)
    return {
        "channels": (
            model.channels,
            _is_whole(model.channels, 1, _MAX_CHANNELS),
            f"a whole number from 1 to {_MAX_CHANNELS}",
        ),
        "step": (model.step, _is_whole(model.step, 0, 2**31), "a whole number of steps"),
        "spacing_known": (model.spacing_known, type(model.spacing_known) is bool, "true or false"),
        "spacing": (
            model.spacing,
            len(model.spacing) == ndim and all(_is_number(x, above=0) for x in model.spacing),
            f"{ndim} lengths above 0",
        ),
        "thresholds": (
            model.thresholds,
            rule in model.thresholds
            and all(_is_number(x, above=0) for x in model.thresholds.values()),
            f"numbers above 0, one of them for {rule}",
        ),
        "count_factor": (
            model.count_factor,
            _is_number(model.count_factor, above=-_TINY),
            "a number of at least 0",
        ),
        "reference": (model.reference, all(map(_is_number, ends)), "ranges of numbers"),
        "normalisation.method": (
            n.method,
            n.method in settings.NORMALISATIONS,
            "one of " + ", ".join(settings.NORMALISATIONS),
        ),
        "normalisation.centre": (
            n.centre,
            len(n.centre) == channels and all(map(_is_number, n.centre)),
            f"{channels} numbers",
        ),
        "normalisation.scale": (n.scale, scales, f"{channels} numbers above 0"),
        "normalisation.block": (
            n.block,
            len(n.block) == axes and all(_is_whole(x, 1, 2**31) for x in n.block),
            f"{axes} whole numbers of voxels",
        ),
    }


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any, *, above: float = -_HUGE) -> bool:
    """Whether a value is a number that float32 can hold, and above another."""
    return type(value) in (int, float) and above < value < _HUGE and (above != 0 or value > _TINY)
