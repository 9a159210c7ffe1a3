"""The training state and the training step on equation 3 of the paper, pure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax.training import train_state
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax.config import IMAGE_PERTURBATIONS
from cellcount_jax.maps.targets import TargetGeometry
from cellcount_jax.network.sau_net import SAUNet, create_model, initial_variables
from cellcount_jax.training import losses, parallel
from cellcount_jax.training.batches import Batch, draw_batch
from cellcount_jax.training.stack import TrainingData

Metrics = dict[str, Array]


class TrainState(train_state.TrainState):
    """Parameters, optimiser state, step count and the norms' running statistics."""

    batch_stats: Any

    @property
    def variables(self) -> Any:
        """The network's variables: `params` and `batch_stats`."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def learning_rate_schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
    """Cosine decay to 0 over training [paper], or with restarts, cycles doubling [authors]."""
    o = config.optim
    if o.schedule == "cosine":
        return optax.cosine_decay_schedule(o.learning_rate, config.train.steps)
    cycles, end, length = [], 0, o.first_cycle
    while end < config.train.steps:
        cycles.append(
            {
                "init_value": o.learning_rate,
                "peak_value": o.learning_rate,
                "warmup_steps": 0,
                "decay_steps": length,
            }
        )
        end += length
        length *= 2
    return optax.sgdr_schedule(cycles)


def create_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam on the learning rate schedule, with decoupled weight decay by option."""
    schedule = learning_rate_schedule(config)
    if config.optim.weight_decay > 0:
        return optax.adamw(schedule, weight_decay=config.optim.weight_decay)
    return optax.adam(schedule)


def create_train_state(
    key: Array, config: ml_collections.ConfigDict, *, channels: int, axis_name: str | None = None
) -> TrainState:
    """Initial weights, optimiser and statistics.

    Args:
      key: random key of the weights.
      config: the experiment.
      channels: of the images.
      axis_name: the mapped axis that batch norm averages over.

    Returns:
      The state at step 0.
    """
    variables = initial_variables(key, config, channels=channels, axis_name=axis_name)
    return TrainState.create(
        apply_fn=create_model(config, axis_name=axis_name).apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=create_optimizer(config),
    )


def train_step(
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    config: ml_collections.ConfigDict,
    peak: float = 1.0,
    frozen: bool = False,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step on equation 3: supervised loss plus ramped-up focal consistency loss.

    Args:
      state: before the step.
      batch: `image` `(batch, *crop, channels)`, `target` `(batch, *crop, 1 or 2)`, `valid`
        `(batch, *crop, 1)`, and `unlabelled` `(batch', *crop, channels)` where the consistency
        loss is on; this device's share.
      key: of this step, for dropout and perturbations, the same on every device.
      config: its `consistency`, `target` and `train` sections are used.
      peak: the target's value at a lone dot, to which the focal floor is relative.
      frozen: whether batch norms use their running statistics, and leave them as they are.
      axis_name: the mapped axis; None on one device outside of pmap.

    Returns:
      The state after the step, and the losses and the gradient's norm; all of it is the same
        on every device.
    """
    weight = config.consistency.weight * losses.ramp_up(
        state.step, config.consistency.ramp_up * config.train.steps
    )

    def objective(params: Any) -> tuple[Array, tuple[Any, Metrics]]:
        supervised, consistency, statistics = _losses(
            params,
            state,
            batch,
            key,
            config=config,
            peak=peak,
            frozen=frozen,
            axis_name=axis_name,
        )
        loss = supervised + weight.astype(supervised.dtype) * consistency
        metrics = {"loss": loss, "supervised": supervised, "consistency": consistency}
        return loss, (statistics, metrics)

    # Each device's loss is its share of the sum, so that gradients and losses add up.
    gradients, (statistics, metrics) = jax.grad(objective, has_aux=True)(state.params)
    gradients, metrics = parallel.all_sum((gradients, metrics), axis_name=axis_name)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    return state.apply_gradients(grads=gradients, batch_stats=statistics), metrics


def draw_and_step(
    state: TrainState,
    data: TrainingData,
    key: Array,
    *,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
    peak: float,
    shares: dict[str, int],
    frozen: bool = False,
) -> tuple[TrainState, Metrics]:
    """Draws this device's share of a batch and takes a step on it, as `parallel.scanned` runs it.

    Args:
      state: before the step.
      data: all images, on the device.
      key: of the step, the same on every device.
      config: the experiment.
      geometry: of its targets.
      peak: the target's value at a lone dot.
      shares: `batch_labelled` and `batch_unlabelled` of one device.
      frozen: see `train_step`.

    Returns:
      The state after the step, and its losses.
    """
    keys = jax.random.split(key, 3)
    batch = draw_batch(
        keys[:2], data, config=config, geometry=geometry, shares=shares, axis_name=parallel.AXIS
    )
    return train_step(
        state,
        batch,
        keys[2],
        config=config,
        peak=peak,
        frozen=frozen,
        axis_name=parallel.AXIS,
    )


def _losses(
    params: Any,
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    config: ml_collections.ConfigDict,
    peak: float,
    frozen: bool,
    axis_name: str | None,
) -> tuple[Array, Array, Any]:
    """This device's share of both losses, and the norms' new running statistics.

    The norms' statistics are those of the labelled images. The unlabelled ones, which may be of
    another brightness or density, see the norms as in prediction, with running statistics.
    """
    network = functools.partial(_network, state.apply_fn, frozen)
    dropout_key, student_key = jax.random.split(key)
    labelled, unlabelled = batch["image"], batch.get("unlabelled")
    levels, stats = network(params, state.batch_stats, labelled, method=SAUNet.encode)
    keys = parallel.example_keys(dropout_key, len(labelled), axis_name=axis_name)
    levels, stats = network(params, stats, levels, method=SAUNet.attend, keys=keys)
    prediction, stats = network(params, stats, levels, method=SAUNet.decode)
    error = _supervised_loss(prediction, batch["target"], config)
    supervised = _mean(error, batch["valid"], axis_name)
    if unlabelled is None:
        return supervised, jnp.zeros_like(supervised), stats

    predicting = functools.partial(_network, state.apply_fn, True)
    others, _ = predicting(params, state.batch_stats, unlabelled, method=SAUNet.encode)
    # The teacher: the same weights, frozen, without dropout and noise.
    frozen_params, teacher = jax.lax.stop_gradient((params, others))
    for method in (SAUNet.attend, SAUNet.decode):
        teacher, _ = predicting(frozen_params, state.batch_stats, teacher, method=method)
    student = _student(
        functools.partial(predicting, params, state.batch_stats),
        others,
        unlabelled,
        student_key,
        config=config,
        axis_name=axis_name,
    )
    error, counted = _consistency_loss(student, teacher, config=config, peak=peak)
    return supervised, _mean(error, counted, axis_name), stats


def _network(
    apply: Callable[..., Any], frozen: bool, params: Any, stats: Any, *args: Any, **options: Any
) -> tuple[Any, Any]:
    """One method of the network in training: its output and the new running statistics."""
    variables = {"params": params, "batch_stats": stats}
    if frozen:
        return apply(variables, *args, train=False, **options), stats
    out, new = apply(variables, *args, train=True, mutable=["batch_stats"], **options)
    return out, new.get("batch_stats", {})


def _supervised_loss(prediction: Array, target: Array, config: ml_collections.ConfigDict) -> Array:
    if config.target.kernel == "mask":
        return losses.mask_loss(prediction, target)
    # The network's output before the division by the scale is what is compared [authors].
    t = config.target
    maps = losses.density_loss(prediction[..., :1], target[..., :1], dot_weight=t.dot_weight)
    if not t.count_head:
        return t.scale**2 * maps
    densities = losses.density_loss(prediction[..., 1:], target[..., 1:])
    return t.scale**2 * maps + t.count_weight * settings.count_scale(config) ** 2 * densities


def _consistency_loss(
    student: Array, teacher: Array, *, config: ml_collections.ConfigDict, peak: float
) -> tuple[Array, Array]:
    """The elementwise consistency loss of the maps of locations, and which voxels count."""
    student, teacher = student[..., :1], teacher[..., :1]
    c = config.consistency
    scale = config.target.scale
    if config.target.kernel == "mask":
        student, teacher, scale = jax.nn.sigmoid(student), jax.nn.sigmoid(teacher), 1.0
    weight = jnp.ones_like(teacher)
    if c.focal:
        weight = losses.focal_weight(
            teacher, sigma=c.focal_sigma, radius=c.focal_radius, floor=c.focal_floor * peak
        )
    return losses.focal_consistency_loss(scale * student, scale * teacher, weight), weight > 0


def _student(
    network: Callable[..., tuple[Any, Any]],
    levels: tuple[Array, ...],
    images: Array,
    key: Array,
    *,
    config: ml_collections.ConfigDict,
    axis_name: str | None,
) -> Array:
    """The map of the perturbed features or images."""
    c = config.consistency
    dropout_key, perturb_key = jax.random.split(key)
    on_image = c.perturbation in IMAGE_PERTURBATIONS
    if on_image:
        keys = parallel.example_keys(perturb_key, len(images), axis_name=axis_name)
        perturbed = jax.vmap(
            lambda k, x: losses.image_perturbation(k, x, kind=c.perturbation, strength=c.strength)
        )(keys, images)
        levels, _ = network(perturbed, method=SAUNet.encode)
    keys = parallel.example_keys(dropout_key, len(images), axis_name=axis_name)
    levels, _ = network(levels, method=SAUNet.attend, keys=keys)
    if not on_image:
        last_only = c.perturbation == "feature_noise_last"
        levels = losses.feature_noise(perturb_key, levels, strength=c.strength, last_only=last_only)
    return network(levels, method=SAUNet.decode)[0]


def _mean(values: Array, counted: Array, axis_name: str | None) -> Array:
    """This device's share of the mean over the counted voxels of all devices."""
    total = jnp.sum(jnp.where(counted, values, 0.0))
    count = parallel.all_sum(jnp.sum(counted, dtype=values.dtype), axis_name=axis_name)
    return total / jnp.maximum(count, 1.0)
