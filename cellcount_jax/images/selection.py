"""The part of an image file that is used, on the command line and in JSON files."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellcount_jax.errors import InputError
from cellcount_jax.images.stored import number_of
from cellcount_jax.images.voxel_size import shortest


@dataclasses.dataclass(frozen=True)
class Selection:
    """The part of an image file that is used, and the voxel size that is taken for it.

    Attributes:
      channel: number or name of one channel; None = all. A text of digits is a number unless a
        channel has that name.
      time: the time point, from 0; needed where there are several.
      level: of a pyramid; 0 is the finest.
      spacing: `(D,)` voxel edges in micrometres that replace those of the file; None = the file's.
      scene: number or name of one of several images in the file, see `stored.choose_scene`;
        needed where there are several.
      axes: a letter of T, C, Z, Y, X an axis of the file, in place of its own; None = the file's.
    """

    channel: int | str | None = None
    time: int | None = None
    level: int = 0
    spacing: tuple[float, ...] | None = None
    scene: int | str | None = None
    axes: str | None = None

    @classmethod
    def from_arguments(cls, options: argparse.Namespace) -> Selection:
        """The selection of a command line, from the arguments of `inputs.add_source`."""
        part = (options.channel, options.time, options.level, options.spacing, options.scene)
        return cls(*part, axes=options.axes)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Selection:
        """The selection that `to_json` gave."""
        spacing = stored["spacing"]
        return cls(**{**stored, "spacing": None if spacing is None else tuple(spacing)})

    def channel_of(self, count: int, names: Sequence[str], path: Path) -> int | None:
        """The number of the channel in a file that has `count`, with or without names; None = all.

        Raises:
          InputError: there is no such channel, or there are several of the name.
        """
        if self.channel is None:
            return None
        return number_of(self.channel, names or [""] * count, "channel", path)

    def time_of(self, points: int, path: Path, *, remedy: str = "") -> int:
        """The number of the time point in a file that has `points` of them.

        Args:
          points: how many.
          path: the file, for errors.
          remedy: another one than choosing, for errors.

        Raises:
          InputError: there is no such time point, or none is selected of several.
        """
        if self.time is None and points > 1:
            raise InputError(
                f"{path}: holds {points} time points; choose one with --time (0 to {points - 1}),"
                f" for training with --set data.time=.{f' Or give {remedy}.' if remedy else ''}"
            )
        if self.time is not None and not 0 <= self.time < points:
            allowed = "0 alone" if points == 1 else f"0 to {points - 1}"
            raise InputError(
                f"{path}: time point {self.time} is not there; it has {points}, so {allowed} can be"
                " chosen."
            )
        return self.time or 0

    def spacing_of(self, stored: tuple[float, ...], path: Path) -> tuple[float, ...] | None:
        """The `(D,)` voxel edges in micrometres: those given, else the file's if all are known.

        Args:
          stored: `(D,)` of the file; NaN where it is not known.
          path: the file, for errors.

        Raises:
          InputError: the edges that were given are not positive, or not D.
        """
        edges = stored if self.spacing is None else self.spacing
        if len(edges) == len(stored) and all(0 < edge < math.inf for edge in edges):
            return tuple(map(shortest if self.spacing is None else float, edges))
        if self.spacing is None:
            return None
        raise InputError(
            f"{path}: spacing {self.spacing}; {len(stored)} positive voxel edges in micrometres are"
            f" needed ({', '.join('zyx'[-len(stored) :])})."
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return dataclasses.asdict(self)

    @property
    def part(self) -> dict[str, Any]:
        """Scene, channel, time point and level by their names, without the voxel size."""
        part = ("scene", "channel", "time", "level")
        return {name: getattr(self, name) for name in part}


WHOLE_FILE = Selection()
