"""The command `cellcount`: counting, models in files, and what this machine has."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from cellcount_jax import cache
from cellcount_jax.counting import cluster, doctor, engines, results
from cellcount_jax.counting import count as counting
from cellcount_jax.errors import InputError
from cellcount_jax.images import inputs
from cellcount_jax.images.inputs import find_inputs
from cellcount_jax.inference import model_file
from cellcount_jax.inference.tasks import Engine, Job
from cellcount_jax.label import command as label_command
from cellcount_jax.training import command as training_command

_COUNT = """\
examples:
  cellcount count image.tif --model nuclei3d --output counted/
  cellcount count my_images/ more/b.png --model runs/mine --output counted/
  cellcount count brain.ome.zarr --model mine.zip --output counted/ --spacing 6,1.62,1.62 --rescale
  cellcount count brain.ome.zarr --model nuclei3d --output counted/ --dry-run
  cellcount count brain.ome.zarr --model nuclei3d --output counted/ --scheduler local

For each input a folder with points.csv (id, place in voxels and in um, score), report.html to
look at and summary.json with all that is needed to repeat it; counts.csv has a row an input.
A large image is counted in tiles; the same command goes on where it was stopped.
"""
_EXPORT = """\
example:
  cellcount export runs/mine mine.zip --card about.md

The file holds settings, weights and the card. It is read without executing anything in it.
"""


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(given)
    try:
        status: int = options.run(options)
        return status
    except (InputError, OSError, MemoryError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellcount",
        description="Finds and counts the cells in images and volumes.",
        epilog="cellcount COMMAND --help has examples.",
    )
    version = importlib.metadata.version("cellcount_jax")
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: object, text: str, examples: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        added.set_defaults(run=run)
        return added

    count = command("count", _count, "find the cells in images or volumes", _COUNT)
    count.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        help="TIFF, OME-TIFF, PNG, NumPy or OME-Zarr, or folders of them; for a model of volumes a"
        " folder of 2D images is one volume of slices",
    )
    count.add_argument(
        "--model",
        required=True,
        help="workdir of a finished run, an exported file, or a bundled model (cellcount models)",
    )
    count.add_argument("--output", type=Path, required=True, help="folder for the results")
    count.add_argument(
        "--threshold", type=float, help="on the map, 0 to 1; default: the model's own"
    )
    inputs.add_source(count)
    count.add_argument(
        "--rescale", action="store_true", help="resample images to the voxels of the training"
    )
    count.add_argument(
        "--diameter",
        type=float,
        help="of the cells in pixels, about: resample 2D images to that of the training",
    )
    count.add_argument(
        "--max-voxels",
        type=int,
        help="cut a larger image in tiles of this size (default: as trained,"
        " config.predict.max_voxels); more needs more memory",
    )
    count.add_argument(
        "--fast",
        action="store_true",
        help="without the mean over mirror images: volumes 8 times as fast, a little less exact",
    )
    count.add_argument(
        "--dry-run", action="store_true", help="only say what would be done, and what it takes"
    )
    count.add_argument(
        "--overwrite", action="store_true", help="replace the results of another count in --output"
    )
    count.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="compute the tiles of large images on the workers of this dask scheduler, or, with"
        " 'local', in several processes here (docs/cluster.md)",
    )
    count.add_argument(
        "--mask", type=Path, help="image of the tissue, of the same extent: count where it is not 0"
    )
    count.add_argument(
        "--regions", type=Path, help="label volume of the same extent: counts per region too"
    )
    count.add_argument(
        "--region-names", type=Path, help="CSV file with the columns id and name, for --regions"
    )
    count.add_argument(
        "--density",
        type=float,
        nargs="?",
        const=100.0,
        metavar="UM",
        help="write density.zarr too, cells per mm3 in cubes of so many um (default 100; voxels"
        " where their size is unknown)",
    )
    count.add_argument("--parquet", action="store_true", help="write points.parquet too")
    count.add_argument("--cellfinder", action="store_true", help="write points.xml too")
    count.add_argument("--napari", action="store_true", help="write points_napari.csv too")

    label = command(
        "label",
        label_command.run,
        "place dots on the cells of an image, in napari",
        label_command.EXAMPLES,
    )
    label_command.add_arguments(label)

    train = command(
        "train", training_command.run, "train a model on labelled images", training_command.EXAMPLES
    )
    training_command.add_arguments(train)

    export = command("export", _export, "write a trained model as one file", _EXPORT)
    export.add_argument("workdir", type=Path, help="of a finished run")
    export.add_argument("file", type=Path, help="to write, e.g. mine.zip")
    export.add_argument("--card", type=Path, help="Markdown text that says what the model is")

    models = command(
        "models",
        _models,
        "list the bundled models, or show the card of one",
        "examples:\n  cellcount models\n  cellcount models nuclei3d\n  cellcount models mine.zip",
    )
    models.add_argument("name", nargs="?", help="of a bundled model, or an exported file")

    command(
        "doctor",
        doctor.run,
        "say what this machine has, and count a small image as a check",
        "example:\n  cellcount doctor",
    )
    return parser


def _count(options: argparse.Namespace) -> int:
    cache.keep_programs()
    if options.scheduler == cluster.LOCAL:
        # Of a GPU, this process needs little beside the worker that has it.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    model = model_file.load_model(options.model)
    inputs = find_inputs(options.inputs, ndim=model.config.data.ndim)
    if options.max_voxels is not None:
        model.config.predict.max_voxels = options.max_voxels
    if options.fast:
        model.config.predict.flips = False
    chosen = counting.Options(
        threshold=options.threshold,
        rescale=options.rescale,
        diameter=options.diameter,
        spacing=options.spacing,
        channel=options.channel,
        time=options.time,
        level=options.level,
        mask=options.mask,
        outputs=results.Outputs(
            parquet=options.parquet,
            cellfinder=options.cellfinder,
            napari=options.napari,
            density=options.density,
            regions=options.regions,
            region_names=options.region_names,
        ),
        dry_run=options.dry_run,
        overwrite=options.overwrite,
    )
    with contextlib.ExitStack() as stack:
        engine: Callable[[Job], Engine] = engines.in_threads
        if options.scheduler is not None:
            engine = stack.enter_context(cluster.engines_on(options.scheduler))
        rows = counting.count_files(
            model,
            inputs,
            options.output,
            options=chosen,
            name=options.model,
            tell=lambda line: print(line, flush=True),
            engine=engine,
        )
    if options.dry_run:
        return 0
    total = sum(row["count"] for row in rows)
    several = f"{total} cells in {len(rows)} inputs, " if len(rows) > 1 else ""
    print(f"{several}written to {options.output}")
    return 0


def _export(options: argparse.Namespace) -> int:
    model = model_file.load_model(options.workdir)
    card = "" if options.card is None else options.card.read_text(encoding="utf-8")
    card = card or f"# {options.file.stem}\n\nExported from {options.workdir}, step {model.step}.\n"
    model_file.export_model(model, options.file, card=card)
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB")
    return 0


def _models(options: argparse.Namespace) -> int:
    bundled = model_file.bundled_models()
    if options.name is None:
        for name, path in bundled.items():
            print(f"{name:16} {_first_sentence(model_file.read_card(path))}")
        return 0
    print(model_file.read_card(bundled.get(options.name, Path(options.name))))
    return 0


def _first_sentence(card: str) -> str:
    """What follows the title of a card."""
    lines = [line for line in card.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
