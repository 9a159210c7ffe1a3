"""The consistency term: teachers, views, sure cells and the average, against NumPy and SciPy."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.config import default_config
from cellcount_jax.maps.targets import TargetGeometry, inverse_distance_map, target_geometry
from cellcount_jax.training import consistency, stack

CROPS = {2: (24, 32), 3: (8, 16, 16)}
SPACING = {2: (1.0, 1.0), 3: (3.0, 1.0, 1.0)}


def changed(ndim: int = 2, **settings: Any) -> ml_collections.ConfigDict:
    """A config whose student sees what the teacher sees, and what the settings change."""
    config = default_config()
    config.data.ndim = ndim
    config.train.crop = CROPS[ndim]
    config.detect.min_distance = (1,) * ndim
    config.consistency.perturbation = "none"
    config.consistency.focal = False
    config.augment.flips = False
    for key, value in settings.items():
        config.consistency[key] = value
    return config


def geometry_of(config: ml_collections.ConfigDict) -> TargetGeometry:
    return target_geometry(config, SPACING[config.data.ndim])


def view(config: ml_collections.ConfigDict, image: Any, maps: Any, seed: int = 0) -> Any:
    options = {"config": config, "geometry": geometry_of(config), "peak": 1.0}
    found = consistency.student_view(jax.random.key(seed), image, maps, **options)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_mean_over_mirror_images_is_that_of_each_mirrored_back(ndim: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *CROPS[ndim], 1)).astype(np.float32)
    ramp = np.arange(images[0].size, dtype=np.float32).reshape(images.shape[1:])

    found = consistency.mean_over_mirror_images(lambda x: x * ramp[None], jnp.asarray(images))

    ramps = [
        np.flip(ramp, f) for n in range(ndim + 1) for f in itertools.combinations(range(ndim), n)
    ]
    np.testing.assert_allclose(found, images * np.mean(ramps, axis=0), rtol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_sure_cells_and_where_all_is_known(ndim: int) -> None:
    config = changed(ndim)
    rng = np.random.default_rng(1)
    shape = CROPS[ndim]
    values = rng.uniform(0.0, 0.09, shape).astype(np.float32)
    places = {tuple(rng.integers(0, shape)): v for v in (0.9, 0.7, 0.55, 0.3, 0.2)}
    for place, value in places.items():
        values[place] = value

    points, mask, known = consistency.confident_dots(
        jnp.asarray(values), config=config, geometry=geometry_of(config), peak=1.0
    )

    expected = sorted(place for place, value in places.items() if value > 0.5)
    assert sorted(map(tuple, np.asarray(points)[np.asarray(mask)].tolist())) == expected
    sure = np.zeros(shape, bool)
    sure[tuple(np.transpose(expected))] = True
    unsure = np.pad(np.zeros(shape, bool), 1, constant_values=True)
    for place, value in places.items():
        unsure[tuple(i + 1 for i in place)] = value <= 0.5
    distances = [
        ndimage.distance_transform_edt(~where, sampling=SPACING[ndim]) for where in (sure, unsure)
    ]
    to_unsure = distances[1][(slice(1, -1),) * ndim]
    # As far as the kernel reaches: beyond it nothing matters.
    expected_known = (distances[0] <= to_unsure) | (to_unsure > config.target.max_distance)
    np.testing.assert_array_equal(known, expected_known)


def test_only_what_is_highest_in_its_window_is_a_cell() -> None:
    config = changed(target="dots")
    config.detect.min_distance = (4, 4)
    values = np.zeros(CROPS[2], np.float32)
    values[10, 10], values[10, 13], values[10, 20] = 0.9, 0.8, 0.8

    points, mask, _ = consistency.confident_dots(
        jnp.asarray(values), config=config, geometry=geometry_of(config), peak=1.0
    )

    assert np.asarray(points)[np.asarray(mask)].tolist() == [[10, 10], [10, 20]]


def test_without_any_change_the_student_sees_what_the_teacher_sees() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(size=(*CROPS[2], 2)).astype(np.float32)
    maps = rng.uniform(size=(*CROPS[2], 1)).astype(np.float32)

    found = view(changed(), image, maps)

    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.target, maps)
    assert (found.weight == 1).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_sure_cells_become_the_kernel_around_them(ndim: int) -> None:
    config = changed(ndim, target="dots")
    shape = CROPS[ndim]
    dots = np.array([[5] * ndim, [3, *(11,) * (ndim - 1)]])
    maps = np.zeros((*shape, 1), np.float32)
    maps[tuple(dots.T)] = 0.8

    found = view(config, np.zeros((*shape, 1), np.float32), maps)

    expected = inverse_distance_map(
        jnp.asarray(dots), shape, spacing=SPACING[ndim], unit=1.0, max_distance=32.0
    )
    np.testing.assert_allclose(found.target[..., 0], expected, rtol=1e-5)
    assert found.weight[tuple(dots.T)].min() == 1


@pytest.mark.parametrize("seed", range(4))
def test_another_size_moves_the_sure_cells_with_the_image(seed: int) -> None:
    config = changed(target="dots", scale=0.4)
    config.augment.flips = True
    window = stack.unlabelled_window(config)
    stride = 8
    assert all(
        n % stride == 0 and n >= c * np.exp(0.4) for n, c in zip(window, CROPS[2], strict=True)
    )
    rng = np.random.default_rng(seed)
    dots = np.argwhere(rng.uniform(size=tuple(n // 9 for n in window)) < 0.7) * 9 + 4
    maps = np.zeros((*window, 1), np.float32)
    maps[tuple(dots.T)] = 0.9
    image = ndimage.gaussian_filter(maps[..., 0], 1.2)[..., None]

    found = view(config, image, maps, seed=seed)

    assert found.image.shape == (*CROPS[2], 1)
    inner = (slice(3, -3),) * 2  # what lies in the middle has no part beyond the end
    bright = found.image[..., 0] == ndimage.maximum_filter(found.image[..., 0], 5)
    bright &= found.image[..., 0] > 0.5 * image.max()
    at = np.argwhere(bright[inner]) + 3
    targets = np.argwhere(found.target[..., 0] > 0.99)
    assert len(at) >= 1
    for place in at:
        assert np.abs(targets - place).max(axis=1).min() <= 1


def test_what_is_cut_out_teaches_nothing() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(size=(*CROPS[2], 1)).astype(np.float32)
    maps = np.ones((*CROPS[2], 1), np.float32)
    areas = []
    for seed in range(5):
        found = view(changed(cut_out=0.5), image, maps, seed=seed)
        hidden = found.weight[..., 0] == 0
        areas.append(hidden.sum())
        np.testing.assert_allclose(found.image[hidden], image.mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found.image[~hidden], image[~hidden])
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        assert hidden.sum() == len(rows) * len(columns)  # a box
        assert len(rows) <= 12 and len(columns) <= 16
    assert min(areas) > 0 and max(areas) > 60


def test_a_view_changes_the_image_alone() -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(size=(*CROPS[2], 1)).astype(np.float32)
    maps = rng.uniform(size=(*CROPS[2], 1)).astype(np.float32)

    found = view(changed(view=1.0), image, maps)

    assert np.abs(found.image - image).max() > 0.1
    np.testing.assert_array_equal(found.target, maps)


def test_the_average_of_weights() -> None:
    old, new = {"a": jnp.full(3, 2.0)}, {"a": jnp.full(3, 4.0)}
    first = consistency.average(old, new, 0, decay=0.99)
    late = consistency.average(old, new, 10_000, decay=0.99)
    np.testing.assert_allclose(first["a"], 0.1 * 2.0 + 0.9 * 4.0, rtol=1e-6)
    np.testing.assert_allclose(late["a"], 0.99 * 2.0 + 0.01 * 4.0, rtol=1e-6)
