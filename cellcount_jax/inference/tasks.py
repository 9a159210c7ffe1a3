"""The cells of an image of any size: tasks on a folder, which stop and go on at any time.

A tile after the other is encoded, decoded and searched for peaks (`tiled_maps.py`, `pieces.py`);
what comes of it lies in the folder. A task depends on nothing but the image, the model and what
earlier kinds of tasks left, and says last that it is done: so tasks of a kind run in any order,
in any process, and again after a crash, and the result has the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from cellcount_jax.errors import InputError
from cellcount_jax.images import files
from cellcount_jax.images.files import replacing
from cellcount_jax.images.regions import Readable, Region, extent
from cellcount_jax.inference import plan, survey, tiled_maps, trained_model
from cellcount_jax.inference.survey import Mask, Survey
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps import pieces

# Of the target's peak: lower ones are not kept, and no threshold is lower.
FLOOR = 0.05
FILES = ("survey.npz", "coarse", "map.zarr", "peaks", "done")  # all that is kept in a job's folder
_LONGEST_CHUNK = 64  # voxels along an axis of the map in its file


class Task(NamedTuple):
    """A piece of the work: 'encode' (a tile of a mirror image), 'decode' or 'find' (a tile)."""

    kind: str
    tile: int
    flip: int = 0


# Runs all of some tasks, in any order; a title for its progress.
Engine = Callable[[Sequence[Task], str], None]


class Progress(Protocol):
    """Shows how far something is: as `with progress(title, voxels) as bar: bar.update(done)`."""

    def __call__(self, title: str, voxels: int, /) -> contextlib.AbstractContextManager[Any]:
        """Begins; of so many voxels."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """An image to be counted in tiles.

    Attributes:
      model: a trained model.
      image: raw intensities, on the voxels of the model.
      folder: for what is in progress; the job's own.
      mask: where to look; None = everywhere.
      origin: how another process opens the image, see `job_file.origin`; None = it cannot.
    """

    model: TrainedModel
    image: Readable
    folder: Path
    mask: Mask | None = None
    origin: Mapping[str, Any] | None = None

    @functools.cached_property
    def cut(self) -> plan.Plan:
        """How the image is cut."""
        return plan.plan(self.model.config, self.image.shape)

    @functools.cached_property
    def surveyed(self) -> Survey:
        """The image's; made and kept by `prepare`."""
        return survey.load(self.folder / "survey.npz")

    @functools.cached_property
    def map(self) -> Any:
        """`(*shape, 1 or 2)`, the model's maps as far as they are computed: locations, 0 where they
        are below what is kept, and the density of a model that splits cells by it."""
        return zarr.open_array(self.folder / "map.zarr", mode="r+")

    def coarse(self, flip: int) -> Any:
        """The coarsest level of a mirror image."""
        return zarr.open_array(self.folder / "coarse" / f"{flip}.zarr", mode="r+")

    def read(self, region: Region) -> np.ndarray:
        """Normalised intensities of a part."""
        return self.surveyed.measured(self.image.read(region), region)


def complete(job: Job, engine: Engine, progress: Progress | None = None) -> None:
    """Does what is not done yet of all tasks.

    Args:
      job: the job.
      engine: runs tasks, by `run`.
      progress: shows how much of the image was read to measure it.

    Raises:
      InputError: the image does not fit the model, cannot be read, or its map is flat; or the
        folder cannot be written, for example as the disk is full.
    """
    try:
        prepare(job, progress)
        for kind, title in (("encode", "encoding"), ("decode", "decoding"), ("find", "searching")):
            if todo := tasks(job, kind):
                engine(todo, title)
    except OSError as error:
        # Those of reading the image are input errors.
        raise InputError(
            f"{job.folder}: cannot be written or read ({error.strerror or error}); what is done is"
            " kept, and the same command goes on once that is mended"
        ) from error
    shutil.rmtree(job.folder / "coarse", ignore_errors=True)
    if not keeps_map(job.model):
        shutil.rmtree(job.folder / "map.zarr", ignore_errors=True)


def keeps_map(model: TrainedModel) -> bool:
    """Whether another threshold needs the map, and not only its peaks."""
    return model.config.detect.rule == "components" or trained_model.splits(model)


def prepare(job: Job, progress: Progress | None = None) -> None:
    """Reads the image once, to measure it and to see where there is something; makes arrays."""
    trained_model.check_fits(job.model, len(job.image.shape), job.image.channels)
    if not (job.folder / "survey.npz").exists():
        seen = _seen_around(job.model)
        sizes = zip(job.cut.reach, job.cut.stride, seen, strict=True)
        with (progress or silent)("reading", math.prod(job.image.shape)) as bar:
            made = survey.make(
                job.image,
                job.cut,
                job.model.normalisation,
                mask=job.mask,
                acts=[reach + stride + distance for reach, stride, distance in sizes],
                seen=seen,
                told=bar.update,
            )
        survey.save(made, job.folder / "survey.npz")
    for name in ("done", "peaks"):
        (job.folder / name).mkdir(exist_ok=True)
    cut, config = job.cut, job.model.config
    if tasks(job, "find"):
        _make(
            job.folder / "map.zarr",
            (*cut.shape, 1 + trained_model.splits(job.model)),
            (*(_chunk(size) for size in extent(cut.tiles[0].core)), 1),
        )
    if tasks(job, "decode"):
        chunk = extent(plan.coarse_core(cut, 0))
        features = tiled_maps.coarse_features(config)
        for flip in range(len(cut.flips)):
            path = job.folder / "coarse" / f"{flip}.zarr"
            _make(path, (*cut.coarse, features), (*chunk, features))


def tasks(job: Job, kind: str) -> list[Task]:
    """The tasks of a kind that are not done."""
    busy = np.flatnonzero(job.surveyed.busy).tolist()
    if kind == "encode":
        flips = enumerate(job.cut.flips)
        wanted = [
            Task(kind, i, n) for n, flip in flips for i in survey.needed_tiles(job.cut, busy, flip)
        ]
    else:
        wanted = [Task(kind, i) for i in busy]
    done = {path.name for path in (job.folder / "done").glob(f"{kind}-*")}
    return [task for task in wanted if _name(task) not in done]


def run(job: Job, task: Task) -> None:
    """Does a task, and says so."""
    config, variables, cut = job.model.config, job.model.variables, job.cut
    said: dict[str, float] = {}
    if task.kind == "encode":
        flip = cut.flips[task.flip]
        part = tiled_maps.encode(config, variables, cut, job.read, index=task.tile, flip=flip)
        job.coarse(task.flip)[plan.coarse_core(cut, task.tile)] = part
    elif task.kind == "decode":
        found = tiled_maps.decode(config, variables, cut, job.read, job.coarse, index=task.tile)
        if trained_model.has_density(job.model):
            said["density"] = float(found[..., -1].sum(dtype=np.float64))
        # Zeros take no room in the file.
        found[..., 0][found[..., 0] <= floor(job.model)] = 0
        job.map[cut.cores[task.tile]] = found[..., : job.map.shape[-1]]
    else:
        _find(job, task.tile)
    files.write_json(job.folder / "done" / _name(task), said)


def one_by_one(job: Job, todo: Sequence[Task]) -> None:
    """The simplest engine."""
    for task in todo:
        run(job, task)


def peaks(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """What all 'find' tasks found: `(P, D)` indices, sorted, and `(P,)` values."""
    found = [(np.zeros((0, len(job.cut.shape)), np.int64), np.zeros(0, np.float32))]
    for tile in np.flatnonzero(job.surveyed.busy):
        with np.load(job.folder / "peaks" / f"{tile}.npz", allow_pickle=False) as stored:
            found.append((stored["places"], stored["scores"]))
    places, scores = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
    order = np.lexsort(places.T[::-1])
    return places[order], scores[order]


def integral(job: Job) -> float | None:
    """The number of cells by the density's integral; None of a model without."""
    if not trained_model.has_density(job.model):
        return None
    names = (_name(Task("decode", int(i))) for i in np.flatnonzero(job.surveyed.busy))
    told = (json.loads((job.folder / "done" / name).read_text())["density"] for name in names)
    return job.model.count_factor * math.fsum(told)


@contextlib.contextmanager
def silent(title: str, voxels: int) -> Iterator[Any]:
    """Progress that is not shown."""
    yield types.SimpleNamespace(update=lambda done: None)


def _seen_around(model: TrainedModel) -> list[int]:
    """How far around a place, in voxels, the map decides what is found there."""
    margin = [distance + 2 for distance in model.config.detect.min_distance]
    if trained_model.splits(model):
        reach = trained_model.split_reach(model)
        margin = [m + 2 * math.ceil(reach / s) for m, s in zip(margin, model.spacing, strict=True)]
    return margin


def _find(job: Job, tile: int) -> None:
    """Keeps the peaks of a tile's map."""
    core = job.cut.cores[tile]
    places, scores = pieces.peaks(
        lambda region: np.asarray(job.map[(*region, 0)]),
        job.cut.shape,
        core,
        threshold_abs=floor(job.model),
        min_distance=tuple(job.model.config.detect.min_distance),
    )
    with replacing(job.folder / "peaks" / f"{tile}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, places=places, scores=scores)


def floor(model: TrainedModel) -> float:
    """The least value of a map that is kept."""
    return FLOOR * trained_model.target_peak(model)


def _name(task: Task) -> str:
    return f"{task.kind}-{task.flip}-{task.tile}"


def _chunk(size: int) -> int:
    """The longest chunk that divides a core."""
    return max(n for n in range(1, min(size, _LONGEST_CHUNK) + 1) if size % n == 0)


def _make(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    """A Zarr array that is 0 where nothing was written, if it is not there yet."""
    if (path / "zarr.json").exists():
        return
    sizes = tuple(min(chunk, size) for chunk, size in zip(chunks, shape, strict=True))
    zarr.create_array(
        path,
        shape=shape,
        chunks=sizes,
        dtype="float32",
        fill_value=0.0,
        compressors=BloscCodec(cname="lz4", shuffle="bitshuffle"),
    )
