"""The opener of a file, folder or address, by its name and content; .npy files are opened here.

TIFF, PNG, Zarr, folders of slices and files of microscope makers have modules of their own.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file
from cellcount_jax.images.ome_zarr import open_zarr
from cellcount_jax.images.png import open_png
from cellcount_jax.images.slices import open_slices
from cellcount_jax.images.stored import Stored, check_level, choose_scene, naming
from cellcount_jax.images.tiff import open_tiff
from cellcount_jax.images.vendor import VENDOR_SUFFIXES, open_vendor
from cellcount_jax.images.zarr_stores import ZARR_ENDINGS, is_zarr

SOURCE_SUFFIXES = (".tif", ".tiff", ".png", ".npy", *VENDOR_SUFFIXES)


def open_stored(
    path: Path, *, level: int = 0, scene: int | str | None = None, as_slices: bool = False
) -> Stored:
    """Opens a file or folder by its format, without choosing anything of it.

    Args:
      path: as for `open_source`.
      level: of a pyramid; 0 is the finest.
      scene: number or name of one of several images in the file; None = the only one.
      as_slices: the path is a folder of slices.

    Returns:
      The array as stored; close it.

    Raises:
      InputError: as `open_source`.
    """
    if is_zarr(path):
        return open_zarr(path, level=level, scene=scene)
    if path.is_dir() and as_slices:
        check_level(level, 1, path)
        choose_scene(scene, ("",), path)
        return open_slices(path)
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder, and no Zarr array or image; give its files, or open a folder of"
            " 2D slices as a volume."
        )
    suffix = path.suffix.lower()
    if suffix not in SOURCE_SUFFIXES:
        raise InputError(
            f"{path}: the name of an image must end in {', '.join(SOURCE_SUFFIXES)}, or be a .zarr"
            " folder or .zarr.zip."
        )
    if suffix in (".tif", ".tiff"):
        return open_tiff(path, level=level, scene=scene)
    check_level(level, 1, path)
    if suffix in VENDOR_SUFFIXES:
        return open_vendor(path, scene=scene)
    choose_scene(scene, ("",), path)
    return open_png(path) if suffix == ".png" else _open_npy(path)


def short_name(path: Path) -> str:
    """A file's or folder's name without the ending of its format.

    Args:
      path: for example `brain.ome.tif` or `brain.ome.zarr/`.

    Returns:
      For example `brain`, which the files beside it begin with.
    """
    name = (path if path.name.strip(".") else path.resolve()).name
    for ending in (*SOURCE_SUFFIXES, *ZARR_ENDINGS):
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
    axes = {2: "YX", 3: "ZYX"}.get(array.ndim, "?" * array.ndim)
    return Stored(array, axes, ".npy array")
