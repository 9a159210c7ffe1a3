"""One training step: what its noise, its teacher and its valid region touch, and what not."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from jax import Array
from scipy import ndimage

from cellcount_jax.config import (
    KERNELS,
    LEARNED,
    NORMS,
    PERTURBATIONS,
    STATISTICS,
    TEACHERS,
    default_config,
)
from cellcount_jax.maps.targets import TargetGeometry, target_geometry
from cellcount_jax.training import consistency, losses
from cellcount_jax.training.step import (
    TrainState,
    create_train_state,
    learning_rate_schedule,
    train_step,
)

CROPS = {2: (16, 16), 3: (8, 16, 16)}
STRIDES = {2: ((2, 2),), 3: ((1, 2, 2),)}

Step = Callable[[TrainState, dict[str, Array], Array], tuple[TrainState, dict[str, Array]]]


@pytest.fixture(autouse=True, scope="module")
def fast_compilation() -> Iterator[None]:
    """Compiling takes most of the time of these tests, and speed does not matter to them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def tiny_config(ndim: int = 2, **settings: Any) -> ml_collections.ConfigDict:
    """A small network and a short run; keys of `settings` have a double underscore for a dot."""
    config = default_config()
    config.data.ndim = ndim
    config.train.crop = CROPS[ndim]
    config.detect.min_distance = (1,) * ndim
    config.train.steps = 30
    config.model.features = 2
    config.model.levels = 2
    config.model.strides = STRIDES[ndim]
    config.optim.learning_rate = 0.02
    config.target.scale = 2.0
    with config.unlocked():
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in settings.items()})
    return config


def geometry_of(config: ml_collections.ConfigDict) -> TargetGeometry:
    return target_geometry(config, (1.0,) * config.data.ndim)


def compiled(config: ml_collections.ConfigDict) -> Step:
    return jax.jit(functools.partial(train_step, config=config, geometry=geometry_of(config)))


@functools.cache
def undisturbed() -> tuple[Step, TrainState]:
    """Without dropout, a step's key serves the features' noise alone; and the ramp is slow."""
    config = tiny_config(model__dropout=0.0, consistency__ramp_up=1.0)
    return compiled(config), initial_state(config).replace(step=jnp.asarray(30))


def initial_state(config: ml_collections.ConfigDict) -> TrainState:
    """As `create_train_state`, but random numbers from NumPy need no compilation."""
    rng = np.random.default_rng(0)

    def fill(path: tuple[Any, ...], leaf: Any) -> Array:
        value = np.zeros(leaf.shape)
        names = [str(getattr(k, "key", getattr(k, "name", k))) for k in path]
        if names[0] in ("params", "batch_stats"):
            if names[-1] == "kernel":
                value = rng.normal(size=leaf.shape) * math.sqrt(2 / math.prod(leaf.shape[:-1]))
            elif names[-1] == "scale" or names[-2:] == ["head", "bias"]:
                value += 1
            elif names[-1] == "var":
                value += 0.2  # about what it is after some steps
        return jnp.asarray(value, leaf.dtype)

    shapes = jax.eval_shape(lambda: create_train_state(jax.random.key(0), config, channels=1))
    state = jax.tree_util.tree_map_with_path(fill, shapes)
    return state if state.average is None else state.replace(average=state.latest)


def make_batch(ndim: int = 2, *, unlabelled: int = 3) -> dict[str, Array]:
    """Blurred random dots as images, their maps as targets; labels count in one half."""
    rng = np.random.default_rng(1)
    crop = CROPS[ndim]
    dots = rng.random((2 + unlabelled, *crop)) < 0.02
    dots.reshape(len(dots), -1)[:, dots[0].size // 2 + crop[-1] // 2] = True
    distance = np.stack([ndimage.distance_transform_edt(~d) for d in dots])
    target = 1 / (distance ** (0.02 * distance + 0.75) + 1)
    image = 4 * target + 0.1 * rng.normal(size=target.shape) - 1
    valid = np.zeros((2, *crop, 1), bool)
    valid[..., : crop[-1] // 2, :] = True
    batch = {
        "image": jnp.asarray(image[:2, ..., None], jnp.float32),
        "target": jnp.asarray(target[:2, ..., None], jnp.float32),
        "valid": jnp.asarray(valid),
    }
    if unlabelled:
        batch["unlabelled"] = jnp.asarray(image[2:, ..., None], jnp.float32)
    return batch


def assert_same(a: Any, b: Any) -> None:
    """Bitwise."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(not np.array_equal(x, y) for x, y in pairs)


def without_peaks(state: TrainState) -> TrainState:
    """A network whose map is 0 everywhere."""
    head = {**state.params["decoder"]["head"], "bias": jnp.full((1,), -1e4, jnp.float32)}
    decoder = {**state.params["decoder"], "head": head}
    return state.replace(params={**state.params, "decoder": decoder})


def varied(i: int, ndim: int) -> ml_collections.ConfigDict:
    """Over i: every perturbation, every kernel, both norms, all attentions, both teachers."""
    kernel = KERNELS[i % len(KERNELS)]
    return tiny_config(
        ndim,
        consistency__perturbation=PERTURBATIONS[i],
        consistency__weight=(1.0, 0.5)[i % 2],
        consistency__focal=i != 2,
        consistency__teacher=TEACHERS[i % 2],
        consistency__teacher_flips=i == 3,
        consistency__norms=STATISTICS[i // 4 % 2],
        consistency__view=0.5 * (i % 3),
        consistency__cut_out=0.25 * (i % 4),
        consistency__target="map" if kernel == "mask" else LEARNED[i // 2 % 2],
        target__kernel=kernel,
        model__norm=NORMS[i // 3 % len(NORMS)],
        model__attention=("block", "none", "global")[i % 3],
        optim__weight_decay=0.1 * (i % 2),
    )


@pytest.mark.parametrize("i", range(1, len(PERTURBATIONS)))
def test_every_option_takes_a_step(i: int) -> None:
    """All but the paper's, with which every other test here takes its steps."""
    config = varied(i, ndim=2)
    state = initial_state(config)
    after, metrics = compiled(config)(state, make_batch(), jax.random.key(1))
    assert_a_step_was_taken(state, after, metrics, config)


@pytest.mark.parametrize("i", range(len(PERTURBATIONS)))
def test_every_option_fits_volumes(i: int) -> None:
    """Shapes and types only, which need no compilation."""
    config = varied(i, ndim=3)
    state = initial_state(config)
    step = functools.partial(train_step, config=config, geometry=geometry_of(config))
    after, metrics = jax.eval_shape(step, state, make_batch(3), jax.random.key(1))
    jax.tree.map(
        lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), after, state
    )
    assert {m.shape for m in metrics.values()} == {()}


def test_a_step_on_volumes() -> None:
    config = tiny_config(3, consistency__perturbation="feature_noise_all")
    state = initial_state(config)
    after, metrics = compiled(config)(state, make_batch(3), jax.random.key(1))
    assert_a_step_was_taken(state, after, metrics, config)


def assert_a_step_was_taken(
    state: TrainState,
    after: TrainState,
    metrics: dict[str, Array],
    config: ml_collections.ConfigDict,
) -> None:
    assert int(after.step) == 1
    for leaf in jax.tree.leaves((after.params, after.batch_stats, metrics)):
        assert np.isfinite(leaf).all()
    assert metrics["supervised"] > 0 and metrics["consistency"] > 0
    weight = config.consistency.weight * math.exp(-5)
    total = metrics["supervised"] + weight * metrics["consistency"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-6)
    assert differ(state.params, after.params)
    if config.model.norm == "batch":
        assert differ(state.batch_stats, after.batch_stats)
    else:
        assert not jax.tree.leaves(after.batch_stats)


def test_noise_touches_the_consistency_loss_alone() -> None:
    (step, state), batch = undisturbed(), make_batch()
    one, first = step(state, batch, jax.random.key(1))
    two, second = step(state, batch, jax.random.key(2))
    assert first["consistency"] != second["consistency"]
    assert differ(one.params, two.params)
    assert first["supervised"] == second["supervised"]
    assert_same(one.batch_stats, two.batch_stats)
    assert differ(one.batch_stats, state.batch_stats)


def test_noise_does_not_touch_the_supervised_gradient() -> None:
    """So long before the ramp its weight is 0, and the supervised gradient alone is left."""
    (step, state), batch = undisturbed(), make_batch()
    early = state.replace(step=jnp.asarray(-100_000))
    one, first = step(early, batch, jax.random.key(1))
    two, second = step(early, batch, jax.random.key(2))
    assert first["consistency"] != second["consistency"]
    assert first["loss"] == first["supervised"]
    assert_same(one.params, two.params)
    assert_same(one.opt_state, two.opt_state)


@pytest.mark.parametrize(("at", "weight"), [(0, math.exp(-5)), (15, math.exp(-2.5)), (30, 1.0)])
def test_the_consistency_loss_ramps_up(at: int, weight: float) -> None:
    step, state = undisturbed()
    state = state.replace(step=jnp.asarray(at))
    _, metrics = step(state, make_batch(), jax.random.key(1))
    expected = metrics["supervised"] + weight * metrics["consistency"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert metrics["consistency"] > 1e-3 * metrics["supervised"]


@pytest.mark.parametrize(("at", "weight"), [(14, 0.0), (15, math.exp(-5)), (30, 1.0)])
def test_the_consistency_loss_begins_later_where_it_shall(at: int, weight: float) -> None:
    config = tiny_config(consistency__begin=0.5, consistency__ramp_up=0.5)
    state = initial_state(config).replace(step=jnp.asarray(at))
    _, metrics = compiled(config)(state, make_batch(), jax.random.key(1))
    expected = metrics["supervised"] + weight * metrics["consistency"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert metrics["consistency"] > 0


def test_the_average_is_the_teacher_and_the_trained_model() -> None:
    config = tiny_config(
        consistency__teacher="average", consistency__perturbation="none", model__dropout=0.0
    )
    step, state, key = compiled(config), initial_state(config), jax.random.key(1)
    assert_same(state.average, state.latest)
    # A teacher that is the student has nothing to teach where nothing is perturbed.
    after, metrics = step(state, make_batch(), key)
    assert metrics["consistency"] < 1e-6
    expected = consistency.average(state.average, after.latest, 0, decay=0.99)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), after.average, expected)
    assert differ(after.average, after.latest)
    assert_same(after.variables, after.average)
    _, metrics = step(after, make_batch(), key)
    assert metrics["consistency"] > 1e-6


def test_joint_statistics_are_those_of_all_images() -> None:
    """As of a batch in which all images are labelled."""
    config = tiny_config(
        model__dropout=0.0, consistency__perturbation="none", consistency__norms="joint"
    )
    batch = make_batch()
    both = {
        "image": jnp.concatenate([batch["image"], batch["unlabelled"]]),
        "target": jnp.ones((5, *CROPS[2], 1)),
        "valid": jnp.ones((5, *CROPS[2], 1), bool),
    }
    state = initial_state(config)
    key = jax.random.key(1)
    after, _ = compiled(config)(state, batch, key)
    labelled, _ = compiled(config)(state, both, key)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, after.batch_stats, labelled.batch_stats)


def test_without_unlabelled_images_there_is_no_average() -> None:
    config = tiny_config(consistency__teacher="average", consistency__weight=0.0)
    assert initial_state(config).average is None


def test_noise_of_strength_0_is_no_noise() -> None:
    config = tiny_config(model__dropout=0.0, consistency__strength=0.0)
    (noisy_step, state), batch = undisturbed(), make_batch()
    plain_state, plain = compiled(config)(state, batch, jax.random.key(1))
    noisy_state, noisy = noisy_step(state, batch, jax.random.key(1))
    assert noisy["consistency"] > 1e-3
    assert plain["consistency"] < 1e-6 * noisy["consistency"]
    np.testing.assert_allclose(plain["supervised"], noisy["supervised"], rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, plain_state.batch_stats, noisy_state.batch_stats)


def test_running_statistics_are_those_of_the_labelled_images() -> None:
    (step, state), batch = undisturbed(), make_batch()
    after = step(state, batch, jax.random.key(1))[0].batch_stats
    for name in ("unlabelled", "image"):
        shifted = {**batch, name: batch[name] + 1.0}
        moved = step(state, shifted, jax.random.key(1))[0].batch_stats
        assert differ(after, moved) == (name == "image")


def test_the_teacher_sees_what_prediction_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its map of each unlabelled image is that of the network out of training."""
    config = tiny_config(consistency__strength=0.0, model__dropout=0.0)
    rng = np.random.default_rng(3)
    state = initial_state(config)
    statistics = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype), state.batch_stats
    )
    state, batch, seen = state.replace(batch_stats=statistics), make_batch(), []

    def kept(student: Array, teacher: Array, weight: Array) -> Array:
        jax.debug.callback(lambda *maps: seen.extend(maps), student, teacher)
        return jnp.square(student - teacher) * weight

    monkeypatch.setattr(losses, "focal_consistency_loss", kept)
    jax.block_until_ready(compiled(config)(state, batch, jax.random.key(1)))
    jax.effects_barrier()
    variables = {"params": state.params, "batch_stats": statistics}
    expected = config.target.scale * state.apply_fn(variables, batch["unlabelled"])
    for map in seen[:2]:
        np.testing.assert_allclose(map, expected, rtol=1e-4, atol=1e-4)


def test_the_teacher_passes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the student held and no labels nothing is left that could move the weights."""
    config = tiny_config(model__dropout=0.0)
    (step, state), batch = undisturbed(), make_batch()
    batch["valid"] = jnp.zeros_like(batch["valid"])
    moved, free = step(state, batch, jax.random.key(1))
    assert free["supervised"] == 0 and differ(moved.params, state.params)

    def held(student: Array, teacher: Array, weight: Array) -> Array:
        return weight * jnp.square(jax.lax.stop_gradient(student) - teacher)

    monkeypatch.setattr(losses, "focal_consistency_loss", held)
    monkeypatch.setattr(losses, "focal_weight", lambda teacher, **_: jnp.square(teacher) + 1)
    after, metrics = compiled(config)(state, batch, jax.random.key(1))
    assert metrics["consistency"] > 0
    assert_same(after.params, state.params)


def test_without_peaks_the_consistency_loss_is_0() -> None:
    step, state = undisturbed()
    after, metrics = step(without_peaks(state), make_batch(), jax.random.key(1))
    assert metrics["consistency"] == 0
    assert metrics["loss"] == metrics["supervised"] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


def test_without_unlabelled_images_it_is_supervised() -> None:
    config = tiny_config(model__dropout=0.0)
    state = initial_state(config)
    batch = make_batch(unlabelled=0)
    step = compiled(config)
    after, metrics = step(state, batch, jax.random.key(1))
    assert metrics["consistency"] == 0
    assert metrics["loss"] == metrics["supervised"] > 0
    again, _ = step(state, batch, jax.random.key(2))
    assert_same(after.params, again.params)

    def reference(params: Any) -> Array:
        variables = {"params": params, "batch_stats": state.batch_stats}
        out, _ = state.apply_fn(variables, batch["image"], train=True, mutable=["batch_stats"])
        errors = (config.target.scale * (out - batch["target"])) ** 2
        errors *= 1 + config.target.dot_weight * batch["target"]
        return jnp.sum(errors * batch["valid"]) / jnp.sum(batch["valid"])

    loss, gradient = jax.jit(jax.value_and_grad(reference))(state.params)
    np.testing.assert_allclose(metrics["supervised"], loss, rtol=1e-5)
    # Adam's first moment is a tenth of the first gradient.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(lambda m, g: close(10 * m, g), after.opt_state[0].mu, gradient)


def test_the_count_head_adds_the_error_of_the_density_and_leaves_consistency_alone() -> None:
    settings: dict[str, Any] = {"model__dropout": 0.0, "consistency__ramp_up": 0.0}
    config = tiny_config(**settings, target__count_head=True, target__count_weight=0.3)
    plain = tiny_config(**settings)
    state, batch = initial_state(config), make_batch()
    density = jnp.roll(0.1 * batch["target"], 1, axis=1)
    both = {**batch, "target": jnp.concatenate([batch["target"], density], axis=-1)}
    _, metrics = compiled(config)(state, both, jax.random.key(1))

    def without(tree: Any) -> Any:
        decoder = {k: v for k, v in tree["decoder"].items() if k != "count_head"}
        return {**tree, "decoder": decoder}

    alone = initial_state(plain).replace(params=without(state.params))
    _, expected = compiled(plain)(alone, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics["consistency"], expected["consistency"], rtol=1e-4)

    @jax.jit
    def maps(params: Any) -> Array:
        variables = {"params": params, "batch_stats": state.batch_stats}
        return state.apply_fn(variables, batch["image"], train=True, mutable=["batch_stats"])[0]

    scale = config.target.scale * 2 * math.pi * config.target.count_sigma**2
    errors = jnp.square(scale * (maps(state.params)[..., 1:] - density))
    mean = jnp.sum(errors * batch["valid"]) / jnp.sum(batch["valid"])
    np.testing.assert_allclose(
        metrics["supervised"] - expected["supervised"], 0.3 * mean, rtol=1e-3
    )


def test_frozen_norms_train_as_prediction_sees_them() -> None:
    config = tiny_config(model__dropout=0.0)
    rng = np.random.default_rng(3)
    state = initial_state(config)
    statistics = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype), state.batch_stats
    )
    state = state.replace(batch_stats=statistics)
    batch = make_batch()
    step = jax.jit(
        functools.partial(train_step, config=config, geometry=geometry_of(config), frozen=True)
    )
    after, metrics = step(state, batch, jax.random.key(1))
    assert_same(after.batch_stats, statistics)
    assert differ(after.params, state.params)
    variables = {"params": state.params, "batch_stats": statistics}
    predicted = jax.jit(state.apply_fn)(variables, batch["image"])
    errors = (config.target.scale * (predicted - batch["target"])) ** 2
    errors *= 1 + config.target.dot_weight * batch["target"]
    expected = jnp.sum(errors * batch["valid"]) / jnp.sum(batch["valid"])
    np.testing.assert_allclose(metrics["supervised"], expected, rtol=1e-5)
    assert metrics["consistency"] > 0


def test_what_is_not_valid_does_not_count() -> None:
    (step, state), batch = undisturbed(), make_batch()
    expected = step(state, batch, jax.random.key(1))
    outside = jnp.where(batch["valid"], batch["target"], 7.0)
    assert_same(step(state, {**batch, "target": outside}, jax.random.key(1)), expected)
    inside = jnp.where(batch["valid"], batch["target"] + 0.1, batch["target"])
    _, metrics = step(state, {**batch, "target": inside}, jax.random.key(1))
    assert metrics["supervised"] != expected[1]["supervised"]


def test_thirty_steps_on_one_batch_learn_it() -> None:
    (step, state), batch = undisturbed(), make_batch()
    state = state.replace(step=jnp.asarray(0))
    supervised = []
    for i in range(30):
        state, metrics = step(state, batch, jax.random.key(i))
        supervised.append(float(metrics["supervised"]))
    assert int(state.step) == 30
    assert supervised[-1] < 0.3 * supervised[0]


def test_initial_state() -> None:
    config = tiny_config()
    create = functools.partial(create_train_state, config=config, channels=2)
    state = jax.jit(create)(jax.random.key(3))
    assert int(state.step) == 0
    params = state.params
    assert params["encoder"]["level_0"]["conv_0"]["kernel"].shape == (3, 3, 2, 2)
    np.testing.assert_array_equal(params["decoder"]["head"]["bias"], [config.model.head_bias])
    for path, leaf in jax.tree_util.tree_leaves_with_path((params, state.batch_stats)):
        name = path[-1].key
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
        if name == "kernel":
            width = math.sqrt(2 / math.prod(leaf.shape[:-1]))
            assert 0 < float(jnp.abs(leaf).max()) < 3 * width
        elif name != "bias":
            np.testing.assert_array_equal(leaf, 1.0 if name in ("scale", "var") else 0.0)


def test_cosine_schedule_ends_at_0() -> None:
    config = tiny_config()
    config.train.steps = 200
    schedule = learning_rate_schedule(config)
    steps = np.arange(201)
    expected = 0.02 * 0.5 * (1 + np.cos(np.pi * steps / 200))
    np.testing.assert_allclose([schedule(s) for s in steps], expected, atol=1e-8)


def test_restarts_double_their_cycles() -> None:
    config = tiny_config(optim__schedule="restarts")
    config.train.steps = 12_750
    schedule = learning_rate_schedule(config)
    start = 0
    for length in (50, 100, 200, 400, 800, 1600, 3200, 6400):
        steps = start + np.array([0, length // 4, length // 2, length - 1])
        expected = 0.02 * 0.5 * (1 + np.cos(np.pi * (steps - start) / length))
        np.testing.assert_allclose([schedule(s) for s in steps], expected, atol=1e-8)
        start += length
    assert start == config.train.steps
    np.testing.assert_allclose(schedule(start), 0, atol=1e-8)


def test_in_bfloat16_no_sum_is_taken_in_it() -> None:
    """A sum over millions of voxels, as a bias's gradient is one, loses most of its terms."""
    config = default_config()
    config.model.dtype = "bfloat16"
    config.model.features = 2
    config.train.crop = (16, 16)
    state = jax.eval_shape(
        lambda key: create_train_state(key, config, channels=1), jax.random.key(0)
    )
    shape = (2, 16, 16, 1)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    valid = jax.ShapeDtypeStruct(shape, jnp.bool_)
    batch = {"image": image, "target": image, "valid": valid, "unlabelled": image}
    step = functools.partial(train_step, config=config, geometry=geometry_of(config))
    text = str(jax.make_jaxpr(step)(state, batch, jax.random.key(0)))
    sums = re.findall(r":(\w+)\[[\d,]*\] = reduce_sum\[", text)
    assert len(sums) > 20 and "bf16" not in sums
    assert len(re.findall(r":bf16\[[\d,]*\] = (?:dot_general|convert)", text)) > 20
