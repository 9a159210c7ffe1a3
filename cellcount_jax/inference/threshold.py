"""The threshold that users give, in the command, in Python and in windows."""

from __future__ import annotations

from cellcount_jax.errors import InputError

# As a fraction of the target's peak; lower peaks are not kept.
LOWEST_THRESHOLD = 0.05


def checked_threshold(threshold: float, *, name: str = "threshold") -> float:
    """A threshold as users give it, a fraction of the map's value at a certain cell.

    Raises:
      InputError: it is not between 0 and 1, or lower than peaks of the map are kept for.
    """
    if not 0 < threshold < 1:
        raise InputError(f"{name} {threshold}: must be between 0 and 1")
    if threshold < LOWEST_THRESHOLD:
        raise InputError(
            f"{name} {threshold}: must be at least {LOWEST_THRESHOLD}; lower peaks of the map are"
            " not kept"
        )
    return threshold
