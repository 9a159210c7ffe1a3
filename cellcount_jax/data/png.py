"""PNG files: pixels to and from arrays, with nothing lost on the way."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import PIL.Image

from cellcount_jax.data.files import RawImage, replacing
from cellcount_jax.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_png(path: Path) -> RawImage:
    """Reads a PNG file; palettes become the colours that they stand for.

    Args:
      path: an existing file.

    Returns:
      The image, of uint8, uint16 or bool; without a voxel size, which PNG has not.

    Raises:
      InputError: not a PNG file, truncated, damaged, animated, or 16 bits a colour channel.
    """
    with open(path, "rb") as file:
        head = file.read(26)
    if len(head) < 26 or not head.startswith(_SIGNATURE):
        raise InputError(f"{path}: is not a PNG file, or is truncated.")
    bit_depth, colour_type = head[24:26]
    if bit_depth == 16 and colour_type != 0:
        raise InputError(
            f"{path}: 16 bits a colour channel, of which the PNG reader keeps 8; save it as TIFF."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images
            with PIL.Image.open(path, formats=("PNG",)) as picture:
                frames = getattr(picture, "n_frames", 1)
                if frames > 1:
                    raise InputError(f"{path}: an animation of {frames} pictures; one is needed.")
                picture.load()
                pixels = np.asarray(_true_colour(picture))
    except InputError:
        raise
    except Exception as error:  # damaged files raise anything, from OSError to struct.error
        raise InputError(f"{path}: cannot be read as a PNG file ({error}).") from error
    alpha = pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
    return RawImage(pixels, "YXS"[: pixels.ndim], {}, alpha)


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


def _true_colour(picture: PIL.Image.Image) -> PIL.Image.Image:
    if "transparency" in picture.info:
        return picture.convert("RGBA")
    return picture.convert("RGB") if picture.mode == "P" else picture
