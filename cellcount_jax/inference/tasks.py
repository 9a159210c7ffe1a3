"""Tasks that compute an image's map tile by tile in a folder, and can stop and resume at any time.

Each tile is encoded, decoded and searched for peaks (`tiled_maps.py`, `maps/pieces.py`); the
results are in the folder. A task depends only on the image, the model and the results of earlier
kinds of tasks, and is marked as done at its end: so tasks of one kind run in any order, in any
process, and again after a crash, and the result has the same bytes.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.images import files
from cellcount_jax.images.files import replacing
from cellcount_jax.images.regions import extent
from cellcount_jax.inference import faint, job_arrays, kept, survey, tiled_maps
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

FOLDERS = ("coarse", "map.zarr", "peaks", "done")
FILES = ("survey.npz", kept.FILE, *FOLDERS)  # all that is kept in a job's folder


def complete(job: Job, engine: Engine, progress: Progress) -> None:
    """Runs all tasks that are not done.

    Args:
      job: the job.
      engine: runs tasks, by `run`.
      progress: shows how much of the image was read for the survey.

    Raises:
      InputError: the image cannot be read, or its map is flat; or the folder cannot be written, for
        example as the disk is full.
    """
    try:
        prepare(job, progress)
        for kind, title in (("encode", "encoding"), ("decode", "decoding"), ("find", "searching")):
            if todo := pending(job, kind):
                engine(todo, title)
                _check_kept(job, kind)
    except OSError as error:
        # Errors of reading the image are input errors already.
        raise InputError(
            f"{job.folder}: cannot be written or read ({in_words(error)}); what is done is kept,"
            " and the same command goes on once that is mended"
        ) from error
    for flip in range(len(job.plan.flips)):
        job_arrays.remove_array(_coarse_path(job, flip))
    shutil.rmtree(job.folder / "coarse", ignore_errors=True)
    if not _map_stays(job):
        job_arrays.remove_array(_map_path(job))


def prepare(job: Job, progress: Progress = silent) -> None:
    """Makes the survey, which reads the image once, and the arrays for the results of tasks."""
    plan = job.plan
    if not (job.folder / "survey.npz").exists():
        map_margin = _map_margin(job.model)
        diameter = cell_diameter(job.model)
        sizes = zip(plan.halo, plan.stride, map_margin, strict=True)
        voxels = survey.voxels_read(job.image, job.model.normalisation)
        with progress("reading", voxels) as bar:
            made = survey.make(
                job.image,
                plan,
                job.model.normalisation,
                mask=job.mask,
                image_margin=[halo + stride + margin for halo, stride, margin in sizes],
                map_margin=map_margin,
                cell=[math.ceil(diameter / edge) for edge in job.model.spacing],
                least=least_brightness(job.model),
                update=bar.update,
            )
        survey.save(made, job.folder / "survey.npz")
    for name in ("done", "peaks"):
        (job.folder / name).mkdir(exist_ok=True)
    # Of what is marked as done the result may be gone.
    if _map_stays(job) or pending(job, "find"):
        if job_arrays.is_array(_map_path(job)):
            _forget_lost(job, "decode")
        else:
            _forget(job, "decode")
            job_arrays.make_array(
                _map_path(job),
                (*plan.shape, 1 + keeps_density(job)),
                (*(job_arrays.chunk_edge(size) for size in extent(plan.tiles[0].core)), 1),
            )
    if pending(job, "decode"):
        chunk = extent(plan.coarse_core(0))
        features = tiled_maps.coarse_features(job.model.config)
        for flip in range(len(plan.flips)):
            path = _coarse_path(job, flip)
            if job_arrays.is_array(path):
                _forget_lost(job, "encode", flip)
            else:
                _forget(job, f"encode-{flip}")
                job_arrays.make_array(path, (*plan.coarse_shape, features), (*chunk, features))


def pending(job: Job, kind: str) -> list[Task]:
    """The tasks of a kind that are not done."""
    tiles = computed_tiles(job)
    if kind == "encode":
        wanted = [
            Task(kind, tile, number)
            for number, flip in enumerate(job.plan.flips)
            for tile in survey.tiles_to_encode(job.plan, tiles, flip)
        ]
    else:
        wanted = [Task(kind, tile) for tile in tiles]
    done = {path.name for path in (job.folder / "done").glob(f"{kind}-*")}
    if kind == "find":
        found = {path.name for path in (job.folder / "peaks").glob("*.npz")}
        return [t for t in wanted if _name(t) not in done or f"{t.tile}.npz" not in found]
    return [task for task in wanted if _name(task) not in done]


def computed_tiles(job: Job) -> list[int]:
    """The tiles that are not left out as constant, dark or outside the mask."""
    return np.flatnonzero(job.survey.computed).tolist()


def run(job: Job, task: Task) -> None:
    """Runs a task and marks it as done.

    Raises:
      InputError: the folder is of another count now, or what the task has read was removed.
    """
    model, plan = job.model, job.plan
    network = model.config, model.variables
    result: dict[str, float] = {}
    if task.kind == "encode":
        flip = plan.flips[task.flip]
        part = tiled_maps.encode(*network, plan, job.read, index=task.tile, flip=flip)
        job.check()
        job.coarse(task.flip)[plan.coarse_core(task.tile)] = part
    elif task.kind == "decode":
        maps = tiled_maps.decode(
            *network,
            plan,
            job.read,
            lambda flip, region: np.asarray(job.coarse(flip)[region]),
            index=task.tile,
        )
        _check_read(job, [_coarse_path(job, number) for number in range(len(plan.flips))])
        if model.has_density:
            result["density"] = float(maps[..., -1].sum(dtype=np.float64))
        if maps.shape[-1] < job.map.shape[-1]:  # one map that is both
            maps = np.repeat(maps, 2, -1)
        # Zeros take next to no room in the file.
        maps[..., 0][maps[..., 0] <= model.floor] = 0
        job.map[plan.cores[task.tile]] = maps[..., : job.map.shape[-1]]
    else:
        _find_peaks(job, task.tile)
    files.write_json(job.folder / "done" / _name(task), result)


def one_by_one(job: Job, progress: Progress = silent) -> Engine:
    """The engine that runs the tasks of a job in turn."""

    def engine(todo: Sequence[Task], title: str) -> None:
        with progress(title, len(todo)) as bar:
            for task in todo:
                run(job, task)
                bar.update(1)

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
    names = (_name(Task("decode", tile)) for tile in computed_tiles(job))
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
    _check_read(job, [_map_path(job)])
    with replacing(job.folder / "peaks" / f"{tile}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, places=places, scores=scores)


def _name(task: Task) -> str:
    return f"{task.kind}-{task.flip}-{task.tile}"


def _map_path(job: Job) -> Path:
    return job.folder / "map.zarr"


def _coarse_path(job: Job, flip: int) -> Path:
    return job.folder / "coarse" / f"{flip}.zarr"


def _map_stays(job: Job) -> bool:
    """Whether another threshold needs the map itself, for components and splitting, or its peaks
    alone."""
    return bool(job.model.config.detect.rule == "components" or keeps_density(job))


def _check_read(job: Job, arrays: Sequence[Path]) -> None:
    """Makes sure, before the result of a task is written, that what it was made from was there.

    What is missing in an array reads as zeros, as if there were no cells.

    Raises:
      InputError: an array is gone, or the folder is of another count now.
    """
    job.check()
    for path in arrays:
        if not job_arrays.is_array(path):
            raise InputError(
                f"{path}: was removed while it was needed; the same command computes it anew"
            )


def _forget(job: Job, prefix: str) -> None:
    """Removes the marks of tasks whose results are gone."""
    for path in (job.folder / "done").glob(f"{prefix}-*"):
        path.unlink(missing_ok=True)


def _forget_lost(job: Job, kind: str, flip: int = 0) -> bool:
    """Removes the marks of tasks of whose part of an array a chunk is gone.

    Returns:
      whether there are any.
    """
    encoded = kind == "encode"
    is_stored = job_arrays.stored_parts(_coarse_path(job, flip) if encoded else _map_path(job))
    lost = []
    for mark in (job.folder / "done").glob(f"{kind}-{flip}-*"):
        tile = int(mark.name.rpartition("-")[2])
        if not is_stored(job.plan.coarse_core(tile) if encoded else job.plan.cores[tile]):
            lost.append(mark)
    for mark in lost:
        mark.unlink(missing_ok=True)
    return bool(lost)


def _check_kept(job: Job, kind: str) -> None:
    """Makes sure, after all tasks of a kind, that no chunk that they have read was removed.

    Raises:
      InputError: some were; the marks of all that may be wrong are removed.
    """
    lost = []
    if kind == "decode":
        flips = range(len(job.plan.flips))
        lost = [_coarse_path(job, flip) for flip in flips if _forget_lost(job, "encode", flip)]
    elif kind == "find" and _forget_lost(job, "decode"):
        lost = [_map_path(job)]
    if lost:
        _forget(job, kind)
        raise InputError(
            f"{lost[0]}: a part of it was removed while it was needed; the same command computes"
            " it anew"
        )
