"""Plans of images of any size: within moments, or an error."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.inference.trained_model import TrainedModel


def test_more_tiles_than_can_be_listed(untrained_model: Callable[..., TrainedModel]) -> None:
    """Tiles overlap, so there are more of them than voxels over voxels of a tile."""
    config = untrained_model(3, predict__max_voxels=200_000).config
    started = time.process_time()
    with pytest.raises(InputError, match=r"which are .*e\+0\d tiles of .*200000; allow larger"):
        make_plan(config, (5800, 5800, 5800))
    assert time.process_time() - started < 10


@pytest.mark.parametrize("shape", [(101, 77), (64, 64), (97, 130)])
def test_cores_are_those_of_the_tiles_within_the_image(
    untrained_model: Callable[..., TrainedModel], shape: tuple[int, int]
) -> None:
    plan = make_plan(untrained_model(2, predict__max_voxels=2500).config, shape)
    assert len(plan.tiles) > 1
    for tile, core in zip(plan.tiles, plan.cores, strict=True):
        for part, within, size in zip(tile.core, core, shape, strict=True):
            assert (within.start, within.stop) == (part.start, min(part.stop, size))
