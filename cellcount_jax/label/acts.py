"""Acts on dots and blocks: made from a state, applied to it and taken back. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import spatial

from cellcount_jax.data.blocks import DONE, IN_PROGRESS, NAMES, TO_DO, Grid
from cellcount_jax.images.regions import all_of, lies_in
from cellcount_jax.label.dots import (
    Dots,
    dots_from_json,
    dots_to_json,
    exchange,
    make_dots,
    no_dots,
)


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Dots and blocks, which acts change.

    Attributes:
      dots: the dots.
      blocks: `(*grid.counts)` uint8, TO_DO, IN_PROGRESS or DONE, see `data.blocks`.
      proposed: how proposals were made, each time.
    """

    dots: Dots
    blocks: np.ndarray
    proposed: tuple[Mapping[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Act:
    """A change, and all that is needed to take it back.

    Attributes:
      what: its name, in a word or two: 'add', 'remove'.
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
        exchange(state.dots, act.removed, act.added),
        _marked(state.blocks, act.blocks[:, :-2], act.blocks[:, -1]),
        proposed,
    )


def revert(state: State, act: Act) -> State:
    """The state before an act."""
    proposed = state.proposed if act.proposed is None else state.proposed[:-1]
    return State(
        exchange(state.dots, act.added, act.removed),
        _marked(state.blocks, act.blocks[:, :-2], act.blocks[:, -2]),
        proposed,
    )


def place(grid: Grid, state: State, new: Dots, *, what: str) -> Act:
    """New dots."""
    return _act(grid, state, what, added=new)


def apart_from(dots: Dots, points: np.ndarray) -> np.ndarray:
    """The points among `(N, D)` voxels that are more than a voxel away from every dot."""
    if not len(dots) or not len(points):
        return points
    distances, _ = spatial.cKDTree(dots.points).query(points)
    apart: np.ndarray = points[distances > 1]
    return apart


def remove(grid: Grid, state: State, ids: Sequence[int] | np.ndarray) -> Act:
    """Dots taken away.

    Raises:
      KeyError: there is no such dot.
    """
    rows = np.unique(state.dots.rows(ids))
    return _act(grid, state, "remove", removed=state.dots.take(rows))


def move(grid: Grid, state: State, dot: int, point: np.ndarray, *, what: str) -> Act:
    """A dot elsewhere, verified.

    Raises:
      KeyError: there is no such dot.
    """
    old = state.dots.take(state.dots.rows([dot]))
    new = make_dots(point[None], first_id=dot, verified=True, scores=old.scores)
    return _act(grid, state, what, removed=old, added=new)


def accept(grid: Grid, state: State, ids: Sequence[int] | np.ndarray) -> Act:
    """Dots verified as they are.

    Raises:
      KeyError: there is no such dot.
    """
    chosen = state.dots.take(np.unique(state.dots.rows(ids)))
    chosen = chosen.take(~chosen.verified)
    return _act(grid, state, "accept", removed=chosen, added=_verified(chosen))


def mark(grid: Grid, state: State, indices: np.ndarray, to: int) -> Act:
    """Blocks `(B, D)` brought to a state; the dots in blocks that are done are verified."""
    marks = _marking(grid, state.blocks, indices, to)
    accepted = state.dots.take(np.zeros(len(state.dots), bool))
    if to == DONE:
        chosen = np.zeros(grid.counts, bool)
        chosen[tuple(marks[:, : len(grid.shape)].T)] = True
        inside = chosen[tuple(grid.index_of(state.dots.points).T)]
        accepted = state.dots.take(inside & ~state.dots.verified)
    return Act(f"mark {NAMES[to]}", accepted, _verified(accepted), marks)


def propose(
    grid: Grid,
    state: State,
    new: Dots,
    *,
    by: Mapping[str, Any],
    region: tuple[slice, ...] | None,
    apart: float,
    edges: np.ndarray,
) -> Act:
    """Proposals in place of those that are there, in a region or everywhere.

    Those in blocks that are done, and nearer than `apart` (in the unit of `edges`) to verified
    dots, are left out.
    """
    dots = state.dots
    region = region or all_of(grid.shape)
    old = ~dots.verified & lies_in(dots.points, region)
    done = state.blocks[tuple(grid.index_of(new.points).T)] == DONE
    wanted = lies_in(new.points, region) & ~done
    placed = dots.points[dots.verified] * edges
    if len(placed) and len(new):
        distances, _ = spatial.cKDTree(placed).query(new.points * edges)
        wanted &= distances > apart
    # Proposals are not the user's work, and bring no block to in progress.
    none = np.zeros((0, len(grid.shape) + 2), np.int64)
    return Act("propose", dots.take(old), new.take(wanted), none, by)


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
    """The act that `act_to_json` was given."""
    return Act(
        stored["what"],
        dots_from_json(stored["removed"], ndim),
        dots_from_json(stored["added"], ndim),
        np.asarray(stored["blocks"], np.int64).reshape(-1, ndim + 2),
        stored["proposed"],
    )


def _act(
    grid: Grid, state: State, what: str, *, removed: Dots | None = None, added: Dots | None = None
) -> Act:
    """An act on dots; the blocks that they lie in are in progress then, if they were to do."""
    none = no_dots(len(grid.shape))
    removed, added = removed or none, added or none
    touched = grid.index_of(np.concatenate([removed.points, added.points]))
    blocks = _marking(grid, state.blocks, touched, IN_PROGRESS, only=TO_DO)
    return Act(what, removed, added, blocks)


def _marking(
    grid: Grid, states: np.ndarray, indices: np.ndarray, after: int, *, only: int | None = None
) -> np.ndarray:
    """`Act.blocks` of bringing blocks `(B, D)` to a state, those of state `only` where given."""
    indices = np.unique(np.asarray(indices, np.int64).reshape(-1, len(grid.shape)), axis=0)
    before = states[tuple(indices.T)].astype(np.int64)
    changed = before != after if only is None else (before == only) & (before != after)
    column = before[changed, None]
    return np.concatenate([indices[changed], column, np.full_like(column, after)], axis=1)


def _marked(states: np.ndarray, indices: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`states` with those of blocks `(B, D)` replaced by `(B,)` values."""
    if not len(indices):
        return states
    states = states.copy()
    states[tuple(indices.T)] = values
    return states


def _verified(dots: Dots) -> Dots:
    return dataclasses.replace(dots, verified=np.ones(len(dots), bool))
