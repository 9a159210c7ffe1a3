"""The content of a session: all that is kept of it, the beginning, and checks on opening."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.data.blocks import (
    ASSUMED,
    ASSUMED_EDGES,
    DONE,
    GIVEN,
    MEASURED,
    TO_DO,
    Grid,
    cell_radius,
    radius_origin,
)
from cellcount_jax.errors import InputError
from cellcount_jax.images.axes import option_text
from cellcount_jax.images.cell_size import measure_diameter
from cellcount_jax.images.regions import Region, size_text
from cellcount_jax.images.selection import Selection
from cellcount_jax.label.acts import State
from cellcount_jax.label.dots import no_dots

_PAUSE_SECONDS = 60.0  # longer times without an act count as a pause of this length
_BLOCK_EDGES = {2: 128, 3: 64}  # the default size of a block, in finest voxel edges


@dataclasses.dataclass(frozen=True)
class Origin:
    """The part of an image file that is labelled.

    Attributes:
      spacing: `(D,)` voxel edges in micrometres; None where they are unknown.
      time: the time point; 0 where there is only one.
      level: of a pyramid.
      scene: number or name of the image in a file of several, as it was chosen; "0" where none was.
      axes: under which its file was opened, see `Selection`; None = the file's.
    """

    spacing: tuple[float, ...] | None
    time: int
    level: int
    scene: str = "0"
    axes: str | None = None

    @staticmethod
    def of(spacing: tuple[float, ...] | None, selection: Selection) -> Origin:
        """The part that a selection chooses."""
        part = (selection.time or 0, selection.level, str(selection.scene or 0), selection.axes)
        return Origin(spacing, *part)

    @property
    def unit(self) -> str:
        """The unit of lengths: um, or px where the voxel size is unknown."""
        return "px" if self.spacing is None else "um"

    def edges(self, ndim: int) -> np.ndarray:
        """`(ndim,)` voxel edges in `unit`."""
        return np.asarray(self.spacing or (1.0,) * ndim)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "unit": self.unit}


@dataclasses.dataclass(frozen=True)
class Work:
    """Time spent on labelling, and the cells and blocks that it gave.

    Attributes:
      seconds: between acts, pauses left out.
      cells: placed or verified.
      blocks: brought to done.
      last: time of the last act; None at the beginning of a session.
    """

    seconds: float = 0.0
    cells: int = 0
    blocks: int = 0
    last: float | None = None

    def after(self, now: float, before: State, state: State) -> Work:
        """The work with one more act."""
        spent = 0.0 if self.last is None else min(max(now - self.last, 0.0), _PAUSE_SECONDS)
        cells, blocks = (
            int(new.sum()) - int(old.sum())
            for old, new in (
                (before.dots.verified, state.dots.verified),
                (before.blocks == DONE, state.blocks == DONE),
            )
        )
        return Work(self.seconds + spent, self.cells + cells, self.blocks + blocks, now)

    @property
    def per_minute(self) -> float | None:
        """Cells a minute; None before there are cells and time."""
        return 60 * self.cells / self.seconds if self.seconds > 0 and self.cells > 0 else None

    def seconds_left(self, blocks: np.ndarray) -> float | None:
        """Until all blocks are done, as fast as so far; None before the first one is done."""
        left = int((blocks != DONE).sum())
        if left == 0:
            return 0.0
        return self.seconds / self.blocks * left if self.blocks > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 3), "cells": self.cells, "blocks": self.blocks}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Work:
        return Work(
            float(stored.get("seconds", 0)),
            int(stored.get("cells", 0)),
            int(stored.get("blocks", 0)),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """All of a session that is kept.

    Attributes:
      origin: the part of the image file that is labelled.
      grid: the blocks.
      state: dots and blocks as they are.
      work: time spent, and its result.
      place: the middle of the view, `(D,)` voxels.
      radius: of a cell, in the origin's unit.
      radius_from: `GIVEN` by the user, `MEASURED` in the image or `ASSUMED`, see `data.blocks`.
      next_id: id of the next new dot.
    """

    origin: Origin
    grid: Grid
    state: State
    work: Work
    place: tuple[float, ...]
    radius: float
    radius_from: str
    next_id: int

    def beside_state(self) -> dict[str, Any]:
        """What is stored of it beside origin, dots and blocks, for JSON."""
        return {
            "work": self.work.to_json(),
            "place": self.place,
            "radius": self.radius,
            "radius_from": self.radius_from,
        }


def new_content(origin: Origin, shape: tuple[int, ...], block: Sequence[int] | None) -> Content:
    """The content of a session of an image that has no labels.

    Args:
      origin: the part of the image file.
      shape: `(D,)` voxels of the image.
      block: `(D,)` voxels of a block; default about a cube.

    Raises:
      InputError: a block that is no size.
    """
    edges = origin.edges(len(shape))
    grid = Grid(shape, tuple(block or _default_block(shape, edges)))
    return Content(
        origin,
        grid,
        State(no_dots(len(shape)), np.full(grid.counts, TO_DO, np.uint8)),
        Work(),
        tuple((n - 1) // 2 for n in shape),
        ASSUMED_EDGES * float(edges.min()),
        ASSUMED,
        0,
    )


def with_radius(
    content: Content, radius: float | None, read: Callable[[Region], np.ndarray] | None = None
) -> Content:
    """Content with the radius of a cell that was given, or measured where none is known.

    Args:
      content: without labels, or as it was kept.
      radius: that was given; None where none was.
      read: the intensities of a part of the image, to measure in.

    Raises:
      InputError: a radius that is not positive and finite.
    """
    if radius is not None:
        content = dataclasses.replace(content, radius=radius, radius_from=GIVEN)
    elif content.radius_from == ASSUMED and read is not None:
        shape = content.grid.shape
        diameter = measure_diameter(read, shape, content.origin.edges(len(shape)).tolist())
        if diameter is not None:
            found = float(f"{diameter / 2:.3g}")
            content = dataclasses.replace(content, radius=found, radius_from=MEASURED)
    if not 0 < content.radius < math.inf:
        unit = content.origin.unit
        raise InputError(f"radius {content.radius}: a positive number of {unit} is needed.")
    return content


def stored_size(about: Mapping[str, Any], fresh: Content) -> tuple[float, str]:
    """The radius of a cell that was stored, or the fresh content's, and where it is from."""
    radius = cell_radius(about, fresh.origin.spacing)
    return (fresh.radius, fresh.radius_from) if radius is None else (radius, radius_origin(about))


def stored_place(about: Mapping[str, Any], fresh: Content) -> tuple[float, ...]:
    """The middle of the view that was stored, or the fresh content's."""
    stored = about.get("place")
    if not isinstance(stored, list) or len(stored) != len(fresh.place):
        return fresh.place
    return tuple(map(float, stored))


def check_fits(path: Path, about: Mapping[str, Any], shape: tuple[int, ...], new: Content) -> None:
    """Refuses labels of another image than `new`'s, another part or other axes.

    Raises:
      InputError: `shape`, or what `about` has of `scene`, `time`, `level` and `axes`, are others.
    """
    if (axes := about.get("axes", new.origin.axes)) != new.origin.axes:
        raise InputError(
            f"{path}: was labelled with {option_text(axes)}, but the image was opened with"
            f" {option_text(new.origin.axes)}; open it as before."
        )
    for key, name in (("scene", "scene"), ("time", "time point"), ("level", "level")):
        now = getattr(new.origin, key)
        if about.get(key, now) != now:
            raise InputError(
                f"{path}: is of {name} {about[key]}, but the image was opened at {name} {now};"
                f" open it with --{key} {about[key]}, or save {name} {now} as an image of its own"
                " to label that."
            )
    if shape != new.grid.shape:
        raise InputError(
            f"{path}: is of an image of {size_text(shape)} voxels, but the image has"
            f" {size_text(new.grid.shape)}; move it away, or open the image at the level that it"
            " was made with."
        )


def opening_notes(content: Content, block: Sequence[int] | None) -> Iterator[str]:
    """A note where the block size that was given is not used."""
    if block is not None and tuple(block) != content.grid.block:
        yield (
            f"The image is labelled in blocks of {size_text(content.grid.block)} voxels, and they"
            f" are kept: {size_text(block)} (--block) is not used."
        )


def _default_block(shape: Sequence[int], edges: np.ndarray) -> tuple[int, ...]:
    """About a cube, and no larger than the image."""
    size = _BLOCK_EDGES[len(shape)] * edges.min() / edges
    return tuple(int(min(n, max(1, round(s)))) for n, s in zip(shape, size, strict=True))
