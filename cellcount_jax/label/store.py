"""Where a session is kept: the journal while it is open, the CSV file and the progress when saved.

The journal begins with all that there was before its first act, and so needs no other file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.data.progress import DONE, Grid, Progress, read_progress, write_progress
from cellcount_jax.errors import InputError
from cellcount_jax.label import files, journal
from cellcount_jax.label.acts import State
from cellcount_jax.label.dots import dots_from_json, dots_to_json
from cellcount_jax.label.journal import Record
from cellcount_jax.label.work import Work


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """All of a session that is kept.

    Attributes:
      grid: the blocks.
      state: dots and blocks as they are.
      work: time spent, and what came of it.
      place: where the view is, `(D,)` voxels.
      radius: of a cell, in the session's unit.
      next_id: of the next dot.
    """

    grid: Grid
    state: State
    work: Work
    place: tuple[float, ...]
    radius: float
    next_id: int


class Store:
    """The files of an image's labels; one process at a time has them, see `journal.locked`."""

    def __init__(self, paths: files.Files) -> None:
        self._paths = paths
        self._journal: journal.Journal | None = None
        self._csv = files.digest(paths.points)  # that the journal goes on from
        self._foreign = False  # whether the CSV file is another program's

    @property
    def points(self) -> Path:
        """The CSV file."""
        return self._paths.points

    def load(self, fresh: Content) -> tuple[Content, list[Record]]:
        """What was kept, and the acts after it of a session that was killed.

        Args:
          fresh: of an image without labels; gives what was not kept.

        Raises:
          InputError: damaged files, or of another image; a CSV file that another program changed
            while there are acts that were not saved.
        """
        if self._paths.journal.exists():
            return self._recovered(fresh)
        grid, work, place, radius = fresh.grid, fresh.work, fresh.place, fresh.radius
        states, proposed = fresh.state.blocks, fresh.state.proposed
        if self._paths.progress.exists():
            progress = read_progress(self._paths.progress)
            _check_shape(progress.grid.shape, fresh.grid.shape, self._paths.progress)
            grid, states, about = progress.grid, progress.states, progress.about
            proposed = tuple(about.get("proposals", ()))
            work = Work.from_json(about.get("work", {}))
            place, radius = _place(about.get("place"), place), about.get("radius", radius)
        elif self._csv is not None:
            # Dots without a word on where they are complete are complete, to training as well.
            self._foreign = True
            states = np.full(grid.counts, DONE, np.uint8)
        dots = fresh.state.dots
        if self._csv is not None:
            dots = files.read_dots(self._paths.points, grid.shape)
        return Content(grid, State(dots, states, proposed), work, place, radius, len(dots)), []

    def append(self, record: Record, before: Content) -> None:
        """Keeps an act, after what there was before the first one; all or nothing.

        Raises:
          OSError: it could not be written; what is kept is as before.
        """
        if self._journal is None:
            self._journal = journal.start(self._paths.journal, self._first(before))
        self._journal.append(record)

    def save(self, content: Content, about: Mapping[str, Any]) -> None:
        """Writes the CSV file and the progress, each as a whole; a CSV file of another program is
        copied first.

        Args:
          content: all of it.
          about: what else the progress says, for JSON.
        """
        dots = content.state.dots
        table = files.as_csv(dots)
        mark = files.digest_of(table)
        if self._foreign:
            files.keep_original(self._paths.points)
            self._foreign = False
        if self._journal is not None:
            # First: so that a kill between the files is no change by another program.
            self._journal.append({"saved": mark})
        files.write(self._paths.points, table)
        self._csv = mark
        told = {
            **about,
            "dots": {
                "sha256": mark,
                "verified": int(dots.verified.sum()),
                "proposed": int((~dots.verified).sum()),
            },
            "proposals": list(content.state.proposed),
            "work": content.work.to_json(),
            "place": content.place,
            "radius": content.radius,
        }
        write_progress(self._paths.progress, Progress(content.grid, content.state.blocks, told))

    @property
    def unsaved(self) -> bool:
        """Whether there were acts since the session was opened."""
        return self._journal is not None

    def close(self) -> None:
        """Removes the journal, once all is saved."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
            self._paths.journal.unlink(missing_ok=True)

    def _first(self, content: Content) -> Record:
        return {
            "shape": content.grid.shape,
            "block": content.grid.block,
            "csv": self._csv,
            "foreign": self._foreign,
            "dots": dots_to_json(content.state.dots),
            "blocks": content.state.blocks.ravel().tolist(),
            "proposed": list(content.state.proposed),
            "work": content.work.to_json(),
            "place": content.place,
            "radius": content.radius,
            "next_id": content.next_id,
        }

    def _recovered(self, fresh: Content) -> tuple[Content, list[Record]]:
        path = self._paths.journal
        (first, *records), length = journal.read(path)
        _check_shape(tuple(first["shape"]), fresh.grid.shape, path)
        grid = Grid(tuple(first["shape"]), tuple(first["block"]))
        states = np.asarray(first["blocks"], np.uint8).reshape(grid.counts)
        dots = dots_from_json(first["dots"], len(grid.shape))
        saved = [record["saved"] for record in records if "saved" in record]
        if self._csv not in [first["csv"], *saved]:
            raise InputError(
                f"{self._paths.points}: was {'changed' if self._csv else 'removed'} by another"
                f" program while {path.name} holds acts that were not saved; move one of the two"
                " away."
            )
        self._foreign = first["foreign"] and not saved
        self._journal = journal.Journal(path, length)
        content = Content(
            grid,
            State(dots, states, tuple(first["proposed"])),
            Work.from_json(first["work"]),
            tuple(first["place"]),
            first["radius"],
            first["next_id"],
        )
        return content, [record for record in records if "saved" not in record]


def _place(stored: Any, fresh: tuple[float, ...]) -> tuple[float, ...]:
    fits = isinstance(stored, list) and len(stored) == len(fresh)
    return tuple(map(float, stored)) if fits else fresh


def _check_shape(shape: tuple[int, ...], wanted: tuple[int, ...], path: Path) -> None:
    if shape != wanted:
        raise InputError(
            f"{path}: is of an image of {'x'.join(map(str, shape))} voxels, but the image has"
            f" {'x'.join(map(str, wanted))}; move it away, or open the image at the level that it"
            " was made with."
        )
