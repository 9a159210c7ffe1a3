"""PNG files: pixels to and from arrays, with nothing lost on the way."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import PIL.Image

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file, replacing
from cellcount_jax.images.stored import Stored, naming

_HEADER_BYTES = 26  # up to the colour type


def open_png(path: Path) -> Stored:
    """Reads a PNG file, all of it: the format has no other way. Palettes become their colours.

    Args:
      path: the file.

    Returns:
      The image, of uint8, uint16 or bool; without a voxel size, which PNG does not have.

    Raises:
      InputError: not a PNG file, truncated, damaged, animated, or 16 bits a colour channel.
    """
    existing_file(path)
    with naming(path, "a PNG file"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large images
        try:
            with PIL.Image.open(path, formats=("PNG",)) as picture:
                picture.verify()  # the checksums, which `load` does not look at
        except PIL.UnidentifiedImageError as error:
            raise InputError(
                f"{path}: is not a PNG file, or is damaged at its beginning."
            ) from error
        *_, bit_depth, colour_type = png_header(path)
        if bit_depth == 16 and colour_type != 0:
            raise InputError(
                f"{path}: 16 bits a colour channel, of which the PNG reader keeps 8; save it as"
                " TIFF."
            )
        with PIL.Image.open(path, formats=("PNG",)) as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                raise InputError(f"{path}: an animation of {frames} pictures; one is needed.")
            if picture.mode == "P" and picture.palette is None:  # Pillow would make one up
                raise InputError(f"{path}: damaged, its palette is missing; save it anew.")
            picture.load()
            pixels = np.asarray(_true_colour(picture))
    alpha = pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
    return Stored(pixels, "YXS"[: pixels.ndim], "PNG", alpha=alpha)


def png_header(path: Path) -> bytes:
    """Size, bit depth and colour type of a PNG file, without reading its pixels."""
    with existing_file(path).open("rb") as file:
        return file.read(_HEADER_BYTES)


def _true_colour(picture: PIL.Image.Image) -> PIL.Image.Image:
    if "transparency" in picture.info:
        return picture.convert("RGBA")
    return picture.convert("RGB") if picture.mode == "P" else picture


def write_png(path: Path, channels_last: np.ndarray) -> None:
    """Writes a PNG file, all or nothing.

    Args:
      path: the file.
      channels_last: `(y, x, 3)` uint8, or `(y, x, 1)` uint8, uint16 or bool.

    Raises:
      InputError: another shape or type.
    """
    pixels = channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    if not colour and (pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16, np.bool_)):
        raise InputError(
            f"{path}: a PNG file cannot hold {channels_last.shape} of {pixels.dtype}; use .tif."
        )
    with replacing(path) as temporary:
        PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")
