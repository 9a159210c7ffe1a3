"""A session of labelling: an open image, acts on its dots and blocks, and its files.

Every act is in a journal on the disk before it counts, so that a kill loses nothing; `save` writes
the CSV file that training reads. No module here depends on how a session is shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.data.blocks import Grid
from cellcount_jax.errors import InputError
from cellcount_jax.images.point_units import DotUnit
from cellcount_jax.images.regions import Region, voxels_of
from cellcount_jax.images.selection import WHOLE_FILE, Selection
from cellcount_jax.images.sources import open_source
from cellcount_jax.images.zarr_stores import Remote, as_path
from cellcount_jax.label import acts, files, journal
from cellcount_jax.label.acts import Act, State
from cellcount_jax.label.blobs import local_maximum
from cellcount_jax.label.content import Origin, Work, new_content, opening_notes, with_radius
from cellcount_jax.label.dots import Dots, as_stored, make_dots
from cellcount_jax.label.history import History
from cellcount_jax.label.store import Store


class Session:
    """An image that is being labelled. A context manager.

    Attributes:
      source: the open image; where its file has no voxel size, with the one it was labelled with.
      points_unit: that was given for dots of other programs, see `DotUnit`.
      history: the acts so far, and the content that they lead to.
      unit: of lengths: um, or px where the voxel size is unknown.
      edges: `(D,)` voxel edges in `unit`.
      recovered: how many acts of a session that was killed were found in the journal.
      notes: what the user should know on opening, a sentence each.
    """

    def __init__(
        self,
        path: Path,
        selection: Selection = WHOLE_FILE,
        *,
        block: Sequence[int] | None = None,
        radius: float | None = None,
        points_unit: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Opens an image and goes on where it was left.

        Args:
          path: an image or volume, see `open_source`.
          selection: the part of it to label; of all channels the mean is shown. The default voxel
            size is the file's, or the one that it was labelled with.
          block: `(D,)` voxels of a block, for an image that is not labelled yet; default about
            128 x 128, or 64 x 64 x 64 of the finest edge.
          radius: of a cell, in `unit`; default what it was, or as `measure_diameter` has it.
          points_unit: of dots of other programs, see `DotUnit`.
          now: the clock, in seconds.

        Raises:
          InputError: an image, CSV file or journal that cannot be used; another window has it.
        """
        self._now = now
        if isinstance(as_path(path), Remote):
            raise InputError(f"{as_path(path)}: labels lie beside their image; download it.")
        self.points_unit = points_unit
        with contextlib.ExitStack() as stack:
            self.source = stack.enter_context(open_source(path, selection))
            paths = files.Files(Path(path), self.source.name)
            stack.enter_context(journal.locked(paths.lock, str(path)))
            shape = tuple(self.source.shape)
            self._store = Store(paths, DotUnit(points_unit))
            self.source = self._store.with_spacing(self.source)
            origin = Origin.of(self.source.spacing, selection)
            self.unit, self.edges = origin.unit, origin.edges(len(shape))
            kept, records = self._store.load(new_content(origin, shape, block), self.source)
            self.history = History(kept)
            for record in records:
                self.history.follow(record)
            self.history.content = with_radius(self.history.content, radius, self.intensities)
            self.recovered = len(records)
            self.notes = (*self._store.notes, *opening_notes(kept, block))
            self._stack = stack.pop_all()

    # Reading

    @property
    def grid(self) -> Grid:
        """The blocks of the image."""
        return self.history.content.grid

    @property
    def state(self) -> State:
        """Dots and blocks as they are."""
        return self.history.content.state

    @property
    def dots(self) -> Dots:
        return self.state.dots

    @property
    def work(self) -> Work:
        """Time spent, and the cells and blocks that it gave."""
        return self.history.content.work

    @property
    def radius(self) -> float:
        """The radius of a cell, in `unit`."""
        return self.history.content.radius

    @property
    def place(self) -> tuple[float, ...]:
        """The middle of the view, `(D,)` voxels; kept with the next act."""
        return self.history.content.place

    @place.setter
    def place(self, place: tuple[float, ...]) -> None:
        self.history.content = dataclasses.replace(self.history.content, place=place)

    @property
    def saved_to(self) -> Path:
        """The CSV file."""
        return self._store.points

    def intensities(self, region: Region) -> np.ndarray:
        """`(*region)` float32 of the image, the mean of its channels."""
        mean: np.ndarray = self.source.read(region).mean(-1)
        return mean

    # Acts

    def add(self, point: Sequence[float] | np.ndarray, *, snap: bool = False) -> int:
        """Places a dot, or with `snap` one at the brightest place within the radius.

        Returns:
          Its id.

        Raises:
          InputError: outside the image, or with `snap` within a voxel of a dot.
        """
        placed = self._inside(point)
        if snap:
            placed = self._brightest(placed, self.dots.points)
        new = self._new(placed[None], verified=True)
        self._act(acts.place(self.grid, self.state, new, what="add"))
        return int(new.ids[0])

    def remove(self, ids: Sequence[int] | np.ndarray) -> None:
        """Takes dots away."""
        self._act(acts.remove(self.grid, self.state, ids))

    def move(self, dot: int, point: Sequence[float] | np.ndarray) -> None:
        """Puts a dot elsewhere, verified.

        Raises:
          InputError: outside the image.
        """
        self._act(acts.move(self.grid, self.state, dot, self._inside(point), what="move"))

    def snap(self, dot: int) -> None:
        """Moves a dot to the brightest place within the radius, verified.

        Raises:
          InputError: another dot is within a voxel of that place.
        """
        row = self.dots.rows([dot])[0]
        others = np.delete(self.dots.points, row, axis=0)
        found = self._brightest(self.dots.points[row], others)
        self._act(acts.move(self.grid, self.state, dot, found, what="snap"))

    def accept(self, ids: Sequence[int] | np.ndarray) -> None:
        """Verifies dots as they are."""
        self._act(acts.accept(self.grid, self.state, ids))

    def mark(self, indices: Sequence[Sequence[int]] | np.ndarray, state: int) -> None:
        """Brings blocks `(B, D)` to a state; the dots in a block that is done are verified."""
        self._act(acts.mark(self.grid, self.state, np.asarray(indices), state))

    def propose(
        self,
        points: np.ndarray,
        scores: np.ndarray | None,
        *,
        by: Mapping[str, Any],
        region: Region | None = None,
    ) -> int:
        """Replaces the proposals that are there by others; what the user placed stays.

        Proposals in blocks that are done, and within the radius of verified dots, are left out.

        Args:
          points: `(N, D)` voxels.
          scores: `(N,)` how certain they are, or None.
          by: how they were made, for JSON.
          region: where they are replaced; default everywhere.

        Returns:
          How many were added.

        Raises:
          InputError: a point outside the image, and nothing is replaced.
        """
        points = as_stored(points, self.grid.shape, "proposals")
        act = acts.propose(
            self.grid,
            self.state,
            self._new(points, verified=False, scores=scores),
            by=by,
            region=region,
            apart=self.radius,
            edges=self.edges,
        )
        self._act(act)
        return len(act.added)

    def import_points(self, points: np.ndarray, *, name: str) -> int:
        """Adds dots of another program, verified, but those within a voxel of one that is there.

        Args:
          points: `(N, D)` voxels.
          name: of the file, for errors.

        Returns:
          How many were added.

        Raises:
          InputError: a point outside the image, and none is added.
        """
        points = acts.apart_from(self.dots, as_stored(points, self.grid.shape, name))
        new = self._new(points, verified=True)
        self._act(acts.place(self.grid, self.state, new, what="import"))
        return len(points)

    def resize(self, radius: float) -> None:
        """Says how large a cell is: its radius in `unit`.

        Raises:
          InputError: it is not positive and finite.
        """
        self._record({"radius": with_radius(self.history.content, radius).radius})

    def undo(self) -> str | None:
        """Takes the last act back, and returns its name."""
        return self._record({"undo": True}) if self.history.done else None

    def redo(self) -> str | None:
        """Does the act again that was taken back last, and returns its name."""
        return self._record({"redo": True}) if self.history.undone else None

    # Files

    def save(self) -> Path | None:
        """Writes the CSV file and the label file, each as a whole.

        Returns:
          The copy that was made of the CSV file where another program had changed it since it was
          read or written here; else None.
        """
        return self._store.save(self.history.content, self.source.path.name)

    def close(self) -> None:
        """Saves where something was done, and frees the image."""
        try:
            if self._store.unsaved:
                self.save()
            self._store.remove_journal()
        finally:  # acts that could not be saved are in the journal, for the next session
            self.abandon()

    def abandon(self) -> None:
        """Frees the image without saving: the next session goes on from the journal."""
        self._store.close()
        self._stack.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Inside

    def _act(self, act: Act) -> None:
        # One that changes nothing would be undone without a visible effect.
        if len(act.removed) or len(act.added) or len(act.blocks) or act.proposed is not None:
            self._record({"act": acts.act_to_json(act)})

    def _record(self, step: Mapping[str, Any]) -> str:
        """Takes a step, in the journal first and then in memory."""
        record = {**step, "time": round(self._now(), 3), "place": self.place}
        self._store.append(record, self.history.content)
        return self.history.follow(record)

    def _new(self, points: np.ndarray, *, verified: bool, scores: np.ndarray | None = None) -> Dots:
        first_id = self.history.content.next_id
        return make_dots(points, first_id=first_id, verified=verified, scores=scores)

    def _inside(self, point: Sequence[float] | np.ndarray) -> np.ndarray:
        """`(D,)` voxels of a point as it is stored."""
        placed: np.ndarray = as_stored(np.asarray(point), self.grid.shape, self.source.path)[0]
        return placed

    def _brightest(self, point: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """`(D,)` voxels: the brightest place near a point, where no dot of `taken` `(N, D)` is."""
        reach = np.maximum(1, np.floor(self.radius / self.edges)).astype(int)
        found = self._inside(local_maximum(self.intensities, self.grid.shape, point, reach))
        if (np.square(taken - found).sum(1) <= 1).any():
            where = ", ".join(map(str, voxels_of(found)))
            raise InputError(f"There is a dot at the brightest place already, voxel {where}.")
        return found
