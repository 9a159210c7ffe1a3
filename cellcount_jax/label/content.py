"""What is kept of a session, and of what part of an image file it is."""

from __future__ import annotations

import dataclasses
from typing import Any

from cellcount_jax.data.progress import Grid
from cellcount_jax.label.acts import State
from cellcount_jax.label.work import Work


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
