"""Against other programs for cells in volumes: F1, megavoxels a second and memory, in one run.

Run it from the repository's root:

    python benchmarks/peers.py
    python benchmarks/peers.py --only='speed_*' --redo     # the speed alone, on a quiet machine
    python benchmarks/peers.py --dry-run

Each program has an environment of its own in --runs, with the versions of `peers_cells.py`; it is
made where it is missing (`--environments` names those that are there), and a program that cannot
be installed is left out, with the reason in the table. A cell is a program on a data set, or all
programs in turn on one volume; its result is a file in results/peers/, and a cell that has one is
not run again. Settings are chosen on the training volumes; the test volumes are only scored.
Spotiflow's network is trained here, for --minutes on each of the two data sets; the rest takes
about as long. At the end the tables go into RESULTS.md (`peers_report.py`); --report does only
that.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import functools
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peers_programs
import peers_report
import peers_scores
import peers_speed
from ablation_cells import load_results
from ablation_run import ROOT, git_commit, machine
from peers_cells import DATASETS, METHODS, SPOTIFLOW_MODEL, Score, Settings, Speed, cells
from peers_environments import Environment, NotInstalled, prepare
from peers_worker import Failed, Worker

from cellcount_jax.images import files

Cell = Score | Speed


@dataclasses.dataclass(frozen=True)
class Folders:
    """Of images, results, what the runs leave, and the environments."""

    data: Path
    results: Path
    runs: Path
    environments: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    relative = "(relative to the repository's root: %(default)s)"
    parser.add_argument("--data", type=Path, default="../shared/data", help=f"images {relative}")
    parser.add_argument("--results", type=Path, default="results/peers", help=f"JSON {relative}")
    parser.add_argument("--runs", type=Path, default="runs/peers", help=f"models, logs {relative}")
    parser.add_argument("--environments", type=Path, help="a folder each (default: in --runs)")
    parser.add_argument("--tables", type=Path, default="RESULTS.md", help=f"Markdown {relative}")
    parser.add_argument("--only", default="", help="patterns of names of cells, with commas")
    parser.add_argument("--redo", action="store_true", help="run those of --only again")
    parser.add_argument("--minutes", type=float, default=15.0, help="training of Spotiflow (15)")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each program (3)")
    parser.add_argument("--dry-run", action="store_true", help="only list the cells")
    parser.add_argument("--report", action="store_true", help="only write the tables")
    options = parser.parse_args(arguments)
    if options.redo and not options.only:
        parser.error("--redo: name the cells that are to run again with --only")
    patterns = [text for text in options.only.split(",") if text]
    wanted = [
        cell
        for cell in cells()
        if not patterns or any(fnmatch.fnmatchcase(cell.name, text) for text in patterns)
    ]
    if not wanted:
        parser.error("--only: there is no such cell")
    runs = ROOT / options.runs
    environments = (ROOT / options.environments) if options.environments else runs / "environments"
    folders = Folders(ROOT / options.data, ROOT / options.results, runs, environments)
    done = load_results(folders.results)
    open_cells = [cell for cell in wanted if options.redo or not _finished(done, cell)]
    if options.dry_run:
        print("\n".join(cell.name for cell in open_cells))
        return
    if not options.report:
        for cell in open_cells:
            print(f"{cell.name} ...", flush=True)
            if options.redo:  # what a program has found of a volume stays there, and its network
                shutil.rmtree(folders.runs / cell.name, ignore_errors=True)
            run(cell, folders, minutes=options.minutes, repeats=options.repeats)
    print(peers_report.publish(folders.results, ROOT / options.tables))


def _finished(done: Mapping[str, Any], cell: Cell) -> bool:
    """Whether there is a result, and not only a reason why there is none."""
    return cell.name in done and "not_run" not in done[cell.name]


def run(cell: Cell, folders: Folders, *, minutes: float, repeats: int) -> dict[str, Any]:
    """Runs a cell and writes its file, with the reason if the program cannot be had."""
    loads = [os.getloadavg()[0]]
    content: dict[str, Any] = {**dataclasses.asdict(cell)}
    try:
        if isinstance(cell, Score):
            content |= _score(cell, folders, minutes=minutes)
        else:
            content |= _speed(cell, folders, repeats=repeats)
    except (NotInstalled, Failed) as error:
        content["not_run"] = _without_paths(str(error))
        print(f"{cell.name}: not run: {error}", flush=True)
    loads.append(os.getloadavg()[0])
    content |= {
        "command": shlex.join(["python", *sys.argv]),
        "commit": git_commit(),
        "machine": machine(),
        "load": loads,
    }
    files.write_json(folders.results / f"{cell.name}.json", content)
    return content


def _score(cell: Score, folders: Folders, *, minutes: float) -> dict[str, Any]:
    dataset, method = DATASETS[cell.dataset], METHODS[cell.method]
    place = environment(cell.method, folders.environments)
    work = folders.runs / cell.name
    work.mkdir(parents=True, exist_ok=True)
    script = ROOT / "benchmarks" / method.script
    candidates: Sequence[Settings] = method.candidates[cell.dataset]
    content: dict[str, Any] = {"versions": place.versions}
    model = str(work / "model")
    if any(SPOTIFLOW_MODEL in settings.values() for settings in candidates):
        trained = peers_programs.train_spotiflow(
            dataset, place.python, script, folders.data, work, minutes=minutes
        )
        candidates = peers_programs.filled(candidates, model)
        content["training"] = {**trained, "model": SPOTIFLOW_MODEL}
    with Worker(place.python, script, log=work / "log.txt", root=ROOT) as worker:
        find = peers_programs.asking(worker, work / "found", small=method.small)
        content |= peers_scores.run(dataset, method, candidates, find, folders.data)
    for each in (content, *content["candidates"]):
        each["settings"] = {
            name: SPOTIFLOW_MODEL if value == model else value
            for name, value in each["settings"].items()
        }
        if "failed" in each:
            each["failed"] = _without_paths(each["failed"])
    return content


def _speed(cell: Speed, folders: Folders, *, repeats: int) -> dict[str, Any]:
    dataset = DATASETS[cell.dataset]
    results = load_results(folders.results)
    chosen, places, failed = {}, {}, {}
    for name, method in METHODS.items():
        score = Score(cell.dataset, name)
        try:
            places[name] = environment(name, folders.environments)
        except NotInstalled as error:
            failed[name] = _without_paths(str(error))
            continue
        if _finished(results, score):
            settings = results[score.name]["settings"]
            if "prob_thresh" in settings:
                settings = {**settings, "prob_thresh": results[score.name]["threshold"]}
            model = str(folders.runs / score.name / "model")
            chosen[name] = peers_programs.filled([settings], model)[0]
        elif method.requirements:
            failed[name] = "its settings are not chosen yet"
    content = peers_speed.run(
        cell,
        peers_speed.sides(cell.dataset, chosen),
        places,
        peers_speed.volume(dataset, folders.data),
        dataset.spacing,
        repeats=repeats,
        folder=folders.runs / "speed",
        root=ROOT,
    )
    for row in content["rows"].values():
        row["versions"] = dict(places[row.pop("method")].versions)
        if Path(str(row["settings"].get("model", ""))).is_absolute():
            row["settings"]["model"] = SPOTIFLOW_MODEL
    failed |= {name: _without_paths(text) for name, text in content["failed"].items()}
    return {**content, "failed": failed}


@functools.cache
def environment(method: str, folder: Path) -> Environment:
    """The environment of a program, made once."""
    return prepare(method, METHODS[method], folder)


def _without_paths(text: str) -> str:
    """A reason without the folders of this machine."""
    return text.replace(f"{ROOT}{os.sep}", "")


if __name__ == "__main__":
    main()
