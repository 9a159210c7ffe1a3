"""What of an image is labelled: a grid of blocks, each to do, in progress or done.

`cells.label.json` beside `cells.tif` and `cells.csv` is written by the labelling tool. Where blocks
are done their dots are complete, and that is what training learns from.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cellcount_jax.data.files import existing_file, replacing
from cellcount_jax.errors import InputError

SUFFIX = ".label.json"
FORMAT = "cellcount_jax labels"
VERSION = 1

TO_DO, IN_PROGRESS, DONE = range(3)
NAMES = ("to do", "in progress", "done")


@dataclasses.dataclass(frozen=True)
class Grid:
    """An image cut into blocks.

    Attributes:
      shape: `(D,)` of the image, in voxels.
      block: `(D,)` voxels of a block; the last ones of an axis may be smaller.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.block) != len(self.shape) or min((*self.shape, *self.block)) < 1:
            raise InputError(
                f"blocks of {_size(self.block)} voxels for an image of {_size(self.shape)}:"
                f" {len(self.shape)} positive whole numbers are needed."
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))

    def region(self, index: Sequence[int]) -> tuple[slice, ...]:
        """The voxels of the block at `index`."""
        return tuple(
            slice(i * b, min((i + 1) * b, n))
            for i, b, n in zip(index, self.block, self.shape, strict=True)
        )

    def index_of(self, points: np.ndarray) -> np.ndarray:
        """`(N, D)` int: in which block each of the points `(N, D)` (voxels) lies."""
        voxels = np.floor(np.asarray(points) + 0.5).astype(int)
        return np.clip(voxels, 0, np.asarray(self.shape) - 1) // np.asarray(self.block)

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """`(*shape)` bool: the voxels of the blocks that `(*counts)` bool holds."""
        for axis, (n, b) in enumerate(zip(self.shape, self.block, strict=True)):
            chosen = np.take(chosen, np.arange(n) // b, axis)
        return chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Progress:
    """What of an image is labelled.

    Attributes:
      grid: the blocks.
      states: `(*grid.counts)` uint8, TO_DO, IN_PROGRESS or DONE.
      about: what else the file says: software, proposals, time; see `Session`.
    """

    grid: Grid
    states: np.ndarray
    about: Mapping[str, Any]

    @property
    def valid(self) -> np.ndarray:
        """`(*shape)` bool: where the dots are complete."""
        return self.grid.mask(self.states == DONE)


def read_progress(path: str | os.PathLike[str]) -> Progress:
    """Reads what of an image is labelled.

    Raises:
      InputError: no such file, not of the labelling tool, of a later version, or damaged.
    """
    path = existing_file(path)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: is not JSON ({error}).") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise InputError(f"{path}: is not a file of the labelling tool; move it away.")
    if stored.get("version") != VERSION:
        raise InputError(
            f"{path}: is of version {stored.get('version')!r}, this program reads {VERSION};"
            " install a newer one."
        )
    try:
        shape, block = _sizes(stored["shape"]), _sizes(stored["block"])
        grid = Grid(shape, block)
        states = np.full(grid.counts, TO_DO, np.uint8)
        for key, state in (("in_progress", IN_PROGRESS), ("done", DONE)):
            for index in _indices(stored[key], grid.counts):
                states[index] = state
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error}); move it away.") from error
    known = {"format", "version", "shape", "block", "in_progress", "done"}
    return Progress(grid, states, {k: v for k, v in stored.items() if k not in known})


def write_progress(path: str | os.PathLike[str], progress: Progress) -> None:
    """Writes what `read_progress` reads, all or nothing."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "shape": progress.grid.shape,
        "block": progress.grid.block,
        "done": np.argwhere(progress.states == DONE).tolist(),
        "in_progress": np.argwhere(progress.states == IN_PROGRESS).tolist(),
        **progress.about,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _sizes(values: Sequence[int]) -> tuple[int, ...]:
    if not 2 <= len(values) <= 3 or not all(type(value) is int for value in values):
        raise ValueError(f"sizes {values!r}")
    return tuple(values)


def _indices(stored: Sequence[Sequence[int]], counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for index in stored:
        if len(index) != len(counts) or not all(
            type(i) is int and 0 <= i < n for i, n in zip(index, counts, strict=True)
        ):
            raise ValueError(f"there is no block {index!r}")
        yield tuple(index)


def _size(values: Sequence[int]) -> str:
    return "x".join(map(str, values))
