"""The survey of an image before tiles are computed: its normalisation, and tiles to leave out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from cellcount_jax.images.ahead import in_turn
from cellcount_jax.images.background import blocks_of, statistics
from cellcount_jax.images.files import replacing
from cellcount_jax.images.normalise import Measured, Normalisation
from cellcount_jax.images.regions import (
    Readable,
    Region,
    Resampled,
    around,
    extent,
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


class Part(NamedTuple):
    """A part of an image that is read at a time.

    Attributes:
      blocks: a group of the blocks of the image, of one that is resampled of the original's, that
        are measured; None = none are.
      region: of the image, whose ranges are collected; None = they are not.
    """

    blocks: Region | None
    region: Region | None


# What was found in a part: 'statistics' of its blocks, 'ranges' of its region.
Seen = Mapping[str, np.ndarray]


def parts(image: Readable, plan: Plan, normalisation: Normalisation) -> list[Part]:
    """The parts of an image that can be read in any order, by any process.

    There are none where the normalisation is not by blocks: then `make` reads the image.
    """
    grid = normalisation.grid(image)
    if grid is None:
        return []
    if isinstance(image, Resampled):
        blocks = [Part(group, None) for group in grid.groups]
        return [*blocks, *(Part(None, core) for core in plan.cores)]
    return [Part(group, grid.region(group)) for group in grid.groups]


def see(
    image: Readable, plan: Plan, normalisation: Normalisation, some: Sequence[Part]
) -> Iterator[Seen]:
    """Reads some of the parts of an image, each once; the last one is worked on meanwhile.

    Raises:
      InputError: the image cannot be read.
    """
    grid, ranges = normalisation.grid(image), Ranges(plan)
    assert grid is not None
    original = image.original if isinstance(image, Resampled) else image

    def read(part: Part) -> np.ndarray:
        if part.region is not None:
            return image.read(part.region)
        assert part.blocks is not None
        return original.read(grid.region(part.blocks))

    def work(part: Part, values: np.ndarray) -> Seen:
        found = {}
        if part.blocks is not None:
            found["statistics"] = statistics(values, grid, part.blocks)
        if part.region is not None:
            found["ranges"] = ranges.of(values, part.region)
        return found

    return in_turn(some, read, work)


def make(
    image: Readable,
    plan: Plan,
    normalisation: Normalisation,
    seen: Iterable[tuple[Part, Seen]],
    *,
    mask: Mask | None,
    image_margin: Sequence[int],
    map_margin: Sequence[int],
    cell: Sequence[int],
    least: float,
    update: Callable[[int], object] = lambda voxels: None,
) -> Survey:
    """Makes the survey of what was seen in the parts of an image; reads it if it has none.

    Args:
      image: raw intensities.
      plan: of the image.
      normalisation: of the model.
      seen: all `parts`, and what `see` gave for each.
      mask: where cells are counted; None = everywhere.
      image_margin: `(D,)` voxels around a core in which the image affects the cells found there.
      map_margin: `(D,)` voxels around a core in which the map affects the cells found there.
      cell: `(D,)` voxels, a diameter.
      least: normalised intensity that a cell reaches, see `faint.limit`.
      update: called with the number of voxels after each part of an image that is read, for a
        progress bar; in all `voxels_read`.

    Raises:
      InputError: the image cannot be read.
    """
    ranges = Ranges(plan)
    grid = normalisation.grid(image)
    if grid is None:
        measured = _read(image, plan, normalisation, ranges, update)
    else:
        of_blocks = []
        for part, found in seen:
            if part.blocks is not None:
                of_blocks.append((part.blocks, found["statistics"]))
            if part.region is not None:
                ranges.add(found["ranges"], part.region)
        blocks = blocks_of(grid, of_blocks, channels=image.channels)
        measured = normalisation.of_blocks(blocks, image.shape)
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


def _read(
    image: Readable,
    plan: Plan,
    normalisation: Normalisation,
    ranges: Ranges,
    update: Callable[[int], object],
) -> Measured:
    """Measures an image that has no parts, and adds its ranges; reads it once."""

    def read(region: Region) -> np.ndarray:
        values = image.read(region)
        ranges.add(ranges.of(values, region), region)
        update(math.prod(extent(region)))
        return values

    if normalisation.reads_all and not isinstance(image, Resampled):
        return normalisation.measure(read, image.shape, channels=image.channels)
    watched = _Watched.of(image, update) if normalisation.reads_all else image
    measured = normalisation.measure_image(watched)
    for core in plan.cores:
        read(core)
    return measured


def voxels_read(image: Readable, normalisation: Normalisation) -> int:
    """How many voxels `make` reads: the image's, and those of the original that is measured; none
    of one that was read in parts."""
    if normalisation.grid(image) is not None:
        return 0
    voxels = math.prod(image.shape)
    if isinstance(image, Resampled) and normalisation.reads_all:
        voxels += math.prod(image.original.shape)
    return voxels


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
