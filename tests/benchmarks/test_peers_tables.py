"""The tables of the comparison with other programs, and how their speeds are put side by side."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SHAPE = (4, 48, 72)

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a script of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module


class StandIn:
    """A program that takes as long as it is told to."""

    SECONDS: Mapping[str, list[float]] = {
        "peer_cellcount.py": [9.0, 4.0, 2.0, 6.0],
        "peer_cellfinder.py": [9.0, 8.0, 1.0, 6.0],
    }
    order: list[str]

    def __init__(self, python: str, script: Path, **_: Any) -> None:
        self.name, self.first, self.peak = script.name, 9.5, 2_000_000_000
        self.left = list(self.SECONDS.get(script.name, []))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, request: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        assert np.load(request["volume"]).shape == SHAPE
        if not self.left:
            raise importlib.import_module("peers_worker").Failed("no memory")
        StandIn.order.append(self.name)
        return {"seconds": self.left.pop(0), "cpu_seconds": 3.0, "cells": 5}


def test_speeds_are_compared_turn_by_turn(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed, cells = load("peers_speed"), load("peers_cells")
    place = load("peers_environments").Environment("python", {"cellfinder": "1.10.1"})
    monkeypatch.setattr(speed, "_REST_S", 0.0)
    StandIn.order = []
    chosen = {"cellfinder": {"soma_diameter": 12.0}, "spotiflow": {"model": "mine"}}
    cell = cells.Speed("cfos", 2)
    content = speed.run(
        cell,
        speed.sides("cfos", chosen),
        dict.fromkeys(cells.METHODS, place),
        np.zeros(SHAPE, np.uint16),
        (6.0, 2.0, 2.0),
        repeats=3,
        folder=tmp_path / "speed",
        root=ROOT,
        start=StandIn,
    )
    assert content["failed"] == {"spotiflow": "no memory"}
    ours, other = content["rows"]["cellcount"], content["rows"]["cellfinder"]
    assert ours["seconds"] == 4.0 and other["seconds"] == 6.0  # the first calls compile
    assert other["speed_to_ours"] == 1.0  # of 0.5, 2 and 1
    assert StandIn.order[2:] == ["peer_cellcount.py", "peer_cellfinder.py"] * 3
    for row in content["rows"].values():
        row["versions"] = place.versions
    result = {**dataclasses.asdict(cell), **content, "machine": {"processor": "a processor"}}
    table = load("peers_report").as_markdown({cell.name: json.loads(json.dumps(result))})
    size = math.prod(SHAPE) / 1e6
    line = f"cellfinder 1.10.1, detection | 2 | {size / 6:.3g} | 1.00 | {3 / size:.3g} | 10 | 2.00"
    assert line in table
    assert "Spotiflow, in 3D: not run: no memory." in table and "a processor" in table


def test_the_fast_count_is_timed_where_it_is_not_the_default(load: Load) -> None:
    sides = load("peers_speed").sides
    assert list(sides("cfos", {})) == ["cellcount"]
    assert list(sides("microglia", {})) == ["cellcount", "cellcount_fast"]


def test_the_table_has_the_scores_and_what_was_chosen(load: Load) -> None:
    report, cells = load("peers_report"), load("peers_cells")
    cell = cells.Score("microglia", "spotiflow")
    result = {
        "settings": {"model": cells.SPOTIFLOW_MODEL, "prob_thresh": 0.05},
        "threshold": 0.375,
        "f1_on_training_volumes": 0.9,
        "candidates": [
            {"settings": {"model": cells.SPOTIFLOW_MODEL, "prob_thresh": 0.05}, "f1": 0.9},
            {"settings": {"model": "synth_3d", "prob_thresh": 0.05}, "failed": "no address"},
        ],
        "training": {"steps": 300, "seconds": 900, "cpu_seconds": 1700, "parameters": 35e6},
        "versions": {"spotiflow": "0.6.5"},
        "load": [1.0, 2.0],
        "sets": {
            "test": {
                **{"f1": 0.8, "precision": 0.75, "recall": 0.857, "mae": 12.5},
                "volumes": [{"name": "2248", "f1": 0.8, "found": 300, "true": 314}],
            }
        },
    }
    learned = {
        f"microglia_inverse_distance_1_{seed}": {
            **{"rule": "peaks", "seconds": 300},
            "sets": {"test": {"peaks": {"f1": 0.9 + seed / 100}}},
        }
        for seed in range(2)
    }
    text = report.as_markdown({cell.name: result}, ablation=learned)
    assert "F1 over seeds): microglia, test volumes, 0.905 ± 0.007 (5 minutes)" in text
    row = "| Spotiflow 0.6.5, in 3D | 0.800 | 0.750 | 0.857 | 12.5 | 300 of 314 | 0.900 |"
    assert row in text
    assert "threshold 0.38" in text or "threshold 0.37" in text
    assert "300 steps of 4 crops in 15 minutes" in text
    assert "synth_3d, which it downloads: not run (no address)" in text
    assert "| microglia, test volumes, 12 um | cellcount_jax, as bundled | not run |" in text
