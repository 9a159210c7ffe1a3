"""Perturbations: what they touch, how strongly, and identity at strength 0."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import ndimage

from cellcount_jax.config import IMAGE_PERTURBATIONS
from cellcount_jax.training import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")

feature_noise = jax.jit(losses.feature_noise, static_argnames="last_only")


def levels(ndim: int = 2) -> tuple[Array, ...]:
    """Features of two levels, none of them 0."""
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.uniform(1, 2, (3, *(16 // 2**i,) * ndim, 8 * 2**i)), jnp.float32)
        for i in range(2)
    )


def noise_of(before: Array, after: Array) -> np.ndarray:
    """The noise map, after a check that it is one for the whole batch."""
    noise = np.asarray(after) / np.asarray(before)
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:1], noise.shape), rtol=1e-5)
    return noise[0]


def test_noise_on_the_last_level_only() -> None:
    before = levels(ndim=3)
    after = feature_noise(jax.random.key(0), before)
    for a, b in zip(before[:-1], after[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    noise = noise_of(before[-1], after[-1])
    assert 0 <= noise.min() < 0.1 and 1.9 < noise.max() <= 2 + 1e-5
    # Each voxel and each channel has its own.
    assert len(np.unique(noise)) > 0.95 * noise.size


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_noise_on_every_level(strength: float) -> None:
    before = levels()
    after = feature_noise(jax.random.key(1), before, strength=strength, last_only=False)
    noises = [noise_of(a, b) for a, b in zip(before, after, strict=True)]
    for noise in noises:
        assert np.abs(noise - 1).max() <= strength + 1e-5
        assert noise.mean() == pytest.approx(1, abs=0.06 * strength)
        assert noise.std() == pytest.approx(strength / np.sqrt(3), rel=0.06)
    first, second = noises[0].ravel()[: noises[1].size], noises[1].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_feature_noise_is_decided_by_its_key() -> None:
    before = levels()
    one, same, other = (feature_noise(jax.random.key(k), before)[-1] for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_no_feature_noise_is_identity() -> None:
    before = levels()
    after = feature_noise(jax.random.key(0), before, strength=0.0, last_only=False)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def random_image(shape: tuple[int, ...]) -> Array:
    return jnp.asarray(np.random.default_rng(2).normal(0.5, 1, shape), jnp.float32)


@functools.partial(jax.jit, static_argnames="kind")
def image_perturbation(keys: Array, image: Array, kind: str, strength: float) -> Array:
    def one(key: Array) -> Array:
        return losses.image_perturbation(key, image, kind=kind, strength=strength)

    return jax.vmap(one)(keys)


def perturbed(image: Array, kind: str, strength: float) -> np.ndarray:
    """The image under 500 keys."""
    keys = jax.random.split(jax.random.key(3), 500)
    return np.asarray(image_perturbation(keys, image, kind, strength))


def assert_uniform(values: np.ndarray, limit: float) -> None:
    """U(-limit, limit), as far as 500 values tell."""
    assert np.abs(values).max() <= 1.001 * limit
    assert abs(values.mean()) < 0.1 * limit
    assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)


def test_noise_of_an_image() -> None:
    image = random_image((12, 9, 2))
    noise = perturbed(image, "noise", 0.7) - np.asarray(image)
    assert noise.std() == pytest.approx(0.2 * 0.7, rel=0.02)
    assert abs(noise.mean()) < 0.003
    assert np.abs(noise.mean(axis=0)).max() < 0.04


def test_brightness() -> None:
    image = random_image((12, 9, 2))
    change = perturbed(image, "brightness", 0.8) - np.asarray(image)
    amount = change.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(change, np.broadcast_to(amount, change.shape), atol=1e-6)
    assert_uniform(amount, 0.4)


def test_contrast() -> None:
    image = random_image((12, 9, 2))
    out = perturbed(image, "contrast", 0.8)
    mean = float(image.mean())
    np.testing.assert_allclose(out.mean(axis=(1, 2, 3)), mean, atol=1e-5)
    factor = out.std(axis=(1, 2, 3), keepdims=True) / float(image.std())
    np.testing.assert_allclose(out, mean + (np.asarray(image) - mean) * factor, atol=1e-5)
    assert_uniform(np.log(factor), 0.4)


@pytest.mark.parametrize("shape", [(12, 9, 2), (6, 9, 8, 1)])
def test_sharpness(shape: tuple[int, ...]) -> None:
    image = random_image(shape)
    blurred = np.asarray(image)
    for axis in range(len(shape) - 1):
        blurred = ndimage.gaussian_filter1d(blurred, 1.0, axis=axis, mode="constant", radius=2)
    detail = np.asarray(image) - blurred
    change = perturbed(image, "sharpness", 0.8) - np.asarray(image)
    amount = (change * detail).sum(axis=tuple(range(1, change.ndim))) / (detail**2).sum()
    np.testing.assert_allclose(change, np.multiply.outer(amount, detail), atol=1e-5)
    assert_uniform(amount, 0.8)


@pytest.mark.parametrize("kind", IMAGE_PERTURBATIONS)
def test_strength_0_is_identity(kind: str) -> None:
    image = random_image((12, 9, 2))
    for out in perturbed(image, kind, 0.0):
        np.testing.assert_allclose(out, image, atol=1e-6)


@pytest.mark.parametrize("kind", IMAGE_PERTURBATIONS)
def test_image_perturbations_keep_shape_and_type(kind: str) -> None:
    image = jax.ShapeDtypeStruct((4, 5, 1), jnp.bfloat16)
    change = functools.partial(losses.image_perturbation, kind=kind, strength=0.5)
    out = jax.eval_shape(change, jax.random.key(0), image)
    assert out.shape == image.shape and out.dtype == image.dtype


def test_unknown_perturbation() -> None:
    with pytest.raises(ValueError, match="unknown perturbation 'blur'"):
        losses.image_perturbation(jax.random.key(0), jnp.ones((2, 2, 1)), kind="blur", strength=1)
