"""The generator: its promises about counts, places, labels and keys, in 2D and 3D."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from cellcount_jax.data import scene
from cellcount_jax.data.scene import generate
from cellcount_jax.errors import InputError

# The built-in sets' options at a smaller size. All tests share them, because each new shape or
# option is compiled anew.
SCENES: dict[int, tuple[tuple[int, ...], dict[str, Any]]] = {
    2: ((96, 112), {"count_range": (12, 52), "spacing": (1.0, 1.0)}),
    3: ((20, 48, 56), {"count_range": (7, 19), "spacing": (3.0, 1.0, 1.0)}),
}
RADIUS = 4.6


def draw(ndim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    shape, options = SCENES[ndim]
    image, points, mask, labels = generate(jax.random.key(seed), shape, **options)
    return np.asarray(image), np.asarray(points), np.asarray(mask), np.asarray(labels)


@pytest.mark.parametrize("ndim", [2, 3])
def test_shapes_types_and_ranges(ndim: int) -> None:
    shape, options = SCENES[ndim]
    lowest, highest = options["count_range"]
    image, points, mask, labels = draw(ndim, 0)
    assert image.shape == (*shape, 1) and image.dtype == np.float32
    assert points.shape == (highest, ndim) and points.dtype == np.float32
    assert mask.shape == (highest,) and mask.dtype == np.bool_
    assert labels.shape == shape and labels.dtype == np.int32
    assert np.isfinite(image).all() and image.min() >= 0 and 500 < image.max() < 65535
    assert lowest <= mask.sum() <= highest
    np.testing.assert_array_equal(mask, np.arange(highest) < mask.sum())
    assert not points[~mask].any()


@pytest.mark.parametrize("ndim", [2, 3])
def test_counts_vary_over_the_whole_range_with_one_compilation(
    ndim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, options = SCENES[ndim]
    lowest, highest = options["count_range"]
    draw(ndim, 0)

    def traced(*_: object) -> None:
        raise AssertionError("the arguments are checked, so the function is traced again")

    monkeypatch.setattr(scene, "_check", traced)
    counts = [int(draw(ndim, seed)[2].sum()) for seed in range(30)]
    assert lowest <= min(counts) and max(counts) <= highest
    assert min(counts) < lowest + 0.2 * (highest - lowest)
    assert max(counts) > lowest + 0.8 * (highest - lowest)


@pytest.mark.parametrize("ndim", [2, 3])
def test_same_key_same_scene_other_key_other_scene(ndim: int) -> None:
    first, again, other = draw(ndim, 3), draw(ndim, 3), draw(ndim, 4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).mean() > 0.9
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("ndim", [2, 3])
def test_points_are_inside_and_keep_their_distance(ndim: int) -> None:
    shape, options = SCENES[ndim]
    nearest = []
    for seed in range(20):
        _, points, mask, _ = draw(ndim, seed)
        points = points[mask]
        assert (points >= 0).all() and (points <= np.array(shape) - 1).all()
        distances, _ = cKDTree(points * options["spacing"]).query(points * options["spacing"], k=2)
        nearest.append(distances[:, 1].min())
    least = 0.7 * RADIUS
    assert min(nearest) >= least - 1e-4
    assert min(nearest) < 1.5 * least, "cells should come close to each other somewhere"


@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_lie_around_their_dots_and_on_bright_voxels(ndim: int) -> None:
    shape, options = SCENES[ndim]
    spacing = np.array(options["spacing"])
    isolated_cells = 0
    for seed in range(10):
        image, points, mask, labels = draw(ndim, seed)
        points = points[mask]
        assert set(np.unique(labels)) <= set(range(len(points) + 1))
        assert image[labels > 0].mean() > 1.5 * image[labels == 0].mean()
        distances, _ = cKDTree(points * spacing).query(points * spacing, k=2)
        from_border = (np.minimum(points, np.array(shape) - 1 - points) * spacing).min(axis=1)
        alone = (distances[:, 1] > 2.6 * RADIUS) & (from_border > 1.5 * RADIUS)
        for i in np.flatnonzero(alone):
            centroid = ndimage.center_of_mass(labels == i + 1)
            assert np.linalg.norm((centroid - points[i]) * spacing) < 0.2 * RADIUS
            size = (labels == i + 1).sum() * spacing.prod()
            ball = np.pi * RADIUS**2 if ndim == 2 else 4 / 3 * np.pi * RADIUS**3
            assert 0.5 * ball < size < 2 * ball
            isolated_cells += 1
    assert isolated_cells >= 5


def test_light_adds_up_where_cells_overlap() -> None:
    options = {"count_range": (2, 2), "radius": 6.0, "clustering": 0.99}
    brightest = []
    for seed in range(20):
        image, points, _, _ = generate(jax.random.key(seed), (64, 64), **options)
        distance = float(np.linalg.norm(points[0] - points[1]))
        brightest.append((distance, float(np.percentile(image, 99.9))))
    near = [peak for distance, peak in brightest if distance < 6]
    far = [peak for distance, peak in brightest if distance > 12]
    assert np.mean(near) > 1.2 * np.mean(far)


def test_a_scene_without_cells_is_legal() -> None:
    shape = (40, 40)
    image, points, mask, labels = generate(jax.random.key(0), shape, count_range=(0, 0))
    assert points.shape == (0, len(shape)) and mask.shape == (0,)
    assert not np.asarray(labels).any()
    assert 100 < float(image.mean()) < 600 and float(image.std()) > 5


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((64,), {}, r"shape is \(64,\)"),
        ((0, 64), {}, r"shape is \(0, 64\)"),
        ((64, 64), {"spacing": (1.0, 1.0, 1.0)}, "spacing is"),
        ((64, 64), {"spacing": (1.0, -1.0)}, "spacing is"),
        ((64, 64), {"count_range": (5, 4)}, r"count_range is \(5, 4\)"),
        ((64, 64), {"count_range": (-1, 4)}, r"count_range is \(-1, 4\)"),
        ((64, 64), {"count_range": (0, 4000)}, "at most [0-9]+ cells"),
        ((64, 64), {"radius": 0.0, "count_range": (0, 1)}, "radius is 0.0"),
        ((64, 64), {"clustering": 1.0, "count_range": (0, 1)}, "clustering is 1.0"),
    ],
)
def test_impossible_scenes_are_refused(
    shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate(jax.random.key(0), shape, **options)
