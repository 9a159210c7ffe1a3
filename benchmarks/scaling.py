"""How the cost of training and inference grows with the volume, the batch and the number of dots.

    python benchmarks/scaling.py

The network of configs/lightsheet_microglia.py with 8 features, one crop of 16x32x32 to begin with,
on fixed random arrays. What grows, to 16 times or more, with the rest kept:

- `voxels`: the crop of a step with one labelled and one unlabelled crop, and the volume of an
  inference. Attention is within blocks of the training crop: the step's block grows with its
  crop, that of the inference stays 16x32x32.
- `batch`: labelled and unlabelled crops of a step, each so many; images of an inference.
- `dots`: those of the image that a crop of 32x64x64 is drawn from, with its target, out of
  48x96x96 voxels. Here a step is drawing alone, and there is no inference.

Columns: times are medians in milliseconds, the sizes of a row timed in turn; `GFLOP` are the
operations that XLA counts in the same step before it compiles it, the convolutions written in XLA
(it does not look into those in C++); `MB` is what the compiled step needs while it runs, its
arguments and results included (2^20 bytes). The rows `exponent` are the slopes of log(column)
against log(size), least squares over all sizes: 1 is proportional, 0 does not depend on it. About
2 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import timing
import workload

from cellcount_jax import config as settings
from cellcount_jax import variants
from cellcount_jax.maps import targets
from cellcount_jax.network import native
from cellcount_jax.network.sau_net import create_model
from cellcount_jax.training import batches
from cellcount_jax.training.stack import ImageStack
from cellcount_jax.training.step import TrainState, create_train_state, train_step

CROPS = ((16, 32, 32), (16, 64, 32), (16, 64, 64), (32, 64, 64), (32, 128, 64))
BATCHES = (1, 2, 4, 8, 16)
DOTS = (10, 100, 1_000, 10_000)
TINY_CROPS = ((4, 8, 8), (8, 16, 16))
GROWS = ("voxels", "batch", "dots")
SPACING = (6.0, 3.24, 3.24)

# Column -> value at one size.
Figures = dict[str, Any]


class Point(NamedTuple):
    """What is timed at one size, and what XLA says that its step costs."""

    step: Callable[[], Any]
    cost: Figures
    inference: Callable[[], Any] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grows", nargs="+", default=GROWS, choices=GROWS, help="of the three")
    parser.add_argument("--tiny", action="store_true", help="to try it: small sizes")
    parser.add_argument("--output", type=Path, default=Path("results/scaling.json"))
    options = parser.parse_args()
    make = functools.partial(experiment, options.features, levels=2 if options.tiny else 4)
    crops: Sequence[Sequence[int]] = TINY_CROPS if options.tiny else CROPS
    counts, dots = (BATCHES[:2], DOTS[:2]) if options.tiny else (BATCHES, DOTS)
    base = make(crops[0])
    drawn = make([2 * size for size in crops[0]])
    create = functools.partial(create_train_state, config=base, channels=1)
    state = jax.jit(create)(jax.random.key(0))
    first = functools.cache(lambda: network(state, base, base, 1))
    sweeps: dict[str, Callable[[], dict[int, Point]]] = {
        "voxels": lambda: {
            math.prod(crops[0]): first(),
            **{math.prod(crop): network(state, make(crop), base, 1) for crop in crops[1:]},
        },
        "batch": lambda: {
            1: first(),
            **{count: network(state, base, base, count) for count in counts[1:]},
        },
        "dots": lambda: {count: drawing(drawn, count) for count in dots},
    }
    rows, verdicts = [], []
    for grows in options.grows:
        points = sweeps[grows]()
        found = measure(points, repeats=options.repeats)
        slopes = exponents(found)
        rows += [{"grows": grows, "size": size, **figures} for size, figures in found.items()]
        rows.append({"grows": grows, "size": "exponent", **slopes})
        named = {"step": slopes["step ms"], "inference": slopes["inference ms"]}
        told = [f"{what} {slope:.2f}" for what, slope in named.items() if slope is not None]
        verdicts.append(f"{grows}: {', '.join(told)}")
        print(verdicts[-1], flush=True)
    print()
    verdict = f"exponents of time against {'; '.join(verdicts)}"
    timing.publish(rows, options.output, verdict=verdict)


def experiment(features: int, crop: Sequence[int], *, levels: int) -> ml_collections.ConfigDict:
    """The settings of the volumes at a size of network and of crop."""
    config = settings.default_config()
    variants.use_volumes(config)
    config.model.features, config.model.levels = features, levels
    config.model.strides = config.model.strides[: levels - 1]
    config.train.crop = tuple(crop)
    return config


def network(
    state: TrainState,
    config: ml_collections.ConfigDict,
    inference: ml_collections.ConfigDict,
    count: int,
) -> Point:
    """A training step and an inference of `count` crops, and what the step costs.

    Args:
      state: of any size of crop.
      config: of the step, and of the crops.
      inference: whose crop is the block of attention in inference.
      count: labelled crops; there are as many unlabelled ones.
    """
    sized = config.copy_and_resolve_references()
    sized.train.batch_labelled = sized.train.batch_unlabelled = count
    batch = jax.tree.map(jnp.asarray, workload.random_batch(sized))
    train = functools.partial(train_step, config=config)
    step, cost = compiled(train, state, batch, jax.random.key(1))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    apply = jax.jit(create_model(inference, trained=True).apply)
    return Point(step, cost, functools.partial(apply, variables, batch["image"]))


def drawing(config: ml_collections.ConfigDict, count: int) -> Point:
    """Drawing a labelled crop of an image with `count` dots, and what it costs."""
    crop = np.asarray(config.train.crop)
    shape = crop * 3 // 2
    rng = np.random.default_rng(0)
    points = rng.integers(0, shape, (1, count, len(shape)), np.int32)
    stack = ImageStack(
        images=jnp.asarray(rng.normal(size=(1, *shape, 1)), jnp.float32),
        low=jnp.zeros((1, len(shape)), jnp.int32),
        high=jnp.asarray(shape[None], jnp.int32),
        valid=jnp.ones((1, *shape), bool),
        points=jnp.asarray(points),
        mask=jnp.ones((1, count), bool),
        size=jnp.asarray(shape[None], jnp.int32),
    )
    geometry = targets.target_geometry(config, SPACING)
    draw = functools.partial(batches.draw_labelled, config=config, geometry=geometry)
    return Point(*compiled(draw, jax.random.split(jax.random.key(0), 1), stack))


def compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], Figures]:
    """A call of the compiled function, and what XLA says that it costs."""
    with mock.patch.object(native, "available", lambda: False):
        # A function of its own: JAX would take what it traced here for the one below.
        lowered = jax.jit(lambda *a: function(*a)).lower(*arguments)
    counted: Any = lowered.cost_analysis()
    program = jax.jit(lambda *a: function(*a)).lower(*arguments).compile()
    memory = program.memory_analysis()
    parts = ("argument", "output", "temp")
    total = sum(getattr(memory, f"{part}_size_in_bytes") for part in parts)
    cost = {"GFLOP": counted["flops"] / 1e9, "MB": total / 2**20}
    return functools.partial(program, *arguments), cost


def measure(points: Mapping[int, Point], *, repeats: int) -> dict[int, Figures]:
    """Size -> its row, of all points timed in turn."""
    steps = {f"step {size}": point.step for size, point in points.items()}
    inferences = {
        f"inference {size}": point.inference for size, point in points.items() if point.inference
    }
    calls = {name: functools.partial(wait, call) for name, call in {**steps, **inferences}.items()}
    ms = {name: 1e3 * s for name, s in timing.interleaved(calls, repeats=repeats).items()}
    return {
        size: {
            "step ms": ms[f"step {size}"],
            **point.cost,
            "inference ms": ms.get(f"inference {size}"),
        }
        for size, point in points.items()
    }


def wait(call: Callable[[], Any]) -> None:
    jax.block_until_ready(call())


def exponents(found: Mapping[int, Figures]) -> Figures:
    """Column -> e of the power law c size^e that fits it best."""
    sizes = np.log(list(found))
    slopes: Figures = {}
    for column in next(iter(found.values())):
        values = [figures[column] for figures in found.values()]
        slopes[column] = None
        if None not in values:
            slopes[column] = float(np.polyfit(sizes, np.log(values), 1)[0])
    return slopes


if __name__ == "__main__":
    main()
