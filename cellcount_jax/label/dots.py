"""Dots: their places, states and scores; rounding, selection, exchange, and JSON. Pure."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellcount_jax.images.points import check_points_inside

_DECIMALS = 3  # of a voxel, as in the CSV file: points are read back as they were stored


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
        """The rows of dots, by id.

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

    def nearest(
        self,
        point: Sequence[float] | np.ndarray,
        edges: np.ndarray,
        *,
        max_distance: float,
        rows: np.ndarray | None = None,
        across: int | None = None,
    ) -> int | None:
        """The id of the dot nearest to a point, or None where none is near.

        Args:
          point: `(D,)` voxels.
          edges: `(D,)` of a voxel.
          max_distance: the largest distance, in the unit of `edges`.
          rows: of the dots that count; default all.
          across: an axis along which distances do not count.
        """
        rows = np.arange(len(self)) if rows is None else rows
        if not len(rows):
            return None
        apart = (self.points[rows] - np.asarray(point)) * edges
        if across is not None:
            apart[:, across] = 0
        squared = np.square(apart).sum(1)
        first = int(np.argmin(squared))
        return int(self.ids[rows[first]]) if squared[first] <= max_distance**2 else None


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


def as_stored(points: np.ndarray, shape: Sequence[int], name: str | os.PathLike[str]) -> np.ndarray:
    """Points as the CSV file holds them, still inside the image once they are rounded.

    Args:
      points: `(N, D)` voxels.
      shape: `(D,)` of the image.
      name: of the file that they are from, for the message.

    Returns:
      `(N, D)` float64 voxels, to 0.001.

    Raises:
      InputError: a point outside the image, or NaN; see `check_points_inside`.
    """
    points = np.asarray(points, np.float64).reshape(-1, len(shape))
    check_points_inside(points, shape, name)
    # The last place inside the image also as a 32-bit float, which training reads.
    last = np.nextafter(np.asarray(shape, np.float32) - np.float32(0.5), np.float32(0))
    scale = 10**_DECIMALS
    highest = np.floor(last.astype(np.float64) * scale) / scale
    return np.minimum(np.round(points, _DECIMALS), highest)


def no_dots(ndim: int) -> Dots:
    """Dots of an image that has none."""
    return make_dots(np.zeros((0, ndim)), first_id=0, verified=False)


def exchange(dots: Dots, removed: Dots, added: Dots) -> Dots:
    """Dots without some, by id, and with others."""
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
    """The dots that `dots_to_json` was given."""
    scores = [np.nan if score is None else score for score in stored["scores"]]
    return Dots(
        np.asarray(stored["ids"], np.int64),
        np.asarray(stored["points"], np.float64).reshape(-1, ndim),
        np.asarray(stored["verified"], bool),
        np.asarray(scores, np.float64),
    )
