"""The cells of an image of any size: of its map in one piece, or of what the tiles left."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.images.regions import Array, Readable, Resampled, all_of, around, lies_in
from cellcount_jax.inference import tasks, trained_model
from cellcount_jax.inference.survey import Mask
from cellcount_jax.inference.tasks import Engine, Job, Progress
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps import pieces as parts
from cellcount_jax.maps.detect import find_peaks
from cellcount_jax.maps.maxima import first_of_equal, window_reach


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The cells of an image.

    Attributes:
      points: `(N, D)` float32 in voxels.
      scores: `(N,)` the map's largest value of each.
      threshold: that scores had to be above.
      candidate_points: `(C, D)` all peaks, also those below the threshold.
      candidates: `(C,)` their scores.
      integral: the number of cells by a density's integral; None of a model without.
      tiles: in how many the image was cut.
      constant: how many of them were skipped, as they and their surroundings have one intensity.
      outside: how many lie outside the mask.
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


class LoadedModel(TrainedModel):
    """A trained model that finds the cells in arrays."""

    def predict(
        self, array: Any, *, spacing: Sequence[float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cell locations in an array.

        Args:
          array: NumPy, Zarr, dask or what else NumPy can read, `(*spatial,)` or `(*spatial,
            channels)`, raw intensities.
          spacing: `(D,)` its voxel size in micrometres; where it differs from the model's, the
            array is resampled. None: its voxels are like those of the training images.

        Returns:
          Points `(N, D)` float32 in voxels of the array, and their scores `(N,)`.

        Raises:
          InputError: see `trained_model.predict_maps` and `trained_model.resampled`.
        """
        image = trained_model.resampled(self, Array(array, self.config.data.ndim), spacing)
        found = predict(self, image)
        points = image.back(found.points) if isinstance(image, Resampled) else found.points
        return points, found.scores


def predict(model: TrainedModel, image: Readable, *, threshold: float | None = None) -> Found:
    """The cells of an image, in a temporary folder where it is large; see `locate`."""
    job = Job(model, image, Path())
    if job.cut.whole:
        return in_one_piece(model, image.read(all_of(image.shape)), threshold=threshold)
    with tempfile.TemporaryDirectory(prefix="cellcount_") as folder:
        job = dataclasses.replace(job, folder=Path(folder))
        return locate(job, threshold=threshold, engine=lambda todo, _: tasks.one_by_one(job, todo))


def in_one_piece(
    model: TrainedModel,
    values: np.ndarray,
    *,
    threshold: float | None = None,
    mask: Mask | None = None,
) -> Found:
    """The cells of an image `(*spatial, channels)` that is not cut; see `locate`."""
    found = trained_model.predict_maps(model, values)
    rule, shape = model.config.detect.rule, values.shape[:-1]
    threshold = model.thresholds[rule] if threshold is None else threshold
    points, scores = trained_model.locate(model, found, rule=rule, threshold=threshold)
    places, candidates = find_peaks(
        found.location,
        threshold_abs=tasks.floor(model),
        min_distance=tuple(model.config.detect.min_distance),
        return_scores=True,
    )
    if rule == "fidt":
        threshold *= float(candidates.max(initial=0.0))
    if mask is not None:
        inside, near = mask.holds(points, shape), mask.holds(places, shape)
        points, scores = points[inside], scores[inside]
        places, candidates = places[near], candidates[near]
    integral = trained_model.integral(model, found)
    return Found(points, scores, threshold, places, candidates, integral)


def locate(
    job: Job, *, threshold: float | None, engine: Engine, progress: Progress | None = None
) -> Found:
    """The cells of an image that is cut; goes on where an earlier call was stopped.

    Args:
      job: the job.
      threshold: on the map, of the model's rule; default the model's. Another one needs no
        second computation of the map.
      engine: see `tasks.complete`.
      progress: see `tasks.complete`.

    Raises:
      InputError: see `tasks.complete`.
    """
    tasks.complete(job, engine, progress)
    return collect(job, threshold=threshold)


def collect(job: Job, *, threshold: float | None) -> Found:
    """What all tasks found, with a threshold; see `locate`."""
    model, config, shape = job.model, job.model.config, job.cut.shape
    places, scores = _thinned(*tasks.peaks(job), config.detect.min_distance)
    near, candidates, rule = places.astype(np.float32), scores, config.detect.rule
    threshold = model.thresholds[rule] if threshold is None else threshold
    if rule == "components":
        points, scores = _components(job, threshold)
    else:
        if rule == "fidt":
            highest = float(scores.max(initial=0.0))
            faint = highest < 0.1 * trained_model.target_peak(model)
            threshold = np.inf if faint else threshold * highest
        above = scores > threshold
        points, scores = places[above].astype(np.float32), scores[above]
    if trained_model.splits(model):
        points, scores = _split(job, points, scores)
    if job.mask is not None:
        inside, kept = job.mask.holds(points, shape), job.mask.holds(near, shape)
        points, scores = points[inside], scores[inside]
        near, candidates = near[kept], candidates[kept]
    return Found(
        points,
        scores,
        threshold,
        near,
        candidates,
        tasks.integral(job),
        tiles=len(job.cut.tiles),
        constant=job.surveyed.constant,
        outside=job.surveyed.outside,
    )


def _thinned(
    places: np.ndarray, scores: np.ndarray, min_distance: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Of equal peaks in each other's window one, also across tiles."""
    stays = first_of_equal(places, window_reach(tuple(min_distance), places.shape[1]))
    return places[stays], scores[stays]


def _components(job: Job, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    shape = job.cut.shape

    def pieces() -> Iterator[parts.Pieces]:
        for i in np.flatnonzero(job.surveyed.busy):
            core = job.cut.cores[i]
            values = np.asarray(job.map[(*core, 0)])
            yield parts.pieces(values, shape, core, threshold_abs=threshold)

    return parts.joined(pieces(), len(shape))


def _split(job: Job, points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells on each other told apart, tile by tile; see `trained_model.split_merged`."""
    shape, reach = job.cut.shape, trained_model.split_reach(job.model)
    margin = [2 * math.ceil(reach / edge) + 1 for edge in job.model.spacing]
    by_depth = np.argsort(points[:, 0], kind="stable")
    depth = points[by_depth, 0]
    placed, origins = [points[:0]], [by_depth[:0]]
    for i in np.flatnonzero(job.surveyed.busy):
        core = job.cut.cores[i]
        outer = around(core, margin, shape)
        first, last = np.searchsorted(depth, [outer[0].start - 0.5, outer[0].stop - 0.5])
        near = np.sort(by_depth[first:last])
        near = near[lies_in(points[near], outer)]
        start = np.array([part.start for part in outer], np.float32)
        moved, origin = trained_model.split_merged(
            job.model,
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
