"""What the benchmarks measure: the configs' training step and inference on random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cellcount_jax import config as settings
from cellcount_jax import variants
from cellcount_jax.maps import targets
from cellcount_jax.network.sau_net import create_model
from cellcount_jax.training import parallel
from cellcount_jax.training.step import train_step


def experiment(
    ndim: int, features: int, crop: list[int] | None = None
) -> ml_collections.ConfigDict:
    """The settings of configs/vgg.py, or of the volumes, at a size of network."""
    config = settings.default_config()
    config.train.batch_labelled = 8
    if ndim == 3:
        variants.use_volumes(config)
    config.model.features = features
    if crop:
        config.train.crop = tuple(crop)
    return config


def random_batch(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """A batch of random numbers of a config's sizes, of images with one channel."""
    t = config.train
    rng = np.random.default_rng(0)

    def random(count: int) -> np.ndarray:
        return rng.normal(size=(count, *t.crop, 1)).astype(np.float32)

    return {
        "image": random(t.batch_labelled),
        "target": np.abs(random(t.batch_labelled)),
        "valid": np.ones((t.batch_labelled, *t.crop, 1), bool),
        "unlabelled": random(t.batch_unlabelled),
    }


def jax_training(
    config: ml_collections.ConfigDict, state: Any, batch: dict[str, np.ndarray], *, steps: int
) -> Callable[[], Any]:
    """A call of the training loop's compiled run of some steps on one batch."""

    geometry = targets.target_geometry(config, (1.0,) * config.data.ndim)

    def step(state: Any, data: Any, key: jax.Array) -> tuple[Any, Any]:
        return train_step(state, data, key, config=config, geometry=geometry)

    return compiled_run(step, state, batch, steps=steps)


def compiled_run(
    step: parallel.Step, state: Any, data: Any, *, steps: int
) -> Callable[[], dict[str, jax.Array]]:
    """A call of the training loop's compiled run of a step on one device: its metrics."""
    devices = jax.local_devices()[:1]
    run = parallel.scanned(step, length=steps, devices=devices)
    # The run uses its state up, so that each one has its own.
    current, data, key = parallel.replicate(
        (jax.tree.map(jnp.copy, state), data, jax.random.key(1)), devices
    )

    def call() -> dict[str, jax.Array]:
        nonlocal current
        current, metrics = jax.block_until_ready(run(current, data, key))
        return metrics

    return call


def jax_inference(
    config: ml_collections.ConfigDict, state: Any, image: np.ndarray, *, steps: int
) -> Callable[[], Any]:
    """A call that computes the maps of some images several times."""
    apply = jax.jit(create_model(config, trained=True).apply)
    variables = jax.device_put({"params": state.params, "batch_stats": state.batch_stats})
    x = jnp.asarray(image)
    return lambda: [jax.block_until_ready(apply(variables, x)) for _ in range(steps)]
