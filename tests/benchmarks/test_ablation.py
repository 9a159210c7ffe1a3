"""The ablation: its cells, its runner, its baseline without a network, and its tables."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import math
import runpy
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cellcount_jax import config as settings
from cellcount_jax import validation
from cellcount_jax.data.sample import Sample
from cellcount_jax.evaluation import metrics, scoring
from cellcount_jax.images import files
from cellcount_jax.training import train

ROOT = Path(__file__).parents[2]

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a script of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module


@pytest.fixture
def folders(load: Load, tmp_path: Path) -> Any:
    return load("ablation_run").Folders(Path("data"), tmp_path / "results", tmp_path / "runs")


@pytest.fixture
def few(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows, five cells."""
    load("ablation_report")  # which is to have all rows, in other tests too
    module = load("ablation_cells")
    rows = [
        module.Row("vgg", "difference_of_gaussians", 8, seeds=1),
        module.Row("vgg", "inverse_distance", 8, seeds=2),
        module.Row("mbm", "focal_last", 15, seeds=2),
    ]
    monkeypatch.setattr(module, "ROWS", tuple(rows))


def made_up(cell: Any, *, f1: float = 0.9, seconds: float = 120.0, reached: float = 0.95) -> Any:
    """A result like those of the runner."""
    rule = "components" if cell.method == "full_annotation" else "peaks"
    scores = {"f1": f1, "mae": 100 * (1 - f1), "inside_cell": {"f1": f1 - 0.1}}
    rules = {name: scores for name in ("peaks", "components", "fidt")}
    names = ("test", "held_out") if cell.dataset == "cfos" else ("test",)
    result = {
        **dataclasses.asdict(cell),
        "rule": rule,
        "f1_on_training_images": {rule: reached},
        "sets": {name: rules for name in names},
        "seconds": seconds,
        "commit": "abcdef1",
        "machine": {"cores": 2, "device": "cpu"},
        "chosen": {"intensities": "log", "sigma": 2.0, "bright": True},
        "each_kind": [
            {"intensities": "log", "f1_on_training_images": 0.8, "f1": {n: 0.7 for n in names}}
        ],
    }
    return json.loads(json.dumps(result))


def test_every_cell_is_a_valid_run(load: Load) -> None:
    module = load("ablation_cells")
    every = list(module.cells({}))
    assert len({cell.name for cell in every}) == len(every) > 60
    for cell in every:
        path, folder, _ = module.DATASETS[cell.dataset]
        variant = module.METHODS[cell.method].variant
        config = runpy.run_path(str(ROOT / path))["get_config"](variant)
        before = settings.flatten(config.to_dict())
        for key, value in cell.overrides.items():
            assert key in before and type(value) is type(before[key])
        config.update_from_flattened_dict(cell.overrides)
        validation.validate(config)
        assert config.seed == cell.seed and config.data.num_labelled == cell.labelled
        arguments = cell.arguments(Path("../data"), Path("runs") / cell.name)
        assert f"--config.data.dir=../data/{folder}" in arguments
        assert f"--config.seed={cell.seed}" in arguments
        assert f"--workdir=runs/{cell.name}" == arguments[-1]


def test_a_method_does_not_hang_on_defaults(load: Load) -> None:
    module = load("ablation_cells")
    for name, method in module.METHODS.items():
        if name == module.BASELINE:
            assert not method.overrides
            continue
        assert {"target.kernel", "target.count_head", "consistency.weight"} <= set(method.overrides)
        if method.overrides["consistency.weight"]:
            named = {"consistency.perturbation", "consistency.focal"}
            assert named <= set(method.overrides)
        if method.overrides["target.kernel"] == "gaussian":
            assert "target.sigma" in method.overrides
            assert "target.dot_weight" not in method.overrides


@pytest.mark.parametrize(
    ("sigma1", "sigma2", "chosen"),
    [(0.9, 0.95, "gaussian_sigma2"), (0.95, 0.9, "gaussian"), (0.9, 0.9, "gaussian")],
)
def test_training_images_choose_the_sigma(
    load: Load, sigma1: float, sigma2: float, chosen: str
) -> None:
    module = load("ablation_cells")
    both = ("gaussian", "gaussian_sigma2")
    results = {}
    for method, reached in zip(both, (sigma1, sigma2), strict=True):
        cell = module.Cell("vgg", method, 8, 0)
        # The test images say the opposite.
        results[cell.name] = made_up(cell, f1=1 - reached, reached=reached)
    seeds = {(c.method, c.seed) for c in module.cells(results) if c.dataset == "vgg"}
    assert {(m, s) for m, s in seeds if m in both} == {
        *((method, 0) for method in both),
        *((chosen, seed) for seed in (1, 2)),
    }
    alone = {name: r for name, r in results.items() if "sigma2" in name}
    assert module.chosen_gaussian(alone, "vgg", 8) == "gaussian"


class Runner:
    """A fake of `run_cell` that writes made-up results."""

    def __init__(self, load: Load, folders: Any, failing: str = "") -> None:
        self.run_module, self.folders, self.failing = load("ablation_run"), folders, failing
        self.names: list[str] = []
        self.again: list[bool] = []

    def __call__(self, cell: Any, folders: Any, stop: Any, *, again: bool = False) -> Any:
        self.names.append(cell.name)
        self.again.append(again)
        if cell.name == self.failing:
            raise self.run_module.CellFailed("exit status 1")
        folders.results.mkdir(exist_ok=True)
        # Whole or not at all, as the real one does: with two jobs the runner reads meanwhile.
        files.write_json(folders.results / f"{cell.name}.json", made_up(cell))
        return made_up(cell)


ALL = [
    "vgg_difference_of_gaussians_8_0",
    "vgg_inverse_distance_8_0",
    "mbm_focal_last_15_0",
    "vgg_inverse_distance_8_1",
    "mbm_focal_last_15_1",
]


def test_the_runner_does_what_is_missing_in_order(
    load: Load, few: None, folders: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation, stop = load("ablation"), threading.Event()

    def by(runner: Runner) -> Any:
        return dataclasses.replace(ablation.ABLATION, run=runner)

    first = Runner(load, folders, failing=ALL[2])
    assert ablation.run_all(ablation.Selection(), folders, stop, by(first)) == 1
    assert first.names == ALL
    out, errors = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"[0 of 5 done] {ALL[0]}: begins"
    assert lines[1] == f"[1 of 5 done] {ALL[0]}: 2.0 min, test F1 0.9000, MAE 10.0; 4 left"
    assert lines[3].endswith("3 left, about 0.1 h")
    assert errors == f"[2 of 5 done] {ALL[2]}: failed: exit status 1\n"
    second = Runner(load, folders)
    assert ablation.run_all(ablation.Selection(), folders, stop, by(second)) == 0
    assert second.names == [ALL[2]] and second.again == [False]
    third = Runner(load, folders)
    again = ablation.Selection(only=("vgg_inv*",), seeds=(1,))
    assert ablation.run_all(again, folders, stop, by(third), redo=True, jobs=2) == 0
    assert third.names == [ALL[3]] and third.again == [True]


@pytest.fixture
def tiny(
    load: Load,
    config_file_2d: Path,
    cells_2d: Path,
    monkeypatch: pytest.MonkeyPatch,
    folders: Any,
    tmp_path: Path,
) -> tuple[Any, Any]:
    """A cell that runs in seconds, and its folders."""
    module = load("ablation_cells")
    config = config_file_2d.read_text().replace("train.steps = 160", "train.steps = 40")
    (tmp_path / "tiny.py").write_text(config)
    monkeypatch.setitem(module.DATASETS, "tiny", (str(tmp_path / "tiny.py"), "", {}))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    cell = module.Cell("tiny", "inverse_distance", 2, 3)
    return cell, dataclasses.replace(folders, data=cells_2d)


def test_a_real_cell(load: Load, tiny: tuple[Any, Any]) -> None:
    """It trains with its settings, its scores are kept, and it is not run again."""
    cell, folders = tiny
    run = load("ablation_run")
    content = run.run_cell(cell, folders, threading.Event())
    assert json.loads((folders.results / f"{cell.name}.json").read_text()) == content
    scores = json.loads((folders.runs / cell.name / "evaluation" / "metrics.json").read_text())
    assert content["sets"] == scores["sets"] and content["rule"] == "peaks"
    assert content["f1_on_training_images"] == scores["f1_on_training_images"]
    stored = json.loads((folders.runs / cell.name / "config.json").read_text())
    for key, value in cell.overrides.items():
        assert settings.flatten(stored)[key] == value
    assert stored["seed"] == 3 and stored["data"]["num_labelled"] == 2
    assert content["command"].startswith("python -m cellcount_jax.main --config=")
    assert content["machine"]["cores"] >= 1 and content["seconds"] > 0
    with pytest.raises(run.Busy, match="was finished by another"):
        run.run_cell(cell, folders, threading.Event())


def fake_program(monkeypatch: pytest.MonkeyPatch, run: ModuleType, program: str) -> None:
    """Runs another program in the place of the training."""
    cells = importlib.import_module("ablation_cells")
    monkeypatch.setattr(cells.Cell, "arguments", lambda *_: ["-c", program])
    monkeypatch.setattr(run, "machine", lambda: {"cores": 2})


def test_a_cell_of_other_code_or_settings_starts_afresh(
    load: Load, folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load("ablation_run")
    cell = load("ablation_cells").Cell("vgg", "focal_last", 8, 0)
    kept = folders.runs / cell.name / "checkpoint"

    def attempt(program: str, **options: Any) -> bool:
        """Whether the file of the attempt before was still there."""
        fake_program(monkeypatch, run, program)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.touch()
        with pytest.raises(run.CellFailed):
            run.run_cell(cell, folders, threading.Event(), **options)
        return kept.exists()

    assert not attempt("raise SystemExit(1)")  # nothing says of what run it is
    assert attempt("raise SystemExit(1)")
    assert not attempt("raise SystemExit(1)", again=True)
    assert not attempt("raise SystemExit(2)")
    assert attempt("raise SystemExit(2)")
    monkeypatch.setattr(run, "_code", lambda: "another version")
    assert not attempt("raise SystemExit(2)")


def test_a_cell_is_shared_stopped_and_goes_on(
    load: Load, folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second runner leaves it to the first; stopped, it goes on in the same workdir."""
    run, stop = load("ablation_run"), threading.Event()
    cell = load("ablation_cells").Cell("vgg", "focal_last", 8, 0)
    begun = folders.runs / cell.name / "begun"
    program = f"""
import json, pathlib, time
begun = pathlib.Path({str(begun)!r})
if not begun.exists():
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    time.sleep(60)
scores = begun.parent / "evaluation" / "metrics.json"
scores.parent.mkdir()
scores.write_text(json.dumps({made_up(cell)!r}))
"""
    fake_program(monkeypatch, run, program)
    caught: list[type] = []

    def first() -> None:
        try:
            run.run_cell(cell, folders, stop)
        except Exception as error:
            caught.append(type(error))

    thread = threading.Thread(target=first)
    thread.start()
    while thread.is_alive() and not begun.exists():
        time.sleep(0.02)
    with pytest.raises(run.Busy, match="is being run by another"):
        run.run_cell(cell, folders, threading.Event())
    stop.set()
    thread.join(60)
    assert caught == [run.Stopped] and not list(folders.results.glob("*.json"))
    content = run.run_cell(cell, folders, threading.Event())
    assert content["sets"] == made_up(cell)["sets"]


def test_response_is_the_difference_of_gaussians(load: Load) -> None:
    module = load("difference_of_gaussians")
    impulse = np.zeros((41, 61), np.float32)
    impulse[20, 30] = 1
    # Voxels twice as long along y: half as many of them.
    found = module.response(impulse, (6.0, 3.0), sigma=3.0)
    y, x = np.indices(impulse.shape)
    square = (2 * (y - 20)) ** 2 + (x - 30) ** 2

    def gaussian(sigma: float) -> np.ndarray:
        values = np.exp(-square / (2 * sigma**2))
        return values / values.sum()

    expected = gaussian(3.0) - gaussian(4.8)
    np.testing.assert_allclose(found, expected, atol=2e-3 * expected.max())


def test_threshold_of_the_baseline_is_the_best_one(load: Load) -> None:
    """Against all thresholds by hand, at a number of cells where every one is a candidate."""
    module, rng = load("difference_of_gaussians"), np.random.default_rng(0)
    points = np.stack([np.arange(60) * 10.0, np.zeros(60)], axis=1).astype(np.float32)
    true = points[rng.permutation(60)[:12]]
    is_true = (points[:, None] == true).all(-1).any(1)
    values = rng.normal(1.5 * is_true, 1.0)
    sample = Sample("a", np.zeros((600, 1, 1), np.float32), true, (1.0, 1.0))
    found = module.Peaks(sample, points, values)
    _, f1 = module.calibrated([found], 5.0)
    by_hand = []
    for kept in range(math.ceil(0.4 * 12), int(2.5 * 12) + 1):
        tp = is_true[np.argsort(-values)[:kept]].sum()
        by_hand.append(2 * tp / (kept + 12))
    assert f1 == pytest.approx(max(by_hand))


def test_test_images_choose_nothing_in_the_baseline(
    load: Load, config_2d: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("difference_of_gaussians")
    monkeypatch.setattr(module, "SIGMAS", (1.5,))
    dataset = train.load_dataset(config_2d)
    blank = tuple(
        dataclasses.replace(s, image=np.zeros_like(s.image), points=np.zeros((0, 2), np.float32))
        for s in dataset.tests["test"]
    )
    other = dataclasses.replace(dataset, tests={"test": blank})
    assert module.fit(dataset, config_2d) == module.fit(other, config_2d)


def test_regions_and_cells_of_the_baseline(load: Load) -> None:
    module = load("difference_of_gaussians")
    labels = np.zeros((10, 30), np.int32)
    labels[4:7, 3:6], labels[4:7, 20:23] = 1, 2
    valid = np.ones((10, 30), bool)
    valid[:, 15:] = False
    true = np.array([[5, 4], [5, 21]], np.float32)
    sample = Sample(
        "a",
        np.zeros((10, 30, 1), np.float32),
        true,
        (1.0, 1.0),
        valid=valid,
        labels=labels,
    )
    map = np.zeros((10, 30))
    map[5, 8], map[5, 4], map[5, 21], map[1, 1] = 3, 2, 4, 1
    found = module.peaks(sample, map, (1, 1))
    assert sorted(found.scores) == [1, 2, 3]
    scores = scoring.pooled_scores(module.results([found], 1.5, 4.5))
    assert (scores["true"], scores["predicted"]) == (1, 2)
    assert scores["recall"] == 1 and scores["precision"] == 0.5 and scores["mae"] == 1
    assert scores["inside_cell"] == {"precision": 0.5, "recall": 1, "f1": pytest.approx(2 / 3)}
    expected = metrics.match_points(np.array([[5.0, 8], [5, 4]]), true[:1], max_distance=4.5)
    assert scores["f1"] == expected.f1


def table(text: str, title: str) -> dict[str, dict[str, str]]:
    """A table of the report: first column -> title -> text."""
    lines = text[text.index(f"### {title}") :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line[1:-1].split("|")])
    header, _, *body = rows
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


def test_tables(load: Load) -> None:
    module, report = load("ablation_cells"), load("ablation_report")
    plain, focal, full = [0.90, 0.92, 0.97], [0.91, 0.94], 0.85
    results = {}
    for method, scores in (("inverse_distance", plain), ("focal_last", focal)):
        for seed, f1 in enumerate(scores):
            cell = module.Cell("vgg", method, 8, seed)
            results[cell.name] = made_up(cell, f1=f1)
    for cell in (
        module.Cell("cfos", "full_annotation", 1, 0),
        module.Cell("cfos", "difference_of_gaussians", 1, 0),
    ):
        results[cell.name] = made_up(cell, f1=full)
    results["cfos_full_annotation_1_0"]["sets"]["test"]["integral"] = {"mae": 7.25, "rmse": 9.0}
    text = report.as_markdown(results)
    vgg = table(text, "VGG")
    row = vgg["Inverse distance kernel"]
    assert row["F1 peaks"] == f"{statistics.mean(plain):.4f} ± {statistics.stdev(plain):.4f}"
    assert row["MAE"] == f"{100 - 93:.1f} ± {100 * statistics.stdev(plain):.1f}"
    assert row["seeds"] == "3" and row["F1, paired"] == "" and row["minutes"] == "2.0"
    row = vgg["+ focal consistency, feature noise, last level"]
    # Of the two seeds that both have: 0.01 and 0.02.
    assert row["F1, paired"] == "+0.0150 ± 0.0071" and row["seeds"] == "2 of 3"
    assert vgg["Gaussian kernel, sigma 1"]["F1 peaks"] == "not run"
    assert "MAE by integral" not in row
    assert vgg["The paper, quoted, 8 labelled"]["F1 components"] == "0.9678"
    assert vgg["SAU-Net, quoted, 64 labelled"]["MAE"] == "2.6"
    across = table(text, "c-Fos across brains")
    assert across["Full annotation"]["F1 by distance"] == "0.8500"
    assert across["Full annotation"]["F1 inside the cell"] == "0.7500"
    assert across["Full annotation"]["MAE by integral"] == "7.2"
    assert across["Difference of Gaussians"]["MAE by integral"] == ""
    assert "MAE by integral" not in table(text, "c-Fos in the same brain")["Full annotation"]
    assert "intensities 'log'" in text and "other data" in text.lower()
    curve = table(text, "How many labelled images?")
    assert curve["8"]["seeds"] == "3, 2" and curve["1"]["F1, inverse distance kernel"] == "not run"


def test_only_the_marked_part_of_the_document_changes(load: Load, tmp_path: Path) -> None:
    report = load("ablation_report")
    path, results = tmp_path / "RESULTS.md", tmp_path / "results" / "ablation"
    path.write_text("# Results\n\nBefore.\n")
    report.publish(results, path)
    first = path.read_text()
    assert first.startswith(f"# Results\n\nBefore.\n\n{report.BEGIN}\n## Ablation")
    assert first.endswith(f"{report.END}\n") and "not run" in first
    path.write_text(first.replace("## Ablation", "## Old") + "\nAfter.\n")
    report.publish(results, path)
    assert path.read_text() == first + "\nAfter.\n"
    with pytest.raises(ValueError, match="only one of the two markers"):
        report.inserted(f"text {report.BEGIN}", "new")
