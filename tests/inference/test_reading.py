"""The tasks that read an image: in any order, stopped and resumed, the survey is the same."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images import block_grid
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Array, Readable, Region, Resampled, all_of
from cellcount_jax.inference import reading, tasks
from cellcount_jax.inference.job import Engine, Job, Task
from cellcount_jax.inference.trained_model import TrainedModel

NORMALISATION = Normalisation("contrast", block=(30, 40))


class Watched(Array):
    """An image that counts how often each voxel is read."""

    def read(self, region: Region) -> np.ndarray:
        self.__dict__.setdefault("times", np.zeros(self.shape, int))[region] += 1
        return super().read(region)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks are read together, and a task has two groups of them."""
    monkeypatch.setattr(block_grid, "_MAX_READ_VOXELS", 5_000)
    monkeypatch.setattr(reading, "_GROUPS", 2)


@pytest.fixture
def make_job(untrained_model: Callable[..., TrainedModel]) -> Callable[..., Job]:
    """Makes a job of an image in tiles; of one that is resampled, where that is wanted."""
    model = dataclasses.replace(
        untrained_model(2, predict__max_voxels=9000), normalisation=NORMALISATION
    )
    values = np.random.default_rng(0).normal(1000, 20, (190, 260)).astype(np.float32)
    values[60:110, 90:150] = 3.0  # nothing was recorded there

    def make(folder: Path, *, rescaled: bool = False) -> Job:
        image: Readable = Watched(values, 2)
        if rescaled:
            image = Resampled(image, (200, 300))
        folder.mkdir(exist_ok=True)
        return Job(model, image, folder)

    return make


def files_of(job: Job) -> list[str]:
    return sorted(path.name for path in (job.folder / reading.FOLDER).iterdir())


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("rescaled", [False, True])
def test_the_order_of_tasks_and_doing_them_twice_change_no_bit(
    tmp_path: Path, make_job: Callable[..., Job], rescaled: bool
) -> None:
    def at_random(job: Job) -> Engine:
        def engine(todo: Sequence[Task], title: str) -> None:
            assert title == "reading" and len(todo) > 3
            again = list(todo) * 2
            random.Random(0).shuffle(again)
            tasks.one_by_one(job)(again, title)

        return engine

    usual, other = (make_job(tmp_path / name, rescaled=rescaled) for name in ("usual", "other"))
    tasks.prepare(usual)
    tasks.prepare(other, at_random(other))
    expected = (usual.folder / "survey.npz").read_bytes()
    assert (other.folder / "survey.npz").read_bytes() == expected
    # As in memory, where nothing is read by tasks.
    image = usual.image
    values = NORMALISATION.measure_image(image)(image.read(all_of(image.shape)))
    np.testing.assert_array_equal(usual.read(all_of(image.shape)), values)


@pytest.mark.usefixtures("small_parts")
def test_reading_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    usual = make_job(tmp_path / "usual")
    tasks.prepare(usual)
    todo = reading.pending(make_job(tmp_path / "stopped"))
    times = np.zeros(usual.image.shape, int)
    for _ in range(len(todo)):
        job = make_job(tmp_path / "stopped")

        def engine(todo: Sequence[Task], title: str, job: Job = job) -> None:
            tasks.one_by_one(job)(todo[:1], title)
            if len(todo) > 1:
                raise KeyboardInterrupt

        try:
            tasks.prepare(job, engine)
        except KeyboardInterrupt:
            assert files_of(job) and not (job.folder / "survey.npz").exists()
        times += job.image.__dict__["times"]
    assert (times == 1).all()
    assert not (job.folder / reading.FOLDER).exists()
    expected = (usual.folder / "survey.npz").read_bytes()
    assert (job.folder / "survey.npz").read_bytes() == expected


def removed(file: Path) -> None:
    file.unlink()


def cut_off(file: Path) -> None:
    """As after a power cut."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def of_other_groups(file: Path) -> None:
    """As of an earlier version that read other groups together."""
    file.write_bytes((file.parent / "2.npz").read_bytes())


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("damage", [removed, cut_off, of_other_groups])
def test_what_was_read_and_is_gone_is_read_again(
    tmp_path: Path, make_job: Callable[..., Job], damage: Callable[[Path], None]
) -> None:
    usual, job = make_job(tmp_path / "usual"), make_job(tmp_path / "damaged")
    tasks.prepare(usual)

    def engine(todo: Sequence[Task], title: str) -> None:
        tasks.one_by_one(job)(todo, title)
        damage(job.folder / reading.FOLDER / "1.npz")

    with pytest.raises(InputError, match=r"1\.npz: was removed or damaged while it was needed"):
        tasks.prepare(job, engine)
    assert reading.pending(job) == [Task("read", (1,))]
    tasks.prepare(job)
    expected = (usual.folder / "survey.npz").read_bytes()
    assert (job.folder / "survey.npz").read_bytes() == expected
