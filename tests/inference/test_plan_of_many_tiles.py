"""Plans of images of any size: within moments, or an error."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import extent
from cellcount_jax.inference import plan
from cellcount_jax.inference.model_file import load_model
from cellcount_jax.inference.plan import make_plan, mirrored
from cellcount_jax.inference.trained_model import TrainedModel

Make = Callable[..., TrainedModel]


def test_more_tiles_than_can_be_listed(
    untrained_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles overlap, so there are more of them than voxels over voxels of a tile."""
    config = untrained_model(2, predict__max_voxels=2500).config
    monkeypatch.setattr(plan, "_MOST_TILES", 100)
    monkeypatch.setattr(plan.itertools, "product", lambda *_: pytest.fail("tiles were listed"))
    with pytest.raises(InputError, match=r"which are \d{3} tiles of .*2500; allow larger"):
        make_plan(config, (480, 480))
    with pytest.raises(InputError, match=r"which are more than 100 tiles of .*2500; allow larger"):
        make_plan(config, (520, 520))


@pytest.mark.parametrize("shape", [(101, 77), (64, 64), (97, 130), (300, 41), (70, 41, 90)])
@pytest.mark.parametrize("flips", [False, True], ids=["", "mirror images"])
def test_cores_are_of_the_image_and_what_they_need_is_computed(
    untrained_model: Make, shape: tuple[int, ...], flips: bool
) -> None:
    options = {"predict__max_voxels": 2500, "predict__flips": flips}
    found = make_plan(untrained_model(len(shape), **options).config, shape)
    assert not found.whole and len(found.cores) > 1 and math.prod(found.window_shape) <= 2500
    covered = np.zeros(shape, int)
    for core in found.cores:
        covered[core] += 1
        for flip in found.flips:
            for need, part, size in zip(
                found.needs(core, flip)[-2:],
                mirrored(core, shape, flip)[-2:],
                found.window_shape[-2:],
                strict=True,
            ):
                assert need.window.stop - need.window.start == size
                assert need.window.start <= need.parts[0].start <= part.start
                assert part.stop <= need.parts[0].stop <= need.window.stop
    assert (covered == 1).all()


def test_planes_of_a_run_pass_from_before_what_its_maps_see(untrained_model: Make) -> None:
    config = untrained_model(3, predict__max_voxels=9000, predict__flips=True).config
    shape = (300, 80, 41)
    found = make_plan(config, shape)
    runs = found.runs(range(len(found.cores)))
    assert sorted(tile for run in runs for tile in run) == list(range(len(found.cores)))
    assert len(runs) > 1 and max(map(len, runs)) > 1
    slab, lags = found.window_shape[0], found.lags
    assert lags is not None
    for run in runs:
        core = found.joined(run)
        assert all(found.cores[tile][1:] == core[1:] for tile in run)
        assert extent(core)[0] == sum(extent(found.cores[tile])[0] for tile in run)
        for flip in found.flips:
            depth = mirrored(core, shape, flip)[0]
            slabs = found.slabs(core, flip)
            # A map is right if it sees no plane from before the first slab, see `tile_radius`.
            assert slabs[0] <= max(depth.start - found.halo[0], 0)
            assert slabs[0] > depth.start - found.halo[0] - slab or slabs[0] == 0
            assert slabs[-1] < depth.stop + lags.maps <= slabs[-1] + slab


def test_runs_are_of_tiles_behind_each_other(
    untrained_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_DEPTH", 12)
    options = {"predict__max_voxels": 16_000, "predict__flips": False}
    found = make_plan(untrained_model(3, **options).config, (60, 100, 41))
    assert len(found.cores) == 10 and {core[0].stop for core in found.cores} == {*range(12, 61, 12)}
    assert found.runs(range(10)) == [(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)]
    # Without some of them, in any order: those that are left out interrupt a run.
    assert found.runs([9, 3, 4, 8, 0, 5, 6]) == [(0,), (4, 6, 8), (3, 5), (9,)]
    monkeypatch.setattr(plan, "_RUN", 30)
    assert found.runs(range(10)) == [(0, 2), (4, 6), (8,), (1, 3), (5, 7), (9,)]
    assert found.runs([]) == []


@pytest.mark.parametrize("shape", [(400, 300), (60, 400, 300)])
def test_too_few_voxels_for_the_smallest_tile_say_how_many_are_needed(
    untrained_model: Make, shape: tuple[int, ...]
) -> None:
    attention = {"model__attention": "block", "train__crop": (8, 16, 16)[-len(shape) :]}
    config = untrained_model(len(shape), predict__max_voxels=50, **attention).config
    with pytest.raises(InputError, match=r"needs at least \d+, with the surroundings") as error:
        make_plan(config, shape)
    least = int(str(error.value).split("at least ")[1].split(",")[0])
    config.predict.max_voxels = least - 1
    with pytest.raises(InputError, match=f"needs at least {least}, with the surroundings"):
        make_plan(config, shape)
    config.predict.max_voxels = least
    assert math.prod(make_plan(config, shape).window_shape) <= least


def test_a_plan_of_a_whole_brain_takes_moments(untrained_model: Make) -> None:
    found = make_plan(untrained_model(3, predict__max_voxels=8_000_000).config, (1500, 2900, 4100))
    assert 100 < len(found.cores) < 10_000


@pytest.mark.parametrize(
    ("depth", "passes", "most"), [(1, False, 5), (20, False, 2.5), (400, True, 3), (2000, True, 3)]
)
def test_planes_of_thin_volumes_do_not_pass(depth: int, passes: bool, most: float) -> None:
    """What a run computes before and after its planes would be more than these."""
    found = make_plan(load_model("nuclei3d").config, (depth, 8000, 4000))
    assert (found.lags is not None) == passes
    windows = found.windows(range(len(found.cores)))
    assert windows * math.prod(found.window_shape) < most * depth * 8000 * 4000
