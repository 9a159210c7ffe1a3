"""Levels, padding and diameter against what was drawn, whatever the gain, offset and type."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from cellcount_jax.images import levels
from cellcount_jax.images.levels import Levels
from cellcount_jax.images.normalise import Normalisation


def disks(diameter: float, *, size: int = 200, seed: int = 0, noise: float = 2.0) -> np.ndarray:
    """Soft disks of 60 on 20, on a grid; 8 bits as of a camera."""
    rng = np.random.default_rng(seed)
    step = 2 * diameter
    at = np.arange(diameter, size - diameter / 2, step)
    y, x = np.mgrid[:size, :size]
    image = np.full((size, size), 20.0)
    for cy in at:
        for cx in at:
            away = np.hypot(y - cy - rng.uniform(-1, 1), x - cx - rng.uniform(-1, 1))
            image += 60 / (1 + np.exp(np.minimum((away - diameter / 2) / 0.7, 50)))
    return np.round(image + rng.normal(0, noise, image.shape)).clip(0, 255)


def measure(image: np.ndarray) -> Levels:
    values = image[..., None].astype(np.float32)
    return levels.measure(lambda region: values[region], image.shape, channels=1)[0]


def contrast(found: Levels) -> float:
    """Cells above background in deviations of the noise."""
    step = found.cells - found.background
    return step / found.noise if found.noise else step


CHANGES = {
    "float 0..1": lambda image: image / 255,
    "12 bits with an offset": lambda image: image * 16 + 32768,
    "negative": lambda image: image * 16 - 32768,
    "z-scored": lambda image: (image - image.mean()) / image.std(),
    "black padding": lambda image: np.pad(image, ((0, 0), (0, 250))),
    "white padding": lambda image: np.pad(image, ((90, 0), (0, 0)), constant_values=255),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_whatever_the_intensities(change: str) -> None:
    image = disks(16)
    plain, other = measure(image), measure(CHANGES[change](image))
    assert plain.diameter is not None and abs(plain.diameter - 16) < 1
    assert other.diameter == pytest.approx(plain.diameter, rel=0.01)
    assert (other.bright, other.dark) == (plain.bright, plain.dark)
    assert contrast(other) == pytest.approx(contrast(plain), rel=0.02)
    assert (other.padding is not None) == ("padding" in change)
    normalise = Normalisation("levels")
    expected = normalise(image[..., None].astype(np.float32))
    found = normalise(CHANGES[change](image)[..., None].astype(np.float32))
    if "padding" in change:
        top = found.shape[0] - expected.shape[0]
        assert np.abs(found[:top]).max(initial=0) < 1e-6 > np.abs(found[top:, 200:]).max(initial=0)
        found = found[top:, :200]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_normalised_background_and_cells() -> None:
    found = Normalisation("levels")(disks(20)[..., None].astype(np.float32))
    assert abs(np.median(found)) < 0.05
    assert abs(np.percentile(found, 97) - 1) < 0.1


@pytest.mark.parametrize("diameter", [7, 12, 30, 50])
def test_the_diameter(diameter: int) -> None:
    found = measure(disks(diameter, size=max(200, 8 * diameter)))
    assert found.diameter == pytest.approx(diameter, rel=0.12)


def test_the_diameter_in_a_glow() -> None:
    image = disks(16, size=300) / 2
    x = np.linspace(-1, 1, 300)
    glow = image + 110 / (1 + np.exp(-(x[:, None] + x[None]) / 0.05))
    found = measure(glow)
    assert found.diameter == pytest.approx(16, rel=0.15)
    assert found.bright > 60


def test_a_clipped_background_is_no_padding() -> None:
    image = (disks(16) - 30).clip(0)
    assert (image == 0).mean() > 0.5
    assert measure(image).padding is None
    assert measure(image).diameter == pytest.approx(measure(disks(16)).diameter, rel=0.05)


def test_a_background_without_noise_is_no_padding() -> None:
    image = np.where(disks(16, noise=0.0) > 50, 100.0, 0.0)
    found = measure(image)
    assert (found.padding, found.background, found.cells) == (None, 0, 100)
    assert found.diameter == pytest.approx(16, rel=0.1)


def test_dark_cells_on_bright() -> None:
    image = disks(16)
    assert not measure(image).inverted
    assert measure(255 - image).inverted
    assert measure(255 - image).dark == measure(image).bright


def test_images_without_cells() -> None:
    flat = measure(np.full((50, 60), 7.0))
    assert (flat.diameter, flat.scale, contrast(flat)) == (None, 1.0, 0.0)
    rng = np.random.default_rng(1)
    noise = rng.normal(100, 5, (300, 300))
    found = Normalisation("levels")(noise[..., None].astype(np.float32))
    # Noise stays small beside what a cell would be.
    assert np.percentile(np.abs(found), 99) < 0.6
    assert abs(measure(noise).noise - 5) < 0.1
    hot = np.full((60, 60), 20.0)
    hot[30, 30] = 255
    assert measure(hot).diameter is None


def test_otsu() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(20, 3, 5000), rng.normal(90, 12, 1500)])
    found = levels.otsu(values)
    assert found is not None
    assert abs(found - threshold_otsu(values, nbins=4096)) < 1.5
    assert levels.otsu(7 * values - 300) == pytest.approx(7 * found - 300, rel=1e-6)
    assert levels.otsu(np.full(5, 3.0)) is None and levels.otsu(np.zeros(0)) is None


def test_a_large_image_is_looked_at_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    image = disks(16, size=500)
    whole = measure(image)
    monkeypatch.setattr(levels, "_MAX_PIXELS", 2**16)
    monkeypatch.setattr(levels, "_TILE", 128)
    values, read = image[..., None].astype(np.float32), []

    def part(region: tuple[slice, ...]) -> np.ndarray:
        read.append(region)
        return values[region]

    found = levels.measure(part, image.shape, channels=1)[0]
    assert len(read) == 4 and all(r.stop - r.start <= 128 for region in read for r in region)
    assert found.diameter == pytest.approx(whole.diameter, rel=0.1)
    assert found.cells == pytest.approx(whole.cells, rel=0.05)


def test_the_noise_of_a_slope() -> None:
    rng = np.random.default_rng(3)
    image = ndimage.gaussian_filter(rng.normal(0, 300, (200, 200)), 30) + 500
    noisy = image + rng.normal(0, 4, image.shape)
    assert measure(noisy).noise == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 7), (5, 1), (40, 33)])
def test_holes_are_filled_as_scipy_fills_them(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for share in (0.03, 0.1, 0.5):
        mask = ndimage.binary_dilation(rng.random(shape) < share, iterations=2)
        np.testing.assert_array_equal(levels.filled(mask), ndimage.binary_fill_holes(mask))
