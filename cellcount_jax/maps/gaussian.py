"""A Gaussian on the grid: its taps, and what is convolved with it along an axis. Pure."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array


def gaussian_filter_along(values: Array, axis: int, sigma: float, radius: int) -> Array:
    """Convolves along one axis with a sampled Gaussian that sums to 1, zeros outside.

    Args:
      values: any shape.
      axis: the axis to filter along.
      sigma: width in voxels.
      radius: the kernel has 2 radius + 1 taps.

    Returns:
      Filtered values, same shape and dtype.
    """
    weights = gaussian_taps(sigma, radius)
    size = values.shape[axis]
    pads = [(0, 0)] * values.ndim
    pads[axis] = (radius, radius)
    padded = jnp.pad(values, pads)

    def shifted(k: int) -> Array:
        return jax.lax.slice_in_dim(padded, radius + k, radius + k + size, axis=axis)

    out = values * weights[0]
    for k in range(1, radius + 1):
        out = out + (shifted(k) + shifted(-k)) * weights[k]
    return out


def gaussian_taps(sigma: float, radius: int) -> list[float]:
    """The middle one and one side of the 2 radius + 1 taps of a Gaussian that sum to 1."""
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights]
