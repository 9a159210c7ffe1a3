"""How much of a training step is not the model: drawing, augmentation, targets, host gaps.

    python benchmarks/pipeline.py

The training loop's compiled run of configs/vgg.py (8 + 4 crops of 128x128) and of
configs/lightsheet_microglia.py (2 + 1 crops of 32x64x64) on the built-in synthetic data, five
steps a call, and parts of it, each compiled alone and timed in turn with the others. All times are
medians in milliseconds for one step:

- `step`: the whole, as the loop calls it, metrics fetched.
- `model`: the same run on a fixed batch: losses, gradients, optimiser.
- `drawing`: crops, augmentation and targets of a batch, without the model.
- `targets`: what drawing takes longer than where the targets are left out.
- `host gap`: a call of a run that does nothing, metrics fetched, shared among its steps: what lies
  between the compiled steps.

Shares are in percent of the step. `not the model %` is drawing and host gap, or what the step
takes longer than the model alone if that is more: a part may cost more within the step. The latter
is the median over differences of two long times, of which the machine's noise is a percent or two.
About 3 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import timing
import workload
from jax import Array

from cellcount_jax.maps import targets
from cellcount_jax.training import batches, parallel, stack, train
from cellcount_jax.training.step import TrainState, draw_and_step, train_step

ROOT = Path(__file__).parents[1]
CONFIGS = ("vgg", "lightsheet_microglia")
# In percent of a step.
GOALS = {"targets %": 5, "not the model %": 10}
# Of one call. The configs have ten, which would take twice as long here and halves the host gap.
STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--configs", nargs="+", default=CONFIGS, choices=CONFIGS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="to try it: a small net and batch")
    parser.add_argument("--output", type=Path, default=Path("results/pipeline.json"))
    options = parser.parse_args()
    rows = []
    for name in options.configs:
        config = experiment(name, tiny=options.tiny)
        seconds = timing.series(parts(config), repeats=options.repeats)
        each = {part: 1e3 * np.array(s) / config.train.scan_length for part, s in seconds.items()}
        rows.append({"config": name, **shares(each)})
        timing.tell(rows[-1])
    print()
    worst = {key: max(row[key] for row in rows) for key in GOALS}
    verdict = ", ".join(
        f"{key.removesuffix(' %')} at most {worst[key]:.1f} % of a step (goal {goal} %)"
        for key, goal in GOALS.items()
    )
    timing.publish(rows, options.output, verdict=verdict)


def experiment(name: str, *, tiny: bool = False) -> ml_collections.ConfigDict:
    """The settings of a config on the built-in data; `tiny` is for a test."""
    get_config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]
    config: ml_collections.ConfigDict = get_config()
    config.train.scan_length = STEPS
    if tiny:
        config.model.features, config.model.levels = 4, 2
        config.model.strides = config.model.strides[:1]
        config.data.num_labelled = config.data.num_unlabelled = 1
        config.train.crop = (16, 16) if config.data.ndim == 2 else (8, 16, 16)
        config.train.batch_labelled = config.train.batch_unlabelled = 1
        config.train.scan_length = 2
    return config


def parts(config: ml_collections.ConfigDict) -> dict[str, Callable[[], Any]]:
    """Part of the pipeline -> a call that runs it for all steps of a compiled run."""
    dataset = train.load_dataset(config)
    data = stack.on_device(dataset, train.fit_normalisation(dataset, config), config)
    geometry = targets.target_geometry(config, dataset.labelled[0].spacing)
    peak = targets.peak_value(config, geometry)
    state, _ = train.initial_state(config, dataset)
    counts = {name: config.train[name] for name in ("batch_labelled", "batch_unlabelled")}
    whole = functools.partial(
        draw_and_step, config=config, geometry=geometry, peak=peak, shares=counts
    )

    def draw(data: stack.TrainingData, key: Array) -> batches.Batch:
        keys = jax.random.split(key)
        return batches.draw_batch(keys, data, config=config, geometry=geometry, shares=counts)

    batch = jax.jit(draw)(data, jax.random.key(2))

    def on_fixed_batch(state: TrainState, data: Any, key: Array) -> tuple[TrainState, Any]:
        options = {"geometry": geometry, "peak": peak, "axis_name": parallel.AXIS}
        return train_step(state, data, key, config=config, **options)

    def drawing(state: TrainState, data: Any, key: Array) -> tuple[TrainState, Any]:
        return state.replace(step=state.step + 1), read(draw(data, key))

    def without_targets(state: TrainState, data: Any, key: Array) -> tuple[TrainState, Any]:
        drawn = draw(data, key)
        # XLA leaves out what nobody reads.
        del drawn["target"]
        return state.replace(step=state.step + 1), read(drawn)

    def nothing(state: TrainState, data: Any, key: Array) -> tuple[TrainState, Any]:
        zero = jnp.zeros(())
        metrics = dict.fromkeys(("loss", "supervised", "consistency", "gradient_norm"), zero)
        return state.replace(step=state.step + 1), metrics

    run = functools.partial(workload.compiled_run, steps=config.train.scan_length)
    return {
        "step": fetching(run(whole, state, data)),
        "model": run(on_fixed_batch, state, batch),
        "drawing": run(drawing, state, data),
        "without targets": run(without_targets, state, data),
        "host gap": fetching(run(nothing, state, data)),
    }


def read(batch: batches.Batch) -> dict[str, Array]:
    """One value of each array, all of which has to be computed for it."""
    return {name: x.ravel()[0] for name, x in jax.lax.optimization_barrier(batch).items()}


def fetching(call: Callable[[], dict[str, Array]]) -> Callable[[], dict[str, float]]:
    """The same call, and its metrics taken to the host as the loop does it."""
    return lambda: {name: float(values.mean()) for name, values in call().items()}


def shares(ms: dict[str, np.ndarray]) -> dict[str, float]:
    """Median milliseconds of the parts, and their shares of a step in percent.

    Args:
      ms: part -> milliseconds of a step, call by call.
    """
    found = {
        "step": ms["step"],
        "model": ms["model"],
        "drawing": ms["drawing"],
        "targets": ms["drawing"] - ms["without targets"],
        "host gap": ms["host gap"],
        "not the model": ms["step"] - ms["model"],
    }
    medians = {name: float(np.median(values)) for name, values in found.items()}
    parts_alone = medians["drawing"] + medians["host gap"]
    medians["not the model"] = max(medians["not the model"], parts_alone)
    asked = ("targets", "drawing", "host gap", "not the model")
    return {
        **{f"{name} ms": value for name, value in medians.items()},
        **{f"{name} %": 100 * medians[name] / medians["step"] for name in asked},
    }


if __name__ == "__main__":
    main()
