"""The grid of blocks of an image that is labelled, each to do, in progress or done, and its file.

`cells.label.json` beside `cells.tif` and `cells.csv` is written by the labelling tool. Dots are
complete in blocks that are done; training learns from those blocks alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file, replacing
from cellcount_jax.images.regions import size_text, voxels_of

SUFFIX = ".label.json"
FORMAT = "cellcount_jax labels"
VERSION = 1
_MAX_BLOCKS = 10**8

TO_DO, IN_PROGRESS, DONE = range(3)
NAMES = ("to do", "in progress", "done")

# Where the radius of a cell is from: the user, the image, or nothing, and then it is so many of the
# finest voxel edge.
GIVEN, MEASURED, ASSUMED = "given", "measured", "assumed"
ASSUMED_EDGES = 5


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
                f"blocks of {size_text(self.block)} voxels for an image of {size_text(self.shape)}:"
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
        return np.clip(voxels_of(points), 0, np.asarray(self.shape) - 1) // np.asarray(self.block)

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """`(*shape)` bool: the voxels of the blocks that `(*counts)` bool holds."""
        for axis, (n, b) in enumerate(zip(self.shape, self.block, strict=True)):
            chosen = np.take(chosen, np.arange(n) // b, axis)
        return chosen


@dataclasses.dataclass(frozen=True, eq=False)
class BlockStates:
    """How far the blocks of an image are labelled.

    Attributes:
      grid: the blocks.
      states: `(*grid.counts)` uint8, TO_DO, IN_PROGRESS or DONE.
      about: the other entries of the file, such as software, proposals and time point; see
        `label.content`. Those that are read again are of their kind where they are there.
    """

    grid: Grid
    states: np.ndarray
    about: Mapping[str, Any]

    @property
    def valid(self) -> np.ndarray:
        """`(*shape)` bool: where the dots are complete."""
        return self.grid.mask(self.states == DONE)


def journal_path(path: Path, name: str) -> Path:
    """Where the labelling tool keeps what it did not save yet, while it is open.

    Args:
      path: of the image, or of another file beside it.
      name: of the image.
    """
    return path.with_name(f".{name}.label.journal")


def read_block_states(path: str | os.PathLike[str]) -> BlockStates:
    """Reads the file of an image's blocks.

    Raises:
      InputError: no such file, not of the labelling tool, of a later version, or damaged.
    """
    path = existing_file(path)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: is not JSON ({error}).") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise InputError(f"{path}: is not a file of the labelling tool; move it away.")
    if stored.get("version") != VERSION:
        raise InputError(
            f"{path}: is of version {stored.get('version')!r}, this program reads {VERSION};"
            " install a newer one."
        )
    known = {"format", "version", "shape", "block", "in_progress", "done"}
    about = {key: value for key, value in stored.items() if key not in known}
    try:
        shape, block = _sizes("shape", stored["shape"]), _sizes("block", stored["block"])
        grid = Grid(shape, block)
        if math.prod(grid.counts) > _MAX_BLOCKS:
            raise ValueError(f"{math.prod(grid.counts)} blocks, no image has so many")
        states = np.full(grid.counts, TO_DO, np.uint8)
        for key, state in (("in_progress", IN_PROGRESS), ("done", DONE)):
            for index in _indices(key, stored[key], grid.counts):
                states[index] = state
        _check_about(about, len(shape))
    except KeyError as error:
        raise InputError(f"{path}: is damaged ({error} is missing); move it away.") from error
    except ValueError as error:  # InputError is one
        raise InputError(f"{path}: is damaged ({error}); move it away.") from error
    return BlockStates(grid, states, about)


def cell_radius(about: Mapping[str, Any], spacing: Sequence[float] | None) -> float | None:
    """The radius of a cell as it is stored, in the unit of an image's voxel edges.

    It may have been stored in the other unit: the voxel size is given on opening, or is missing in
    the file. A pixel then stands for the finest edge.

    Args:
      about: with `radius`, its `unit`, and the `spacing` of then; see `Progress`.
      spacing: `(D,)` voxel edges of the image in micrometres, or None.

    Returns:
      In um, or in px where `spacing` is None; None where it is not known.
    """
    radius, unit, then = about.get("radius"), about.get("unit"), about.get("spacing")
    if radius is None:
        return None
    if unit == "px" and spacing is not None:
        return float(radius * min(spacing))
    if unit == "um" and spacing is None:
        return None if then is None else float(radius / min(then))
    return float(radius)


def radius_origin(about: Mapping[str, Any]) -> str:
    """Where a stored radius is from: `GIVEN`, `MEASURED` or `ASSUMED`.

    Args:
      about: with `radius`; see `cell_radius`.
    """
    if "radius_from" in about:
        return str(about["radius_from"])
    # Earlier versions stored the same where nothing was known.
    edge = min(about.get("spacing") or (1.0,))
    return ASSUMED if math.isclose(about["radius"], ASSUMED_EDGES * edge) else GIVEN


def write_block_states(path: str | os.PathLike[str], blocks: BlockStates) -> None:
    """Writes the file that `read_block_states` reads, whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "shape": blocks.grid.shape,
        "block": blocks.grid.block,
        "done": np.argwhere(blocks.states == DONE).tolist(),
        "in_progress": np.argwhere(blocks.states == IN_PROGRESS).tolist(),
        **blocks.about,
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _check_about(about: Mapping[str, Any], ndim: int) -> None:
    """Makes sure that what is there of the keys that are read again is of its kind.

    Raises:
      ValueError: something is not; names the key.
    """
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "radius": (_is_size, "a positive number"),
        "radius_from": (
            lambda value: value in (GIVEN, MEASURED, ASSUMED),
            f"{GIVEN}, {MEASURED} or {ASSUMED}",
        ),
        "unit": (lambda value: value in ("um", "px"), "um or px"),
        "spacing": (
            lambda value: value is None or (_is_list(value, _is_size) and len(value) == ndim),
            f"null or {ndim} positive numbers",
        ),
        "scene": (lambda value: isinstance(value, str), "a text"),
        "time": (_is_index, "a whole number"),
        "level": (_is_index, "a whole number"),
        "axes": (lambda value: value is None or isinstance(value, str), "null or a text"),
        "place": (lambda value: _is_list(value, _is_number), "a list of numbers"),
        "work": (
            lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
            "an object of numbers",
        ),
        "proposals": (
            lambda value: _is_list(value, lambda one: isinstance(one, dict)),
            "a list of objects",
        ),
        "dots": (
            lambda value: isinstance(value, dict) and type(value.get("sha256", "")) is str,
            "an object with the text sha256",
        ),
    }
    for key, (allowed, wanted) in checks.items():
        if key in about and not allowed(about[key]):
            raise ValueError(f"{key} is {json.dumps(about[key])}, {wanted} is needed")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_index(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_size(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(of, value))


def _sizes(key: str, stored: Any) -> tuple[int, ...]:
    if not _is_list(stored, lambda size: type(size) is int) or not 2 <= len(stored) <= 3:
        raise ValueError(f"{key} is {json.dumps(stored)}, 2 or 3 whole numbers are needed")
    return tuple(stored)


def _indices(key: str, stored: Any, counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    if not _is_list(stored, lambda index: isinstance(index, list)):
        raise ValueError(f"{key} is {json.dumps(stored)}, a list of blocks is needed")
    for index in stored:
        if len(index) != len(counts) or not all(
            type(i) is int and 0 <= i < n for i, n in zip(index, counts, strict=True)
        ):
            raise ValueError(f"{key}: there is no block {json.dumps(index)}")
        yield tuple(index)
