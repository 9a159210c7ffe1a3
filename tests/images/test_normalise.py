"""Normalisation against NumPy, and what it must not depend on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cellcount_jax.config import NORMALISATIONS
from cellcount_jax.errors import InputError
from cellcount_jax.images import background as local
from cellcount_jax.images.arcsinh import arcsinh
from cellcount_jax.images.normalise import Normalisation, fit


def signal_to_noise(values: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    return local.signal_to_noise(values, local.measure(values.__getitem__, values.shape, block))


def contrast(values: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    return local.contrast(values, local.measure(values.__getitem__, values.shape, block))


def images(channels: int = 3) -> list[np.ndarray]:
    """Of different sizes and, per channel, different ranges."""
    rng = np.random.default_rng(0)
    scale = np.asarray([1.0, 50.0, 4000.0])[:channels]
    return [
        (scale * (2 + rng.random((*shape, channels)))).astype(np.float32)
        for shape in [(20, 30), (25, 17), (9, 8)]
    ]


def tissue(seed: int = 1, shape: tuple[int, ...] = (6, 20, 18)) -> np.ndarray:
    """A volume of one channel, as bright as a microscope's and nowhere 0."""
    values = np.random.default_rng(seed).lognormal(7, 0.5, (*shape, 1))
    return np.round(values).astype(np.float32)


def test_dataset() -> None:
    normalisation = fit((image for image in images()), "dataset")
    pixels = np.concatenate([image.reshape(-1, 3) for image in images()]).astype(float)
    np.testing.assert_allclose(normalisation.centre, pixels.mean(0))
    np.testing.assert_allclose(normalisation.scale, pixels.std(0))
    for image in images():
        out = normalisation(image)
        assert out.shape == image.shape and out.dtype == np.float32
        np.testing.assert_allclose(out, (image - pixels.mean(0)) / pixels.std(0), atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 30, 2), (5, 6, 7, 1)])
def test_standardise(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(2).gamma(2, 300, shape).astype(np.float32)
    axes = tuple(range(len(shape) - 1))
    values = image.astype(float)
    expected = (values - values.mean(axes)) / values.std(axes)
    out = fit([image], "standardise")(image)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(fit([], "standardise")(7 * image + 50), expected, atol=1e-4)


def test_robust_log() -> None:
    image = np.concatenate([tissue(1), tissue(2) ** 2], axis=-1)
    image[:2, :5] = 0
    out = fit([image], "robust_log")(image)
    assert out.dtype == np.float32 and out.shape == image.shape
    for channel in range(2):
        logs = np.log(1 + image[..., channel].astype(float))
        inside = logs[image[..., channel] > 0]
        deviation = 1.4826 * np.median(np.abs(inside - np.median(inside)))
        expected = (logs - np.median(inside)) / deviation
        np.testing.assert_allclose(out[..., channel], expected, atol=1e-4)


def test_robust_log_is_blind_to_black_regions() -> None:
    normalisation = Normalisation("robust_log")
    image = tissue()
    surrounded = np.pad(image, ((0, 0), (30, 10), (0, 25), (0, 0)))
    out = normalisation(surrounded)
    np.testing.assert_allclose(out[:, 30:50, :18], normalisation(image), atol=1e-5)
    # Mean and deviation are not: that is why volumes do not use them.
    standardised = Normalisation("standardise")
    changed = standardised(surrounded)[:, 30:50, :18] - standardised(image)
    assert np.abs(changed).min() > 0.1


def test_robust_log_is_blind_to_gain() -> None:
    normalisation = Normalisation("robust_log")
    image = tissue()
    np.testing.assert_allclose(normalisation(16 * image), normalisation(image), atol=0.02)


def test_robust_log_is_blind_to_a_few_bright_voxels() -> None:
    normalisation = Normalisation("robust_log")
    image = tissue()
    brighter = image.copy()
    brighter[0, 0] = 65535
    np.testing.assert_allclose(normalisation(brighter)[1:], normalisation(image)[1:], atol=0.1)


def test_signal_to_noise_in_one_block() -> None:
    values = tissue()[..., 0].astype(np.float64)
    differences = np.abs(values[..., 1:] - values[..., :-1])
    noise = 1.4826 * np.median(differences) / np.sqrt(2)
    expected = np.arcsinh((values - np.median(values)) / (5 * noise))
    out = signal_to_noise(values.astype(np.float32), (100, 100, 100))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_signal_to_noise_is_in_deviations_of_the_noise() -> None:
    values = 300 + 7 * np.random.default_rng(4).standard_normal((40, 90, 80))
    values[20, 45, 40] += 70 * 7
    out = 5 * np.sinh(signal_to_noise(values, (20, 30, 40)))
    assert out.std() == pytest.approx(1, abs=0.05)
    assert out[20, 45, 40] == pytest.approx(70, rel=0.1)


def test_signal_to_noise_is_blind_to_gain_offset_slope_and_density() -> None:
    rng = np.random.default_rng(5)
    values = 200 + 10 * rng.standard_normal((30, 60, 60))
    expected = signal_to_noise(values, (10, 20, 20))
    np.testing.assert_allclose(signal_to_noise(3 * values + 99, (10, 20, 20)), expected, atol=1e-4)
    # 300 grey levels from one end to the other.
    slope = np.linspace(0, 300, 60)
    inside = (slice(None), slice(None), slice(10, 50))
    sloped = signal_to_noise(values + slope, (10, 20, 20))
    np.testing.assert_allclose(sloped[inside], expected[inside], atol=0.1)
    # Cells that fill a tenth of it.
    crowded = values.copy()
    crowded[:, ::10] += 1000
    out = signal_to_noise(crowded, (10, 20, 20))
    assert np.abs(out - expected)[:, 5::10].max() < 0.2


def test_signal_to_noise_is_local() -> None:
    rng = np.random.default_rng(6)
    values = 200 + 10 * rng.standard_normal((20, 60, 120))
    other = values.copy()
    other[..., 60:] = 5 + rng.standard_normal((20, 60, 60))
    block = (10, 20, 20)
    out, expected = signal_to_noise(other, block), signal_to_noise(values, block)
    np.testing.assert_array_equal(out[..., :50], expected[..., :50])
    assert np.abs(out[..., 70:]).max() < 1.5


def test_signal_to_noise_between_blocks_is_linear() -> None:
    # Checkerboards of amplitude 1: the noise is the same everywhere, the background is known.
    sign = 1.0 - 2 * (np.indices((8, 40)).sum(axis=0) % 2)
    values = sign.copy()
    values[:, 20:] += 100
    noise = 1.4826 * 2 / np.sqrt(2)
    centres = [9.5, 29.5]
    for x in (12, 19, 25):
        background = np.interp(x, centres, [0, 100])
        expected = np.arcsinh((values[3, x] - background) / (5 * noise))
        out = signal_to_noise(values, (8, 20))
        assert out[3, x] == pytest.approx(expected, abs=1e-4)


def test_contrast_in_one_block() -> None:
    values = np.random.default_rng(4).normal(900, 40, (6, 20, 18)).astype(np.float32)
    background = np.median(values.astype(np.float64))
    expected = 10 * np.arcsinh((values - background) / (2 * background))
    out = contrast(values.astype(np.float32), (100, 100, 100))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-4)
    # 5 times the contrast, as far as that is small.
    faint = np.abs(values - background) < 0.2 * background
    np.testing.assert_allclose(out[faint], 5 * (values / background - 1)[faint], rtol=0.01)


def test_contrast_is_blind_to_gain_slope_and_density() -> None:
    rng = np.random.default_rng(5)
    values = 200 + 10 * rng.standard_normal((30, 60, 60))
    block = (10, 20, 20)
    expected = contrast(values, block)
    np.testing.assert_allclose(contrast(37.5 * values, block), expected, atol=1e-4)
    sloped = contrast(values + np.linspace(-50, 50, 60), block)
    inside = (slice(None), slice(None), slice(10, 50))
    np.testing.assert_allclose(sloped[inside], expected[inside], atol=0.2)
    crowded = values.copy()
    crowded[:, ::10] += 1000
    assert np.abs(contrast(crowded, block) - expected)[:, 5::10].max() < 0.2


def test_contrast_is_relative_to_the_tissue_not_to_what_lies_beside_it() -> None:
    rng = np.random.default_rng(6)
    values = 200 + 10 * rng.standard_normal((20, 60, 160))
    expected = contrast(values, (10, 20, 20))
    # Two thirds of the volume are dark, with a noise of its own level.
    values[..., 60:] = 2 + rng.standard_normal((20, 60, 100))
    out = contrast(values, (10, 20, 20))
    np.testing.assert_allclose(out[..., :50], expected[..., :50], atol=0.1)
    assert np.abs(out[..., 70:]).max() < 0.2


@pytest.mark.parametrize("change", [(16, 32768), (1, -290), (1 / 300, -1.0), (0.1, 30000)])
def test_contrast_where_a_level_was_added_or_subtracted(change: tuple[float, float]) -> None:
    rng = np.random.default_rng(7)
    values = 300 + 10 * rng.standard_normal((20, 60, 60))
    values[9:11, 28:32, 28:32] += 400
    gain, offset = change
    expected, out = (contrast(v, (10, 20, 20)) for v in (values, gain * values + offset))
    np.testing.assert_allclose(out, expected, rtol=0.05, atol=0.05)
    masked = np.pad(values, ((0, 0), (60, 60), (60, 60)))
    inside = contrast(masked, (10, 20, 20))[:, 60:120, 60:120]
    np.testing.assert_allclose(inside[:, 10:50, 10:50], expected[:, 10:50, 10:50], rtol=0.05)


@pytest.mark.parametrize("method", ["signal_to_noise", "contrast"])
def test_the_block_of_a_background_is_a_length(method: str) -> None:
    fitted = fit([], method, background=60, spacing=(6, 1.62, 100))
    assert fitted.block == (10, 37, 2)


@pytest.mark.parametrize("method", NORMALISATIONS)
@pytest.mark.parametrize("value", [0.0, 1.0, 60000.1])
def test_a_constant_channel_stays_constant(method: str, value: float) -> None:
    image = np.random.default_rng(3).integers(1, 1000, (50, 40, 2)).astype(np.float32)
    image[..., 1] = value
    out = fit([image], method, background=20, spacing=(1, 1))(image)
    np.testing.assert_allclose(out[..., 1], 0, atol=1e-3)
    assert out[..., 0].std() > 0.1


@pytest.mark.parametrize("method", NORMALISATIONS)
def test_round_trip(method: str) -> None:
    normalisation = fit(images(), method, spacing=(2.0, 1.0))
    stored = json.loads(json.dumps(normalisation.to_dict()))
    assert Normalisation.from_dict(stored) == normalisation
    assert (stored["method"], len(stored["centre"])) == (method, 3 if method == "dataset" else 0)


def test_the_image_is_left_alone() -> None:
    image = tissue()
    before = image.copy()
    for method in NORMALISATIONS:
        fit([image], method, background=10, spacing=(2, 1, 1))(image)
    np.testing.assert_array_equal(image, before)


def test_negative_intensities_under_a_logarithm() -> None:
    image = tissue()
    image[1, 2, 3] = -4
    with pytest.raises(InputError, match=r"lowest -4.*data\.normalisation = 'robust_log'"):
        Normalisation("robust_log")(image)
    assert np.isfinite(Normalisation("standardise")(image)).all()


def test_another_number_of_channels() -> None:
    normalisation = fit(images(3), "dataset")
    with pytest.raises(InputError, match="has 1 channels, the model was trained on 3"):
        normalisation(tissue())


@pytest.mark.parametrize("method", NORMALISATIONS)
@pytest.mark.parametrize("shape", [(33, 47), (9, 20, 31)])
def test_a_part_is_normalised_as_within_the_whole(
    method: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(7).integers(0, 900, (*shape, 2)).astype(np.float32)
    normalisation = fit([image], method, background=8, spacing=(1.0,) * len(shape))
    read: list[tuple[slice, ...]] = []

    def part(region: tuple[slice, ...]) -> np.ndarray:
        read.append(region)
        return image[region]

    whole = normalisation(image)
    monkeypatch.setattr("cellcount_jax.images.normalise._SLAB_VOXELS", 200)
    monkeypatch.setattr("cellcount_jax.images.normalise._QUICK_VOXELS", 100)
    monkeypatch.setattr("cellcount_jax.images.block_grid._MAX_READ_VOXELS", 800)
    measured = normalisation.measure(part, shape, channels=2)
    sizes = [np.prod([r.stop - r.start for r in region]) for region in read]
    if method != "levels":  # which looks at several million pixels together
        assert all(size <= 800 for size in sizes)
    assert sum(sizes) == (0 if method == "dataset" else np.prod(shape)), "read once"
    expected = measured(image)
    if measured.blocks:
        np.testing.assert_array_equal(expected, whole)
    np.testing.assert_allclose(expected, whole, atol=1e-5)
    rng = np.random.default_rng(8)
    for _ in range(20):
        ends = [sorted(rng.choice(n + 1, 2, replace=False)) for n in shape]
        region = tuple(slice(int(a), int(b)) for a, b in ends)
        np.testing.assert_array_equal(measured(image[region], region), expected[region])


def test_robust_log_is_numpys_median_and_spread() -> None:
    rng = np.random.default_rng(9)
    image = rng.lognormal(6, 1, (40, 50, 1)).astype(np.float32)
    image[rng.random(image.shape) < 0.2] = 0
    inside = np.log1p(image[image > 0])
    centre = np.median(inside)
    scale = 1.4826 * np.median(np.abs(inside - centre))
    out = Normalisation("robust_log")(image)
    np.testing.assert_allclose(out, (np.log1p(image) - centre) / scale, atol=1e-4)


def test_too_many_different_intensities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellcount_jax.images.logarithms._MAX_LEVELS", 1000)
    image = np.random.default_rng(0).random((40, 40, 1)).astype(np.float32)
    with pytest.raises(InputError, match="more than 1000 different intensities"):
        Normalisation("robust_log")(image)


def test_arcsinh_is_that_of_numpy() -> None:
    sizes = np.concatenate([[0.0], np.logspace(-12, 17.9, 400)])
    x = np.concatenate([-sizes[::-1], sizes]).astype(np.float32)
    found = arcsinh(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.arcsinh(x.astype(np.float64)), rtol=3e-7, atol=2e-7)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(x))
    assert arcsinh(np.float32(1e30)) == arcsinh(np.float32(1e18)) > found.max()
