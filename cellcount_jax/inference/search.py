"""What a model sees in an image of any size, in one piece or in tiles, for any threshold."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.images.regions import (
    Array,
    Readable,
    Region,
    Resampled,
    all_of,
    around,
    lies_in,
)
from cellcount_jax.inference import kept, tasks
from cellcount_jax.inference.job import Engine, Job, Model, Progress, silent
from cellcount_jax.inference.kept import Whole
from cellcount_jax.maps import detect, pieces
from cellcount_jax.maps.detect import Candidates
from cellcount_jax.maps.maxima import first_of_equal, window_reach


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """What a model sees in an image, of which a threshold chooses the cells.

    Attributes:
      candidates: in the whole image, or around the job's mask.
      integral: number of cells by the integral of the density; None for a model without one.
      split: splits chosen points and scores where one stands for several cells, see
        `TrainedModel.split_merged`.
      densities: gives the parts of the image whose density is kept, with it `(*part,)`.
      whole: all of this of an image in one piece, for `keep`; None if it was kept.
    """

    candidates: Candidates
    integral: float | None
    split: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    densities: Callable[[], Iterator[tuple[Region, np.ndarray]]]
    whole: Whole | None = None


def search(
    job: Job,
    *,
    engine: Engine | None = None,
    progress: Progress = silent,
    key: str | None = None,
) -> Search:
    """Computes the map of an image and its peaks.

    Args:
      job: the job.
      engine: see `find`.
      progress: see `find`.
      key: what was kept under it, see `keep`, of an image in one piece is used; None = nothing is.

    Raises:
      InputError: see `find`.
    """
    if job.plan.whole:
        stored = kept.load(job.folder / kept.FILE, key=key) if key else None
        if stored is not None:
            return dataclasses.replace(_search_of(job, stored), whole=None)
        return _search_of(job, _seen(job, progress))
    tasks.complete(job, engine or tasks.one_by_one(job, progress), progress)
    return Search(
        _candidates_in_tiles(job),
        tasks.integral(job),
        functools.partial(_split_in_tiles, job),
        functools.partial(_densities_in_tiles, job),
    )


def _seen(job: Job, progress: Progress) -> Whole:
    """Computes the map of an image in one piece."""
    model = job.model
    values, original = _read_whole(job.image)
    with progress("computing", math.prod(job.plan.shape) * len(job.plan.flips)) as bar:
        maps = model.predict_maps(values, original=original, update=bar.update)
    candidates = candidates_of(model, maps.location)
    location = None
    if model.config.detect.rule == "components":
        location = np.where(maps.location > model.floor, maps.location, 0)
    return Whole(
        candidates.points,
        candidates.scores,
        model.integral(maps.density),
        location,
        maps.density,
    )


def _search_of(job: Job, whole: Whole) -> Search:
    """What is to be known of an image in one piece."""
    model = job.model

    def components(threshold: float) -> tuple[np.ndarray, np.ndarray]:
        assert whole.location is not None
        return detect.find_components(whole.location, threshold_abs=threshold, return_scores=True)

    def densities() -> Iterator[tuple[Region, np.ndarray]]:
        if whole.density is not None:
            yield all_of(job.plan.shape), whole.density

    return Search(
        Candidates(whole.points, whole.scores, model.floor, components),
        whole.integral,
        functools.partial(model.split_merged, density=whole.density),
        densities,
        whole,
    )


def _read_whole(image: Readable) -> tuple[np.ndarray, np.ndarray | None]:
    """All of an image; and of one that is resampled the original, which is read once."""
    if not isinstance(image, Resampled):
        return image.read(all_of(image.shape)), None
    original = image.original.read(all_of(image.original.shape))
    resampled = Resampled(Array(original, len(image.shape)), image.shape)
    return resampled.read(all_of(image.shape)), original


def keep(job: Job, searched: Search, *, key: str) -> None:
    """Keeps what was seen in an image in one piece in the job's folder, if it is not from there.

    Args:
      job: of the image.
      searched: in it.
      key: names all that it depends on, for `search`.

    Raises:
      InputError: the folder cannot be written.
    """
    path, whole = job.folder / kept.FILE, searched.whole
    if whole is None:
        return
    if not tasks.keeps_density(job):
        whole = whole._replace(density=None)
    try:
        kept.save(path, whole, key=key)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({in_words(error)})") from error


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
