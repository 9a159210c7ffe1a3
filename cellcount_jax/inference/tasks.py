"""Tasks that compute an image's map tile by tile in a folder, and can stop and resume at any time.

The image is read once, a survey is made of what was seen (`reading.py`, `survey.py`), and the map
of each tile is computed and searched for peaks (`tiled_maps.py`, `maps/pieces.py`); the results are
in the folder. A task depends only on the image, the model and the results of earlier
kinds of tasks, and its tiles are marked as done: so tasks of one kind run in any order, in any
process, and again after a crash, and the result has the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.images import files
from cellcount_jax.images.files import replacing
from cellcount_jax.inference import faint, job_arrays, kept, reading, survey, tiled_maps
from cellcount_jax.inference.job import (
    Engine,
    Job,
    Model,
    Progress,
    Task,
    cell_diameter,
    silent,
)
from cellcount_jax.maps import pieces

FOLDERS = (reading.FOLDER, "map.zarr", "peaks", "done")
FILES = ("survey.npz", kept.FILE, *FOLDERS)  # all that is kept in a job's folder


def complete(job: Job, engine: Engine, progress: Progress) -> None:
    """Runs all tasks that are not done.

    Args:
      job: the job.
      engine: runs tasks, by `run`.
      progress: shows how much was read of an image that is not read by tasks.

    Raises:
      InputError: the image cannot be read, or its map is flat; or the folder cannot be written, for
        example as the disk is full.
    """
    try:
        prepare(job, engine, progress)
        for kind, title in (("compute", "computing"), ("find", "searching")):
            if todo := pending(job, kind):
                engine(todo, title)
                if kind == "find":
                    _check_kept(job)
    except OSError as error:
        # Errors of reading the image are input errors already.
        raise InputError(
            f"{job.folder}: cannot be written or read ({in_words(error)}); what is done is kept,"
            " and the same command goes on once that is mended"
        ) from error
    if not _map_stays(job):
        job_arrays.remove_array(_map_path(job))


def has_begun(job: Job) -> bool:
    """Whether a part of a job is done."""
    return any((job.folder / name).exists() for name in (reading.FOLDER, "survey.npz"))


def prepare(job: Job, engine: Engine | None = None, progress: Progress = silent) -> None:
    """Makes the survey, which reads the image once, and the arrays for the results of tasks.

    Args:
      job: the job.
      engine: runs the tasks that read; default `one_by_one`.
      progress: see `complete`.
    """
    plan = job.plan
    if not (job.folder / "survey.npz").exists():
        if todo := reading.pending(job):
            (engine or one_by_one(job, progress))(todo, "reading")
        survey.save(_surveyed(job, progress), job.folder / "survey.npz")
    reading.remove(job)
    for name in ("done", "peaks"):
        (job.folder / name).mkdir(exist_ok=True)
    # Of what is marked as done the result may be gone.
    if _map_stays(job) or pending(job, "find"):
        if job_arrays.is_array(_map_path(job)):
            _forget_lost(job)
        else:
            _forget(job, "compute")
            job_arrays.make_array(
                _map_path(job),
                (*plan.shape, 1 + keeps_density(job)),
                (*map(job_arrays.chunk_edge, plan.common_edges), 1),
            )


def _surveyed(job: Job, progress: Progress) -> survey.Survey:
    """The survey of an image that tasks have read, or of one that they cannot: it is read now."""
    model, plan, normalisation = job.model, job.plan, job.model.normalisation
    if survey.groups(job.image, normalisation):
        observed = reading.stored(job)
        measured, ranges = survey.collected(job.image, plan, normalisation, observed)
    else:
        with progress("reading", survey.voxels_read(job.image, normalisation)) as bar:
            measured, ranges = survey.read_whole(job.image, plan, normalisation, bar.update)
    map_margin = _map_margin(model)
    sizes = zip(plan.halo, plan.stride, map_margin, strict=True)
    diameter = cell_diameter(model)
    return survey.make(
        plan,
        measured,
        ranges,
        mask=job.mask,
        image_margin=[halo + stride + margin for halo, stride, margin in sizes],
        map_margin=map_margin,
        cell=[math.ceil(diameter / edge) for edge in model.spacing],
        least=least_brightness(model),
    )


def pending(job: Job, kind: str) -> list[Task]:
    """The tasks of a kind that are not done."""
    done = {path.name for path in (job.folder / "done").glob(f"{kind}-*")}
    todo = [tile for tile in computed_tiles(job) if _name(kind, tile) not in done]
    if kind == "compute":
        return [Task(kind, run) for run in job.plan.runs(todo)]
    found = {path.name for path in (job.folder / "peaks").glob("*.npz")}
    lost = [tile for tile in computed_tiles(job) if f"{tile}.npz" not in found]
    return [Task(kind, (tile,)) for tile in sorted({*todo, *lost})]


def computed_tiles(job: Job) -> list[int]:
    """The tiles that are not left out as constant, dark or outside the mask."""
    return np.flatnonzero(job.survey.computed).tolist()


def run(job: Job, task: Task, update: Callable[[int], object] = lambda tiles: None) -> None:
    """Runs a task, and marks its tiles as done; of 'read' the results alone are the marks.

    Args:
      job: the job.
      task: one of its tasks.
      update: called with the number of tiles, 1, after each, and with 0 after parts of them; what
        it raises ends the task.

    Raises:
      InputError: the folder is of another count now, or what the task has read was removed.
    """
    if task.kind == "read":
        reading.run(job, task, update)
        return
    if task.kind == "find":
        for tile in task.tiles:
            _find_peaks(job, tile)
            _mark(job, task.kind, tile)
            update(1)
        return
    model = job.model
    network = model.config, model.variables, job.plan
    computed = tiled_maps.maps(*network, job.read, run=task.tiles, update=lambda _: update(0))
    for tile, maps in computed:
        density = float(maps[..., -1].sum(dtype=np.float64)) if model.has_density else None
        if maps.shape[-1] < job.map.shape[-1]:  # one map that is both
            maps = np.repeat(maps, 2, -1)
        # Zeros take next to no room in the file.
        maps[..., 0][maps[..., 0] <= model.floor] = 0
        job.check()
        job.map[job.plan.cores[tile]] = maps[..., : job.map.shape[-1]]
        _mark(job, task.kind, tile, **({} if density is None else {"density": density}))
        update(1)


def one_by_one(job: Job, progress: Progress = silent) -> Engine:
    """The engine that runs the tasks of a job in turn."""

    def engine(todo: Sequence[Task], title: str) -> None:
        with progress(title, sum(len(task.tiles) for task in todo)) as bar:
            for task in todo:
                run(job, task, bar.update)

    return engine


def peaks(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """The peaks of all 'find' tasks: `(P, D)` indices, sorted, and `(P,)` values."""
    found = [(np.zeros((0, len(job.plan.shape)), np.int64), np.zeros(0, np.float32))]
    for tile in computed_tiles(job):
        with np.load(job.folder / "peaks" / f"{tile}.npz", allow_pickle=False) as stored:
            found.append((stored["places"], stored["scores"]))
    places, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort(places.T[::-1])
    return places[order], scores[order]


def integral(job: Job) -> float | None:
    """The number of cells by the integral of the density; None for a model without a density."""
    if not job.model.has_density:
        return None
    names = (_name("compute", tile) for tile in computed_tiles(job))
    sums = (json.loads((job.folder / "done" / name).read_text())["density"] for name in names)
    return job.model.count_factor * math.fsum(sums)


def keeps_density(job: Job) -> bool:
    """Whether the density is needed after its sum: to split cells, or of a part of the image."""
    return job.model.splits or (job.mask is not None and job.model.has_density)


def least_brightness(model: Model) -> float:
    """The normalised intensity that every cell reaches; -inf for all tiles to be computed."""
    return -math.inf if model.config.predict.every_tile else faint.limit(model.reference)


def _map_margin(model: Model) -> list[int]:
    """`(D,)` voxels around a place in which the map affects the cells found there."""
    margin = [distance + 2 for distance in model.config.detect.min_distance]
    if model.splits:
        edges = zip(margin, model.spacing, strict=True)
        margin = [m + 2 * math.ceil(model.split_reach / edge) for m, edge in edges]
    return margin


def _find_peaks(job: Job, tile: int) -> None:
    """Writes the peaks of a tile's map."""
    places, scores = pieces.peaks(
        lambda region: np.asarray(job.map[(*region, 0)]),
        job.plan.shape,
        job.plan.cores[tile],
        threshold_abs=job.model.floor,
        min_distance=tuple(job.model.config.detect.min_distance),
    )
    _check_read(job)
    with replacing(job.folder / "peaks" / f"{tile}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, places=places, scores=scores)


def _name(kind: str, tile: int) -> str:
    return f"{kind}-{tile}"


def _mark(job: Job, kind: str, tile: int, **result: float) -> None:
    files.write_json(job.folder / "done" / _name(kind, tile), result)


def _map_path(job: Job) -> Path:
    return job.folder / "map.zarr"


def _map_stays(job: Job) -> bool:
    """Whether another threshold needs the map itself, for components and splitting, or its peaks
    alone."""
    return bool(job.model.config.detect.rule == "components" or keeps_density(job))


def _check_read(job: Job) -> None:
    """Makes sure, before a tile is marked as searched, that there was a map to search.

    What is missing in an array reads as zeros, as if there were no cells.

    Raises:
      InputError: the map is gone, or the folder is of another count now.
    """
    job.check()
    path = _map_path(job)
    if not job_arrays.is_array(path):
        raise InputError(
            f"{path}: was removed while it was needed; the same command computes it anew"
        )


def _forget(job: Job, prefix: str) -> None:
    """Removes the marks of tasks whose results are gone."""
    for path in (job.folder / "done").glob(f"{prefix}-*"):
        path.unlink(missing_ok=True)


def _forget_lost(job: Job) -> bool:
    """Removes the marks of tiles of whose part of the map a chunk is gone.

    Returns:
      whether there are any.
    """
    is_stored = job_arrays.stored_parts(_map_path(job))
    marks = list((job.folder / "done").glob("compute-*"))
    tiles = (int(mark.name.rpartition("-")[2]) for mark in marks)
    lost = [
        mark for mark, tile in zip(marks, tiles, strict=True) if not is_stored(job.plan.cores[tile])
    ]
    for mark in lost:
        mark.unlink(missing_ok=True)
    return bool(lost)


def _check_kept(job: Job) -> None:
    """Makes sure, after all tiles were searched, that no chunk of the map was removed before.

    Raises:
      InputError: some were; the marks of all that may be wrong are removed.
    """
    if _forget_lost(job):
        _forget(job, "find")
        raise InputError(
            f"{_map_path(job)}: a part of it was removed while it was needed; the same command"
            " computes it anew"
        )
