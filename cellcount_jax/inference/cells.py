"""The cells of an image of any size, from its map in one piece or from the results of tiles."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from cellcount_jax.images.regions import (
    Array,
    Readable,
    Region,
    Resampled,
    all_of,
    around,
    lies_in,
)
from cellcount_jax.inference import tasks
from cellcount_jax.inference.job import Engine, Job, Model, Progress, silent
from cellcount_jax.inference.survey import voxels_inside
from cellcount_jax.maps import detect, pieces
from cellcount_jax.maps.detect import Candidates
from cellcount_jax.maps.maxima import first_of_equal, window_reach


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

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Found:
        """The same cells elsewhere."""
        points, candidates = move(self.points), move(self.candidate_points)
        return dataclasses.replace(self, points=points, candidate_points=candidates)


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """What a model sees in an image, of which a threshold chooses the cells.

    Attributes:
      candidates: in the whole image, or around the job's mask.
      integral: number of cells by the integral of the density; None for a model without one.
      split: splits chosen points and scores where one stands for several cells, see
        `TrainedModel.split_merged`.
      densities: gives the parts of the image whose density is kept, with it `(*part,)`.
    """

    candidates: Candidates
    integral: float | None
    split: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    densities: Callable[[], Iterator[tuple[Region, np.ndarray]]]


def search(job: Job, *, engine: Engine | None = None, progress: Progress = silent) -> Search:
    """Computes the map of an image and its peaks; see `find`, for arguments and errors too."""
    model, shape = job.model, job.plan.shape
    if job.plan.whole:
        values, original = _read_whole(job.image)
        maps = model.predict_maps(values, original=original)

        def density() -> Iterator[tuple[Region, np.ndarray]]:
            if maps.density is not None:
                yield all_of(shape), maps.density

        return Search(
            candidates_of(model, maps.location),
            model.integral(maps.density),
            functools.partial(model.split_merged, density=maps.density),
            density,
        )
    tasks.complete(job, engine or tasks.one_by_one(job, progress), progress)
    return Search(
        _candidates_in_tiles(job),
        tasks.integral(job),
        functools.partial(_split_in_tiles, job),
        functools.partial(_densities_in_tiles, job),
    )


def _read_whole(image: Readable) -> tuple[np.ndarray, np.ndarray | None]:
    """All of an image; and of one that is resampled the original, which is read once."""
    if not isinstance(image, Resampled):
        return image.read(all_of(image.shape)), None
    original = image.original.read(all_of(image.original.shape))
    resampled = Resampled(Array(original, len(image.shape)), image.shape)
    return resampled.read(all_of(image.shape)), original


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
    model, plan = job.model, job.plan
    shape, rule = plan.shape, model.config.detect.rule
    searched = search(job, engine=engine, progress=progress)
    candidates, skipped = searched.candidates, {}
    if not plan.whole:
        skipped = {"constant": job.survey.constant, "outside": job.survey.outside}
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
        tiles=len(plan.tiles),
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


def candidates_of(model: Model, location: np.ndarray, *, floor: float | None = None) -> Candidates:
    """The candidates in a model's map of locations `(*spatial,)`; the default floor is its own."""
    return detect.find_candidates(
        location,
        floor=model.floor if floor is None else floor,
        min_distance=tuple(model.config.detect.min_distance),
    )


def _candidates_in_tiles(job: Job) -> Candidates:
    """The candidates of all tiles; those on a plateau across tiles count once."""
    places, scores = tasks.peaks(job)
    min_distance = tuple(job.model.config.detect.min_distance)
    kept = first_of_equal(places, window_reach(min_distance, places.shape[1]))
    points = places[kept].astype(np.float32)
    components = functools.partial(_components_in_tiles, job)
    return Candidates(points, scores[kept], job.model.floor, components)


def _components_in_tiles(job: Job, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    shape = job.plan.shape

    def parts() -> Iterator[pieces.Pieces]:
        for tile in tasks.computed_tiles(job):
            core = job.plan.cores[tile]
            values = np.asarray(job.map[(*core, 0)])
            yield pieces.pieces(values, shape, core, threshold_abs=threshold)

    return pieces.joined(parts(), len(shape))


def _densities_in_tiles(job: Job) -> Iterator[tuple[Region, np.ndarray]]:
    """The density of each computed tile; nothing where it is not needed after its sum."""
    for tile in tasks.computed_tiles(job) if tasks.keeps_density(job) else ():
        core = job.plan.cores[tile]
        yield core, np.asarray(job.map[(*core, -1)])


def _split_in_tiles(
    job: Job, points: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`TrainedModel.split_merged`, tile by tile."""
    model, shape = job.model, job.plan.shape
    if not model.splits:
        return points, scores
    margin = [2 * math.ceil(model.split_reach / edge) + 1 for edge in model.spacing]
    by_depth = np.argsort(points[:, 0], kind="stable")
    depth = points[by_depth, 0]
    placed, origins = [points[:0]], [by_depth[:0]]
    for tile in tasks.computed_tiles(job):
        core = job.plan.cores[tile]
        outer = around(core, margin, shape)
        first, last = np.searchsorted(depth, [outer[0].start - 0.5, outer[0].stop - 0.5])
        near = np.sort(by_depth[first:last])
        near = near[lies_in(points[near], outer)]
        start = np.array([part.start for part in outer], np.float32)
        # The indices of the points take the place of their scores.
        moved, origin = model.split_merged(
            points[near] - start,
            near,
            np.asarray(job.map[(*outer, -1)]),
            own=lies_in(points[near], core),
        )
        placed.append(moved + start)
        origins.append(origin)
    origin = np.concatenate(origins)
    order = np.argsort(origin, kind="stable")
    return np.concatenate(placed)[order], scores[origin[order]]
