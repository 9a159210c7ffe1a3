"""Convolutions in the form that is fast on their backend.

On GPU and TPU that is XLA's; its CPU backend is slow at 3D convolutions and at the gradients of
all, so that there a convolution is `native`'s, or, where that is not to be had or the numbers are
float64, a sum of XLA's 2D convolutions over the depth taps. On every backend

* a 1x1 convolution is a matrix product,
* a transposed convolution whose window is its stride is a matrix product and a reshape: it has
  no overlap to add up. In a trained network on a CPU it is `native`'s, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cellcount_jax.network import native


def at_least_float32(dtype: Any) -> Any:
    """The type for sums, and for what is compared: bfloat16 has three digits."""
    return jnp.dtype(jnp.float32) if dtype == jnp.bfloat16 else jnp.dtype(dtype)


def convolve(x: Array, kernel: Array, *, size: Array | None = None) -> Array:
    """Convolution with stride 1 and zero padding to the same size.

    Args:
      x: `(batch, *spatial, in)`.
      kernel: `(*window, in, out)`, odd window.
      size: `(D,)` int32, of the images, from the beginning of x: what is behind them is taken for
        zeros. None = all of x. With it there is no gradient.

    Returns:
      `(batch, *spatial, out)`.
    """
    window = kernel.shape[:-2]
    if all(size == 1 for size in window):
        return x @ kernel.reshape(kernel.shape[-2:])
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and x.dtype == jnp.bfloat16:
        # As an accelerator does it: sums in float32, the result rounded.
        return convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), size=size).astype(
            x.dtype
        )
    if on_cpu and x.dtype == jnp.float32 and native.available():
        return _in_volumes(x, kernel, size)
    if size is not None:
        x = jnp.where(inside(x.shape[1:-1], size)[None, ..., None], x, 0)
    if not on_cpu:
        return _xla(x, kernel)
    return _convolve_plane(x, kernel) if len(window) == 2 else _convolve_by_depth(x, kernel)


def inside(shape: Sequence[int], size: Array, *, origin: Array | None = None) -> Array:
    """`(*shape,)` bool: where an array, which begins at an origin, is filled by an image `(D,)`
    large."""
    within = jnp.ones((), bool)
    for axis in range(len(shape)):
        at = jax.lax.broadcasted_iota(jnp.int32, tuple(shape), axis)
        if origin is not None:
            at = at + origin[axis]
            within = within & (at >= 0)
        within = within & (at < size[axis])
    return within


def _in_volumes(x: Array, kernel: Array, size: Array | None) -> Array:
    """The C++ convolution; a plane is a volume of one slice."""
    if size is not None:
        return convolve_trained(x, kernel, size=size)
    if kernel.ndim == 4:
        return jnp.squeeze(_convolve_volume(x[:, None], kernel[None]), 1)
    return _convolve_volume(x, kernel)


def convolve_trained(
    x: Array,
    kernel: Array,
    *,
    more: Array | None = None,
    size: Array | None = None,
    finish: native.Finish | None = None,
    **passing: Array,
) -> Array:
    """`native.convolve`, of planes too, which do not pass: without a gradient, and where `can_fuse`
    allows it."""
    if kernel.ndim == 5:
        return native.convolve(x, kernel, more=more, size=size, finish=finish, **passing)
    assert not passing
    size = None if size is None else jnp.concatenate([jnp.ones(1, size.dtype), size])
    more = None if more is None else more[:, None]
    y = native.convolve(x[:, None], kernel[None], more=more, size=size, finish=finish)
    return jnp.squeeze(y, 1)


def upsample_trained(x: Array, kernel: Array, finish: native.Finish, part: native.Part) -> Array:
    """Part of `upsample` by `native.upsample`, in 2D too, where `can_fuse` allows it."""
    kernel = jnp.flip(kernel, range(kernel.ndim - 2))
    kernel = kernel if kernel.ndim == 5 else kernel[None]
    return _in_a_volume(lambda x, part: native.upsample(x, kernel, finish, part), x, part)


def cut_trained(x: Array, part: native.Part) -> Array:
    """`native.cut`, in 2D too, where `can_fuse` allows it."""
    return _in_a_volume(native.cut, x, part)


def max_pool_trained(x: Array, pooled: native.Part) -> Array:
    """`native.max_pool`, in 2D too, where `can_fuse` allows it."""
    return _in_a_volume(native.max_pool, x, pooled)


def _in_a_volume(make: Callable[[Array, native.Part], Array], x: Array, part: native.Part) -> Array:
    """Makes a part of a volume, or of a plane, which is a volume of one slice."""
    if len(part.shape) == 3:
        return make(x, part)
    there = jnp.concatenate([jnp.asarray([[0], [1]], jnp.int32), part.there], axis=1)
    slice_ = native.Part((1, *part.shape), jnp.pad(part.start, (1, 0)), there)
    return jnp.squeeze(make(x[:, None], slice_), 1)


def can_fuse(dtype: Any) -> bool:
    """Whether a trained network can be computed by `native`, ReLU and norm in the same pass."""
    on_cpu = jax.default_backend() == "cpu"
    return on_cpu and jnp.dtype(dtype) == jnp.float32 and native.available()


@jax.custom_vjp
def _convolve_volume(x: Array, kernel: Array) -> Array:
    return native.convolve(x, kernel)


def _convolve_volume_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return native.convolve(x, kernel), (x, kernel)


def _convolve_volume_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = native.convolve(dy, _mirrored(kernel))
    return dx, native.weight_gradient(x, dy, kernel.shape[:3])


_convolve_volume.defvjp(_convolve_volume_forward, _convolve_volume_backward)


def _mirrored(kernel: Array) -> Array:
    """The kernel whose convolution with dy is the gradient in x."""
    return jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-1, -2)


def _xla(x: Array, kernel: Array) -> Array:
    spatial = "DHW"[-(kernel.ndim - 2) :]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    ones = (1,) * len(spatial)
    return jax.lax.conv_general_dilated(x, kernel, ones, "SAME", dimension_numbers=numbers)


@jax.custom_vjp
def _convolve_plane(x: Array, kernel: Array) -> Array:
    """2D convolution whose gradients are convolutions in the standard layout.

    Inside a loop, XLA's CPU backend computes the derived weight gradient in its own odd
    layout without a fast kernel, 50 to 300 times slower.
    """
    return _xla(x, kernel)


def _convolve_plane_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _xla(x, kernel), (x, kernel)


def _convolve_plane_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = _xla(dy, _mirrored(kernel))
    # The weight gradient is a convolution too: channels in the role of the batch, the
    # batch in that of the channels, and dy in that of the kernel.
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    dw = jax.lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return dx, dw.transpose(1, 2, 0, 3)


_convolve_plane.defvjp(_convolve_plane_forward, _convolve_plane_backward)


def _convolve_by_depth(x: Array, kernel: Array) -> Array:
    batch, depth, *plane, channels = x.shape
    taps = kernel.shape[0]
    padded = jnp.pad(x, ((0, 0), (taps // 2, taps // 2), (0, 0), (0, 0), (0, 0)))
    total = jnp.zeros((), x.dtype)
    for tap in range(taps):
        slices = jax.lax.slice_in_dim(padded, tap, tap + depth, axis=1)
        flat = slices.reshape(batch * depth, *plane, channels)
        total = total + _convolve_plane(flat, kernel[tap])
    return total.reshape(batch, depth, *plane, kernel.shape[-1])


def upsample(x: Array, kernel: Array) -> Array:
    """Transposed convolution whose window equals its stride.

    Args:
      x: `(batch, *spatial, in)`.
      kernel: `(*stride, in, out)`.

    Returns:
      `(batch, *(spatial * stride), out)`.
    """
    stride = kernel.shape[:-2]
    ndim = len(stride)
    features = kernel.shape[-1]
    # As in flax, the window is mirrored: its last entry makes the first voxel.
    kernel = jnp.flip(kernel, range(ndim))
    # (*stride, in, out) -> (in, *stride * out): one product gives all voxels of a window.
    matrix = jnp.moveaxis(kernel, -2, 0).reshape(x.shape[-1], -1)
    y = (x @ matrix).reshape(*x.shape[:-1], *stride, features)
    order = [0]
    for axis in range(ndim):
        order += [1 + axis, 1 + ndim + axis]
    y = y.transpose(*order, 2 * ndim + 1)
    spatial = [size * s for size, s in zip(x.shape[1:-1], stride, strict=True)]
    return y.reshape(x.shape[0], *spatial, features)


def symmetric(kernel: Array, symmetry: str) -> Array:
    """The mean of a kernel and its mirror images, as large as the kernel in the mean.

        k' = (product over axes a of sqrt(n_a / ceil(n_a / 2)))
             2^-D (sum over sets S of axes of flip_S(k))

    A convolution with it gives for a mirrored image the mirrored result.

    Args:
      kernel: `(*window, in, out)`, n_a long along axis a of the window.
      symmetry: 'mirror', along each axis; 'square', exchanging the last two axes of the window as
        well where they are equally long; 'none', the kernel as it is.

    Returns:
      Same shape.

    Source: filters of the trivial representation, Cohen and Welling 2016.
    """
    if symmetry == "none":
        return kernel
    for axis, size in enumerate(kernel.shape[:-2]):
        if size > 1:
            factor = math.sqrt(size / ((size + 1) // 2))
            kernel = 0.5 * factor * (kernel + jnp.flip(kernel, axis))
    if symmetry == "square" and kernel.shape[-3] == kernel.shape[-4]:
        kernel = 0.5 * (kernel + jnp.swapaxes(kernel, -3, -4))
    return kernel
