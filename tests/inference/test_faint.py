"""Tiles in which nothing is bright enough for a cell are left out, and no cell with them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Array, Resampled, all_of, around
from cellcount_jax.inference import cells, faint, model_file, reference
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.job import Job
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.inference.ranges import Ranges

_EDGES = (30, 70, 150)
_CELLS = np.array(list(itertools.product((6, 15, 24), range(8, 66, 10), range(8, 60, 10))))


def volume(*, dark: float = 200.0) -> np.ndarray:
    """Tissue with cells on the left, medium of a level beside it, both with noise."""
    rng = np.random.default_rng(5)
    values = np.full((*_EDGES, 1), dark, np.float32)
    values[:, :, :70] = 2000.0
    spots = np.zeros(_EDGES, np.float32)
    spots[tuple(_CELLS.T)] = 1.0
    spots = ndimage.gaussian_filter(spots, (0.6, 1.4, 1.4))
    values[..., 0] += 1500 * spots / spots.max()
    noise = np.where(np.arange(_EDGES[-1]) < 70, 60.0, 8.0)
    values[..., 0] += noise * rng.normal(size=_EDGES)
    return values


def test_pairs_of_neighbours() -> None:
    values = np.array([[3.0, 1.0, 4.0, 4.0], [9.0, 2.0, 6.0, 5.0]])
    assert faint.pairs(values).tolist() == [[1, 1, 4, 4], [2, 2, 5, 5]]


def test_the_faintest_cells_of_an_image() -> None:
    values = np.zeros((20, 40))
    points = np.array([[5.0, 5.0], [5.0, 25.0], [14.6, 15.4]])
    for height, (y, x) in zip((7.0, 3.0, 5.0), np.rint(points).astype(int), strict=True):
        values[y, x : x + 2] = height
    values[5, 24] = 50.0  # one bright pixel is no cell
    read = values[..., None].__getitem__
    found = faint.of_cells(read, values.shape, points, diameter=(4.0, 4.0))
    assert found == pytest.approx(np.quantile([7.0, 3.0, 5.0], 0.01))
    assert math.isnan(faint.of_cells(read, values.shape, points[:0], diameter=(4.0, 4.0)))


def test_a_reference_is_lowered_and_never_raised() -> None:
    known = {faint.NAME: (2.0, 9.0), "sign": (1.0, 1.0)}
    assert faint.lowered(known, 1.23456) == {**known, faint.NAME: (1.235, 9.0)}
    assert faint.lowered(known, 3.0) == faint.lowered(known, math.nan) == known
    assert faint.lowered({}, 1.0) == {}


def test_half_of_the_faintest_is_the_limit() -> None:
    assert faint.limit({faint.NAME: (1.4, 9.0)}) == 0.7
    assert faint.limit({}) == faint.limit({faint.NAME: (-0.1, 2.0)}) == -math.inf


@pytest.mark.parametrize("method", ["contrast", "signal_to_noise"])
def test_nothing_in_a_region_is_above_its_most(method: str) -> None:
    image = Array(volume(), 3)
    measured = Normalisation(method, block=(10, 20, 20)).measure_image(image)
    values = measured(image.values)
    rng = np.random.default_rng(0)
    for _ in range(60):
        start = [int(rng.integers(0, n - 1)) for n in _EDGES]
        stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, _EDGES, strict=True)]
        region = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
        most = measured.most(float(image.values[region].max()), region)
        assert values[region].max() <= max(most, 0) + 1e-5


def test_dark_boxes_hold_no_bright_pair(small_config: Callable[..., Any]) -> None:
    image = Array(volume(), 3)
    config = small_config(3, **{"predict.max_voxels": 30_000})
    plan = make_plan(config, image.shape)
    ranges = Ranges(plan)
    # In parts that have nothing to do with tiles; so pairs are cut, which leave one voxel alone.
    for first in range(0, _EDGES[-1], 37):
        region = (*all_of(_EDGES[:2]), slice(first, min(first + 37, _EDGES[-1])))
        ranges.add(ranges.of(image.values[region], region), region)
    measured = Normalisation("contrast", block=(10, 20, 20)).measure_image(image)
    paired = faint.pairs(measured(image.values)[..., 0])
    is_dark = ranges.darker(measured, 0.8)
    dark = [around(core, (2, 2, 2), image.shape) for core in plan.cores]
    dark = [region for region in dark if is_dark(region)]
    assert len(dark) > len(plan.cores) / 4
    assert all(paired[region].max() < 0.8 for region in dark)
    everywhere = ranges.darker(measured, -math.inf)
    assert not any(everywhere(core) for core in plan.cores)


def test_tiles_that_are_too_dark_are_left_out_and_no_cell_is(tmp_path: Path) -> None:
    """With a trained model, which finds the same cells as with all tiles."""
    values = np.concatenate([volume(), volume()[:, :, 75:]], axis=2)
    values[:, 40, 200] = 60_000.0  # a hot pixel of the camera
    model = model_file.load_model("nuclei3d").with_settings({"predict.max_voxels": 450_000})
    found = cells.find(Job(model, Array(values, 3), tmp_path / "some"))
    every = model.with_settings({"predict.every_tile": True})
    expected = cells.find(Job(every, Array(values, 3), tmp_path / "every"))
    assert expected.dark == 0 and 0 < found.dark < found.tiles
    assert len(found.points) > 80
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_model_measures_its_faintest_cells(untrained_model: Callable[..., Any]) -> None:
    values = volume()
    model = dataclasses.replace(
        untrained_model(3), normalisation=Normalisation("contrast", block=(10, 20, 20))
    )
    points = _CELLS.astype(np.float32)
    scores = np.ones(len(points), np.float32)
    found = Found(points, scores, 0.3, points, scores, None)
    low, high = reference.of_images(model, [(Array(values, 3), found)])[faint.NAME]
    # 1500 above 2000: 10 asinh(0.375) = 3.7, less where neighbours share it.
    assert low == high and 2.0 < low < 3.8
    dark = reference.of_images(model, [(Array(5000 - values, 3), found)])
    assert faint.NAME not in dark and dark["sign"] == (-1.0, -1.0)


def test_a_resampled_image_is_measured_before_that(untrained_model: Callable[..., Any]) -> None:
    """Interpolation lowers the noise, and cells would seem far brighter than a count sees them."""
    shape = (32, 96, 96)
    rng = np.random.default_rng(0)
    values = 3000 + 100 * rng.normal(size=shape)
    points = np.stack(np.meshgrid([8, 24], [20, 50, 80], [20, 50, 80], indexing="ij"), -1)
    points = points.reshape(-1, 3)
    for z, y, x in points:
        values[z - 2 : z + 2, y - 4 : y + 4, x - 4 : x + 4] += 900
    image = Resampled(Array(values.astype(np.float32)[..., None], 3), (16, 48, 48))
    normalisation = Normalisation("contrast", block=(8, 24, 24))
    model = dataclasses.replace(untrained_model(3), normalisation=normalisation)
    seen = normalisation.measure_image(image)(image.read(all_of(image.shape)))
    found = reference.faintest(model, image, (points + 0.5) / 2 - 0.5)
    assert 0.5 < found <= seen.max() < 2
