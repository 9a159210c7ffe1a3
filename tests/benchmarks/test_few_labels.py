"""Few labelled images: which cells there are, what each reads, and the tables."""

from __future__ import annotations

import dataclasses
import importlib
import json
import runpy
import statistics
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cellcount_jax import config as settings
from cellcount_jax import validation
from cellcount_jax.data import datasets
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a script of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module


def config_of(module: ModuleType, cell: Any) -> Any:
    """The settings that a cell is run with."""
    config = runpy.run_path(str(ROOT / module.SOURCES[cell.dataset].config))["get_config"]("")
    before = settings.flatten(config.to_dict())
    for key, value in cell.overrides.items():
        assert key in before and type(value) is type(before[key]), key
    config.update_from_flattened_dict(cell.overrides)
    return config


def made_up(cell: Any, *, peaks: float, components: float, best: str = "components") -> Any:
    """A result like those of the runner."""
    scores = {
        "peaks": {"f1": peaks, "mae": 100 * (1 - peaks)},
        "components": {"f1": components, "mae": 100 * (1 - components)},
    }
    result = {
        **dataclasses.asdict(cell),
        "rule": "peaks",
        "f1_on_training_images": {"peaks": 0.9, "components": 0.8, best: 0.95, "fidt": None},
        "sets": {"test": scores},
        "seconds": 120.0,
        "commit": "abcdef1",
        "machine": {"cores": 2, "device": "cpu"},
    }
    return json.loads(json.dumps(result))


@pytest.mark.parametrize("part", ["test", "develop"])
def test_every_cell_is_a_valid_run(load: Load, part: str) -> None:
    module = load("few_labels_cells")
    every = list(module.cells(part=part))
    methods = len(module.METHODS)
    # Two sets with four numbers, 3 draws and 3 seeds, and all labelled; two with one number.
    assert len({cell.name for cell in every}) == len(every) == methods * (2 * 36 + 6) + 6
    for cell in every:
        config = config_of(module, cell)
        validation.validate(config)
        assert config.seed == cell.seed and config.data.num_labelled == cell.labelled
        assert config.data.calibration_share == 0
        assert cell.arguments(Path("data"), Path("runs") / cell.name)[-1].endswith(cell.name)
    # The spread over draws and seeds is known from the first nine of a row's cells.
    row = [
        (c.draw, c.seed)
        for c in every
        if (c.dataset, c.method, c.labelled) == ("nuclei2d", "paper", 10)
    ]
    assert row[:3] == [(0, 0), (1, 1), (2, 2)] and len(set(row)) == 9


def test_methods_write_down_the_loss(load: Load) -> None:
    module = load("few_labels_cells")
    for method in module.METHODS.values():
        assert {"target.kernel", "consistency.weight"} <= set(method.overrides)
        if method.overrides["consistency.weight"]:
            named = {"consistency.perturbation", "consistency.focal"}
            assert named <= set(method.overrides)


@pytest.fixture
def nuclei(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of data with 12 training images of nuclei2d, and 3 test images."""
    monkeypatch.setattr(load("few_labels_images"), "_DEVELOP_NUCLEI", 4)
    rng = np.random.default_rng(0)
    for part, number in (("train", 12), ("test", 3)):
        folder = tmp_path / "data" / "nuclei2d" / part
        folder.mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(0, 255, (40, 40)).astype(np.uint8)
            write_image(folder / f"{part}{i:02}.tif", pixels)
            write_image(folder / f"{part}{i:02}_labels.tif", np.zeros((40, 40), np.uint16))
            write_points(folder / f"{part}{i:02}.csv", np.array([[9.0, i]], np.float32))
    return tmp_path / "data"


def names(dataset: Any) -> tuple[set[str], set[str], set[str]]:
    """Of the labelled, unlabelled and test images."""
    parts = (dataset.labelled, dataset.unlabelled, dataset.tests["test"])
    return tuple({sample.name for sample in part} for part in parts)  # type: ignore[return-value]


def test_labels_that_choose_are_in_no_draw(load: Load, nuclei: Path, tmp_path: Path) -> None:
    """What is read: nested draws, a fixed part for choosing, test images only at the end."""
    module, images = load("few_labels_cells"), load("few_labels_images")

    def read(labelled: int, draw: int, part: str) -> tuple[set[str], set[str], set[str]]:
        cell = module.Cell("nuclei2d", "paper", labelled, draw, 0, part)
        images.prepare(cell, nuclei, tmp_path / "runs" / module.IMAGES)
        config = config_of(module, cell)
        argument = cell.arguments(nuclei, tmp_path / "runs" / cell.name)[3]
        config.data.dir = argument.removeprefix("--config.data.dir=")
        return names(datasets.load(config.data, seed=0))

    every = {f"train{i:02}" for i in range(12)}
    tests = {f"test{i:02}" for i in range(3)}
    labelled, unlabelled, develop = read(2, 0, "develop")
    assert len(labelled) == 2 and len(develop) == 4
    assert labelled | unlabelled | develop == every
    assert not labelled & develop and not unlabelled & develop
    assert read(2, 0, "test") == (labelled, every - labelled, tests)
    more, _, same = read(5, 0, "develop")
    assert labelled < more and same == develop
    other, _, same = read(5, 1, "develop")
    assert other != more and same == develop
    assert read(module.ALL, 0, "test") == (every, set(), tests)
    assert read(module.ALL, 0, "develop") == (every - develop, set(), develop)
    # The resampled set has the same draws.
    cells = [module.Cell(name, "paper", 5, 0, 0) for name in ("nuclei2d", "nuclei2d_sized")]
    assert cells[0].images == cells[1].images != ""


def test_a_folder_of_links_is_made_anew_where_it_is_wrong(
    load: Load, nuclei: Path, tmp_path: Path
) -> None:
    module, images = load("few_labels_cells"), load("few_labels_images")
    cell = module.Cell("nuclei2d", "paper", 2, 0, 0)
    folder = tmp_path / cell.images

    def prepared() -> dict[str, str]:
        images.prepare(cell, nuclei, tmp_path)
        return {p.name: str(p.readlink()) for p in folder.rglob("*") if p.is_symlink()}

    right = prepared()
    made = folder.stat().st_ino
    assert prepared() == right and folder.stat().st_ino == made
    unlabelled = next(p for p in sorted(folder.glob("*.tif")) if not p.with_suffix(".csv").exists())
    unlabelled.with_suffix(".csv").symlink_to(nuclei / "nuclei2d" / "train" / "train00.csv")
    assert prepared() == right
    moved = nuclei.rename(tmp_path / "moved")
    images.prepare(cell, moved, tmp_path)
    assert all(p.exists() for p in folder.rglob("*"))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("dataset", "labelled", "numbers"),
    [("vgg", 8, (8, 52, 40)), ("microglia", 1, (1, 8, 1))],
)
def test_public_sets_without_their_test_images(
    load: Load, tmp_path: Path, dataset: str, labelled: int, numbers: tuple[int, int, int]
) -> None:
    """The labelled images are those of the set itself, the others are of its training images."""
    module, images = load("few_labels_cells"), load("few_labels_images")
    read = {}
    for part in ("test", "develop"):
        cell = module.Cell(dataset, "paper", labelled, 0, 0, part)
        images.prepare(cell, DATA, tmp_path / "runs" / module.IMAGES)
        config = config_of(module, cell)
        argument = cell.arguments(DATA, tmp_path / "runs" / cell.name)[3]
        config.data.dir = argument.removeprefix("--config.data.dir=")
        read[part] = datasets.load(config.data, seed=0)
    ours, test = names(read["develop"]), names(read["test"])
    assert tuple(map(len, ours)) == numbers
    assert ours[0] == test[0] and ours[1] | ours[2] == test[1]
    of_set = {sample.name: sample for sample in read["test"].labelled}
    for sample in read["develop"].labelled:
        np.testing.assert_array_equal(sample.image, of_set[sample.name].image)
        np.testing.assert_array_equal(sample.points, of_set[sample.name].points)
        assert sample.spacing == of_set[sample.name].spacing


def test_the_runner_makes_the_folder_first(
    load: Load, nuclei: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell fails here, as nothing can be trained on these images, and is one of `ablation.py`."""
    benchmark, cells = load("few_labels"), load("few_labels_cells")
    folders = load("ablation_run").Folders(nuclei, tmp_path / "results", tmp_path / "runs")
    seen: list[tuple[str, int]] = []

    def run_cell(cell: Any, folders: Any, stop: Any, *, again: bool) -> Any:
        folder = folders.runs / "images" / cell.images
        seen.append((cell.name, len(list(folder.glob("*.csv")))))
        result = made_up(cell, peaks=0.5, components=0.75)
        folders.results.mkdir(exist_ok=True)
        (folders.results / f"{cell.name}.json").write_text(json.dumps(result))
        return result

    monkeypatch.setattr(benchmark, "run_cell", run_cell)
    ablation = load("ablation")
    chosen = ablation.Selection(only=("nuclei2d_supervised_5_*",), seeds=(1,))
    experiment = benchmark.experiment("test")
    stop = threading.Event()
    assert ablation.run_all(chosen, folders, stop, experiment) == 0
    assert seen == [(f"nuclei2d_supervised_5_{draw}_1", 5) for draw in (1, 2, 0)]
    assert ablation.run_all(chosen, folders, stop, experiment) == 0 and len(seen) == 3
    result = made_up(cells.Cell("nuclei2d", "paper", 5, 0, 0), peaks=0.5, components=0.75)
    assert ablation.outcome(result, experiment) == "2.0 min, test F1 0.7500, MAE 25.0"
    listed = ablation.listing(chosen, {}, benchmark.experiment("develop"), redo=False, jobs=1)
    assert listed.splitlines()[0] == "to do  nuclei2d_supervised_5_1_1_develop"


def tables(text: str, title: str) -> list[list[list[str]]]:
    """The tables below a heading."""
    part = text[text.index(f"### {title}") :].split("\n### ", 2)[0].split("### ")[1]
    found = []
    for block in part.split("\n\n"):
        if block.startswith("|"):
            rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
            found.append([rows[0], *rows[2:]])
    return found


def test_tables_and_figure(load: Load, tmp_path: Path) -> None:
    module, report = load("few_labels_cells"), load("few_labels_report")
    plain, paper = [0.70, 0.72, 0.77], [0.80, 0.84]
    results = {}
    for method, reached in (("supervised", plain), ("paper", paper)):
        for seed, f1 in enumerate(reached):
            cell = module.Cell("nuclei2d", method, 10, seed, seed)
            results[cell.name] = made_up(cell, peaks=0.6, components=f1)
    # Training images say peaks, the test images the opposite.
    cell = module.Cell("nuclei2d", "supervised", module.ALL, 0, 0)
    results[cell.name] = made_up(cell, peaks=0.88, components=0.89, best="peaks")
    cell = module.Cell("vgg", "paper", 8, 0, 2, "develop")
    results[cell.name] = made_up(cell, peaks=0.97, components=0.9, best="peaks")
    results[cell.name]["sets"]["test"]["integral"] = {"mae": 3.25}
    text = report.as_markdown(results, figure="results/few_labels.png")
    scores, paired, rules = tables(text, "Scored on the test images")
    assert scores[0] == ["images", "method", "10 labelled", "all", "minutes"]
    mean, deviation = statistics.mean(plain), statistics.stdev(plain)
    row = f"{mean:.3f} ± {deviation:.3f}, MAE {100 - 100 * mean:.1f} ± {100 * deviation:.1f}"
    assert scores[1][1:3] == ["labelled images alone", f"{row} (3 of 9)"]
    assert scores[1][3] == "0.880, MAE 12.0 (1 of 3)" and scores[1][4] == "2.0"
    assert scores[2][1] == "the paper's focal consistency" and scores[2][3] == ""
    # Of the draws and seeds that both have: 0.10 and 0.12.
    assert [row[2] for row in paired[1:]] == ["+0.110 ± 0.014"]
    assert rules[1][2].startswith("0.600 ± 0.000 / 0.730")
    scores, _, rules = tables(text, "Scored on training images")
    assert scores[1][:3] == ["VGG", "the paper's focal consistency", "0.970, MAE 3.0 (1 of 3)"]
    assert rules[1][2] == "0.970 / 0.900; 3.2"
    panel = report.panels(results)[0]
    assert panel.curves["labelled images alone"] == {10: plain}
    assert panel.level == ("all images labelled", 0.88)
    assert report.as_markdown({}).endswith("No cell is run.")


def test_only_the_marked_part_of_the_document_changes(load: Load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    module, report = load("few_labels_cells"), load("few_labels_report")
    path, results = tmp_path / "RESULTS.md", tmp_path / "results" / "few_labels"
    results.mkdir(parents=True)
    for labelled in (5, 10):
        cell = module.Cell("nuclei2d", "paper", labelled, 0, 0)
        content = made_up(cell, peaks=0.6, components=0.7)
        (results / f"{cell.name}.json").write_text(json.dumps(content))
    ablation = "<!-- ablation: begin -->\nA\n<!-- ablation: end -->\n"
    path.write_text(ablation)
    assert report.publish(results, path) == f"{path}, {tmp_path / 'results' / 'few_labels.png'}"
    first = path.read_text()
    assert first.startswith(f"{ablation}\n{report.BEGIN}\n## Few") and first.endswith(
        report.END + "\n"
    )
    assert "](results/few_labels.png)" in first
    path.write_text(first + "\nAfter.\n")
    report.publish(results, path)
    assert path.read_text() == first + "\nAfter.\n"
