"""The plan of a prediction: tiles, mirror images, and the regions that each step reads.

Pure geometry. A mirror image is padded at its far ends to multiples of the network's stride, the
grid of the coarsest level.
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
from cellcount_jax.images.regions import Reader, Region, all_of, extent, placed
from cellcount_jax.inference import tiles
from cellcount_jax.inference.array_sizes import array_shape, rounded_up
from cellcount_jax.network.sau_net import decoder_reach, tile_radius

_MOST_TILES = 10**6  # they are listed in memory, and each leaves a file


class Plan(NamedTuple):
    """The tiles of an image.

    Attributes:
      shape: `(D,)` of the image.
      whole: whether it is one piece, for which no coarse level is kept.
      flips: the axes along which each of the mirror images that are averaged is mirrored; `()`
        is the image itself.
      strides: `(D,)` of each level but the coarsest, to the next; finest first.
      block: `(D,)` voxels of the coarsest level that attend to each other; empty = none do.
      tiles: to encode, on a mirror image padded to multiples of the stride.
      cores: `(*core,)` of each tile, the region of the image that its map covers.
      halo: `(D,)` voxels that are read at least around a core.
      window_shape: `(D,)` size of the region that is read to decode a core; of an image in one
        piece that of the array in which it is computed, see `array_shape`.
      reach: voxels of a level around a part that the decoder's convolutions see.
      part_shapes: `(D,)` of the part of each level that is decoded for a core, finest first; of
        an image in one piece, which is decoded as a whole, there are none.
    """

    shape: tuple[int, ...]
    whole: bool
    flips: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    block: tuple[int, ...]
    tiles: tuple[tiles.Tile, ...]
    cores: tuple[Region, ...]
    halo: tuple[int, ...]
    window_shape: tuple[int, ...]
    reach: int = 0
    part_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def stride(self) -> tuple[int, ...]:
        """`(D,)` voxels of the image for one of the coarsest level."""
        return tuple(math.prod(column) for column in zip(*self.strides, strict=True))

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """The image's size, rounded up to multiples of the stride."""
        return rounded_up(self.shape, self.stride)

    @property
    def coarse_shape(self) -> tuple[int, ...]:
        """The size of the coarsest level."""
        return tuple(n // s for n, s in zip(self.padded_shape, self.stride, strict=True))

    def coarse_region(self, region: Region) -> Region:
        """The part of the coarsest level that a region on its grid belongs to."""
        pairs = zip(region, self.stride, strict=True)
        return tuple(slice(part.start // step, part.stop // step) for part, step in pairs)

    def coarse_core(self, index: int) -> Region:
        """The part of the coarsest level that a tile gives."""
        return self.coarse_region(self.tiles[index].core)

    def coarse_needed(self, index: int, flip: tuple[int, ...]) -> Region:
        """The part of the coarsest level of a mirror image that decoding a tile needs, with whole
        blocks."""
        region = self.coarse_part(self.cores[index], flip)
        if not self.block:
            return region
        sizes = zip(region, self.block, self.coarse_shape, strict=True)
        return tuple(
            slice(part.start // step * step, min(-(-part.stop // step) * step, size))
            for part, step, size in sizes
        )

    def window(self, core: Region, flip: tuple[int, ...]) -> Region:
        """The region of a mirror image to read for a core: of one size, to compile once."""
        if self.whole:
            return core
        read = zip(_with_halo(self, core, flip), self.window_shape, self.padded_shape, strict=True)
        starts = [(min(part.start, size - length), length) for part, length, size in read]
        return tuple(slice(start, start + length) for start, length in starts)

    def parts(self, core: Region, flip: tuple[int, ...]) -> tuple[Region, ...]:
        """The part of each level of a core's window that is decoded, finest first."""
        sides = zip(
            mirrored(core, self.shape, flip),
            self.window(core, flip),
            zip(*self.strides, strict=True),
            zip(*self.part_shapes, strict=True),
            strict=True,
        )
        axes = [
            tiles.decoder_parts(core, window, strides=strides, reach=self.reach, lengths=lengths)
            for core, window, strides, lengths in sides
        ]
        return tuple(zip(*axes, strict=True))

    def coarse_part(self, core: Region, flip: tuple[int, ...]) -> Region:
        """The part of the coarsest level of a mirror image that is decoded for a core."""
        window = self.coarse_region(self.window(core, flip))
        return placed(self.parts(core, flip)[-1], window)

    def read_mirrored(self, read: Reader, flip: tuple[int, ...], region: Region) -> np.ndarray:
        """A region of a mirror image, which is 0 beyond its ends."""
        inside = _clipped(region, self.shape)
        values = np.flip(read(mirrored(inside, self.shape, flip)), flip)
        ends = [(0, part.stop - p.stop) for part, p in zip(region, inside, strict=True)]
        return np.pad(values, [*ends, (0, 0)]) if any(e for _, e in ends) else values


def mirror_images(axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """All sets of some axes: those along which each mirror image is mirrored, `()` the first."""
    return tuple(f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n))


def make_plan(config: ml_collections.ConfigDict, shape: Sequence[int]) -> Plan:
    """The plan for an image, in one piece if it has up to `config.predict.max_voxels`.

    Raises:
      InputError: the image is too large for one piece, and the model's result would depend on
        the tiles, or not even the smallest tile is small enough.
    """
    stride, strides = settings.total_stride(config), settings.strides(config)
    block: tuple[int, ...] = ()
    if config.model.attention != "none":
        block = tuple(crop // s for crop, s in zip(config.train.crop, stride, strict=True))
    whole = all_of(shape)
    plan = Plan(
        shape=tuple(shape),
        whole=True,
        flips=mirror_images(range(len(shape)) if config.predict.flips else ()),
        strides=strides,
        block=block,
        tiles=(tiles.Tile(whole, whole, whole),),
        cores=(whole,),
        halo=(0,) * len(shape),
        window_shape=array_shape(config, shape),
    )
    if math.prod(shape) <= config.predict.max_voxels:
        return plan
    if config.model.norm != "batch" or config.model.attention == "global":
        raise InputError(
            f"the image has {math.prod(shape)} voxels, more than config.predict.max_voxels ="
            f" {config.predict.max_voxels}, and a model with model.norm ="
            f" {config.model.norm!r} and model.attention = {config.model.attention!r} cannot be"
            " predicted in tiles: its result would depend on them"
        )
    if math.prod(shape) > _MOST_TILES * config.predict.max_voxels:  # before cores are looked for
        raise _too_many(config, shape, f"more than {_MOST_TILES} tiles")
    halo, padded = tile_radius(strides), plan.padded_shape
    core = tiles.choose_core(padded, halo=halo, block=stride, max_voxels=config.predict.max_voxels)
    number = math.prod(-(-size // edge) for size, edge in zip(padded, core, strict=True))
    if number > _MOST_TILES:
        raise _too_many(config, shape, f"{number:.3g} tiles")
    grid = tiles.tile_grid(padded, core=core, halo=halo, block=stride)
    plan = plan._replace(
        whole=False,
        tiles=tuple(grid),
        # Those of the grid within the image; few slices, as there may be a million of them.
        cores=tuple(
            itertools.product(
                *(
                    [slice(start, min(start + edge, size)) for start in range(0, size, edge)]
                    for size, edge in zip(shape, core, strict=True)
                )
            )
        ),
        halo=halo,
        reach=decoder_reach(config),
    )
    axes = range(len(shape))
    plan = plan._replace(window_shape=tuple(_longest_window(plan, axis) for axis in axes))
    lengths = [_longest_parts(plan, axis) for axis in axes]
    return plan._replace(part_shapes=tuple(zip(*lengths, strict=True)))


def _too_many(config: ml_collections.ConfigDict, shape: Sequence[int], number: str) -> InputError:
    return InputError(
        f"the image has {math.prod(shape):.3g} voxels, which are {number} of"
        f" config.predict.max_voxels = {config.predict.max_voxels}; allow larger tiles"
        f" (--max-voxels) so that there are up to {_MOST_TILES}, or count a part of the image or a"
        " coarser level of it (--level)"
    )


def mirrored(region: Region, shape: Sequence[int], flip: Sequence[int]) -> Region:
    """A region of an image in its mirror image, and the reverse."""
    return tuple(
        slice(size - part.stop, size - part.start) if axis in flip else part
        for axis, (part, size) in enumerate(zip(region, shape, strict=True))
    )


def _longest_window(plan: Plan, axis: int) -> int:
    """The longest region that decoding any core reads along an axis, whatever the other axes."""
    pairs = itertools.product(_different(plan, axis), plan.flips)
    return max(extent(_with_halo(plan, core, flip))[axis] for core, flip in pairs)


def _longest_parts(plan: Plan, axis: int) -> list[int]:
    """The longest part of each level that decoding any core needs along an axis."""
    strides = [stride[axis] for stride in plan.strides]
    sides = [
        (mirrored(core, plan.shape, flip)[axis], plan.window(core, flip)[axis])
        for core, flip in itertools.product(_different(plan, axis), plan.flips)
    ]
    lengths: list[int] = []
    for level in range(len(strides) + 1):
        parts = (
            tiles.decoder_parts(*pair, strides=strides, reach=plan.reach, lengths=lengths)
            for pair in sides
        )
        lengths.append(max(part[level].stop - part[level].start for part in parts))
    return lengths


def _different(plan: Plan, axis: int) -> list[Region]:
    """A core for each range of them along an axis."""
    return list({(core[axis].start, core[axis].stop): core for core in plan.cores}.values())


def _with_halo(plan: Plan, core: Region, flip: tuple[int, ...]) -> Region:
    """A core with its halo in a mirror image, on the grid of the coarsest level."""
    region = mirrored(core, plan.shape, flip)
    sizes = zip(region, plan.halo, plan.stride, plan.padded_shape, strict=True)
    return tuple(
        slice(
            max((part.start - halo) // step * step, 0),
            min(-(-(part.stop + halo) // step) * step, size),
        )
        for part, halo, step, size in sizes
    )


def _clipped(region: Region, shape: Sequence[int]) -> Region:
    return tuple(slice(p.start, min(p.stop, n)) for p, n in zip(region, shape, strict=True))
