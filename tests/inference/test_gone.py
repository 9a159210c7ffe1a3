"""Results of tasks that are gone are computed anew, or an error: never zeros, as without cells."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import cells, tasks
from cellcount_jax.inference.job import Engine, Job, Task
from cellcount_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def make_job(untrained_model: Callable[..., TrainedModel]) -> Callable[..., Job]:
    """Makes a job of an image in tiles, with some settings changed."""
    image = Array(np.random.default_rng(0).normal(100, 20, (60, 60)).astype(np.float32), 2)

    def make(folder: Path, *, rule: str = "peaks") -> Job:
        model = untrained_model(2, predict__max_voxels=2500, detect__rule=rule)
        return Job(dataclasses.replace(model, thresholds={rule: 0.002}), image, folder)

    return make


def removing(job: Job, before: str, name: str) -> Engine:
    """The usual engine, but a folder or a file is removed before tasks of one kind."""

    def engine(todo: Sequence[Task], title: str) -> None:
        if title == before:
            path = job.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        tasks.one_by_one(job)(todo, title)

    return engine


def test_a_map_that_is_removed_while_it_is_needed(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    expected = cells.find(make_job(tmp_path / "undisturbed"))
    assert expected.tiles > 1 and len(expected.points) > 10
    job = make_job(tmp_path / "disturbed")
    with pytest.raises(InputError, match=r"map\.zarr.*was removed while"):
        cells.find(job, engine=removing(job, "searching", "map.zarr"))
    # All marks of what was in the array are there still.
    assert len(list((job.folder / "done").glob("compute-*"))) == expected.tiles
    found = cells.find(make_job(tmp_path / "disturbed"))
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_chunk_that_is_removed_while_it_is_needed(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    """Zarr reads it as zeros: it is noticed once all tasks that may have read it are done."""
    expected = cells.find(make_job(tmp_path / "undisturbed"))
    job = make_job(tmp_path / "disturbed")
    with pytest.raises(InputError, match=r"map\.zarr.*part of it was removed while"):
        cells.find(job, engine=removing(job, "searching", "map.zarr/c/0/0/0"))
    found = cells.find(make_job(tmp_path / "disturbed"))
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("name", ["map.zarr", "peaks", "survey.npz", "done"])
@pytest.mark.parametrize("rule", ["peaks", "components"])
def test_what_is_removed_after_the_count_is_computed_anew(
    tmp_path: Path, make_job: Callable[..., Job], rule: str, name: str
) -> None:
    expected = cells.find(make_job(tmp_path, rule=rule))
    assert len(expected.points) > 5
    gone = tmp_path / name
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink(missing_ok=True)
    found = cells.find(make_job(tmp_path, rule=rule))
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.candidates, expected.candidates)


@pytest.mark.parametrize("kind", ["compute", "find"])
def test_a_worker_of_a_count_that_is_over_writes_nothing(
    tmp_path: Path, make_job: Callable[..., Job], kind: str
) -> None:
    class OverError(Exception):
        pass

    def over() -> None:
        raise OverError

    job = make_job(tmp_path)
    tasks.prepare(job)
    if kind == "find":
        tasks.one_by_one(job)(tasks.pending(job, "compute"), "computing")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OverError):
        tasks.run(dataclasses.replace(job, check=over), tasks.pending(job, kind)[0])
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("rule", ["peaks", "components"])
@pytest.mark.parametrize("kind", ["compute", "find"])
def test_any_chunk_that_is_lost_is_computed_anew(
    tmp_path: Path, make_job: Callable[..., Job], rule: str, kind: str
) -> None:
    """After a count that was stopped after the tasks of a kind, or is over."""
    expected = cells.find(make_job(tmp_path / "whole", rule=rule))
    job = make_job(tmp_path / "stopped", rule=rule)
    tasks.prepare(job)
    for earlier in ("compute", "find")[: 1 if kind == "compute" else 2]:
        tasks.one_by_one(job)(tasks.pending(job, earlier), earlier)
    chunks = sorted(path for path in job.folder.glob("**/c/**/*") if path.is_file())
    # Zeros are stored as well: what is missing is lost.
    assert len(tasks.computed_tiles(job)) == len(job.plan.cores)
    assert len(chunks) == math.prod(job.map.cdata_shape)
    for lost in (chunks[0], chunks[-1]):
        lost.unlink()
    found = cells.find(make_job(tmp_path / "stopped", rule=rule))
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.candidates, expected.candidates)


def test_a_lost_chunk_of_a_count_that_is_over(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    """Another threshold is counted on the stored map, and only the tile of the chunk anew."""
    job = make_job(tmp_path, rule="components")
    expected = cells.find(job)
    marks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("done/compute-*")}
    for lost in sorted(path for path in tmp_path.glob("map.zarr/c/**/*") if path.is_file())[:1]:
        lost.unlink()
    found = cells.find(make_job(tmp_path, rule="components"))
    np.testing.assert_array_equal(found.points, expected.points)
    assert len(found.points) > 5
    again = [path for path, time in marks.items() if path.stat().st_mtime_ns != time]
    assert len(again) == 1 < len(marks)
