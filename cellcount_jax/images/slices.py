"""A folder of 2D images that together are a volume: one file a plane, read plane by plane."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.axes import remedy
from cellcount_jax.images.png import open_png, png_header
from cellcount_jax.images.slice_names import in_order
from cellcount_jax.images.stored import Stored, naming, spatial_axes
from cellcount_jax.images.tiff import open_tiff

_SUFFIXES = (".tif", ".tiff", ".png")


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """The sort key by which s2.tif stands before s10.tif.

    Args:
      path: a file.

    Returns:
      A key for `sorted`: numbers compare as numbers, then the rest as text.
    """
    parts = re.split(r"(\d+)", path.name.casefold())
    # Numbers stand at the odd places; the name itself decides between s1 and s01.
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], path.name


def slice_files(folder: Path) -> list[Path]:
    """The TIFF and PNG files of a folder in natural order; those that begin with a dot are not.

    Args:
      folder: an existing folder.

    Returns:
      The files.
    """
    found = (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    return sorted((p for p in found if p.is_file() and p.name[0] != "."), key=natural_order)


def open_slices(folder: Path) -> Stored:
    """Opens a folder of 2D images as one volume, z by the number in their names.

    Args:
      folder: with TIFF or PNG files, one a plane, or one a plane and channel; other files in it
        are ignored.

    Returns:
      The volume as stored. The y and x edges are those of the first slice; no slice has that of z.

    Raises:
      InputError: fewer than two slices, TIFF beside PNG files, names of which `in_order` does not
        make one volume, a slice that is not 2D or not of the first one's shape and type, or that
        cannot be read.
    """
    with naming(folder, "a folder of slices"):
        files = slice_files(folder)
        if len(files) < 2:
            raise InputError(
                f"{folder}: {len(files)} TIFF or PNG file(s) in the folder; a volume of slices has"
                " two or more."
            )
        kind = _kind(files[0])
        for path in files:
            if _kind(path) != kind:
                raise InputError(
                    f"{path}: a {_kind(path)} file among {kind} slices ({files[0].name}); a volume"
                    " is of one format. If it is no slice, put it elsewhere."
                )
        planes, channels = in_order(files)
        files = [path for plane in planes for path in plane]
        first = _open_slice(files[0])
        first.close()
        for path in files[1:]:
            if kind == "PNG":
                same, found = png_header(path) == png_header(files[0]), "the PNG header differs"
            else:
                other = _open_slice(path)
                other.close()
                same, found = _layout(other) == _layout(first), _in_words(other)
            if not same:
                raise InputError(
                    f"{path}: is not like the first slice {files[0].name} ({_in_words(first)}):"
                    f" {found}."
                )
        if channels and set(first.axes) & set("CS"):
            raise InputError(
                f"{folder}: its slices have channels in their files ({_in_words(first)}) and in"
                f" their names ({', '.join(channels)}); put each channel in a folder of its own."
            )
    grid = np.array(planes, dtype=object)
    array = _Slices(grid if channels else grid[:, 0], first)
    return Stored(
        array=array,
        axes=("ZC" if channels else "Z") + first.axes,
        kind=f"folder of {len(files)} {kind} slices ({files[0].name} to {files[-1].name})",
        voxel={axis: edge for axis, edge in first.voxel.items() if axis in "YX"},
        voxel_source=first.voxel_source,
        voxel_unread=first.voxel_unread,
        alpha=first.alpha,
        channel_names=channels or first.channel_names,
        chunks=(*(1,) * array.files.ndim, *(first.chunks or first.array.shape)),
        files=tuple(files),
    )


class _Slices:
    """The slices as one array."""

    def __init__(self, files: np.ndarray, first: Stored):
        self.files = files  # by z, or z and channel
        self.shape: tuple[int, ...] = (*files.shape, *first.array.shape)
        self.dtype = np.dtype(first.array.dtype)
        self._first = first

    def __getitem__(self, index: tuple[int | slice, ...], /) -> np.ndarray:
        number = self.files.ndim
        chosen = self.files[index[:number]]
        if isinstance(chosen, Path):
            return self._read(chosen, index[number:])
        parts = [self._read(path, index[number:]) for path in chosen.flat]
        return np.reshape(parts, chosen.shape + parts[0].shape)

    def _read(self, path: Path, index: tuple[int | slice, ...]) -> np.ndarray:
        opened = _open_slice(path)
        try:
            if _layout(opened) != _layout(self._first):  # files change, and palettes are late
                raise InputError(
                    f"{path}: is not like the first slice {self.files.flat[0].name}"
                    f" ({_in_words(self._first)}): {_in_words(opened)}."
                )
            # A copy, since the file is closed before its memory map is used.
            return np.array(opened.array[index])
        finally:
            opened.close()


def _open_slice(path: Path) -> Stored:
    if _kind(path) == "PNG":
        stored = open_png(path)
    else:
        stored = open_tiff(path)
    try:
        if spatial_axes(stored, path) != "YX" or "T" in stored.axes:
            hint = remedy(stored.axes, stored.array.shape, ndim=3)
            hint = f" Or, if each file is a volume, give {hint}." if hint else ""
            raise InputError(
                f"{path}: axes {_in_words(stored)}; a slice is a 2D image (y, x, and channels)."
                f"{hint}"
            )
    except InputError:
        stored.close()
        raise
    return stored


def _kind(path: Path) -> str:
    return "PNG" if path.suffix.lower() == ".png" else "TIFF"


def _layout(stored: Stored) -> tuple[Any, ...]:
    # Bytes of either order are one type.
    dtype = np.dtype(stored.array.dtype).newbyteorder("=")
    return stored.axes, tuple(stored.array.shape), dtype, stored.alpha


def _in_words(stored: Stored) -> str:
    sizes = zip(stored.axes, stored.array.shape, strict=True)
    return ", ".join(f"{axis} of {n}" for axis, n in sizes) + f", {stored.array.dtype}"
