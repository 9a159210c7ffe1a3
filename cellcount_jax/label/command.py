"""The command `cellcount label`: its options, and the labelling window that it opens."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellcount_jax import cache
from cellcount_jax.images import inputs
from cellcount_jax.images.cell_size import check_diameter
from cellcount_jax.images.point_units import add_points_unit
from cellcount_jax.images.selection import Selection
from cellcount_jax.label.window import window

EXAMPLES = """\
examples:
  cellcount label image.tif
  cellcount label brain.ome.zarr --channel nuclei --block 20,256,256
  cellcount label image.tif --diameter 12 --model runs/mine

Every act is kept at once beside the image; the same command goes on where the window was left.
The dots are saved to image.csv, which training reads: cellcount train FOLDER. docs/labelling.md is
a walk-through.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount label`."""
    parser.add_argument("image", type=Path, help="TIFF, OME-TIFF, PNG, NumPy or OME-Zarr")
    parser.add_argument(
        "--model", help="offered for proposals: a workdir, an exported file or a bundled model"
    )
    inputs.add_source(parser)
    add_points_unit(parser)
    parser.add_argument(
        "--block",
        type=inputs.whole_numbers,
        help="voxels of the blocks that are marked done, z,y,x or y,x; in volumes about cubes, as a"
        " single slice teaches next to nothing",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--diameter",
        type=float,
        help="of a cell, about, in um (pixels where the voxel size is unknown), the window's first"
        " box; default what it was, or as it is measured in the image",
    )
    size.add_argument("--radius", type=float, help="half of the diameter, instead of it")


def run(options: argparse.Namespace) -> int:
    """Opens the window; returns the exit status when it is closed."""
    cache.keep_programs()
    diameter = options.diameter
    check_diameter(diameter)
    window.run(
        options.image,
        selection=Selection.from_arguments(options),
        model=options.model,
        block=options.block,
        points_unit=options.points_unit,
        radius=options.radius if diameter is None else diameter / 2,
    )
    return 0
