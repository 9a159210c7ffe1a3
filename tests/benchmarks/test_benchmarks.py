"""The benchmarks at tiny sizes: what they print and write, and the sums behind it."""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cellcount_jax.data import synthetic
from cellcount_jax.data.entries import scan
from cellcount_jax.data.entry_content import read_entry
from cellcount_jax.images.image_files import read_image, write_image
from cellcount_jax.images.points import read_points, write_points
from cellcount_jax.inference import model_file
from cellcount_jax.maps import targets as product
from cellcount_jax.network.sau_net import create_model
from cellcount_jax.training import parallel
from cellcount_jax.training.step import create_train_state, train_step

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a script of benchmarks/; skips the test where a package is missing."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    needed = {"targets": "edt", "step": "torch", "label_acts": "skimage"}

    def load(name: str) -> ModuleType:
        if name in needed:
            reason = f"benchmarks/{name}.py compares with {needed[name]}, which is not installed"
            pytest.importorskip(needed[name], reason=reason)
        return importlib.import_module(name)

    return load


@pytest.fixture
def run(
    load: Callable[[str], ModuleType],
    quick_compiling: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a benchmark as from the command line: what it wrote, and its last line."""

    def run(name: str, *arguments: str) -> tuple[dict[str, Any], str]:
        output = tmp_path / "new" / f"{name}.json"
        monkeypatch.setattr(
            sys, "argv", [f"benchmarks/{name}.py", *arguments, f"--output={output}"]
        )
        load(name).main()
        content = json.loads(output.read_text())
        assert content["command"].startswith(f"python benchmarks/{name}.py ")
        assert content["machine"]["jax"] == jax.__version__ and content["machine"]["cores"] >= 1
        return content, capsys.readouterr().out.splitlines()[-1]

    return run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("targets", ["--tiny", "--repeats=1"]),
        ("scaling", ["--tiny", "--repeats=1", "--features=2", "--grows=dots"]),
        ("counting", ["--tiny", "--only=sparse"]),
        ("counting_speed", ["--tiny", "--repeats=1"]),
        ("counting_many", ["--images=2"]),
        ("step", ["--repeats=1", "--features=2", "--ndim=2", "--crop", "16", "16"]),
    ],
)
def test_a_tiny_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, options: list[str]
) -> None:
    """It ends with its verdict, and its times are positive and its ratios those of its times."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # of processes that it starts
    content, last = run(name, *options)
    assert last == content["verdict"]
    for row in content["rows"]:
        assert all(
            v > 0
            for k, v in row.items()
            if k.endswith(" ms") and row.get("size") != "exponent" and v is not None
        )
        if name == "targets":
            assert row["ours / edt"] == pytest.approx(row["ours ms"] / row["edt ms"])
        if name == "counting_many":
            assert row["images"] == row["sizes"] == 2 and row["programs"] >= 1
            assert last == "2 of 2 tables of points are the same bytes"
        if name == "counting":
            assert row["cells"] == row["alone"] > 40 and 0 < row["skipped"] < row["tiles"]
        if row.get("size") == "exponent":
            # Operations do not depend on the machine's load.
            assert row["GFLOP"] == pytest.approx(0, abs=0.01)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_a_tiny_brain(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    content, last = run("brain", "--tiny")
    (row,) = content["rows"]
    assert last == content["verdict"]
    assert row["cells"] > 100 and 0 < row["computed"] <= row["tiles"]
    assert row["tissue"] == pytest.approx(0.4, abs=0.02)
    steps = [row[f"{name} s"] for name in ("survey", "computing", "searching")]
    assert 0 < sum(steps) < row["seconds"]


def test_the_parts_of_the_pipeline_fit_its_programs(
    run: Run, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are traced and not compiled, which would take most of a minute."""

    def traced(step: Any, state: Any, data: Any, *, steps: int) -> Callable[[], Any]:
        seen = jax.make_jaxpr(step, axis_env=[(parallel.AXIS, 1)], return_shape=True)
        _, (_, metrics) = seen(state, data, jax.random.key(0))
        return lambda: {name: jnp.zeros(steps) for name in metrics}

    images = synthetic.synthetic_dataset(
        ndim=2, seed=0, num_labelled=1, num_unlabelled=1, num_test=1, shape=(32, 32)
    )
    monkeypatch.setattr(load("pipeline").train, "load_dataset", lambda config: images)
    monkeypatch.setattr(load("workload"), "compiled_run", traced)
    content, last = run("pipeline", "--tiny", "--repeats=1", "--configs=vgg")
    (row,) = content["rows"]
    for part in ("drawing", "host gap"):
        assert row[f"{part} %"] == pytest.approx(100 * row[f"{part} ms"] / row["step ms"])
    assert last == content["verdict"] and "(goal 5 %)" in last


def test_targets_that_differ_are_not_timed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    right = product.distance_transform
    monkeypatch.setattr(
        product, "distance_transform", lambda *args, **options: right(*args, **options) + 2e-5
    )
    with pytest.raises(SystemExit, match="error: distance on 1 x .* ours and scipy differ"):
        run("targets", "--tiny", "--repeats=1")


def test_shares_of_the_pipeline(load: Callable[..., Any]) -> None:
    ms = {
        "step": [100.0, 90.0, 400.0],
        "model": [80.0, 85.0, 390.0],
        "drawing": [8.0, 6.0, 7.0],
        "without targets": [4.0, 4.5, 5.0],
        "host gap": [1.0, 2.0, 1.0],
    }
    shares = load("pipeline").shares({part: np.array(values) for part, values in ms.items()})
    assert shares["step ms"] == 100 and shares["model ms"] == 85 and shares["targets ms"] == 2
    # Call by call, the step takes 20, 5 and 10 longer than the model.
    assert shares["not the model ms"] == 10
    ms["drawing"] = [12.0, 12.0, 12.0]
    shares = load("pipeline").shares({part: np.array(values) for part, values in ms.items()})
    assert shares["not the model ms"] == 13
    assert shares["not the model %"] == 13 and shares["drawing %"] == 12


def test_exponents(load: Callable[..., Any]) -> None:
    noise = [1.1, 0.9, 0.9, 1.1]
    sizes = [10, 100, 1000, 10_000]
    found = {
        size: {"a": 3 * size**0.5, "b": size * n, "none": None}
        for size, n in zip(sizes, noise, strict=True)
    }
    slopes = load("scaling").exponents(found)
    assert slopes["a"] == pytest.approx(0.5)
    # The noise is symmetric about the middle: least squares does not see it.
    assert slopes["b"] == pytest.approx(1)
    assert slopes["none"] is None


def test_sides_are_timed_in_turn(load: Callable[..., Any]) -> None:
    timing = load("timing")
    called: list[str] = []
    sides = {name: (lambda name=name: called.append(name)) for name in "ab"}
    seconds = timing.series(sides, repeats=3, warm_up=1)
    assert "".join(called) == "ab" + "ababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_points_that_differ_from_those_of_a_part_alone(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    check = load("counting")._check
    (tmp_path / "a.csv").write_text("id,z,y,x,score\n1,2,3,4,0.5\n2,9,9,9,0.5\n")
    region = (slice(0, 9),) * 3
    check(tmp_path / "a.csv", np.array([[2.0, 3.0, 4.0]]), region)
    with pytest.raises(SystemExit, match="are not those of it alone"):
        check(tmp_path / "a.csv", np.array([[2.0, 3.0, 5.0]]), region)


def test_right_and_wrong_counts_that_are_doubted(
    load: Callable[[str], ModuleType], run: Run, run_2d: Path, cells_2d: Path, tmp_path: Path
) -> None:
    for name, sign in (("t0", 1), ("t1", -1)):
        pixels = read_image(cells_2d / "test" / f"{name}.png").pixels[..., 0]
        dark = 255 - pixels if sign < 0 else pixels
        write_image(tmp_path / f"{name}.tif", dark.astype(np.uint8))
        write_points(
            tmp_path / f"{name}.csv", read_points(cells_2d / "test" / f"{name}.csv", ndim=2)
        )
    content, verdict = run(
        "doubts", str(tmp_path), f"--model={run_2d}", "--reference", str(tmp_path)
    )
    good, bad = content["rows"]
    assert good["f1"] > load("doubts").RIGHT and good["true"] == 8
    assert bad["f1"] < load("doubts").WRONG
    assert verdict == content["verdict"] and verdict.startswith("doubted: ")
    assert "of 1 right ones" in verdict and "of 1 wrong ones" in verdict


def test_the_net_in_pytorch_is_the_same(load: Callable[[str], ModuleType]) -> None:
    """Its maps, and a training step's loss, with the weights of ours."""
    step, workload = load("step"), load("workload")
    import torch

    for ndim, crop in ((2, [16, 16]), (3, [8, 16, 16])):
        config = workload.experiment(ndim, 2, crop)
        config.model.dropout = 0.0
        config.consistency.weight = 0.0
        batch = workload.random_batch(config)
        del batch["unlabelled"]
        state = create_train_state(jax.random.key(0), config, channels=1)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        expected = jax.jit(create_model(config).apply)(variables, batch["image"])
        net = step.torch_network(config, state.params, torch.contiguous_format).eval()
        image = step.to_torch(batch["image"], torch.contiguous_format)
        with torch.inference_mode():
            actual = np.moveaxis(net(image).numpy(), 1, -1)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

        target = step.to_torch(batch["target"], torch.contiguous_format)
        optimizer = torch.optim.Adam(net.train().parameters(), lr=1e-3)
        weight = config.target.dot_weight
        loss = load("torch_net").train_step(
            net, optimizer, image, target, dot_weight=weight, dropout=False
        )
        _, metrics = jax.jit(functools.partial(train_step, config=config))(
            state, batch, jax.random.key(1)
        )
        assert float(loss) == pytest.approx(float(metrics["supervised"]), rel=1e-4)


def cells_in_a_row(module: ModuleType, brightness: float, number: int = 40) -> Any:
    """Peaks of a volume: cells of one brightness, and as many fainter spots beside them."""
    shape = (4, 8, 8 * number)
    cells = np.stack([np.full(number, 2), np.full(number, 2), 8 * np.arange(number) + 2], 1)
    spots = cells + (0, 4, 4)
    points = np.concatenate([cells, spots]).astype(np.float32)
    scores = np.repeat([brightness, 0.5 * brightness], number)
    sample = module.Sample("row", np.zeros((*shape, 1), np.float32), cells, (1.0, 1.0, 1.0))
    return module.dog.Peaks(sample, points, scores)


def test_a_threshold_transfers_between_places_of_one_brightness(
    load: Callable[[str], ModuleType],
) -> None:
    module = load("transfer")
    alike = [cells_in_a_row(module, 1.0), cells_in_a_row(module, 1.0)]
    assert module.between(alike, 2.0) == 1.0
    # The spots of the one are as bright as the cells of the other: 40 of 80 are true there, and
    # of the fainter volume nothing is found.
    apart = [cells_in_a_row(module, 1.0), cells_in_a_row(module, 3.0)]
    assert module.between(apart, 2.0) == pytest.approx((2 / 3 + 0) / 2)


def test_eighths_share_the_peaks_of_the_valid_region(load: Callable[[str], ModuleType]) -> None:
    module = load("transfer")
    whole = cells_in_a_row(module, 1.0)
    parts = module.eighths(whole)
    assert len(parts) == 8
    assert sum(len(part.points) for part in parts) == len(whole.points)
    assert sum(part.sample.valid.astype(int) for part in parts).max() == 1


def test_acts_of_labelling(
    run: Run, untrained_model: Callable[..., Any], cells_3d: Path, tmp_path: Path
) -> None:
    """From nothing an act a cell; from proposals one for each that is missing or false."""
    model = tmp_path / "model.zip"
    model_file.export_model(untrained_model(3), model, card="# Random\n")
    options = ("--data", str(cells_3d), "--volumes", "test", "--models", f"test={model}")
    content, last = run("label_acts", *options, "--distance=3", "--stop=5", "--repeats=1")
    rows = {row["from"]: row for row in content["rows"]}
    assert list(rows) == ["nothing", "otsu", "otsu, by score", "model", "model, by score"]
    assert rows["nothing"]["acts per 100 cells"] == 100
    assert rows["nothing"]["added"] == rows["nothing"]["cells"] > 0
    for name, row in rows.items():
        if name != "nothing":
            true = row["precision"] * row["proposed"]
            assert row["added"] == pytest.approx(row["cells"] - true)
            assert row["removed"] + row["false left"] == pytest.approx(row["proposed"] - true)
        assert row["acts per 100 cells"] == pytest.approx(
            100 * (row["added"] + row["removed"]) / row["cells"]
        )
        assert row["with blocks"] > row["acts per 100 cells"]
        if "score" not in name:
            assert row["false left"] == 0 and row["F1 after"] == 1
    assert rows["otsu"]["acts per 100 cells"] < 100
    assert last == content["verdict"] and last.startswith("acts per 100 cells of test: nothing 100")


def test_fine_tuning_goes_on_where_it_was_stopped(
    run: Run,
    load: Callable[[str], ModuleType],
    run_2d: Path,
    cells_2d: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Every run is done once; the scores are those of the runs."""
    module = load("fine_tuning")
    model = tmp_path / "model.zip"
    parent = model_file.load_model(run_2d).with_settings({"data.diameter": 5.0})
    model_file.export_model(parent, model, card="# Tiny\n")
    images = [read_entry(entry, with_dots=True) for entry in scan(cells_2d)]
    labelled = [sample for sample in images if sample.points is not None]
    kind = module.Kind(labelled[:2], labelled[2:], 5.0)
    monkeypatch.setattr(module, "read_kind", lambda *_: kind)
    trained = []
    train = module.train.train_and_evaluate

    def counted(config: Any, workdir: Path) -> Any:
        trained.append(workdir.name)
        return train(config, workdir)

    monkeypatch.setattr(module.train, "train_and_evaluate", counted)
    small = ("model.features=4", "model.levels=2", "train.crop=16,16", "target.max_distance=8.0")
    options = [f"--model={model}", "--kinds=tiny", "--labels", "1", "--seeds=1", "--steps=20"]
    options += [f"--runs={tmp_path / 'runs'}"]
    for change in small:
        options += ["--set", change]
    content, last = run("fine_tuning", *options)
    assert len(trained) == 2
    (row,) = content["rows"]
    assert row["as it is"] > 0.9 and row["from"] > 0.8 and 0 <= row["random"] <= 1
    assert last == content["verdict"]
    assert run("fine_tuning", *options)[0]["rows"] == [row] and len(trained) == 2


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_the_hook_of_the_soak_ends_a_process_before_its_nth_operation(
    tmp_path: Path, at: int
) -> None:
    folder, hook = tmp_path / "work", ROOT / "benchmarks" / "soak_hook"
    folder.mkdir()
    program = """if True:
        import os, sys
        os.chdir(sys.argv[1])
        open("a", "w").close()
        open("a").close()
        os.rename("a", "b")
        os.mkdir("c")
        os.remove("b")
    """
    environment = {**os.environ, "PYTHONPATH": str(hook), "SOAK_FOLDER": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], env=environment | {"SOAK_AT": str(at)}
    )
    assert done.returncode == -signal.SIGKILL
    states: list[set[str]] = [set(), {"a"}, {"b"}, {"b", "c"}]
    assert {path.name for path in folder.iterdir()} == states[at - 1]
