"""The paper's training on an accelerator, against PyTorch in the same process, in turn.

    pip install torch    # a build for the GPU
    python benchmarks/accelerator.py
    python benchmarks/accelerator.py --full --workdir=runs/accelerator

configs/vgg.py:paper (32 features, 8 + 80 crops of 224x224) computed in bfloat16, with float32
parameters. JAX runs the training loop's own compiled run on one device, drawing, augmentation
and targets included. PyTorch (channels_last, bfloat16 autocast, torch.compile, fused Adam)
takes the same step on one batch that lies ready on the GPU. 500 steps of each in alternating
blocks, as many steps a block as the loop has in one compiled call; a time is the median of the
blocks. A ratio below 1 says that JAX is faster.

Operations are counted from the shapes of the layers (`step_flops`), for both sides alike. Peak
memory is what each framework's allocator had handed out at most since the process began,
compilation and the search for the fastest convolutions included.

`--full` is the ordinary training run of all 12,750 steps and the evaluation after it. The same
command goes on where an earlier one ended; seconds are those of metrics.jsonl, summed over all
starts: every step once, compilation included, evaluation and writing of checkpoints not.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import runpy
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cellcount_jax.maps import targets

# Two frameworks share the GPU; JAX would take three quarters of its memory for itself.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import ml_collections
import numpy as np
import step as cpu_benchmark
import timing
import torch
import torch_net
import workload
from absl import logging
from flops import peak_tflops, step_flops

from cellcount_jax import cache
from cellcount_jax.errors import InputError
from cellcount_jax.training import batches, stack, train
from cellcount_jax.training.step import TrainState, draw_and_step

ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, help="timed steps of each side (500)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile (on a GPU: yes)"
    )
    parser.add_argument("--peak", type=float, help="bfloat16 TFLOP/s of the device")
    parser.add_argument("--full", action="store_true", help="the whole run, JAX alone")
    parser.add_argument("--workdir", type=Path, default=Path("runs/accelerator"), help="of --full")
    parser.add_argument("--data", default="", help="of --full: the VGG images; else synthetic")
    parser.add_argument("--allow-cpu", action="store_true", help="to try it; writes no results")
    parser.add_argument("--tiny", action="store_true", help="to try it: a small net and batch")
    parser.add_argument("--output", type=Path, help="results/accelerator.json, or _full.json")
    options = parser.parse_args(arguments)

    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and not options.allow_cpu:
        sys.exit("error: JAX finds no GPU or TPU here, so there is nothing to measure (not run)")
    config = experiment(data=options.data if options.full else "", tiny=options.tiny)
    output = options.output
    # What a trial gives is not to be taken for a result.
    if output is None and not (on_cpu or options.tiny):
        output = Path("results") / ("accelerator_full.json" if options.full else "accelerator.json")

    if options.full:
        try:
            row = full_run(config, options.workdir)
        except (InputError, OSError) as error:
            sys.exit(f"error: {error}")
        if row is not None:
            timing.publish([row], output)
        return
    length = config.train.scan_length
    steps = options.steps or (2 * length if options.tiny else 500)
    if steps < 1 or steps % length:
        parser.error(f"--steps {steps}: must be a multiple of the {length} steps of a block")
    if options.peak is not None and not options.peak > 0:
        parser.error(f"--peak {options.peak}: must be above 0")
    compiled = not on_cpu if options.compile is None else options.compile
    rows = compare(config, blocks=steps // length, compiled=compiled, peak=options.peak)
    print()
    timing.publish(rows, output, packages=["torch"])
    ratio = rows[0]["ratio"]
    print(f"ratio {ratio if isinstance(ratio, str) else format(ratio, '.2f')}")


def experiment(*, data: str = "", tiny: bool = False) -> ml_collections.ConfigDict:
    """The settings of configs/vgg.py:paper in bfloat16; `tiny` is for a test."""
    get_config = runpy.run_path(str(ROOT / "configs" / "vgg.py"))["get_config"]
    config: ml_collections.ConfigDict = get_config("paper")
    config.model.dtype = "bfloat16"
    config.data.dir = data
    if tiny:
        config.model.features, config.model.levels = 4, 2
        config.data.num_labelled = config.data.num_unlabelled = 2
        config.train.crop = (16, 16)
        config.train.batch_labelled, config.train.batch_unlabelled = 1, 2
        config.train.steps, config.train.scan_length, config.train.checkpoint_every = 4, 2, 2
        config.target.max_distance = 8.0
        config.evaluation.overlays = 0
    return config


def compare(
    config: ml_collections.ConfigDict, *, blocks: int, compiled: bool, peak: float | None
) -> list[dict[str, Any]]:
    """Times both sides in turn: a row of each."""
    dataset = train.load_dataset(config)
    data = stack.on_device(dataset, train.fit_normalisation(dataset, config), config)
    geometry = targets.target_geometry(config, dataset.labelled[0].spacing)
    state, _ = train.initial_state(config, dataset)
    sides = {"jax": jax_training(config, state, data, geometry)}
    device = torch_device()
    if device is not None:
        batch = draw(config, data, geometry)
        sides["torch"] = torch_training(config, state.params, batch, device, compiled=compiled)
    seconds = timing.interleaved(sides, repeats=blocks)

    kind = jax.local_devices()[0].device_kind
    peak = peak_tflops(kind) if peak is None else peak
    tflop = step_flops(config) / 1e12
    memory = {"jax": jax_peak_memory(), "torch": torch_peak_memory(device)}
    rows = []
    for side in ("jax", "torch"):
        if side not in seconds:
            figures = ("steps/s", "TFLOP/s", "share of peak", "peak GiB", "ratio")
            rows.append({"side": side, "TFLOP a step": tflop, **dict.fromkeys(figures, "not run")})
            continue
        rate, used = config.train.scan_length / seconds[side], memory[side]
        rows.append(
            {
                "side": side,
                "TFLOP a step": tflop,
                "steps/s": rate,
                "TFLOP/s": rate * tflop,
                "share of peak": "peak unknown" if peak is None else rate * tflop / peak,
                "peak GiB": "not available" if used is None else used / 2**30,
                "ratio": seconds[side] / seconds["torch"] if "torch" in seconds else "not run",
            }
        )
    return rows


def jax_training(
    config: ml_collections.ConfigDict,
    state: TrainState,
    data: stack.TrainingData,
    geometry: targets.TargetGeometry,
) -> Callable[[], Any]:
    """The training loop's compiled run, on one device."""
    step = functools.partial(
        draw_and_step,
        config=config,
        geometry=geometry,
        peak=targets.peak_value(config, geometry),
        shares=shares(config),
    )
    return workload.compiled_run(step, state, data, steps=config.train.scan_length)


def shares(config: ml_collections.ConfigDict) -> dict[str, int]:
    """The crops of one device, which has them all."""
    return {name: config.train[name] for name in ("batch_labelled", "batch_unlabelled")}


def draw(
    config: ml_collections.ConfigDict,
    data: stack.TrainingData,
    geometry: targets.TargetGeometry,
) -> dict[str, np.ndarray]:
    """One batch, for PyTorch: `image`, `target`, `unlabelled`."""
    draw = functools.partial(
        batches.draw_batch, config=config, geometry=geometry, shares=shares(config)
    )
    batch = jax.jit(draw)(jax.random.split(jax.random.key(2)), data)
    # Copies, as PyTorch takes no arrays that are read-only.
    return {name: np.array(batch[name]) for name in ("image", "target", "unlabelled")}


def torch_device() -> torch.device | None:
    """PyTorch's device of the kind that JAX computes on, if it has one."""
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    return torch.device("cuda") if torch.cuda.is_available() else None


def torch_training(
    config: ml_collections.ConfigDict,
    params: Any,
    batch: dict[str, np.ndarray],
    device: torch.device,
    *,
    compiled: bool,
) -> Callable[[], Any]:
    """As many steps of the same network on one batch."""
    if device.type == "cuda":
        # As XLA does: the fastest convolution of each shape, and TF32 for what stays float32.
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    net = cpu_benchmark.torch_network(config, params, torch.channels_last).to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=config.optim.learning_rate, fused=True)
    arrays: dict[str, Any] = {
        name: cpu_benchmark.to_torch(values, torch.channels_last).to(device)
        for name, values in batch.items()
    }
    step = torch.compile(torch_net.train_step) if compiled else torch_net.train_step

    def call() -> Any:
        losses = []
        for _ in range(config.train.scan_length):
            # Anew for each step: autocast keeps the weights that it cast until its end.
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = step(net, optimizer, **arrays, dot_weight=config.target.dot_weight)
            losses.append(loss)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return losses

    return call


def jax_peak_memory() -> int | None:
    """Bytes that JAX's allocator had in use at most; None where it does not tell."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def torch_peak_memory(device: torch.device | None) -> int | None:
    """Bytes that PyTorch's allocator had in use at most; None where it does not tell."""
    on_gpu = device is not None and device.type == "cuda"
    return torch.cuda.max_memory_allocated(device) if on_gpu else None


def full_run(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any] | None:
    """Trains, or goes on training, and evaluates; None if it was stopped early."""
    logging.set_verbosity(logging.INFO)
    cache.keep_programs()
    content = train.train_and_evaluate(config, workdir)
    if content is None:
        return None
    return {**training_time(workdir, config), "f1": content["f1"], "mae": content["mae"]}


def training_time(workdir: Path, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Steps, images a step, minutes over all starts, and the median rate of a run's calls."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    # Evaluations in training have lines of their own.
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    t = config.train
    return {
        "steps": len(seconds) * t.scan_length,
        "images a step": t.batch_labelled + t.batch_unlabelled,
        "minutes": sum(seconds) / 60,
        "steps/s": t.scan_length / statistics.median(seconds),
    }


if __name__ == "__main__":
    main()
