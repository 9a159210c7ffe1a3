"""A session of labelling: dots and blocks of an image, what is done to them, and its files.

Every act goes to a journal before it counts, so that a kill loses nothing; `save` writes the CSV
file that training reads. Nothing here knows how it is shown.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from scipy import spatial

from cellcount_jax.data.blocks import TO_DO, Grid
from cellcount_jax.errors import InputError
from cellcount_jax.images.selection import WHOLE_FILE, Selection
from cellcount_jax.images.sources import Source, open_source
from cellcount_jax.label import acts, files, journal
from cellcount_jax.label.acts import Act, State
from cellcount_jax.label.blobs import local_maximum
from cellcount_jax.label.content import Content, Origin, Work
from cellcount_jax.label.dots import Dots, as_stored, make_dots, no_dots
from cellcount_jax.label.store import Store

# Of the finest voxel edge: how near a click is a click on a dot, and a proposal the same cell.
_RADIUS = 5
_BLOCK = {2: 128, 3: 64}  # of the finest voxel edge


class Session:
    """An image that is being labelled. A context manager.

    Attributes:
      source: the open image.
      grid: its blocks.
      edges: `(D,)` voxel edges in `unit`: um, or px where the voxel size is unknown.
      radius: of a cell, in `unit`.
      state: dots and blocks as they are.
      work: time spent, cells and blocks that came of it.
      place: where the view is, `(D,)` voxels; kept with the next act.
      recovered: how many acts of a session that was killed were found again.
      notes: what the user should know on opening, a sentence each.
    """

    def __init__(
        self,
        path: Path,
        selection: Selection = WHOLE_FILE,
        *,
        block: Sequence[int] | None = None,
        radius: float | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Opens an image and goes on where it was left.

        Args:
          path: an image or volume, see `open_source`.
          selection: the part of it to label; of all channels the mean is shown. The default voxel
            size is the file's, or the one that it was labelled with.
          block: `(D,)` voxels of a block, for an image that is not labelled yet; default about
            128 x 128, or 64 x 64 x 64 of the finest edge.
          radius: of a cell in um (voxels where their size is unknown); default what it was, or 5
            finest edges.
          now: the clock, in seconds.

        Raises:
          InputError: an image, CSV file or journal that cannot be used; another window has it.
        """
        self._now = now
        self._done: list[Act] = []
        self._undone: list[Act] = []
        with contextlib.ExitStack() as stack:
            self.source: Source = stack.enter_context(open_source(path, selection))
            paths = files.Files(Path(path), self.source.name)
            stack.enter_context(journal.locked(paths.lock, str(path)))
            shape = tuple(self.source.shape)
            self._store = Store(paths)
            stored = self._store.spacing(len(shape))
            if self.source.spacing is None and stored is not None:
                # As it was given once; every length that was chosen since is in its unit.
                self.source = self.source.with_spacing(stored, "as labelled")
            self._origin = Origin(self.source.spacing, selection.time or 0, selection.level)
            self.unit = self._origin.unit
            self.edges = np.asarray(self.source.spacing or (1.0,) * len(shape))
            grid = Grid(shape, tuple(block or _block(shape, self.edges)))
            fresh = Content(
                self._origin,
                grid,
                State(no_dots(len(shape)), np.full(grid.counts, TO_DO, np.uint8)),
                Work(),
                tuple((n - 1) // 2 for n in shape),
                _RADIUS * float(self.edges.min()),
                0,
            )
            kept, records = self._store.load(fresh)
            self.grid, self.state, self.work = kept.grid, kept.state, kept.work
            self.place, self.radius, self._next_id = kept.place, kept.radius, kept.next_id
            for record in records:
                self._step(record)
            self.recovered = len(records)
            self.notes: tuple[str, ...] = (
                *self._store.notes,
                *_notes(self.grid.block, block),
            )
            if radius is not None:
                self.radius = radius
            if not 0 < self.radius < math.inf:
                raise InputError(
                    f"radius {self.radius}: a positive number of {self.unit} is needed."
                )
            self._stack = stack.pop_all()

    # Reading

    @property
    def dots(self) -> Dots:
        return self.state.dots

    @property
    def can_undo(self) -> str | None:
        """What `undo` would take back; None where there is nothing."""
        return self._done[-1].what if self._done else None

    @property
    def can_redo(self) -> str | None:
        """What `redo` would do again; None where there is nothing."""
        return self._undone[-1].what if self._undone else None

    @property
    def saved_to(self) -> Path:
        """The CSV file."""
        return self._store.points

    def nearest(
        self,
        point: Sequence[float] | np.ndarray,
        *,
        within: float | None = None,
        rows: np.ndarray | None = None,
        across: int | None = None,
    ) -> int | None:
        """The id of the dot nearest to a point, not further than `within` (the radius), or None.

        Args:
          point: `(D,)` voxels.
          within: in `unit`.
          rows: of `dots`, those that count.
          across: an axis along which distances do not count.
        """
        rows = np.arange(len(self.dots)) if rows is None else rows
        if not len(rows):
            return None
        apart = (self.dots.points[rows] - np.asarray(point)) * self.edges
        if across is not None:
            apart[:, across] = 0
        squared = np.square(apart).sum(1)
        first = int(np.argmin(squared))
        within = self.radius if within is None else within
        return int(self.dots.ids[rows[first]]) if squared[first] <= within**2 else None

    def intensities(self, region: tuple[slice, ...]) -> np.ndarray:
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
        """Puts a dot elsewhere; it is verified then.

        Raises:
          InputError: outside the image.
        """
        self._act(acts.move(self.grid, self.state, dot, self._inside(point), what="move"))

    def snap(self, dot: int) -> None:
        """Moves a dot to the brightest place within the radius; it is verified then.

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
        region: tuple[slice, ...] | None = None,
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
        points = self._placed(points, "proposals")
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
        points = self._placed(points, name)
        if len(self.dots) and len(points):
            apart, _ = spatial.cKDTree(self.dots.points).query(points)
            points = points[apart > 1]
        new = self._new(points, verified=True)
        self._act(acts.place(self.grid, self.state, new, what="import"))
        return len(points)

    def undo(self) -> str | None:
        """Takes the last act back; says what it was."""
        return self._record({"undo": True}) if self._done else None

    def redo(self) -> str | None:
        """Does again what was taken back last; says what it was."""
        return self._record({"redo": True}) if self._undone else None

    # Files

    def save(self) -> Path | None:
        """Writes the CSV file and the progress, each as a whole.

        Returns:
          Where another program changed the CSV file since it was read or written here: the copy
          that was made of it. Else None.
        """
        about = {
            "software": f"cellcount_jax {importlib.metadata.version('cellcount_jax')}",
            "image": self.source.path.name,
        }
        return self._store.save(self._content(), about)

    def close(self) -> None:
        """Saves where something was done, and frees the image."""
        try:
            if self._store.unsaved:
                self.save()
            self._store.close()
        finally:  # what could not be saved is in the journal, from which the next session goes on
            self._stack.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Inside

    def _act(self, act: Act) -> None:
        # One that changes nothing would be undone without a visible effect.
        if len(act.removed) or len(act.added) or len(act.blocks) or act.proposed is not None:
            self._record({"act": acts.act_to_json(act)})

    def _record(self, what: Mapping[str, Any]) -> str:
        """To the journal first, and then to what is in memory."""
        record = {**what, "time": round(self._now(), 3), "place": self.place}
        self._store.append(record, self._content())
        return self._step(record)

    def _step(self, record: Mapping[str, Any]) -> str:
        before = self.state
        if "act" in record:
            act = acts.act_from_json(record["act"], len(self.grid.shape))
            self.state = acts.apply(before, act)
            self._done.append(act)
            self._undone.clear()
            self._next_id = max(self._next_id, 1 + int(act.added.ids.max(initial=-1)))
        elif "undo" in record:
            act = self._done.pop()
            self.state = acts.revert(before, act)
            self._undone.append(act)
        else:
            act = self._undone.pop()
            self.state = acts.apply(before, act)
            self._done.append(act)
        self.work = self.work.after(record["time"], before, self.state)
        self.place = tuple(record["place"])
        return act.what

    def _content(self) -> Content:
        return Content(
            self._origin,
            self.grid,
            self.state,
            self.work,
            self.place,
            self.radius,
            self._next_id,
        )

    def _new(self, points: np.ndarray, *, verified: bool, scores: np.ndarray | None = None) -> Dots:
        return make_dots(points, first_id=self._next_id, verified=verified, scores=scores)

    def _placed(self, points: np.ndarray, name: str) -> np.ndarray:
        """`(N, D)` points as they are stored; see `as_stored`."""
        points = np.asarray(points, np.float64).reshape(-1, len(self.grid.shape))
        return as_stored(points, self.grid.shape, name)

    def _inside(self, point: Sequence[float] | np.ndarray) -> np.ndarray:
        placed: np.ndarray = self._placed(np.asarray(point), str(self.source.path))[0]
        return placed

    def _brightest(self, point: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """`(D,)` voxels: the brightest place near a point, which no dot of `taken` `(N, D)` has."""
        found = self._inside(local_maximum(self.intensities, self.grid.shape, point, self._reach()))
        if (np.square(taken - found).sum(1) <= 1).any():
            where = ", ".join(f"{at:g}" for at in np.floor(found + 0.5))
            raise InputError(f"There is a dot at the brightest place already, voxel {where}.")
        return found

    def _reach(self) -> np.ndarray:
        """`(D,)` voxels within the radius."""
        return np.maximum(1, np.floor(self.radius / self.edges)).astype(int)


def _block(shape: Sequence[int], edges: np.ndarray) -> tuple[int, ...]:
    """The default: about a cube, and no larger than the image."""
    size = _BLOCK[len(shape)] * edges.min() / edges
    return tuple(int(min(n, max(1, round(s)))) for n, s in zip(shape, size, strict=True))


def _notes(block: Sequence[int], given: Sequence[int] | None) -> Iterator[str]:
    """A note where the option `--block` is not used."""
    if given is not None and tuple(given) != tuple(block):
        kept, other = ("x".join(map(str, sizes)) for sizes in (block, given))
        yield (
            f"The image is labelled in blocks of {kept} voxels, and they are kept: {other}"
            " (--block) is not used."
        )
