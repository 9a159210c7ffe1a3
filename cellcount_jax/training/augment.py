"""Joint random transforms of one example: its arrays and its dots together.

Pure, key first, one example without a batch axis (vmap adds it). Arrays have the spatial
axes first, all of one spatial shape; dots are `(K, D)` voxel indices of the same grid and
may lie outside of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array


def random_crop_origin(key: Array, low: Array, high: Array, crop: Sequence[int]) -> Array:
    """A uniformly drawn crop inside a box, or covering it where the box is smaller.

    Args:
      key: random key.
      low: `(D,)` int, first voxel of the box.
      high: `(D,)` int, one past its last voxel.
      crop: the D sizes of the crop.

    Returns:
      `(D,)` int, first voxel of the crop.
    """
    room = jnp.maximum(high - low - jnp.asarray(crop), 0)
    return low + jax.random.randint(key, room.shape, 0, room + 1)


def random_crop_around(key: Array, low: Array, high: Array, crop: Sequence[int]) -> Array:
    """A crop around a uniformly drawn voxel of a box, moved into the box where it sticks out.

    Crops at the faces of the box are as frequent as their voxels are; `random_crop_origin` draws
    them hardly ever.

    Args, Returns: as `random_crop_origin`.
    """
    size = jnp.asarray(crop)
    centre = jax.random.randint(key, low.shape, low, high)
    return jnp.clip(centre - size // 2, low, jnp.maximum(high - size, low))


def random_flips(
    key: Array, arrays: Sequence[Array], points: Array
) -> tuple[tuple[Array, ...], Array]:
    """Mirrors along each axis with probability one half.

    Args:
      key: random key.
      arrays: each `(*spatial, ...)`.
      points: `(K, D)` voxel indices.

    Returns:
      The arrays and the points, mirrored alike.
    """
    ndim = points.shape[-1]
    spatial = arrays[0].shape[:ndim]
    mirrored = jax.random.bernoulli(key, shape=(ndim,))
    last = jnp.asarray(spatial, points.dtype) - 1
    points = jnp.where(mirrored[None, :], last[None, :] - points, points)
    out = []
    for array in arrays:
        for axis in range(ndim):
            array = jnp.where(mirrored[axis], jnp.flip(array, axis), array)
        out.append(array)
    return tuple(out), points


def random_transpose(
    key: Array, arrays: Sequence[Array], points: Array
) -> tuple[tuple[Array, ...], Array]:
    """Exchanges y and x with probability one half; with flips this gives quarter turns.

    Args:
      key: random key.
      arrays: each `(*spatial, ...)` with y and x of equal size.
      points: `(K, D)` voxel indices.

    Returns:
      The arrays and the points, exchanged alike.
    """
    ndim = points.shape[-1]
    y, x = ndim - 2, ndim - 1
    swap = jax.random.bernoulli(key)
    order = (*range(y), x, y)
    points = jnp.where(swap, points[:, jnp.asarray(order)], points)
    return tuple(jnp.where(swap, jnp.swapaxes(a, y, x), a) for a in arrays), points


def random_scale(
    key: Array, arrays: Sequence[Array], points: Array, crop: Sequence[int], *, scale: float
) -> tuple[tuple[Array, ...], Array, Array, Array]:
    """Changes the size of what is seen, by one factor along all axes.

        f = exp(U(-s, s)),  x' = (x + 1/2 - o) f - 1/2

    Args:
      key: random key.
      arrays: each `(*spatial, ...)`, of at least `window(crop, scale=scale)` voxels; booleans are
        true where all that they are made of is.
      points: `(K, D)` voxel indices.
      crop: the D sizes of the result.
      scale: s.

    Returns:
      The arrays `(*crop, ...)`, linear between the voxels; the points as float; `(D,)` o, where the
      result begins in the arrays, drawn at random; and f.
    """
    ndim = len(crop)
    keys = jax.random.split(key)
    factor = jnp.exp(jax.random.uniform(keys[0], (), jnp.float32, -scale, scale))
    sizes = jnp.asarray(arrays[0].shape[:ndim], jnp.float32)
    room = sizes - jnp.asarray(crop, jnp.float32) / factor
    start = jax.random.uniform(keys[1], (ndim,)) * room

    def resized(array: Array) -> Array:
        values = array.astype(jnp.float32)
        shape = (*crop, *array.shape[ndim:])
        factors = jnp.full((ndim,), factor)
        values = jax.image.scale_and_translate(
            values, shape, tuple(range(ndim)), factors, -start * factors, "linear"
        )
        return values > 0.999 if array.dtype == bool else values

    moved = (points.astype(jnp.float32) + 0.5 - start[None, :]) * factor - 0.5
    return tuple(map(resized, arrays)), moved, start, factor


def window(crop: Sequence[int], *, scale: float) -> tuple[int, ...]:
    """The voxels that `random_scale` needs for a crop."""
    return tuple(math.ceil(size * math.exp(scale)) for size in crop)


def random_intensity(
    key: Array,
    image: Array,
    *,
    gain: float = 0.0,
    offset: float = 0.0,
    noise: float = 0.0,
    gamma: float = 0.0,
    blur: float = 0.0,
    gradient: float = 0.0,
) -> Array:
    """Random gamma, blur, gain, offset, slope and Gaussian noise, in this order.

        I' = G_U(0, b) * (sign(I) |I|^exp(U(-γ, γ)))
        I <- I' exp(U(-g, g)) + U(-o, o) + <U(-a, a), x> + U(0, n) N(0, 1)

    Args:
      key: random key.
      image: `(*spatial, channels)` in normalised units.
      gain: g.
      offset: o.
      noise: n.
      gamma: of the exponent.
      blur: b, voxels.
      gradient: a; x goes from -1/2 to 1/2 along each axis.

    Returns:
      The image, same shape and dtype.
    """
    keys = jax.random.split(key, 4)
    uniform = functools.partial(jax.random.uniform, shape=(), dtype=image.dtype)
    if gamma > 0:
        power = jnp.exp(uniform(jax.random.fold_in(key, 4), minval=-gamma, maxval=gamma))
        # The least value keeps the gradient of a power finite, though none is taken here.
        image = jnp.sign(image) * jnp.maximum(jnp.abs(image), 1e-6) ** power
    if blur > 0:
        sigma = uniform(jax.random.fold_in(key, 5), minval=0.0, maxval=blur)
        image = _blurred(image, sigma, reach=math.ceil(3 * blur))
    if gain > 0:
        image = image * jnp.exp(jax.random.uniform(keys[0], (), image.dtype, -gain, gain))
    if offset > 0:
        image = image + jax.random.uniform(keys[1], (), image.dtype, -offset, offset)
    if gradient > 0:
        image = image + _slope(jax.random.fold_in(key, 6), image.shape[:-1], gradient)[..., None]
    if noise > 0:
        deviation = jax.random.uniform(keys[2], (), image.dtype, 0.0, noise)
        image = image + deviation * jax.random.normal(keys[3], image.shape, image.dtype)
    return image


def _blurred(image: Array, sigma: Array, *, reach: int) -> Array:
    """A Gaussian along the spatial axes; the outermost voxels go on beyond the ends."""
    at = jnp.arange(-reach, reach + 1, dtype=image.dtype)
    weights = jnp.exp(-0.5 * jnp.square(at / jnp.maximum(sigma, 0.05)))
    weights = weights / weights.sum()
    for axis, size in enumerate(image.shape[:-1]):
        ends = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = jnp.pad(image, ends, mode="edge")
        parts = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(at)))
        image = sum(
            (weight * part for weight, part in zip(weights, parts, strict=True)),
            jnp.zeros_like(image),
        )
    return image


def _slope(key: Array, shape: Sequence[int], gradient: float) -> Array:
    """A plane through 0 at the centre, `(*shape)`."""
    steepness = jax.random.uniform(key, (len(shape),), minval=-gradient, maxval=gradient)
    found = jnp.zeros(tuple(shape))
    for axis, size in enumerate(shape):
        line = steepness[axis] * (jnp.linspace(-0.5, 0.5, size))
        found = found + line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return found
