"""Few labelled images and many without labels: runs what is missing, and writes the table.

Run it from the repository's root; it is meant for hours in the background:

    python benchmarks/few_labels.py --develop
    python benchmarks/few_labels.py --only='nuclei2d_*_10_*'
    python benchmarks/few_labels.py --dry-run

A cell is one data set, method, number of labelled images, draw of them and seed
(`few_labels_cells.py`); it is run, resumed, shared and stopped as one of `ablation.py`. With
--develop it is scored on a part of the training images that is labelled in no cell
(`few_labels_images.py`): that is for choosing; the test images are for the end. The folders of
images are made in --runs, of links. At the end table and figure are written
(`few_labels_report.py`); --report does only that.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import ablation
import few_labels_images
import few_labels_report
from ablation_run import ROOT, Folders, run_cell
from few_labels_cells import IMAGES, Cell, best_rule, cells

LIMIT = 600.0  # seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the command line says."""
    parser = ablation.command_line("few_labels", description=__doc__ or "")
    parser.add_argument(
        "--develop", action="store_true", help="score a part of the training images, not the test"
    )
    options = parser.parse_args(arguments)
    ablation.follow(parser, options, experiment("develop" if options.develop else "test"))


def experiment(part: str) -> ablation.Experiment:
    """The cells that are scored on a part, 'test' or 'develop'."""
    return ablation.Experiment(
        functools.partial(cells, part=part),
        few_labels_report.publish,
        run=run,
        rule=best_rule,
        limit=LIMIT,
    )


def run(
    cell: Cell, folders: Folders, stop: threading.Event, *, again: bool = False
) -> dict[str, Any]:
    """Makes a cell's folder of images, and runs it; see `run_cell`."""
    few_labels_images.prepare(cell, ROOT / folders.data, ROOT / folders.runs / IMAGES)
    return run_cell(cell, folders, stop, again=again)


if __name__ == "__main__":
    main()
