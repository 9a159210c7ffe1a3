"""The benchmark on an accelerator: its count of operations, and all of it at a tiny size."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from cellcount_jax import config as settings
from cellcount_jax import variants
from cellcount_jax.data import synthetic
from cellcount_jax.maps.targets import target_geometry
from cellcount_jax.network import native
from cellcount_jax.training.step import create_train_state, train_step

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None


@pytest.fixture(scope="module")
def flops() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("flops")


@pytest.fixture(scope="module")
def accelerator() -> Iterator[Any]:
    if torch is None:
        pytest.skip("benchmarks/accelerator.py compares with PyTorch, which is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        # The benchmark sets it for its own process, and this one is shared.
        patch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        module = importlib.import_module("accelerator")
        # Made once: it takes seconds.
        dataset = synthetic.synthetic_dataset(
            ndim=2, seed=0, num_labelled=2, num_unlabelled=2, num_test=1, shape=(32, 32)
        )
        patch.setattr(module.train, "load_dataset", lambda config: dataset)
        threads = torch.get_num_threads()
        # More would wait for each other on so little work.
        torch.set_num_threads(1)
        yield module
        torch.set_num_threads(threads)


def test_the_operations_of_a_small_step_counted_by_hand(flops: Any) -> None:
    config = settings.default_config()
    config.model.features, config.model.levels = 2, 2
    config.train.crop = (8, 8)
    config.train.batch_labelled, config.train.batch_unlabelled = 1, 2
    # Convolutions 1->2 and 2->2 on 8x8 voxels, 2->4 and 4->4 on 4x4, of 9 taps.
    first, encoder = 2 * 9 * 2 * 64, 2 * 9 * (4 * 64 + 8 * 16 + 16 * 16)
    # Four products of 4x4 channels in each of 16 voxels, and twice 16x16 pairs of 4 channels.
    attention = 2 * (4 * 16 * 16 + 2 * 256 * 4)
    # 4->2 and 4 taps from each of 16 voxels; 4->2 and 2->2, 9 taps; 2->1.
    decoder = 2 * (16 * 4 * 8 + 64 * 9 * (8 + 4) + 64 * 2)
    counted = flops.forward_flops(config, channels=1)
    assert counted == (first, encoder, attention, decoder)
    # Three images through the encoder and back; the teacher's two forward only.
    expected = 3 * (2 * first + 3 * encoder) + (3 * 3 + 2) * (attention + decoder)
    assert flops.step_flops(config, channels=1) == expected


def changed(config: ml_collections.ConfigDict, what: str) -> ml_collections.ConfigDict:
    if what == "the paper's":
        return config
    config.model.levels = 2
    # XLA leaves out what windows count outside of the image: more of a small one.
    config.train.crop = (96, 96)
    if what == "3D":
        variants.use_volumes(config)
        config.model.strides = ((1, 2, 2),)
        config.model.attention = "none"
    return config


@pytest.mark.parametrize("what", ["the paper's", "3D"])
def test_the_operations_of_a_step_are_those_that_xla_counts(
    accelerator: Any, flops: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # XLA does not look into the C++ convolutions.
    monkeypatch.setattr(native, "available", lambda: False)
    config = changed(accelerator.experiment(), what)
    config.model.dtype = "float32"
    t = config.train
    arrays = {
        "image": jax.ShapeDtypeStruct((t.batch_labelled, *t.crop, 1), jnp.float32),
        "target": jax.ShapeDtypeStruct((t.batch_labelled, *t.crop, 1), jnp.float32),
        "valid": jax.ShapeDtypeStruct((t.batch_labelled, *t.crop, 1), bool),
    }
    if config.consistency.weight > 0:
        shape = (t.batch_unlabelled, *t.crop, 1)
        arrays["unlabelled"] = jax.ShapeDtypeStruct(shape, jnp.float32)
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: create_train_state(key, config, channels=1))
    geometry = target_geometry(config, (1.0,) * config.data.ndim)
    step = jax.jit(
        lambda state, batch: train_step(state, batch, key, config=config, geometry=geometry)
    )
    analysis = step.lower(state, arrays).cost_analysis()
    assert analysis is not None
    tolerance = 0.02 if what == "the paper's" else 0.05
    assert flops.step_flops(config) == pytest.approx(analysis["flops"], rel=tolerance)


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA L4", 121.0),
        ("TPU v5 lite", 197.0),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA L400", None),
    ],
)
def test_the_peak_of_a_device(flops: Any, kind: str, tflops: float | None) -> None:
    assert flops.peak_tflops(kind) == tflops


@pytest.mark.usefixtures("quick_compiling")
def test_both_sides_are_timed_and_written(accelerator: Any, flops: Any, tmp_path: Path) -> None:
    path = tmp_path / "results" / "accelerator.json"
    options = ["--tiny", "--allow-cpu", "--no-compile", "--steps=2", "--peak=2"]
    accelerator.main([*options, f"--output={path}"])
    content = json.loads(path.read_text())
    ours, theirs = content["rows"]
    assert [ours["side"], theirs["side"]] == ["jax", "torch"]
    tflop = flops.step_flops(accelerator.experiment(tiny=True)) / 1e12
    for row in (ours, theirs):
        assert row["steps/s"] > 0
        assert row["TFLOP/s"] == pytest.approx(row["steps/s"] * tflop)
        assert row["share of peak"] == pytest.approx(row["TFLOP/s"] / 2)
    assert ours["ratio"] == pytest.approx(theirs["steps/s"] / ours["steps/s"])
    assert content["machine"]["torch"] == metadata.version("torch")
    if jax.default_backend() == "cpu":
        assert ours["peak GiB"] == theirs["peak GiB"] == "not available"


def test_the_time_of_a_run_leaves_evaluations_out(accelerator: Any, tmp_path: Path) -> None:
    lines = [
        {"step": 50, "loss": 1.0, "seconds": 40.0},
        {"step": 100, "loss": 1.0, "seconds": 10.0},
        {"step": 100, "f1": 0.9},
        {"step": 150, "loss": 1.0, "seconds": 10.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    told = accelerator.training_time(tmp_path, accelerator.experiment())
    assert told == {"steps": 150, "images a step": 88, "minutes": 1.0, "steps/s": 5.0}
