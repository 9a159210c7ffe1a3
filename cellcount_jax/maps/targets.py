"""Dots to training targets: distance, inverse-distance, Gaussian and mask maps.

Every function here is pure, works in 2D and 3D alike, runs on the device inside jit and
vmap, and takes one image without a batch axis (vmap adds it). Points are `(K, D)` in
index order with an optional `(K,)` mask, so that a fixed K holds any number of dots; a
map without any dot is legal and is zero everywhere. Distances are in the units of
`spacing`; without it, in voxels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jax import Array

from cellcount_jax.maps import distance
from cellcount_jax.maps.gaussian import gaussian_filter_along, gaussian_taps

# Where a Gaussian kernel ends, in sigmas.
GAUSSIAN_REACH = 4.0


def rasterise(points: Array, shape: Sequence[int], *, mask: Array | None = None) -> Array:
    """Counts the dots in each voxel, a dot at x belonging to voxel floor(x + 0.5).

    Args:
      points: `(K, D)` dots in voxels, index order.
      shape: the D sizes of the grid. Dots outside it are left out.
      mask: `(K,)` bool, which rows of `points` are dots; default all.

    Returns:
      `shape` int32, the number of dots in each voxel.
    """
    points = points.astype(jnp.zeros(()).dtype)
    index = jnp.floor(points + 0.5).astype(jnp.int32)
    limits = jnp.asarray(shape, jnp.int32)
    inside = jnp.all((index >= 0) & (index < limits[None, :]), axis=-1)
    if mask is not None:
        inside &= mask
    # Negative indices would wrap around; the first index past the end is dropped instead.
    index = jnp.where(inside[:, None], index, limits[None, :])
    counts = jnp.zeros(tuple(shape), jnp.int32)
    return counts.at[tuple(index.T)].add(1, mode="drop")


def distance_transform(
    seeds: Array, *, spacing: Sequence[float] | None = None, max_distance: float | None = None
) -> Array:
    """Euclidean distance from every voxel to the nearest seed.

        D(i) = min over seeds j of sqrt(sum over axes a of (s_a (i_a - j_a))²)

    Exact up to `max_distance`; see `cellcount_jax.maps.distance` for the computation.

    Args:
      seeds: `(*spatial)` bool.
      spacing: D voxel edge lengths; default ones.
      max_distance: cut, in the units of `spacing`: beyond it the distance is infinite. The
        work grows with it; default no cut.

    Returns:
      `(*spatial)` float, infinite beyond the cut and where there is no seed at all.

    Raises:
      ValueError: spacing or max_distance are not positive or do not fit the image.

    Examples:
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import distance_transform
      >>> distance_transform(jnp.array([[True, False, False]]), spacing=(1.0, 2.0)).tolist()
      [[0.0, 2.0, 4.0]]
    """
    return distance.transform(
        seeds,
        edges=_edges(spacing, seeds.ndim),
        max_distance=max_distance,
        margin=(0,) * seeds.ndim,
    )


def inverse_distance(
    distance: Array, *, gamma: tuple[float, float] = (0.02, 0.75), c: float = 1.0
) -> Array:
    """The inverse-distance kernel of the paper's equation 2, elementwise.

        M = 1 / (L^γ + C),  γ = γ₁ L + γ₀

    Args:
      distance: L, any shape, in the unit in which the kernel is meant; infinite is legal
        and gives 0.
      gamma: slope and constant of the exponent (Liang et al. 2021).
      c: the constant C; 1 makes the map 1 at a dot.

    Returns:
      The map, same shape, in [0, 1 / C].
    """
    slope, constant = gamma
    kernel = 1.0 / (distance ** (slope * distance + constant) + c)
    # Without a slope the exponent of an infinite distance would be 0 times infinity.
    return jnp.where(jnp.isinf(distance), 0.0, kernel)


def inverse_distance_map(
    points: Array,
    shape: Sequence[int],
    *,
    mask: Array | None = None,
    spacing: Sequence[float] | None = None,
    unit: float | None = None,
    max_distance: float | None = None,
    gamma: tuple[float, float] = (0.02, 0.75),
    c: float = 1.0,
    margin: Sequence[int] | None = None,
) -> Array:
    """Inverse-distance map of an image's dots (paper, equation 2).

    Args:
      points: `(K, D)` dots in voxels of the map.
      shape: the D sizes of the map.
      mask: `(K,)` bool, which rows are dots; default all.
      spacing: D voxel edge lengths; default ones.
      unit: the length that counts as 1 in the kernel, in the units of `spacing`; default
        the finest voxel edge.
      max_distance: cut in multiples of `unit`, beyond which the map is 0; default none.
      gamma: see `inverse_distance`.
      c: see `inverse_distance`.
      margin: voxels, per axis, beyond the map's ends within which dots count too; default none.

    Returns:
      `shape` float, 1 / c at the dots, 0 everywhere where there is no dot.

    Raises:
      ValueError: a length is not positive, or does not fit the number of dimensions.

    Examples:
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import inverse_distance_map
      >>> target = inverse_distance_map(jnp.array([[2, 2], [2, 5]]), (5, 8))
      >>> target.shape, [round(float(value), 2) for value in target[2, 1:5]]
      ((5, 8), [0.5, 1.0, 0.5, 0.5])
    """
    edges = _in_units(spacing, unit, len(shape))
    counts, margin = _with_margin(points, shape, mask, margin)
    nearest = distance.transform(counts > 0, edges=edges, max_distance=max_distance, margin=margin)
    return inverse_distance(nearest, gamma=gamma, c=c)


def gaussian_density_map(
    points: Array,
    shape: Sequence[int],
    *,
    sigma: float,
    mask: Array | None = None,
    spacing: Sequence[float] | None = None,
    unit: float | None = None,
    truncate: float = GAUSSIAN_REACH,
    margin: Sequence[int] | None = None,
) -> Array:
    """Sum of a Gaussian kernel on every dot: the baseline of the paper's ablation.

        M(i) = sum over dots d of N(i; d, σ²)

    The kernel is sampled on the grid, cut at `truncate` sigma and sums to 1, so that the
    map's sum over a region is the number of cells in it (Lempitsky and Zisserman 2010).

    Args:
      points: `(K, D)` dots in voxels of the map.
      shape: the D sizes of the map.
      sigma: width in multiples of `unit`.
      mask: `(K,)` bool, which rows are dots; default all.
      spacing: D voxel edge lengths; default ones.
      unit: see `inverse_distance_map`.
      truncate: where the kernel ends, in sigmas.
      margin: see `inverse_distance_map`.

    Returns:
      `shape` float density, in cells per voxel.

    Raises:
      ValueError: a length is not positive, or does not fit the number of dimensions.

    Examples:
      >>> import functools
      >>> import jax
      >>> from cellcount_jax import gaussian_density_map
      >>> draw = functools.partial(gaussian_density_map, shape=(16, 16), sigma=1.0)
      >>> round(float(jax.jit(draw)(jax.numpy.array([[8, 6], [8, 9]])).sum()), 3)
      2.0
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    edges = _in_units(spacing, unit, len(shape))
    counts, margin = _with_margin(points, shape, mask, margin)
    density = counts.astype(jnp.zeros(()).dtype)
    for axis, edge in enumerate(edges):
        radius = math.ceil(truncate * sigma / edge)
        density = gaussian_filter_along(density, axis, sigma / edge, radius)
        end = margin[axis] + shape[axis]
        density = jax.lax.slice_in_dim(density, margin[axis], end, axis=axis)
    return density


def mask_target(labels: Array) -> Array:
    """Cell or background from a full annotation: the paper's 'full annotations' baseline.

    A voxel that touches a cell with a smaller number along an axis counts as background, so
    that cells that touch stay apart as connected components.

    Args:
      labels: `(*spatial)` int, 0 is background, every cell its own number.

    Returns:
      `(*spatial)` float, 1 inside cells.
    """
    touching = jnp.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        pads = [(0, 0)] * labels.ndim
        pads[axis] = (1, 1)
        padded = jnp.pad(labels, pads)
        for start in (0, 2):
            other = jax.lax.slice_in_dim(padded, start, start + labels.shape[axis], axis=axis)
            touching |= (other > 0) & (other < labels)
    return ((labels > 0) & ~touching).astype(jnp.zeros(()).dtype)


def _with_margin(
    points: Array, shape: Sequence[int], mask: Array | None, margin: Sequence[int] | None
) -> tuple[Array, tuple[int, ...]]:
    """The dots counted on a grid that is larger than the map by the margin; the margin."""
    widths = (0,) * len(shape) if margin is None else tuple(margin)
    if len(widths) != len(shape) or not all(width >= 0 for width in widths):
        raise ValueError(f"margin must be {len(shape)} numbers of voxels, got {margin}")
    grid = [size + 2 * width for size, width in zip(shape, widths, strict=True)]
    shifted = points + jnp.asarray(widths, points.dtype)[None, :]
    return rasterise(shifted, grid, mask=mask), widths


def _edges(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    edges = (1.0,) * ndim if spacing is None else tuple(float(s) for s in spacing)
    if len(edges) != ndim or not all(e > 0 for e in edges):
        raise ValueError(f"spacing must be {ndim} positive lengths, got {spacing}")
    return edges


def _in_units(spacing: Sequence[float] | None, unit: float | None, ndim: int) -> tuple[float, ...]:
    edges = _edges(spacing, ndim)
    length = min(edges) if unit is None else float(unit)
    if not length > 0:
        raise ValueError(f"unit must be positive, got {unit}")
    return tuple(e / length for e in edges)


@dataclasses.dataclass(frozen=True)
class TargetGeometry:
    """The grid on which maps are made, in voxels and in units of the kernel.

    Attributes:
      edges: voxel edge lengths in units of the kernel.
      margin: voxels, per axis, that the map's grid is larger than the crop at each end.
    """

    edges: tuple[float, ...]
    margin: tuple[int, ...]


def target_geometry(config: ml_collections.ConfigDict, spacing: Sequence[float]) -> TargetGeometry:
    """The geometry of a config's target on voxels of `spacing`."""
    unit = config.target.unit or min(spacing)
    edges = tuple(float(s) / unit for s in spacing)
    reach = {
        "inverse_distance": config.target.max_distance,
        "gaussian": GAUSSIAN_REACH * config.target.sigma,
        "mask": 0.0,
    }[config.target.kernel]
    if config.target.count_head:
        reach = max(reach, GAUSSIAN_REACH * config.target.count_sigma)
    margin = tuple(math.ceil(reach / e) + 1 for e in edges)
    return TargetGeometry(edges, margin)


def peak_value(config: ml_collections.ConfigDict, geometry: TargetGeometry) -> float:
    """The target's value at a lone dot, to which thresholds are relative."""
    t = config.target
    if t.kernel == "gaussian":
        widths = (t.sigma / edge for edge in geometry.edges)
        reach = GAUSSIAN_REACH
        return math.prod(gaussian_taps(w, math.ceil(reach * w))[0] for w in widths)
    return 1.0 if t.kernel == "mask" else 1.0 / t.c
