"""A map in tiles is the map in one piece, whatever the sizes of tiles, blocks and image."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Array, extent
from cellcount_jax.inference import layout, programs, tiled_maps
from cellcount_jax.inference import plan as plans
from cellcount_jax.inference.array_sizes import array_shape
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.network.sau_net import create_model

pytestmark = pytest.mark.usefixtures("quick_compiling", "volumes_pass", "unwritten_is_nan")

LIMIT = 6600  # voxels of a tile of a plane


@dataclasses.dataclass
class Network:
    """A network and an image for it; a test may change the config."""

    config: ml_collections.ConfigDict
    variables: Any
    values: np.ndarray

    def map(self) -> np.ndarray:
        return tiled_maps.compute(self.config, self.variables, self.values)


@pytest.fixture
def network(
    small_config: Callable[..., ml_collections.ConfigDict],
    random_variables: Callable[[ml_collections.ConfigDict], Any],
    picture: Callable[[int], Array],
) -> Callable[..., Network]:
    def make(ndim: int, **changed: Any) -> Network:
        # A linear head: nothing of a difference is cut off.
        config = small_config(ndim, **{"target.kernel": "mask", **changed})
        values = (picture(ndim).values - 1000) / 200
        return Network(config, random_variables(config), values[..., None])

    return make


DENSITY = {"target.kernel": "inverse_distance", "target.count_head": True, "target.scale": 1.0}
BRANCH = {**DENSITY, "model.counter": "branch"}


@pytest.mark.parametrize(
    ("ndim", "changed"),
    [
        (2, {"model.attention": "none"}),
        (2, {"predict.flips": True}),
        (2, DENSITY),
        (2, BRANCH),
        (2, {**BRANCH, "model.levels": 2}),
        (2, {"model.strides": ((4, 2), (2, 2)), "predict.flips": True}),
        (3, {}),
        (3, BRANCH),
        (3, {"predict.flips": True, "model.attention": "none"}),
    ],
    ids=str,
)
def test_tiles_give_the_maps_of_one_piece(
    network: Callable[..., Network],
    ndim: int,
    changed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = network(ndim, **changed)
    shape = one.values.shape[:-1]
    assert make_plan(one.config, shape).whole
    whole = one.map()
    assert whole.shape == (*shape, 1 + ("target.count_head" in changed))
    assert (whole.std(tuple(range(ndim))) > 1e-3).all()
    # Runs of tiles of a volume, of one slab each, or of several; and of one tile.
    for planes, longest in ((8, 1024), (4, 1024), (8, 8)) if ndim == 3 else ((0, 8),):
        one.config.predict.max_voxels = planes * 3400 or LIMIT
        monkeypatch.setattr(layout, "_slabs", lambda axis, planes=planes: [planes])
        monkeypatch.setattr(plans, "_RUN", longest)
        monkeypatch.setattr(plans, "_RUN_MIRRORED", longest)
        plan = make_plan(one.config, shape)
        tiles, runs = len(plan.cores), len(plan.runs(range(len(plan.cores))))
        assert tiles >= 2 and np.prod(plan.window_shape) <= one.config.predict.max_voxels
        assert (plan.lags is not None) == (planes > 0) and (runs < tiles) == (longest == 1024)
        np.testing.assert_allclose(one.map(), whole, atol=1e-5)


@pytest.mark.parametrize("changed", [{}, {**BRANCH, "predict.flips": True}], ids=str)
def test_windows_of_a_thin_volume_give_its_maps(
    network: Callable[..., Network], changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = network(3, **changed)
    one.values = np.tile(one.values, (1, 1, 4, 1))
    whole = one.map()
    one.config.predict.max_voxels = 160_000
    monkeypatch.setattr(layout, "_slabs", lambda axis: [])
    plan = make_plan(one.config, one.values.shape[:-1])
    assert plan.lags is None and len(plan.cores) >= 3
    np.testing.assert_allclose(one.map(), whole, atol=1e-5)


@pytest.mark.parametrize("changed", [{"predict.flips": True}, DENSITY, BRANCH], ids=str)
def test_planes_of_many_sizes_have_the_maps_of_few_programs(
    network: Callable[..., Network], caplog: pytest.LogCaptureFixture, changed: dict[str, Any]
) -> None:
    one = network(2, **changed)
    sizes = [(93, 131), (93, 90), (60, 131), (9, 17), (1, 1), (33, 60), (64, 64), (40, 104)]
    sizes += [(71, 23), (92, 130), (90, 93), (16, 24)]
    images = [one.values[tuple(slice(n) for n in size)] for size in sizes]
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        found = [tiled_maps.compute(one.config, one.variables, image) for image in images]
    programs = sum("Finished XLA compilation" in record.message for record in caplog.records)
    assert 0 < programs <= 3
    model = create_model(one.config, trained=True)
    for image, maps in list(zip(images, found, strict=True))[::4]:
        # As the network is defined, without an array around the image.
        flips = [(), (0,), (1,), (0, 1)] if "predict.flips" in changed else [()]
        expected = np.zeros_like(maps)
        for flip in flips:
            values = np.flip(image, flip)
            part = np.asarray(jax.jit(model.apply)(one.variables, values[None]))[0]
            part = 1 / (1 + np.exp(-part)) if "target.count_head" not in changed else part
            expected += np.flip(part, flip) / len(flips)
        np.testing.assert_allclose(maps, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("number", [1, 3, 4, 9])
def test_an_accelerator_computes_mirror_images_in_batches(
    network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    one = network(2, **{"predict.flips": True, "model.dtype": "float32"})
    one.values = one.values[:70, :90]
    one_at_a_time = one.map()
    voxels = math.prod(make_plan(one.config, one.values.shape[:-1]).window_shape)
    one.config.predict.max_voxels = number * voxels + 1
    batches: list[int] = []
    call = programs.call

    def called(run: Any, variables: Any, values: np.ndarray, size: np.ndarray) -> jax.Array:
        batches.append(len(values))
        return call(run, variables, values, size)

    monkeypatch.setattr(programs, "call", called)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(one.map(), one_at_a_time, atol=1e-5)
    assert batches == {1: [1] * 4, 3: [2, 2], 4: [4], 9: [4]}[number]


def test_the_sizes_of_arrays(small_config: Callable[..., ml_collections.ConfigDict]) -> None:
    config = small_config(2, **{"predict.max_voxels": 8_000_000})
    rng = np.random.default_rng(0)
    small = [tuple(map(int, rng.integers(1, 725, 2))) for _ in range(400)]
    medium = [tuple(map(int, rng.integers(1, 1025, 2))) for _ in range(400)]
    wide = [shape for shape in medium if shape[1] >= shape[0]]
    assert len({array_shape(config, shape) for shape in small}) < 8
    assert len({array_shape(config, shape) for shape in wide}) < 8
    for exact in (256, 512, 1024):
        assert array_shape(config, (exact, exact - 60)) == (exact, exact)
    for shape in [*small, *medium, (1040, 1388), (956, 2017), (2800, 2800), (300, 8000)]:
        array, least = array_shape(config, shape), make_plan(config, shape).padded_shape
        assert all(n >= k and n % 4 == 0 for n, k in zip(array, least, strict=True))
        assert max(array) <= max(256, 1.45 * max(least))
        assert np.prod(array) <= 8_000_000
        if np.prod(array) > 1_200_000:
            assert np.prod(array) < 1.5 * np.prod(least)
    # Where the map would be another, or the memory more than wanted, an image is not padded.
    others = {"model.norm": "instance"}, {"model.attention": "global"}, {"predict.max_voxels": 9000}
    for changed in others:
        assert array_shape(small_config(2, **changed), (93, 131)) == (96, 132)
    assert array_shape(small_config(3), (27, 67, 50)) == (28, 68, 52)


def test_the_tiles_need_their_halo(
    network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = network(2)
    whole = one.map()
    one.config.predict.max_voxels = LIMIT
    monkeypatch.setattr(plans, "encoder_radius", lambda strides: (0, 0))
    assert np.abs(one.map() - whole).max() > 1e-3


def test_the_decoder_computes_what_it_needs_around_a_core_and_no_more(
    network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = network(2)
    whole = one.map()
    one.config.predict.max_voxels = 4700
    plan = make_plan(one.config, one.values.shape[:-1])
    middle = plan.cores[len(plan.cores) // 2]
    sides = zip(plan.part_shapes[0], extent(middle), plan.window_shape, strict=True)
    assert all(part <= core + 8 < window for part, core, window in sides)
    monkeypatch.setattr(plans, "decoder_reach", lambda config: 1)
    assert np.abs(one.map() - whole).max() > 1e-3


def test_attention_reaches_beyond_a_tile_and_its_halo(network: Callable[..., Network]) -> None:
    """An image far outside of a tile, but in the same attention block, affects its map."""
    one = network(2, **{"train.crop": (16, 96), "predict.max_voxels": 16 * 240})
    one.values = np.tile(one.values[:16, :96], (1, 5, 1))
    before = one.map()
    core = make_plan(one.config, one.values.shape[:-1]).cores[0][1]
    one.values = one.values.copy()
    one.values[:, core.stop + 32 : 96] = 9
    assert core.stop + 32 < 88 and np.abs((one.map() - before)[:, :8]).max() > 1e-4


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model.norm": "instance"}, r"1040 voxels, more than config\.predict\.max_voxels"),
        ({"model.attention": "global"}, r"1040 voxels, more than config\.predict\.max_voxels"),
        ({}, "max_voxels = 500"),  # no tile is small enough
    ],
)
def test_an_image_that_cannot_be_cut_into_tiles(
    small_config: Callable[..., ml_collections.ConfigDict], changed: dict[str, str], words: str
) -> None:
    config = small_config(2, **changed, **{"predict.max_voxels": 500})
    with pytest.raises(InputError, match=words):
        make_plan(config, (40, 26))


def test_an_image_of_too_many_tiles_is_refused_before_they_are_listed(
    small_config: Callable[..., ml_collections.ConfigDict],
) -> None:
    config = small_config(2, **{"model.norm": "batch", "model.attention": "none"})
    with pytest.raises(InputError, match=r"1e\+18 voxels, .* coarser level of it \(--level\)"):
        make_plan(config, (10**9, 10**9))


def test_a_slab_is_read_while_the_one_before_is_computed(
    network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = network(3)
    one.config.predict.max_voxels = 4 * 3400
    monkeypatch.setattr(layout, "_slabs", lambda axis: [4])
    seen: list[str] = []
    call, taken = programs.call, tiled_maps._taken

    def watched(run: Any, *inputs: Any) -> Any:
        seen.append("begun")
        return call(run, *inputs)

    def take(*arguments: Any) -> Any:
        seen.append("taken")
        return taken(*arguments)

    monkeypatch.setattr(programs, "call", watched)
    monkeypatch.setattr(tiled_maps, "_taken", take)
    one.map()
    # The first slabs of a run have no maps yet; from then on each is taken after the next began.
    first = seen.index("taken")
    lags = make_plan(one.config, one.values.shape[:-1]).lags
    assert lags is not None
    lag = lags.maps
    assert seen[:first] == ["begun"] * (lag // 4 + 2)
    assert seen[first : first + 4] == ["taken", "begun"] * 2
