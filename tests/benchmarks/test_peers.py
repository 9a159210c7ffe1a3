"""The comparison with other programs, by stand-ins: what chooses, what is left out, the tables."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cellcount_jax.data.sample import Sample
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points

ROOT = Path(__file__).parents[2]
SPACING = (6.0, 2.0, 2.0)
SHAPE = (4, 24, 24)
DOTS = np.array([[1, 4, 4], [2, 12, 18], [3, 20, 8]], np.float32)

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a script of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module


@pytest.fixture
def dataset(load: Load, tmp_path: Path) -> Any:
    """A data set of files: two training volumes and a test volume, the same three cells in each."""
    for name in ("train/a", "train/b", "test/c"):
        file = tmp_path / "set" / f"{name}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(100, 200, SHAPE).astype(np.uint16)
        write_image(file, pixels[..., None], spacing=SPACING)
        write_points(file.with_suffix(".csv"), DOTS)
    return load("peers_cells").Dataset(
        title="made up",
        folder="set",
        spacing=SPACING,
        max_distance=5.0,
        train=(("train/a", ""), ("train/b", "0:16")),
        tests={"test": (("test/c", ""),)},
        held_back=(2, 16),
        speed=("train/a", (1, 2, 3)),
    )


def found(points: np.ndarray, scores: float = 1.0) -> np.ndarray:
    return np.column_stack([points, np.full(len(points), scores)])


def test_the_test_volumes_choose_nothing(load: Load, dataset: Any, tmp_path: Path) -> None:
    scores, method = load("peers_scores"), load("peers_cells").METHODS["cellfinder"]
    asked: list[tuple[str, str]] = []
    # 'good' is right on training volumes, 'tempting' on the test volume alone.
    right = {"good": {"a", "b"}, "tempting": {"c"}, "poor": set()}

    def find(sample: Sample, settings: Mapping[str, Any]) -> np.ndarray:
        asked.append((sample.name, settings["which"]))
        return found(DOTS if sample.name in right[settings["which"]] else DOTS[:1])

    candidates = [{"which": name} for name in ("poor", "good", "tempting")]
    result = scores.run(dataset, method, candidates, find, tmp_path)
    assert result["settings"] == {"which": "good"} and result["threshold"] is None
    assert result["f1_on_training_volumes"] == 1.0
    # All choosing comes first, and the test volume is seen with what was chosen alone.
    assert asked[-1] == ("c", "good") and sum(name == "c" for name, _ in asked) == 1
    # One of three is found, and is right: F1 = 2 / (2 + 2).
    assert result["sets"]["test"]["f1"] == pytest.approx(0.5)
    assert result["sets"]["test"]["mae"] == 2
    assert result["sets"]["test"]["volumes"][0]["found"] == 1


def test_only_the_rows_that_count_choose(load: Load, dataset: Any, tmp_path: Path) -> None:
    scores, method = load("peers_scores"), load("peers_cells").METHODS["cellfinder"]
    beyond = np.array([[0, 22, 2], [1, 23, 20]])  # y >= 16: dots are unknown there in b

    def find(sample: Sample, _: Any) -> np.ndarray:
        return found(np.concatenate([DOTS, beyond]) if sample.name == "b" else DOTS)

    result = scores.run(dataset, method, [{}], find, tmp_path)
    assert result["f1_on_training_volumes"] == 1.0


def test_a_threshold_is_chosen_of_scores(load: Load, dataset: Any, tmp_path: Path) -> None:
    scores, method = load("peers_scores"), load("peers_cells").METHODS["spotiflow"]
    false = np.array([[0, 12, 4], [1, 20, 20], [3, 2, 20]])

    def find(sample: Sample, _: Any) -> np.ndarray:
        # The test volume is fainter: a threshold of its own would find all of it.
        bright = 0.3 if sample.name == "c" else 0.8
        return np.concatenate([found(DOTS, bright), found(false, 0.4)])

    result = scores.run(dataset, method, [{}], find, tmp_path)
    assert 0.4 <= result["threshold"] < 0.8 and result["f1_on_training_volumes"] == 1.0
    assert result["sets"]["test"]["volumes"] == [{"name": "c", "f1": 0.0, "found": 0, "true": 3}]


def test_settings_that_a_program_cannot_do_are_named(
    load: Load, dataset: Any, tmp_path: Path
) -> None:
    scores, worker = load("peers_scores"), load("peers_worker")
    method = load("peers_cells").METHODS["cellfinder"]

    def find(_: Sample, settings: Mapping[str, Any]) -> np.ndarray:
        if settings["model"] == "far":
            raise worker.Failed("no address")
        return found(DOTS)

    result = scores.run(dataset, method, [{"model": "far"}, {"model": "near"}], find, tmp_path)
    assert result["settings"] == {"model": "near"}
    assert result["candidates"][0] == {"settings": {"model": "far"}, "failed": "no address"}
    with pytest.raises(worker.Failed, match="no address"):
        scores.run(dataset, method, [{"model": "far"}], find, tmp_path)


def test_a_program_that_cannot_be_installed_is_left_out_with_the_reason(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers, places = load("peers"), load("peers_environments")
    method = load("peers_cells").METHODS["cellfinder"]

    def no_index(command: list[str], **_: Any) -> Any:
        failed = "pip" in command
        text = "noise\nERROR: No matching distribution found for cellfinder==1.10.1\n"
        return subprocess.CompletedProcess(command, int(failed), "", text if failed else "")

    with pytest.raises(places.NotInstalled, match=r"No matching distribution .* cellfinder"):
        places.prepare("cellfinder", method, tmp_path, run=no_index)

    def prepare(name: str, *_: Any) -> Any:
        raise places.NotInstalled(f"no {name} here")

    monkeypatch.setattr(peers, "prepare", prepare)
    monkeypatch.setattr(peers, "machine", lambda: {"processor": "one"})
    peers.environment.cache_clear()
    cell = load("peers_cells").Score("cfos", "cellfinder")
    folders = peers.Folders(tmp_path, tmp_path / "results", tmp_path / "runs", tmp_path)
    peers.run(cell, folders, minutes=1, repeats=1)
    results = {cell.name: json.loads((tmp_path / "results" / f"{cell.name}.json").read_text())}
    assert results[cell.name]["not_run"] == "no cellfinder here"
    # It is tried again another time, and stands in the table.
    assert not peers._finished(results, cell)
    table = load("peers_report").as_markdown(results)
    assert "| c-Fos, test volumes, 8 um | cellfinder, detection | not run: no cellfinder" in table


def test_other_versions_than_the_pinned_ones_are_refused(load: Load, tmp_path: Path) -> None:
    places, method = load("peers_environments"), load("peers_cells").METHODS["cellfinder"]
    versions = {"python": "3", "cellfinder": "1.9.0", "torch": "2.13.0+cpu", "numpy": "2"}

    def run(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, json.dumps(versions), "")

    with pytest.raises(places.NotInstalled, match=r"cellfinder 1\.9\.0 is there instead of 1\.10"):
        places.prepare("cellfinder", method, tmp_path, run=run)
    versions["cellfinder"] = "1.10.1"
    assert places.prepare("cellfinder", method, tmp_path, run=run).versions == versions


def test_a_program_answers_by_lines_and_its_memory_is_seen(
    load: Load, dataset: Any, tmp_path: Path
) -> None:
    worker, programs = load("peers_worker"), load("peers_programs")
    sample = load("transfer").read_sample(tmp_path / "set" / "test" / "c.tif")
    script = tmp_path / "peer.py"
    script.write_text(
        f"import os, sys, time; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "from peer_loop import serve\n"
        "def find(volume, spacing, settings):\n"
        "    print('this is no answer')\n"
        "    if settings['act'] == 'die': os._exit(3)\n"
        "    if settings['act'] == 'fail': raise ValueError('cannot')\n"
        "    assert volume.shape == (4, 24, 24) and spacing[0] == 6 and settings['size'] == 1\n"
        "    time.sleep(settings.get('wait', 0))\n"
        "    return [[0, 30, 4, 0.5]]\n"
        "serve(find)\n"
    )
    log = tmp_path / "log.txt"
    with worker.Worker(sys.executable, script, log=log, cores=1, root=ROOT) as running:
        find = programs.asking(running, tmp_path / "kept", small={"size": 1})
        points = find(sample, {"act": "find"})
        # The place beyond the volume is its last voxel.
        np.testing.assert_allclose(points, [[0, 23, 4, 0.5]])
        assert running.first > 0 and running.peak == 0
        volume = {"volume": str(tmp_path / "kept" / "c.npy"), "spacing": SPACING}
        settings = {"act": "find", "size": 1, "wait": 0.5}
        assert running.ask({**volume, "settings": settings}, watch=True)["seconds"] >= 0.5
        assert running.peak > 5e6
        with pytest.raises(worker.Failed, match="ValueError: cannot"):
            find(sample, {"act": "fail"})
        with pytest.raises(worker.Failed, match="ended"):
            find(sample, {"act": "die"})
    # What was found is kept: the process is not asked again.
    np.testing.assert_array_equal(find(sample, {"act": "find"}), points)
    assert "this is no answer" in log.read_text()


def test_a_volume_is_repeated_for_the_speed(load: Load, dataset: Any, tmp_path: Path) -> None:
    values = load("peers_speed").volume(dataset, tmp_path)
    assert values.shape == (4, 48, 72) and values.dtype == np.uint16
    np.testing.assert_array_equal(values[:, :24, :24], values[:, 24:, 48:])


def test_what_a_network_validates_on_is_held_back(load: Load, dataset: Any, tmp_path: Path) -> None:
    programs = load("peers_programs")
    script = tmp_path / "train.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "wanted = json.loads(pathlib.Path(sys.argv[1]).read_text())\n"
        "pathlib.Path(wanted['model'], 'trained.json').write_text(json.dumps({'steps': 7}))\n"
    )
    work = tmp_path / "work"
    work.mkdir()

    def train() -> Any:
        return programs.train_spotiflow(
            dataset, sys.executable, script, tmp_path, work, minutes=1.0
        )

    assert train()["steps"] == 7
    script.write_text("raise SystemExit(1)")
    assert train()["steps"] == 7  # there is a network already
    parts = {p: np.load(work / f"b_{p}.npz") for p in ("train", "validation")}
    assert parts["train"]["image"].shape == (4, 16, 16)
    assert parts["validation"]["image"].shape == (4, 16, 8)
    np.testing.assert_array_equal(parts["train"]["points"], [[1, 4, 4]])
    np.testing.assert_array_equal(parts["validation"]["points"], [[2, 12, 2]])


def test_every_cell_has_its_own_name_and_speeds_come_last(load: Load) -> None:
    cells = load("peers_cells")
    every = list(cells.cells())
    assert len({cell.name for cell in every}) == len(every) == 2 * len(cells.METHODS) + 4
    kinds = [isinstance(cell, cells.Speed) for cell in every]
    assert kinds == sorted(kinds)
    for dataset in cells.DATASETS.values():
        train = {name for name, _ in dataset.train}
        assert all(name not in train for name, _ in dataset.tests["test"])
