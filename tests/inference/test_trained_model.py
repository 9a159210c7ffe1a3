"""A trained model on images of any size, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import cellcount_jax
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.metrics import match_points
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.points import read_points
from cellcount_jax.images.regions import Array, Resampled
from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps.detect import find_peaks
from cellcount_jax.network.sau_net import create_model

AXES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def model_2d(run_2d: Path) -> TrainedModel:
    return model_file.load_model(run_2d)


@pytest.fixture(scope="module")
def model_3d(run_3d: Path) -> TrainedModel:
    return model_file.load_model(run_3d)


def test_a_loaded_model_finds_the_cells(model_2d: TrainedModel, cells_2d: Path) -> None:
    for name in ("t0", "t1"):
        image = read_image(cells_2d / "test" / f"{name}.png").pixels
        true = read_points(cells_2d / "test" / f"{name}.csv", ndim=2)
        points, scores = cellcount_jax.predict(model_2d, image)
        assert points.shape == (len(scores), 2) and points.dtype == np.float32
        assert (scores > model_2d.thresholds["peaks"]).all()
        assert match_points(points, true, max_distance=2.0).f1 > 0.85
        assert cellcount_jax.count(model_2d, image) == len(points)


def test_points_are_the_peaks_of_the_map(model_2d: TrainedModel, cells_2d: Path) -> None:
    image = read_image(cells_2d / "test" / "t0.png").pixels
    found = model_2d.predict_maps(image).location
    assert found.shape == image.shape[:-1] and found.dtype == np.float32
    expected = find_peaks(found, threshold_abs=model_2d.thresholds["peaks"], min_distance=(1, 1))
    points, scores = model_2d.predict(image)
    np.testing.assert_array_equal(points, expected)
    np.testing.assert_array_equal(scores, found[tuple(expected.astype(int).T)])


def test_the_mask_baseline_gives_probabilities(model_2d: TrainedModel) -> None:
    model = model_2d.with_settings({"target.kernel": "mask"})
    image = np.random.default_rng(0).uniform(0, 200, (16, 18, 1)).astype(np.float32)
    apply = jax.jit(create_model(model.config).apply)
    logits: Any = apply(model.variables, model.normalisation(image)[None])
    expected = np.asarray(jax.nn.sigmoid(logits))[0, ..., 0]
    np.testing.assert_allclose(model.predict_maps(image).location, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((20, 20, 3), "2D with 3 channels"), ((8, 20, 20, 1), "3D with 1 channels")],
)
def test_an_image_that_does_not_fit_the_model(
    model_2d: TrainedModel, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InputError, match=f"{words}, the model was trained on 2D images with 1"):
        model_2d.predict(np.ones(shape, np.float32))


def test_flips_give_the_mean_over_mirror_images(model_2d: TrainedModel) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (24, 40, 1)).astype(np.float32)

    def mirrored_map(model: TrainedModel, axes: tuple[int, ...]) -> np.ndarray:
        return np.flip(model.predict_maps(np.flip(image, axes)).location, axes)

    alone = [mirrored_map(model_2d, axes) for axes in AXES]
    assert np.abs(alone[0] - alone[3]).max() > 1e-3, "the network must not be symmetric"
    model = model_2d.with_settings({"predict.flips": True})
    for axes in AXES:
        np.testing.assert_allclose(mirrored_map(model, axes), np.mean(alone, axis=0), atol=1e-5)


def test_an_array_of_other_voxels_is_resampled_and_points_come_back(
    model_3d: TrainedModel, cells_3d: Path
) -> None:
    volume = read_image(cells_3d / "test" / "test.tif")
    assert volume.spacing == model_3d.spacing
    plain, scores = model_3d.predict(volume.pixels[..., 0], spacing=volume.spacing)
    expected, expected_scores = model_3d.predict(volume.pixels)
    np.testing.assert_array_equal(plain, expected)
    np.testing.assert_array_equal(scores, expected_scores)
    # Each voxel doubled along y and x: the same cells, at twice the place.
    finer = volume.pixels.repeat(2, axis=1).repeat(2, axis=2)
    found, _ = model_3d.predict(finer, spacing=(2.0, 0.5, 0.5))
    back = (found + 0.5) / (1, 2, 2) - 0.5
    matched = match_points(back, expected, max_distance=1.5, spacing=volume.spacing)
    # The mean around a voxel is not quite the voxel that was doubled.
    assert matched.f1 > 0.8 and len(expected) > 5
    image = Array(volume.pixels, 3)
    assert model_3d.fitted(image, spacing=(2.0, 1.002, 1.0)).image is image


def test_an_image_of_larger_cells_is_made_smaller(model_2d: TrainedModel, cells_2d: Path) -> None:
    image = read_image(cells_2d / "test" / "t0.png").pixels
    with pytest.raises(InputError, match="does not say how large its cells are"):
        model_2d.fitted(Array(image, 2), diameter=10)
    model = model_2d.with_settings({"data.diameter": 5.0})
    assert model.fitted(Array(image, 2), diameter=5.03).image.shape == (40, 40)
    larger = image.repeat(2, axis=0).repeat(2, axis=1)
    halved = model.fitted(Array(larger, 2), diameter=10).image
    assert isinstance(halved, Resampled) and halved.shape == (40, 40)
    expected, _ = model.predict(image)
    found = model.find(halved).points
    assert match_points(found, expected, max_distance=1.5).f1 > 0.95
    back = halved.back(found)
    np.testing.assert_allclose((back + 0.5) / 2 - 0.5, found, atol=1e-4)


def test_what_cannot_be_resampled(model_2d: TrainedModel, model_3d: TrainedModel) -> None:
    image = np.zeros((8, 20, 20, 1), np.float32)
    for model, values, spacing, words in (
        (model_3d, image, (1e-3, 1.0, 1.0), "nothing of"),
        (model_3d, image, (2.0, 1.0, 30.0), "over 20 times as long"),
        (model_3d, image, (1.0, 2.0), "not that of a 3D image"),
        (model_2d, image[0], (2.0, 2.0), "without a voxel size"),
    ):
        with pytest.raises(InputError, match=words):
            model.fitted(Array(values, values.ndim - 1), spacing=spacing)
