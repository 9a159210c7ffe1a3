"""The benchmarks at tiny sizes: what they print and write, and the sums behind it."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from cellcount_jax.maps import targets as product
from cellcount_jax.network.sau_net import create_model
from cellcount_jax.training.step import create_train_state, train_step

ROOT = Path(__file__).parents[2]

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
        given = [*arguments, "--repeats", "1", "--output", str(output)]
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *given])
        load(name).main()
        content = json.loads(output.read_text())
        assert content["command"].startswith(f"python benchmarks/{name}.py ")
        assert content["machine"]["jax"] == jax.__version__ and content["machine"]["cores"] >= 1
        return content, capsys.readouterr().out.splitlines()[-1]

    return run


def test_targets(run: Run) -> None:
    content, last = run("targets", "--tiny")
    rows = content["rows"]
    assert [(r["what"], r["grid"], r["images"]) for r in rows] == [
        (what, grid, images)
        for grid, batch in (("40x50", 3), ("10x14x12", 2))
        for images in (1, batch)
        for what in ("distance", "map")
    ]
    for row in rows:
        assert row["ours / edt"] == pytest.approx(row["ours ms"] / row["edt ms"])
        assert row["ours / scipy"] == pytest.approx(row["ours ms"] / row["scipy ms"])
        assert 1 <= row["edt threads"] <= content["machine"]["cores"]
    assert {"edt", "scipy"} <= content["machine"].keys()
    worst = max(row["ours / edt"] for row in rows)
    assert last == content["verdict"] == f"worst ratio {worst:.2f} (ours / edt)"


@pytest.mark.parametrize(
    ("name", "what"), [("distance_transform", "distance"), ("inverse_distance_map", "map")]
)
def test_targets_that_differ_are_not_timed(
    run: Run, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(product, name)
    monkeypatch.setattr(product, name, lambda *args, **options: right(*args, **options) + 2e-5)
    with pytest.raises(SystemExit, match=f"error: {what} on 1 x .* ours and scipy differ"):
        run("targets", "--tiny")


def test_dots_of_the_targets_have_the_density_of_real_ones(load: Callable[..., Any]) -> None:
    benchmark = load("targets")
    for shape, count in {(256, 256): 170, (600, 600): 934, (64, 224, 224): 1070}.items():
        assert shape in benchmark.GRIDS
        dots = benchmark.random_dots(shape, 2)
        assert dots.shape == (2, count, len(shape))
        assert (~benchmark.empty(shape, dots[0])).sum() == count


def test_pipeline(run: Run) -> None:
    content, last = run("pipeline", "--tiny", "--configs", "lightsheet_microglia")
    assert [row["config"] for row in content["rows"]] == ["lightsheet_microglia"]
    for row in content["rows"]:
        for part in ("step", "model", "drawing", "host gap"):
            assert row[f"{part} ms"] > 0
        for part in ("targets", "drawing", "host gap", "not the model"):
            assert row[f"{part} %"] == pytest.approx(100 * row[f"{part} ms"] / row["step ms"])
    worst = {
        part: max(row[f"{part} %"] for row in content["rows"])
        for part in ("targets", "not the model")
    }
    assert last == content["verdict"]
    assert f"targets at most {worst['targets']:.1f} % of a step (goal 5 %)" in last
    assert last.endswith(
        f"not the model at most {worst['not the model']:.1f} % of a step (goal 10 %)"
    )


def test_the_pipeline_is_that_of_the_configs(load: Callable[..., Any]) -> None:
    benchmark = load("pipeline")
    assert benchmark.CONFIGS == ("vgg", "lightsheet_microglia")
    for name, crop, labelled, unlabelled in (
        ("vgg", (128, 128), 4, 2),
        ("lightsheet_microglia", (32, 64, 64), 2, 1),
    ):
        t = benchmark.experiment(name).train
        assert t.crop == crop
        assert (t.batch_labelled, t.batch_unlabelled) == (labelled, unlabelled)


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


def test_scaling(run: Run) -> None:
    content, last = run("scaling", "--tiny", "--features", "2")
    rows = content["rows"]
    assert [(r["grows"], r["size"]) for r in rows] == [
        *(("voxels", size) for size in (256, 2048, "exponent")),
        *(("batch", size) for size in (1, 2, "exponent")),
        *(("dots", size) for size in (10, 100, "exponent")),
    ]
    slopes = {r["grows"]: r for r in rows if r["size"] == "exponent"}
    small, large = rows[:2]
    for column in ("step ms", "inference ms", "GFLOP", "MB"):
        expected = np.log(large[column] / small[column]) / np.log(2048 / 256)
        assert slopes["voxels"][column] == pytest.approx(expected)
    # Operations do not depend on the machine's load.
    assert slopes["voxels"]["GFLOP"] == pytest.approx(1, abs=0.1)
    assert slopes["batch"]["GFLOP"] == pytest.approx(1, abs=0.15)
    assert slopes["dots"]["GFLOP"] == pytest.approx(0, abs=0.01)
    assert all(row["inference ms"] is None for row in rows if row["grows"] == "dots")
    v, b, d = (slopes[name] for name in ("voxels", "batch", "dots"))
    assert (
        last
        == content["verdict"]
        == (
            f"exponents of time against voxels: step {v['step ms']:.2f}, inference"
            f" {v['inference ms']:.2f}; batch: step {b['step ms']:.2f}, inference"
            f" {b['inference ms']:.2f}; dots: step {d['step ms']:.2f}"
        )
    )


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


def test_counting(
    load: Callable[[str], ModuleType],
    quick_compiling: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "counting.json"
    arguments = ["--tiny", "--only", "sparse", "--output", str(output)]
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setattr(sys, "argv", ["benchmarks/counting.py", *arguments])
    load("counting").main()
    content = json.loads(output.read_text())
    (row,) = content["rows"]
    assert row["what"] == "sparse" and row["gigavoxels"] == 32 * 72 * 400 / 1e9
    assert row["cells"] == row["alone"] > 40
    assert 0 < row["skipped"] < row["tiles"]
    assert 0.3 < row["peak GB"] < 3 and row["seconds"] > row["CPU s"] / 4 > 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == content["verdict"] == f"at most {row['peak GB']:.2f} GB"


def test_what_the_command_said(load: Callable[[str], ModuleType]) -> None:
    said = load("counting").said
    words = (
        "a.zarr: Zarr\nin 6 tiles of 4 x 5 voxels, each in 8 mirror images: about 2.1 GB of memory"
    )
    assert said(f"{words}, up to 0.1 GB on the disk while it runs, about 2 min\nreading: 1%") == {
        "said GB": 2.1,
        "said s": 120,
    }
    assert said(f"{words}, about 1.5 h\n")["said s"] == 5400


def test_points_that_differ_from_those_of_a_part_alone(
    load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    check = load("counting")._check
    (tmp_path / "a.csv").write_text("id,z,y,x,score\n1,2,3,4,0.5\n2,9,9,9,0.5\n")
    region = (slice(0, 9),) * 3
    check(tmp_path / "a.csv", np.array([[2.0, 3.0, 4.0]]), region)
    with pytest.raises(SystemExit, match="are not those of it alone"):
        check(tmp_path / "a.csv", np.array([[2.0, 3.0, 5.0]]), region)


def test_counting_speed(run: Run) -> None:
    content, last = run("counting_speed", "--tiny")
    (row,) = content["rows"]
    assert row["what"] == "--fast" and row["tiles"] > 1
    assert row["with halos"] > row["megavoxels"] == 32 * 72 * 136 / 1e6
    assert row["megavoxels/s"] == pytest.approx(row["megavoxels"] / row["seconds"])
    benchmark = importlib.import_module("counting_speed")
    assert all(row[f"{name} s"] > 0 for name in (*benchmark.PARTS, "rest"))
    assert last == f"CPU time of the bare network's: {row['CPU ratio']:.2f} (--fast)"


@pytest.mark.parametrize("name", ["targets", "pipeline", "scaling", "counting_speed"])
def test_a_benchmark_says_how_to_run_it(
    load: Callable[..., Any], name: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    benchmark = load(name)
    assert f"    python benchmarks/{name}.py\n" in benchmark.__doc__
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--help"])
    with pytest.raises(SystemExit):
        benchmark.main()
    help_text = capsys.readouterr().out
    assert "--output" in help_text and "--repeats" in help_text


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


def test_step(run: Run) -> None:
    options = ("--features", "2", "--ndim", "2", "--crop", "16", "16")
    content, last = run("step", *options)
    assert [row["what"] for row in content["rows"]] == ["train", "train, unlabelled", "inference"]
    assert all(row["jax ms"] > 0 and row["torch ms"] > 0 for row in content["rows"])
    worst = max(row["ratio"] for row in content["rows"])
    assert last == f"worst ratio {worst:.2f}"


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


def test_a_model_on_fainter_and_brighter_cells(
    load: Callable[[str], ModuleType],
    run_3d: Path,
    cells_3d: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = load("transfer")
    file = cells_3d / "test" / "test.tif"
    arguments = ["contrast", f"--model={run_3d}", f"--volume={file}", "--rows=4:36"]
    monkeypatch.setattr(sys, "argv", ["benchmarks/transfer.py", *arguments])
    module.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    f1 = {float(row[0]): float(row[1]) for row in rows}
    assert list(f1) == list(module.FACTORS)
    assert f1[1.0] > 0.8 and f1[0.25] <= f1[1.0]


def test_acts_of_labelling(run: Run, run_3d: Path, cells_3d: Path) -> None:
    """From nothing an act a cell; from proposals one for each that is missing or false."""
    options = ("--data", str(cells_3d), "--volumes", "test", "--models", f"test={run_3d}")
    content, last = run("label_acts", *options, "--distance", "3", "--stop", "5")
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
    assert rows["model"]["acts per 100 cells"] < 100
    assert last == content["verdict"] and last.startswith("acts per 100 cells of test: nothing 100")
