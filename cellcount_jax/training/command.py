"""`cellcount train`: a model from the labelled images of a folder."""

from __future__ import annotations

import argparse
import contextlib
import logging as std_logging
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
from absl import logging

from cellcount_jax import cache, overrides, validation, variants
from cellcount_jax import config as settings
from cellcount_jax.data import resampling
from cellcount_jax.data.datasets import selection_of
from cellcount_jax.data.entries import (
    SCANNED,
    Entry,
    labelled_share,
    scan,
    selected,
    unsaved_warning,
)
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import evaluate
from cellcount_jax.images.cell_size import check_diameter
from cellcount_jax.images.files import check_folder
from cellcount_jax.images.point_units import add_points_unit
from cellcount_jax.images.sources import open_source
from cellcount_jax.inference import model_file
from cellcount_jax.training import fine_tuning, labels_record, parallel, run_folder, train
from cellcount_jax.training.cell_size import cell_size
from cellcount_jax.training.own_words import OwnWords, in_own_words

EXAMPLES = """\
examples:
  cellcount train my_images/
  cellcount train my_images/ --output runs/second --steps 2000 --diameter 12
  cellcount train my_images/ --set model.features=16 --set data.test_fraction=0
  cellcount train my_images/ --from nuclei2d --diameter 20

Beside an image `a.tif` its dots are `a.csv`; of an image that was labelled with `cellcount label`
they count where blocks are marked done. The rest, and images without dots, are used without dots
with --set consistency.weight=1, which takes twice the time and seldom helps.
With --from training begins with the weights of a trained model, so that a few labels are enough;
network and normalisation are that model's, and images are resampled to the size of its cells.
The same command goes on where it was stopped. docs/labelling.md is a walk-through.
"""

_NOT_HELD_OUT = {
    "train": "the training images themselves",
    "calibration": "the part of the labels that was left out to choose the threshold",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount train`."""
    parser.add_argument("folder", type=Path, help="with images, and their dots beside them")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="WORKDIR",
        help="folder for the model and its scores (default: runs/NAME of the folder)",
    )
    parser.add_argument(
        "--from",
        dest="init_from",
        metavar="MODEL",
        help="go on from a trained model: a bundled one (cellcount models), a workdir, a file",
    )
    parser.add_argument("--steps", type=int, help="of training, in tens (default: 500, 3D: 600)")
    parser.add_argument(
        "--diameter",
        type=float,
        help="of the cells, about: in um, or in pixels where the voxel size is unknown (default:"
        " that of the labelling tool, or as it is measured in the images; with --from: those of"
        " the model)",
    )
    add_points_unit(parser)
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
    with contextlib.ExitStack() as stack:
        stack.enter_context(_log_shown())
        stack.enter_context(in_own_words())
        check_folder(output)
        entries = _entries(folder)
        given = [f"data.points_unit={options.points_unit}"] if options.points_unit else []
        config = make_config(
            folder,
            entries,
            steps=options.steps,
            diameter=options.diameter,
            init_from=options.init_from,
            changes=[*given, *options.set],
        )
        _check_apart(output, config.init_from)
        labels_record.check_apart(output, entries, folder)
        stack.enter_context(run_folder.locked(output))
        if options.overwrite:
            labels_record.remove_run(output)
        with labels_record.recorded(output, labels_record.digest(entries, folder)):
            content = train.train_and_evaluate(config, output)
    if content is None:
        return 0
    print(f"\n{content['dataset']}\n{evaluate.as_table(content, all_rules=False)}")
    if content["set"] in _NOT_HELD_OUT:
        print(
            f"The score is on {_NOT_HELD_OUT[content['set']]}: no image is held out where fewer"
            " than three are labelled, and on other images it will be lower."
        )
    print(f"{time.perf_counter() - started:.0f} s; pictures and points in {output}/evaluation")
    print(f"\nThe model is in {output}. Next:")
    for line in _next_commands(_next_image(entries), output, config):
        print(f"  {line}")
    return 0


def make_config(
    folder: Path,
    entries: Sequence[Entry],
    *,
    steps: int | None = None,
    diameter: float | None = None,
    init_from: str | None = None,
    changes: Sequence[str] = (),
) -> ml_collections.ConfigDict:
    """The settings for a folder, as they follow from its images, and the model to go on from.

    Args:
      folder: with the images.
      entries: its images, at least one.
      steps: of training; None = the default.
      diameter: of a cell, um or pixels; None = see `cell_size`, or the model's.
      init_from: the model that training goes on from; None = none, or that of `changes`.
      changes: further settings, as `overrides.override` takes them; they go before all else.

    Raises:
      InputError: an image that cannot be opened, a setting that cannot be, a model that is not
        for such images.
    """
    early = settings.default_config()
    if init_from is not None:
        changes = (f"init_from={init_from}", *changes)
    given = {overrides.override(early, text) for text in changes}
    selection = selection_of(early.data)
    shapes, spacings = [], []
    for entry in entries:
        with open_source(entry.image, selected(entry, selection)) as source:
            shapes.append(source.shape)
            spacings.append(early.data.spacing or source.spacing)
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
        overrides.override(config, text)
    edges = spacings[0] or (1.0,) * ndim
    unit = "um" if spacings[0] else "pixels"
    if config.init_from:
        check_diameter(diameter)
        model = model_file.load_model(config.init_from)
        fine_tuning.check_ndim(entries[0].image, ndim, config, model)
        if diameter is not None and ndim == 2:
            config.data.from_diameter = diameter / edges[-1]
        fine_tuning.follow(config, model, given=given)
        fine_tuning.use_voxels(config, model, edges)
        if diameter is not None and ndim == 3:
            variants.use_radius(config, diameter / 2, config.data.to_spacing or edges)
        told = _size_followed(config, diameter, unit)
        shapes = []
        for entry, spacing in zip(entries, spacings, strict=True):
            with open_source(entry.image, selected(entry, selection)) as source:
                shapes.append(resampling.resampled_shape(config.data, source, spacing, entry.image))
    else:
        size = cell_size(entries, spacings[0], edges, selection, diameter=diameter)
        variants.use_radius(config, size.diameter / 2, edges)
        if size.known and ndim == 2:
            config.data.diameter = size.diameter / edges[-1]
        told = f"cells of about {size.diameter:.3g} {unit}, {size.origin}"
        told += "" if size.known else "; if they are of another size, give --diameter"
    variants.use_sizes(config, shapes)
    if steps is not None:
        config.train.steps = steps
    for text in changes:
        overrides.override(config, text)
    validation.validate(config)
    logging.info("%s", told)
    return config


def _entries(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder}: {problem}; a folder with images is needed.")
    entries = scan(folder)
    if not entries:
        raise InputError(f"{folder}: has no image ({SCANNED}).")
    for entry in entries:
        if warning := unsaved_warning(entry.image, entry.name):
            logging.warning("%s", warning)
    return entries


def _size_followed(config: ml_collections.ConfigDict, diameter: float | None, unit: str) -> str:
    """How large cells are taken to be where training goes on from a model."""
    data = config.data
    to = f"; images are resampled to the {data.diameter:.3g} pixels of the model {config.init_from}"
    if data.from_diameter > 0:
        given = f"{diameter:.3g} {unit}" if diameter else f"{data.from_diameter:.3g} pixels"
        return f"cells of about {given}, as --diameter says{to}"
    if data.from_diameter < 0:
        return f"cells are measured in each image{to}"
    if diameter is not None:
        return f"cells of about {diameter:.3g} {unit}, as --diameter says"
    return f"cells are taken to be as large as those of the model {config.init_from}"


def _check_apart(output: Path, init_from: str) -> None:
    """Makes sure that a run does not take the place of the model that it goes on from.

    Raises:
      InputError: it would.
    """
    inside = Path(init_from).resolve() if init_from else None
    if inside is not None and inside.exists() and inside.is_relative_to(output.resolve()):
        raise InputError(f"--from {init_from}: is in {output}; give another --output.")


def _next_commands(image: Path, output: Path, config: ml_collections.ConfigDict) -> list[str]:
    """What to do with a model, as commands for an image: the part of it that was trained on."""
    data, part = config.data, []
    if data.scene:
        part += ["--scene", data.scene]
    if data.channel:
        part += ["--channel", data.channel]
    if data.time >= 0:
        part += ["--time", str(data.time)]
    if data.axes:
        part += ["--axes", data.axes.upper()]
    if data.level:
        part += ["--level", str(data.level)]
    if data.spacing:
        part += ["--spacing", ",".join(f"{edge:g}" for edge in data.spacing)]
    size = ["--diameter", f"{data.from_diameter:g}"] if data.from_diameter > 0 else []
    size += ["--rescale"] if data.to_spacing else []
    common = [str(image), "--model", str(output), *part]
    unit = ["--points-unit", data.points_unit] if data.points_unit else []
    return [
        shlex.join(["cellcount", "label", *common, *unit]),
        shlex.join(["cellcount", "count", *common, *size, "--output", "counted/"]),
    ]


def _next_image(entries: Sequence[Entry]) -> Path:
    """The image of which the least is labelled."""
    return min(entries, key=labelled_share).image


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """Shows the log of training on stderr, with the time of each line."""
    handler = std_logging.StreamHandler(sys.stderr)
    handler.setFormatter(OwnWords("%(asctime)s %(message)s", "%H:%M:%S"))
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
