"""The network's layers: convolutions, norm, pooling.

Parameters have the shapes and the meaning of `flax.linen.Conv` and `ConvTranspose`
(`kernel` `(*window, in, out)`, `bias` `(out,)`), whatever form computes them, see
`convolutions.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cellcount_jax.network import native
from cellcount_jax.network.convolutions import (
    at_least_float32,
    convolve,
    convolve_trained,
    symmetric,
    upsample,
    upsample_trained,
)
from cellcount_jax.network.passing import Passing, seen_of

# Uniform: a truncated normal takes XLA seconds to compile for every shape.
_INIT = nn.initializers.he_uniform()


class _Affine(nn.Module):
    """A layer with a kernel and a bias.

    Attributes:
      features: channels of the result.
      window: of the kernel.
      dtype: of the computation.
      bias_init: initial bias.
      symmetry: of the kernel that is used, see `symmetric`.
    """

    features: int
    window: Sequence[int]
    dtype: Any = jnp.float32
    bias_init: Callable[..., Array] = nn.initializers.zeros
    symmetry: str = "none"

    def weights(self, inputs: int) -> tuple[Array, Array]:
        """The kernel for so many channels, and the bias."""
        shape = (*self.window, inputs, self.features)
        kernel = self.param("kernel", _INIT, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return symmetric(kernel, self.symmetry), bias

    def apply_kernel(self, x: Array, operation: Callable[[Array, Array], Array]) -> Array:
        kernel, bias = self.weights(x.shape[-1])
        y = operation(x.astype(self.dtype), kernel.astype(self.dtype))
        # The gradient of the bias is a sum over all voxels: not in bfloat16.
        wide = at_least_float32(self.dtype)
        y = y.astype(wide) + bias.astype(wide).reshape((1,) * (y.ndim - 1) + (-1,))
        return y.astype(self.dtype)


class Conv(_Affine):
    """Convolution, stride 1, zero padding: `(batch, *spatial, in)` to `(..., features)`.

    Further input channels may be in `more`. With `norm`, the scale and the shift of a batch norm,
    the result is normed after a ReLU, all in one pass; it has no gradient, and needs `can_fuse`.
    Of planes that are `passing` the lags are needed, of x, of `more`, if there is, and of the
    result.
    """

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        more: Array | None = None,
        size: Array | None = None,
        norm: tuple[Array, Array] | None = None,
        passing: Passing | None = None,
        lags: Sequence[int] = (),
    ) -> Array:
        planes: dict[str, Array] = {}
        if passing is not None:
            # The results see one plane more than lies between them.
            *ins, out = lags
            planes["before"], x = seen_of(self, "x", x, out + 1 - ins[0])
            if more is not None:
                planes["more_before"], more = seen_of(self, "more", more, out + 1 - ins[1])
            planes["planes"] = passing.seen(out)
        if norm is None:
            if planes:
                size = None if size is None else size.at[0].add(2)
                x = _sequence(x, more, **planes)
                return self.apply_kernel(x, functools.partial(convolve, size=size))[:, 1:-1]
            x = x if more is None else jnp.concatenate([x, more], axis=-1)
            return self.apply_kernel(x, functools.partial(convolve, size=size))
        kernel, bias = self.weights(x.shape[-1] + (0 if more is None else more.shape[-1]))
        finish = native.Finish(bias, *norm)
        return convolve_trained(x, kernel, more=more, size=size, finish=finish, **planes)


def _sequence(
    x: Array,
    more: Array | None,
    *,
    before: Array,
    planes: Array,
    more_before: Array | None = None,
) -> Array:
    """All that the results of a convolution on passing planes see, see `native.convolve`."""
    depth = x.shape[1] + 2
    parts = [jnp.concatenate([before, x], axis=1)[:, :depth]]
    if more is not None and more_before is not None:
        parts.append(jnp.concatenate([more_before, more], axis=1)[:, :depth])
    number = jnp.arange(depth)[None, :, None, None, None]
    there = (number >= planes[0]) & (number < planes[1])
    return jnp.where(there, jnp.concatenate(parts, axis=-1), 0)


class ConvTranspose(_Affine):
    """Transposed convolution whose stride is its window; the spatial sizes grow by it.

    With `norm` it ends as a `Conv` does, and only a part of the result is computed.
    """

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        norm: tuple[Array, Array] | None = None,
        part: native.Part | None = None,
    ) -> Array:
        if norm is None:
            return self.apply_kernel(x, upsample)
        assert part is not None
        kernel, bias = self.weights(x.shape[-1])
        return upsample_trained(x, kernel, native.Finish(bias, *norm), part)


class Norm(nn.Module):
    """Batch norm (running statistics unless `train`) or instance norm, by `kind`."""

    _EPSILON = 1e-5

    kind: str
    momentum: float
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if self.kind == "instance":
            return nn.InstanceNorm(dtype=self.dtype)(x)
        return nn.BatchNorm(
            use_running_average=not train,
            epsilon=self._EPSILON,
            name="BatchNorm_0",
            momentum=self.momentum,
            axis_name=self.axis_name if train else None,
            dtype=self.dtype,
        )(x)

    def affine(self) -> tuple[Array, Array]:
        """The scale and the shift, `(channels,)`, of a trained batch norm."""
        params, statistics = (self.variables[k]["BatchNorm_0"] for k in ("params", "batch_stats"))
        scale = params["scale"] * jax.lax.rsqrt(statistics["var"] + self._EPSILON)
        return scale, params["bias"] - statistics["mean"] * scale


def max_pool(x: Array, stride: Sequence[int]) -> Array:
    """Maximum over windows of `stride`, axis by axis and pair by pair.

    The gradient of `jnp.max` divides by how many voxels equal the maximum, and that is 0/0
    where the compiler computes the input again with other rounding; that of a pair does not.
    """
    for axis, step in enumerate(stride, start=1):
        windows = x.reshape(*x.shape[:axis], -1, step, *x.shape[axis + 1 :])
        parts = (jax.lax.index_in_dim(windows, i, axis + 1, keepdims=False) for i in range(step))
        x = functools.reduce(jnp.maximum, parts)
    return x
