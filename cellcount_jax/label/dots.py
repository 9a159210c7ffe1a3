"""Dots that are edited, and changes of them that can be taken back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellcount_jax.data.progress import DONE, IN_PROGRESS, TO_DO, Grid

_DECIMALS = 3  # of a voxel, as in the CSV file: what is stored is what comes back


@dataclasses.dataclass(frozen=True, eq=False)
class Dots:
    """Dots of an image.

    Attributes:
      ids: `(N,)` int64, ascending.
      points: `(N, D)` float64 voxels, to 0.001.
      verified: `(N,)` bool: placed or confirmed by the user; the others are proposals.
      scores: `(N,)` float64 of proposals, how certain they are; NaN of dots placed by hand.
    """

    ids: np.ndarray
    points: np.ndarray
    verified: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where these are.

        Raises:
          KeyError: there is no such dot.
        """
        wanted = np.asarray(ids, np.int64).reshape(-1)
        rows = np.searchsorted(self.ids, wanted)
        there = rows < len(self)
        if not (there.all() and np.array_equal(self.ids[rows], wanted)):
            raise KeyError(f"no such dots: {wanted[~there | ~np.isin(wanted, self.ids)]}")
        return rows

    def take(self, rows: np.ndarray) -> Dots:
        """Some of them, by row or by a mask."""
        return Dots(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def make_dots(
    points: np.ndarray,
    *,
    first_id: int,
    verified: bool | np.ndarray,
    scores: np.ndarray | None = None,
) -> Dots:
    """New dots at `(N, D)` voxels, with ids from `first_id` on."""
    points = np.round(np.asarray(points, np.float64), _DECIMALS) + 0.0
    count = len(points)
    if scores is None:
        scores = np.full(count, np.nan)
    # As in the CSV file.
    scores = np.array([float(f"{score:.6g}") for score in np.asarray(scores, np.float64)])
    ids = np.arange(first_id, first_id + count, dtype=np.int64)
    return Dots(ids, points, np.broadcast_to(verified, count).copy(), scores.reshape(count))


def no_dots(ndim: int) -> Dots:
    """Dots of an image that has none."""
    return make_dots(np.zeros((0, ndim)), first_id=0, verified=False)


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What an act changes.

    Attributes:
      dots: the dots.
      blocks: `(*grid.counts)` uint8, see `data.progress`.
      proposed: how the proposals were made, of each time.
    """

    dots: Dots
    blocks: np.ndarray
    proposed: tuple[Mapping[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Act:
    """A change, and all that is needed to take it back.

    Attributes:
      what: in a word or two: 'add', 'remove'.
      removed: dots that it takes away.
      added: dots that it brings; a moved one has its id in both.
      blocks: `(B, D + 2)` int64: index of a block, its state before and after.
      proposed: how proposals were made, where it made some.
    """

    what: str
    removed: Dots
    added: Dots
    blocks: np.ndarray
    proposed: Mapping[str, Any] | None = None


def apply(state: State, act: Act) -> State:
    """The state after an act."""
    proposed = state.proposed if act.proposed is None else (*state.proposed, act.proposed)
    return State(
        _exchanged(state.dots, act.removed, act.added),
        _marked(state.blocks, act.blocks[:, :-2], act.blocks[:, -1]),
        proposed,
    )


def revert(state: State, act: Act) -> State:
    """The state before an act."""
    proposed = state.proposed if act.proposed is None else state.proposed[:-1]
    return State(
        _exchanged(state.dots, act.added, act.removed),
        _marked(state.blocks, act.blocks[:, :-2], act.blocks[:, -2]),
        proposed,
    )


def marking(
    grid: Grid, states: np.ndarray, indices: np.ndarray, after: int, *, only: int | None = None
) -> np.ndarray:
    """`Act.blocks` of bringing blocks `(B, D)` to a state, those of state `only` where given."""
    indices = np.unique(np.asarray(indices, np.int64).reshape(-1, len(grid.shape)), axis=0)
    before = states[tuple(indices.T)].astype(np.int64)
    changed = before != after if only is None else (before == only) & (before != after)
    column = before[changed, None]
    return np.concatenate([indices[changed], column, np.full_like(column, after)], axis=1)


def touching(grid: Grid, states: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`Act.blocks` of an act on some points: blocks that were to do are in progress then."""
    return marking(grid, states, grid.index_of(points), IN_PROGRESS, only=TO_DO)


def in_done(grid: Grid, states: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`(N,)` bool: which points lie in blocks that are done."""
    return np.asarray(states[tuple(grid.index_of(points).T)] == DONE)


def dots_to_json(dots: Dots) -> dict[str, list[Any]]:
    """Dots as JSON holds them, exactly."""
    scores = [None if np.isnan(score) else score for score in dots.scores.tolist()]
    return {
        "ids": dots.ids.tolist(),
        "points": dots.points.tolist(),
        "verified": dots.verified.astype(int).tolist(),
        "scores": scores,
    }


def dots_from_json(stored: Mapping[str, list[Any]], ndim: int) -> Dots:
    """What `dots_to_json` gave."""
    scores = [np.nan if score is None else score for score in stored["scores"]]
    return Dots(
        np.asarray(stored["ids"], np.int64),
        np.asarray(stored["points"], np.float64).reshape(-1, ndim),
        np.asarray(stored["verified"], bool),
        np.asarray(scores, np.float64),
    )


def act_to_json(act: Act) -> dict[str, Any]:
    """An act as JSON holds it, exactly."""
    return {
        "what": act.what,
        "removed": dots_to_json(act.removed),
        "added": dots_to_json(act.added),
        "blocks": act.blocks.tolist(),
        "proposed": act.proposed,
    }


def act_from_json(stored: Mapping[str, Any], ndim: int) -> Act:
    """What `act_to_json` gave."""
    return Act(
        stored["what"],
        dots_from_json(stored["removed"], ndim),
        dots_from_json(stored["added"], ndim),
        np.asarray(stored["blocks"], np.int64).reshape(-1, ndim + 2),
        stored["proposed"],
    )


def _exchanged(dots: Dots, removed: Dots, added: Dots) -> Dots:
    if len(removed):
        stays = np.ones(len(dots), bool)
        stays[dots.rows(removed.ids)] = False
        dots = dots.take(stays)
    if not len(added):
        return dots
    places = np.searchsorted(dots.ids, added.ids)
    return Dots(
        *(
            np.insert(getattr(dots, field.name), places, getattr(added, field.name), axis=0)
            for field in dataclasses.fields(Dots)
        )
    )


def _marked(states: np.ndarray, indices: np.ndarray, values: np.ndarray) -> np.ndarray:
    if not len(indices):
        return states
    states = states.copy()
    states[tuple(indices.T)] = values
    return states
