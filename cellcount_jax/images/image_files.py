"""Image files read and written as a whole: images, instance labels, masks and drawn dots.

A reader gives all of a file or an `InputError` that names it; a writer leaves the whole new file
or the old one. Parts of a file are read by `sources.py`, dots in CSV files by `points.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.png import write_png
from cellcount_jax.images.regions import all_of, size_text
from cellcount_jax.images.selection import WHOLE_FILE, Selection
from cellcount_jax.images.sources import open_source
from cellcount_jax.images.tiff import write_tiff

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")  # of the formats that are written


class Image(NamedTuple):
    """An image or volume from a file.

    Attributes:
      pixels: `(*spatial, channels)` float32, intensities as stored, finite.
      spacing: `(D,)` voxel edges in micrometres; None where the file does not give all.
    """

    pixels: np.ndarray
    spacing: tuple[float, ...] | None


def read_image(path: str | os.PathLike[str], selection: Selection = WHOLE_FILE) -> Image:
    """Reads all pixels of an image or volume of any format that `open_source` opens.

    Args:
      path: an image file, a Zarr folder or the address of one.
      selection: the part of it that is used; default: all of what has one time point.

    Returns:
      Pixels with the channels last, and voxel size.

    Raises:
      InputError: as `open_source` and `Source.read`.
    """
    with open_source(path, selection) as source:
        return Image(source.read(all_of(source.shape)), source.spacing)


def read_instance_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads instance labels: 0 is background, every cell has its own number.

    Args:
      path: an image file with one channel of non-negative integers.

    Returns:
      `(*spatial)` int32.

    Raises:
      InputError: as `read_image`; or several channels, other than integers, negative.
    """
    with open_source(path) as source:
        if source.channels != 1 or source.dtype.kind not in "ui":
            raise InputError(
                f"{path}: {source.channels} channel(s) of type {source.dtype}; instance labels are"
                " one channel of integers."
            )
        labels = source.read_labels(all_of(source.shape))
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: labels from {labels.min()} to {labels.max()}; 0 to 2147483647 is allowed."
        )
    return labels.astype(np.int32)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a mask: a voxel is in it where any channel (apart from opacity) is not zero.

    Args:
      path: an image file.

    Returns:
      `(*spatial)` bool.

    Raises:
      InputError: as `open_source` and `Source.read_mask`.
    """
    with open_source(path) as source:
        return source.read_mask(all_of(source.shape))


def read_dots(
    path: str | os.PathLike[str],
    *,
    rule: Literal["red", "boolean"],
    shape: Sequence[int] | None = None,
) -> np.ndarray:
    """Reads dots that are drawn in an image: each pixel that is set is one dot.

    Touching pixels are different cells: only so do the counts of VGG (74 to 317 an image) and
    MBM come out, where cells lie on top of each other.

    Args:
      path: the dot image, 2D.
      rule: 'red': RGB, a dot is a non-zero pixel of the first channel (VGG); 'boolean': one
        channel, a dot is a non-zero pixel (MBM).
      shape: spatial shape of the image that the dots belong to, checked where given.

    Returns:
      `(N, 2)` float32 dots `y, x`, in reading order.

    Raises:
      InputError: as `read_image`; or another shape or number of channels, or several grey
        levels, which a dot image has not.
    """
    pixels = read_image(path).pixels
    channels = {"red": 3, "boolean": 1}[rule]
    if pixels.ndim != 3 or pixels.shape[-1] != channels:
        raise InputError(
            f"{path}: an array of {size_text(pixels.shape)}; a dot image is 2D with {channels}"
            " channel(s)."
        )
    if shape is not None and pixels.shape[:-1] != tuple(shape):
        raise InputError(
            f"{path}: the dot image is {size_text(pixels.shape[:-1])}, its image"
            f" {size_text(shape)}."
        )
    dots = pixels[..., 0]
    levels = np.unique(dots[dots != 0])
    if len(levels) > 1:
        raise InputError(
            f"{path}: {len(levels)} different grey levels; in a dot image a pixel is set or not."
        )
    return np.argwhere(dots != 0).astype(np.float32)


def write_image(
    path: str | os.PathLike[str],
    array: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    ndim: int | None = None,
) -> None:
    """Writes an image or volume, all or nothing, so that `read_image` gives it back.

    Args:
      path: ends in .tif or .tiff (ImageJ TIFF: uint8, uint16, float32; other integers where
        they fit into 16 bits; bool as 0 and 1) or .png (2D, 1 or 3 channels of uint8, or one
        of uint16 or bool). The folder is created where missing.
      array: `(*spatial)` or `(*spatial, channels)`.
      spacing: `(D,)` voxel edges in micrometres; TIFF only.
      ndim: spatial dimensions; needed only for a TIFF of three axes without a spacing, which
        could be either.

    Raises:
      InputError: the format cannot hold the array or the spacing.
    """
    path = Path(path)
    array = np.asarray(array)
    suffix = _image_suffix(path)
    if ndim is None and spacing is not None:
        ndim = len(spacing)
    if ndim is None:
        ndim = 2 if suffix == ".png" else {2: 2, 4: 3}.get(array.ndim, 0)
    fits = ndim in (2, 3) and array.ndim in (ndim, ndim + 1) and array.size > 0
    if not fits or (spacing is not None and len(spacing) != ndim):
        raise InputError(
            f"{path}: an array of {size_text(array.shape)} with spacing {spacing} and"
            f" {ndim or 'unknown'} spatial dimensions cannot be written; give an image of 2 or a"
            " volume of 3, with or without channels, and ndim where it could be either."
        )
    channels_last = array if array.ndim == ndim + 1 else array[..., None]
    if suffix != ".png":
        write_tiff(path, channels_last, spacing=spacing)
    elif spacing is None:
        write_png(path, channels_last)
    else:
        raise InputError(f"{path}: a PNG file holds no voxel size; use .tif.")


def _image_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: the name of an image must end in {', '.join(IMAGE_SUFFIXES)}.")
    return suffix
