"""The two halves of a U-Net, in 2D and 3D: an encoder, and a decoder to one or two maps.

Source: SAU-Net, Guo et al. 2021, with the details of the paper's authors' code: a level is twice
convolution, ReLU, norm, in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cellcount_jax.network import native
from cellcount_jax.network.convolutions import at_least_float32, cut_trained, max_pool_trained
from cellcount_jax.network.layers import Conv, ConvTranspose, Norm, max_pool
from cellcount_jax.network.passing import Passing, delayed

Levels = tuple[Array, ...]


class Parts(NamedTuple):
    """The part of each level, finest first, that a decoder computes.

    Attributes:
      starts: `(levels, D)` int32, where each part begins in its level.
      shapes: `(D,)` of each; within the next coarser part.
    """

    starts: Array
    shapes: Sequence[Sequence[int]]

    def cut(self, x: Array, level: int) -> Array:
        """A level's part of all of it, `(batch, *spatial, channels)`."""
        return cut(x, self.starts[level], self.shapes[level])

    def cut_upsampled(self, x: Array, level: int, stride: Sequence[int]) -> Array:
        """A level's part of what the next coarser part was upsampled to."""
        return cut(x, self.in_upsampled(level, stride), self.shapes[level])

    def in_upsampled(self, level: int, stride: Sequence[int]) -> Array:
        """`(D,)` int32, where a level's part begins in what the next coarser part becomes."""
        return self.starts[level] - self.starts[level + 1] * jnp.asarray(stride, jnp.int32)


class ConvLevel(nn.Module):
    """Twice: 3-wide convolution, ReLU, norm.

    Of planes that are `passing` the lags are needed, see `Conv`.

    Attributes:
      fused: whether that is one pass, where it is not trained; see `Conv`.
    """

    features: int
    ndim: int
    norm: dict[str, Any]
    conv: dict[str, Any]
    fused: bool

    @nn.compact
    def __call__(
        self,
        x: Array,
        train: bool,
        size: Array | None,
        more: Array | None,
        *,
        passing: Passing | None = None,
        lags: tuple[int, ...] = (),
    ) -> Array:
        for i in range(2):
            conv = Conv(self.features, (3,) * self.ndim, **self.conv, name=f"conv_{i}")
            norm = Norm(**self.norm, name=f"norm_{i}")
            seen: dict[str, Any] = {"more": more, "size": size}
            if passing is not None:
                *ins, out = lags
                first = max(ins) + 1
                seen |= {"passing": passing, "lags": (first, out) if i else (*ins, first)}
            if self.fused and not train:
                x = conv(x, norm=norm.affine(), **seen)
            else:
                x = norm(nn.relu(conv(x, **seen)), train=train)
            more = None
        return x


def _level(remat: bool) -> type[ConvLevel]:
    """The class of levels: one that forgets what is inside, if wanted (`train` is argument 2)."""
    return nn.remat(ConvLevel, static_argnums=(2,)) if remat else ConvLevel


class Encoder(nn.Module):
    """The contracting half: `(batch, *spatial, channels)` to its levels, finest first.

    Examples:
      >>> import functools
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import SAUNet
      >>> network = SAUNet(features=4, strides=((2, 2), (2, 2)))  # has an `Encoder`
      >>> image = jnp.zeros((1, 32, 48, 1))
      >>> encode = functools.partial(network.init_with_output, method=SAUNet.encode)
      >>> levels, variables = jax.eval_shape(encode, jax.random.key(0), image)  # shapes alone
      >>> [level.shape for level in levels]
      [(1, 32, 48, 4), (1, 16, 24, 8), (1, 8, 12, 16)]
    """

    features: int
    strides: Sequence[Sequence[int]]
    norm: dict[str, Any]
    conv: dict[str, Any]
    remat: bool
    fused: bool

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool,
        size: Array | None = None,
        passing: Passing | None = None,
    ) -> Levels:
        levels: Levels = ()
        ndim = x.ndim - 2
        level = _level(self.remat and passing is None)
        lag = 0
        for i in range(len(self.strides) + 1):
            if i:
                stride = self.strides[i - 1]
                size = pooled(size, stride)
                if passing is not None:
                    passing, lag = passing.pooled(stride[0]), lag // stride[0]
                if self.fused and not train:
                    shape = [n // step for n, step in zip(x.shape[1:-1], stride, strict=True)]
                    x = max_pool_trained(x, _part(shape, size, passing, lag))
                else:
                    x = max_pool(x, stride)
            features = self.features * 2**i
            made = level(features, ndim, self.norm, self.conv, self.fused, name=f"level_{i}")
            if passing is None:
                x = made(x, train, size, None)
            else:
                out = passing.lags.encoder[i]
                x, lag = made(x, train, size, None, passing=passing, lags=(lag, out)), out
            levels += (x,)
        return levels


class Decoder(nn.Module):
    """The expanding half: levels, finest first, to maps `(batch, *spatial, 1 or 2)` float32.

    With `parts` the maps are those of the part of the finest level, and the coarsest level is given
    as its part: around a region whose maps are wanted, few voxels of the finer levels are needed,
    and these take most of the time.

    Attributes:
      linear: no ReLU on the output (logits, for the full-annotation baseline).
      output_scale: what the map is divided by: the network learns a target times this.
      count_scale: the same of the second map, a density, whose integral is the count; 0 = there
        is none. It has no ReLU, which would make the mean of an uncertain zero positive.
      count_branch: whether the density comes from a branch of its own on the second finest level,
        apart from what locates cells, and not from the last features, as the map does.

    Examples:
      >>> import functools
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import SAUNet
      >>> network = SAUNet(features=4, strides=((2, 2),), count_scale=1.0)  # has a `Decoder`
      >>> image = jnp.zeros((1, 32, 48, 1))
      >>> encode = functools.partial(network.init_with_output, method=SAUNet.encode)
      >>> levels, _ = jax.eval_shape(encode, jax.random.key(0), image)  # shapes alone
      >>> decode = functools.partial(network.init_with_output, method=SAUNet.decode)
      >>> maps, _ = jax.eval_shape(decode, jax.random.key(0), levels)
      >>> maps.shape  # map and density
      (1, 32, 48, 2)
    """

    strides: Sequence[Sequence[int]]
    norm: dict[str, Any]
    conv: dict[str, Any]
    remat: bool
    fused: bool
    linear: bool
    head_bias: float
    output_scale: float
    count_scale: float
    count_branch: bool

    @nn.compact
    def __call__(
        self,
        levels: Levels,
        *,
        train: bool,
        size: Array | None = None,
        parts: Parts | None = None,
        passing: Passing | None = None,
    ) -> Array:
        x = levels[-1]
        sizes, passed = [size], [passing]
        for stride in self.strides:
            sizes.append(pooled(sizes[-1], stride))
            at = passed[-1]
            passed.append(None if at is None else at.pooled(stride[0]))
        if size is not None and parts:
            sizes = [of_level - start for of_level, start in zip(sizes, parts.starts, strict=True)]
        ndim = x.ndim - 2
        level = _level(self.remat and passing is None)
        lag = 0 if passing is None else passing.lags.attended
        for i in reversed(range(len(self.strides))):
            features, stride = levels[i].shape[-1], self.strides[i]
            up = ConvTranspose(features, stride, **self.conv, name=f"up_{i}")
            norm = Norm(**self.norm, name=f"up_norm_{i}")
            fine, at = levels[i], passed[i]
            lag *= stride[0]
            if self.fused and not train:
                shape = tuple(parts.shapes[i]) if parts else fine.shape[1:-1]
                if parts and shape != fine.shape[1:-1]:
                    before = 0 if passing is None else passing.lags.encoder[i]
                    cut_out = _part(shape, sizes[i], at, before, start=parts.starts[i])
                    fine = cut_trained(fine, cut_out)
                start = parts.in_upsampled(i, stride) if parts else None
                x = up(x, norm=norm.affine(), part=_part(shape, sizes[i], at, lag, start=start))
            else:
                x = norm(nn.relu(up(x)), train=train)
                if parts:
                    fine, x = parts.cut(fine, i), parts.cut_upsampled(x, i, stride)
            made = level(features, ndim, self.norm, self.conv, self.fused, name=f"level_{i}")
            if passing is None:
                x = made(fine, train, sizes[i], x)
            else:
                lags = (passing.lags.encoder[i], lag, lag + 2)
                x, lag = made(fine, train, sizes[i], x, passing=passed[i], lags=lags), lag + 2
            if i == 1 or len(self.strides) == 1:
                second = i, x, self.strides[0] if i else (1,) * ndim, lag
        # Not in bfloat16: neighbours on a peak would come out equal.
        exact = at_least_float32(self.conv["dtype"])
        bias = nn.initializers.constant(self.head_bias)
        map = Conv(1, (1,) * ndim, dtype=exact, bias_init=bias, name="head")(x)
        map = (map if self.linear else nn.relu(map)) / self.output_scale
        if not self.count_scale:
            return map
        if self.count_branch:
            i, x, stride, lag_there = second
            seen: dict[str, Any] = {"size": sizes[i]}
            if passing is not None:
                out = passing.lags.maps
                seen |= {"passing": passed[i], "lags": (lag_there, out // stride[0])}
                map = delayed(self, "map", map, out - lag)
            conv = Conv(x.shape[-1], (3,) * ndim, **self.conv, name="count_conv")
            x = Norm(**self.norm, name="count_norm")(nn.relu(conv(x, **seen)), train=train)
        density = Conv(1, (1,) * ndim, dtype=exact, name="count_head")(x) / self.count_scale
        if self.count_branch:
            for axis, times in enumerate(stride, start=1):
                density = jnp.repeat(density, times, axis=axis)
            if parts and len(self.strides) > 1:
                density = parts.cut_upsampled(density, 0, stride)
        return jnp.concatenate([map, density], axis=-1)


def _part(
    shape: Sequence[int],
    size: Array | None,
    passing: Passing | None,
    lag: int,
    *,
    start: Array | None = None,
) -> native.Part:
    """A part of a level, by default from its beginning, of which is wanted what the image fills,
    `size` from there, and of passing planes, which have a lag, those that there are."""
    origin = jnp.zeros(len(shape), jnp.int32)
    there = jnp.stack([origin, jnp.asarray(shape, jnp.int32) if size is None else size])
    if passing is not None:
        there = there.at[:, 0].set(passing.there(lag))
    return native.Part(tuple(shape), origin if start is None else start, there)


def cut(x: Array, start: Array, shape: Sequence[int]) -> Array:
    """A part of an array `(batch, *spatial, channels)`."""
    return jax.lax.dynamic_slice(x, (0, *start, 0), (x.shape[0], *shape, x.shape[-1]))


def pooled(size: Array | None, stride: Sequence[int]) -> Array | None:
    """The size of an image after pooling."""
    return None if size is None else size // jnp.asarray(stride, size.dtype)
