"""Self-attention against a loop over voxels, its blocks and its dropout."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from cellcount_jax.network.attention import SelfAttention, from_blocks, to_blocks

NORM = {"kind": "batch", "momentum": 0.9, "axis_name": None, "dtype": jnp.float32}

# The grid of the bottleneck and the blocks on it: with a remainder on every axis, whole,
# global, larger than the grid.
GRIDS: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = [
    ((5, 7), (2, 3)),
    ((4, 6), (2, 3)),
    ((3, 4), None),
    ((3, 4), (8, 8)),
    ((3, 5, 4), (2, 2, 3)),
]


def random_image(shape: tuple[int, ...]) -> Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def random_variables(module: SelfAttention, x: Array) -> Any:
    """Random weights, and running statistics that are not those of a new network."""
    rng = np.random.default_rng(0)

    def fill(path: tuple[Any, ...], leaf: Any) -> Array:
        if path[-1].key in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = 0.8 * rng.normal(size=leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), x)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def attention(block: tuple[int, ...] | None, dropout: float = 0.3) -> SelfAttention:
    return SelfAttention(block=block, dropout=dropout, norm=NORM, dtype=jnp.float32)


def naive_attention(variables: Any, x: np.ndarray, block: tuple[int, ...] | None) -> np.ndarray:
    """Voxel by voxel, over the voxels of the same block that are inside the image."""
    p = jax.tree.map(np.asarray, variables["params"])
    stats = jax.tree.map(np.asarray, variables["batch_stats"]["norm"]["BatchNorm_0"])
    affine = p["norm"]["BatchNorm_0"]

    def project(name: str, v: np.ndarray) -> np.ndarray:
        kernel = p[name]["kernel"]
        return v @ kernel.reshape(kernel.shape[-2:]) + p[name]["bias"]

    grid = x.shape[1:-1]
    size = grid if block is None else block
    y = np.empty_like(x)
    for b in range(len(x)):
        for i in np.ndindex(*grid):
            scores, values = [], []
            for j in np.ndindex(*grid):
                if all(a // s == c // s for a, c, s in zip(i, j, size, strict=True)):
                    scores.append(project("theta", x[b][i]) @ project("phi", x[b][j]))
                    values.append(project("g", x[b][j]))
            weights = np.exp(np.array(scores) - max(scores))
            seen = (weights / weights.sum()) @ np.array(values)
            out = np.maximum(project("out", seen), 0)
            out = (out - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
            y[b][i] = x[b][i] + affine["scale"] * out + affine["bias"]
    return y


@pytest.mark.parametrize(("grid", "block"), GRIDS)
def test_attention_equals_a_naive_loop(
    grid: tuple[int, ...], block: tuple[int, ...] | None
) -> None:
    module = attention(block)
    x = random_image((2, *grid, 3))
    variables = random_variables(module, x)
    actual = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
    expected = naive_attention(variables, np.asarray(x), block)
    assert np.abs(expected - np.asarray(x)).max() > 0.1
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_dropout_keeps_the_mean_and_follows_the_example_keys() -> None:
    module = attention((2, 3))
    x = random_image((1, 5, 4, 3))
    variables = random_variables(module, x)
    # Behind an inactive ReLU and inference norm, the output is linear in the weights.
    variables["params"]["out"]["bias"] = jnp.full((3,), 50.0)
    apply = jax.jit(lambda v, x, keys: module.apply(v, x, train=False, keys=keys))
    count = 400
    keys = jax.random.split(jax.random.key(3), count).at[1].set(jax.random.key(4))
    keys = keys.at[2].set(jax.random.key(4))
    many = np.asarray(apply(variables, jnp.repeat(x, count, axis=0), keys), np.float64)
    without = np.asarray(apply(variables, x, None))[0]
    np.testing.assert_array_equal(many[1], many[2])
    assert (many[0] != many[1]).mean() > 0.5
    error = many.mean(axis=0) - without
    deviation = many.std(axis=0)
    assert deviation.min() > 1e-3
    assert np.abs(error / (deviation / math.sqrt(count))).max() < 5


@pytest.mark.parametrize(("grid", "block"), [g for g in GRIDS if g[1] is not None])
def test_blocks_round_trip(grid: tuple[int, ...], block: tuple[int, ...]) -> None:
    x = random_image((2, *grid, 3))
    blocks = to_blocks(x, block)
    counts = [math.ceil(g / b) for g, b in zip(grid, block, strict=True)]
    assert blocks.shape == (2, math.prod(counts), math.prod(block), 3)
    np.testing.assert_array_equal(from_blocks(blocks, block, grid), x)
    first = x[(slice(None), *(slice(b) for b in block))]
    inside = np.asarray(blocks[:, 0])[(blocks[:, 0] != 0).all(-1)]
    np.testing.assert_array_equal(inside, np.asarray(first).reshape(-1, 3))
