"""Tiles as properties: coverage, what they need around, and the cores that compute the least."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_jax.images.regions import around, within
from cellcount_jax.inference import tiles
from cellcount_jax.inference.tiles import Axis
from cellcount_jax.network.sau_net import encoder_radius


@st.composite
def axes(draw):
    """The size of an image along an axis, and the axis, padded to the network's stride."""
    strides = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    size, stride = draw(st.integers(1, 130)), math.prod(strides)
    (radius,) = encoder_radius([(step,) for step in strides])
    padded = -(-size // stride) * stride
    block, reach = draw(st.integers(1, 5)), draw(st.integers(2, 3))
    return size, Axis(padded, strides, block, reach, radius)


@st.composite
def grids(draw):
    """As `axes`, and the cores along it."""
    size, axis = draw(axes())
    core = draw(st.integers(1, 8)) * axis.block * axis.stride
    first = core - draw(st.sampled_from([0, axis.block // 2 * axis.stride]))
    return size, axis, tiles.grid(size, core, first)


def mirrored(cores, size):
    return [slice(size - core.stop, size - core.start) for core in cores]


def length(part):
    return part.stop - part.start


def holds(part, other):
    return part.start <= other.start and other.stop <= part.stop


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 30), st.integers(1, 30))
def test_cores_cover_every_voxel_once(size, core, first):
    covered = np.zeros(size, int)
    grid = tiles.grid(size, core, first)
    for part in grid:
        covered[part] += 1
    assert (covered == 1).all()
    assert all(length(part) == core for part in grid[1:-1])
    assert 0 < length(grid[-1]) <= (core if len(grid) > 1 else first)
    assert length(grid[0]) == min(first, size)


def check(core, needs, axis):
    """What a core needs holds what the network's layers see, in whole blocks and on its grids."""
    size, wanted, scale = axis.size, core, 1
    assert len(needs.parts) == len(axis.strides) + 1
    reaches = (*(axis.reach for _ in axis.strides), 0)
    for part, step, reach in zip(needs.parts, (*axis.strides, 1), reaches, strict=True):
        # Whatever is computed is cut from coarser parts, and from the levels of the window.
        seen = slice(max(wanted.start - reach, 0), max(min(wanted.stop + reach, size), wanted.stop))
        assert part.start >= 0 and holds(part, seen)
        assert holds(needs.window, slice(part.start * scale, part.stop * scale))
        assert part.start % step == 0
        size, scale = size // step, scale * step
        wanted = slice(part.start // step, -(-part.stop // step))
    assert needs.blocks.start >= 0 and holds(needs.blocks, needs.parts[-1])
    assert needs.blocks.start % axis.block == needs.blocks.stop % axis.block == 0
    begin, end = (voxel * axis.stride for voxel in (needs.blocks.start, needs.blocks.stop))
    seen = slice(max(begin - axis.radius, 0), min(end + axis.radius, axis.size))
    assert needs.window.start >= 0 and holds(needs.window, seen)
    assert needs.window.start % axis.stride == needs.window.stop % axis.stride == 0


@settings(deadline=None)
@given(grids(), st.booleans())
def test_what_a_core_needs_is_of_one_size_and_holds_the_least(grid, mirror):
    size, axis, cores = grid
    every = [*cores, *mirrored(cores, size)] if mirror else cores
    sizes = tiles.sizes_of(every, axis)
    # Those of few cores are those of all, so that it takes no time.
    assert sizes == tiles.sizes_of(tiles.different(cores, size, mirror=mirror), axis)
    least = [tiles.needs(core, axis) for core in every]
    for core, alone in zip(every, least, strict=True):
        check(core, alone, axis)
        assert alone.window.stop <= axis.size and alone.parts[0].stop <= axis.size
        of_size = tiles.needs(core, axis, sizes=sizes)
        check(core, of_size, axis)
        assert tuple(map(length, of_size.parts)) == sizes.parts
        assert (length(of_size.blocks), length(of_size.window)) == (sizes.blocks, sizes.window)
        assert all(map(holds, of_size.parts, alone.parts))
        assert holds(of_size.blocks, alone.blocks) and holds(of_size.window, alone.window)
    # No larger than some core needs; parts of the coarser levels hold larger ones of the finer.
    assert sizes.parts[0] == max(length(needs.parts[0]) for needs in least)


def blurred(x, times, filled):
    """Means of three voxels; what is not filled is as zeros."""
    for _ in range(times):
        x = np.pad(np.where(np.arange(len(x)) < filled, x, 0), 1)
        x = 0.3 * x[:-2] + 0.4 * x[1:-1] + 0.3 * x[2:] + 0.1
    return x


def encoded(x, axis, filled):
    """The levels of a network without weights, as `unet.Encoder`."""
    levels = []
    for step in (*axis.strides, 1):
        x = blurred(x, 2, filled)
        levels.append(x)
        x, filled = x.reshape(-1, step).max(1), filled // step
    return levels


def attended(x, axis, origin):
    """Adds the mean of each block, as far as it is in the image."""
    there = origin + np.arange(len(x)) < axis.size // axis.stride
    x = np.where(there, x, 0).reshape(-1, axis.block)
    number = np.maximum(there.reshape(-1, axis.block).sum(1, keepdims=True), 1)
    return (x + x.sum(1, keepdims=True) / number).ravel()


def decoded(levels, axis, parts, starts):
    """The map of the finest part, as `unet.Decoder`; `starts` are of the levels."""
    x, sizes = levels[-1], axis.size // np.cumprod([1, *axis.strides])
    for i in reversed(range(len(axis.strides))):
        upsampled = np.repeat(x, axis.strides[i])
        begin = parts[i].start - parts[i + 1].start * axis.strides[i]
        upsampled = upsampled[begin : begin + length(parts[i])]
        begin = parts[i].start - starts[i]
        fine = levels[i][begin : begin + length(parts[i])]
        x = blurred(fine + upsampled, axis.reach, sizes[i] - parts[i].start)
    return x


def map_of(x, core, needs, axis):
    """The map of a core, from no more than it needs."""
    starts = needs.window.start // np.cumprod([1, *axis.strides])
    values = np.pad(x, (0, max(needs.window.stop - len(x), 0)))[needs.window]
    *finer, coarse = encoded(values, axis, axis.size - needs.window.start)
    coarse = np.pad(coarse, (0, length(needs.blocks)))
    begin = needs.blocks.start - starts[-1]
    coarse = attended(coarse[begin : begin + length(needs.blocks)], axis, needs.blocks.start)
    coarse = coarse[within((needs.parts[-1],), (needs.blocks,))]
    found = decoded([*finer, coarse], axis, needs.parts, starts)
    return found[within((core,), (needs.parts[0],))]


@settings(deadline=None)
@given(grids())
def test_what_cores_need_is_enough_for_the_map_of_the_whole(grid):
    size, axis, cores = grid
    x = np.zeros(axis.size)
    x[:size] = np.random.default_rng(0).normal(size=size)
    levels = [slice(0, axis.size // step) for step in np.cumprod([1, *axis.strides])]
    blocks = slice(0, -(-levels[-1].stop // axis.block) * axis.block)
    whole = map_of(x, levels[0], tiles.Needs(tuple(levels), blocks, levels[0]), axis)
    every = [*cores, *mirrored(cores, size)]
    sizes = tiles.sizes_of(every, axis)
    for core in every:
        for needs in (tiles.needs(core, axis), tiles.needs(core, axis, sizes=sizes)):
            np.testing.assert_allclose(map_of(x, core, needs, axis), whole[core], atol=1e-12)


def test_margins_stay_within_the_image():
    core = (slice(4, 8), slice(8, 10))
    outer = around(core, (2, 3), (9, 10))
    assert outer == (slice(2, 9), slice(5, 10))
    assert within(core, outer) == (slice(2, 6), slice(3, 5))


def test_what_a_core_needs_by_hand():
    # Three levels; blocks are of 16 voxels of the image.
    axis = Axis(size=100, strides=(2, 2), block=4, reach=2, radius=14)
    assert tiles.needs(slice(40, 56), axis) == (
        (slice(38, 58), slice(16, 32), slice(8, 16)),
        slice(8, 16),
        slice(16, 80),
    )
    assert tiles.needs(slice(88, 97), axis) == (
        (slice(86, 100), slice(40, 50), slice(20, 25)),
        slice(20, 28),
        slice(64, 100),
    )
    # Of given sizes it begins where it does, and ends where it may.
    assert tiles.needs(slice(88, 97), axis, sizes=tiles.Sizes((20, 16, 8), 12, 64)) == (
        (slice(86, 106), slice(40, 56), slice(20, 28)),
        slice(20, 32),
        slice(64, 128),
    )


@settings(deadline=None, max_examples=50)
@given(axes(), st.booleans())
def test_options_end_in_the_middle_of_blocks_and_tell_what_they_compute(drawn, mirror):
    size, axis = drawn
    options = tiles.options(size, axis, mirror=mirror)
    assert len({option.tiles for option in options}) == len(options)
    assert min(option.tiles for option in options) == 1
    for option in options:
        cores = tiles.grid(size, option.cores, option.first)
        assert len(cores) == option.tiles
        every = [*cores, *mirrored(cores, size)] if mirror else cores
        assert option.window == tiles.sizes_of(every, axis).window
        for core in cores[:-1]:
            assert core.stop % (shared(axis.block) * axis.stride) == 0
            if axis.block % 2 == 0:
                assert core.stop / axis.stride % axis.block == axis.block / 2


def shared(block):
    """Of how many voxels of the coarsest level the ends of cores are multiples."""
    half = [n for n in range(1, block // 2 + 1) if block % n == 0]
    return block if half == [1] and block > 2 else max(half, default=1)


def least_computed(size, axis, *, mirror):
    """For each number of voxels of a window the fewest that any cores on the grid compute."""
    unit, shift = axis.block * axis.stride, tiles._middle(axis.block) * axis.stride
    least: dict[int, float] = {}
    for core in range(unit, size + 2 * unit, unit):
        cores = tiles.grid(size, core, core - shift)
        every = [*cores, *mirrored(cores, size)] if mirror else cores
        window = tiles.sizes_of(every, axis).window
        least[window] = min(least.get(window, math.inf), window * len(cores))
    return least


@settings(deadline=None, max_examples=50)
@given(st.lists(axes(), min_size=1, max_size=3), st.integers(1, 30_000), st.booleans())
def test_the_chosen_cores_compute_the_fewest_voxels_of_all_that_fit(drawn, most, mirror):
    options = [tiles.options(size, axis, mirror=mirror) for size, axis in drawn]
    every = [least_computed(size, axis, mirror=mirror).items() for size, axis in drawn]
    computed = [
        math.prod(voxels for _, voxels in some)
        for some in itertools.product(*every)
        if math.prod(window for window, _ in some) <= most
    ]
    chosen = tiles.choose(options, max_voxels=most)
    if not computed:
        assert chosen is None
        return
    assert chosen is not None and len(chosen) == len(drawn)
    assert all(option in of_axis for option, of_axis in zip(chosen, options, strict=True))
    assert math.prod(option.window for option in chosen) <= most
    assert tiles.computed(chosen) == min(computed)


def test_equal_tiles_compute_less_than_the_largest_and_a_rest():
    axis = Axis(size=240, strides=(2, 2, 2), block=1, reach=2, radius=30)
    options = tiles.options(240, axis, mirror=False)
    # The largest cores that fit, of 160, would leave 80 to a tile as large.
    (chosen,) = tiles.choose([options], max_voxels=200) or ()
    assert (chosen.cores, chosen.first, chosen.tiles) == (120, 120, 2)


def test_a_small_image_is_one_tile():
    (radius,) = encoder_radius([(2,)] * 3)
    drawn = [(n, Axis(-(-n // 8) * 8, (2, 2, 2), 8, 2, radius)) for n in (600, 601)]
    options = [tiles.options(size, axis, mirror=True) for size, axis in drawn]
    chosen = tiles.choose(options, max_voxels=10**6) or ()
    assert [(option.tiles, option.window) for option in chosen] == [(1, 600), (1, 608)]


def test_too_few_voxels_for_the_smallest_tiles():
    axis = Axis(size=1000, strides=(2, 2), block=4, reach=2, radius=14)
    options = [tiles.options(1000, axis, mirror=True)] * 2
    least = min(option.window for option in options[0]) ** 2
    assert tiles.choose(options, max_voxels=least - 1) is None
    smallest = tiles.choose(options, max_voxels=least) or ()
    assert [option.cores for option in smallest] == [16, 16]


def test_among_equals_the_last_axis_has_the_longest_cores():
    axis = Axis(size=1000, strides=(2, 2), block=4, reach=2, radius=14)
    options = tiles.options(1000, axis, mirror=True)
    first, last = tiles.choose([options, options], max_voxels=100_000) or ()
    assert first.cores < last.cores
