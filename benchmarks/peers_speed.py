"""The programs of `peers.py` in turn on one volume: how fast, and with how much memory."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from peers_cells import FAST, METHODS, OURS, Dataset, Settings, Speed, path_of
from peers_environments import Environment
from peers_programs import pixels
from peers_worker import Failed, Worker
from transfer import read_sample

_REST_S = 0.5  # threads of the one may look for work a little longer


def sides(dataset: str, chosen: Mapping[str, Settings]) -> dict[str, tuple[str, Settings]]:
    """What is timed: name -> method and settings.

    Args:
      dataset: its name.
      chosen: method -> the settings that its training volumes chose, of those that were run.
    """
    ours = METHODS[OURS].candidates[dataset][0]
    found: dict[str, tuple[str, Settings]] = {OURS: (OURS, ours)}
    if ours["model"] == "microglia3d":  # the mean over mirror images is its default
        found[f"{OURS}_fast"] = (OURS, {**ours, **FAST})
    peers = [name for name, method in METHODS.items() if method.requirements]
    return found | {name: (name, chosen[name]) for name in peers if name in chosen}


def volume(dataset: Dataset, data: Path) -> np.ndarray:
    """A real volume repeated to some megavoxels, `(z, y, x)` uint16."""
    name, times = dataset.speed
    return np.tile(pixels(read_sample(path_of(data, dataset, name))), times)


def run(
    cell: Speed,
    wanted: Mapping[str, tuple[str, Settings]],
    environments: Mapping[str, Environment],
    values: np.ndarray,
    spacing: tuple[float, ...],
    *,
    repeats: int,
    folder: Path,
    root: Path,
    start: Any = Worker,
) -> dict[str, Any]:
    """Seconds of each program, call by call, in turn, after one call that compiles.

    Args:
      cell: on how many cores.
      wanted: see `sides`.
      environments: method -> where it is installed.
      values: the volume.
      spacing: of it, in um.
      repeats: timed calls of each.
      folder: for the volume and logs.
      root: the repository.
      start: `Worker`, or for a test what takes its place.

    Raises:
      Failed: ours failed; another program that fails is left out, with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{cell.name}.npy"
    np.save(file, values)
    rows: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, (method, settings) in wanted.items():
            request = {"volume": str(file), "spacing": list(spacing), "settings": dict(settings)}
            worker = start(
                environments[method].python,
                root / "benchmarks" / METHODS[method].script,
                log=folder / f"{cell.name}_{name}.log",
                cores=cell.cores,
                root=root,
            )
            worker = stack.enter_context(worker)
            try:
                # One after the other: they would slow each other's start.
                worker.ask(request, watch=True)
            except Failed as error:
                if name == OURS:
                    raise
                failed[name] = str(error)
                continue
            workers[name] = (worker, request)
            rows[name] = {
                "method": method,
                "settings": dict(settings),
                "first_s": worker.first,
                "calls": [],
            }
        for _ in range(repeats):
            for name, (worker, request) in workers.items():
                time.sleep(_REST_S)
                load = os.getloadavg()[0]
                rows[name]["calls"].append({**worker.ask(request), "load": load})
        for name, (worker, _) in workers.items():
            rows[name]["peak_bytes"] = worker.peak
    return {
        "megavoxels": values.size / 1e6,
        "cores": cell.cores,
        "rows": {name: {**row, **_summary(row, rows[OURS])} for name, row in rows.items()},
        "failed": failed,
    }


def _summary(row: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float]:
    """Medians, and the median over the calls of how much longer ours took in the same turn."""
    pairs = zip(row["calls"], ours["calls"], strict=True)
    return {
        "seconds": statistics.median(call["seconds"] for call in row["calls"]),
        "cpu_seconds": statistics.median(call["cpu_seconds"] for call in row["calls"]),
        "speed_to_ours": statistics.median(o["seconds"] / c["seconds"] for c, o in pairs),
    }
