"""Plans of images of any size: within moments, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.inference import plan, tiles
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.inference.trained_model import TrainedModel


def test_more_tiles_than_can_be_listed(
    untrained_model: Callable[..., TrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles overlap, so there are more of them than voxels over voxels of a tile."""
    config = untrained_model(2, predict__max_voxels=2500).config
    monkeypatch.setattr(plan, "_MOST_TILES", 100)
    monkeypatch.setattr(tiles, "tile_grid", lambda *_, **__: pytest.fail("tiles were listed"))
    with pytest.raises(InputError, match=r"which are \d{3} tiles of .*2500; allow larger"):
        make_plan(config, (480, 480))
    with pytest.raises(InputError, match=r"which are more than 100 tiles of .*2500; allow larger"):
        make_plan(config, (520, 520))


@pytest.mark.parametrize("shape", [(101, 77), (64, 64), (97, 130)])
def test_cores_are_those_of_the_tiles_within_the_image(
    untrained_model: Callable[..., TrainedModel], shape: tuple[int, int]
) -> None:
    found = make_plan(untrained_model(2, predict__max_voxels=2500).config, shape)
    assert len(found.tiles) > 1
    for tile, core in zip(found.tiles, found.cores, strict=True):
        for part, within, size in zip(tile.core, core, shape, strict=True):
            assert (within.start, within.stop) == (part.start, min(part.stop, size))
