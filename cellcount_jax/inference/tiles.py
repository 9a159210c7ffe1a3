"""Grids of overlapping tiles, for images that do not fit the accelerator at once.

Every tile reads its outer region, a core and a halo around it; the cores tile the image exactly
once. Regions are half-open slices in image coordinates, one per spatial axis. Pure
functions, 2D and 3D alike.

Outer regions start on the block grid, anchored at the image's origin, on which pooling (or
attention) lies: so a tile is computed on the same grid as the whole image, and with a halo of
at least the network's radius its core equals the whole image's map.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Region


class Tile(NamedTuple):
    """One tile.

    Attributes:
      outer: the region that is read, in image coordinates.
      core: the region for which the tile gives the result, in image coordinates.
      inner: the core, relative to the outer region.
    """

    outer: Region
    core: Region
    inner: Region


def tile_grid(
    shape: Sequence[int], *, core: Sequence[int], halo: Sequence[int], block: Sequence[int]
) -> list[Tile]:
    """Lays tiles over an image.

    Args:
      shape: `(D,)` spatial shape of the image, in voxels.
      core: `(D,)` size of the cores, multiples of `block`; the last ones end with the image.
      halo: `(D,)` voxels that a tile reads at least on each side of its core, except
        beyond the image.
      block: `(D,)` the grid on which outer regions start, and end unless the image ends. An
        image that ends on it gets outer regions of one shape.

    Returns:
      The tiles, in index order of their cores.

    Raises:
      InputError: if the sizes are not D whole numbers, not positive (`halo`: negative), or
        a core is no multiple of the block.
    """
    _check_sizes(shape, halo, block)
    _check_size("core", core, len(shape), least=1)
    for axis, (size, step) in enumerate(zip(core, block, strict=True)):
        if size % step:
            raise InputError(
                f"core is {size} on axis {axis}; it must be a multiple of the block of {step}."
            )
    axes = [_axis_tiles(*sizes) for sizes in zip(shape, core, halo, block, strict=True)]
    return [
        Tile(*(tuple(regions) for regions in zip(*parts, strict=True)))
        for parts in itertools.product(*axes)
    ]


def decoder_parts(
    core: slice, window: slice, *, strides: Sequence[int], reach: int, lengths: Sequence[int] = ()
) -> list[slice]:
    """The part of each level that a decoder needs along one axis, for the maps of a core.

    Args:
      core: the voxels whose maps are wanted.
      window: the voxels that the encoder sees, on the grid of the coarsest level.
      strides: of the levels, finest first, each to the next.
      reach: voxels of a level that its convolutions see on each side, but beyond the window.
      lengths: of the parts of the finest levels, as far as they are fixed.

    Returns:
      A part a level, in voxels of the level from the beginning of the window.
    """
    start, stop = core.start - window.start, core.stop - window.start
    size = window.stop - window.start
    parts = []
    for level in range(len(strides) + 1):
        # Of the coarsest level voxels alone are needed: it is given, and upsampled.
        margin, step = (reach, strides[level]) if level < len(strides) else (0, 1)
        start = max((start - margin) // step * step, 0)
        stop = min(-(-(stop + margin) // step) * step, size)
        if level < len(lengths):
            start = min(start, size - lengths[level])
            stop = start + lengths[level]
        parts.append(slice(start, stop))
        start, stop, size = start // step, stop // step, size // step
    return parts


def choose_core(
    shape: Sequence[int], *, halo: Sequence[int], block: Sequence[int], max_voxels: int
) -> tuple[int, ...]:
    """Chooses the core whose tiles compute the fewest voxels in all.

    Halos are computed again by each tile, and so is what the last tiles along an axis read
    beyond their need, as all are of one size: large cores waste little, and equal ones.

    Args:
      shape: `(D,)` spatial shape of the image, in voxels.
      halo: `(D,)`, as for `tile_grid`.
      block: `(D,)`, as for `tile_grid`.
      max_voxels: the most voxels that an outer region may have.

    Returns:
      The core for `tile_grid`, multiples of `block`; where the whole image fits, the image
      rounded up to blocks.

    Raises:
      InputError: if the sizes are not D whole numbers in range, or if not even cores of
        one block fit; the message has the voxels that they need.
    """
    _check_sizes(shape, halo, block)
    axes = [_axis_options(*sizes) for sizes in zip(shape, halo, block, strict=True)]
    least = math.prod(min(option.width for option in options) for options in axes)
    if least > max_voxels:
        raise InputError(
            f"config.predict.max_voxels = {max_voxels}: a tile of an image of shape"
            f" {tuple(shape)} needs at least {least}, with a halo of {tuple(halo)} and blocks of"
            f" {tuple(block)}."
        )
    widths = _products([[option.width for option in options] for options in axes])
    computed = _products([[option.width * option.tiles for option in options] for options in axes])
    best = np.argmin(np.where(widths <= max_voxels, computed, np.inf))
    chosen = np.unravel_index(best, widths.shape)
    return tuple(options[int(i)].core for options, i in zip(axes, chosen, strict=True))


def _products(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """The products of one number of each axis, an array of as many axes."""
    return functools.reduce(np.multiply.outer, [np.array(of_axis, float) for of_axis in sizes])


class _Option(NamedTuple):
    """The smallest core that gives a number of tiles along an axis.

    Attributes:
      core: its length.
      tiles: their number.
      width: of an outer region.
    """

    core: int
    tiles: int
    width: int


def _axis_options(size: int, halo: int, block: int) -> list[_Option]:
    """The cores to choose from along an axis, smallest first: among equals the last axes, along
    which images are read, get the longest."""
    options: dict[int, _Option] = {}
    for core in range(block, size + block, block):
        tiles = _axis_tiles(size, core, halo, block)
        if len(tiles) not in options:
            width = max(outer.stop - outer.start for outer, _, _ in tiles)
            options[len(tiles)] = _Option(core, len(tiles), width)
    return list(options.values())


def _axis_tiles(size: int, core: int, halo: int, block: int) -> list[tuple[slice, slice, slice]]:
    """Outer, core and inner slices along one axis; on the block grid, outer ones of one length."""
    cores = [(start, min(start + core, size)) for start in range(0, size, core)]
    needed = [
        (max((start - halo) // block * block, 0), min(-(-(stop + halo) // block) * block, size))
        for start, stop in cores
    ]
    length = -(-max(stop - start for start, stop in needed) // block) * block
    tiles = []
    for (start, stop), (first, _) in zip(cores, needed, strict=True):
        # At the far end a tile reads more than it needs, so that it is compiled with the others.
        outer = min(first, -(-(size - length) // block) * block)
        tiles.append(
            (
                slice(outer, min(outer + length, size)),
                slice(start, stop),
                slice(start - outer, stop - outer),
            )
        )
    return tiles


def _check_sizes(shape: Sequence[int], halo: Sequence[int], block: Sequence[int]) -> None:
    _check_size("shape", shape, len(shape), least=1)
    _check_size("halo", halo, len(shape), least=0)
    _check_size("block", block, len(shape), least=1)


def _check_size(name: str, sizes: Sequence[int], ndim: int, *, least: int) -> None:
    if ndim == 0 or len(sizes) != ndim or any(size != int(size) or size < least for size in sizes):
        raise InputError(
            f"{name} is {tuple(sizes)}; it must be {max(ndim, 1)} whole numbers, "
            f"each at least {least}."
        )
