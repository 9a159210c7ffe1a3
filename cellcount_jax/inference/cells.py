"""The cells of an image of any size: of what a model sees in it, those that a threshold chooses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from cellcount_jax.inference.job import Engine, Job, Progress, silent
from cellcount_jax.inference.search import Search, search
from cellcount_jax.inference.survey import voxels_inside
from cellcount_jax.maps import detect


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The cells of an image.

    Attributes:
      points: `(N, D)` float32 in voxels.
      scores: `(N,)` the map's largest value of each.
      threshold: on the map's values, which the scores are greater than.
      candidate_points: `(C, D)` all peaks, also those below the threshold.
      candidates: `(C,)` their scores.
      integral: number of cells by the integral of the density, within the mask; None for a model
        without one.
      tiles: number of tiles of the image.
      constant: number of tiles that were left out, see `Survey`.
      outside: number of tiles outside the mask, likewise.
      dark: number of tiles in which nothing is bright enough for a cell, likewise.
    """

    points: np.ndarray
    scores: np.ndarray
    threshold: float
    candidate_points: np.ndarray
    candidates: np.ndarray
    integral: float | None
    tiles: int = 1
    constant: int = 0
    outside: int = 0
    dark: int = 0

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Found:
        """The same cells elsewhere."""
        points, candidates = move(self.points), move(self.candidate_points)
        return dataclasses.replace(self, points=points, candidate_points=candidates)


def find(
    job: Job,
    *,
    threshold: float | None = None,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Found:
    """The cells of an image, in one piece or in tiles as the job's plan has it.

    In tiles it goes on where an earlier call was stopped; another threshold needs no second
    computation of the map.

    Args:
      job: the job.
      threshold: of the model's rule, see `detect.choose`; default the model's.
      engine: runs the tasks of an image in tiles; default `tasks.one_by_one`.
      progress: shows how far the reading of an image in tiles is, and the tasks of the default
        engine.

    Raises:
      InputError: the image cannot be read, or its map is flat; or the job's folder cannot be
        written.
    """
    return choose(job, search(job, engine=engine, progress=progress), threshold=threshold)


def choose(job: Job, searched: Search, *, threshold: float | None = None) -> Found:
    """The cells of an image of which is known what the model sees in it; see `find`."""
    model, plan = job.model, job.plan
    shape, rule = plan.shape, model.config.detect.rule
    candidates, skipped = searched.candidates, {}
    if not plan.whole:
        names = ("constant", "outside", "dark")
        skipped = {name: getattr(job.survey, name) for name in names}
    chosen = detect.choose(
        candidates,
        rule=rule,
        threshold=model.thresholds[rule] if threshold is None else threshold,
        target_peak=model.target_peak,
    )
    points, scores = searched.split(chosen.points, chosen.scores)
    near, near_scores = candidates.points, candidates.scores
    if job.mask is not None:
        inside, near_inside = job.mask.holds(points, shape), job.mask.holds(near, shape)
        points, scores = points[inside], scores[inside]
        near, near_scores = near[near_inside], near_scores[near_inside]
    return Found(
        points,
        scores,
        chosen.threshold,
        near,
        near_scores,
        searched.integral if job.mask is None else _integral_inside(job, searched),
        tiles=len(plan.cores),
        **skipped,
    )


def _integral_inside(job: Job, searched: Search) -> float | None:
    """The number of cells by the integral of the density over the job's mask."""
    if job.mask is None or searched.integral is None:
        return searched.integral
    sums = []
    for region, density in searched.densities():
        inside = voxels_inside(job.mask, region, job.plan.shape)
        sums.append(float(density[inside].sum(dtype=np.float64)))
    return job.model.count_factor * math.fsum(sums)
