"""What is kept of a session, and of what part of an image file it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cellcount_jax.data.blocks import DONE, Grid
from cellcount_jax.label.acts import State


@dataclasses.dataclass(frozen=True)
class Origin:
    """What of an image file is labelled.

    Attributes:
      spacing: `(D,)` voxel edges in micrometres; None where they are unknown.
      time: the time point; 0 where there is one alone.
      level: of a pyramid.
    """

    spacing: tuple[float, ...] | None
    time: int
    level: int

    @property
    def unit(self) -> str:
        """Of lengths: um, or px where the voxel size is unknown."""
        return "px" if self.spacing is None else "um"

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "unit": self.unit}


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """All of a session that is kept.

    Attributes:
      origin: what is labelled.
      grid: the blocks.
      state: dots and blocks as they are.
      work: time spent, and what came of it.
      place: where the view is, `(D,)` voxels.
      radius: of a cell, in the origin's unit.
      next_id: of the next dot.
    """

    origin: Origin
    grid: Grid
    state: State
    work: Work
    place: tuple[float, ...]
    radius: float
    next_id: int


_PAUSE = 60.0  # seconds without an act; longer ones are no work


@dataclasses.dataclass(frozen=True)
class Work:
    """Time and what came of it.

    Attributes:
      seconds: between acts, pauses left out.
      cells: that were placed or verified.
      blocks: that were brought to done.
      last: time of the last act; None at the beginning of a session.
    """

    seconds: float = 0.0
    cells: int = 0
    blocks: int = 0
    last: float | None = None

    def after(self, now: float, before: State, state: State) -> Work:
        """The work with one more act."""
        spent = 0.0 if self.last is None else min(max(now - self.last, 0.0), _PAUSE)
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
        """Cells a minute; None where nothing can be said yet."""
        return 60 * self.cells / self.seconds if self.seconds > 0 and self.cells > 0 else None

    def seconds_left(self, blocks: np.ndarray) -> float | None:
        """Until all blocks are done, as fast as so far; None where nothing can be said yet."""
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
