"""Which images of a set are trained on, with and without their dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from cellcount_jax.errors import InputError

T = TypeVar("T")


def permuted(items: Sequence[T], *, seed: int) -> list[T]:
    """The items in the order of NumPy's legacy permutation, which published splits use.

    Args:
      items: the sorted items.
      seed: of `numpy.random.RandomState`.

    Returns:
      A permutation of them.
    """
    return [items[index] for index in np.random.RandomState(seed).permutation(len(items))]


def take(items: Sequence[T], count: int, *, key: str, least: int = 0) -> list[T]:
    """The first `count` items.

    Args:
      items: what there is, in order of preference.
      count: how many to use; -1 is all.
      key: the setting that `count` comes from, for the message.
      least: how many are needed.

    Returns:
      `count` items.

    Raises:
      InputError: fewer than `least`, more than there are, or a negative number but -1.
    """
    wanted = len(items) if count == -1 else count
    if not least <= wanted <= len(items):
        raise InputError(
            f"{key} = {count}: there are {len(items)} to choose from, and at least {least} must be"
            f" used; {least} to {len(items)} or -1 (all) is allowed."
        )
    return list(items[:wanted])
