"""The benchmark on an accelerator: its count of operations, and all of it at a tiny size."""

from __future__ import annotations

import functools
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
import numpy as np
import pytest

from cellcount_jax import config as settings
from cellcount_jax import variants
from cellcount_jax.data import synthetic
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
    if what == "supervised":
        config.consistency.weight = 0.0
        config.model.attention = "none"
    if what == "perturbed images":
        config.consistency.perturbation = "noise"
    if what == "3D":
        variants.use_volumes(config)
        config.model.strides = ((1, 2, 2),)
        config.model.attention = "none"
    return config


@pytest.mark.parametrize("what", ["the paper's", "supervised", "perturbed images", "3D"])
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
    step = jax.jit(lambda state, batch: train_step(state, batch, key, config=config))
    analysis = step.lower(state, arrays).cost_analysis()
    assert analysis is not None
    tolerance = 0.02 if what == "the paper's" else 0.05
    assert flops.step_flops(config) == pytest.approx(analysis["flops"], rel=tolerance)


def test_the_papers_recipe_is_computed_in_bfloat16(accelerator: Any) -> None:
    config = accelerator.experiment()
    assert config.model.dtype == "bfloat16" and config.model.features == 32
    assert config.train.batch_labelled + config.train.batch_unlabelled == 88
    state = jax.eval_shape(lambda: create_train_state(jax.random.key(0), config, channels=1))
    dtypes = {x.dtype.name for x in jax.tree.leaves((state.params, state.batch_stats))}
    assert dtypes == {"float32"}


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H200 NVL", 836.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-40GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("TPU v5 lite", 197.0),
        ("TPU v5", 459.0),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA L400", None),
        ("cpu", None),
    ],
)
def test_the_peak_of_a_device(flops: Any, kind: str, tflops: float | None) -> None:
    assert flops.peak_tflops(kind) == tflops


def test_without_an_accelerator_it_says_so_and_fails(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator.jax, "default_backend", lambda: "cpu")
    with pytest.raises(SystemExit, match="no GPU or TPU"):
        accelerator.main(["--tiny"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--steps=3", "--steps 3: must be a multiple of the 2 steps of a block"),
        ("--steps=-2", "--steps -2: must be a multiple of the 2 steps of a block"),
        ("--peak=0", "--peak 0.0: must be above 0"),
    ],
)
def test_an_impossible_option_is_an_error(
    accelerator: Any, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        accelerator.main(["--tiny", "--allow-cpu", option])
    assert message in capsys.readouterr().err


def test_a_workdir_of_another_run_is_an_error(accelerator: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="error: .*another config"):
        accelerator.main(["--tiny", "--allow-cpu", "--full", f"--workdir={tmp_path}"])


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


@pytest.mark.usefixtures("quick_compiling")
def test_a_side_that_cannot_be_measured_is_not_run(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "torch_device", lambda: None)
    monkeypatch.setattr(accelerator.timing, "interleaved", lambda sides, repeats: {"jax": 0.5})
    config = accelerator.experiment(tiny=True)
    ours, theirs = accelerator.compare(config, blocks=1, compiled=False, peak=None)
    assert ours["steps/s"] == config.train.scan_length / 0.5
    assert ours["ratio"] == theirs["ratio"] == theirs["steps/s"] == "not run"
    assert list(ours) == list(theirs)
    if jax.default_backend() == "cpu":
        assert ours["share of peak"] == "peak unknown"


def test_pytorch_learns_in_bfloat16_from_float32_parameters(accelerator: Any) -> None:
    config = accelerator.experiment(tiny=True)
    config.optim.learning_rate = 3e-2
    # All in one call, and with the weights of the step before: autocast keeps what it has cast.
    config.train.scan_length = 20
    t = config.train
    rng = np.random.default_rng(0)
    counts = {"image": t.batch_labelled, "target": t.batch_labelled, "unlabelled": 2}
    batch = {name: rng.random((count, *t.crop, 1), np.float32) for name, count in counts.items()}
    create = functools.partial(create_train_state, config=config, channels=1)
    params = jax.device_get(jax.jit(create)(jax.random.key(0)).params)
    cpu = torch.device("cpu")
    seen: list[Any] = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, output: seen.append((module, output))
    )
    with hook:
        call = accelerator.torch_training(config, params, batch, cpu, compiled=False)
        losses = [float(loss) for loss in call()]
    assert losses[-1] < 0.9 * losses[0]
    convolutions = [(m, y) for m, y in seen if isinstance(m, torch.nn.Conv2d)]
    assert all(y.dtype == torch.bfloat16 for _, y in convolutions)
    assert all(m.weight.dtype == torch.float32 for m, _ in convolutions)
    # The first level too, whose one channel lies in memory as both layouts have it.
    assert convolutions[0][1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("quick_compiling")
def test_the_full_run_is_resumed_and_its_time_summed(
    accelerator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = {"f1": 0.5, "mae": 2.0}
    monkeypatch.setattr(accelerator.train.evaluate, "evaluate", lambda *_: scored)
    monkeypatch.setattr(accelerator.cache, "keep_programs", lambda: None)
    path = tmp_path / "full.json"
    options = ["--tiny", "--allow-cpu", "--full", f"--workdir={tmp_path}", f"--output={path}"]
    accelerator.main(options)
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["steps"], row["images a step"], row["f1"]) == (4, 3, 0.5)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert row["minutes"] == pytest.approx(sum(line["seconds"] for line in lines) / 60)
    accelerator.main(options)
    assert json.loads(path.read_text())["rows"] == [row]


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
