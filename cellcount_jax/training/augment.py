"""Joint random transforms of one example: its arrays and its dots together.

Pure, key first, one example without a batch axis (vmap adds it). Arrays have the spatial
axes first, all of one spatial shape; dots are `(K, D)` voxel indices of the same grid and
may lie outside of it.
"""

from __future__ import annotations

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


def random_intensity(
    key: Array, image: Array, *, gain: float = 0.0, offset: float = 0.0, noise: float = 0.0
) -> Array:
    """Random gain, offset and Gaussian noise.

    .. math:: I \\cdot e^{U(-g, g)} + U(-o, o) + U(0, n) \\cdot N(0, 1)

    Args:
      key: random key.
      image: `(*spatial, channels)` in normalised units.
      gain: g.
      offset: o.
      noise: n.

    Returns:
      The image, same shape and dtype.
    """
    keys = jax.random.split(key, 4)
    if gain > 0:
        image = image * jnp.exp(jax.random.uniform(keys[0], (), image.dtype, -gain, gain))
    if offset > 0:
        image = image + jax.random.uniform(keys[1], (), image.dtype, -offset, offset)
    if noise > 0:
        deviation = jax.random.uniform(keys[2], (), image.dtype, 0.0, noise)
        image = image + deviation * jax.random.normal(keys[3], image.shape, image.dtype)
    return image
