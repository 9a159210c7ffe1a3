"""The opener of a file or folder, by its name and content; .npy and vendors' files are opened here.

TIFF, PNG, Zarr and folders of slices have modules of their own.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file
from cellcount_jax.images.ome_zarr import is_zarr, open_zarr
from cellcount_jax.images.png import open_png
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.slices import open_slices
from cellcount_jax.images.stored import Stored, check_level, naming
from cellcount_jax.images.tiff import open_tiff

VENDOR_SUFFIXES = (".czi", ".nd2", ".lif")
SOURCE_SUFFIXES = (".tif", ".tiff", ".png", ".npy", *VENDOR_SUFFIXES)


def open_stored(path: Path, *, level: int = 0, as_slices: bool = False) -> Stored:
    """Opens a file or folder by its format, without choosing anything of it.

    Args:
      path: as for `open_source`.
      level: of a pyramid; 0 is the finest.
      as_slices: the path is a folder of slices.

    Returns:
      The array as stored; close it.

    Raises:
      InputError: as `open_source`.
    """
    if is_zarr(path):
        return open_zarr(path, level=level)
    if path.is_dir() and as_slices:
        check_level(level, 1, path)
        return open_slices(path)
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder, and no Zarr array or image; give its files, or open a folder of"
            " 2D slices as a volume."
        )
    suffix = path.suffix.lower()
    if suffix not in SOURCE_SUFFIXES:
        raise InputError(
            f"{path}: the name of an image must end in {', '.join(SOURCE_SUFFIXES)} or be a .zarr"
            " folder."
        )
    if suffix in (".tif", ".tiff"):
        return open_tiff(path, level=level)
    check_level(level, 1, path)
    if suffix == ".png":
        return open_png(path)
    return _open_npy(path) if suffix == ".npy" else open_vendor(path)


def short_name(path: Path) -> str:
    """A file's or folder's name without the ending of its format.

    Args:
      path: for example `brain.ome.tif` or `brain.ome.zarr/`.

    Returns:
      For example `brain`, which the files beside it begin with.
    """
    name = (path if path.name.strip(".") else path.resolve()).name
    for ending in (*SOURCE_SUFFIXES, ".zarr"):
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
            break
    return name[:-4] if name.lower().endswith(".ome") and len(name) > 4 else name


def _open_npy(path: Path) -> Stored:
    with naming(path, "a .npy file"), warnings.catch_warnings():
        warnings.simplefilter("error")  # of shapes that overflow
        array = np.load(existing_file(path), mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise InputError(f"{path}: holds several arrays; save one with numpy.save.")
    axes = {2: "YX", 3: "ZYX"}.get(array.ndim)
    if axes is None:
        raise InputError(
            f"{path}: an array of {array.ndim} axes ({size_text(array.shape)}); 2 (y, x)"
            " or 3 (z, y, x) are needed. Save one channel and time point, or use TIFF."
        )
    return Stored(array, axes, ".npy array")


def open_vendor(path: Path) -> Stored:
    """Opens the one image of a CZI, ND2 or LIF file.

    Args:
      path: the file.

    Returns:
      The image as stored; read chunk by chunk.

    Raises:
      InputError: bioio or its part for the format is not installed; several images (scenes) in
        the file; or what bioio cannot read.
    """
    existing_file(path)
    suffix = path.suffix.lower()[1:]
    try:
        bioio = importlib.import_module("bioio")
        reader = importlib.import_module(f"bioio_{suffix}").Reader
    except ImportError as error:
        raise InputError(
            f"{path}: a .{suffix} file needs packages that are not installed: pip install bioio"
            f" bioio-{suffix}. Or save it as OME-TIFF."
        ) from error
    with naming(path, f"a {suffix.upper()} file"):
        image = bioio.BioImage(path, reader=reader)
        if len(image.scenes) != 1:
            raise InputError(
                f"{path}: holds {len(image.scenes)} images ({', '.join(image.scenes[:4])}); save"
                " the one to use on its own, for example as OME-TIFF."
            )
        edges = image.physical_pixel_sizes
        array = image.dask_data
        return Stored(
            array=array,
            axes=str(image.dims.order),
            kind=suffix.upper(),
            voxel={axis: float(edge) for axis, edge in zip("ZYX", edges, strict=True) if edge},
            voxel_source=f"{suffix.upper()} metadata",
            channel_names=tuple(map(str, image.channel_names or ())),
            chunks=tuple(array.chunksize),
        )
