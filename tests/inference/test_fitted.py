"""Images of other sizes and intensities as a model takes them, found without being told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Array, Inverted, Resampled, all_of
from cellcount_jax.inference import fitted
from cellcount_jax.inference.trained_model import TrainedModel


def disks(diameter: int, count: int = 5) -> np.ndarray:
    """Bright disks on dark, in rows."""
    size = 2 * diameter * count
    y, x = np.mgrid[:size, :size] % (2 * diameter) - diameter + 0.5
    noise = np.random.default_rng(0).normal(0, 1, (size, size))
    return np.round(20 + 80 * (np.hypot(y, x) < diameter / 2) + noise).astype(np.float32)


@pytest.fixture
def model(untrained_model: Callable[..., TrainedModel]) -> TrainedModel:
    """One that measures the diameter, and knows cells of 16 pixels."""
    settings: dict[str, Any] = {
        "data__normalisation": "levels",
        "data__diameter": 16.0,
        "predict__estimate_diameter": True,
    }
    return untrained_model(2, zero=True, **settings)


def test_the_diameter_is_measured(model: TrainedModel) -> None:
    found = model.fitted(Array(disks(40), 2))
    assert found.diameter_from == fitted.MEASURED
    assert found.diameter is not None and abs(found.diameter - 40) < 1
    assert isinstance(found.image, Resampled)
    assert found.image.shape[0] == round(400 * 16 / found.diameter)
    points = np.array([[3.0, 5.0]], np.float32)
    np.testing.assert_allclose(found.back(points), (points + 0.5) * 2.5 - 0.5, rtol=0.02)


def test_a_given_diameter_is_used(model: TrainedModel) -> None:
    image = Array(disks(40), 2)
    found = model.fitted(image, diameter=16)
    assert (found.image, found.diameter, found.diameter_from) == (image, 16, fitted.GIVEN)
    np.testing.assert_array_equal(found.back(np.ones((1, 2))), np.ones((1, 2)))


def test_an_image_of_nothing_stays_as_it_is(model: TrainedModel) -> None:
    image = Array(np.full((50, 50), 3.0, np.float32), 2)
    found = model.fitted(image)
    assert (found.image, found.diameter, found.diameter_from) == (image, None, "")


def test_dark_cells_are_refused_or_inverted(model: TrainedModel) -> None:
    dark = Array(255 - disks(16), 2)
    with pytest.raises(InputError, match="dark on a bright background.*--invert"):
        model.fitted(dark)
    with pytest.raises(InputError, match="dark on a bright background"):
        model.fitted(dark, diameter=16)
    measured = model.fitted(dark, invert=True)
    assert measured.diameter == pytest.approx(16, rel=0.02)
    found = model.fitted(dark, invert=True, diameter=16)
    assert isinstance(found.image, Inverted)
    assert found.inverted_from == dark.values.max()
    bright = found.image.read(all_of(dark.shape))[..., 0]
    np.testing.assert_array_equal(bright, disks(16) - disks(16).min())
    assert model.fitted(dark, invert=False, diameter=16).image is dark


def test_any_model_can_invert(untrained_model: Callable[..., TrainedModel]) -> None:
    volume = np.random.default_rng(1).integers(5, 900, (3, 40, 50)).astype(np.float32)
    found = untrained_model(3).fitted(Array(volume, 3), invert=True)
    inverted = found.image.read((slice(1, 3), slice(2, 9), slice(0, 50)))[..., 0]
    np.testing.assert_array_equal(inverted, volume.max() - volume[1:3, 2:9])
    assert found.diameter is None
