"""One fluorescence-like image or volume of known cells, drawn from a random key.

The scene follows what the simulated VGG set shows: soft, slightly irregular round cells, each
with its own brightness and focus, partly in clusters and overlapping, on an uneven background,
with shot and read noise. 2D and 3D are one code path; the dimension is `len(shape)`.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cellcount_jax.errors import InputError

# Grey levels, as of a 12-bit camera far from saturation; one photon is one grey level.
_BACKGROUND = 350.0
_BRIGHTNESS = 800.0
_READ_NOISE = 6.0

# How much cells differ, at most, from a ball of the nominal radius and brightness.
_SIZE_SPREAD = 0.15
_BRIGHTNESS_SPREAD = 0.22
_STRETCH = 0.15
_DENTS = 0.1
_EDGE = (0.3, 0.9)  # half-width of the soft edge in radii: in focus, out of focus
_REACH = (1 + _EDGE[1]) * (1 + _SIZE_SPREAD) / ((1 - _STRETCH) * (1 - _DENTS))

# Widths of the image's point spread function in radii; microscopes blur z about twice as much.
_PSF = (0.12, 0.3)
_AXIAL_PSF = 2.0


class _Geometry(NamedTuple):
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    radius: float


@functools.partial(
    jax.jit,
    static_argnames=("shape", "spacing", "count_range", "radius", "min_distance", "clustering"),
)
def generate(
    key: Array,
    shape: tuple[int, ...],
    *,
    spacing: tuple[float, ...] | None = None,
    count_range: tuple[int, int] = (74, 317),
    radius: float = 4.6,
    min_distance: float = 0.7,
    clustering: float = 0.1,
) -> tuple[Array, Array, Array, Array]:
    """Draws one image or volume of cells together with its dots and its full annotation.

    The image is `noise(illumination * (background + psf * sum_i cell_i))`: intensities add where
    cells overlap. A cell is a ball of random size, stretched and dented, whose edge falls as a
    raised cosine over a random width (its focus). Everything is padded to the largest count, so
    one compilation serves all keys.

    Args:
      key: a `jax.random.key`; the same key gives the same scene.
      shape: spatial shape, `(y, x)` or `(z, y, x)`, in voxels. Static.
      spacing: `(D,)` voxel size in any unit of length; ones by default. Static.
      count_range: least and largest number of cells, both possible; the default is the range
        of the VGG set. Static.
      radius: mean cell radius, at half of the maximum, in the unit of `spacing`. Static.
      min_distance: no two centres are nearer than this many radii, because dots on top of
        each other cannot be told apart. Static.
      clustering: fraction of cells that are first proposed beside another cell. Static.

    Returns:
      image: `(*shape, 1)` float32 grey levels, as of a 12-bit camera, not negative.
      points: `(K, D)` float32 centres in voxels, `K = count_range[1]`, the cells first and
        zeros after; each lies between 0 and shape - 1.
      mask: `(K,)` bool, True for a cell.
      labels: `(*shape,)` int32, 0 for background, i + 1 for the cell of row i; where cells
        overlap, the one whose centre is nearer in units of its own size.

    Raises:
      InputError: for a shape that is not 2D or 3D, a spacing of another length, an impossible
        range, or more cells than can be placed at this distance.
    """
    geometry = _Geometry(shape, (1.0,) * len(shape) if spacing is None else spacing, radius)
    _check(geometry, count_range, min_distance, clustering)
    count_key, place_key, cell_key, psf_key, light_key, noise_key = jax.random.split(key, 6)
    lowest, highest = count_range
    # Sparse images are commoner: over 74..317 the mean is the VGG set's, 176.
    fraction = jax.random.uniform(count_key) ** 1.38
    count = lowest + jnp.floor(fraction * (highest - lowest + 1)).astype(jnp.int32)
    count = jnp.minimum(count, highest)
    mask = jnp.arange(highest) < count

    # One row at least, so that a scene that is always empty needs no code of its own.
    rows = max(highest, 1)
    points = _place(place_key, count, rows, geometry, min_distance, clustering)
    cells, labels = _render(cell_key, points, count, geometry)
    psf = jax.random.uniform(psf_key, minval=_PSF[0], maxval=_PSF[1])
    cells = _blur(cells, psf, geometry)
    image = _expose(light_key, noise_key, _crop(cells, shape))
    return image[..., None], points[:highest], mask, _crop(labels, shape)


def _place(
    key: Array,
    count: Array,
    rows: int,
    geometry: _Geometry,
    min_distance: float,
    clustering: float,
) -> Array:
    """Places `count` centres one by one, drawing again where one falls too near another."""
    shape, spacing, radius = geometry
    ndim = len(shape)
    scale = jnp.asarray(spacing, jnp.float32)
    last = jnp.asarray(shape, jnp.float32) - 1

    def attempt(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        points, placed, trial = state
        # Two draws and not one per use, here and in `_cell`: each is compiled on its own.
        normal_key, uniform_key = jax.random.split(jax.random.fold_in(key, trial))
        uniform = jax.random.uniform(uniform_key, (2 + ndim,))
        anywhere = last * uniform[2:]
        beside = points[(uniform[0] * placed).astype(jnp.int32)]
        beside = beside + 1.5 * radius / scale * jax.random.normal(normal_key, (ndim,))
        is_beside = (uniform[1] < clustering) & (placed > 0)
        candidate = jnp.where(is_beside, beside, anywhere)
        distance = jnp.linalg.norm((points - candidate[None]) * scale[None], axis=-1)
        near = (distance < min_distance * radius) & (jnp.arange(rows) < placed)
        good = ~near.any() & ((candidate >= 0) & (candidate <= last)).all()
        points = points.at[placed].set(jnp.where(good, candidate, 0.0))
        return points, placed + good, trial + 1

    # `_check` leaves every uniform proposal an even chance, so this ends.
    start = (jnp.zeros((rows, ndim), jnp.float32), jnp.int32(0), jnp.int32(0))
    points, _, _ = lax.while_loop(lambda state: state[1] < count, attempt, start)
    return points


def _render(key: Array, points: Array, count: Array, geometry: _Geometry) -> tuple[Array, Array]:
    """Adds the cells, window by window, into canvases with a margin of half a window."""
    shape, spacing, radius = geometry
    ndim = len(shape)
    half = tuple(math.ceil(_REACH * radius / s) + 1 for s in spacing)
    window = tuple(2 * h + 1 for h in half)
    axes = (jnp.arange(-h, h + 1, dtype=jnp.float32) for h in half)
    offsets = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)
    to_radii = (jnp.asarray(spacing, jnp.float32) / radius)[(None,) * ndim]

    def add(i: Array, canvases: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        nearest = jnp.floor(points[i] + 0.5)
        shift = (points[i] - nearest)[(None,) * ndim]
        distance, light = _cell(jax.random.fold_in(key, i), (offsets - shift) * to_radii)
        corner = tuple(nearest.astype(jnp.int32))
        old_light, old_distance, old_label = (
            lax.dynamic_slice(canvas, corner, window) for canvas in canvases
        )
        nearer = (distance < 1) & (distance < old_distance)
        new = (
            old_light + light,
            jnp.where(nearer, distance, old_distance),
            jnp.where(nearer, i + 1, old_label),
        )
        light, distance, label = (
            lax.dynamic_update_slice(canvas, patch, corner)
            for canvas, patch in zip(canvases, new, strict=True)
        )
        return light, distance, label

    padded = tuple(n + 2 * h for n, h in zip(shape, half, strict=True))
    start = (
        jnp.zeros(padded, jnp.float32),
        jnp.full(padded, jnp.inf, jnp.float32),
        jnp.zeros(padded, jnp.int32),
    )
    light, _, labels = lax.fori_loop(0, count, add, start)
    return light, labels


def _cell(key: Array, offsets: Array) -> tuple[Array, Array]:
    """One cell: distance from its centre (1 on its outline) and its light.

    Args:
      key: a `jax.random.key`.
      offsets: `(*window, D)` positions relative to the centre, in radii.

    Returns:
      Two `(*window,)` float32 maps; light is zero from distance `1 + _EDGE[1]` on.
    """
    ndim = offsets.shape[-1]
    normal_key, uniform_key = jax.random.split(key)
    axis, *waves = jax.random.normal(normal_key, (4, ndim))
    uniform = jax.random.uniform(uniform_key, (7,), minval=-1.0)
    size = 1 + _SIZE_SPREAD * uniform[0]
    brightness = 1 + _BRIGHTNESS_SPREAD * uniform[1]
    stretch = _STRETCH * uniform[2]
    edge = (_EDGE[0] + _EDGE[1]) / 2 + (_EDGE[1] - _EDGE[0]) / 2 * uniform[3]
    phases = jnp.pi * uniform[4:]

    axis = axis / jnp.linalg.norm(axis)
    along = (offsets @ axis)[..., None] * axis[(None,) * ndim]
    distance = jnp.linalg.norm(offsets + stretch * along, axis=-1)
    direction = offsets / jnp.maximum(jnp.linalg.norm(offsets, axis=-1, keepdims=True), 1e-6)
    angles = 3 * direction @ jnp.stack(waves, axis=-1) + phases[(None,) * ndim]
    distance = distance * (1 + _DENTS * jnp.sin(angles).mean(axis=-1)) / size
    # The light of a cell out of focus is spread, not lost.
    brightness = brightness / (1 + 0.4 * edge**2)
    ramp = jnp.clip((distance - 1 + edge) / (2 * edge), 0, 1)
    return distance, brightness * 0.5 * (1 + jnp.cos(jnp.pi * ramp))


def _blur(canvas: Array, psf: Array, geometry: _Geometry) -> Array:
    """Convolves with a Gaussian of `psf` radii; the canvas ends in a margin wider than that."""
    _, spacing, radius = geometry
    for axis, step in enumerate(spacing):
        widening = _AXIAL_PSF if len(spacing) == 3 and axis == 0 else 1.0
        reach = math.ceil(3 * _PSF[1] * widening * radius / step)
        taps = range(-reach, reach + 1)
        at = jnp.asarray(taps, jnp.float32) * step / (psf * widening * radius)
        weights = jnp.exp(-0.5 * at**2)
        weights = weights / weights.sum()
        shifted = (w * jnp.roll(canvas, t, axis) for w, t in zip(weights, taps, strict=True))
        canvas = functools.reduce(jnp.add, shifted)
    return canvas


def _expose(light_key: Array, noise_key: Array, cells: Array) -> Array:
    """Adds the uneven background and the illumination's fall to the rim, then noise."""
    shape, ndim = cells.shape, cells.ndim
    centre_key, fall_key, wave_key, phase_key = jax.random.split(light_key, 4)
    shot_key, read_key = jax.random.split(noise_key)
    axes = (jnp.linspace(-1, 1, n) for n in shape)
    at = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)
    centre = jax.random.uniform(centre_key, (ndim,), minval=-0.3, maxval=0.3)
    fall = jax.random.uniform(fall_key, minval=0.15, maxval=0.35) / ndim
    illumination = 1 - fall * ((at - centre[(None,) * ndim]) ** 2).sum(axis=-1)
    waves = jax.random.uniform(wave_key, (ndim, 4), minval=-3.0, maxval=3.0)
    phases = jax.random.uniform(phase_key, (4,), maxval=2 * jnp.pi)
    haze = 1 + 0.6 * jnp.cos(at @ waves + phases[(None,) * ndim]).mean(axis=-1)
    photons = illumination * (_BACKGROUND * haze + _BRIGHTNESS * cells)
    shot = jnp.sqrt(photons) * jax.random.normal(shot_key, shape)
    read = _READ_NOISE * jax.random.normal(read_key, shape)
    return jnp.maximum(photons + shot + read, 0)


def _crop(canvas: Array, shape: tuple[int, ...]) -> Array:
    margins = ((full - n) // 2 for full, n in zip(canvas.shape, shape, strict=True))
    return canvas[tuple(slice(m, m + n) for m, n in zip(margins, shape, strict=True))]


def _check(
    geometry: _Geometry, count_range: tuple[int, int], min_distance: float, clustering: float
) -> None:
    shape, spacing, radius = geometry
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"shape is {shape}; it must be (y, x) or (z, y, x), each at least 1.")
    if len(spacing) != len(shape) or min(spacing) <= 0:
        raise InputError(f"spacing is {spacing}; shape {shape} needs {len(shape)} positive sizes.")
    if radius <= 0 or min_distance < 0:
        raise InputError(
            f"radius is {radius} and min_distance {min_distance}; a radius is positive and a "
            "distance not negative."
        )
    if not 0 <= clustering < 1:
        raise InputError(f"clustering is {clustering}; it must be at least 0 and below 1.")
    if not 0 <= count_range[0] <= count_range[1]:
        raise InputError(f"count_range is {count_range}; it must be 0 <= lowest <= highest.")
    distance = min_distance * radius
    ball = math.pi * distance**2 if len(shape) == 2 else 4 / 3 * math.pi * distance**3
    room = math.prod((n - 1) * s for n, s in zip(shape, spacing, strict=True))
    if count_range[1] * ball > 0.5 * room:
        raise InputError(
            f"count_range is {count_range}; at most {int(0.5 * room / ball)} cells can be placed "
            f"{distance:g} apart in an image of shape {shape} and spacing {spacing}."
        )
