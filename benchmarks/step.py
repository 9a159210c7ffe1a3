"""Training step and inference against the same network in PyTorch, in one process, in turn.

    pip install torch==2.13.0
    python benchmarks/step.py

Float32. A training step is the loop's own compiled run on a fixed batch: the supervised loss
alone ('train'), and with the focal consistency loss on unlabelled crops ('train, unlabelled');
Adam on both sides. Inference is the batch's map. Crops and batches are those of configs/vgg.py
and configs/lightsheet_microglia.py. PyTorch is timed with its own and with the channels-last
layout, and the faster of the two counts. Times are medians in milliseconds; a ratio below 1 says
that JAX is faster. About 8 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import timing
import torch
import torch_net
import workload

from cellcount_jax import config as settings
from cellcount_jax.training.step import create_train_state

# Of one timed call, so that what a call costs by itself does not count.
STEPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--ndim", type=int, nargs="+", default=[2, 3], choices=[2, 3])
    parser.add_argument("--crop", type=int, nargs="+", help="default: the configs'")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("results/step.json"))
    options = parser.parse_args()
    rows = []
    for ndim in options.ndim:
        for features in options.features:
            config = workload.experiment(ndim, features, options.crop)
            for what, sides in workloads(config).items():
                seconds = timing.interleaved(sides, repeats=options.repeats)
                ours = seconds.pop("jax")
                layout, theirs = min(seconds.items(), key=lambda item: item[1])
                row = {
                    "net": f"{ndim}D",
                    "features": features,
                    "what": what,
                    "jax ms": 1e3 * ours / STEPS,
                    "torch ms": 1e3 * theirs / STEPS,
                    "torch layout": layout,
                    "ratio": ours / theirs,
                }
                rows.append(row)
                timing.tell(row)
    print()
    verdict = f"worst ratio {max(row['ratio'] for row in rows):.2f}"
    timing.publish(rows, options.output, packages=["torch"], verdict=verdict)


def workloads(
    config: ml_collections.ConfigDict,
) -> dict[str, dict[str, Callable[[], Any]]]:
    """What is timed -> framework and layout -> a call that runs it `STEPS` times."""
    batch = workload.random_batch(config)
    supervised = {name: values for name, values in batch.items() if name != "unlabelled"}
    state = jax.device_get(create_train_state(jax.random.key(0), config, channels=1))
    layouts = {"own": torch.contiguous_format}
    last = torch.channels_last if config.data.ndim == 2 else torch.channels_last_3d
    layouts["channels last"] = last
    found: dict[str, dict[str, Callable[[], Any]]] = {}
    for what, arrays in {"train": supervised, "train, unlabelled": batch}.items():
        found[what] = {"jax": workload.jax_training(config, state, arrays, steps=STEPS)}
        for name, layout in layouts.items():
            found[what][name] = torch_training(config, state.params, arrays, layout)
    ours = workload.jax_inference(config, state, batch["image"], steps=STEPS)
    found["inference"] = {"jax": ours}
    for name, layout in layouts.items():
        found["inference"][name] = torch_inference(config, state.params, batch["image"], layout)
    return found


def torch_training(
    config: ml_collections.ConfigDict, params: Any, batch: dict[str, np.ndarray], layout: Any
) -> Callable[[], Any]:
    net = torch_network(config, params, layout).train()
    # The fused one is PyTorch's fastest.
    optimizer = torch.optim.Adam(net.parameters(), lr=config.optim.learning_rate, fused=True)
    arrays = {name: to_torch(values, layout) for name, values in batch.items() if name != "valid"}
    step = functools.partial(
        torch_net.train_step, net, optimizer, **arrays, dot_weight=config.target.dot_weight
    )
    return lambda: [step() for _ in range(STEPS)]


def torch_inference(
    config: ml_collections.ConfigDict, params: Any, image: np.ndarray, layout: Any
) -> Callable[[], Any]:
    net = torch_network(config, params, layout).eval()
    x = to_torch(image, layout)

    def call() -> Any:
        with torch.inference_mode():
            return [net(x) for _ in range(STEPS)]

    return call


def torch_network(config: ml_collections.ConfigDict, params: Any, layout: Any) -> torch_net.SAUNet:
    """The network of a config in PyTorch, with the weights of ours."""
    net = torch_net.SAUNet(settings.strides(config), channels=1, features=config.model.features)
    torch_net.copy_weights(net, params)
    return net.to(memory_format=layout)


def to_torch(values: np.ndarray, layout: Any) -> torch.Tensor:
    """`(batch, *spatial, channels)` to PyTorch's `(batch, channels, *spatial)`."""
    moved = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 1)))
    # With one channel `contiguous` would see no difference and keep the strides.
    return torch.empty(moved.shape, dtype=moved.dtype, memory_format=layout).copy_(moved)


if __name__ == "__main__":
    main()
