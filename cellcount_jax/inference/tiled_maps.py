"""The network's maps of an image, in tiles if it is large, equal to those of one piece.

A tile is computed once, from a window around it: the encoder on the window, attention on the whole
blocks of the coarsest level that the tile needs, and the decoder on the parts of its levels from
which the tile's maps come, a level no more than the next finer one needs. The tiles of a
volume behind each other are computed in one go, slab by slab of its planes
(`network/passing.py`). The caller reads the image and takes the maps: in memory (`compute`) or on a
disk (`tasks.py`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax import Array

from cellcount_jax.images.regions import Reader, Region, extent, within
from cellcount_jax.inference import programs
from cellcount_jax.inference.plan import Plan, make_plan, mirrored
from cellcount_jax.inference.programs import Place
from cellcount_jax.inference.tiles import Needs

# On a CPU one image in one piece, or tile of planes, is computed at a time: it takes all cores, and
# two would take the memory twice.
_DEVICE = threading.Lock()


def compute(
    config: ml_collections.ConfigDict,
    variables: Any,
    values: np.ndarray,
    *,
    update: Callable[[int], object] = lambda voxels: None,
) -> np.ndarray:
    """The maps of an image in memory.

    Args:
      config: of the experiment.
      variables: `params` and `batch_stats` of its network.
      values: `(*spatial, channels)` normalised intensities.
      update: called with the number of voxels after each mirror image of a part, for a bar; in
        all those of the image once for each mirror image.

    Returns:
      `(*spatial, 1 or 2)` float32, the mean over mirror images with `config.predict.flips`;
      probabilities with the 'mask' kernel; the second, with `config.target.count_head`, is the
      cells' density.

    Raises:
      InputError: see `plan.make_plan`.
    """
    plan = make_plan(config, values.shape[:-1])
    found = np.empty((*plan.shape, 1 + config.target.count_head), np.float32)
    for run in plan.runs(range(len(plan.cores))):
        of_tiles = maps(config, variables, plan, values.__getitem__, run=run, update=update)
        for tile, part in of_tiles:
            found[plan.cores[tile]] = part
    return found


def maps(
    config: ml_collections.ConfigDict,
    variables: Any,
    plan: Plan,
    read: Reader,
    *,
    run: Sequence[int],
    update: Callable[[int], object] = lambda voxels: None,
) -> Iterator[tuple[int, np.ndarray]]:
    """The maps of the tiles of a run, each as soon as it is complete.

    Args:
      config: of the experiment.
      variables: of its network.
      plan: of the image.
      read: gives parts of the image.
      run: numbers of tiles, see `Plan.runs`.
      update: see `compute`.

    Yields:
      The number of a tile, and `(*core, 1 or 2)` float32, see `compute`.
    """
    core = plan.joined(run)
    sums: dict[int, np.ndarray] = {}
    for number, (flip, parts) in enumerate(_mirror_images(config, variables, plan, read, core)):
        left = {tile: extent(plan.cores[tile])[0] for tile in run}
        for place, found in parts:
            part, region = np.flip(found, flip), mirrored(place, plan.shape, flip)
            if config.target.kernel == "mask":
                part = 1 / (1 + np.exp(-part))
            update(math.prod(extent(region)))
            for tile in [t for t in left if _meet(plan.cores[t][0], region[0])]:
                of_tile = plan.cores[tile][0]
                if tile not in sums:
                    sums[tile] = np.zeros((*extent(plan.cores[tile]), part.shape[-1]), np.float32)
                start, stop = max(of_tile.start, region[0].start), min(of_tile.stop, region[0].stop)
                here = slice(start - of_tile.start, stop - of_tile.start)
                sums[tile][here] += part[start - region[0].start : stop - region[0].start]
                left[tile] -= stop - start
                if not left[tile]:
                    del left[tile]
                    if number == len(plan.flips) - 1:
                        yield tile, sums.pop(tile) / len(plan.flips)


def _meet(one: slice, other: slice) -> bool:
    return bool(one.start < other.stop and other.start < one.stop)


def _mirror_images(
    config: ml_collections.ConfigDict, variables: Any, plan: Plan, read: Reader, core: Region
) -> Iterator[tuple[tuple[int, ...], Iterable[tuple[Region, np.ndarray]]]]:
    """Each mirror image of a run, with the maps of its parts, and where these are."""
    if not plan.whole:
        for flip in plan.flips:
            yield flip, _passed(config, variables, plan, read, core, flip)
        return
    step = _at_once(config, plan)
    for i in range(0, len(plan.flips), step):
        flips = plan.flips[i : i + step]
        found = _whole(config, variables, plan, read(core), flips)
        for flip, of_flip in zip(flips, found, strict=True):
            yield flip, [(core, of_flip[core])]


def _at_once(config: ml_collections.ConfigDict, plan: Plan) -> int:
    """How many mirror images in one piece are a batch: small ones do not fill an accelerator, but
    a processor's cores are busy with one, and the arrays of several would not fit its caches.

    A power of two, as is the number of all: batches of another size would be another program.
    """
    if jax.default_backend() == "cpu":
        return 1
    most = config.predict.max_voxels // math.prod(plan.window_shape)
    return 1 << max(min(most, len(plan.flips)).bit_length() - 1, 0)


def _whole(
    config: ml_collections.ConfigDict,
    variables: Any,
    plan: Plan,
    image: np.ndarray,
    flips: Sequence[tuple[int, ...]],
) -> np.ndarray:
    """The maps of mirror images in one piece, at the beginning of arrays."""
    values = np.zeros((len(flips), *plan.window_shape, image.shape[-1]), image.dtype)
    for of_flip, flip in zip(values, flips, strict=True):
        of_flip[tuple(slice(n) for n in image.shape[:-1])] = np.flip(image, flip)
    size = np.asarray(plan.padded_shape, np.int32)
    run = programs.of_image(ml_collections.FrozenConfigDict(config))
    with _DEVICE:
        found = programs.call(run, variables, values, size)
        if jax.default_backend() == "cpu":
            found.block_until_ready()
    return np.asarray(found)


def _passed(
    config: ml_collections.ConfigDict,
    variables: Any,
    plan: Plan,
    read: Reader,
    core: Region,
    flip: tuple[int, ...],
) -> Iterator[tuple[Region, np.ndarray]]:
    """The maps of a run in a mirror image, slab by slab, and where they are."""
    needs, wanted = plan.needs(core, flip), mirrored(core, plan.shape, flip)
    lags, planes = plan.lags, plan.window_shape[0]
    run, place = _program_of(config, plan), _placed(plan, needs)
    state: Any = {}
    on_cpu = jax.default_backend() == "cpu"
    waiting: tuple[Region, Region, Array] | None = None
    for first in plan.slabs(core, flip):
        window = (slice(first, first + planes), *(need.window for need in needs[1:]))
        values = plan.read_mirrored(read, flip, window)[None]
        inputs = values, place._replace(first=np.int32(first))
        if lags is not None and not state:
            state = programs.nothing_before(run, variables, inputs)
        with _DEVICE:
            if on_cpu:
                jax.block_until_ready(state)  # two at once would take the memory twice
            found, state = programs.call(run, variables, state, *inputs)
            if on_cpu and lags is None:
                found.block_until_ready()
        # While a slab is computed, the maps of the one before are used, and the next one is read.
        if waiting is not None:
            yield _taken(*waiting)
        part = tuple(need.parts[0] for need in needs)
        if lags is not None:
            part = (slice(first - lags.maps, first - lags.maps + planes), *part[1:])
        depth = slice(max(part[0].start, wanted[0].start), min(part[0].stop, wanted[0].stop))
        waiting = ((depth, *wanted[1:]), part, found) if depth.start < depth.stop else None
    if waiting is not None:
        yield _taken(*waiting)


def compile_ahead(
    config: ml_collections.ConfigDict, variables: Any, plan: Plan, channels: int
) -> None:
    """Compiles the program of an image in tiles, for `maps` to find it."""
    run, place = _program_of(config, plan), _placed(plan, plan.needs(plan.cores[0], ()))
    inputs = np.zeros((1, *plan.window_shape, channels), np.float32), place
    state = programs.nothing_before(run, variables, inputs)
    programs.compiled(run, variables, state, *inputs)


def window_program(
    config: ml_collections.ConfigDict,
    variables: Any,
    plan: Plan,
    core: Region,
    values: np.ndarray,
) -> Callable[[], np.ndarray]:
    """What computes something once for the maps of a core, to see how long it takes.

    Args:
      config: of the experiment.
      variables: of its network.
      plan: of an image in tiles.
      core: one of its cores.
      values: `(*window, channels)` normalised intensities, see `Plan.window_shape`.

    Returns:
      A function that gives `(*part, 1 or 2)` maps.
    """
    run, place = _program_of(config, plan), _placed(plan, plan.needs(core, ()))
    if plan.lags is not None:
        # Far from both ends of a deep volume, where nothing is skipped.
        place.size[0] = 2**20
        place = place._replace(first=np.int32(2**19))
    inputs = values[None], place

    # One leaves it for the next, as in a run: it is made once.
    state = programs.nothing_before(run, variables, inputs)

    def compute() -> np.ndarray:
        nonlocal state
        found, state = programs.call(run, variables, state, *inputs)
        return np.asarray(found)[0]

    return compute


def _program_of(config: ml_collections.ConfigDict, plan: Plan) -> programs.Jitted:
    frozen = ml_collections.FrozenConfigDict(config)
    return programs.of_window(frozen, plan.part_shapes, plan.blocks_shape, plan.beyond, plan.lags)


def _placed(plan: Plan, needs: Sequence[Needs]) -> Place:
    windows = np.array([need.window.start for need in needs])
    filled = np.array(plan.padded_shape) - windows
    if plan.lags is not None:
        # What planes that pass need is counted from the slab on, and each slab is full.
        windows[0], filled[0] = 0, plan.window_shape[0]
    steps = np.cumprod([(1,) * len(needs), *plan.strides], axis=0)
    starts = np.array([[part.start for part in need.parts] for need in needs]).T
    origin = np.array([need.blocks.start for need in needs])
    return Place(
        np.asarray(starts - windows // steps, np.int32),
        np.asarray(origin - windows // steps[-1], np.int32),
        np.asarray(origin, np.int32),
        np.asarray(plan.padded_shape, np.int32),
        np.asarray(filled, np.int32),
        np.int32(0),
    )


def _taken(region: Region, part: Region, found: Array) -> tuple[Region, np.ndarray]:
    """A region and its maps, from those of a part."""
    return region, np.asarray(found)[0][within(region, part)]
