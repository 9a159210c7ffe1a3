"""Several devices give what one device gives, and a run in pieces what a run at once gives.

`python -m tests.training.test_parallel` is what runs on four virtual devices, in float64, because
their number cannot change within a process. It prints what it found as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax import struct
from jax import Array

from cellcount_jax.config import default_config
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError
from cellcount_jax.images import normalise
from cellcount_jax.maps import targets
from cellcount_jax.training import parallel
from cellcount_jax.training import stack as stacking
from cellcount_jax.training.step import TrainState, create_train_state, draw_and_step

LENGTH = 2
Run = Callable[[TrainState, stacking.TrainingData, Array], tuple[TrainState, Any]]


@struct.dataclass
class Counter:
    step: Array
    total: Array


def test_split_batch() -> None:
    assert parallel.split_batch(12, 4, "train.batch_labelled") == 3
    assert parallel.split_batch(0, 4, "train.batch_unlabelled") == 0
    with pytest.raises(InputError, match=r"config\.train\.batch_labelled = 6: .* devices, 4"):
        parallel.split_batch(6, 4, "train.batch_labelled")


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_example_keys_do_not_depend_on_the_device_count(devices: int) -> None:
    key = jax.random.key(5)
    share = 8 // devices

    def on_device(_: Array) -> Array:
        return parallel.example_keys(key, share, axis_name=parallel.AXIS)

    shares = jax.vmap(on_device, axis_name=parallel.AXIS)(jnp.arange(devices))
    assert shares.shape == (devices, share)
    alone = parallel.example_keys(key, 8, axis_name=None)
    actual, expected = jax.random.key_data(shares), jax.random.key_data(alone)
    np.testing.assert_array_equal(actual.reshape(expected.shape), expected)
    assert len(np.unique(expected, axis=0)) == 8


def test_all_sum() -> None:
    tree = {"a": jnp.arange(4.0), "b": jnp.arange(8.0).reshape(4, 2)}
    assert parallel.all_sum(tree, axis_name=None) is tree
    total = jax.vmap(
        lambda t: parallel.all_sum(t, axis_name=parallel.AXIS), axis_name=parallel.AXIS
    )(tree)
    np.testing.assert_array_equal(total["a"], [6.0] * 4)
    np.testing.assert_array_equal(total["b"], [[12.0, 16.0]] * 4)


def test_a_compiled_run_is_its_steps_one_by_one() -> None:
    def step(state: Counter, data: Array, key: Array) -> tuple[Counter, Array]:
        drawn = jax.random.uniform(key)
        return Counter(state.step + 1, state.total + drawn * data), drawn

    devices = jax.devices()[:1]
    run = parallel.scanned(step, length=3, devices=devices)
    start = Counter(jnp.asarray(7), jnp.zeros(()))
    key = jax.random.key(1)
    args = parallel.replicate((start, jnp.asarray(2.0), key), devices)
    state, drawn = run(*args)
    expected = [jax.random.uniform(jax.random.fold_in(key, s)) for s in (7, 8, 9)]
    np.testing.assert_array_equal(drawn, expected)
    assert int(state.step) == 10
    np.testing.assert_allclose(state.total, 2 * np.sum(expected), rtol=1e-6)


@pytest.fixture(scope="module")
def four_devices() -> dict[str, Any]:
    """What this file, run as a program, found."""
    environment = os.environ | {
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_parallel"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_comparison_is_of_a_run_that_learns(four_devices: dict[str, Any]) -> None:
    assert four_devices["devices"] == [4, 1]
    assert four_devices["types"] == ["float64"]
    assert four_devices["steps"] == 4
    assert all(loss > 0 for loss in four_devices["consistency"])
    assert four_devices["moved"] > 1e-3


def test_four_devices_equal_one(four_devices: dict[str, Any]) -> None:
    assert four_devices["parameters_differ"] < 1e-9
    assert four_devices["statistics_differ"] < 1e-9
    assert four_devices["losses_differ"] < 1e-9


def test_all_shards_of_the_state_are_equal(four_devices: dict[str, Any]) -> None:
    assert four_devices["shards"] == [4]
    assert four_devices["shards_equal"]


def test_a_run_in_two_pieces_equals_one_bitwise(four_devices: dict[str, Any]) -> None:
    assert four_devices["pieces_equal"]


def tiny_config() -> ml_collections.ConfigDict:
    config = default_config()
    config.data.normalisation = "standardise"
    config.target.scale = 1.0
    config.target.max_distance = 6.0
    config.model.features = 2
    config.model.levels = 2
    config.model.dtype = "float64"
    config.model.dropout = 0.0
    config.train.crop = (16, 16)
    config.train.steps = 8
    config.train.batch_labelled = 4
    config.train.batch_unlabelled = 8
    config.augment.noise = 0.1
    return config


def tiny_dataset() -> Dataset:
    rng = np.random.default_rng(0)

    def sample(name: str, labelled: bool) -> Sample:
        points = rng.uniform(0, 23, (9, 2)).astype(np.float32)
        image = rng.normal(size=(24, 24, 1)).astype(np.float32)
        for y, x in np.round(points).astype(int):
            image[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] += 3
        return Sample(name, image, points if labelled else None, (1.0, 1.0))

    labelled = tuple(sample(f"labelled_{i}", True) for i in range(2))
    unlabelled = tuple(sample(f"unlabelled_{i}", False) for i in range(2))
    return Dataset("random", labelled, unlabelled, {})


def training_run(config: ml_collections.ConfigDict, devices: Sequence[jax.Device]) -> Run:
    """The compiled run of the training loop."""
    geometry = targets.target_geometry(config, (1.0, 1.0))
    shares = {
        name: parallel.split_batch(config.train[name], len(devices), f"train.{name}")
        for name in ("batch_labelled", "batch_unlabelled")
    }
    step = functools.partial(
        draw_and_step, config=config, geometry=geometry, peak=1.0, shares=shares
    )
    return parallel.scanned(step, length=LENGTH, devices=devices)


def largest_difference(a: Any, b: Any) -> float:
    """Over all leaves, relative to the largest number of a leaf, or to 1 if that is larger."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / max(np.abs(x).max(), 1.0)) for x, y in pairs)


def equal(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def compare_devices() -> dict[str, Any]:
    # Compiling takes most of the time here, and speed does not matter.
    jax.config.update("jax_disable_most_optimizations", True)
    config = tiny_config()
    dataset = tiny_dataset()
    data = stacking.on_device(dataset, normalise.fit([], config.data.normalisation), config)
    create = jax.jit(
        lambda key: create_train_state(key, config, channels=1, axis_name=parallel.AXIS)
    )
    start = jax.device_get(create(jax.random.key(0)))
    key = jax.random.key(1)

    def go_on(run: Run, devices: Sequence[jax.Device], state: Any, calls: int) -> tuple[Any, Any]:
        state, on_devices, same_key = parallel.replicate((state, data, key), devices)
        losses = []
        for _ in range(calls):
            state, metrics = run(state, on_devices, same_key)
            losses.append(jax.device_get(metrics))
        return state, losses

    many, one = jax.devices(), jax.devices()[:1]
    run = training_run(config, many)
    half, losses = go_on(run, many, start, 2)
    shards = [[s.data for s in x.addressable_shards] for x in jax.tree.leaves(half)]
    on_host = jax.device_get(half)
    alone, alone_losses = map(jax.device_get, go_on(training_run(config, one), one, start, 2))
    at_once, _ = go_on(run, many, start, 4)
    in_pieces, _ = go_on(run, many, on_host, 2)
    return {
        "devices": [len(many), len(one)],
        "types": sorted(
            {str(x.dtype) for x in jax.tree.leaves((on_host.params, on_host.batch_stats))}
        ),
        "steps": int(on_host.step),
        "consistency": [float(x) for m in losses for x in m["consistency"]],
        "moved": largest_difference(start.params, on_host.params),
        "parameters_differ": largest_difference(alone.params, on_host.params),
        "statistics_differ": largest_difference(alone.batch_stats, on_host.batch_stats),
        "losses_differ": largest_difference(alone_losses, losses),
        "shards": sorted({len(s) for s in shards}),
        "shards_equal": all(equal(s[:1] * len(s), s) for s in shards),
        "pieces_equal": equal(jax.device_get(at_once), jax.device_get(in_pieces)),
    }


if __name__ == "__main__":
    print(json.dumps(compare_devices()))
