"""Arrays and dots move together, crops stay in their box, and keys alone decide."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from cellcount_jax.training import augment

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def example(shape: tuple[int, ...], count: int = 6) -> tuple[Array, Array, Array]:
    """An image whose second channel is its first + 1, numbered voxels, and dots on voxels."""
    number = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    voxels = np.random.default_rng(0).choice(number.size, count, replace=False)
    points = np.stack(np.unravel_index(voxels, shape), axis=-1).astype(np.int32)
    return jnp.asarray(np.stack([number, number + 1], -1)), jnp.asarray(number), jnp.asarray(points)


def many(transform: object, seeds: int, image: Array, number: Array, points: Array) -> tuple:
    """The transform under `seeds` keys."""
    assert callable(transform)
    run = jax.jit(jax.vmap(lambda key: transform(key, [image, number], points)))
    (images, numbers), moved = run(jax.random.split(jax.random.key(1), seeds))
    return np.asarray(images), np.asarray(numbers), np.asarray(moved)


def assert_together(
    number: Array, points: Array, images: np.ndarray, numbers: np.ndarray, moved: np.ndarray
) -> None:
    """Every dot is still on its voxel, in every array and channel."""
    here = np.asarray(number)[tuple(np.asarray(points).T)]
    np.testing.assert_array_equal(images[..., 0], numbers)
    np.testing.assert_array_equal(images[..., 1], numbers + 1)
    for one, dots in zip(numbers, moved, strict=True):
        np.testing.assert_array_equal(one[tuple(dots.T)], here)


@pytest.mark.parametrize(("shape", "dtype"), [((9, 9), jnp.float32), ((5, 7, 7), jnp.int32)])
def test_flips(shape: tuple[int, ...], dtype: jnp.dtype) -> None:
    image, number, points = example(shape)
    images, numbers, moved = many(augment.random_flips, 100, image, number, points.astype(dtype))
    assert moved.dtype == dtype and images.dtype == image.dtype
    assert_together(number, points, images, numbers, moved.astype(int))
    plain = np.asarray(number)
    expected = [
        np.flip(plain, tuple(axis for axis in range(len(shape)) if flags >> axis & 1))
        for flags in range(2 ** len(shape))
    ]
    which = [[i for i, e in enumerate(expected) if np.array_equal(e, one)] for one in numbers]
    assert all(len(found) == 1 for found in which)
    shares = np.bincount(np.ravel(which), minlength=len(expected)) / len(which)
    assert shares.min() > 0.25 / len(expected)


@pytest.mark.parametrize("shape", [(9, 9), (5, 7, 7)])
def test_transpose(shape: tuple[int, ...]) -> None:
    image, number, points = example(shape)
    images, numbers, moved = many(augment.random_transpose, 60, image, number, points)
    assert_together(number, points, images, numbers, moved)
    plain = np.asarray(number)
    exchanged = [np.array_equal(one, plain.swapaxes(-1, -2)) for one in numbers]
    kept = [np.array_equal(one, plain) for one in numbers]
    np.testing.assert_array_equal(np.logical_not(kept), exchanged)
    assert 0.25 < np.mean(exchanged) < 0.75


def test_dots_outside_the_crop_stay_outside() -> None:
    """Their distance to the crop counts in the target, on whichever side they come to lie."""
    shape = (4, 8, 8)
    image, number, _ = example(shape)
    points = jnp.asarray([[-2, 3, 9], [5, -1, 0]])
    _, _, moved = many(augment.random_flips, 50, image, number, points)
    centre = (np.asarray(shape) - 1) / 2
    offsets = np.abs(np.asarray(points) - centre)
    np.testing.assert_array_equal(np.abs(moved - centre), np.broadcast_to(offsets, moved.shape))
    assert len(np.unique(moved, axis=0)) == 8


@pytest.mark.parametrize(
    ("low", "high", "crop"),
    [((0, 0), (10, 8), (4, 8)), ((3, 5), (9, 12), (3, 3)), ((1, 2, 0), (5, 6, 3), (2, 3, 3))],
)
def test_crops_lie_in_their_box(
    low: Sequence[int], high: Sequence[int], crop: Sequence[int]
) -> None:
    draw = functools.partial(
        augment.random_crop_origin, low=jnp.asarray(low), high=jnp.asarray(high), crop=crop
    )
    origins = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 600)))
    assert origins.dtype == np.int32
    for axis, (first, end, size) in enumerate(zip(low, high, crop, strict=True)):
        values, counts = np.unique(origins[:, axis], return_counts=True)
        np.testing.assert_array_equal(values, np.arange(first, end - size + 1))
        assert counts.min() > 0.6 * len(origins) / len(values)


def test_a_crop_around_a_voxel_is_at_the_ends_of_the_box_as_often_as_they_are_voxels() -> None:
    low, high, crop = jnp.asarray([3, 0]), jnp.asarray([23, 5]), (8, 5)
    draw = functools.partial(augment.random_crop_around, low=low, high=high, crop=crop)
    origins = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000)))
    assert origins.dtype == np.int32 and (origins[:, 1] == 0).all()
    values, counts = np.unique(origins[:, 0], return_counts=True)
    np.testing.assert_array_equal(values, np.arange(3, 16))
    # Of 20 voxels as centres, 4 and one each at either end are moved to the same crop.
    expected = np.asarray([5, *[1] * 11, 4]) / 20
    np.testing.assert_allclose(counts / len(origins), expected, atol=0.02)


@pytest.mark.parametrize("draw", [augment.random_crop_origin, augment.random_crop_around])
def test_a_crop_larger_than_its_box_covers_it(draw: Callable[..., Array]) -> None:
    low, high = jnp.asarray([2, 3]), jnp.asarray([4, 20])
    for seed in range(5):
        origin = draw(jax.random.key(seed), low, high, (6, 4))
        assert origin[0] == 2 and 3 <= origin[1] <= 16


def test_intensity_is_gain_and_offset() -> None:
    image = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5, 2)), jnp.float32)
    change = functools.partial(augment.random_intensity, image=image, gain=0.4, offset=0.3)
    gains, offsets = [], []
    for out in np.asarray(jax.vmap(change)(jax.random.split(jax.random.key(0), 400))):
        gain, offset = np.polyfit(np.ravel(image), np.ravel(out), 1)
        np.testing.assert_allclose(out, gain * np.asarray(image) + offset, atol=1e-5)
        gains.append(np.log(gain))
        offsets.append(offset)
    for values, limit in ((np.asarray(gains), 0.4), (np.asarray(offsets), 0.3)):
        assert np.abs(values).max() <= limit + 1e-5
        assert abs(values.mean()) < 0.15 * limit
        assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
    assert abs(np.corrcoef(gains, offsets)[0, 1]) < 0.2


def test_intensity_noise() -> None:
    image = jnp.ones((40, 40, 1))
    change = functools.partial(augment.random_intensity, image=image, noise=0.5)
    noise = np.asarray(jax.vmap(change)(jax.random.split(jax.random.key(0), 200))) - 1
    deviations = noise.std(axis=(1, 2, 3))
    assert deviations.max() < 0.55 and deviations.min() < 0.05
    assert deviations.mean() == pytest.approx(0.25, rel=0.15)
    assert abs(noise.mean()) < 0.005


def test_no_intensity_change_is_identity() -> None:
    image = jnp.linspace(-2, 3, 24).reshape(2, 4, 3)
    out = augment.random_intensity(jax.random.key(0), image)
    np.testing.assert_array_equal(out, image)


def test_intensity_keeps_the_type() -> None:
    image = jnp.ones((4, 4, 1), jnp.bfloat16)
    out = augment.random_intensity(jax.random.key(0), image, gain=0.1, offset=0.1, noise=0.1)
    assert out.dtype == jnp.bfloat16


def test_the_key_alone_decides() -> None:
    """An example does not depend on its place in the batch."""
    image, number, points = example((6, 6))

    def whole(key: Array) -> tuple[Array, Array, Array]:
        keys = jax.random.split(key, 3)
        (moved, other), dots = augment.random_flips(keys[0], [image, number], points)
        (moved, other), dots = augment.random_transpose(keys[1], [moved, other], dots)
        return augment.random_intensity(keys[2], moved, gain=0.2), other, dots

    keys = jax.random.split(jax.random.key(5), 6)
    transform = jax.jit(jax.vmap(whole))
    batch, backwards = transform(keys), transform(keys[::-1])
    for one, other in zip(batch, backwards, strict=True):
        np.testing.assert_array_equal(one, other[::-1])
    assert not np.array_equal(batch[0][0], batch[0][1])


@pytest.mark.parametrize("crop", [(12, 10), (6, 9, 9)])
def test_a_random_size(crop: tuple[int, ...]) -> None:
    scale = 0.4
    window = augment.window(crop, scale=scale)
    assert all(w >= c * np.exp(scale) for w, c in zip(window, crop, strict=True))
    # Linear in the voxels' places, so that interpolation is exact: each voxel says where it is.
    lines = [jnp.arange(size, dtype=jnp.float32) for size in window]
    place = jnp.stack(jnp.meshgrid(*lines, indexing="ij"), -1)
    points = jnp.asarray([[size // 2 for size in window], [0] * len(window)])
    change = functools.partial(
        augment.random_scale, arrays=[place, place[..., 0] > 1], points=points, crop=crop
    )
    run = jax.jit(jax.vmap(lambda key: change(key, scale=scale)))
    (places, valid), moved, start, factor = run(jax.random.split(jax.random.key(0), 200))
    assert places.shape == (200, *crop, len(crop)) and valid.dtype == bool
    assert 0.6 < factor.min() < 0.75 < 1.35 < factor.max() < 1.5
    assert (np.asarray(start) >= 0).all()
    extents = np.asarray(crop) / np.asarray(factor)[:, None]
    assert (np.asarray(start) + extents <= np.asarray(window) + 1e-3).all()
    for axis, size in enumerate(crop):
        # The voxel i of the crop lies at (i + 1/2) / f + o - 1/2 of the window.
        at = (np.arange(size) + 0.5) / np.asarray(factor)[:, None] + np.asarray(start)[:, [axis]]
        line = np.moveaxis(np.asarray(places)[..., axis], axis + 1, 1)
        inside = (at - 0.5 > 1) & (at - 0.5 < window[axis] - 2)
        middle = line.reshape(200, size, -1).mean(-1)
        # Where it gets smaller, the weights of few voxels are not quite centred.
        np.testing.assert_allclose(middle[inside], (at - 0.5)[inside], atol=0.2)
        back = (np.asarray(moved)[..., axis] + 0.5) / np.asarray(factor)[:, None]
        expected = np.asarray(points)[None, :, axis] + 0.5 - np.asarray(start)[:, [axis]]
        np.testing.assert_allclose(back, expected, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(valid)[np.asarray(places)[..., 0] > 4], True)
    np.testing.assert_array_equal(np.asarray(valid)[np.asarray(places)[..., 0] < 1.0], False)


def test_blur_gamma_and_slope() -> None:
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(0, 1, (40, 40, 1)), jnp.float32)
    keys = jax.random.split(jax.random.key(3), 40)

    def change(**strengths: float) -> np.ndarray:
        change_one = jax.vmap(lambda key: augment.random_intensity(key, image, **strengths))
        return np.asarray(change_one(keys))

    blurred = change(blur=2.0)
    np.testing.assert_allclose(blurred.mean((1, 2, 3)), image.mean(), atol=0.02)
    spread = blurred.std((1, 2, 3))
    assert spread.min() < 0.3 and spread.max() > 0.9 * image.std()
    bent = change(gamma=0.5)
    np.testing.assert_array_equal(np.sign(bent), np.broadcast_to(np.sign(image), bent.shape))
    powers = np.log(np.abs(bent)).std((1, 2, 3)) / np.log(np.abs(image)).std()
    assert 0.6 < powers.min() < 0.75 < 1.3 < powers.max() < 1.66
    slopes = change(gradient=1.0) - np.asarray(image)
    second = np.diff(slopes, n=2, axis=1), np.diff(slopes, n=2, axis=2)
    assert max(np.abs(d).max() for d in second) < 1e-5
    np.testing.assert_allclose(slopes.mean((1, 2, 3)), 0, atol=1e-5)
    assert 0.7 < np.abs(slopes).max() <= 1.0
