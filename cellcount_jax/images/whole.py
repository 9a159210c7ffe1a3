"""Files to arrays and back: images, labels, masks and dots, with the voxel size.

Every reader gives all of a file or an `InputError` that names it; every writer leaves the
whole new file or the old one. Points are in `points.py`; what is special to a format in
`tiff_checks.py` and `png.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import RawImage, existing_file
from cellcount_jax.images.png import read_png, write_png
from cellcount_jax.images.points import check_points_inside, read_points, write_points
from cellcount_jax.images.tiff import write_tiff
from cellcount_jax.images.tiff_checks import read_tiff

__all__ = [
    "IMAGE_SUFFIXES",
    "Image",
    "check_points_inside",
    "read_dots",
    "read_image",
    "read_labels",
    "read_mask",
    "read_points",
    "write_image",
    "write_points",
]

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")


class Image(NamedTuple):
    """An image or volume from a file.

    Attributes:
      pixels: `(*spatial, channels)` float32, intensities as stored, finite.
      spacing: `(D,)` voxel edges in micrometres; None where the file does not tell all.
      axes: the axes as read, for example "ZYX" or "YXS"; axes of length 1 are left out.
    """

    pixels: np.ndarray
    spacing: tuple[float, ...] | None
    axes: str


def read_image(path: str | os.PathLike[str]) -> Image:
    """Reads an image or a volume from a TIFF (plain, ImageJ, OME) or PNG file.

    Pages of a plain TIFF are the z axis. Axes of length 1 other than y and x are dropped, so a
    volume of one plane is an image. An alpha channel is dropped when it is opaque everywhere.

    Args:
      path: ends in .tif, .tiff or .png.

    Returns:
      Pixels with the channels last, voxel size and axes.

    Raises:
      InputError: missing, empty, truncated or of another format; more axes than z, y, x and
        channels; transparent pixels; NaN or infinite pixels.
    """
    path = existing_file(path)
    raw = _read_raw(path)
    stored = _channels_last(raw, path)
    if stored.dtype.kind not in "buif":
        raise InputError(f"{path}: pixels of type {stored.dtype}; real numbers are needed.")
    if raw.alpha:
        stored = without_alpha(stored, path)
    with np.errstate(over="ignore"):
        pixels = np.ascontiguousarray(stored, dtype=np.float32)
    if stored.dtype.kind == "f":
        bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
        if bad:
            raise InputError(
                f"{path}: {bad} of {pixels.size} pixels are NaN or infinite (or too large for"
                " 32-bit floats)."
            )
    spatial = "ZYX"[-(pixels.ndim - 1) :]
    known = all(axis in raw.voxel for axis in spatial)
    spacing = tuple(raw.voxel[axis] for axis in spatial) if known else None
    return Image(pixels, spacing, raw.axes)


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads instance labels: 0 is background, every cell has its own number.

    Args:
      path: an image file with one channel of non-negative integers.

    Returns:
      `(*spatial)` int32.

    Raises:
      InputError: as `read_image`; or several channels, other than integers, negative.
    """
    path = existing_file(path)
    pixels = _channels_last(_read_raw(path), path)
    if pixels.shape[-1] != 1 or pixels.dtype.kind not in "ui":
        raise InputError(
            f"{path}: {pixels.shape[-1]} channel(s) of type {pixels.dtype}; instance labels are"
            " one channel of integers."
        )
    if pixels.min() < 0 or pixels.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: labels from {pixels.min()} to {pixels.max()}; 0 to 2147483647 is allowed."
        )
    return np.ascontiguousarray(pixels[..., 0], dtype=np.int32)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a mask: a voxel is in it where any channel (apart from opacity) is not zero.

    Args:
      path: an image file.

    Returns:
      `(*spatial)` bool.

    Raises:
      InputError: as `read_image`.
    """
    inside: np.ndarray = np.any(read_image(path).pixels != 0, axis=-1)
    return inside


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
            f"{path}: an array of {_size(pixels.shape)}; a dot image is 2D with {channels}"
            " channel(s)."
        )
    if shape is not None and pixels.shape[:-1] != tuple(shape):
        raise InputError(
            f"{path}: the dot image is {_size(pixels.shape[:-1])}, its image {_size(shape)}."
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
            f"{path}: an array of {_size(array.shape)} with spacing {spacing} and"
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


def _read_raw(path: Path) -> RawImage:
    return read_png(path) if _image_suffix(path) == ".png" else read_tiff(path)


def _channels_last(raw: RawImage, path: Path) -> np.ndarray:
    """`(*spatial, channels)` of the stored type."""
    if not raw.pixels.size:
        raise InputError(f"{path}: holds no pixels (shape {raw.pixels.shape}).")
    sizes = list(zip(raw.axes, raw.pixels.shape, strict=True))
    kept = [(axis, size) for axis, size in sizes if size > 1 or axis in "YX"]
    letters = "".join(axis for axis, _ in kept)
    pixels = raw.pixels.reshape([size for _, size in kept])
    found = ", ".join(f"{axis} of {size}" for axis, size in kept)
    if "T" in letters:
        raise InputError(f"{path}: a time series ({found}); save one time point on its own.")
    depth = [axis for axis in letters if axis in "ZQI"]  # tifffile calls plain pages Q or I
    channel = [axis for axis in letters if axis in "CS"]
    order = [*depth, "Y", "X", *channel]
    if len(depth) > 1 or len(channel) > 1 or sorted(order) != sorted(letters):
        raise InputError(f"{path}: axes {found}; y, x and at most z and one for channels allowed.")
    pixels = pixels.transpose([letters.index(axis) for axis in order])
    return pixels if channel else pixels[..., None]


def without_alpha(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Channels without the last one, which is an opacity.

    Args:
      pixels: `(*spatial, channels)` of the stored type.
      path: of the file, for errors.

    Raises:
      InputError: some pixels are partly transparent.
    """
    opaque = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    transparent = int(np.count_nonzero(pixels[..., -1] != opaque))
    if transparent:
        raise InputError(
            f"{path}: {transparent} pixels are partly transparent; save it without an alpha"
            " channel."
        )
    return pixels[..., :-1]


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
