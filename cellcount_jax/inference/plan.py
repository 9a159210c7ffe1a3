"""The plan of a prediction: tiles, mirror images, and what each of them reads and computes.

Pure geometry. A mirror image is padded at its far ends to multiples of the network's stride, the
grid of the coarsest level.

An image has tiles along each axis. Those of a volume that lie behind each other, a run, are
computed in one go, in slabs of planes (`network/passing.py`): along that axis nothing is computed
twice then.
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
from cellcount_jax.images.regions import Reader, Region, all_of, extent
from cellcount_jax.inference import layout, tiles
from cellcount_jax.inference.array_sizes import array_shape, rounded_up
from cellcount_jax.inference.tiles import Axis, Needs, Sizes
from cellcount_jax.network import passing
from cellcount_jax.network.sau_net import decoder_reach, encoder_radius, tile_radius

_MOST_TILES = 10**6  # they are listed in memory, and each leaves a file
_DEPTH = 64  # planes of a tile of a volume that passes, about
# Planes of a run, at most: many share what a run computes before its first plane. The maps of
# mirror images are kept in memory until all are added.
_RUN, _RUN_MIRRORED = 1024, 512


class Plan(NamedTuple):
    """The tiles of an image.

    Attributes:
      shape: `(D,)` of the image.
      whole: whether it is one piece.
      flips: the axes along which each of the mirror images that are averaged is mirrored; `()`
        is the image itself.
      strides: `(D,)` of each level but the coarsest, to the next; finest first.
      block: `(D,)` voxels of the coarsest level that attend to each other; empty = none do.
      cores: `(*core,)` of each tile, the region of the image that its map covers.
      halo: `(D,)` voxels around a core in which the image acts on its map by convolutions.
      window_shape: `(D,)` of the region of the image that is computed at a time: for a core, or of
        volumes for a slab of planes of a run; of an image in one piece that of the array in which
        it is computed, see `array_shape`.
      axes: along which there are tiles, and of what sizes what they need is; of an image in one
        piece there are none.
      lags: of the planes of a volume in tiles; None = planes do not pass.
    """

    shape: tuple[int, ...]
    whole: bool
    flips: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    block: tuple[int, ...]
    cores: tuple[Region, ...]
    halo: tuple[int, ...]
    window_shape: tuple[int, ...]
    axes: tuple[tuple[Axis, Sizes], ...] = ()
    lags: passing.Lags | None = None

    @property
    def stride(self) -> tuple[int, ...]:
        """`(D,)` voxels of the image for one of the coarsest level."""
        return tuple(math.prod(column) for column in zip(*self.strides, strict=True))

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """The image's size, rounded up to multiples of the stride."""
        return rounded_up(self.shape, self.stride)

    @property
    def common_edges(self) -> tuple[int, ...]:
        """The longest edges `(D,)` of boxes, from the image's origin on, none of which lies in two
        cores; 0 = any."""
        starts = ({core[axis].start for core in self.cores} for axis in range(len(self.shape)))
        return tuple(math.gcd(*some) for some in starts)

    @property
    def part_shapes(self) -> tuple[tuple[int, ...], ...]:
        """`(D,)` of the part of each level that is decoded at a time, finest first."""
        return tuple(zip(*(sizes.parts for _, sizes in self.axes), strict=True))

    @property
    def blocks_shape(self) -> tuple[int, ...]:
        """`(D,)` of the part of the coarsest level that attends at a time."""
        return tuple(sizes.blocks for _, sizes in self.axes)

    @property
    def beyond(self) -> tuple[int, ...]:
        """`(D,)` voxels of the coarsest level by which that part may go beyond the window."""
        return tuple(sizes.beyond for _, sizes in self.axes)

    def needs(self, core: Region, flip: tuple[int, ...]) -> tuple[Needs, ...]:
        """What the maps of a core, or of a run's, need of a mirror image, along each axis.

        Of planes that pass the window holds all slabs of the run, the other parts are those of
        a slab.
        """
        sides = mirrored(core, self.shape, flip)
        found = [
            tiles.needs(side, axis, sizes=sizes)
            for side, (axis, sizes) in zip(sides, self.axes, strict=True)
        ]
        if self.lags is not None:
            found[0] = self._passing(sides[0], self.lags)
        return tuple(found)

    def _passing(self, run: slice, lags: passing.Lags) -> Needs:
        """What the maps of a run need along the axis of planes that pass."""
        axis, sizes = self.axes[0]
        unit = axis.block * axis.stride  # slabs begin with blocks
        first = tiles.needs(run, axis).window.start // unit * unit
        length = passing.rounded_up(run.stop + lags.maps - first, sizes.window)
        parts = tuple(slice(0, size) for size in sizes.parts)
        return Needs(parts, slice(0, sizes.blocks), slice(first, first + length))

    def slabs(self, core: Region, flip: tuple[int, ...]) -> range:
        """The first planes of the slabs that are computed for a run."""
        window = self.needs(core, flip)[0].window
        return range(window.start, window.stop, self.window_shape[0])

    def windows(self, some: Sequence[int], *, skipping: bool = True) -> float:
        """How many windows, or whole slabs, take the time of the network for some tiles.

        Args:
          some: numbers of tiles.
          skipping: whether planes beyond the ends of the image take less, see `can_fuse`.
        """
        runs = self.runs(some)
        if self.lags is None:
            return float(len(runs) * len(self.flips))
        planes = 0.0
        for run, flip in itertools.product(map(self.joined, runs), self.flips):
            window = self.needs(run, flip)[0].window
            number = window.stop - window.start
            inside = min(window.stop, self.shape[0]) - window.start if skipping else number
            planes += layout.planes_worth(inside, number)
        return planes / self.window_shape[0]

    def runs(self, some: Sequence[int]) -> list[tuple[int, ...]]:
        """Groups tiles into runs, which are computed in one go: those behind each other.

        Args:
          some: numbers of tiles.
        """
        if self.lags is None:
            return [(tile,) for tile in some]
        layers = len({core[0].start for core in self.cores})
        column = len(self.cores) // layers
        planes = _RUN_MIRRORED if len(self.flips) > 1 else _RUN
        longest = max(planes // extent(self.cores[0])[0], 1)
        found: list[list[int]] = []
        for tile in sorted(some, key=lambda tile: (tile % column, tile)):
            goes_on = found and tile == found[-1][-1] + column and len(found[-1]) < longest
            if goes_on:
                found[-1].append(tile)
            else:
                found.append([tile])
        return [tuple(run) for run in found]

    def joined(self, run: Sequence[int]) -> Region:
        """The core of a run: those of its tiles."""
        first, last = self.cores[run[0]], self.cores[run[-1]]
        return (slice(first[0].start, last[0].stop), *first[1:])

    def read_mirrored(self, read: Reader, flip: tuple[int, ...], region: Region) -> np.ndarray:
        """A region of a mirror image, which is 0 beyond its ends."""
        inside = tuple(
            slice(min(p.start, n), min(p.stop, n)) for p, n in zip(region, self.shape, strict=True)
        )
        if 0 in extent(inside):
            voxel = read((slice(0, 1),) * len(region))  # has the channels and the type
            return np.zeros((*extent(region), voxel.shape[-1]), voxel.dtype)
        values = np.flip(read(mirrored(inside, self.shape, flip)), flip)
        ends = [
            (0, size - found) for size, found in zip(extent(region), extent(inside), strict=True)
        ]
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
    plan = Plan(
        shape=tuple(shape),
        whole=True,
        flips=mirror_images(range(len(shape)) if config.predict.flips else ()),
        strides=strides,
        block=block,
        cores=(all_of(shape),),
        halo=(0,) * len(shape),
        window_shape=array_shape(config, shape),
    )
    most = config.predict.max_voxels
    if math.prod(shape) <= most:
        return plan
    if config.model.norm != "batch" or config.model.attention == "global":
        raise InputError(
            f"the image has {math.prod(shape)} voxels, more than config.predict.max_voxels ="
            f" {most}, and a model with model.norm = {config.model.norm!r} and model.attention ="
            f" {config.model.attention!r} cannot be predicted in tiles: its result would depend on"
            " them"
        )
    if math.prod(shape) > _MOST_TILES * most:  # before cores are looked for
        raise _too_many(config, shape, f"more than {_MOST_TILES} tiles")
    return _in_tiles(plan, config)


def _in_tiles(plan: Plan, config: ml_collections.ConfigDict) -> Plan:
    """The plan for an image of several tiles."""
    shape, most = plan.shape, config.predict.max_voxels
    axes = [
        Axis(size, along, block, decoder_reach(config), radius)
        for size, along, block, radius in zip(
            plan.padded_shape,
            zip(*plan.strides, strict=True),
            plan.block or (1,) * len(shape),
            encoder_radius(plan.strides),
            strict=True,
        )
    ]
    mirror = len(plan.flips) > 1
    options = [tiles.options(n, a, mirror=mirror) for n, a in zip(shape, axes, strict=True)]
    branch = config.target.count_head and config.model.counter == "branch"
    lags = passing.network_lags(axes[0].strides, block=axes[0].block, count_branch=branch)
    slab, chosen = layout.choose(options, axes[0], shape, max_voxels=most, lag=lags.maps)
    edges = [(option.cores, option.first) for option in chosen]
    if slab:
        depth = max(_DEPTH // slab, 1) * slab
        edges.insert(0, (depth, depth))
    sides = zip(shape, edges, strict=True)
    number = math.prod(tiles.number(size, *edge) for size, edge in sides)
    if number > _MOST_TILES:
        raise _too_many(config, shape, f"{number:.3g} tiles")
    grids = [tiles.grid(size, *edge) for size, edge in zip(shape, edges, strict=True)]
    sizes = [
        tiles.sizes_of(tiles.different(grid, size, mirror=mirror), axis)
        for grid, size, axis in zip(grids, shape, axes, strict=True)
    ]
    if slab:
        sizes[0] = _of_slab(axes[0], slab)
    return plan._replace(
        whole=False,
        cores=tuple(itertools.product(*grids)),
        halo=tile_radius(plan.strides),
        window_shape=tuple(size.window for size in sizes),
        axes=tuple(zip(axes, sizes, strict=True)),
        lags=lags if slab else None,
    )


def _of_slab(axis: Axis, planes: int) -> Sizes:
    """The sizes of all that is computed with a slab."""
    steps = itertools.accumulate((1, *axis.strides), lambda a, b: a * b)
    return Sizes(tuple(planes // step for step in steps), planes // axis.stride, planes)


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
