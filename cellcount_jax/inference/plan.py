"""How an image is cut for prediction: tiles, mirror images, and what each part needs of them.

Pure geometry. A mirror image is padded at its far ends to multiples of the network's stride, on
which the coarsest level lies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Reader, Region, extent
from cellcount_jax.inference import tiles
from cellcount_jax.network.sau_net import tile_radius


class Plan(NamedTuple):
    """How an image is cut.

    Attributes:
      shape: `(D,)` of the image.
      whole: whether it is one piece, which is not encoded first.
      flips: the axes along which each of the mirror images that are averaged is mirrored; `()`
        is the image itself.
      stride: `(D,)` voxels of the image for one of the coarsest level.
      block: `(D,)` voxels of the coarsest level that attend to each other; empty = none do.
      tiles: to encode, on a mirror image padded to multiples of the stride.
      cores: `(*core,)` of each tile, where its map belongs in the image.
      reach: `(D,)` the least that is read around a core.
      window: `(D,)` size of what is read to decode a core.
    """

    shape: tuple[int, ...]
    whole: bool
    flips: tuple[tuple[int, ...], ...]
    stride: tuple[int, ...]
    block: tuple[int, ...]
    tiles: tuple[tiles.Tile, ...]
    cores: tuple[Region, ...]
    reach: tuple[int, ...]
    window: tuple[int, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """The size, up to multiples of the stride."""
        sizes = zip(self.shape, self.stride, strict=True)
        return tuple(-(-size // step) * step for size, step in sizes)

    @property
    def coarse(self) -> tuple[int, ...]:
        """The size of the coarsest level."""
        return tuple(n // s for n, s in zip(self.padded, self.stride, strict=True))


def plan(config: ml_collections.ConfigDict, shape: Sequence[int]) -> Plan:
    """Cuts an image; it stays whole where it has up to `config.predict.max_voxels`.

    Raises:
      InputError: the image is too large for one piece, and the model's result would depend on
        the tiles, or not even the smallest tile is small enough.
    """
    axes = range(len(shape)) if config.predict.flips else ()
    stride = settings.total_stride(config)
    flips = [f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n)]
    block: tuple[int, ...] = ()
    if config.model.attention != "none":
        block = tuple(crop // s for crop, s in zip(config.train.crop, stride, strict=True))
    whole = tuple(slice(0, size) for size in shape)
    cut = Plan(
        shape=tuple(shape),
        whole=True,
        flips=tuple(flips),
        stride=stride,
        block=block,
        tiles=(tiles.Tile(whole, whole, whole),),
        cores=(whole,),
        reach=(0,) * len(shape),
        window=tuple(shape),
    )
    if math.prod(shape) <= config.predict.max_voxels:
        return cut
    if config.model.norm != "batch" or config.model.attention == "global":
        raise InputError(
            f"the image has {math.prod(shape)} voxels, more than config.predict.max_voxels ="
            f" {config.predict.max_voxels}, and a model with model.norm ="
            f" {config.model.norm!r} and model.attention = {config.model.attention!r} cannot be"
            " predicted in tiles: its result would depend on them"
        )
    reach = tile_radius(settings.strides(config))
    core = tiles.choose_core(
        cut.padded, halo=reach, block=stride, max_voxels=config.predict.max_voxels
    )
    grid = tiles.tile_grid(cut.padded, core=core, halo=reach, block=stride)
    cut = cut._replace(
        whole=False,
        tiles=tuple(grid),
        cores=tuple(_clipped(tile.core, shape) for tile in grid),
        reach=reach,
    )
    return cut._replace(window=tuple(_longest_needed(cut, axis) for axis in range(len(shape))))


def coarse_core(cut: Plan, index: int) -> Region:
    """Where on the coarsest level a tile's part belongs."""
    return coarser(cut.tiles[index].core, cut.stride)


def coarse_needed(cut: Plan, index: int, flip: tuple[int, ...]) -> Region:
    """The part of the coarsest level of a mirror image that decoding a tile needs."""
    region = coarser(window(cut, cut.cores[index], flip), cut.stride)
    if not cut.block:
        return region
    sizes = zip(region, cut.block, cut.coarse, strict=True)
    return tuple(
        slice(part.start // step * step, min(-(-part.stop // step) * step, size))
        for part, step, size in sizes
    )


def _longest_needed(cut: Plan, axis: int) -> int:
    """The most that is read along an axis, where other axes do not matter."""
    different = {(core[axis].start, core[axis].stop): core for core in cut.cores}
    regions = (_needed(cut, core, flip) for core in different.values() for flip in cut.flips)
    return max(extent(region)[axis] for region in regions)


def _needed(cut: Plan, core: Region, flip: tuple[int, ...]) -> Region:
    """What must be read of a mirror image to decode a core: on the grid of the coarsest level."""
    place = zip(flipped(core, cut.shape, flip), cut.reach, cut.stride, cut.padded, strict=True)
    return tuple(
        slice(
            max((part.start - reach) // step * step, 0),
            min(-(-(part.stop + reach) // step) * step, size),
        )
        for part, reach, step, size in place
    )


def window(cut: Plan, core: Region, flip: tuple[int, ...]) -> Region:
    """What is read of a mirror image to decode a core: of one size for all, to compile once."""
    if cut.whole:
        return core
    needed = zip(_needed(cut, core, flip), cut.window, cut.padded, strict=True)
    starts = [(min(part.start, size - length), length) for part, length, size in needed]
    return tuple(slice(start, start + length) for start, length in starts)


def mirrored(cut: Plan, read: Reader, flip: tuple[int, ...], region: Region) -> np.ndarray:
    """A part of a mirror image, which is 0 beyond its ends."""
    inside = _clipped(region, cut.shape)
    values = np.flip(read(flipped(inside, cut.shape, flip)), flip)
    ends = [(0, part.stop - p.stop) for part, p in zip(region, inside, strict=True)]
    return np.pad(values, [*ends, (0, 0)]) if any(e for _, e in ends) else values


def flipped(region: Region, shape: Sequence[int], flip: Sequence[int]) -> Region:
    """A region of an image in its mirror image, and the reverse."""
    return tuple(
        slice(size - part.stop, size - part.start) if axis in flip else part
        for axis, (part, size) in enumerate(zip(region, shape, strict=True))
    )


def _clipped(region: Region, shape: Sequence[int]) -> Region:
    return tuple(slice(p.start, min(p.stop, n)) for p, n in zip(region, shape, strict=True))


def coarser(region: Region, stride: Sequence[int]) -> Region:
    """The part of the coarsest level that belongs to a region of the image."""
    return tuple(slice(r.start // s, r.stop // s) for r, s in zip(region, stride, strict=True))
