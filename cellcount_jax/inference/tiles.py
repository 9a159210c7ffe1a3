"""Tiles along an axis of an image: cores, and what the network needs around each of them.

The cores tile an axis exactly once. Regions are half-open slices. The maps of a core need parts
of the decoder's levels, these a part of the coarsest level; attention mixes whole blocks of
it, and the encoder sees some of the image around these. Pure functions of one axis, 2D and 3D
alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cellcount_jax.network.passing import rounded_up as up

_ENDS = 10  # cores at each end of an axis for which what they need may end with the image, at most


class Axis(NamedTuple):
    """An axis of an image, as the network sees it.

    Attributes:
      size: voxels, a multiple of the stride.
      strides: of the levels, finest first, each to the next.
      block: voxels of the coarsest level that attend to each other; 1 = none do.
      reach: voxels of a level that the decoder's convolutions see on each side.
      radius: voxels of the image that the encoder sees on each side of one of the coarsest level.
    """

    size: int
    strides: tuple[int, ...]
    block: int
    reach: int
    radius: int

    @property
    def stride(self) -> int:
        """Voxels of the image for one of the coarsest level."""
        return int(np.prod(self.strides, dtype=int))


class Sizes(NamedTuple):
    """Sizes of what cores need that are enough for each of them, so that one program is compiled.

    Attributes:
      parts: of each level, finest first.
      blocks: of the coarsest level.
      window: of the image.
      beyond: voxels of the coarsest level by which blocks may go beyond the window, and the image.
    """

    parts: tuple[int, ...]
    blocks: int
    window: int
    beyond: int = 0


class Needs(NamedTuple):
    """What the maps of a core need.

    Attributes:
      parts: a part of each level, finest first, in voxels of the level.
      blocks: the whole blocks of the coarsest level in which the coarsest part lies.
      window: of the image, on the grid of the coarsest level; it holds the others, as far as the
        image goes.
    """

    parts: tuple[slice, ...]
    blocks: slice
    window: slice


def needs(core: slice, axis: Axis, *, sizes: Sizes | None = None) -> Needs:
    """What the maps of a core need along an axis.

    Args:
      core: the voxels whose maps are wanted.
      axis: in which it lies.
      sizes: of what is needed, which then may go beyond the image; None = no more than that.
    """
    parts = _decoder_parts(core, axis, sizes.parts if sizes else ())
    blocks = _blocks(parts[-1], axis)
    if sizes:
        blocks = slice(blocks.start, blocks.start + sizes.blocks)
    window = _seen(blocks, axis)
    if sizes:
        window = slice(window.start, window.start + sizes.window)
    return Needs(tuple(parts), blocks, window)


def sizes_of(cores: Sequence[slice], axis: Axis) -> Sizes:
    """The sizes that are enough for some cores."""
    lengths: list[int] = []
    for level in range(len(axis.strides) + 1):
        parts = [_decoder_parts(core, axis, lengths)[level] for core in cores]
        lengths.append(max(part.stop - part.start for part in parts))
    coarse = [slice(part.start, part.start + lengths[-1]) for part in parts]
    every = [_blocks(part, axis) for part in coarse]
    blocks = max(block.stop - block.start for block in every)
    starts = [block.start for block in every]
    windows = [_seen(slice(start, start + blocks), axis) for start in starts]
    # A part that goes beyond the image lies in the window, too: it is cut from there.
    ends = [max(w.stop, part.stop * axis.stride) for w, part in zip(windows, coarse, strict=True)]
    window = max(end - w.start for w, end in zip(windows, ends, strict=True))
    held = [(w.start + window) // axis.stride for w in windows]
    beyond = max(0, *(start + blocks - end for start, end in zip(starts, held, strict=True)))
    return Sizes(tuple(lengths), blocks, window, beyond)


def _blocks(part: slice, axis: Axis) -> slice:
    """The whole blocks in which a part of the coarsest level lies."""
    return slice(part.start // axis.block * axis.block, up(part.stop, axis.block))


def _seen(blocks: slice, axis: Axis) -> slice:
    """The part of an image that the encoder sees for blocks."""
    step = axis.stride
    first = max((blocks.start * step - axis.radius) // step * step, 0)
    return slice(first, min(up(blocks.stop * step + axis.radius, step), axis.size))


def _decoder_parts(core: slice, axis: Axis, lengths: Sequence[int]) -> list[slice]:
    """The part of each level, in its voxels, that a decoder needs for the maps of a core.

    Args:
      core: the voxels whose maps are wanted.
      axis: in which it lies.
      lengths: of the parts of the finest levels, as far as they are fixed.
    """
    start, stop, size = core.start, core.stop, axis.size
    parts = []
    for level in range(len(axis.strides) + 1):
        # Of the coarsest level voxels alone are needed: it is given, and upsampled.
        margin, step = (axis.reach, axis.strides[level]) if level < len(axis.strides) else (0, 1)
        start = max((start - margin) // step * step, 0)
        stop = max(min(up(stop + margin, step), size), up(stop, step))
        if level < len(lengths):
            stop = start + lengths[level]
        parts.append(slice(start, stop))
        start, stop, size = start // step, up(stop, step) // step, size // step
    return parts


def grid(size: int, core: int, first: int) -> tuple[slice, ...]:
    """The cores along an axis: the first one, those of one length after it, and what is left."""
    starts = (0, *range(first, size, core))
    return tuple(slice(*pair) for pair in zip(starts, (*starts[1:], size), strict=True))


def number(size: int, core: int, first: int) -> int:
    """The number of cores in such a grid."""
    return 1 + len(range(first, size, core))


class Option(NamedTuple):
    """The smallest cores that give a number of tiles along an axis.

    Attributes:
      cores: their length but the first one's.
      first: that of the first one.
      tiles: their number.
      window: what is read for each, see `Sizes`.
    """

    cores: int
    first: int
    tiles: int
    window: int


def options(size: int, axis: Axis, *, mirror: bool) -> list[Option]:
    """The cores to choose from along an axis.

    They end in the middle of attention blocks, about, so that what they need around lies in the
    same; and at multiples of many voxels, as the map is stored in chunks that none of them shares.

    Args:
      size: voxels of the image itself.
      axis: of the image.
      mirror: whether mirror images are computed as well.
    """
    unit, shift = axis.block * axis.stride, _middle(axis.block) * axis.stride
    found: dict[int, Option] = {}
    for core in range(unit, size + shift + unit, unit):  # the last one is one tile
        first = core - shift
        tiles = number(size, core, first)
        if tiles not in found:
            some = different(grid(size, core, first), size, mirror=mirror)
            found[tiles] = Option(core, first, tiles, sizes_of(some, axis).window)
    return list(found.values())


def _middle(block: int) -> int:
    """The multiple of the largest divisor of a block that is nearest to its middle; 0 of primes."""
    divisor = max((n for n in range(1, block // 2 + 1) if block % n == 0), default=1)
    return 0 if divisor == 1 and block > 2 else round(block / 2 / divisor) * divisor


def choose(axes: Sequence[Sequence[Option]], *, max_voxels: float) -> tuple[Option, ...] | None:
    """The options of some axes whose tiles compute the fewest voxels in all.

    What is around cores is computed again by each tile: large cores waste little, and equal ones.

    Args:
      axes: options of each; among equals the last axes, along which images are read, get the
        longest cores.
      max_voxels: the most voxels of a window.

    Returns:
      One option an axis; None if even the smallest have more voxels.
    """
    windows = _products([[option.window for option in of_axis] for of_axis in axes])
    computed = _products([[o.window * o.tiles for o in of_axis] for of_axis in axes])
    if windows.min() > max_voxels:
        return None
    best = np.argmin(np.where(windows <= max_voxels, computed, np.inf))
    chosen = np.unravel_index(best, windows.shape)
    return tuple(of_axis[int(i)] for of_axis, i in zip(axes, chosen, strict=True))


def computed(chosen: Sequence[Option]) -> int:
    """The voxels that are computed with an option for each axis."""
    return math.prod(option.window * option.tiles for option in chosen)


def different(cores: Sequence[slice], size: int, *, mirror: bool) -> list[slice]:
    """The cores of a grid that may differ in what they need, with those of the mirror image."""
    middle = len(cores) // 2
    some = [*cores[:_ENDS], *cores[middle : middle + 1], *cores[-_ENDS:]]
    mirrored = [slice(size - core.stop, size - core.start) for core in some]
    return [*some, *mirrored] if mirror else some


def _products(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """The products of one number of each axis, an array of as many axes."""
    return functools.reduce(np.multiply.outer, [np.array(of_axis, float) for of_axis in sizes])
