"""Planes of a volume that pass through the network, a slab of them at a time.

A convolution sees planes on both sides of its own. So with a slab it computes the results of planes
that came somewhat earlier, its lag, and keeps the last planes of the slab for the next one, or the
whole slab where planes wait for longer, in the collection `planes` of the variables. Nothing is
computed twice, and the memory is that of a few slabs. Where two slabs meet, at the skip connections
and where attention waits for whole blocks, the one that is ahead waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

COLLECTION = "planes"


class Lags(NamedTuple):
    """How many planes of a level lie between a slab and the results that are computed with it.

    Attributes:
      encoder: of each level, finest first.
      attended: of the coarsest level after attention.
      maps: of the maps.
    """

    encoder: tuple[int, ...]
    attended: int
    maps: int


class Passing(NamedTuple):
    """Where a slab lies in a level.

    Attributes:
      first: `()` int32, the number of the slab's first plane.
      depth: `()` int32, how many planes the level has; what is before and after them is as zeros.
      lags: of the network.
    """

    first: Array
    depth: Array
    lags: Lags

    def pooled(self, step: int) -> Passing:
        """The same in the next coarser level."""
        return self._replace(first=self.first // step, depth=self.depth // step)

    def seen(self, lag: int) -> Array:
        """Which planes there are for a convolution whose results have a lag.

        Returns:
          `(2,)` int32: begin and end, 0 being the first plane that the first result sees.
        """
        return self.there(lag) + 1

    def there(self, lag: int) -> Array:
        """Which planes there are of a slab that has a lag: `(2,)` int32, begin and end in it."""
        return jnp.stack([lag - self.first, lag - self.first + self.depth])


def network_lags(strides: Sequence[int], *, block: int, count_branch: bool) -> Lags:
    """The lags of a network.

    Args:
      strides: of the levels along the axis of planes, finest first, each to the next.
      block: planes of the coarsest level that attend to each other; 1 without attention.
      count_branch: see `unet.Decoder`.
    """
    encoder: list[int] = []
    lag = 0
    for step in (*strides, 1):
        # Two convolutions; then windows of pooling must be whole.
        encoder.append(rounded_up(lag + 2, step))
        lag = encoder[-1] // step
    attended = maps = rounded_up(encoder[-1], block)
    finest = maps
    for step in reversed(strides):
        finest, maps = maps, maps * step + 2
    if count_branch:
        step, branching = (strides[0], finest) if len(strides) > 1 else (1, maps)
        maps = step * max(branching + 1, -(-maps // step))
    return Lags(tuple(encoder), attended, maps)


def rounded_up(number: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-number // step) * step


def seen_of(module: nn.Module, name: str, x: Array, planes: int) -> tuple[Array, Array]:
    """What a convolution sees whose first result sees the plane that is so many before x.

    Args:
      module: that keeps the planes.
      name: under which they are kept.
      x: `(batch, depth, height, width, channels)`.
      planes: their number, 2 or more.

    Returns:
      2 to depth + 1 planes, and the slab after them: x, or one before it, kept as it is, for a copy
      of planes that wait long would take longer than the convolution of few channels.
    """
    for i in range((planes - 2) // x.shape[1]):
        x = _exchanged(module, f"{name}_{i}", x)
    return planes_before(module, name, x, (planes - 2) % x.shape[1] + 2), x


def _exchanged(module: nn.Module, name: str, x: Array) -> Array:
    """What was kept before, zeros at first; x is kept in its place."""
    kept = module.variable(COLLECTION, name, jnp.zeros, x.shape, x.dtype)
    found: Array = kept.value
    kept.value = x
    return found


def planes_before(module: nn.Module, name: str, x: Array, planes: int) -> Array:
    """The planes that came before those of x; keeps the last ones for the next slab.

    Args:
      module: that keeps them.
      name: under which they are kept.
      x: `(batch, depth, height, width, channels)`.
      planes: their number.

    Returns:
      `(batch, planes, height, width, channels)`, zeros before the first slab.
    """
    shape = (x.shape[0], planes, *x.shape[2:])
    kept = module.variable(COLLECTION, name, jnp.zeros, shape, x.dtype)
    found: Array = kept.value
    depth = x.shape[1]
    new = jnp.concatenate([found[:, depth:], x], axis=1) if planes > depth else x
    kept.value = new[:, new.shape[1] - planes :]
    return found


def delayed(module: nn.Module, name: str, x: Array, planes: int) -> Array:
    """A slab as large as x of which the last planes are still to come, see `planes_before`."""
    if not planes:
        return x
    return jnp.concatenate([planes_before(module, name, x, planes), x], axis=1)[:, : x.shape[1]]
