"""Intensities are normalised by what the original pixels show, however much they are resampled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cellcount_jax.data.resampling import resample
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.images.levels import measure
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Array, Readable, Resampled, all_of
from cellcount_jax.inference import survey
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.training import stack

METHODS = ["standardise", "robust_log", "levels", "contrast", "signal_to_noise"]
FACTORS = [0.5, 0.98, 1.02, 1.6]


def faint(seed: int = 0) -> np.ndarray:
    """An 8-bit image whose background is three grey levels, and 27 cells a few levels higher."""
    rng = np.random.default_rng(seed)
    values = np.full((120, 140), 3.0)
    y, x = np.indices(values.shape)
    for cy, cx in rng.uniform(8, (112, 132), (27, 2)):
        values += 4 * np.exp(-(np.square(y - cy) + np.square(x - cx)) / 12)
    return np.rint(values + rng.normal(0, 0.35, values.shape)).astype(np.uint8)


def method_of(name: str) -> Normalisation:
    local = name in ("contrast", "signal_to_noise")
    return Normalisation(name, block=(30, 35) if local else ())


def resampled(image: np.ndarray, factor: float) -> Resampled:
    return Resampled(Array(image, 2), tuple(round(n * factor) for n in image.shape))


def values_of(normalisation: Normalisation, image: Readable) -> np.ndarray:
    return normalisation.measure_image(image)(image.read(all_of(image.shape)))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("factor", FACTORS)
def test_cells_stay_as_high_above_the_background(name: str, factor: float) -> None:
    normalisation, image = method_of(name), faint()
    before = values_of(normalisation, Array(image, 2))[..., 0]
    after = values_of(normalisation, resampled(image, factor))[..., 0]
    # Over a few pixels, so that interpolation itself smoothes both alike.
    heights = [np.percentile(one, 99.5) - np.median(one) for one in (before, after)]
    assert 0.65 < heights[1] / heights[0] < 1.1, "cells, which interpolation lowers a little"
    assert abs(np.median(after) - np.median(before)) < 0.05 * heights[0]


@pytest.mark.parametrize("name", METHODS)
def test_the_statistics_are_those_of_the_original(name: str) -> None:
    normalisation, image = method_of(name), faint()
    for factor in FACTORS:
        other = resampled(image, factor)
        # Blocks are in voxels of the model.
        block = tuple(round(edge / factor) for edge in normalisation.block)
        of_original = Normalisation(name, block=block)
        own = of_original.measure_image(Array(image, 2)).to_arrays()
        found = normalisation.measure_image(other).to_arrays()
        assert found.pop("shape_0", np.array(other.shape)).tolist() == list(other.shape)
        for key, value in found.items():
            np.testing.assert_array_equal(value, own[key])
        # In memory, and measured for tiles, it is the same.
        values = other.read(all_of(other.shape))
        expected = values_of(normalisation, other)
        given = normalisation(values, original=image[..., None].astype(np.float32))
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("name", METHODS)
def test_the_survey_of_tiles_measures_the_original(name: str, untrained_model: Any) -> None:
    image = resampled(faint(), 1.6)
    config = untrained_model(2, predict__max_voxels=3000).config
    plan = make_plan(config, image.shape)
    assert not plan.whole
    normalisation = method_of(name)
    if groups := survey.groups(image, normalisation):
        observed = survey.observe(image, plan, normalisation, groups)
        of_groups = zip(groups, observed, strict=True)
        measured, ranges = survey.collected(image, plan, normalisation, of_groups)
    else:
        measured, ranges = survey.read_whole(image, plan, normalisation)
    margins = {"image_margin": (8, 8), "map_margin": (2, 2), "cell": (4, 4)}
    made = survey.make(plan, measured, ranges, mask=None, least=-math.inf, **margins)
    values = image.read(all_of(image.shape))
    expected = values_of(method_of(name), image)
    np.testing.assert_array_equal(made.measured(values, all_of(image.shape)), expected)
    assert made.computed.all()


@pytest.mark.parametrize("name", ["standardise", "robust_log", "levels"])
@pytest.mark.parametrize("gain", [1.0, 16.0])
def test_single_grey_levels_of_an_empty_image_are_no_signal(name: str, gain: float) -> None:
    """One grey level up in a thousandth of the pixels is rounding, in whatever unit."""
    image = np.full((100, 100, 1), 7.0)
    image.ravel()[np.random.default_rng(0).choice(image.size, 10, replace=False)] += 1
    values = method_of(name)((gain * image).astype(np.float32))
    highest = float(values.max() - np.median(values))
    assert 0.2 < highest < 4, "and not the 30 deviations of what few pixels make of it"


def test_noise_of_few_grey_levels() -> None:
    """Where most neighbours are equal the noise is that of rounding, not 0."""
    image = faint()
    for gain in (1.0, 0.001, 300.0):
        (found,) = measure(Array(gain * image, 2).read, image.shape, channels=1)
        assert found.noise == pytest.approx(gain / np.sqrt(12), rel=1e-4)
    (constant,) = measure(Array(np.ones((9, 9)), 2).read, (9, 9), channels=1)
    assert constant.noise == 0


def test_training_normalises_by_the_original(untrained_model: Any) -> None:
    """A sample that was resampled for training is as a count would have it."""
    image = faint()[..., None].astype(np.float32)
    sample = Sample("a", image, np.zeros((1, 2), np.float32) + 5, (1.0, 1.0))
    config = untrained_model(2, data__diameter=12.0, data__from_diameter=10.0).config
    config.train.crop = (32, 32)
    (new,) = resample(Dataset("", (sample,), (), {}), config.data).labelled
    assert new.shape == (144, 168)
    normalisation = Normalisation("robust_log")
    made = stack.on_device(Dataset("", (new,), (), {}), normalisation, config).labelled
    expected = values_of(normalisation, resampled(faint(), 1.2))
    np.testing.assert_array_equal(np.asarray(made.images)[0][:144, :168], expected)
