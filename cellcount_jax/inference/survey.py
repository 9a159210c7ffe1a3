"""What is in an image, tile by tile, and what of it must be computed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellcount_jax.images.files import replacing
from cellcount_jax.images.normalise import Measured, Normalisation
from cellcount_jax.images.regions import Readable, Region, around, extent, within
from cellcount_jax.inference import plan
from cellcount_jax.inference.plan import Plan


class Mask(Protocol):
    """Where cells are looked for."""

    def touches(self, region: Region, shape: Sequence[int], /) -> bool:
        """Whether any of it may lie in a region of an image of a shape."""
        ...

    def holds(self, points: np.ndarray, shape: Sequence[int], /) -> np.ndarray:
        """`(N,)` bool: whether each of `(N, D)` points of an image of a shape lies in it."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """What is known of an image once it was read.

    Attributes:
      measured: what normalises it.
      busy: `(tiles,)` bool, which are to be looked at.
      constant: how many are not, as there is nothing in them.
      outside: how many are not, as they lie outside the mask.
    """

    measured: Measured
    busy: np.ndarray
    constant: int
    outside: int


def make(
    image: Readable,
    cut: Plan,
    normalisation: Normalisation,
    *,
    mask: Mask | None,
    acts: Sequence[int],
    seen: Sequence[int],
    told: Callable[[int], object] = lambda voxels: None,
) -> Survey:
    """Reads an image, once, a part at a time.

    Args:
      image: raw intensities.
      cut: its tiles.
      normalisation: of the model.
      mask: where to look; None = everywhere.
      acts: `(D,)` how far around a core the image acts on what is found in it.
      seen: `(D,)` how far the map does.
      told: gets the number of voxels after each part.

    Raises:
      InputError: the image cannot be read.
    """
    ranges = _Ranges(cut)

    def read(region: Region) -> np.ndarray:
        values = image.read(region)
        ranges.add(values, region)
        told(math.prod(extent(region)))
        return values

    measured = normalisation.measure(read, image.shape, channels=image.channels)
    # Some normalisations look at nothing.
    for core in cut.cores if ranges.empty else ():
        read(core)
    busy, constant, outside = _busy_tiles(ranges, cut, mask, acts, seen)
    return Survey(measured, busy, constant, outside)


def save(survey: Survey, path: Path) -> None:
    """Writes a survey, whole or not at all."""
    arrays: dict[str, Any] = {**survey.measured.to_arrays(), "busy": survey.busy}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, constant=survey.constant, outside=survey.outside, **arrays)


def load(path: Path) -> Survey:
    """Reads a survey."""
    with np.load(path, allow_pickle=False) as stored:
        measured = Measured.from_arrays({name: stored[name] for name in stored.files})
        skipped = (int(stored[name]) for name in ("constant", "outside"))
        return Survey(measured, stored["busy"], *skipped)


def needed_tiles(cut: Plan, busy: Sequence[int], flip: tuple[int, ...]) -> list[int]:
    """The tiles of a mirror image whose coarsest level is needed to decode the busy ones."""
    fine = _starts([tile.core for tile in cut.tiles])
    starts = [begin // step for begin, step in zip(fine, cut.stride, strict=True)]
    needed = np.zeros([len(s) for s in starts], bool)
    for i in busy:
        needed[_met(starts, plan.coarse_needed(cut, i, flip))] = True
    return np.flatnonzero(needed).tolist()


class _Ranges:
    """The lowest and the highest intensity in each core of a cut."""

    def __init__(self, cut: Plan) -> None:
        self.starts = _starts(cut.cores)
        grid = [len(s) for s in self.starts]
        self.cores = np.arange(len(cut.cores)).reshape(grid)
        self.lowest, self.highest = np.full(grid, np.inf), np.full(grid, -np.inf)
        self._cut = cut

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return bool(np.isinf(self.lowest).all())

    def add(self, values: np.ndarray, region: Region) -> None:
        """Adds what was read of a region."""
        for i in self.cores[_met(self.starts, region)].ravel():
            sides = zip(self._cut.cores[i], region, strict=True)
            shared = tuple(slice(max(c.start, r.start), min(c.stop, r.stop)) for c, r in sides)
            part = values[within(shared, region)]
            self.lowest.flat[i] = min(self.lowest.flat[i], part.min())
            self.highest.flat[i] = max(self.highest.flat[i], part.max())


def _busy_tiles(
    ranges: _Ranges, cut: Plan, mask: Mask | None, acts: Sequence[int], seen: Sequence[int]
) -> tuple[np.ndarray, int, int]:
    """Which tiles are to be looked at, and how many are constant or outside the mask."""
    constant, outside = (np.zeros(len(cut.cores), bool) for _ in range(2))
    for i, core in enumerate(cut.cores):
        met = _met(ranges.starts, around(core, acts, cut.shape))
        constant[i] = ranges.lowest[met].min() == ranges.highest[met].max()
        outside[i] = mask is not None and not mask.touches(around(core, seen, cut.shape), cut.shape)
    constant &= ~outside
    return ~(constant | outside), int(constant.sum()), int(outside.sum())


def _starts(cores: Sequence[Region]) -> list[np.ndarray]:
    """Where the cores of a grid begin along each axis."""
    return [np.unique([part.start for part in axis]) for axis in zip(*cores, strict=True)]


def _met(starts: Sequence[np.ndarray], region: Region) -> Region:
    """The cores of a grid, along each axis, that a region meets."""
    return tuple(
        slice(
            int(np.searchsorted(begin, part.start, "right")) - 1,
            int(np.searchsorted(begin, part.stop, "left")),
        )
        for begin, part in zip(starts, region, strict=True)
    )
