"""A count in tiles finds what the whole image has, whatever the tiles, the order and the stops."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from scipy import ndimage

from cellcount_jax.config import default_config
from cellcount_jax.counting import engines
from cellcount_jax.errors import InputError
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import cells, survey, tasks
from cellcount_jax.inference.cells import LoadedModel
from cellcount_jax.inference.tasks import Job, Task
from cellcount_jax.network.sau_net import create_model
from cellcount_jax.variants import use_volumes

pytestmark = pytest.mark.usefixtures("quick_compiling")

# Sizes that no stride and no block divides.
SHAPES = {2: (93, 131), 3: (27, 67, 50)}
LIMITS = {2: (56 * 64, 80 * 64), 3: (46_000, 60_000)}


def a_model(ndim: int, **changed: Any) -> LoadedModel:
    """A network with random weights."""
    config = default_config()
    if ndim == 3:
        use_volumes(config)
        config.model.strides = ((1, 2, 2), (2, 2, 2))
    config.train.crop = {2: (16, 24), 3: (4, 16, 8)}[ndim]
    config.model.update({"levels": 3, "features": 2, "head_bias": 0.1})
    config.target.update({"scale": 1.0, "count_head": False})
    config.predict.flips = False
    config.update_from_flattened_dict(changed)
    example = jnp.zeros((1, *(8,) * ndim, 1))
    shapes = jax.eval_shape(create_model(config).init, jax.random.key(0), example)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        # With this seed the map has peaks of all heights.
        rng = np.random.default_rng([17, *jax.tree_util.keystr(path).encode()])
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        width = 0.3 if len(leaf.shape) < 2 else (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return (width * rng.normal(size=leaf.shape)).astype(np.float32)

    return LoadedModel(
        config=config,
        step=0,
        variables=jax.tree_util.tree_map_with_path(draw, shapes),
        normalisation=Normalisation("standardise"),
        channels=1,
        spacing={2: (1.0, 1.0), 3: (2.0, 1.0, 1.0)}[ndim],
        spacing_known=True,
        count_factor=3.0 if config.target.count_head else 1.0,
        thresholds={"peaks": 0.3, "components": 0.3, "fidt": 0.4},
    )


def picture(ndim: int) -> Array:
    rng = np.random.default_rng(2)
    values = ndimage.gaussian_filter(rng.normal(size=SHAPES[ndim]), 1.0)
    return Array((1000 + 200 * values / values.std()).astype(np.float32), ndim)


def job_of(model: LoadedModel, image: Array, folder: Path, limit: int, **options: Any) -> Job:
    config = model.config.copy_and_resolve_references()
    config.predict.max_voxels = limit
    return Job(dataclasses.replace(model, config=config), image, folder, **options)


def located(job: Job, threshold: float | None = None) -> cells.Found:
    return cells.locate(job, threshold=threshold, engine=engines.in_threads(job))


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
    tmp_path: Path, ndim: int, changed: dict[str, Any]
) -> None:
    model, image = a_model(ndim, **changed), picture(ndim)
    whole = cells.predict(model, image)
    assert whole.tiles == 1 and len(whole.points) > 10 and len(whole.candidates) > 20
    if "target.count_head" in changed:
        assert len(np.unique(whole.scores)) < len(whole.points), "some must be split"
    for limit in LIMITS[ndim]:
        found = located(job_of(model, image, tmp_path / str(limit), limit))
        assert found.tiles >= 4 and found.constant == found.outside == 0
        tolerance = 1e-4 if "target.count_head" in changed else 0
        np.testing.assert_allclose(found.points, whole.points, atol=tolerance)
        np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)
        np.testing.assert_allclose(found.candidates, whole.candidates, atol=1e-5)
        if whole.integral is None:
            assert found.integral is None
        else:
            assert found.integral == pytest.approx(whole.integral, rel=1e-4)


def test_the_order_of_tasks_and_doing_them_twice_change_no_bit(tmp_path: Path) -> None:
    model, image = a_model(2), picture(2)

    def at_random(job: Job) -> tasks.Engine:
        def engine(todo: Sequence[Task], title: str) -> None:
            again = list(todo) * 2
            random.Random(0).shuffle(again)
            tasks.one_by_one(job, again)

        return engine

    job = job_of(model, image, tmp_path / "a", LIMITS[2][0])
    expected = located(job)
    job = job_of(model, image, tmp_path / "b", LIMITS[2][0])
    found = cells.locate(job, threshold=None, engine=at_random(job))
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("stop", [0, 3, 14, 30, 35])
def test_a_count_that_was_stopped_goes_on(tmp_path: Path, stop: int) -> None:
    model, image = a_model(2), picture(2)
    expected = located(job_of(model, image, tmp_path / "a", LIMITS[2][0]))
    done: list[Task] = []

    def limited(job: Job, most: int) -> tasks.Engine:
        def engine(todo: Sequence[Task], title: str) -> None:
            for task in todo:
                if len(done) == most:
                    raise KeyboardInterrupt
                tasks.run(job, task)
                done.append(task)

        return engine

    job = job_of(model, image, tmp_path / "b", LIMITS[2][0])
    total = 3 * len(job.cut.tiles)
    assert total == 36
    with pytest.raises(KeyboardInterrupt):
        cells.locate(job, threshold=None, engine=limited(job, stop))
    job = job_of(model, image, tmp_path / "b", LIMITS[2][0])
    found = cells.locate(job, threshold=None, engine=limited(job, total))
    assert len(done) == len(set(done)) == total
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_full_disk_is_one_line_and_the_count_goes_on(tmp_path: Path) -> None:
    model, image = a_model(2), picture(2)
    expected = located(job_of(model, image, tmp_path / "a", LIMITS[2][0]))
    job = job_of(model, image, tmp_path / "b", LIMITS[2][0])

    def full(todo: Sequence[Task], title: str) -> None:
        if title == "decoding":
            tasks.run(job, todo[0])
            raise OSError(errno.ENOSPC, "No space left on device")
        tasks.one_by_one(job, todo)

    with pytest.raises(InputError, match=r"/b: cannot be .*\(No space left .*goes on once"):
        cells.locate(job, threshold=None, engine=full)
    assert len(tasks.tasks(job, "decode")) == len(job.cut.tiles) - 1
    np.testing.assert_array_equal(located(job).points, expected.points)


@pytest.mark.parametrize("rule", ["peaks", "components"])
def test_another_threshold_needs_no_second_computation(tmp_path: Path, rule: str) -> None:
    model, image = a_model(2, **{"detect.rule": rule}), picture(2)
    located(job_of(model, image, tmp_path, LIMITS[2][0]))

    def none(todo: Sequence[Task], title: str) -> None:
        raise AssertionError(todo)

    job = job_of(model, image, tmp_path, LIMITS[2][0])
    for threshold in (0.1, 0.5):
        found = cells.locate(job, threshold=threshold, engine=none)
        whole = cells.predict(model, image, threshold=threshold)
        np.testing.assert_array_equal(found.points, whole.points)
    assert not (tmp_path / "coarse").exists()
    assert (tmp_path / "map.zarr").exists() == (rule == "components")


def test_tiles_without_anything_are_not_computed(tmp_path: Path) -> None:
    model = a_model(2)
    values = np.zeros((93, 400), np.float32)
    values[:, 60:100] = picture(2).values[:, :40]
    job = job_of(model, Array(values, 2), tmp_path, LIMITS[2][0])
    found = located(job)
    busy = job.surveyed.busy
    assert found.constant == len(busy) - busy.sum() > 10
    # What is computed is what it is with nothing skipped.
    whole = cells.predict(model, Array(values, 2))
    inside = (whole.points[:, 1] >= 40) & (whole.points[:, 1] < 120)
    here = (found.points[:, 1] >= 40) & (found.points[:, 1] < 120)
    np.testing.assert_array_equal(found.points[here], whole.points[inside])
    assert inside.sum() > 5


def test_nothing_is_there_at_all(tmp_path: Path) -> None:
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


def test_only_what_lies_in_the_mask_counts(tmp_path: Path) -> None:
    model, image = a_model(2, **{"target.kernel": "mask"}), picture(2)
    whole = cells.predict(model, image)
    job = job_of(model, image, tmp_path, LIMITS[2][0], mask=Half())
    found = located(job)
    assert found.outside > 3 and found.constant == 0
    np.testing.assert_array_equal(found.points, whole.points[whole.points[:, 1] < 50])
    values = image.read((slice(0, 93), slice(0, 131)))
    alone = cells.in_one_piece(model, values, mask=Half())
    np.testing.assert_array_equal(alone.points, found.points)


def test_a_survey_comes_back_from_its_file(tmp_path: Path) -> None:
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
        assert stored.busy.all() and len(stored.busy) == len(job.cut.tiles)


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
def test_a_survey_reads_every_voxel_once_and_tells_how_far_it_is(
    tmp_path: Path, normalisation: Normalisation
) -> None:
    values = np.full((93, 400), 3.0, np.float32)
    values[20:60, 300:340] = 4.0
    values[92, 0] = 2.0
    image = Watched(values, 2)
    model = dataclasses.replace(a_model(2), normalisation=normalisation)
    job = job_of(model, image, tmp_path, LIMITS[2][0])
    told: list[tuple[str, int]] = []

    @contextlib.contextmanager
    def progress(title: str, voxels: int) -> Iterator[Any]:
        told.append((title, voxels))
        yield SimpleNamespace(update=lambda voxels: told.append(("", voxels)))

    tasks.prepare(job, progress)
    assert (image.__dict__["times"] == 1).all()
    (title, total), *parts = told
    assert title == "reading" and total == 93 * 400 == sum(voxels for _, voxels in parts)
    # What acts on a tile is not known here to the voxel; far from it there is nothing.
    for core, busy in zip(job.cut.cores, job.surveyed.busy, strict=True):
        near, far = ([max(n, 0) for p in core for n in (p.start - m, p.stop + m)] for m in (30, 90))
        around = [values[slice(*r[:2]), slice(*r[2:])] for r in (near, far)]
        assert busy or np.ptp(around[0]) == 0
        assert not busy or np.ptp(around[1]) > 0
    assert 0 < job.surveyed.constant < len(job.cut.tiles)


def test_an_image_that_does_not_fit_the_model(tmp_path: Path) -> None:
    values = np.zeros((93, 131, 3), np.float32)
    with pytest.raises(InputError, match="2D with 3 channels, the model was trained on 2D"):
        located(job_of(a_model(2), Array(values, 2), tmp_path, LIMITS[2][0]))


def test_a_large_array_is_predicted_in_tiles() -> None:
    model, image = a_model(2), picture(2)
    whole = model.predict(image.values)
    model.config.predict.max_voxels = LIMITS[2][0]
    tiles = model.predict(image.values, spacing=(1.0, 1.0))
    np.testing.assert_array_equal(tiles[0], whole[0])
    stored = zarr.array(image.values, chunks=(40, 50))
    np.testing.assert_array_equal(model.predict(stored)[0], whole[0])
    finer = model.predict(image.values.repeat(2, 0), spacing=(0.5, 1.0))
    assert abs(len(finer[0]) - len(whole[0])) < 0.2 * len(whole[0])
