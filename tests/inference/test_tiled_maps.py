"""A map in tiles is the map in one piece, whatever the sizes of tiles, blocks and image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.config import default_config
from cellcount_jax.errors import InputError
from cellcount_jax.inference import plan, tiled_maps
from cellcount_jax.network.sau_net import create_model
from cellcount_jax.variants import use_volumes

pytestmark = pytest.mark.usefixtures("quick_compiling")

# Sizes that no stride and no block divides.
SHAPES = {2: (93, 131), 3: (27, 67, 50)}
LIMITS = {2: 48 * 60, 3: 46_000}


def experiment(ndim: int, attention: str = "block") -> ml_collections.ConfigDict:
    config = default_config()
    if ndim == 3:
        use_volumes(config)
        config.model.strides = ((1, 2, 2), (2, 2, 2))
    config.train.crop = {2: (16, 24), 3: (4, 16, 8)}[ndim]
    config.model.levels = 3
    config.model.features = 2
    config.model.attention = attention
    # A linear head: nothing of a difference is cut off.
    config.target.kernel = "mask"
    return config


def weights(config: ml_collections.ConfigDict) -> Any:
    """Random ones, with which all parts of the network matter."""
    rng = np.random.default_rng(1)
    example = jnp.zeros((1, *(8,) * config.data.ndim, 1))
    shapes = jax.eval_shape(create_model(config).init, jax.random.key(0), example)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        width = 0.3 if len(leaf.shape) < 2 else (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return (width * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def picture(shape: tuple[int, ...]) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=shape), 1.0)
    return (values / values.std()).astype(np.float32)[..., None]


@pytest.mark.parametrize("attention", ["block", "none"])
@pytest.mark.parametrize(("ndim", "flips"), [(2, False), (2, True), (3, False), (3, True)])
def test_tiles_give_the_map_of_one_piece(ndim: int, flips: bool, attention: str) -> None:
    config = experiment(ndim, attention)
    config.predict.flips = flips
    variables, values = weights(config), picture(SHAPES[ndim])
    whole = tiled_maps.compute(config, variables, values)
    assert len(plan.plan(config, SHAPES[ndim]).tiles) == 1
    config.predict.max_voxels = LIMITS[ndim]
    grid = plan.plan(config, SHAPES[ndim]).tiles
    sizes = [np.prod([s.stop - s.start for s in tile.outer]) for tile in grid]
    assert len(grid) > 4 and max(sizes) <= LIMITS[ndim]
    assert whole.shape == (*SHAPES[ndim], 1) and whole.std() > 0.01
    np.testing.assert_allclose(tiled_maps.compute(config, variables, values), whole, atol=1e-5)


def test_the_density_too_is_that_of_one_piece() -> None:
    config = experiment(2)
    config.target.kernel, config.target.count_head = "inverse_distance", True
    config.target.scale = 1.0
    variables, values = weights(config), picture(SHAPES[2])
    whole = tiled_maps.compute(config, variables, values)
    config.predict.max_voxels = LIMITS[2]
    assert whole.shape == (*SHAPES[2], 2) and whole[..., 1].std() > 1e-3
    np.testing.assert_allclose(tiled_maps.compute(config, variables, values), whole, atol=1e-5)


def test_the_tiles_need_their_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    config = experiment(2)
    variables, values = weights(config), picture(SHAPES[2])
    whole = tiled_maps.compute(config, variables, values)
    config.predict.max_voxels = LIMITS[2]
    monkeypatch.setattr(plan, "tile_radius", lambda strides: (0, 0))
    assert np.abs(tiled_maps.compute(config, variables, values) - whole).max() > 1e-3


def test_attention_reaches_beyond_a_tile_and_its_halo() -> None:
    """What is far outside of a tile, but in the same attention block, acts on its map."""
    config = experiment(2)
    config.train.crop = (16, 96)
    variables, values = weights(config), picture((16, 96))
    config.predict.max_voxels = 16 * 48
    changed = values.copy()
    changed[:, 48:] *= -1
    difference = tiled_maps.compute(config, variables, changed) - tiled_maps.compute(
        config, variables, values
    )
    assert np.abs(difference[:, :8]).max() > 1e-4


@pytest.mark.parametrize(
    "changed", [{"model.norm": "instance"}, {"model.attention": "global"}], ids=str
)
def test_what_would_depend_on_the_tiles_is_not_tiled(changed: dict[str, str]) -> None:
    config = experiment(2)
    config.update_from_flattened_dict({**changed, "predict.max_voxels": 1000})
    with pytest.raises(InputError, match=r"1040 voxels, more than config\.predict\.max_voxels"):
        plan.plan(config, (40, 26))


def test_no_tile_is_small_enough() -> None:
    config = experiment(2)
    config.predict.max_voxels = 500
    with pytest.raises(InputError, match="max_voxels = 500"):
        plan.plan(config, (100, 100))
