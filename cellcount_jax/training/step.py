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

from cellcount_jax.maps.targets import TargetGeometry
from cellcount_jax.network.sau_net import SAUNet, create_model, initial_variables
from cellcount_jax.training import consistency, losses, parallel
from cellcount_jax.training.batches import Batch, draw_batch
from cellcount_jax.training.stack import TrainingData

Metrics = dict[str, Array]


class TrainState(train_state.TrainState):
    """Parameters, optimiser state, step count, running statistics, and the moving average.

    Attributes:
      batch_stats: the norms' running statistics.
      average: `params` and `batch_stats` of the moving average; None where there is none.
    """

    batch_stats: Any
    average: Any = None

    @property
    def variables(self) -> Any:
        """The trained network's `params` and `batch_stats`: their average where there is one."""
        return self.latest if self.average is None else self.average

    @property
    def latest(self) -> Any:
        """`params` and `batch_stats` after the last step."""
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

    Examples:
      >>> import functools, jax
      >>> from cellcount_jax import config, create_train_state
      >>> create = functools.partial(create_train_state, config=config.default_config(), channels=1)
      >>> state = jax.eval_shape(create, jax.random.key(0))  # shapes alone; jax.jit makes it
      >>> sum(leaf.size for leaf in jax.tree.leaves(state.params))
      549681
    """
    variables = initial_variables(key, config, channels=channels, axis_name=axis_name)
    return TrainState.create(
        apply_fn=create_model(config, axis_name=axis_name).apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=create_optimizer(config),
        average=jax.tree.map(jnp.copy, variables) if averaging(config) else None,
    )


def averaging(config: ml_collections.ConfigDict) -> bool:
    """Whether the teacher is an average, of which there is none without unlabelled images."""
    c = config.consistency
    return c.teacher == "average" and c.weight > 0 and config.train.batch_unlabelled > 0


def train_step(
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    config: ml_collections.ConfigDict,
    geometry: TargetGeometry,
    peak: float = 1.0,
    frozen: bool = False,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One step on equation 3: supervised loss plus ramped-up focal consistency loss.

    Args:
      state: before the step.
      batch: `image` `(batch, *crop, channels)`, `target` `(batch, *crop, 1 or 2)`, `valid`
        `(batch, *crop, 1)`, and `unlabelled` `(batch', *crop, channels)` where the consistency
        loss is on, with windows of `stack.unlabelled_window`; this device's share.
      key: of this step, for dropout and perturbations, the same on every device.
      config: its `consistency`, `target` and `train` sections are used.
      geometry: of the targets.
      peak: the target's value at a lone dot, to which the focal floor is relative.
      frozen: whether batch norms use their running statistics, and leave them as they are.
      axis_name: the mapped axis; None on one device outside of pmap.

    Returns:
      The state after the step, and the losses and the gradient's norm; all of it is the same
        on every device.

    Examples:
      >>> import functools
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import create_train_state, inverse_distance_map, train_step
      >>> from cellcount_jax.config import default_config
      >>> from cellcount_jax.maps.targets import target_geometry
      >>> config = default_config()
      >>> config.model.update(levels=2, features=2, attention="none")
      >>> config.train.crop = (16, 16)
      >>> create = functools.partial(create_train_state, config=config, channels=1)
      >>> state = jax.jit(create)(jax.random.key(0))
      >>> target = inverse_distance_map(jnp.array([[8, 8]]), (16, 16))[None, ..., None]
      >>> batch = {"image": target, "target": target, "valid": jnp.ones((1, 16, 16, 1), bool)}
      >>> geometry = target_geometry(config, (1.0, 1.0))
      >>> step = jax.jit(functools.partial(train_step, config=config, geometry=geometry))
      >>> state, metrics = step(state, batch, jax.random.key(1))
      >>> int(state.step), bool(metrics["loss"] > 0)
      (1, True)
    """
    c, steps = config.consistency, config.train.steps
    begin = round(c.begin * steps)
    weight = c.weight * losses.ramp_up(state.step - begin, c.ramp_up * steps)
    weight = jnp.where(state.step < begin, 0.0, weight)

    def objective(params: Any) -> tuple[Array, tuple[Any, Metrics]]:
        supervised, inconsistent, statistics = _losses(
            params,
            state,
            batch,
            key,
            config=config,
            geometry=geometry,
            peak=peak,
            frozen=frozen,
            axis_name=axis_name,
        )
        loss = supervised + weight.astype(supervised.dtype) * inconsistent
        metrics = {"loss": loss, "supervised": supervised, "consistency": inconsistent}
        return loss, (statistics, metrics)

    # Each device's loss is its share of the sum, so that gradients and losses add up.
    gradients, (statistics, metrics) = jax.grad(objective, has_aux=True)(state.params)
    gradients, metrics = parallel.all_sum((gradients, metrics), axis_name=axis_name)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    after = state.apply_gradients(grads=gradients, batch_stats=statistics)
    if state.average is not None:
        averaged = consistency.average(
            state.average, after.latest, state.step, decay=c.average_decay
        )
        after = after.replace(average=averaged)
    return after, metrics


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
        geometry=geometry,
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
    geometry: TargetGeometry,
    peak: float,
    frozen: bool,
    axis_name: str | None,
) -> tuple[Array, Array, Any]:
    """This device's share of both losses, and the norms' new running statistics.

    With `consistency.norms = 'running'` the norms' statistics are those of the labelled images, and
    the unlabelled ones see the norms as in prediction; with 'joint' they are those of both, which
    pass the network as one batch.
    """
    network = functools.partial(_network, state.apply_fn, frozen)
    dropout_key, student_key = jax.random.split(key)
    images, unlabelled = batch["image"], batch.get("unlabelled")
    number = len(images)
    keys = parallel.example_keys(dropout_key, number, axis_name=axis_name)
    joint = unlabelled is not None and config.consistency.norms == "joint"
    if unlabelled is not None:
        dropout_key, noise_key = jax.random.split(student_key)
        student_keys = parallel.example_keys(dropout_key, len(unlabelled), axis_name=axis_name)
        # Without an average the teacher is the student: the same weights, frozen.
        teacher = state.average or {"params": params, "batch_stats": state.batch_stats}
        views = functools.partial(
            consistency.views,
            functools.partial(state.apply_fn, jax.lax.stop_gradient(teacher)),
            unlabelled,
            noise_key,
            config=config,
            geometry=geometry,
            peak=peak,
            axis_name=axis_name,
        )
    if joint:
        view = views()
        images, keys = jnp.concatenate([images, view.image]), jnp.concatenate([keys, student_keys])
    levels, stats = network(params, state.batch_stats, images, method=SAUNet.encode)
    levels, stats = network(params, stats, levels, method=SAUNet.attend, keys=keys)
    if joint:
        students = consistency.noisy(noise_key, tuple(x[number:] for x in levels), config=config)
        pairs = zip(levels, students, strict=True)
        levels = tuple(jnp.concatenate([x[:number], student]) for x, student in pairs)
    maps, stats = network(params, stats, levels, method=SAUNet.decode)
    wrong = losses.supervised_loss(maps[:number], batch["target"], config=config)
    supervised = _mean(wrong, batch["valid"], axis_name)
    if unlabelled is None:
        return supervised, jnp.zeros_like(supervised), stats
    found = maps[number:]
    if not joint:
        variables = {"params": params, "batch_stats": state.batch_stats}
        predict = functools.partial(state.apply_fn, variables)
        levels = predict(unlabelled, method=SAUNet.encode)
        view = views(levels=None if state.average else levels)
        if consistency.changes_image(config.consistency):
            levels = predict(view.image, method=SAUNet.encode)
        levels = predict(levels, method=SAUNet.attend, keys=student_keys)
        found = predict(consistency.noisy(noise_key, levels, config=config), method=SAUNet.decode)
    wrong, counted = consistency.error(found, view, config=config)
    return supervised, _mean(wrong, counted, axis_name), stats


def _network(
    apply: Callable[..., Any], frozen: bool, params: Any, stats: Any, *args: Any, **options: Any
) -> tuple[Any, Any]:
    """One method of the network in training: its output and the new running statistics."""
    variables = {"params": params, "batch_stats": stats}
    if frozen:
        return apply(variables, *args, train=False, **options), stats
    out, new = apply(variables, *args, train=True, mutable=["batch_stats"], **options)
    return out, new.get("batch_stats", {})


def _mean(values: Array, counted: Array, axis_name: str | None) -> Array:
    """This device's share of the mean over the counted voxels of all devices."""
    total = jnp.sum(jnp.where(counted, values, 0.0))
    count = parallel.all_sum(jnp.sum(counted, dtype=values.dtype), axis_name=axis_name)
    return total / jnp.maximum(count, 1.0)
