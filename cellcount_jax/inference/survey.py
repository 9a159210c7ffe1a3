"""The survey of an image before tiles are computed: its normalisation, and tiles to leave out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellcount_jax.images.ahead import in_turn
from cellcount_jax.images.background import blocks_of, statistics
from cellcount_jax.images.block_grid import BlockGrid
from cellcount_jax.images.files import replacing
from cellcount_jax.images.normalise import Measured, Normalisation
from cellcount_jax.images.regions import (
    Readable,
    Region,
    Resampled,
    around,
    extent,
    original_of,
)
from cellcount_jax.inference.plan import Plan
from cellcount_jax.inference.ranges import Ranges


class Mask(Protocol):
    """The part of an image in which cells are counted."""

    def touches(self, region: Region, shape: Sequence[int], /) -> bool:
        """Whether the mask may overlap a region of an image of a shape."""
        ...

    def holds(self, points: np.ndarray, shape: Sequence[int], /) -> np.ndarray:
        """`(N,)` bool: whether each of `(N, D)` points of an image of a shape lies in the mask."""
        ...


def voxels_inside(mask: Mask, region: Region, shape: Sequence[int]) -> np.ndarray:
    """`(*region,)` bool: which voxels of a region have their centre in a mask."""
    places = np.stack(np.meshgrid(*(np.arange(p.start, p.stop) for p in region), indexing="ij"), -1)
    inside: np.ndarray = mask.holds(places.reshape(-1, len(shape)), shape)
    return inside.reshape(extent(region))


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """The results of reading an image once.

    Attributes:
      measured: the statistics that normalise it.
      computed: `(tiles,)` bool, the tiles whose maps are computed.
      constant: number of tiles that are left out as they and their surroundings have one intensity.
      outside: number of tiles that are left out as they lie outside the mask.
      dark: number of other tiles that are left out as nothing there is bright enough for a cell.
    """

    measured: Measured
    computed: np.ndarray
    constant: int
    outside: int
    dark: int


# What is seen of a group of blocks: 'statistics' of them, 'ranges' of their voxels.
Observed = Mapping[str, np.ndarray]


def groups(image: Readable, normalisation: Normalisation) -> list[Region]:
    """Groups of the blocks of an image, which can be read in any order, by any process.

    There are none where the normalisation is not by blocks.
    """
    if normalisation.grid(image) is None:
        return []
    grids = _grids(image, normalisation)
    return max(grids, key=lambda grid: math.prod(grid.shape)).groups


def observe(
    image: Readable, plan: Plan, normalisation: Normalisation, some: Sequence[Region]
) -> Iterator[Observed]:
    """Reads some of the groups of blocks of an image; one is read while others are measured.

    Raises:
      InputError: the image cannot be read.
    """
    ranges, original = Ranges(plan), original_of(image)
    of_original, of_image = _grids(image, normalisation)

    def read(group: Region) -> tuple[np.ndarray, np.ndarray]:
        values = original.read(of_original.region(group))
        own = values if original is image else image.read(of_image.region(group))
        return values, own

    def work(group: Region, read: tuple[np.ndarray, np.ndarray]) -> Observed:
        values, own = read
        return {
            "statistics": statistics(values, of_original, group),
            "ranges": ranges.of(own, of_image.region(group)),
        }

    return in_turn(some, read, work)


def collected(
    image: Readable,
    plan: Plan,
    normalisation: Normalisation,
    observed: Iterable[tuple[Region, Observed]],
) -> tuple[Measured, Ranges]:
    """What normalises an image, and its ranges, from what was observed of all its groups."""
    of_original, of_image = _grids(image, normalisation)
    ranges, of_blocks = Ranges(plan), []
    for group, found in observed:
        of_blocks.append((group, found["statistics"]))
        ranges.add(found["ranges"], of_image.region(group))
    blocks = blocks_of(of_original, of_blocks, channels=image.channels)
    return normalisation.of_blocks(blocks, image.shape), ranges


def _grids(image: Readable, normalisation: Normalisation) -> tuple[BlockGrid, BlockGrid]:
    """The blocks of the original of an image, and the same of the image."""
    grid = normalisation.grid(image)
    assert grid is not None
    return grid, BlockGrid(image.shape, grid.counts)


def read_whole(
    image: Readable,
    plan: Plan,
    normalisation: Normalisation,
    update: Callable[[int], object] = lambda voxels: None,
) -> tuple[Measured, Ranges]:
    """What normalises an image that is not measured by blocks, and its ranges; reads it once.

    Args:
      image: raw intensities.
      plan: of the image.
      normalisation: of the model.
      update: called with the number of voxels after each part, for a progress bar; in all
        `voxels_read`.

    Raises:
      InputError: the image cannot be read.
    """
    ranges = Ranges(plan)

    def read(region: Region) -> np.ndarray:
        values = image.read(region)
        ranges.add(ranges.of(values, region), region)
        update(math.prod(extent(region)))
        return values

    if normalisation.reads_all and not isinstance(image, Resampled):
        measured = normalisation.measure(read, image.shape, channels=image.channels)
    else:
        watched = _Watched.of(image, update) if normalisation.reads_all else image
        measured = normalisation.measure_image(watched)
        for core in plan.cores:
            read(core)
    return measured, ranges


def voxels_read(image: Readable, normalisation: Normalisation) -> int:
    """How many voxels `read_whole` reads: of the image, and of an original that is measured."""
    voxels = math.prod(image.shape)
    if isinstance(image, Resampled) and normalisation.reads_all:
        voxels += math.prod(image.original.shape)
    return voxels


def make(
    plan: Plan,
    measured: Measured,
    ranges: Ranges,
    *,
    mask: Mask | None,
    image_margin: Sequence[int],
    map_margin: Sequence[int],
    cell: Sequence[int],
    least: float,
) -> Survey:
    """Makes the survey of an image that was read.

    Args:
      plan: of the image.
      measured: what normalises it.
      ranges: of all of it.
      mask: where cells are counted; None = everywhere.
      image_margin: `(D,)` voxels around a core in which the image affects the cells found there.
      map_margin: `(D,)` voxels around a core in which the map affects the cells found there.
      cell: `(D,)` voxels, a diameter.
      least: normalised intensity that a cell reaches, see `faint.limit`.
    """
    is_dark = ranges.darker(measured, least)
    constant, outside, dark = (np.zeros(len(plan.cores), bool) for _ in range(3))
    for i, core in enumerate(plan.cores):
        constant[i] = ranges.is_constant(around(core, image_margin, plan.shape))
        near = around(core, map_margin, plan.shape)
        outside[i] = mask is not None and not mask.touches(near, plan.shape)
        # What affects a cell here, and the cells that reach as far.
        dark[i] = is_dark(around(near, cell, plan.shape))
    constant &= ~outside
    dark &= ~(constant | outside)
    numbers = (int(some.sum()) for some in (constant, outside, dark))
    return Survey(measured, ~(constant | outside | dark), *numbers)


def save(survey: Survey, path: Path) -> None:
    """Writes a survey, whole or not at all."""
    arrays: dict[str, Any] = {**survey.measured.to_arrays(), "computed": survey.computed}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, constant=survey.constant, outside=survey.outside, dark=survey.dark, **arrays)


def load(path: Path) -> Survey:
    """Reads a survey."""
    with np.load(path, allow_pickle=False) as stored:
        measured = Measured.from_arrays({name: stored[name] for name in stored.files})
        skipped = (int(stored[name]) for name in ("constant", "outside", "dark"))
        return Survey(measured, stored["computed"], *skipped)


@dataclasses.dataclass(frozen=True, eq=False)
class _Watched:
    """An image that tells how many of its voxels are read."""

    image: Readable
    update: Callable[[int], object]

    @classmethod
    def of(cls, image: Readable, update: Callable[[int], object]) -> Readable:
        """An image that is resampled, with its original watched; others as they are."""
        if not isinstance(image, Resampled):
            return image
        return Resampled(cls(image.original, update), image.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    @property
    def channels(self) -> int:
        return self.image.channels

    def read(self, region: Region, /) -> np.ndarray:
        self.update(math.prod(extent(region)))
        return self.image.read(region)
