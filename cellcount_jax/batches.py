"""Training images as device arrays, and the pure functions that draw batches from them.

Images of different sizes are stacked into one array, padded at the far ends; crops come
from inside each image's own box, so that the padding is never seen. Dots are transformed
with the crop and become a map afterwards, on a grid that is larger than the crop by the
reach of the kernel, so that dots just outside of the crop count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import struct
from jax import Array

from cellcount_jax import augment, targets
from cellcount_jax.data.normalise import Normalisation
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError

Batch = dict[str, Array]


@struct.dataclass
class ImageStack:
    """Images of one kind, stacked.

    Attributes:
      images: `(N, *spatial, channels)` float32, normalised.
      low: `(N, D)` int32, first voxel of the box that crops come from.
      high: `(N, D)` int32, one past its last voxel.
      valid: `(N, *spatial)` bool; None for unlabelled images.
      points: `(N, K, D)` int32, voxels of the dots inside the valid region, or None.
      mask: `(N, K)` bool, or None.
      cells: `(N, *spatial)` float32, 1 inside cells, for the full-annotation target only,
        else None.
    """

    images: Array
    low: Array
    high: Array
    valid: Array | None = None
    points: Array | None = None
    mask: Array | None = None
    cells: Array | None = None


@struct.dataclass
class TrainingData:
    """What lives on the device while training."""

    labelled: ImageStack
    unlabelled: ImageStack | None


@dataclasses.dataclass(frozen=True)
class TargetGeometry:
    """Where maps are made: static numbers, in voxels and in units of the kernel.

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
        "gaussian": 4 * config.target.sigma,
        "mask": 0.0,
    }[config.target.kernel]
    margin = tuple(math.ceil(reach / e) + 1 for e in edges)
    return TargetGeometry(edges, margin)


def on_device(
    dataset: Dataset, normalisation: Normalisation, config: ml_collections.ConfigDict
) -> TrainingData:
    """Stacks a data set's training images.

    Raises:
      InputError: a crop does not fit an image, or the full-annotation target has no labels.
    """
    labelled = _stack(dataset.labelled, normalisation, config, with_labels=True)
    if config.consistency.weight == 0 or config.train.batch_unlabelled == 0:
        return TrainingData(labelled, None)
    # Without unlabelled images the labelled ones serve, their dots unused.
    without = dataset.unlabelled or dataset.labelled
    return TrainingData(labelled, _stack(without, normalisation, config, with_labels=False))


def _stack(
    samples: Sequence[Sample],
    normalisation: Normalisation,
    config: ml_collections.ConfigDict,
    *,
    with_labels: bool,
) -> ImageStack:
    crop = tuple(config.train.crop)
    for sample in samples:
        if any(size < c for size, c in zip(sample.shape, crop, strict=True)):
            raise InputError(
                f"{sample.source or sample.name}: the image is {_by(sample.shape)} voxels, smaller"
                f" than config.train.crop = {_by(crop)}; choose a smaller crop"
            )
    shape = tuple(max(sizes) for sizes in zip(*(s.shape for s in samples), strict=True))
    images = np.stack([_padded(normalisation(s.image), shape) for s in samples])
    boxes = [_box(s, crop) for s in samples]
    low = np.asarray([b[0] for b in boxes], np.int32)
    high = np.asarray([b[1] for b in boxes], np.int32)
    if not with_labels:
        return ImageStack(jnp.asarray(images), jnp.asarray(low), jnp.asarray(high))
    dots = [voxels_inside(s) for s in samples]
    most = max(1, *(len(d) for d in dots))
    points = np.zeros((len(samples), most, len(shape)), np.int32)
    mask = np.zeros((len(samples), most), bool)
    for i, d in enumerate(dots):
        points[i, : len(d)] = d
        mask[i, : len(d)] = True
    valid = np.stack([_padded(_valid(s), shape) for s in samples])
    cells = None
    if config.target.kernel == "mask":
        cells = jnp.asarray(np.stack([_padded(_cells(s), shape) for s in samples]))
    return ImageStack(
        images=jnp.asarray(images),
        low=jnp.asarray(low),
        high=jnp.asarray(high),
        valid=jnp.asarray(valid),
        points=jnp.asarray(points),
        mask=jnp.asarray(mask),
        cells=cells,
    )


def voxels_inside(sample: Sample) -> np.ndarray:
    """Voxels `(N, D)` int32 of a labelled sample's dots that lie in its valid region."""
    voxels = np.floor(np.asarray(sample.points) + 0.5).astype(np.int32)
    return voxels if sample.valid is None else voxels[sample.valid[tuple(voxels.T)]]


def _valid(sample: Sample) -> np.ndarray:
    return np.ones(sample.shape, bool) if sample.valid is None else sample.valid


def _cells(sample: Sample) -> np.ndarray:
    """The mask target of a whole image, so that a crop's edge does not change it."""
    if sample.labels is None:
        raise InputError(
            f"{sample.source or sample.name}: config.target.kernel = 'mask' needs a full annotation"
            f" ({sample.name}_labels.tif) of every labelled image, and this one has none"
        )
    return np.asarray(targets.mask_target(jnp.asarray(sample.labels)))


def _box(sample: Sample, crop: Sequence[int]) -> tuple[list[int], list[int]]:
    """The box that crops come from: all of the image, or what holds its valid region."""
    if sample.valid is None or sample.points is None:
        return [0] * len(sample.shape), list(sample.shape)
    low, high = [], []
    for axis in range(sample.valid.ndim):
        others = tuple(a for a in range(sample.valid.ndim) if a != axis)
        used = np.flatnonzero(sample.valid.any(axis=others))
        if not used.size:
            raise InputError(f"{sample.source or sample.name}: the valid region is empty")
        # A region smaller than the crop may lie at the image's end: the crop starts before it.
        low.append(min(int(used[0]), sample.shape[axis] - crop[axis]))
        high.append(int(used[-1]) + 1)
    return low, high


def _padded(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    ends = [(0, n - size) for n, size in zip(shape, array.shape, strict=False)]
    return np.pad(array, ends + [(0, 0)] * (array.ndim - len(shape)))


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def make_target(
    points: Array,
    mask: Array,
    cells: Array | None,
    crop: Sequence[int],
    *,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
) -> Array:
    """The training target of one crop.

    Args:
      points: `(K, D)` int dots in voxels of the crop, also such outside of it.
      mask: `(K,)` bool, which rows are dots.
      cells: `crop` float, 1 inside cells, for the 'mask' kernel.
      crop: the D sizes.
      config: its `target` section is used.
      geometry: from `target_geometry`.

    Returns:
      `(*crop, 1)` float.
    """
    t = config.target
    if t.kernel == "mask":
        assert cells is not None
        return cells[..., None]
    grid = tuple(c + 2 * m for c, m in zip(crop, geometry.margin, strict=True))
    shifted = points + jnp.asarray(geometry.margin, points.dtype)[None, :]
    options: dict[str, Any] = {"mask": mask, "spacing": geometry.edges, "unit": 1.0}
    if t.kernel == "gaussian":
        full = targets.gaussian_density_map(shifted, grid, sigma=t.sigma, **options)
    else:
        full = targets.inverse_distance_map(
            shifted, grid, max_distance=t.max_distance, gamma=tuple(t.gamma), c=t.c, **options
        )
    cut = tuple(slice(m, m + c) for m, c in zip(geometry.margin, crop, strict=True))
    return full[cut][..., None]


def peak_value(config: ml_collections.ConfigDict, geometry: TargetGeometry) -> float:
    """The target's value at a lone dot: the scale of thresholds."""
    if config.target.kernel == "mask":
        return 1.0
    dot = jnp.zeros((1, len(geometry.edges)), jnp.int32)
    one = (1,) * len(geometry.edges)
    alone = make_target(dot, jnp.ones(1, bool), None, one, config=config, geometry=geometry)
    return float(alone.max())


def draw_labelled(
    keys: Array, stack: ImageStack, *, config: ml_collections.ConfigDict, geometry: TargetGeometry
) -> Batch:
    """Draws one augmented crop per key, with its target.

    Returns:
      `image` `(batch, *crop, channels)`, `target` and `valid` `(batch, *crop, 1)`.
    """

    def one(key: Array) -> Batch:
        pick, origin_key, *rest = jax.random.split(key, 6)
        index = jax.random.randint(pick, (), 0, len(stack.images))
        cut, origin = _cutter(origin_key, stack, index, config)
        arrays = [cut(stack.images), cut(stack.valid)]
        if stack.cells is not None:
            arrays.append(cut(stack.cells))
        assert stack.points is not None and stack.mask is not None
        points = stack.points[index] - origin[None, :]
        moved, points = _augmented(rest, arrays, points, config, geometry)
        target = make_target(
            points,
            stack.mask[index],
            moved[2] if len(moved) > 2 else None,
            tuple(config.train.crop),
            config=config,
            geometry=geometry,
        )
        return {"image": moved[0], "target": target, "valid": moved[1][..., None]}

    return jax.vmap(one)(keys)


def draw_unlabelled(
    keys: Array, stack: ImageStack, *, config: ml_collections.ConfigDict, geometry: TargetGeometry
) -> Array:
    """Draws one augmented crop per key: `(batch, *crop, channels)`."""

    def one(key: Array) -> Array:
        pick, origin_key, *rest = jax.random.split(key, 6)
        index = jax.random.randint(pick, (), 0, len(stack.images))
        cut, origin = _cutter(origin_key, stack, index, config)
        return _augmented(rest, [cut(stack.images)], origin[None, :], config, geometry)[0][0]

    return jax.vmap(one)(keys)


def _cutter(
    key: Array, stack: ImageStack, index: Array, config: ml_collections.ConfigDict
) -> tuple[Callable[[Any], Array], Array]:
    crop = tuple(config.train.crop)
    origin = augment.random_crop_origin(key, stack.low[index], stack.high[index], crop)
    ndim = len(crop)

    def cut(array: Array) -> Array:
        start = (index, *origin, *(0,) * (array.ndim - 1 - ndim))
        return jax.lax.dynamic_slice(array, start, (1, *crop, *array.shape[1 + ndim :]))[0]

    return cut, origin


def _augmented(
    keys: Sequence[Array],
    arrays: Sequence[Array],
    points: Array,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
) -> tuple[tuple[Array, ...], Array]:
    a = config.augment
    moved = tuple(arrays)
    if a.flips:
        moved, points = augment.random_flips(keys[0], moved, points)
    square = config.train.crop[-1] == config.train.crop[-2]
    isotropic = math.isclose(geometry.edges[-1], geometry.edges[-2], rel_tol=1e-3)
    if a.transpose and square and isotropic:
        moved, points = augment.random_transpose(keys[1], moved, points)
    image = augment.random_intensity(keys[2], moved[0], gain=a.gain, offset=a.offset, noise=a.noise)
    return (image, *moved[1:]), points
