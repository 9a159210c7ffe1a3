"""Self-attention within blocks on a grid that is anchored at the image's origin.

A block is as large as a training crop. What a voxel attends to then depends on neither the
size of the image nor the tile that it is predicted in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cellcount_jax.network.convolutions import at_least_float32, inside
from cellcount_jax.network.layers import Conv, Norm
from cellcount_jax.network.passing import Passing, delayed


class SelfAttention(nn.Module):
    """Every voxel of a block looks at every other, and what it sees is added to it.

        y = x + norm(ReLU(W softmax(θ(x) φ(x)ᵀ) g(x)))

    with 1x1 convolutions W, θ, φ, g of as many channels as x, no scaling [authors].

    Attributes:
      block: size of the attention blocks in voxels of x, on a grid from the origin;
        None = the whole image is one block.
      dropout: rate on the attention weights, where `keys` are given.

    With a `size`, `(D,)` int32, the image is that large, and x begins at an `origin` in it, on the
    grid of the blocks, by default where the image does; a voxel does not look at what is outside of
    it. Planes that are `passing` wait until their blocks are whole.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import SelfAttention
      >>> norm = {"kind": "instance", "momentum": 0.9, "axis_name": None, "dtype": jnp.float32}
      >>> attention = SelfAttention(block=(4, 4), dropout=0.0, norm=norm, dtype=jnp.float32)
      >>> x = jnp.ones((1, 8, 8, 6))
      >>> key = jax.random.key(0)
      >>> jax.eval_shape(lambda: attention.init_with_output(key, x, train=False)[0]).shape
      (1, 8, 8, 6)
    """

    block: Sequence[int] | None
    dropout: float
    norm: dict[str, Any]
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool,
        keys: Array | None = None,
        size: Array | None = None,
        origin: Array | None = None,
        passing: Passing | None = None,
    ) -> Array:
        batch, *grid, features = x.shape
        if passing is not None:
            assert origin is not None
            lags = passing.lags
            x = delayed(self, "x", x, lags.attended - lags.encoder[-1])
            origin = origin.at[0].set(passing.first - lags.attended)
        window = (1,) * len(grid)
        block = [min(b, g) for b, g in zip(self.block or grid, grid, strict=True)]

        filled = jnp.ones(grid, bool) if size is None else inside(grid, size, origin=origin)
        if size is not None:
            # A trained network may have NaN outside of the image, which is NaN times a weight of 0.
            x = jnp.where(filled[None, ..., None], x, 0)

        def projected(name: str) -> Array:
            return to_blocks(Conv(features, window, dtype=self.dtype, name=name)(x), block)

        theta, phi, g = projected("theta"), projected("phi"), projected("g")
        seen_in = to_blocks(filled[None, ..., None], block)[..., 0]
        # Where nothing is, the result does not matter, but that it is a number.
        seen_in = seen_in | ~seen_in.any(-1, keepdims=True)
        wide = at_least_float32(self.dtype)
        scores = jnp.einsum("bnic,bnjc->bnij", theta, phi, preferred_element_type=wide)
        scores = jnp.where(seen_in[:, :, None, :], scores, -jnp.inf)
        weights = nn.softmax(scores)
        if keys is not None and self.dropout > 0:
            keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - self.dropout, weights.shape[1:]))
            weights = jnp.where(keep(keys), weights / (1 - self.dropout), 0.0)
        seen = jnp.einsum("bnij,bnjc->bnic", weights.astype(self.dtype), g)
        seen = from_blocks(seen, block, grid)
        seen = nn.relu(Conv(features, window, dtype=self.dtype, name="out")(seen))
        return x + Norm(**self.norm, name="norm")(seen, train=train)


def to_blocks(x: Array, block: Sequence[int]) -> Array:
    """`(batch, *grid, c)` to `(batch, blocks, voxels of a block, c)`, zero-padded."""
    batch, *grid, features = x.shape
    ends = [-g % b for g, b in zip(grid, block, strict=True)]
    x = jnp.pad(x, ((0, 0), *((0, e) for e in ends), (0, 0)))
    shape = [batch]
    for size, step in zip(x.shape[1:-1], block, strict=True):
        shape += [size // step, step]
    ndim = len(grid)
    order = (0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), 2 * ndim + 1)
    return (
        x.reshape(*shape, features).transpose(order).reshape(batch, -1, math.prod(block), features)
    )


def from_blocks(blocks: Array, block: Sequence[int], grid: Sequence[int]) -> Array:
    """Undoes `to_blocks`: `(batch, blocks, voxels, c)` to `(batch, *grid, c)`."""
    counts = [-(-g // b) for g, b in zip(grid, block, strict=True)]
    ndim = len(counts)
    x = blocks.reshape(blocks.shape[0], *counts, *block, blocks.shape[-1])
    order = [0]
    for axis in range(ndim):
        order += [1 + axis, 1 + ndim + axis]
    x = x.transpose(*order, 2 * ndim + 1)
    padded = [c * b for c, b in zip(counts, block, strict=True)]
    x = x.reshape(blocks.shape[0], *padded, blocks.shape[-1])
    return x[(slice(None), *(slice(g) for g in grid))]
