"""The files of a session: the journal while it is open, the CSV file and the label file when saved.

The journal begins with the content before its first act, and so needs no other file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from cellcount_jax.data.blocks import (
    DONE,
    BlockStates,
    Grid,
    read_block_states,
    write_block_states,
)
from cellcount_jax.data.entries import entry_of
from cellcount_jax.data.entry_content import foreign_dots
from cellcount_jax.errors import InputError
from cellcount_jax.images.dot_files import is_foreign
from cellcount_jax.images.point_units import UNKNOWN_UNIT, DotUnit
from cellcount_jax.images.sources import Source
from cellcount_jax.label import files, journal
from cellcount_jax.label.acts import State
from cellcount_jax.label.content import Content, Work, check_fits, stored_place, stored_size
from cellcount_jax.label.dots import as_stored, dots_from_json, dots_to_json, make_dots
from cellcount_jax.label.journal import Record


class Store:
    """The files of an image's labels, for one process at a time, see `journal.locked`.

    Attributes:
      notes: what the user should know of the files that were loaded, a sentence each.
    """

    def __init__(self, paths: files.Files, known: DotUnit = UNKNOWN_UNIT) -> None:
        self.notes: list[str] = []
        self._paths = paths
        self._known = known
        self._journal: journal.Journal | None = None
        self._all_saved = False  # whether the other files hold all acts of the journal
        self._csv = files.digest(paths.points)  # of the file that the journal goes on from
        self._foreign = False  # whether the CSV file is another program's

    @property
    def points(self) -> Path:
        """The CSV file."""
        return self._paths.points

    def with_spacing(self, source: Source) -> Source:
        """The source with the voxel size that it was labelled with, where it has none of its own.

        Raises:
          InputError: damaged files.
        """
        if source.spacing is not None:
            return source
        stored: Mapping[str, Any] = {}
        if self._paths.journal.exists():
            stored = journal.read(self._paths.journal)[0][0].get("origin", {})
        elif self._paths.label_file.exists():
            stored = read_block_states(self._paths.label_file).about
        found = stored.get("spacing")
        # With another number of axes they are labels of another image, which `load` refuses.
        if not found or len(found) != len(source.shape):
            return source
        edges = tuple(map(float, found))
        return source.with_spacing(edges, "as labelled")

    def load(self, fresh: Content, source: Source) -> tuple[Content, list[Record]]:
        """The content that was kept, and the acts after it of a session that was killed.

        Args:
          fresh: of an image without labels, used where nothing was kept.
          source: the image.

        Raises:
          InputError: damaged files, or of another image; no CSV file where blocks are done; one
            that another program changed while there are acts that were not saved.
        """
        if self._paths.journal.exists():
            recovered = self._recovered(fresh)
            if recovered is not None:
                return recovered
        kept = self._saved(fresh, source)
        self._paths.journal.unlink(missing_ok=True)  # all of it was saved
        return kept, []

    def append(self, record: Record, before: Content) -> None:
        """Adds an act to the journal, all or nothing.

        Args:
          record: the act.
          before: the content before it, with which a new journal begins.

        Raises:
          OSError: it could not be written; the journal is as before.
        """
        if self._journal is None:
            self._journal = journal.start(self._paths.journal, self._first(before))
        self._journal.append(record)
        self._all_saved = False

    def save(self, content: Content, image: str) -> Path | None:
        """Writes the CSV file and the label file, each as a whole; copies another program's first.

        Args:
          content: all of it.
          image: the name of its file.

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
                    "%s: was changed by another program while it was open here; its dots are kept"
                    " in %s",
                    points,
                    copy.name,
                )
        self._foreign = False
        if self._journal is not None:
            # Before the file: a kill in between is then no change by another program.
            self._journal.append({"saved": mark})
        files.write(points, table)
        self._csv = mark
        about = {
            "software": f"cellcount_jax {importlib.metadata.version('cellcount_jax')}",
            "image": image,
            **content.origin.to_json(),
            "dots": {
                "sha256": mark,
                "verified": int(dots.verified.sum()),
                "proposed": int((~dots.verified).sum()),
            },
            "proposals": list(content.state.proposed),
            **content.beside_state(),
        }
        write_block_states(
            self._paths.label_file, BlockStates(content.grid, content.state.blocks, about)
        )
        if self._journal is not None:
            # Without this record the acts only count as not saved.
            with contextlib.suppress(OSError):
                self._journal.append({"written": mark})
        self._all_saved = True
        return copy

    @property
    def unsaved(self) -> bool:
        """Whether acts, or the place, are to be saved on closing.

        Not where all acts are saved and another program changed the CSV file since: the next
        session goes on from that file.
        """
        if self._journal is None:
            return False
        return not self._all_saved or files.digest(self.points) in (None, self._csv)

    def remove_journal(self) -> None:
        """Removes the journal that was written here, once all is saved."""
        if self._journal is not None:
            self.close()
            self._paths.journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the journal; it stays for the next session."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _saved(self, fresh: Content, source: Source) -> Content:
        """The content of the CSV file and the label file."""
        grid, work, place = fresh.grid, fresh.work, fresh.place
        size = fresh.radius, fresh.radius_from
        states, proposed = fresh.state.blocks, fresh.state.proposed
        if self._paths.label_file.exists():
            progress = read_block_states(self._paths.label_file)
            check_fits(self._paths.label_file, progress.about, progress.grid.shape, fresh)
            grid, states, about = progress.grid, progress.states, progress.about
            proposed = tuple(about.get("proposals", ()))
            work = Work.from_json(about.get("work", {}))
            place = stored_place(about, fresh)
            size = stored_size(about, fresh)
            self._compare(progress)
        elif self._csv is not None:
            # Without a label file dots are complete everywhere, in training as well.
            self._foreign = True
            states = np.full(grid.counts, DONE, np.uint8)
        dots = fresh.state.dots
        if self._csv is not None:
            ours = self._paths.label_file.exists()
            known = self._known.of_ours() if ours else self._known
            dots = files.read_dots(self._paths.points, grid.shape, fresh.origin.spacing, known)
        elif (path := entry_of(source.path).points) is not None and is_foreign(path):
            states = np.full(grid.counts, DONE, np.uint8)
            stored = as_stored(foreign_dots(path, source), grid.shape, path)
            dots = make_dots(stored, first_id=0, verified=True)
            self.notes.append(
                f"The dots are those of {path.name}; they will be saved to {self.points.name}."
            )
        state = State(dots, states, proposed)
        return Content(fresh.origin, grid, state, work, place, *size, len(dots))

    def _compare(self, progress: BlockStates) -> None:
        """Compares the CSV file with the one that was saved with the label file."""
        points, wanted = self._paths.points, progress.about.get("dots", {}).get("sha256")
        if self._csv is None:
            if (progress.states == DONE).any():  # they would be background
                raise InputError(
                    f"{self._paths.label_file}: marks blocks as done, but there is no"
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
            **content.beside_state(),
            "next_id": content.next_id,
        }

    def _recovered(self, fresh: Content) -> tuple[Content, list[Record]] | None:
        """The content of the journal; None where it was saved and the CSV file changed since."""
        path = self._paths.journal
        (first, *records), length = journal.read(path)
        shape = tuple(first["shape"])
        check_fits(path, first.get("origin", {}), shape, fresh)
        grid = Grid(shape, tuple(first["block"]))
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
        about = {key: first[key] for key in ("radius", "radius_from") if key in first}
        content = Content(
            fresh.origin,
            grid,
            State(dots, states, tuple(first["proposed"])),
            Work.from_json(first["work"]),
            tuple(first["place"]),
            *stored_size({**first.get("origin", {}), **about}, fresh),
            first["next_id"],
        )
        return content, [r for r in records if "saved" not in r and "written" not in r]
