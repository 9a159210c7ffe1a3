"""Dots in the files of many programs, told apart by their names' endings.

CSV files are read by `points.py`; here are those of other programs, which are always in voxels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.exports import is_markers, read_cellfinder
from cellcount_jax.images.files import existing_file
from cellcount_jax.images.image_files import read_instance_labels
from cellcount_jax.images.imagej_rois import holds_rois, read_rois
from cellcount_jax.images.imagej_stack import Stack
from cellcount_jax.images.labelled_cells import cells_of_labels
from cellcount_jax.images.openers import SOURCE_SUFFIXES
from cellcount_jax.images.qupath_points import read_geojson
from cellcount_jax.images.zarr_stores import is_zarr

TABLE = ".csv"
# Of points of other programs; of images there may be labels.
FOREIGN = (".xml", ".roi", ".zip", ".geojson")
SUFFIXES = (TABLE, *FOREIGN)


def is_foreign(path: Path) -> bool:
    """Whether points are a file of another program than a table."""
    return path.suffix.lower() != TABLE


def holds_dots(path: Path) -> bool:
    """Whether a file of a folder is one of dots, by the ending of its name and what is in it.

    XML files of microscopes and zip files of models and images are none.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        return False
    try:
        if suffix == ".xml":
            return is_markers(path)
        return suffix != ".zip" or holds_rois(path)
    except OSError:
        return True  # which reading it tells


def image_name(path: Path) -> str:
    """The name of the image that a file of dots is of, as the programs call the files.

    ImageJ's cell counter writes CellCounter_a.xml for a.tif, Cellpose a_rois.zip.
    """
    name = path.stem
    if path.suffix.lower() == ".xml" and name != "CellCounter_":
        name = name.removeprefix("CellCounter_")
    elif path.suffix.lower() == ".zip" and name not in ("_rois", "_RoiSet"):
        name = name.removesuffix("_rois").removesuffix("_RoiSet")
    return name


def read_foreign(path: Path, *, ndim: int, stack: Stack | None = None) -> np.ndarray:
    """Reads the dots of a file of another program, or the middles of instance labels.

    Args:
      path: ImageJ's .roi or .zip, markers of ImageJ's cell counter or cellfinder, QuPath's
        .geojson, or an image of instance labels.
      ndim: spatial dimensions of the image.
      stack: of the image; None = not known, and a slice of ImageJ is a plane.

    Returns:
      `(N, ndim)` float32 dots in voxels.

    Raises:
      InputError: a file that cannot be read, or of none of these formats.
    """
    match path.suffix.lower():
        case ".xml":
            return read_cellfinder(path, ndim=ndim, stack=stack)
        case ".roi":
            return read_rois(path, ndim=ndim, stack=stack)
        case ".zip" if not is_zarr(path):
            return read_rois(path, ndim=ndim, stack=stack)
        case ".geojson" | ".json":
            return read_geojson(path, ndim=ndim, time=stack.time if stack else 0)
    if path.suffix.lower() in SOURCE_SUFFIXES or is_zarr(path):
        labels = read_instance_labels(path)
        if labels.ndim != ndim:
            raise InputError(f"{path}: has {labels.ndim} dimensions, {ndim} are needed.")
        return cells_of_labels(labels, path).astype(np.float32)
    existing_file(path)
    raise InputError(
        f"{path}: dots are in a table ({TABLE}), ImageJ's .roi or .zip, .xml of its cell counter or"
        " cellfinder, QuPath's .geojson, or an image of instance labels."
    )
