"""Exact Euclidean distance transform within a cut, as passes along the axes of the grid.

Lower envelopes of parabolas (Felzenszwalb and Huttenlocher, Distance transforms of sampled
functions, 2012), here by brute force over a window, which vectorises. Barriers between the passes
make XLA write each one down once: fused, it computes the earlier ones again for every offset.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

# Offsets unrolled into one fused loop. Longer windows iterate over chunks of this size, so
# that compile time does not grow with the image.
_UNROLLED_OFFSETS = 32


@functools.partial(jax.jit, static_argnames=("edges", "max_distance", "margin"))
def transform(
    seeds: Array,
    *,
    edges: tuple[float, ...],
    max_distance: float | None,
    margin: tuple[int, ...],
) -> Array:
    """Euclidean distance to the nearest seed, on the inner part of the seeds' grid.

    Axes with the finest edge, whose windows are the longest, come first and count squared
    voxels in integers as short as hold them. A margin goes as soon as its axis is done.

    Args:
      seeds: `(*spatial)` bool.
      edges: D voxel edge lengths.
      max_distance: cut, in the units of `edges`; None for none.
      margin: voxels, per axis, that the result is smaller than the seeds' grid at each end.

    Returns:
      The distances, float; infinite beyond the cut and where there is no seed at all.

    Raises:
      ValueError: max_distance is not positive.
    """
    if max_distance is not None and not max_distance > 0:
        raise ValueError(f"max_distance must be positive, got {max_distance}")
    radii = [size - 1 for size in seeds.shape]
    if max_distance is not None:
        radii = [min(r, math.floor(max_distance / e)) for r, e in zip(radii, edges, strict=True)]
    finest = min(edges)
    equal = [axis for axis, edge in enumerate(edges) if edge == finest]
    # The first pass is the cheapest one, so that it is for the longest window.
    equal.sort(key=lambda axis: -radii[axis])
    largest = sum(radii[axis] ** 2 for axis in equal)
    if max_distance is not None:
        largest = min(largest, math.ceil((max_distance / finest) ** 2))
    dtype = _shortest(largest + 1 + max(_reach(radii[axis]) ** 2 for axis in equal))
    far = dtype.type(largest + 1)

    first, *others = equal
    offset = _nearest_along(seeds, first, radii[first], margin[first]).astype(dtype)
    squared = jnp.where(offset <= radii[first], offset * offset, far)
    for axis in others:
        squared = _lower_envelope(squared, axis, 1, radii[axis], margin[axis], far)
    real = squared.astype(jnp.zeros(()).dtype) * finest**2
    real = jnp.where(squared < far, real, jnp.inf)
    for axis in (axis for axis, edge in enumerate(edges) if edge != finest):
        real = _lower_envelope(real, axis, edges[axis], radii[axis], margin[axis], jnp.inf)
    distance = jnp.sqrt(real)
    if max_distance is not None:
        distance = jnp.where(distance <= max_distance, distance, jnp.inf)
    return distance


def _nearest_along(seeds: Array, axis: int, radius: int, margin: int) -> Array:
    """Voxels along an axis to the nearest seed, radius + 1 where there is none that near.

    Steps of 1, 2, 4, ... are taken or not: together they make up every offset to the radius.
    """
    dtype = _shortest(2 * radius + 1)
    nearest = jnp.where(seeds, jnp.asarray(0, dtype), jnp.asarray(radius + 1, dtype))
    nearest = _with_ends(nearest, axis, radius - margin, radius + 1)
    reached = 0
    while reached < radius:
        step = min(reached + 1, radius - reached)
        size = nearest.shape[axis] - 2 * step
        below, here, above = (
            jax.lax.slice_in_dim(nearest, start, start + size, axis=axis)
            for start in (0, step, 2 * step)
        )
        closer = jnp.minimum(below, above) + jnp.asarray(step, dtype)
        nearest = jax.lax.optimization_barrier(jnp.minimum(here, closer))
        reached += step
    return nearest


def _lower_envelope(
    squared: Array, axis: int, edge: float, radius: int, margin: int, far: float
) -> Array:
    """min over |k| <= radius of squared[i + k] + (edge k)^2 along an axis, less its margin."""
    reach = _reach(radius)
    chunks = -(-reach // _UNROLLED_OFFSETS)
    size = squared.shape[axis] - 2 * margin
    squared = _with_ends(squared, axis, reach - margin, far)

    def step(chunk: Array | int, best: Array) -> Array:
        for offset in range(1, reach // chunks + 1):
            k = chunk * (reach // chunks) + offset
            above = jax.lax.dynamic_slice_in_dim(squared, reach + k, size, axis)
            below = jax.lax.dynamic_slice_in_dim(squared, reach - k, size, axis)
            cost = (edge * jnp.asarray(k, squared.dtype)) ** 2
            best = jnp.minimum(best, jnp.minimum(above, below) + cost)
        return best

    best = jax.lax.slice_in_dim(squared, reach, reach + size, axis=axis)
    if chunks > 1:
        return jax.lax.fori_loop(0, chunks, step, best)
    return step(0, best) if chunks else best


def _reach(radius: int) -> int:
    """The radius, rounded up to whole chunks."""
    chunks = max(1, -(-radius // _UNROLLED_OFFSETS))
    return chunks * -(-radius // chunks)


def _shortest(largest: int) -> jnp.dtype:
    """The shortest type of integers up to `largest`; float where it is beyond 32 bits."""
    for dtype in (jnp.int8, jnp.int16, jnp.int32):
        if largest <= jnp.iinfo(dtype).max:
            return jnp.dtype(dtype)
    return jnp.zeros(()).dtype


def _with_ends(values: Array, axis: int, width: int, fill: float) -> Array:
    """Longer by `width` at both ends of an axis, or shorter where it is negative."""
    widths = [(width, width, 0) if a == axis else (0, 0, 0) for a in range(values.ndim)]
    values = jax.lax.optimization_barrier(values)
    padded = jax.lax.pad(values, jnp.asarray(fill, values.dtype), widths)
    return jax.lax.optimization_barrier(padded)
