"""Grids of overlapping tiles, for images that do not fit the accelerator at once.

Every tile reads its outer region, a core and a halo around it; the cores tile the image exactly
once. Regions are half-open slices in image coordinates, one per spatial axis. Pure
functions, 2D and 3D alike.

Outer regions start on the block grid, anchored at the image's origin, on which pooling (or
attention) lies: so a tile is computed on the same grid as the whole image, and with a halo of
at least the network's radius its core equals the whole image's map.
"""

from __future__ import annotations

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
    """Chooses the largest core whose tiles stay within a number of voxels.

    Large cores waste the least on halos. The largest is the one that covers most of the
    image, then the one that needs the smaller outer region.

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
    options = []
    for size, margin, step in zip(shape, halo, block, strict=True):
        cores = np.arange(step, size + step, step)
        widest = [
            max(outer.stop - outer.start for outer, _, _ in _axis_tiles(size, core, margin, step))
            for core in cores.tolist()
        ]
        options.append((cores, np.minimum(cores, size), np.array(widest)))
    least = math.prod(int(widest.min()) for _, _, widest in options)
    if least > max_voxels:
        raise InputError(
            f"config.predict.max_voxels = {max_voxels}: a tile of an image of shape"
            f" {tuple(shape)} needs at least {least}, with a halo of {tuple(halo)} and blocks of"
            f" {tuple(block)}."
        )
    # Most sizes are too large, whatever those of the other axes.
    small = [widest * (least // int(widest.min())) <= max_voxels for _, _, widest in options]
    options = [(c[s], v[s], w[s]) for (c, v, w), s in zip(options, small, strict=True)]
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    *leading, (last_cores, last_covered, last_widest) = options
    narrowest = int(last_widest.min())
    for choice in itertools.product(*(range(len(cores)) for cores, _, _ in leading)):
        widest_voxels = math.prod(int(leading[a][2][i]) for a, i in enumerate(choice))
        if widest_voxels * narrowest > max_voxels:
            continue
        fits = last_widest * widest_voxels <= max_voxels
        covered = math.prod(int(leading[a][1][i]) for a, i in enumerate(choice))
        last = np.lexsort((last_widest, -np.where(fits, last_covered, 0)))[0]
        merit = (covered * int(last_covered[last]), -widest_voxels * int(last_widest[last]))
        if best is None or merit > best[0]:
            leading_core = (int(leading[a][0][i]) for a, i in enumerate(choice))
            best = merit, (*leading_core, int(last_cores[last]))
    assert best is not None  # the smallest outer regions fit, as checked above
    return best[1]


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
