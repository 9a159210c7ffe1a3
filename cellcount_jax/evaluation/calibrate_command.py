"""`cellcount calibrate`: a model's threshold for images of one's own, from some dots in them."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from cellcount_jax import cache
from cellcount_jax.data.entries import Entry, entry_of, scan, selected, unsaved_warning
from cellcount_jax.data.entry_content import labelled_area, read_dots
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import calibration
from cellcount_jax.evaluation.calibration import Dotted
from cellcount_jax.images import inputs
from cellcount_jax.images.point_units import DotUnit, add_points_unit
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source
from cellcount_jax.images.zarr_stores import is_zarr
from cellcount_jax.inference import model_file
from cellcount_jax.inference.fitted import check_sizes, naming, voxel_size_warning
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.progress import reading

EXAMPLES = """\
examples:
  cellcount calibrate brain.tif --model nuclei3d --output mine.zip --region 'y<40'
  cellcount calibrate my_images/ --model nuclei2d --output mine.zip
  cellcount count brain.tif --model mine.zip --output counted/

The dots of brain.tif are in brain.csv beside it (header z,y,x or y,x; a cell a row, in voxels,
or in um with --points-unit um).
They must be complete somewhere: in the blocks that are done in cellcount label, where
brain_valid.tif is not 0, in --region, or everywhere. About 50 are enough. Give the same --rescale,
--diameter and so on as for the count.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount calibrate`."""
    parser.add_argument(
        "images", nargs="+", type=Path, help="with dots beside them, or folders of such images"
    )
    parser.add_argument(
        "--model",
        required=True,
        help="workdir of a finished run, an exported file, or a bundled model (cellcount models)",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="file for the new model, e.g. mine.zip"
    )
    parser.add_argument(
        "--region",
        default="",
        help="where the dots are complete, in voxels, such as 'y<40' or 'z>=10,z<20,x<200'",
    )
    inputs.add_source(parser)
    add_points_unit(parser)
    parser.add_argument(
        "--rescale", action="store_true", help="resample images to the voxels of the training"
    )
    parser.add_argument(
        "--diameter", type=float, help="of the cells in pixels, about, as for cellcount count"
    )
    parser.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="cells are dark on bright, as for cellcount count",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --output")


def run(options: argparse.Namespace) -> int:
    """Calibrates; returns the exit status."""
    cache.keep_programs()
    output: Path = options.output
    entries = _entries(options.images)
    read = [path for entry in entries for path in entry.files]
    read.append(model_file.model_path(options.model))
    model_file.check_output(output, overwrite=options.overwrite, read=read)
    model = model_file.load_model(options.model)
    check_sizes(model, rescale=options.rescale, diameter=options.diameter)
    with contextlib.ExitStack() as stack:
        dotted = [_open(entry, model, options, stack) for entry in entries]
        calibrated, outcome = calibration.calibrate_on(model, dotted, progress=reading)
    path = model_file.model_path(options.model)
    names = [entry.image.name for entry in entries]
    card = calibration.card_of(options.model, model_file.read_card(path), names, outcome)
    model_file.export_model(calibrated, output, card=card)
    for line in calibration.lines(outcome):
        print(line)
    print(f"\nThe model is in {output}. Next:")
    # With the scene and so on that the first of them was labelled with.
    first = selected(entries[0], Selection.from_arguments(options))
    flags = "".join(f" {flag}" for flag in _flags(options, first))
    image, file = (shlex.quote(str(path)) for path in (entries[0].image, output))
    print(f"  cellcount count {image} --model {file} --output counted/{flags}")
    return 0


def _entries(paths: Sequence[Path]) -> list[Entry]:
    """The images with dots of some files and folders."""
    entries = []
    for path in paths:
        if path.is_dir() and not is_zarr(path):
            there = [entry for entry in scan(path) if entry.points is not None]
            if not there:
                raise InputError(f"{path}: has no image with dots (a .csv of its name beside it).")
            entries += there
            continue
        entry = entry_of(path)
        if entry.points is None:
            raise InputError(
                f"{path}: has no dots; {entry.name}.csv beside it would be its dots, as cellcount"
                " label writes them."
            )
        entries.append(entry)
    return entries


def _open(
    entry: Entry, model: TrainedModel, options: argparse.Namespace, stack: contextlib.ExitStack
) -> Dotted:
    """An image as it is counted, with its dots; the stack closes it."""
    if warning := unsaved_warning(entry.image, entry.name):
        print(f"warning: {warning}")
    selection = selected(entry, Selection.from_arguments(options))
    source = stack.enter_context(open_source(entry.image, selection))
    if warning := voxel_size_warning(model, source, rescale=options.rescale):
        print(warning)
    with naming(model, source):
        fitted = model.fitted(
            source,
            spacing=source.spacing if options.rescale else None,
            diameter=options.diameter,
            invert=options.invert,
        )
    area = labelled_area(entry, source.shape, options.region)
    known = DotUnit(options.points_unit, everywhere=not options.region)
    dots = read_dots(
        entry, source.shape, source.spacing, known, valid=area.mask, selection=selection
    )
    return Dotted(entry.image.name, fitted, source.shape, dots, area)


def _flags(options: argparse.Namespace, selection: Selection) -> list[str]:
    """The options that a count of the part of an image must be given too."""
    flags = []
    for name, value in {**selection.to_json(), "diameter": options.diameter}.items():
        if value is not None and (name, value) != ("level", 0):
            text = ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
            flags.append(f"--{name} {shlex.quote(text)}")
    if options.rescale:
        flags.append("--rescale")
    if options.invert is not None:
        flags.append("--invert" if options.invert else "--no-invert")
    return flags
