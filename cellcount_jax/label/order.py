"""The next dot or block to look at: dots in reading order or by score, blocks by state."""

from __future__ import annotations

import numpy as np

from cellcount_jax.data.blocks import Grid
from cellcount_jax.label.dots import Dots


def next_unverified(dots: Dots, grid: Grid, after: np.ndarray) -> int | None:
    """The id of the first proposal after a place: block by block, in each by z, y, x; then anew.

    Args:
      dots: all dots.
      grid: the blocks.
      after: `(D,)` voxels.

    Returns:
      Its id, or None where all is verified.
    """
    rows = np.flatnonzero(~dots.verified)
    if not len(rows):
        return None
    keys = _keys(dots.points[rows], grid)
    order = np.lexsort(keys.T[::-1])
    here = _keys(np.asarray(after, np.float64)[None], grid)[0]
    later = np.zeros(len(rows), bool)
    for column in range(keys.shape[1])[::-1]:
        at = keys[:, column]
        later = (at > here[column]) | ((at == here[column]) & later)
    later = later[order]
    return int(dots.ids[rows[order[int(np.argmax(later))]]])  # the first where none is later


def _keys(points: np.ndarray, grid: Grid) -> np.ndarray:
    """`(N, 2 D)` by which dots are ordered: the block, then the place."""
    return np.concatenate([grid.index_of(points), points], axis=1)


def least_certain(dots: Dots, after: int | None = None) -> int | None:
    """The id of the proposal with the lowest score; or the next after the one with an id."""
    rows = np.flatnonzero(~dots.verified)
    if not len(rows):
        return None
    scores = np.nan_to_num(dots.scores[rows], nan=-np.inf)
    order = rows[np.lexsort((dots.ids[rows], scores))]
    ids = dots.ids[order]
    at = np.flatnonzero(ids == (-1 if after is None else after))
    return int(ids[(at[0] + 1) % len(ids)] if len(at) else ids[0])


def next_block(
    states: np.ndarray, state: int, after: tuple[int, ...] | None = None
) -> tuple[int, ...] | None:
    """The index of the first block in a state after another one, in reading order; then anew."""
    chosen = np.flatnonzero(states.ravel() == state)
    if not len(chosen):
        return None
    here = -1 if after is None else int(np.ravel_multi_index(after, states.shape))
    later = chosen[chosen > here]
    first = later[0] if len(later) else chosen[0]
    return tuple(int(i) for i in np.unravel_index(int(first), states.shape))
