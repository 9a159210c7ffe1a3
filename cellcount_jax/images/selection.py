"""The part of an image file that is used, on the command line and in JSON files."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Selection:
    """The part of an image file that is used, and the voxel size that is taken for it.

    Attributes:
      channel: number or name of one channel; None = all. A text of digits is a number unless a
        channel has that name.
      time: the time point, from 0; needed where there are several.
      level: of a pyramid; 0 is the finest.
      spacing: `(D,)` voxel edges in micrometres that replace those of the file; None = the file's.
    """

    channel: int | str | None = None
    time: int | None = None
    level: int = 0
    spacing: tuple[float, ...] | None = None

    @classmethod
    def from_arguments(cls, options: argparse.Namespace) -> Selection:
        """The selection of a command line, from the arguments of `inputs.add_source`."""
        return cls(options.channel, options.time, options.level, options.spacing)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Selection:
        """The selection that `to_json` gave."""
        spacing = stored["spacing"]
        return cls(**{**stored, "spacing": None if spacing is None else tuple(spacing)})

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return dataclasses.asdict(self)

    @property
    def part(self) -> dict[str, Any]:
        """Channel, time point and level by their names, without the voxel size."""
        return {"channel": self.channel, "time": self.time, "level": self.level}


WHOLE_FILE = Selection()
