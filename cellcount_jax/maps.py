"""The network's maps of an image of any size: in tiles where it is large, equal to one piece.

Convolutions need a halo of some voxels around a tile, attention whole blocks of the coarsest
level. That level is small, so it is computed first, tile by tile, for the whole image; then
attention, block by block; then the map, tile by tile, from the tile's own finer levels and the
attended coarse one. The halo is that of the convolutions alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax import tiles
from cellcount_jax.errors import InputError
from cellcount_jax.model import SAUNet, create_model, tile_radius

Compiled = Callable[..., Array]


def compute(config: ml_collections.ConfigDict, variables: Any, values: np.ndarray) -> np.ndarray:
    """The maps of an image.

    Args:
      config: of the experiment.
      variables: `params` and `batch_stats` of its network.
      values: `(*spatial, channels)` normalised intensities.

    Returns:
      `(*spatial, 1 or 2)` float32; probabilities with the 'mask' kernel; the second, with
        `config.target.count_head`, is the cells' density.

    Raises:
      InputError: see `tile_grid`.
    """
    shape = values.shape[:-1]
    grid = tile_grid(config, shape)
    frozen = ml_collections.FrozenConfigDict(config)
    if len(grid) == 1:
        found = np.asarray(_whole(frozen)(variables, values[None]))[0]
    else:
        found = _in_tiles(frozen, variables, values, grid)
    return 1 / (1 + np.exp(-found)) if config.target.kernel == "mask" else found


def tile_grid(config: ml_collections.ConfigDict, shape: Sequence[int]) -> list[tiles.Tile]:
    """The tiles of an image; one where it has up to `config.predict.max_voxels`.

    Several lie on the image padded to multiples of the network's stride.

    Raises:
      InputError: the image is too large for one tile, and the model's result would depend on
        the tiles, or not even the smallest tile is small enough.
    """
    if math.prod(shape) <= config.predict.max_voxels:
        whole = tuple(slice(0, size) for size in shape)
        return [tiles.Tile(whole, whole, whole)]
    if config.model.norm != "batch" or config.model.attention == "global":
        raise InputError(
            f"the image has {math.prod(shape)} voxels, more than config.predict.max_voxels ="
            f" {config.predict.max_voxels}, and a model with model.norm ="
            f" {config.model.norm!r} and model.attention = {config.model.attention!r} cannot be"
            " predicted in tiles: its result would depend on them"
        )
    stride = settings.total_stride(config)
    padded = [-(-size // step) * step for size, step in zip(shape, stride, strict=True)]
    options = {"halo": tile_radius(settings.strides(config)), "block": stride}
    core = tiles.choose_core(padded, max_voxels=config.predict.max_voxels, **options)
    return tiles.tile_grid(padded, core=core, **options)


def _in_tiles(
    config: ml_collections.FrozenConfigDict,
    variables: Any,
    values: np.ndarray,
    grid: Sequence[tiles.Tile],
) -> np.ndarray:
    """The maps `(*spatial, 1 or 2)` of an image that is larger than a tile."""
    shape = values.shape[:-1]
    stride = settings.total_stride(config)
    # Where the image ends within a window the network pads it itself; here all tiles are whole.
    padded = np.pad(values, [*((0, -n % s) for n, s in zip(shape, stride, strict=True)), (0, 0)])
    coarse_grid = [tiles.Tile(*(_coarser(region, stride) for region in tile)) for tile in grid]
    coarse_shape = [n // s for n, s in zip(padded.shape, stride, strict=False)]

    def bottleneck(tile: tiles.Tile) -> np.ndarray:
        return np.asarray(_encoded(config)(variables, padded[tile.outer][None]))[0]

    def refined(tile: tiles.Tile, coarse: tiles.Tile) -> np.ndarray:
        inputs = padded[tile.outer][None], attended[coarse.outer][None]
        return np.asarray(_decoded(config)(variables, *inputs))[0]

    coarse = tiles.stitch(coarse_grid, map(bottleneck, grid), coarse_shape)
    attended = _attend(config, variables, coarse)
    found = tiles.stitch(grid, map(refined, grid, coarse_grid), padded.shape[:-1])
    return found[tuple(slice(size) for size in shape)]


def _coarser(region: Sequence[slice], stride: Sequence[int]) -> tuple[slice, ...]:
    """The part of the coarsest level that belongs to a region of the image."""
    return tuple(slice(r.start // s, r.stop // s) for r, s in zip(region, stride, strict=True))


def _attend(
    config: ml_collections.FrozenConfigDict, variables: Any, coarse: np.ndarray
) -> np.ndarray:
    """Attention on the coarsest level of the whole image, a block at a time."""
    if config.model.attention == "none":
        return coarse
    sizes = zip(config.train.crop, settings.total_stride(config), strict=True)
    block = [crop // step for crop, step in sizes]
    shape = coarse.shape[:-1]
    grid = tiles.tile_grid(shape, core=block, halo=(0,) * len(block), block=block)
    run = _attended(config)
    parts = (np.asarray(run(variables, coarse[tile.outer][None]))[0] for tile in grid)
    return tiles.stitch(grid, parts, shape)


@functools.cache
def _whole(config: ml_collections.FrozenConfigDict) -> Compiled:
    return jax.jit(create_model(config).apply)


@functools.cache
def _encoded(config: ml_collections.FrozenConfigDict) -> Compiled:
    """Image to the coarsest level."""
    model = create_model(config)
    return jax.jit(lambda variables, x: model.apply(variables, x, method=SAUNet.encode)[-1])


@functools.cache
def _attended(config: ml_collections.FrozenConfigDict) -> Compiled:
    """The coarsest level with what attention adds to it."""
    model = create_model(config)
    return jax.jit(lambda variables, x: model.apply(variables, (x,), method=SAUNet.attend)[-1])


@functools.cache
def _decoded(config: ml_collections.FrozenConfigDict) -> Compiled:
    """Image and attended coarsest level to the map."""
    model = create_model(config)

    def run(variables: Any, x: Array, attended: Array) -> Any:
        levels = model.apply(variables, x, method=SAUNet.encode)
        return model.apply(variables, (*levels[:-1], attended), method=SAUNet.decode)

    return jax.jit(run)
