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
from cellcount_jax.images.regions import Reader, Region, extent
from cellcount_jax.inference import tiles
from cellcount_jax.network.sau_net import tile_radius

# The sides of the arrays in which planes are computed, in voxels, in the order in which they are
# tried; those for larger planes are powers of this root of two.
_ARRAYS = (
    *((256, 256), (362, 362), (512, 512), (362, 724), (724, 362), (724, 724)),
    *((1024, 1024), (724, 1448), (1448, 724)),
)
_ROOT_IF_LARGER = 4

_MOST_TILES = 10**6  # they are listed in memory, and each leaves a file


class Plan(NamedTuple):
    """The tiles of an image.

    Attributes:
      shape: `(D,)` of the image.
      whole: whether it is one piece, for which no coarse level is kept.
      flips: the axes along which each of the mirror images that are averaged is mirrored; `()`
        is the image itself.
      stride: `(D,)` voxels of the image for one of the coarsest level.
      block: `(D,)` voxels of the coarsest level that attend to each other; empty = none do.
      tiles: to encode, on a mirror image padded to multiples of the stride.
      cores: `(*core,)` of each tile, the region of the image that its map covers.
      halo: `(D,)` voxels that are read at least around a core.
      window_shape: `(D,)` size of the region that is read to decode a core; of an image in one
        piece that of the array in which it is computed, see `array_shape`.
    """

    shape: tuple[int, ...]
    whole: bool
    flips: tuple[tuple[int, ...], ...]
    stride: tuple[int, ...]
    block: tuple[int, ...]
    tiles: tuple[tiles.Tile, ...]
    cores: tuple[Region, ...]
    halo: tuple[int, ...]
    window_shape: tuple[int, ...]

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """The image's size, rounded up to multiples of the stride."""
        return _rounded_up(self.shape, self.stride)

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
        """The part of the coarsest level of a mirror image that decoding a tile needs."""
        region = self.coarse_region(self.window(self.cores[index], flip))
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
    stride = settings.total_stride(config)
    block: tuple[int, ...] = ()
    if config.model.attention != "none":
        block = tuple(crop // s for crop, s in zip(config.train.crop, stride, strict=True))
    whole = tuple(slice(0, size) for size in shape)
    plan = Plan(
        shape=tuple(shape),
        whole=True,
        flips=mirror_images(range(len(shape)) if config.predict.flips else ()),
        stride=stride,
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
    halo, padded = tile_radius(settings.strides(config)), plan.padded_shape
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
    )
    return plan._replace(
        window_shape=tuple(_longest_window(plan, axis) for axis in range(len(shape)))
    )


def _too_many(config: ml_collections.ConfigDict, shape: Sequence[int], number: str) -> InputError:
    return InputError(
        f"the image has {math.prod(shape):.3g} voxels, which are {number} of"
        f" config.predict.max_voxels = {config.predict.max_voxels}; allow larger tiles"
        f" (--max-voxels) so that there are up to {_MOST_TILES}, or count a part of the image or a"
        " coarser level of it (--level)"
    )


def array_shape(config: ml_collections.ConfigDict, shape: Sequence[int]) -> tuple[int, ...]:
    """The size of the array at whose beginning an image in one piece is computed.

    A program is compiled for a size, which takes longer than the computation of a small image, and
    keeps its memory. So planes of up to about a megavoxel are computed in few arrays: of six sizes
    up to 724 voxels. Where convolutions skip what is padded, see `native.convolve`, this takes
    about 1.3 times as long as in arrays of their own sizes. A larger plane, which takes longer than
    its program, is padded less. The map is as without padding, see `SAUNet`; where it would not be,
    for volumes, which are rarely of many sizes, and where it would exceed
    `config.predict.max_voxels`, only the last stride is filled.

    Args:
      config: of the experiment.
      shape: `(D,)` of the image.

    Returns:
      `(D,)` multiples of the stride.
    """
    stride = settings.total_stride(config)
    least = _rounded_up(shape, stride)
    if len(shape) != 2 or config.model.norm != "batch" or config.model.attention == "global":
        return least
    arrays = [_rounded_up(sides, stride) for sides in _ARRAYS]
    holding = (sides for sides in arrays if all(n <= k for n, k in zip(least, sides, strict=True)))
    found = next(holding, _rounded_up([_power(n) for n in least], stride))
    return found if math.prod(found) <= config.predict.max_voxels else least


def _power(size: int) -> float:
    """The least power of the root that is not below a size."""
    exponent = math.ceil(math.log2(size) * _ROOT_IF_LARGER - 1e-9)
    return max(size, 2.0 ** (exponent / _ROOT_IF_LARGER))


def _rounded_up(sizes: Sequence[float], stride: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.ceil(size / step) * step for size, step in zip(sizes, stride, strict=True))


def mirrored(region: Region, shape: Sequence[int], flip: Sequence[int]) -> Region:
    """A region of an image in its mirror image, and the reverse."""
    return tuple(
        slice(size - part.stop, size - part.start) if axis in flip else part
        for axis, (part, size) in enumerate(zip(region, shape, strict=True))
    )


def _longest_window(plan: Plan, axis: int) -> int:
    """The longest region that decoding any core reads along an axis, whatever the other axes."""
    different = {(core[axis].start, core[axis].stop): core for core in plan.cores}
    regions = (_with_halo(plan, core, flip) for core in different.values() for flip in plan.flips)
    return max(extent(region)[axis] for region in regions)


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
