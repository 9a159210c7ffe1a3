"""Distances and maps against SciPy and brute force, and what must not change them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cellcount_jax.maps import gaussian, targets

pytestmark = pytest.mark.usefixtures("strict_dtypes")

inverse_distance_map = jax.jit(
    targets.inverse_distance_map,
    static_argnames=("shape", "spacing", "unit", "max_distance", "margin"),
)
gaussian_density_map = jax.jit(
    targets.gaussian_density_map,
    static_argnames=("shape", "spacing", "sigma", "truncate", "margin"),
)
inverse_distance = jax.jit(targets.inverse_distance, static_argnames=("gamma", "c"))
rasterise = jax.jit(targets.rasterise, static_argnames="shape")
mask_target = jax.jit(targets.mask_target)
MAPS: dict[str, Callable[..., jax.Array]] = {
    "inverse_distance": inverse_distance_map,
    "gaussian": functools.partial(gaussian_density_map, sigma=1.5),
}


def random_points(
    seed: int, count: int, shape: Sequence[int], margin: float = 0.0, *, whole: bool = False
) -> np.ndarray:
    """Dots inside the grid and at least `margin` from its edges; `whole` puts them on voxels."""
    low, high = margin - 0.5, np.asarray(shape) - 0.5 - margin
    points = np.random.default_rng(seed).uniform(low, high, (count, len(shape)))
    return (np.floor(points + 0.5) if whole else points).astype(np.float32)


def voxel_grid(shape: Sequence[int]) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)


def brute_distance(voxels: np.ndarray, shape: Sequence[int], edges: np.ndarray) -> np.ndarray:
    offsets = (voxel_grid(shape)[..., None, :] - voxels) * edges
    return np.sqrt((offsets**2).sum(-1)).min(-1)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((41, 33), None),
        ((41, 33), (0.7, 1.3)),
        ((9, 24, 17), None),
        ((9, 24, 17), (6.0, 1.62, 1.62)),
        # Axes so long that the windows are walked in a loop, up to several chunks.
        ((1, 34), (2.0, 0.5)),
        ((150, 4), None),
        ((2, 70, 131), (3.0, 0.25, 1.0)),
    ],
)
@pytest.mark.parametrize("count", [1, 7])
def test_distance_equals_scipy(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, count: int
) -> None:
    seeds = np.zeros(shape, bool)
    seeds.flat[np.random.default_rng(count).choice(seeds.size, min(count, 5), replace=False)] = True
    expected = ndimage.distance_transform_edt(~seeds, sampling=spacing)
    actual = targets.distance_transform(jnp.asarray(seeds), spacing=spacing)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("shape", "spacing", "cut"),
    [
        ((64, 50), None, 7.3),
        ((64, 50), (0.7, 1.3), 11.17),
        ((12, 40, 30), (6.0, 1.62, 1.62), 10.1),
        # The finest edge is the middle axis's alone; all three differ.
        ((12, 40, 30), (6.0, 1.5, 2.0), 9.9),
        # Squared voxels beyond 16 bits.
        ((9, 700), None, 150.3),
        # Below one voxel edge along z, and reaching over several chunks along y.
        ((12, 40, 30), (6.0, 1.62, 1.62), 5.9),
        ((300, 3), None, 70.37),
    ],
)
def test_distance_is_cut_exactly(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, cut: float
) -> None:
    seeds = np.zeros(shape, bool)
    seeds.flat[np.random.default_rng(3).choice(seeds.size, 3, replace=False)] = True
    exact = ndimage.distance_transform_edt(~seeds, sampling=spacing)
    assert np.abs(exact - cut).min() > 1e-3 and (exact > cut).any()
    actual = targets.distance_transform(jnp.asarray(seeds), spacing=spacing, max_distance=cut)
    np.testing.assert_allclose(actual, np.where(exact < cut, exact, np.inf), atol=1e-4, rtol=0)


def test_distance_where_squared_voxels_are_beyond_32_bits() -> None:
    seeds = np.zeros((2, 47_000), bool)
    seeds[1, 5] = True
    expected = ndimage.distance_transform_edt(~seeds)
    np.testing.assert_allclose(targets.distance_transform(jnp.asarray(seeds)), expected, rtol=1e-6)


def test_the_cut_itself_is_inside() -> None:
    seeds = jnp.zeros((11, 11), bool).at[5, 5].set(True)
    distance = targets.distance_transform(seeds, max_distance=5.0)
    assert distance[0, 5] == 5.0 and distance[1, 8] == 5.0
    assert jnp.isinf(distance[1, 1])


@pytest.mark.parametrize(("shape", "max_distance"), [((7, 80), None), ((3, 4, 5), 4.0)])
def test_no_seed_is_infinitely_far(shape: tuple[int, ...], max_distance: float | None) -> None:
    distance = targets.distance_transform(jnp.zeros(shape, bool), max_distance=max_distance)
    assert distance.shape == shape and jnp.all(jnp.isposinf(distance))


def test_distance_under_vmap_and_jit() -> None:
    seeds = jnp.asarray(np.random.default_rng(0).random((4, 70, 9)) < 0.01).at[2].set(False)
    assert not seeds[2].any() and seeds[0].any()
    transform = jax.jit(jax.vmap(targets.distance_transform))
    for one, many in zip(seeds, transform(seeds), strict=True):
        np.testing.assert_array_equal(many, targets.distance_transform(one))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing": (1.0,)}, "2 positive lengths"),
        ({"spacing": (1.0, 0.0)}, "2 positive lengths"),
        ({"spacing": (1.0, -2.0)}, "2 positive lengths"),
        ({"spacing": (1.0, math.nan)}, "2 positive lengths"),
        ({"max_distance": 0.0}, "max_distance must be positive, got 0"),
        ({"max_distance": math.nan}, "max_distance must be positive, got nan"),
    ],
)
def test_distance_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        targets.distance_transform(jnp.ones((3, 3), bool), **options)


def test_map_options_refused() -> None:
    points = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="unit must be positive, got -1"):
        targets.inverse_distance_map(points, (3, 3), unit=-1.0)
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        targets.gaussian_density_map(points, (3, 3), sigma=0.0)
    with pytest.raises(ValueError, match="2 numbers of voxels"):
        targets.inverse_distance_map(points, (3, 3), margin=(1,))
    with pytest.raises(ValueError, match="2 numbers of voxels"):
        targets.gaussian_density_map(points, (3, 3), sigma=1.0, margin=(1, -1))
    with pytest.raises(ValueError, match="3 positive lengths"):
        targets.gaussian_density_map(jnp.zeros((1, 3)), (3, 3, 3), sigma=1.0, spacing=(1.0, 1.0))


def test_a_dot_belongs_to_the_nearest_voxel() -> None:
    points = [[0.0, 0.49], [0.5, 1.0], [-0.5, 0.0], [2.499, 2.25], [1.5, 2.4375]]
    expected = np.zeros((3, 4), int)
    for voxel in [(0, 0), (1, 1), (0, 0), (2, 2), (2, 2)]:
        expected[voxel] += 1
    np.testing.assert_array_equal(rasterise(jnp.asarray(points), (3, 4)), expected)


def test_dots_outside_and_masked_ones_are_left_out() -> None:
    outside = [[-1.0, 1.0], [1.0, -0.51], [-3.0, -4.0], [2.5, 0.0], [0.0, 3.5], [1e9, 0.0]]
    points = jnp.asarray([*outside, [1.0, 2.0], [2.0, 0.0]])
    expected = np.zeros((3, 4), int)
    expected[1, 2] = expected[2, 0] = 1
    np.testing.assert_array_equal(rasterise(points, (3, 4)), expected)
    expected[1, 2] = 0
    mask = jnp.ones(len(points), bool).at[-2].set(False)
    np.testing.assert_array_equal(rasterise(points, (3, 4), mask=mask), expected)
    whole = rasterise(jnp.asarray([[-1, 1], [2, 0], [3, 0], [0, 4]]), (3, 4))
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize(("name", "shape"), [("inverse_distance", (3, 4, 5)), ("gaussian", (6, 7))])
def test_no_dot_is_an_empty_map(name: str, shape: tuple[int, ...]) -> None:
    for points, mask in [
        (jnp.zeros((0, len(shape))), None),
        (jnp.ones((4, len(shape))), jnp.zeros(4, bool)),
    ]:
        empty = MAPS[name](points, shape=shape, mask=mask)
        np.testing.assert_array_equal(empty, np.zeros(shape, np.float32))


@pytest.mark.parametrize(("gamma", "c"), [((0.02, 0.75), 1.0), ((0.0, 2.0), 0.5)])
def test_kernel_closed_form(gamma: tuple[float, float], c: float) -> None:
    distance = np.linspace(0, 50, 101)
    expected = 1 / (distance ** (gamma[0] * distance + gamma[1]) + c)
    actual = inverse_distance(jnp.asarray(distance, jnp.float32), gamma=gamma, c=c)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert inverse_distance(jnp.asarray(jnp.inf), gamma=gamma, c=c) == 0


@pytest.mark.parametrize(
    ("shape", "spacing", "unit", "max_distance"),
    [
        ((30, 21), None, None, None),
        ((30, 21), (0.5, 0.8), None, 9.3),
        ((30, 21), (0.5, 0.8), 2.0, None),
        ((7, 20, 15), (6.0, 1.62, 1.62), None, 6.1),
        ((7, 20, 15), (6.0, 1.62, 1.62), 3.0, 4.2),
    ],
)
def test_inverse_distance_map_is_equation_2(
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None,
    unit: float | None,
    max_distance: float | None,
) -> None:
    points = random_points(1, 5, shape)
    edges = np.ones(len(shape)) if spacing is None else np.asarray(spacing)
    distance = brute_distance(np.floor(points + 0.5), shape, edges / (unit or edges.min()))
    expected = 1 / (distance ** (0.02 * distance + 0.75) + 1)
    if max_distance is not None:
        assert np.abs(distance - max_distance).min() > 1e-3
        expected[distance > max_distance] = 0
    actual = inverse_distance_map(
        jnp.asarray(points), shape, spacing=spacing, unit=unit, max_distance=max_distance
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual[tuple(np.floor(points + 0.5).astype(int).T)].min() == 1


def brute_density(
    voxels: np.ndarray, shape: Sequence[int], edges: np.ndarray, sigma: float, truncate: float
) -> np.ndarray:
    density = np.zeros(shape)
    for dot in voxels:
        kernel = np.ones(())
        for position, size, edge in zip(dot, shape, edges, strict=True):
            radius = math.ceil(truncate * sigma / edge)
            offsets = np.arange(size) - position
            taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) * edge / sigma) ** 2)
            profile = np.exp(-0.5 * (offsets * edge / sigma) ** 2) / taps.sum()
            profile[np.abs(offsets) > radius] = 0
            kernel = np.multiply.outer(kernel, profile)
        density += kernel
    return density


@pytest.mark.parametrize(
    ("shape", "spacing", "sigma", "truncate"),
    [
        ((30, 21), None, 1.0, 4.0),
        ((30, 21), (1.0, 2.5), 2.2, 3.0),
        ((9, 20, 15), (6.0, 1.62, 1.62), 2.0, 4.0),
        ((9, 20, 15), (6.0, 1.62, 1.62), 0.5, 4.0),
    ],
)
def test_gaussian_against_brute_force(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, sigma: float, truncate: float
) -> None:
    points = random_points(2, 6, shape)
    points[1] = points[0]
    edges = np.ones(len(shape)) if spacing is None else np.asarray(spacing) / min(spacing)
    expected = brute_density(np.floor(points + 0.5), shape, edges, sigma, truncate)
    actual = gaussian_density_map(
        jnp.asarray(points), shape, sigma=sigma, spacing=spacing, truncate=truncate
    )
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((60, 50), None), ((24, 40, 40), (6.0, 1.62, 1.62))]
)
def test_density_integrates_to_the_count(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None
) -> None:
    points = random_points(4, 12, shape, margin=10)
    points[5] = points[4]
    density = gaussian_density_map(jnp.asarray(points), shape, sigma=2.0, spacing=spacing)
    assert float(density.sum()) == pytest.approx(12, rel=1e-5)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("shape", [(13, 13), (9, 9, 9)])
def test_maps_turn_with_the_image(name: str, shape: tuple[int, ...]) -> None:
    ndim = len(shape)
    points = random_points(5, 4, shape, whole=True)
    make = functools.partial(MAPS[name], shape=shape, spacing=(1.0, 1.5, 2.0)[:ndim])
    whole = np.asarray(make(jnp.asarray(points)))
    last = np.asarray(shape, np.float32) - 1
    for axes in itertools.chain.from_iterable(
        itertools.combinations(range(ndim), n) for n in range(1, ndim + 1)
    ):
        mirrored = points.copy()
        mirrored[:, axes] = last[list(axes)] - mirrored[:, axes]
        actual = make(jnp.asarray(mirrored))
        np.testing.assert_allclose(actual, np.flip(whole, axes), atol=1e-6)
    # All axes in the opposite order, and their edges with them.
    turned = make(jnp.asarray(points[:, ::-1]), spacing=(1.0, 1.5, 2.0)[ndim - 1 :: -1])
    np.testing.assert_allclose(turned, whole.T, atol=1e-6)
    # A quarter turn of the plane, y to x: (y, x) -> (last - x, y).
    turned_points = points.copy()
    turned_points[:, -2] = last[-1] - points[:, -1]
    turned_points[:, -1] = points[:, -2]
    plain = np.asarray(make(jnp.asarray(points), spacing=None))
    turned = make(jnp.asarray(turned_points), spacing=None)
    np.testing.assert_allclose(turned, np.rot90(plain, axes=(-2, -1)), atol=1e-6)


def test_maps_do_not_depend_on_padding_rows_or_batching() -> None:
    points = random_points(6, 5, (20, 18))
    plain = inverse_distance_map(jnp.asarray(points), (20, 18))
    padded = jnp.asarray(np.concatenate([points, np.full((3, 2), 4, np.float32)]))
    mask = jnp.arange(8) < 5
    batched = jax.vmap(lambda p, m: inverse_distance_map(p, (20, 18), mask=m))(
        jnp.stack([padded, padded[::-1]]), jnp.stack([mask, mask[::-1]])
    )
    np.testing.assert_allclose(batched, jnp.stack([plain, plain]), atol=1e-6)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(
    ("shape", "spacing", "margin"),
    [
        # Wider than the kernel, narrower, and none; along the finest axes or not.
        ((20, 13), None, (11, 11)),
        ((20, 13), None, (3, 0)),
        ((5, 12, 14), (3.0, 1.62, 1.62), (2, 9, 4)),
        ((6, 12, 14), (1.0, 2.0, 2.0), (9, 0, 12)),
    ],
)
def test_dots_within_the_margin_count(
    name: str, shape: tuple[int, ...], spacing: tuple[float, ...] | None, margin: tuple[int, ...]
) -> None:
    options: dict[str, Any] = {"spacing": spacing}
    if name == "inverse_distance":
        options["max_distance"] = 8.3
    larger = tuple(size + 2 * m for size, m in zip(shape, margin, strict=True))
    # Some lie beyond the margin.
    points = random_points(9, 40, tuple(size + 4 for size in larger)) - 2
    inner = tuple(slice(m, m + size) for m, size in zip(margin, shape, strict=True))
    expected = np.asarray(MAPS[name](jnp.asarray(points), shape=larger, **options))[inner]
    own = jnp.asarray(points - np.asarray(margin, np.float32))
    actual = MAPS[name](own, shape=shape, margin=margin, **options)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert np.abs(MAPS[name](own, shape=shape, **options) - expected).max() > 1e-3


def brute_mask(labels: np.ndarray) -> np.ndarray:
    cells = np.zeros(labels.shape)
    for voxel in np.ndindex(labels.shape):
        own, smaller = labels[voxel], False
        for axis, step in itertools.product(range(labels.ndim), (-1, 1)):
            other = list(voxel)
            other[axis] += step
            if 0 <= other[axis] < labels.shape[axis]:
                smaller |= 0 < labels[tuple(other)] < own
        cells[voxel] = own > 0 and not smaller
    return cells


@pytest.mark.parametrize("shape", [(14, 11), (5, 6, 7)])
def test_mask_target_against_brute_force(shape: tuple[int, ...]) -> None:
    labels = np.random.default_rng(7).integers(0, 4, shape, dtype=np.int32)
    actual = mask_target(jnp.asarray(labels))
    assert actual.dtype == jnp.float32
    np.testing.assert_array_equal(actual, brute_mask(labels))


def test_mask_target_keeps_touching_cells_apart() -> None:
    labels = np.zeros((6, 12, 14), np.int32)
    labels[1:5, 2:10, 1:6], labels[1:5, 2:10, 6:12] = 2, 1
    cells = np.asarray(mask_target(jnp.asarray(labels)))
    assert ndimage.label(labels > 0)[1] == 1
    assert ndimage.label(cells)[1] == 2
    assert not cells[labels == 0].any()
    assert not mask_target(jnp.zeros((3, 4), jnp.int32)).any()


@pytest.mark.parametrize(("sigma", "radius"), [(1.0, 2), (0.7, 4), (3.0, 1), (1.0, 0)])
def test_filter_equals_scipy(sigma: float, radius: int) -> None:
    values = np.random.default_rng(8).normal(size=(5, 9, 4)).astype(np.float32)
    axis = radius % 3
    expected = ndimage.gaussian_filter1d(values, sigma, axis=axis, mode="constant", radius=radius)
    filtered = jax.jit(gaussian.gaussian_filter_along, static_argnums=(1, 2, 3))
    actual = filtered(jnp.asarray(values), axis, sigma, radius)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_distances_of_a_real_image(data_folder: Path) -> None:
    with Image.open(data_folder / "vgg" / "001dots.png") as file:
        dots = np.asarray(file.convert("RGB"))[..., 0] > 0
    assert dots.shape == (256, 256) and 74 <= dots.sum() <= 317
    expected = ndimage.distance_transform_edt(~dots)
    points = jnp.asarray(np.argwhere(dots))
    seeds = rasterise(points, dots.shape) > 0
    np.testing.assert_allclose(targets.distance_transform(seeds), expected, atol=1e-4)
