"""Batches drawn on the device: crops, transforms and targets. Pure, keys first.

Dots are transformed with the crop and become a map afterwards, on a grid that is larger than
the crop by the reach of the kernel, so that dots just outside of the crop count.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax import Array

from cellcount_jax.maps import targets
from cellcount_jax.maps.targets import TargetGeometry
from cellcount_jax.training import augment, parallel
from cellcount_jax.training.stack import ImageStack, TrainingData, unlabelled_window

Batch = dict[str, Array]


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
      `(*crop, 1)` float; with `target.count_head` `(*crop, 2)`, the second a density.
    """
    t = config.target
    if t.kernel == "mask":
        assert cells is not None
        return cells[..., None]
    options: dict[str, Any] = {
        "mask": mask,
        "spacing": geometry.edges,
        "unit": 1.0,
        "margin": geometry.margin,
    }
    if t.kernel == "gaussian":
        target = targets.gaussian_density_map(points, crop, sigma=t.sigma, **options)
    else:
        target = targets.inverse_distance_map(
            points, crop, max_distance=t.max_distance, gamma=tuple(t.gamma), c=t.c, **options
        )
    if not t.count_head:
        return target[..., None]
    density = targets.gaussian_density_map(points, crop, sigma=t.count_sigma, **options)
    return jnp.stack([target, density], axis=-1)


def draw_batch(
    keys: Array,
    data: TrainingData,
    *,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
    shares: Mapping[str, int],
    axis_name: str | None = None,
) -> Batch:
    """Draws this device's share of a batch.

    Args:
      keys: `(2,)`, of the labelled and of the unlabelled crops, the same on every device.
      data: all images.
      config: its `train`, `augment` and `target` sections are used.
      geometry: from `target_geometry`.
      shares: `batch_labelled` and `batch_unlabelled` of one device.
      axis_name: the mapped axis; None outside of pmap.

    Returns:
      As `train_step` takes it: `unlabelled` only where there are such images.
    """
    draw = functools.partial(parallel.example_keys, axis_name=axis_name)
    options: dict[str, Any] = {"config": config, "geometry": geometry}
    batch = draw_labelled(draw(keys[0], shares["batch_labelled"]), data.labelled, **options)
    if data.unlabelled is not None:
        batch["unlabelled"] = draw_unlabelled(
            draw(keys[1], shares["batch_unlabelled"]), data.unlabelled, **options
        )
    return batch


def draw_labelled(
    keys: Array, stack: ImageStack, *, config: ml_collections.ConfigDict, geometry: TargetGeometry
) -> Batch:
    """Draws one augmented crop per key, with its target.

    Returns:
      `image` `(batch, *crop, channels)`, `target` `(batch, *crop, 1 or 2)` and `valid`
        `(batch, *crop, 1)`.
    """

    def one(key: Array) -> Batch:
        pick, origin_key, *rest = jax.random.split(key, 6)
        index = jax.random.randint(pick, (), 0, len(stack.images))
        assert stack.points is not None and stack.mask is not None and stack.size is not None
        arrays = [stack.images, stack.valid]
        if stack.cells is not None:
            arrays.append(stack.cells)
        crop = tuple(config.train.crop)
        cut, points, box = _cut(
            origin_key, stack, index, arrays, stack.points[index], config, crop=crop
        )
        cut[1] &= _whole(box, stack.size[index], config, geometry)
        moved, points = _augmented(rest, cut, points, config, geometry)
        target = make_target(
            points,
            stack.mask[index],
            moved[2] if len(moved) > 2 else None,
            crop,
            config=config,
            geometry=geometry,
        )
        return {"image": moved[0], "target": target, "valid": moved[1][..., None]}

    return jax.vmap(one)(keys)


def draw_unlabelled(
    keys: Array, stack: ImageStack, *, config: ml_collections.ConfigDict, geometry: TargetGeometry
) -> Array:
    """Draws one augmented window of `unlabelled_window` per key: `(batch, *window, channels)`."""
    seen = unlabelled_window(config)

    def one(key: Array) -> Array:
        pick, origin_key, *rest = jax.random.split(key, 6)
        if stack.drawn is None:
            index = jax.random.randint(pick, (), 0, len(stack.images))
        else:  # rounding may leave a rest behind the last one
            at = jax.random.uniform(pick, dtype=stack.drawn.dtype)
            index = jnp.minimum(
                jnp.searchsorted(stack.drawn, at, side="right"), len(stack.images) - 1
            )
        none = jnp.zeros((1, len(config.train.crop)), jnp.int32)
        cut, points, _ = _cut(origin_key, stack, index, [stack.images], none, config, crop=seen)
        return _augmented(rest, cut, points, config, geometry)[0][0]

    return jax.vmap(one)(keys)


def _cut(
    key: Array,
    stack: ImageStack,
    index: Array,
    arrays: Sequence[Any],
    points: Array,
    config: ml_collections.ConfigDict,
    *,
    crop: tuple[int, ...],
) -> tuple[list[Array], Array, tuple[Array, Array]]:
    """A crop of some arrays of a stack, of another size where `augment.scale` is set.

    Returns:
      The crops; the points `(K, D)` int in their voxels; and the box of the crop in the image,
      float, its first edge and its last.
    """
    scale = config.augment.scale
    window = augment.window(crop, scale=scale)
    draw = augment.random_crop_around if config.train.cut_margin else augment.random_crop_origin
    origin = draw(key, stack.low[index], stack.high[index], window)
    ndim = len(crop)

    def cut(array: Array) -> Array:
        start = (index, *origin, *(0,) * (array.ndim - 1 - ndim))
        return jax.lax.dynamic_slice(array, start, (1, *window, *array.shape[1 + ndim :]))[0]

    cuts, points = [cut(array) for array in arrays], points - origin[None, :]
    if not scale:
        edges = origin.astype(jnp.float32), (origin + jnp.asarray(crop)).astype(jnp.float32)
        return cuts, points, edges
    scaled, moved, start, factor = augment.random_scale(
        jax.random.fold_in(key, 1), cuts, points, crop, scale=scale
    )
    start = origin.astype(start.dtype) + start
    end = start + jnp.asarray(crop, start.dtype) / factor
    return list(scaled), jnp.floor(moved + 0.5).astype(points.dtype), (start, end)


def _whole(
    box: tuple[Array, Array],
    size: Array,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
) -> Array:
    """The voxels of a crop, bool, that lie `train.cut_margin` inside of it, or at the image's end.

    A cell that the crop cuts looks like one that the image cuts, but its dot may lie outside:
    in a prediction, where all is seen but for the image's ends, there is no such cell.

    Args:
      box: of the crop in the image, see `_cut`.
      size: `(D,)` of the image.
      config: with the margin.
      geometry: with the edges of a voxel.
    """
    inside = []
    for axis, (length, edge) in enumerate(zip(config.train.crop, geometry.edges, strict=True)):
        margin, at = round(config.train.cut_margin / edge), jnp.arange(length)
        after = (at >= margin) | (box[0][axis] < 0.5)
        before = (at < length - margin) | (box[1][axis] > size[axis].astype(jnp.float32) - 0.5)
        inside.append(after & before)
    return functools.reduce(jnp.logical_and, jnp.meshgrid(*inside, indexing="ij", sparse=True))


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
    strengths = {name: a[name] for name in ("gain", "offset", "noise", "gamma", "blur", "gradient")}
    image = augment.random_intensity(keys[2], moved[0], **strengths)
    return (image, *moved[1:]), points
