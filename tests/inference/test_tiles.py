"""Tile grids as properties: coverage, alignment, halos, and the largest core that fits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import around, within
from cellcount_jax.inference.tiles import choose_core, tile_grid


@st.composite
def grids(draw):
    """A shape with halo, block and core, in 1 to 3 dimensions."""
    ndim = draw(st.integers(1, 3))

    def sizes(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    block = sizes(1, 4)
    core = tuple(b * n for b, n in zip(block, sizes(1, 4), strict=True))
    return sizes(1, 23), {"core": core, "halo": sizes(0, 7), "block": block}


@settings(deadline=None)
@given(grids())
def test_cores_cover_every_voxel_once(grid):
    shape, options = grid
    covered = np.zeros(shape, int)
    for tile in tile_grid(shape, **options):
        covered[tile.core] += 1
    assert (covered == 1).all()


@settings(deadline=None)
@given(grids())
def test_tiles_lie_on_the_block_grid_with_their_halo(grid):
    shape, options = grid
    for tile in tile_grid(shape, **options):
        for axis, size in enumerate(shape):
            outer, core, inner = tile.outer[axis], tile.core[axis], tile.inner[axis]
            halo, block = options["halo"][axis], options["block"][axis]
            assert core.start % options["core"][axis] == 0
            assert core.stop in (core.start + options["core"][axis], size)
            assert 0 <= outer.start <= core.start < core.stop <= outer.stop <= size
            assert outer.start % block == 0
            assert outer.stop % block == 0 or outer.stop == size
            assert outer.start == 0 or halo <= core.start - outer.start
            assert outer.stop == size or halo <= outer.stop - core.stop
            assert (inner.start, inner.stop) == (core.start - outer.start, core.stop - outer.start)


@settings(deadline=None)
@given(grids())
def test_tiles_of_an_image_on_the_block_grid_have_one_shape(grid):
    shape, options = grid
    whole = tuple(-(-n // b) * b for n, b in zip(shape, options["block"], strict=True))
    outer = [tile.outer for tile in tile_grid(whole, **options)]
    shapes = {tuple(region.stop - region.start for region in regions) for regions in outer}
    least = [min(c + h, n) for c, h, n in zip(options["core"], options["halo"], whole, strict=True)]
    assert len(shapes) == 1 and all(n >= m for n, m in zip(min(shapes), least, strict=True))


def stitched(tiles, function, shape):
    whole = np.full(shape, np.nan)
    for tile in tiles:
        whole[tile.core] = function(tile.outer)[tile.inner]
    return whole


@settings(deadline=None)
@given(grids())
def test_stitching_the_outer_regions_gives_the_image_back(grid):
    shape, options = grid
    image = np.arange(math.prod(shape) * 2, dtype=float).reshape(*shape, 2)
    tiles = tile_grid(shape, **options)
    whole = stitched(tiles, lambda outer: image[outer], image.shape)
    np.testing.assert_array_equal(whole, image)


@pytest.mark.parametrize("shape", [(41, 37), (13, 21, 18)])
def test_a_filter_within_the_halo_gives_the_same_map_in_tiles(rng, shape):
    image = rng.random(shape)

    def blur(values):
        return ndimage.uniform_filter(values, size=7, mode="constant")

    ndim = len(shape)
    tiles = tile_grid(shape, core=(8,) * ndim, halo=(3,) * ndim, block=(4,) * ndim)
    whole = stitched(tiles, lambda outer: blur(image[outer]), shape)
    np.testing.assert_allclose(whole, blur(image), atol=1e-12)
    assert len(tiles) > 4


def test_margins_stay_within_the_image():
    core = (slice(4, 8), slice(8, 10))
    outer = around(core, (2, 3), (9, 10))
    assert outer == (slice(2, 9), slice(5, 10))
    assert within(core, outer) == (slice(2, 6), slice(3, 5))


def test_a_grid_by_hand():
    tiles = tile_grid((10,), core=(4,), halo=(1,), block=(2,))
    assert [(t.outer[0], t.core[0], t.inner[0]) for t in tiles] == [
        (slice(0, 8), slice(0, 4), slice(0, 4)),
        (slice(2, 10), slice(4, 8), slice(2, 6)),
        (slice(2, 10), slice(8, 10), slice(6, 8)),
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"core": (6, 6)}, "core is 6 on axis 0; it must be a multiple of the block of 4"),
        ({"core": (8,)}, r"core is \(8,\); it must be 2 whole numbers"),
        ({"core": (0, 8)}, "core"),
        ({"halo": (-1, 0)}, "halo"),
        ({"block": (4, 0)}, "block"),
        ({"shape": (20, 0)}, "shape"),
        ({"shape": (20, 2.5)}, "shape"),
        ({"shape": ()}, "shape"),
    ],
)
def test_wrong_sizes_are_errors_that_name_them(changed, message):
    options = {"shape": (20, 20), "core": (8, 8), "halo": (3, 3), "block": (4, 4)} | changed
    with pytest.raises(InputError, match=message):
        tile_grid(options.pop("shape"), **options)


def widest_tile(shape, **options):
    tiles = tile_grid(shape, **options)
    return max(math.prod(part.stop - part.start for part in tile.outer) for tile in tiles)


@settings(deadline=None, max_examples=60)
@given(grids(), st.integers(1, 3000))
def test_the_tiles_of_the_chosen_core_compute_the_fewest_voxels_that_fit(grid, max_voxels):
    shape, options = grid
    halo, block = options["halo"], options["block"]
    candidates = itertools.product(*(range(b, n + b, b) for n, b in zip(shape, block, strict=True)))
    fitting = {}
    for core in candidates:
        widest = widest_tile(shape, core=core, halo=halo, block=block)
        if widest <= max_voxels:
            tiles = tile_grid(shape, core=core, halo=halo, block=block)
            fitting[core] = widest * len(tiles)
    if not fitting:
        with pytest.raises(InputError, match=f"max_voxels = {max_voxels}:"):
            choose_core(shape, halo=halo, block=block, max_voxels=max_voxels)
        return
    core = choose_core(shape, halo=halo, block=block, max_voxels=max_voxels)
    assert core in fitting
    assert fitting[core] == min(fitting.values())


def test_equal_tiles_compute_less_than_the_largest_and_a_rest():
    # The largest core that fits, 160 of 240, would leave 80 to a tile as large.
    core = choose_core((240, 64), halo=(16, 16), block=(8, 8), max_voxels=192 * 64)
    assert core == (120, 64)


def test_a_small_image_is_one_tile():
    core = choose_core((600, 601), halo=(51, 51), block=(16, 16), max_voxels=10**6)
    assert core == (608, 608)
    assert len(tile_grid((600, 601), core=core, halo=(51, 51), block=(16, 16))) == 1


def test_too_few_voxels_for_one_block_say_how_many_are_needed():
    options = {"halo": (10, 10), "block": (8, 8)}
    with pytest.raises(InputError, match="at least 1600"):
        choose_core((1000, 1000), max_voxels=1599, **options)
    assert choose_core((1000, 1000), max_voxels=1600, **options) == (8, 8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
