"""Where a session is kept: the journal while it is open, the CSV file and the progress when saved.

The journal begins with all that there was before its first act, and so needs no other file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from cellcount_jax.data.blocks import (
    DONE,
    BlockStates,
    Grid,
    cell_radius,
    read_block_states,
    write_block_states,
)
from cellcount_jax.errors import InputError
from cellcount_jax.label import files, journal
from cellcount_jax.label.acts import State
from cellcount_jax.label.content import Content, Origin, Work
from cellcount_jax.label.dots import dots_from_json, dots_to_json
from cellcount_jax.label.journal import Record


class Store:
    """The files of an image's labels; one process at a time has them, see `journal.locked`.

    Attributes:
      notes: what the user should know of the files that were loaded, a sentence each.
    """

    def __init__(self, paths: files.Files) -> None:
        self.notes: list[str] = []
        self._paths = paths
        self._journal: journal.Journal | None = None
        self._all_saved = False  # of what is in the journal
        self._csv = files.digest(paths.points)  # that the journal goes on from
        self._foreign = False  # whether the CSV file is another program's

    @property
    def points(self) -> Path:
        """The CSV file."""
        return self._paths.points

    def spacing(self, ndim: int) -> tuple[float, ...] | None:
        """The voxel edges with which the image was labelled, in micrometres; None = unknown.

        Raises:
          InputError: damaged files.
        """
        if self._paths.journal.exists():
            stored = journal.read(self._paths.journal)[0][0].get("origin", {})
        elif self._paths.progress.exists():
            stored = read_block_states(self._paths.progress).about
        else:
            return None
        found = stored.get("spacing")
        # Of another number of axes: labels of another image, which `load` refuses.
        return tuple(map(float, found)) if found and len(found) == ndim else None

    def load(self, fresh: Content) -> tuple[Content, list[Record]]:
        """What was kept, and the acts after it of a session that was killed.

        Args:
          fresh: of an image without labels; gives what was not kept.

        Raises:
          InputError: damaged files, or of another image; no CSV file where blocks are done; one
            that another program changed while there are acts that were not saved.
        """
        if self._paths.journal.exists():
            recovered = self._recovered(fresh)
            if recovered is not None:
                return recovered
        kept = self._saved(fresh)
        self._paths.journal.unlink(missing_ok=True)  # all of it was saved
        return kept, []

    def append(self, record: Record, before: Content) -> None:
        """Keeps an act, after what there was before the first one; all or nothing.

        Raises:
          OSError: it could not be written; what is kept is as before.
        """
        if self._journal is None:
            self._journal = journal.start(self._paths.journal, self._first(before))
        self._journal.append(record)
        self._all_saved = False

    def save(self, content: Content, about: Mapping[str, Any]) -> Path | None:
        """Writes the CSV file and the progress, each as a whole; a CSV file of another program is
        copied first.

        Args:
          content: all of it.
          about: what else the progress says, for JSON.

        Returns:
          The copy of a CSV file that another program changed since it was read or written here;
          None where none did.
        """
        dots = content.state.dots
        table = files.as_csv(dots)
        mark = files.digest_of(table)
        points, copy = self._paths.points, None
        found = files.digest(points)
        if found not in (None, mark) and (self._foreign or found != self._csv):
            kept = files.keep_copy(points)
            if found != self._csv:
                copy = kept
                logging.warning(
                    "%s: was changed by another program while it was open here; what it held is"
                    " kept in %s",
                    points,
                    copy.name,
                )
        self._foreign = False
        if self._journal is not None:
            # First: so that a kill between the files is no change by another program.
            self._journal.append({"saved": mark})
        files.write(points, table)
        self._csv = mark
        told = {
            **about,
            **content.origin.to_json(),
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
        write_block_states(
            self._paths.progress, BlockStates(content.grid, content.state.blocks, told)
        )
        if self._journal is not None:
            # Without this the acts count as not saved, which is told where it matters.
            with contextlib.suppress(OSError):
                self._journal.append({"written": mark})
        self._all_saved = True
        return copy

    @property
    def unsaved(self) -> bool:
        """Whether there is something to save on closing: acts, and the place.

        Not where all acts are saved and another program changed the CSV file since: that is what
        the next session goes on from.
        """
        if self._journal is None:
            return False
        return not self._all_saved or files.digest(self.points) in (None, self._csv)

    def close(self) -> None:
        """Removes the journal, once all is saved."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
            self._paths.journal.unlink(missing_ok=True)

    def _saved(self, fresh: Content) -> Content:
        """What the CSV file and the progress hold."""
        grid, work, place, radius = fresh.grid, fresh.work, fresh.place, fresh.radius
        states, proposed = fresh.state.blocks, fresh.state.proposed
        if self._paths.progress.exists():
            progress = read_block_states(self._paths.progress)
            _check_origin(progress.about, fresh.origin, self._paths.progress)
            _check_shape(progress.grid.shape, fresh.grid.shape, self._paths.progress)
            grid, states, about = progress.grid, progress.states, progress.about
            proposed = tuple(about.get("proposals", ()))
            work = Work.from_json(about.get("work", {}))
            place = _place(about.get("place"), place)
            radius = cell_radius(about, fresh.origin.spacing) or radius
            self._compare(progress)
        elif self._csv is not None:
            # Dots without a word on where they are complete are complete, to training as well.
            self._foreign = True
            states = np.full(grid.counts, DONE, np.uint8)
        dots = fresh.state.dots
        if self._csv is not None:
            dots = files.read_dots(self._paths.points, grid.shape)
        state = State(dots, states, proposed)
        return Content(fresh.origin, grid, state, work, place, radius, len(dots))

    def _compare(self, progress: BlockStates) -> None:
        """Whether the CSV file is the one that was saved with the progress."""
        points, wanted = self._paths.points, progress.about.get("dots", {}).get("sha256")
        if self._csv is None:
            if (progress.states == DONE).any():  # they would be background
                raise InputError(
                    f"{self._paths.progress}: says that blocks are done, but there is no"
                    f" {points.name}; put the dots back, or move the file away to begin without"
                    " dots."
                )
            if wanted is not None:
                self.notes.append(
                    f"{points.name} is gone, and so there are no dots; to have them back close the"
                    " window and put the file back."
                )
        elif wanted not in (None, self._csv):
            self._foreign = True
            self.notes.append(
                f"{points.name} was changed by another program: the dots are those of the file, and"
                " blocks that are done stay done; look them over."
            )

    def _first(self, content: Content) -> Record:
        return {
            "origin": content.origin.to_json(),
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

    def _recovered(self, fresh: Content) -> tuple[Content, list[Record]] | None:
        """What the journal holds; None where all of it was saved and the CSV file changed since."""
        path = self._paths.journal
        (first, *records), length = journal.read(path)
        _check_origin(first.get("origin", {}), fresh.origin, path)
        _check_shape(tuple(first["shape"]), fresh.grid.shape, path)
        grid = Grid(tuple(first["shape"]), tuple(first["block"]))
        states = np.asarray(first["blocks"], np.uint8).reshape(grid.counts)
        dots = dots_from_json(first["dots"], len(grid.shape))
        saved = [record["saved"] for record in records if "saved" in record]
        all_saved = bool(records) and "written" in records[-1]
        if self._csv not in [first["csv"], *saved]:
            if all_saved:
                return None
            raise InputError(
                f"{self._paths.points}: was {'changed' if self._csv else 'removed'} by another"
                f" program while {path.name} holds acts that were not saved; move one of the two"
                " away."
            )
        self._foreign = first["foreign"] and not saved
        self._journal = journal.Journal(path, length)
        self._all_saved = all_saved
        radius = {**first.get("origin", {}), "radius": first["radius"]}
        content = Content(
            fresh.origin,
            grid,
            State(dots, states, tuple(first["proposed"])),
            Work.from_json(first["work"]),
            tuple(first["place"]),
            cell_radius(radius, fresh.origin.spacing) or fresh.radius,
            first["next_id"],
        )
        return content, [r for r in records if "saved" not in r and "written" not in r]


def _place(stored: Any, fresh: tuple[float, ...]) -> tuple[float, ...]:
    fits = isinstance(stored, list) and len(stored) == len(fresh)
    return tuple(map(float, stored)) if fits else fresh


def _check_origin(stored: Mapping[str, Any], wanted: Origin, path: Path) -> None:
    """Files of before do not say of what they are."""
    for key, what in (("time", "time point"), ("level", "level")):
        now = getattr(wanted, key)
        if stored.get(key, now) != now:
            raise InputError(
                f"{path}: is of {what} {stored[key]}, but the image was opened at {what} {now};"
                f" open it with --{key} {stored[key]}, or save {what} {now} as an image of its own"
                " to label that."
            )


def _check_shape(shape: tuple[int, ...], wanted: tuple[int, ...], path: Path) -> None:
    if shape != wanted:
        raise InputError(
            f"{path}: is of an image of {'x'.join(map(str, shape))} voxels, but the image has"
            f" {'x'.join(map(str, wanted))}; move it away, or open the image at the level that it"
            " was made with."
        )
