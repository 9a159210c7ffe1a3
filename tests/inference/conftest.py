"""Small networks with random weights, shared by the tests of inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.config import default_config
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import layout, plan, tiles
from cellcount_jax.network.sau_net import create_model
from cellcount_jax.variants import use_volumes

# Sizes that no stride and no block divides.
_SHAPES = {2: (93, 131), 3: (27, 67, 50)}


@pytest.fixture
def small_config() -> Callable[..., ml_collections.ConfigDict]:
    """Gives the settings of a network of 3 levels in 2D or 3D, with some of them changed."""

    def make(ndim: int, **changed: Any) -> ml_collections.ConfigDict:
        config = default_config()
        if ndim == 3:
            use_volumes(config)
            config.model.strides = ((1, 2, 2), (2, 2, 2))
        config.train.crop = {2: (8, 12), 3: (4, 8, 8)}[ndim]
        config.model.update({"levels": 3, "features": 2})
        config.predict.flips = False
        config.update_from_flattened_dict(changed)
        return config

    return make


@pytest.fixture
def volumes_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes in tiles pass plane by plane however small they are, and in slabs of any size."""

    def cost(way: Any, depth: int, lag: int) -> float:
        return tiles.computed(way.chosen) * (1 + 2 / way.slab) if way.slab else math.inf

    monkeypatch.setattr(layout.Layout, "cost", cost)
    monkeypatch.setattr(layout, "_PASSING_SHARE", 1.0)
    monkeypatch.setattr(plan, "_DEPTH", 8)


@pytest.fixture
def random_variables() -> Callable[[ml_collections.ConfigDict], Any]:
    """Gives weights for a config, with which a map has peaks of all heights."""

    def draw(path: Any, leaf: Any) -> np.ndarray:
        rng = np.random.default_rng([17, *jax.tree_util.keystr(path).encode()])
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        width = 0.3 if len(leaf.shape) < 2 else (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return (width * rng.normal(size=leaf.shape)).astype(np.float32)

    def make(config: ml_collections.ConfigDict) -> Any:
        example = jnp.zeros((1, *(8,) * config.data.ndim, 1))
        shapes = jax.eval_shape(create_model(config).init, jax.random.key(0), example)
        return jax.tree_util.tree_map_with_path(draw, shapes)

    return make


@pytest.fixture
def picture() -> Callable[[int], Array]:
    """Gives an image of smooth noise in 2D or 3D."""

    def make(ndim: int) -> Array:
        rng = np.random.default_rng(2)
        values = ndimage.gaussian_filter(rng.normal(size=_SHAPES[ndim]), 1.0)
        return Array((1000 + 200 * values / values.std()).astype(np.float32), ndim)

    return make
