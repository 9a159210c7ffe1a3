"""`cellcount train`: a model from the labelled images of a folder."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging as std_logging
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np
from absl import logging

from cellcount_jax import cache, variants
from cellcount_jax import config as settings
from cellcount_jax.data.blocks import DONE, cell_radius, read_block_states
from cellcount_jax.data.datasets import selection_of
from cellcount_jax.data.entries import SCANNED, Entry, labelled_share, scan, selected
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import evaluate
from cellcount_jax.images import files
from cellcount_jax.images.points import read_points
from cellcount_jax.images.sources import open_source
from cellcount_jax.inference import model_file
from cellcount_jax.training import parallel, run_folder, train

EXAMPLES = """\
examples:
  cellcount train my_images/
  cellcount train my_images/ --output runs/second --steps 2000 --diameter 12
  cellcount train my_images/ --set model.features=16 --set data.test_fraction=0

Beside an image `a.tif` its dots are `a.csv`; of an image that was labelled with `cellcount label`
they count where blocks are marked done. The rest, and images without dots, are used without.
The same command goes on where it was stopped. docs/labelling.md is a walk-through.
"""

_RECORD = "labels.json"  # in the workdir: what was trained on
_NOT_HELD_OUT = {
    "train": "the training images themselves",
    "calibration": "the part of the labels that was left out to choose the threshold",
}
_OF_A_RUN = (
    *("checkpoints", "evaluation", "config.json", "metrics.jsonl", _RECORD),
    *(model_file.MODEL_FILE, "model.json"),  # the second is of older versions
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount train`."""
    parser.add_argument("folder", type=Path, help="with images, and their dots beside them")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="WORKDIR",
        help="folder for the model and its scores (default: runs/NAME of the folder)",
    )
    parser.add_argument("--steps", type=int, help="of training, in tens (default: 500, 3D: 600)")
    parser.add_argument(
        "--diameter",
        type=float,
        help="of the cells, about: in um, or in pixels where the voxel size is unknown (default:"
        " twice the radius of the labelling tool, or 10 of the finest voxel edge)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting, see cellcount_jax/config.py; may be given several times",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a run in WORKDIR by a new one"
    )


def run(options: argparse.Namespace) -> int:
    """Trains; returns the exit status."""
    started = time.perf_counter()
    cache.keep_programs()
    parallel.start_processes()
    folder: Path = options.folder
    output = options.output or Path("runs") / folder.resolve().name
    with _log_shown():
        entries = _entries(folder)
        config = make_config(
            folder,
            entries,
            steps=options.steps,
            diameter=options.diameter,
            changes=options.set,
        )
        if options.overwrite:
            _remove_run(output)
        with _recorded(output, _digest(entries, folder)):
            content = train.train_and_evaluate(config, output)
    if content is None:
        return 0
    print(f"\n{content['dataset']}\n{evaluate.as_table(content)}")
    if content["set"] in _NOT_HELD_OUT:
        print(
            f"The score is on {_NOT_HELD_OUT[content['set']]}: no image is held out where fewer"
            " than three are labelled, and on other images it will be lower."
        )
    print(f"{time.perf_counter() - started:.0f} s; pictures and points in {output}/evaluation")
    image, model = (shlex.quote(str(path)) for path in (_next_image(entries), output))
    print(f"\nThe model is in {output}. Next:")
    print(f"  cellcount label {image} --model {model}")
    print(f"  cellcount count {image} --model {model} --output counted/")
    return 0


def make_config(
    folder: Path,
    entries: Sequence[Entry],
    *,
    steps: int | None = None,
    diameter: float | None = None,
    changes: Sequence[str] = (),
) -> ml_collections.ConfigDict:
    """The settings for a folder, as they follow from its images.

    Args:
      folder: with the images.
      entries: its images, at least one.
      steps: of training; None = the default.
      diameter: of a cell, um or pixels; None = twice the radius in the labelling tool.
      changes: further settings, as `config.override` takes them; they go before all else.

    Raises:
      InputError: an image that cannot be opened, a setting that cannot be.
    """
    early = settings.default_config()
    for text in changes:
        settings.override(early, text)
    selection = selection_of(early.data)
    shapes = []
    first_spacing: tuple[float, ...] | None = None
    for index, entry in enumerate(entries):
        with open_source(entry.image, selected(entry, selection)) as source:
            shapes.append(source.shape)
            if index == 0:
                first_spacing = source.spacing
    ndim = len(shapes[0])
    for entry, shape in zip(entries, shapes, strict=True):
        if len(shape) != ndim:
            raise InputError(
                f"{entry.image}: is {len(shape)}D, but {entries[0].image.name} is {ndim}D; put"
                " images and volumes in folders of their own."
            )
    config = variants.folder_config(ndim=ndim)
    config.name = folder.resolve().name or "folder"
    config.data.dir = str(folder)
    for text in changes:
        if settings.override(config, text) == "data.spacing":
            first_spacing = tuple(config.data.spacing)
    edges = first_spacing or (1.0,) * ndim
    if diameter is not None and not 0 < diameter < float("inf"):
        raise InputError(f"--diameter {diameter}: must be a positive number.")
    radius = _radius(entries, first_spacing) if diameter is None else diameter / 2
    variants.use_radius(config, radius or 5 * min(edges), edges)
    variants.use_sizes(config, shapes)
    if diameter is not None and ndim == 2:
        config.data.diameter = diameter / edges[-1]
    if steps is not None:
        config.train.steps = steps
    for text in changes:
        settings.override(config, text)
    return config


def _entries(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder}: {problem}; a folder with images is needed.")
    entries = scan(folder)
    if not entries:
        raise InputError(f"{folder}: has no image ({SCANNED}).")
    for entry in entries:
        if entry.image.with_name(f".{entry.name}.label.journal").exists():
            logging.warning(
                "%s: is being labelled, or was when its window was killed; what was not saved there"
                " is not trained on",
                entry.image,
            )
    return entries


def _radius(entries: Sequence[Entry], spacing: Sequence[float] | None) -> float | None:
    """The median radius of a cell that the labelling tool has stored; None where there is none.

    In um, or in px where `spacing` is None, in whatever unit an image was labelled.
    """
    stored = [read_block_states(entry.blocks).about for entry in entries if entry.blocks]
    found = [radius for about in stored if (radius := cell_radius(about, spacing)) is not None]
    return statistics.median(found) if found else None


def _next_image(entries: Sequence[Entry]) -> Path:
    """The image of which the least is labelled."""
    return min(entries, key=labelled_share).image


def _digest(entries: Sequence[Entry], folder: Path) -> str:
    """Changes when dots that are learned from or their blocks change, or images come and go."""
    whole = hashlib.sha256()
    test = folder / "test"
    for entry in (*entries, *(scan(test) if test.is_dir() else ())):
        whole.update(f"{entry.image}\n".encode())
        whole.update(_digest_of(entry.points) if entry.blocks is None else _of_done(entry))
        for path in (entry.labels, entry.valid):
            whole.update(_digest_of(path))
    return whole.hexdigest()


def _digest_of(path: Path | None) -> bytes:
    return b"-" if path is None else hashlib.sha256(path.read_bytes()).digest()


def _of_done(entry: Entry) -> bytes:
    """Of an image that the labelling tool has labelled: its blocks that are done and their dots.

    What is elsewhere, for example proposals, changes without an effect, as does the order of dots.
    """
    assert entry.blocks is not None
    blocks = read_block_states(entry.blocks)
    grid, done = blocks.grid, blocks.states == DONE
    found = hashlib.sha256(np.array([grid.shape, grid.block]).tobytes() + done.tobytes())
    if entry.points is not None and done.any():
        points = read_points(entry.points, ndim=len(grid.shape)) + np.float32(0)  # no -0.0
        points = points[done[tuple(grid.index_of(points).T)]]
        found.update(points[np.lexsort(points.T)].tobytes())
    return found.digest()


def _record_of(path: Path) -> dict[str, str]:
    """The stored record of a run; empty if there is no such file.

    Raises:
      InputError: a file of this name is something else, and would be lost.
    """
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text())
    except ValueError:
        stored = None
    if not isinstance(stored, dict) or "sha256" not in stored:
        raise InputError(f"{path}: is not the file of a run; give another --output.")
    return stored


@contextlib.contextmanager
def _recorded(output: Path, digest: str) -> Iterator[None]:
    """Keeps in a workdir what is trained on, so that a run never goes on with other labels."""
    path = output / _RECORD
    stored = _record_of(path)
    if (output / "config.json").exists():
        if stored.get("sha256") != digest:
            raise InputError(
                f"{output}: holds a model of other labels than {'those' if stored else 'any'} of"
                " now; give another --output, or --overwrite to replace it."
            )
        yield
        return
    new = not output.exists()
    files.write_json(path, {"sha256": digest})
    try:
        yield
    finally:
        if not (output / "config.json").exists():  # nothing was begun
            path.unlink()
            if new:
                output.rmdir()


def _remove_run(output: Path) -> None:
    """Removes the files of a run, and nothing else.

    Raises:
      InputError: the folder holds files of these names, but is not the folder of a run.
    """
    present = [path for name in _OF_A_RUN if (path := output / name).exists()]
    if present and not run_folder.is_run(output):
        names = ", ".join(path.name for path in present)
        raise InputError(
            f"{output}: is not the folder of a run, so that --overwrite removes nothing of"
            f" {names} there; give another --output."
        )
    for path in present:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """Shows the log of training on stderr, with the time of each line."""
    handler = std_logging.StreamHandler(sys.stderr)
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.get_absl_logger()
    before = logging.get_verbosity(), logger.propagate
    logger.addHandler(handler)
    logging.set_verbosity(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logging.set_verbosity(before[0])
        logger.propagate = before[1]
