"""The consistency term of equation 3: the teacher's map, what the student sees, what it learns.

`weight`, `perturbation` and `focal` of `config.consistency` are the paper's; all else, off by
default, is meant to get more out of unlabelled images. 2D and 3D alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax.inference.plan import mirror_images
from cellcount_jax.maps import targets
from cellcount_jax.maps.targets import TargetGeometry
from cellcount_jax.network.sau_net import SAUNet
from cellcount_jax.training import augment, losses, parallel
from cellcount_jax.training.batches import make_target

# Changes of intensity in a view of strength 1, see `augment.random_intensity`.
_VIEW = {"gain": 0.5, "offset": 0.3, "noise": 0.2, "gamma": 0.3, "blur": 1.0, "gradient": 0.3}


class View(NamedTuple):
    """What a student sees of an unlabelled image, and what it learns there.

    Attributes:
      image: `(*crop, channels)`, perturbed.
      target: `(*crop, 1 or 2)`, as the maps of the network.
      weight: `(*crop, 1)` of the error; 0 where nothing is known.
    """

    image: Array
    target: Array
    weight: Array


def views(
    predict: Callable[..., Array],
    images: Array,
    key: Array,
    *,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
    peak: float,
    axis_name: str | None = None,
    levels: tuple[Array, ...] | None = None,
) -> View:
    """What the student sees of unlabelled images, and what the teacher says there.

    Args:
      predict: a method of the network with the teacher's variables, as in prediction: without
        dropout, the norms with running statistics.
      images: `(batch, *window, channels)`, this device's share.
      key: of the views, the same on every device.
      config: its `consistency`, `target`, `detect` and `train` sections are used.
      geometry: of the targets.
      peak: the target's value at a lone dot.
      axis_name: the mapped axis; None outside of pmap.
      levels: the encoder's features of the images, where they are known.

    Returns:
      The views, with a leading axis; no gradient passes to the teacher.
    """
    if config.consistency.teacher_flips:
        maps = mean_over_mirror_images(predict, images)
    elif levels is None:
        maps = predict(images)
    else:
        seen = predict(jax.lax.stop_gradient(levels), method=SAUNet.attend)
        maps = predict(seen, method=SAUNet.decode)
    if config.target.kernel == "mask":
        maps = jax.nn.sigmoid(maps)
    keys = parallel.example_keys(key, len(images), axis_name=axis_name)
    view = functools.partial(student_view, config=config, geometry=geometry, peak=peak)
    return jax.vmap(view)(keys, images, maps)


def noisy(
    key: Array, levels: tuple[Array, ...], *, config: ml_collections.ConfigDict
) -> tuple[Array, ...]:
    """The student's features with noise, where that is the perturbation of the config."""
    c = config.consistency
    if c.perturbation not in settings.FEATURE_PERTURBATIONS:
        return levels
    last_only = c.perturbation == "feature_noise_last"
    return losses.feature_noise(key, levels, strength=c.strength, last_only=last_only)


def error(found: Array, view: View, *, config: ml_collections.ConfigDict) -> tuple[Array, Array]:
    """The error of the student's maps, elementwise.

    Args:
      found: `(batch, *crop, 1 or 2)` its maps.
      view: what it saw.
      config: its `consistency` and `target` sections are used.

    Returns:
      The error `(batch, *crop, 1)`, and where it counts, bool.
    """
    if config.consistency.target == "dots":
        wrong = losses.supervised_loss(found, view.target, config=config)
        return view.weight * wrong, view.weight > 0
    masks = config.target.kernel == "mask"
    scale = 1.0 if masks else config.target.scale
    maps = (jax.nn.sigmoid(found) if masks else found)[..., :1]
    wrong = losses.focal_consistency_loss(scale * maps, scale * view.target[..., :1], view.weight)
    return wrong, view.weight > 0


def changes_image(consistency: ml_collections.ConfigDict) -> bool:
    """Whether the student sees another image than the teacher, and not only other features."""
    c = consistency
    return c.perturbation in settings.IMAGE_PERTURBATIONS or max(c.view, c.scale, c.cut_out) > 0


def mean_over_mirror_images(predict: Callable[[Array], Array], images: Array) -> Array:
    """Mean of the maps of all mirror images, mirrored back.

        2^-D times the sum over sets S of axes of flip_S(f(flip_S(I)))

    Args:
      predict: f, images `(batch, *spatial, channels)` to maps of the same spatial shape.
      images: I.

    Returns:
      The map.

    Source: data distillation, Radosavovic et al. 2018.
    """
    axes = range(1, images.ndim - 1)
    maps = [jnp.flip(predict(jnp.flip(images, f)), f) for f in mirror_images(axes)]
    return sum(maps[1:], start=maps[0]) / len(maps)


def student_view(
    key: Array,
    image: Array,
    teacher: Array,
    *,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
    peak: float,
) -> View:
    """What the student sees of one unlabelled image, and what it learns from the teacher.

    Geometry changes the image and the target alike, and so needs not be undone.

    Args:
      key: random key.
      image: `(*window, channels)`, see `stack.unlabelled_window`.
      teacher: `(*window, 1 or 2)`, its maps; no gradient passes.
      config: its `consistency`, `target`, `detect` and `train` sections are used.
      geometry: of the targets.
      peak: the target's value at a lone dot.

    Returns:
      The view, of the size of a crop.
    """
    c, crop = config.consistency, tuple(config.train.crop)
    keys = jax.random.split(key, 5)
    teacher = jax.lax.stop_gradient(teacher)
    if c.target == "dots":
        points, mask, known = confident_dots(
            teacher[..., 0], config=config, geometry=geometry, peak=peak
        )
    else:
        points, mask = jnp.zeros((1, len(crop)), jnp.int32), jnp.zeros((1,), bool)
        known = jnp.ones(teacher.shape[:-1], bool)
    arrays: tuple[Array, ...] = (image, known, teacher)
    if c.scale > 0:
        arrays, moved, _, _ = augment.random_scale(keys[0], arrays, points, crop, scale=c.scale)
        points = jnp.floor(moved + 0.5).astype(points.dtype)
    if config.augment.flips and (c.view > 0 or c.scale > 0):
        arrays, points = augment.random_flips(keys[1], arrays, points)
    image, known, target = arrays
    weight = known[..., None].astype(target.dtype)
    if c.target == "dots":
        target = make_target(points, mask, None, crop, config=config, geometry=geometry)
    if c.focal:
        focal = {"sigma": c.focal_sigma, "radius": c.focal_radius, "floor": c.focal_floor * peak}
        weight = weight * losses.focal_weight(target[None, ..., :1], **focal)[0]
    if c.view > 0:
        strengths = {name: c.view * strength for name, strength in _VIEW.items()}
        image = augment.random_intensity(keys[2], image, **strengths)
    if c.perturbation in settings.IMAGE_PERTURBATIONS:
        image = losses.image_perturbation(keys[3], image, kind=c.perturbation, strength=c.strength)
    if c.cut_out > 0:
        hidden = random_box(keys[4], crop, share=c.cut_out)[..., None]
        image = jnp.where(hidden, image.mean(tuple(range(len(crop))), keepdims=True), image)
        weight = jnp.where(hidden, 0.0, weight)
    return View(image, target, weight)


def confident_dots(
    teacher: Array, *, config: ml_collections.ConfigDict, geometry: TargetGeometry, peak: float
) -> tuple[Array, Array, Array]:
    """The cells that a teacher is sure of, and where it is sure of all.

    Local maxima above `consistency.confident` are dots. Those below it, but above
    `consistency.focal_floor`, may be cells or not: nothing is known where one of them, or the end
    of the map, is nearer than every dot, as far as the kernel reaches.

    Args:
      teacher: `(*spatial,)` map of locations.
      config: its `consistency`, `detect` and `target` sections are used.
      geometry: of the targets.
      peak: the target's value at a lone dot, to which both levels are relative.

    Returns:
      `(K, D)` int voxels; `(K,)` bool, which rows are dots; `(*spatial,)` bool, where all is known.
    """
    c = config.consistency
    reach = config.detect.min_distance
    maxima = losses.local_maxima(teacher, reach=reach, floor=c.focal_floor * peak)
    sure = maxima & (teacher > c.confident * peak)
    # No more strict maxima fit.
    most = math.prod(-(-n // (1 + r)) for n, r in zip(teacher.shape, reach, strict=True))
    index = jnp.nonzero(sure, size=most, fill_value=0)
    mask = jnp.arange(most) < sure.sum()
    unsure = jnp.pad(maxima & ~sure, 1, constant_values=True)
    far = {"spacing": geometry.edges, "max_distance": config.target.max_distance}
    to_dot = targets.distance_transform(sure, **far)
    to_unsure = targets.distance_transform(unsure, **far)
    inner = tuple(slice(1, n + 1) for n in teacher.shape)
    return jnp.stack(index, axis=-1).astype(jnp.int32), mask, to_dot <= to_unsure[inner]


def random_box(key: Array, shape: Sequence[int], *, share: float) -> Array:
    """A box around a random voxel, `shape` bool: `share` of each edge, cut at the ends.

    Source: cut-out, DeVries and Taylor 2017.
    """
    keys = jax.random.split(key, len(shape))
    inside = []
    for axis_key, size in zip(keys, shape, strict=True):
        distance = jnp.abs(jnp.arange(size) - jax.random.randint(axis_key, (), 0, size))
        inside.append(2 * distance < share * size)
    return jnp.stack(jnp.meshgrid(*inside, indexing="ij")).all(axis=0)


def average(old: Any, new: Any, step: Array | int, *, decay: float) -> Any:
    """Exponential moving average of weights, over few steps at the beginning.

        θ' <- d θ' + (1 - d) θ,  d = min(decay, (1 + s) / (10 + s))

    Args:
      old: θ', a tree of arrays.
      new: θ, after step s.
      step: s, from 0.
      decay: of one step.

    Source: mean teacher, Tarvainen and Valpola 2017.
    """
    done = jnp.asarray(step, jnp.float32)
    kept = jnp.minimum(decay, (1 + done) / (10 + done))
    return optax.incremental_update(new, old, 1 - kept)
