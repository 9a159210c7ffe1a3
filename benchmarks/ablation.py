"""The paper's ablation on real data: runs what is missing, and writes the tables.

Run it from the repository's root; it is meant for hours in the background:

    python benchmarks/ablation.py
    python benchmarks/ablation.py --dry-run
    python benchmarks/ablation.py --only='vgg_*_8_0,microglia'

A cell is one data set, method, number of labelled images and seed (`ablation_cells.py`), and
nothing but a training run with some settings. Its scores become one small file of
results/ablation/. A cell that has its file is not run again; one that was killed goes on from
its last checkpoint, if code and settings are still the same. Ctrl-C or SIGTERM ends it so. The
same command in a second terminal, or with --jobs=4 on an accelerator, shares the work.
At the end the tables go into RESULTS.md (`ablation_report.py`); --report does only that.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import IO, Any

import ablation_report
from ablation_cells import BASELINE, cells, load_results
from ablation_run import ROOT, Busy, Cell, CellFailed, Folders, Stopped, run_cell

Result = Mapping[str, Any]


def run_rule(result: Result) -> str:
    """The rule of a result's run."""
    return str(result["rule"])


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What differs between two benchmarks that are made of cells.

    Attributes:
      cells: name -> result of those that are done -> all cells in their order.
      publish: folder of the results, Markdown file -> what has been written.
      run: runs one cell and writes its result.
      rule: result -> the detection rule whose scores are told.
      limit: seconds that a cell is to take at most on 2 cores; a longer one is pointed out.
    """

    cells: Callable[[Mapping[str, Result]], Iterable[Cell]]
    publish: Callable[[Path, Path], str]
    run: Callable[..., dict[str, Any]] = run_cell
    rule: Callable[[Result], str] = run_rule
    limit: float = 420.0


ABLATION = Experiment(cells, ablation_report.publish)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which of the cells are meant: names or patterns, and seeds; empty for all."""

    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()

    def __contains__(self, cell: Cell) -> bool:
        named = not self.only or any(
            text in cell.name or fnmatch.fnmatchcase(cell.name, text) for text in self.only
        )
        return named and (not self.seeds or cell.seed in self.seeds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the command line says."""
    parser = command_line("ablation", description=__doc__ or "")
    follow(parser, parser.parse_args(arguments), ABLATION)


def command_line(name: str, *, description: str) -> argparse.ArgumentParser:
    """The options of a benchmark that is made of cells; its folders have its name."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    relative = "(relative to the repository's root: %(default)s)"
    parser.add_argument("--data", type=Path, default="../shared/data", help=f"images {relative}")
    parser.add_argument("--results", type=Path, default=f"results/{name}", help=f"JSON {relative}")
    parser.add_argument("--runs", type=Path, default=f"runs/{name}", help=f"workdirs {relative}")
    parser.add_argument("--tables", type=Path, default="RESULTS.md", help=f"Markdown {relative}")
    parser.add_argument("--only", default="", help="parts or patterns of names, with commas")
    parser.add_argument("--seeds", default="", help="with commas, e.g. 0,1")
    parser.add_argument("--jobs", type=int, default=1, help="cells at once (1)")
    parser.add_argument("--redo", action="store_true", help="run those of --only again")
    parser.add_argument("--dry-run", action="store_true", help="only list the cells")
    parser.add_argument("--report", action="store_true", help="only write the tables")
    return parser


def follow(
    parser: argparse.ArgumentParser, options: argparse.Namespace, experiment: Experiment
) -> None:
    """Lists, runs or reports the cells that the options say, and ends the process with a status."""
    selection = Selection(_split(options.only), tuple(map(int, _split(options.seeds))))
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: must be at least 1")
    if options.redo and not options.only:
        parser.error("--redo: name the cells that are to run again with --only")
    folders = Folders(options.data, options.results, options.runs)
    results = load_results(ROOT / folders.results)
    if not any(cell in selection for cell in experiment.cells(results)):
        parser.error("--only, --seeds: there is no such cell")
    how = {"redo": options.redo, "jobs": options.jobs}
    if options.dry_run:
        print(listing(selection, results, experiment, **how))
        return
    failed = False
    if not options.report:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        failed = run_all(selection, folders, stop, experiment, **how) > 0
        if stop.is_set():
            print("stopped; the same command goes on from here", flush=True)
            sys.exit(int(failed))
    print(experiment.publish(ROOT / folders.results, ROOT / options.tables))
    sys.exit(int(failed))


def run_all(
    selection: Selection,
    folders: Folders,
    stop: threading.Event,
    experiment: Experiment = ABLATION,
    *,
    redo: bool = False,
    jobs: int = 1,
) -> int:
    """Runs the selected cells that have no result yet, in their order.

    Args:
      selection: of the cells.
      folders: of images, results and workdirs.
      stop: set it to end what runs, and not to begin another.
      experiment: which cells there are.
      redo: runs those that have a result, too, from the start.
      jobs: how many at once.

    Returns:
      How many cells failed.
    """
    started: set[Cell] = set()
    results = load_results(ROOT / folders.results)
    again = {c.name for c in experiment.cells(results) if c in selection} if redo else set()
    failed = 0
    running: dict[futures.Future[dict[str, Any]], Cell] = {}

    def count() -> tuple[list[Cell], int]:
        # Anew each time: results decide about other cells, and others may be running some.
        return _count(selection, load_results(ROOT / folders.results), experiment, again)

    def tell(cell: Cell, text: str, *, file: IO[str] | None = None) -> None:
        left, total = count()
        print(f"[{total - len(left)} of {total} done] {cell.name}: {text}", file=file, flush=True)

    with futures.ThreadPoolExecutor(jobs) as pool:
        while True:
            while not stop.is_set() and len(running) < jobs:
                cell = next((c for c in count()[0] if c not in started), None)
                if cell is None:
                    break
                started.add(cell)
                tell(cell, "begins")
                future = pool.submit(experiment.run, cell, folders, stop, again=cell.name in again)
                running[future] = cell
            if not running:
                return failed
            done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in done:
                cell = running.pop(future)
                try:
                    result = future.result()
                except Stopped:
                    continue
                except Busy as error:
                    tell(cell, str(error))
                except CellFailed as error:
                    failed += 1
                    tell(cell, f"failed: {error}", file=sys.stderr)
                else:
                    again.discard(cell.name)
                    results = load_results(ROOT / folders.results)
                    rest = time_left(count()[0], results, jobs=jobs)
                    tell(cell, f"{outcome(result, experiment)}; {rest}")


def _count(
    selection: Selection, results: Mapping[str, Any], experiment: Experiment, again: set[str]
) -> tuple[list[Cell], int]:
    """The selected cells that are to be run, and how many are selected."""
    chosen = [cell for cell in experiment.cells(results) if cell in selection]
    return [c for c in chosen if c.name not in results or c.name in again], len(chosen)


def outcome(result: Result, experiment: Experiment = ABLATION) -> str:
    """Minutes and scores of a cell in a few words."""
    rule, limit = experiment.rule(result), experiment.limit
    sets = result["sets"].items()
    scores = [f"{name} F1 {s[rule]['f1']:.4f}" for name, s in sets]
    scores += [f"MAE {next(iter(result['sets'].values()))[rule]['mae']:.1f}"]
    slow = f" (over {limit / 60:.0f})" if result["seconds"] > limit else ""
    return f"{result['seconds'] / 60:.1f} min{slow}, " + ", ".join(scores)


def time_left(left: Sequence[Cell], results: Mapping[str, Result], *, jobs: int) -> str:
    """How long cells take, at the mean time of the most similar that are done."""
    if not left:
        return "none left"
    trained = [r for r in results.values() if r["method"] != BASELINE]
    if not trained:
        return f"{len(left)} left"
    seconds = 0.0
    for cell in left:
        of_data = [r for r in trained if r["dataset"] == cell.dataset]
        alike = [r for r in of_data if r["method"] == cell.method]
        seconds += statistics.mean(r["seconds"] for r in alike or of_data or trained)
    return f"{len(left)} left, about {seconds / jobs / 3600:.1f} h"


def listing(
    selection: Selection,
    results: Mapping[str, Result],
    experiment: Experiment = ABLATION,
    *,
    redo: bool,
    jobs: int,
) -> str:
    """All selected cells with their state, and how long the rest takes."""
    chosen = [cell for cell in experiment.cells(results) if cell in selection]
    left = [cell for cell in chosen if redo or cell.name not in results]
    lines = []
    for cell in chosen:
        done = results.get(cell.name)
        known = f"  {outcome(done, experiment)}" if done else ""
        lines.append(("to do  " if cell in left else "done   ") + cell.name + known)
    return "\n".join([*lines, time_left(left, results, jobs=jobs)])


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


if __name__ == "__main__":
    main()
