"""A count in tiles finds the cells of the whole image, whatever the tiles, order and stops."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

from cellcount_jax.counting import engines
from cellcount_jax.errors import InputError
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import cells, survey, tasks
from cellcount_jax.inference import plan as plans
from cellcount_jax.inference.job import Engine, Job, Task
from cellcount_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("quick_compiling", "volumes_pass")

LIMITS = {2: (6_600, 9_000), 3: (13_600, 26_000)}
Make = Callable[..., TrainedModel]
Picture = Callable[[int], Array]


@pytest.fixture(autouse=True)
def flat_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tiles of a volume lie behind each other."""
    monkeypatch.setattr(plans, "_DEPTH", 8)


@pytest.fixture
def a_model(small_config: Callable[..., Any], random_variables: Callable[[Any], Any]) -> Make:
    """Gives a network with random weights, with some settings changed."""

    def make(ndim: int, **changed: Any) -> TrainedModel:
        fixed = {"model.head_bias": 0.1, "target.scale": 1.0, "target.count_head": False}
        config = small_config(ndim, **{**fixed, **changed})
        return TrainedModel(
            config=config,
            step=0,
            variables=random_variables(config),
            normalisation=Normalisation("standardise"),
            channels=1,
            spacing={2: (1.0, 1.0), 3: (2.0, 1.0, 1.0)}[ndim],
            spacing_known=True,
            count_factor=3.0 if config.target.count_head else 1.0,
            thresholds={"peaks": 0.3, "components": 0.3, "fidt": 0.4},
        )

    return make


def job_of(model: TrainedModel, image: Array, folder: Path, limit: int, **options: Any) -> Job:
    return Job(model.with_settings({"predict.max_voxels": limit}), image, folder, **options)


def located(job: Job, threshold: float | None = None) -> cells.Found:
    return cells.find(job, threshold=threshold, engine=engines.in_threads(job))


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "2D": (2, {}),
    "2D, mirror images": (2, {"predict.flips": True}),
    "2D, components": (2, {"detect.rule": "components"}),
    "2D, relative to the maximum": (2, {"detect.rule": "fidt"}),
    "2D, merged cells split": (2, {"target.count_head": True, "detect.split_from": 1.2}),
    "2D, Gaussian": (2, {"target.kernel": "gaussian"}),
    "2D, probabilities": (2, {"target.kernel": "mask"}),
    "3D": (3, {}),
    "3D, mirror images": (3, {"predict.flips": True}),
    "3D, components, no attention": (
        3,
        {"detect.rule": "components", "model.attention": "none"},
    ),
}


@pytest.mark.parametrize(("ndim", "changed"), CASES.values(), ids=CASES)
def test_tiles_find_what_the_whole_image_has(
    tmp_path: Path, ndim: int, changed: dict[str, Any], a_model: Make, picture: Picture
) -> None:
    model, image = a_model(ndim, **changed), picture(ndim)
    whole = model.find(image)
    assert whole.tiles == 1 and len(whole.points) > 10 and len(whole.candidates) > 20
    if "target.count_head" in changed:
        assert len(np.unique(whole.scores)) < len(whole.points), "some must be split"
    smaller, larger = LIMITS[ndim]
    if "model.attention" in changed:
        smaller //= 2  # tiles hold no blocks
    columns = []
    for limit in (smaller, larger):
        job = job_of(model, image, tmp_path / str(limit), limit)
        columns.append(len({str(core[1:]) for core in job.plan.cores}))
        found = located(job)
        assert found.tiles >= 4 and found.constant == found.outside == 0
        tolerance = 1e-4 if "target.count_head" in changed else 0
        np.testing.assert_allclose(found.points, whole.points, atol=tolerance)
        np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)
        np.testing.assert_allclose(found.candidates, whole.candidates, atol=1e-5)
        if whole.integral is None:
            assert found.integral is None
        else:
            assert found.integral == pytest.approx(whole.integral, rel=1e-4)
    assert columns[0] > 1, "tiles beside each other"


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_order_of_tasks_and_doing_them_twice_change_no_bit(
    tmp_path: Path, a_model: Make, picture: Picture, ndim: int
) -> None:
    model, image = a_model(ndim), picture(ndim)

    def at_random(job: Job) -> Engine:
        def engine(todo: Sequence[Task], title: str) -> None:
            again = list(todo) * 2
            random.Random(0).shuffle(again)
            tasks.one_by_one(job)(again, title)

        return engine

    job = job_of(model, image, tmp_path / "a", LIMITS[ndim][0])
    expected = located(job)
    job = job_of(model, image, tmp_path / "b", LIMITS[ndim][0])
    found = cells.find(job, engine=at_random(job))
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_count_that_is_stopped_again_and_again_goes_on(
    tmp_path: Path, a_model: Make, picture: Picture
) -> None:
    model, image = a_model(2), picture(2)
    expected = located(job_of(model, image, tmp_path / "a", LIMITS[2][0]))
    done: list[Task] = []

    def limited(job: Job, most: int) -> Engine:
        def engine(todo: Sequence[Task], title: str) -> None:
            for task in todo:
                if len(done) == most:
                    raise KeyboardInterrupt
                tasks.run(job, task)
                done.append(task)

        return engine

    total = 22
    for stop in (0, 3, 11, 14, 21):
        job = job_of(model, image, tmp_path / "b", LIMITS[2][0])
        assert total == 2 * len(job.plan.cores)
        with pytest.raises(KeyboardInterrupt):
            cells.find(job, engine=limited(job, stop))
        assert len(done) == stop
    job = job_of(model, image, tmp_path / "b", LIMITS[2][0])
    found = cells.find(job, engine=limited(job, total))
    assert len(done) == len(set(done)) == total
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("flips", [False, True], ids=["", "mirror images"])
def test_a_run_of_tiles_that_is_stopped_goes_on_with_the_next_tile(
    tmp_path: Path, a_model: Make, picture: Picture, flips: bool
) -> None:
    model, image = a_model(3, **{"predict.flips": flips}), picture(3)
    expected = located(job_of(model, image, tmp_path / "a", LIMITS[3][0]))
    done = 0

    def limited(job: Job, most: int) -> Engine:
        def engine(todo: Sequence[Task], title: str) -> None:
            def update(tiles: int) -> None:
                nonlocal done
                done += tiles if title == "computing" else 0
                if done == most:
                    raise KeyboardInterrupt

            for task in todo:
                tasks.run(job, task, update)

        return engine

    for stop in (1, 3):
        job = job_of(model, image, tmp_path / "b", LIMITS[3][0])
        runs = job.plan.runs(range(len(job.plan.cores)))
        assert len(runs) > 1 and len(runs[0]) == 4, "tiles beside and behind each other"
        with pytest.raises(KeyboardInterrupt):
            cells.find(job, engine=limited(job, stop))
        # The last mirror image, in which planes pass from the last on, completes maps.
        left = runs[0][:-stop] if flips else runs[0][stop:]
        assert done == stop and tasks.pending(job, "compute")[0].tiles == left
    job = job_of(model, image, tmp_path / "b", LIMITS[3][0])
    found = cells.find(job, engine=limited(job, -1))
    assert done == len(job.plan.cores), "none is computed twice"
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_full_disk_is_one_line_and_the_count_goes_on(
    tmp_path: Path, a_model: Make, picture: Picture
) -> None:
    model, image = a_model(2), picture(2)
    expected = located(job_of(model, image, tmp_path / "a", LIMITS[2][0]))
    job = job_of(model, image, tmp_path / "b", LIMITS[2][0])

    def full(todo: Sequence[Task], title: str) -> None:
        if title == "computing":
            tasks.run(job, todo[0])
            raise OSError(errno.ENOSPC, "No space left on device")
        tasks.one_by_one(job)(todo, title)

    with pytest.raises(InputError, match=r"/b: cannot be .*\(no space left .*goes on once"):
        cells.find(job, engine=full)
    assert len(tasks.pending(job, "compute")) == len(job.plan.cores) - 1
    np.testing.assert_array_equal(located(job).points, expected.points)


@pytest.mark.parametrize("rule", ["peaks", "components", "fidt"])
def test_a_low_threshold_of_the_model_keeps_lower_peaks(
    tmp_path: Path, rule: str, a_model: Make, picture: Picture
) -> None:
    model, image = a_model(2, **{"detect.rule": rule}), picture(2)
    usual = model.find(image)
    model = dataclasses.replace(model, thresholds={rule: 0.02})
    whole, tiled = model.find(image), located(job_of(model, image, tmp_path, LIMITS[2][0]))
    assert len(whole.candidates) > len(usual.candidates) > 20 and len(whole.points) > 10
    np.testing.assert_array_equal(tiled.points, whole.points)
    assert tiled.threshold == pytest.approx(whole.threshold, rel=1e-5)


@pytest.mark.parametrize("rule", ["peaks", "components"])
def test_another_threshold_needs_no_second_computation(
    tmp_path: Path, rule: str, a_model: Make, picture: Picture
) -> None:
    model, image = a_model(2, **{"detect.rule": rule}), picture(2)
    located(job_of(model, image, tmp_path, LIMITS[2][0]))

    def none(todo: Sequence[Task], title: str) -> None:
        raise AssertionError(todo)

    job = job_of(model, image, tmp_path, LIMITS[2][0])
    for threshold in (0.1, 0.5):
        found = cells.find(job, threshold=threshold, engine=none)
        whole = model.find(image, threshold=threshold)
        np.testing.assert_array_equal(found.points, whole.points)
    assert (tmp_path / "map.zarr").exists() == (rule == "components")


def test_tiles_without_anything_are_not_computed(
    tmp_path: Path, a_model: Make, picture: Picture
) -> None:
    model = a_model(2)
    values = np.zeros((93, 400), np.float32)
    values[:, 60:100] = picture(2).values[:, :40]
    job = job_of(model, Array(values, 2), tmp_path, LIMITS[2][0])
    found = located(job)
    busy = job.survey.computed
    assert found.constant == len(busy) - busy.sum() > 10
    # What is computed is what it is with nothing skipped.
    whole = model.find(Array(values, 2))
    inside = (whole.points[:, 1] >= 40) & (whole.points[:, 1] < 120)
    here = (found.points[:, 1] >= 40) & (found.points[:, 1] < 120)
    np.testing.assert_array_equal(found.points[here], whole.points[inside])
    assert inside.sum() > 5


def test_nothing_is_there_at_all(tmp_path: Path, a_model: Make) -> None:
    job = job_of(a_model(2), Array(np.full((93, 131), 7.0), 2), tmp_path, LIMITS[2][0])
    found = located(job)
    assert found.points.shape == (0, 2) and found.scores.shape == (0,)
    assert found.constant == found.tiles


class Half:
    """A mask of what lies left of a column."""

    def touches(self, region: tuple[slice, ...], shape: Sequence[int]) -> bool:
        return region[-1].start < 50

    def holds(self, points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return np.asarray(points[:, -1] < 50)


def test_only_what_lies_in_the_mask_counts(tmp_path: Path, a_model: Make, picture: Picture) -> None:
    model, image = a_model(2, **{"target.kernel": "mask"}), picture(2)
    whole = model.find(image)
    job = job_of(model, image, tmp_path, LIMITS[2][0], mask=Half())
    found = located(job)
    assert found.outside > 3 and found.constant == 0
    np.testing.assert_array_equal(found.points, whole.points[whole.points[:, 1] < 50])
    alone = cells.find(Job(model, image, tmp_path, mask=Half()))
    assert alone.tiles == 1
    np.testing.assert_array_equal(alone.points, found.points)


def test_a_survey_comes_back_from_its_file(tmp_path: Path, a_model: Make, picture: Picture) -> None:
    image = picture(3)
    for normalisation in (
        Normalisation("standardise"),
        Normalisation("contrast", block=(10, 20, 20)),
        Normalisation("dataset", centre=(900.0,), scale=(150.0,)),
    ):
        model = dataclasses.replace(a_model(3), normalisation=normalisation)
        job = job_of(model, image, tmp_path / normalisation.method, LIMITS[3][0])
        job.folder.mkdir()
        tasks.prepare(job)
        values = image.read(tuple(slice(0, n) for n in image.shape))
        region = (slice(3, 20), slice(10, 40), slice(0, 50))
        np.testing.assert_array_equal(job.read(region), normalisation(values)[region])
        stored = survey.load(job.folder / "survey.npz")
        assert stored.computed.all() and len(stored.computed) == len(job.plan.cores)


class Watched(Array):
    """An image that counts how often each voxel is read."""

    def read(self, region: tuple[slice, ...]) -> np.ndarray:
        self.__dict__.setdefault("times", np.zeros(self.shape, int))[region] += 1
        return super().read(region)


@pytest.mark.parametrize(
    "normalisation",
    [
        Normalisation("standardise"),
        Normalisation("robust_log"),
        Normalisation("contrast", block=(30, 40)),
        Normalisation("dataset", centre=(900.0,), scale=(150.0,)),
    ],
    ids=lambda n: str(n.method),
)
def test_a_survey_reads_every_voxel_once_and_shows_its_progress(
    tmp_path: Path, normalisation: Normalisation, a_model: Make
) -> None:
    values = np.full((93, 400), 3.0, np.float32)
    values[20:60, 300:340] = 4.0
    values[92, 0] = 2.0
    image = Watched(values, 2)
    model = dataclasses.replace(a_model(2), normalisation=normalisation)
    job = job_of(model, image, tmp_path, LIMITS[2][0])
    shown: list[tuple[str, int]] = []

    @contextlib.contextmanager
    def progress(title: str, total: int) -> Iterator[Any]:
        shown.append((title, total))
        yield SimpleNamespace(update=lambda voxels: shown.append(("", voxels)))

    tasks.prepare(job, progress=progress)
    assert (image.__dict__["times"] == 1).all()
    (title, total), *parts = shown
    assert title == "reading" and total == sum(number for _, number in parts)
    assert total == (1 if normalisation.method == "contrast" else 93 * 400), "a task, or voxels"
    assert not (job.folder / "read").exists()
    # What acts on a tile is not known here to the voxel; far from it there is nothing.
    for core, busy in zip(job.plan.cores, job.survey.computed, strict=True):
        near, far = ([max(n, 0) for p in core for n in (p.start - m, p.stop + m)] for m in (30, 90))
        around = [values[slice(*r[:2]), slice(*r[2:])] for r in (near, far)]
        assert busy or np.ptp(around[0]) == 0
        assert not busy or np.ptp(around[1]) > 0
    assert 0 < job.survey.constant < len(job.plan.cores)


def test_an_image_that_does_not_fit_the_model(tmp_path: Path, a_model: Make) -> None:
    values = np.zeros((93, 131, 3), np.float32)
    with pytest.raises(InputError, match="2D with 3 channels, the model was trained on 2D"):
        located(job_of(a_model(2), Array(values, 2), tmp_path, LIMITS[2][0]))


@pytest.mark.filterwarnings("ignore:doubtful count")
def test_a_large_array_is_predicted_in_tiles(a_model: Make, picture: Picture) -> None:
    model, image = a_model(2), picture(2)
    whole = model.predict(image.values)
    tiled = model.with_settings({"predict.max_voxels": LIMITS[2][0]})
    np.testing.assert_array_equal(tiled.predict(image.values, spacing=(1.0, 1.0))[0], whole[0])
    stored = zarr.array(image.values, chunks=(40, 50))
    np.testing.assert_array_equal(tiled.predict(stored)[0], whole[0])
    finer = tiled.predict(image.values.repeat(2, 0), spacing=(0.5, 1.0))
    assert abs(len(finer[0]) - len(whole[0])) < 0.2 * len(whole[0])
