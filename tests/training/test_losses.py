"""The losses against NumPy and SciPy, and which gradients must be exactly zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.training import losses

pytestmark = pytest.mark.usefixtures("strict_dtypes")

focal_weight = jax.jit(losses.focal_weight, static_argnames=("sigma", "radius", "floor"))


def random_map(seed: int, shape: tuple[int, ...]) -> jax.Array:
    """Smooth enough that local maxima are sparse, in the range of a density map."""
    values = np.random.default_rng(seed).random(shape)
    for axis in range(1, len(shape) - 1):
        values = ndimage.gaussian_filter1d(values, 0.8, axis=axis)
    return jnp.asarray((values - values.min()) / np.ptp(values), jnp.float32)


def test_density_loss() -> None:
    prediction, target = random_map(0, (2, 5, 6, 1)), random_map(1, (2, 5, 6, 1))
    expected = (np.asarray(prediction) - np.asarray(target)) ** 2
    np.testing.assert_allclose(losses.density_loss(prediction, target), expected, rtol=1e-6)
    weighted = losses.density_loss(prediction, target, dot_weight=3.0)
    np.testing.assert_allclose(weighted, (1 + 3 * np.asarray(target)) * expected, rtol=1e-5)


def test_mask_loss() -> None:
    logits = jnp.linspace(-8, 8, 33)
    for target in (0.0, 1.0):
        p = 1 / (1 + np.exp(-np.asarray(logits, float)))
        expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))
        actual = losses.mask_loss(logits, jnp.full_like(logits, target))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    far = losses.mask_loss(jnp.asarray([-500.0, 500.0]), jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(far, [500.0, 500.0])


@pytest.mark.parametrize("shape", [(2, 30, 25, 1), (2, 8, 14, 13, 1)])
@pytest.mark.parametrize(("sigma", "radius", "floor"), [(1.0, 2, 0.1), (0.6, 1, 0.5), (2.0, 3, 0)])
def test_focal_weight_equals_scipy(
    shape: tuple[int, ...], sigma: float, radius: int, floor: float
) -> None:
    teacher = random_map(2, shape)
    expected = []
    for one in np.asarray(teacher)[..., 0]:
        highest = ndimage.maximum_filter(one, size=3, mode="constant", cval=-np.inf)
        weight = ((one == highest) & (one > floor)).astype(np.float32)
        assert 0 < weight.sum() < weight.size / 4
        for axis in range(one.ndim):
            weight = ndimage.gaussian_filter1d(
                weight, sigma, axis=axis, mode="constant", radius=radius
            )
        expected.append(weight)
    actual = focal_weight(teacher, sigma=sigma, radius=radius, floor=floor)
    assert actual.shape == shape and actual.dtype == teacher.dtype
    np.testing.assert_allclose(actual[..., 0], np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("background", [0.0, 0.02, 0.1])
def test_flat_background_has_no_weight(background: float) -> None:
    flat = jnp.full((2, 12, 12, 1), background)
    np.testing.assert_array_equal(focal_weight(flat), np.zeros((2, 12, 12, 1)))
    one_cell = flat.at[1, 6, 4, 0].set(0.8)
    weight = np.asarray(focal_weight(one_cell))
    assert not weight[0].any()
    inside = np.zeros((12, 12), bool)
    inside[4:9, 2:7] = True
    np.testing.assert_array_equal(weight[1, ..., 0] > 0, inside)
    assert weight.sum() == pytest.approx(1, rel=1e-5)


def test_a_peak_at_the_border_is_a_maximum() -> None:
    teacher = jnp.zeros((1, 8, 8, 1)).at[0, 0, 7, 0].set(0.9)
    weight = focal_weight(teacher)
    assert weight[0, 0, 7, 0] == weight.max() > 0


def test_focal_consistency_loss() -> None:
    student, teacher, weight = (random_map(seed, (2, 6, 7, 1)) for seed in (3, 4, 5))
    expected = np.asarray(weight) * (np.asarray(student) - np.asarray(teacher)) ** 2
    actual = losses.focal_consistency_loss(student, teacher, weight)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-8)


def test_only_the_student_has_a_gradient() -> None:
    student, teacher = random_map(6, (2, 16, 16, 1)), random_map(7, (2, 16, 16, 1))

    def loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
        weight = losses.focal_weight(teacher)
        return losses.focal_consistency_loss(student, teacher, weight).sum()

    for_student, for_teacher = jax.jit(jax.grad(loss, argnums=(0, 1)))(student, teacher)
    np.testing.assert_array_equal(for_teacher, np.zeros(teacher.shape))
    weight = focal_weight(teacher)
    np.testing.assert_allclose(for_student, 2 * weight * (student - teacher), rtol=1e-5)
    assert jnp.abs(for_student).max() > 0
    for_weight = jax.grad(lambda w: losses.focal_consistency_loss(student, teacher, w).sum())(
        weight
    )
    np.testing.assert_array_equal(for_weight, np.zeros(weight.shape))


def test_focal_weight_has_no_gradient() -> None:
    teacher = random_map(8, (1, 16, 16, 1))
    gradient = jax.jit(jax.grad(lambda t: losses.focal_weight(t).sum()))(teacher)
    np.testing.assert_array_equal(gradient, np.zeros(teacher.shape))


@pytest.mark.parametrize("length", [1.0, 150, 12.5])
def test_ramp_up_closed_form(length: float) -> None:
    steps = np.arange(0, 400, 7)
    expected = np.exp(5 * (np.minimum(steps / length, 1) - 1))
    plain = [losses.ramp_up(int(step), length) for step in steps]
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    traced = jax.jit(jax.vmap(lambda step: losses.ramp_up(step, length)))(jnp.asarray(steps))
    np.testing.assert_allclose(traced, expected, rtol=1e-5)
    assert plain[0] == pytest.approx(np.exp(-5)) and plain[-1] == 1


def test_no_ramp_is_full_weight_at_once() -> None:
    assert losses.ramp_up(0, 0) == 1 and losses.ramp_up(jnp.asarray(3), 0.0) == 1
