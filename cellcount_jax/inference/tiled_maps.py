"""The network's maps of an image, in tiles if it is large, equal to those of one piece.

Convolutions need a halo of some voxels around a tile, attention whole blocks of the coarsest
level. That level is small, so it is computed first, tile by tile, for the whole image
(`encode`); then the map, tile by tile, from the tile's own finer levels and the coarse one, with
attention on the blocks that the tile meets (`decode`). The halo is that of the convolutions
alone, and a level of the decoder computes no more of it than the next finer one needs. The caller
reads the image and keeps the coarse level: in memory (`compute`) or on a disk (`tasks.py`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax.images.regions import Reader, Region, extent, placed, within
from cellcount_jax.inference.plan import Plan, make_plan, mirrored
from cellcount_jax.network.sau_net import SAUNet, create_model
from cellcount_jax.network.unet import Parts

Jitted = Any  # a function that `jax.jit` gave
_ATTENTION_BLOCKS = 16  # in one call
# While one thread computes, others read and write.
_DEVICE = threading.Lock()
# Programs by their function and the arrays that they take.
_compiled: dict[tuple[Jitted, Any], Any] = {}
_shown: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


def show_compiling(shown: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
    """Sets the context in which programs of the network are compiled, to tell of it."""
    global _shown
    _shown = shown


def compute(
    config: ml_collections.ConfigDict,
    variables: Any,
    values: np.ndarray,
    *,
    update: Callable[[int], object] = lambda voxels: None,
) -> np.ndarray:
    """The maps of an image in memory.

    Args:
      config: of the experiment.
      variables: `params` and `batch_stats` of its network.
      values: `(*spatial, channels)` normalised intensities.
      update: called with the number of voxels after each mirror image of a tile, for a bar; in
        all those of the image once for each mirror image.

    Returns:
      `(*spatial, 1 or 2)` float32, the mean over mirror images with `config.predict.flips`;
      probabilities with the 'mask' kernel; the second, with `config.target.count_head`, is the
      cells' density.

    Raises:
      InputError: see `plan.make_plan`.
    """
    plan = make_plan(config, values.shape[:-1])
    read = values.__getitem__
    found = np.empty((*plan.shape, 1 + config.target.count_head), np.float32)
    coarse: list[np.ndarray] = []
    for flip in () if plan.whole else plan.flips:
        level = np.empty((*plan.coarse_shape, coarse_features(config)), np.float32)
        for index in range(len(plan.tiles)):
            part = encode(config, variables, plan, read, index=index, flip=flip)
            level[plan.coarse_core(index)] = part
        coarse.append(level)
    for index, core in enumerate(plan.cores):
        found[core] = decode(
            config,
            variables,
            plan,
            read,
            lambda flip, region: coarse[flip][region],
            index=index,
            update=update,
        )
    return found


def coarse_features(config: ml_collections.ConfigDict) -> int:
    """The channels of the coarsest level."""
    features: int = config.model.features * 2 ** len(settings.strides(config))
    return features


def encode(
    config: ml_collections.ConfigDict,
    variables: Any,
    plan: Plan,
    read: Reader,
    *,
    index: int,
    flip: tuple[int, ...],
) -> np.ndarray:
    """A tile's part of the coarsest level of a mirror image.

    Args:
      config: of the experiment.
      variables: of its network.
      plan: of the image.
      read: gives parts of the image.
      index: of the tile.
      flip: the axes along which the image is mirrored.

    Returns:
      `(*coarse core, channels)` float32, for `Plan.coarse_core`.
    """
    tile = plan.tiles[index]
    run = _encoded(ml_collections.FrozenConfigDict(config))
    found = _on_device(run, variables, plan.read_mirrored(read, flip, tile.outer)[None])[0]
    return found[plan.coarse_region(tile.inner)]


def decode(
    config: ml_collections.ConfigDict,
    variables: Any,
    plan: Plan,
    read: Reader,
    read_coarse: Callable[[int, Region], np.ndarray],
    *,
    index: int,
    update: Callable[[int], object] = lambda voxels: None,
) -> np.ndarray:
    """The maps of a tile's core.

    Args:
      config: of the experiment.
      variables: of its network.
      plan: of the image.
      read: gives parts of the image.
      read_coarse: gives a region of the coarsest level, `(*region, channels)`, of the mirror image
        with a number; called with `Plan.coarse_needed`, not for an image in one piece.
      index: of the tile.
      update: see `compute`.

    Returns:
      `(*core, 1 or 2)` float32, see `compute`.
    """
    frozen = ml_collections.FrozenConfigDict(config)
    core = plan.cores[index]
    mean = np.zeros((*extent(core), 1 + config.target.count_head), np.float32)
    whole = read(core) if plan.whole else None
    for number, flip in enumerate(plan.flips):
        window = plan.window(core, flip)
        if whole is not None:
            values = np.zeros((*plan.window_shape, whole.shape[-1]), whole.dtype)
            values[core] = np.flip(whole, flip)
            size = np.asarray(plan.padded_shape, np.int32)
            found = _on_device(_whole(frozen), variables, values[None], size)[0]
        else:
            region = plan.coarse_needed(index, flip)
            level = _attend(frozen, variables, read_coarse(number, region), plan.block)
            parts = plan.parts(core, flip)
            coarse = level[within(plan.coarse_part(core, flip), region)]
            starts = np.array([[p.start for p in part] for part in parts], np.int32)
            values = plan.read_mirrored(read, flip, window)
            run = _decoded(frozen, plan.part_shapes)
            found = _on_device(run, variables, values[None], coarse[None], starts)[0]
            window = placed(parts[0], window)
        part = found[within(mirrored(core, plan.shape, flip), window)]
        if config.target.kernel == "mask":
            part = 1 / (1 + np.exp(-part))
        mean += np.flip(part, flip)
        update(math.prod(extent(core)))
    return mean / len(plan.flips)


def _on_device(run: Jitted, variables: Any, *inputs: np.ndarray) -> np.ndarray:
    with _DEVICE:
        leaves = jax.tree.leaves((variables, inputs))
        alike = tuple((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
        compiled = _compiled.get((run, alike))
        if compiled is None:
            with _shown():
                compiled = run.lower(variables, *inputs).compile()
            _compiled[run, alike] = compiled
        found = compiled(variables, *inputs)
        if jax.default_backend() == "cpu":
            found.block_until_ready()  # one takes all cores, and two the memory twice
    # An accelerator has the next one to compute, while this one is fetched.
    return np.asarray(found)


def _attend(
    config: ml_collections.FrozenConfigDict,
    variables: Any,
    coarse: np.ndarray,
    block: Sequence[int],
) -> np.ndarray:
    """Attention on whole blocks of the coarsest level."""
    if not block:
        return coarse
    run = _attended(config)
    attended = np.empty_like(coarse)
    alike: dict[tuple[int, ...], list[Region]] = {}
    for region in _blocks(coarse.shape[:-1], block):
        alike.setdefault(coarse[region].shape, []).append(region)
    for shape, regions in alike.items():
        # Batches have one size, to compile once; blocks at the image's end are computed one by one.
        size = _ATTENTION_BLOCKS if shape[:-1] == tuple(block) else 1
        for first in range(0, len(regions), size):
            some = regions[first : first + size]
            batch = np.zeros((size, *shape), coarse.dtype)
            for i, region in enumerate(some):
                batch[i] = coarse[region]
            for region, result in zip(some, _on_device(run, variables, batch), strict=False):
                attended[region] = result
    return attended


def _blocks(shape: Sequence[int], block: Sequence[int]) -> Iterator[Region]:
    starts = [range(0, size, step) for size, step in zip(shape, block, strict=True)]
    for corner in itertools.product(*starts):
        ends = zip(corner, block, shape, strict=True)
        yield tuple(slice(start, min(start + step, size)) for start, step, size in ends)


@functools.cache
def _whole(config: ml_collections.FrozenConfigDict) -> Jitted:
    """Image, at the beginning of an array, to the map."""
    model = create_model(config, trained=True)

    def apply(variables: Any, x: Any, size: Any) -> Any:
        return model.apply(variables, x, size=size)

    return jax.jit(apply)


@functools.cache
def _encoded(config: ml_collections.FrozenConfigDict) -> Jitted:
    """Image to the coarsest level."""
    model = create_model(config, trained=True)
    return jax.jit(lambda variables, x: model.apply(variables, x, method=SAUNet.encode)[-1])


@functools.cache
def _attended(config: ml_collections.FrozenConfigDict) -> Jitted:
    """The coarsest level after attention."""
    model = create_model(config, trained=True)

    def run(variables: Any, x: Array) -> Any:
        # The level is stored as float32, whatever type it was computed in.
        return model.apply(variables, (x.astype(model.dtype),), method=SAUNet.attend)[-1]

    return jax.jit(run)


@functools.cache
def _decoded(
    config: ml_collections.FrozenConfigDict, shapes: tuple[tuple[int, ...], ...]
) -> Jitted:
    """Image, a part of the attended coarsest level and where parts begin, to the map of a part."""
    model = create_model(config, trained=True)

    def run(variables: Any, x: Array, attended: Array, starts: Array) -> Any:
        levels = model.apply(variables, x, method=SAUNet.encode)
        levels = (*levels[:-1], attended.astype(model.dtype))
        parts = Parts(starts, shapes)
        return model.apply(variables, levels, parts=parts, method=SAUNet.decode)

    return jax.jit(run)
