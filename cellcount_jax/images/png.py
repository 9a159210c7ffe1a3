"""PNG files: pixels to and from arrays, with nothing lost on the way."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import RawImage, existing_file, replacing
from cellcount_jax.images.stored import Stored, naming

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
    content = path.read_bytes()
    if len(content) < 26 or not content.startswith(_SIGNATURE):
        raise InputError(f"{path}: is not a PNG file, or is truncated.")
    bit_depth, colour_type = content[24:26]
    if bit_depth == 16 and colour_type != 0:
        raise InputError(
            f"{path}: 16 bits a colour channel, of which the PNG reader keeps 8; save it as TIFF."
        )
    if b"PLTE" not in _chunks(content, path) and colour_type == 3:
        raise InputError(f"{path}: damaged, its palette is missing; save it anew.")
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


def _chunks(content: bytes, path: Path) -> set[bytes]:
    """The kinds of parts that a PNG file has, if all are whole; of pixels Pillow does not look."""
    place, kind, kinds = len(_SIGNATURE), b"", set()
    while kind != b"IEND":
        length, kind = content[place : place + 4], content[place + 4 : place + 8]
        check = place + 8 + int.from_bytes(length)
        if check + 4 > len(content):
            raise InputError(
                f"{path}: the file is truncated: it ends at byte {len(content)}, without the mark"
                " of its end."
            )
        stored = int.from_bytes(content[check : check + 4])
        if zlib.crc32(memoryview(content)[place + 4 : check]) != stored:
            raise InputError(
                f"{path}: damaged: the checksum of its {kind.decode('latin1')} part at byte"
                f" {place} is wrong; copy it again."
            )
        kinds.add(kind)
        place = check + 4
    return kinds


def _true_colour(picture: PIL.Image.Image) -> PIL.Image.Image:
    if "transparency" in picture.info:
        return picture.convert("RGBA")
    return picture.convert("RGB") if picture.mode == "P" else picture


def open_png(path: Path) -> Stored:
    """Reads a PNG file, whole: the format has no other way.

    Args:
      path: the file.

    Returns:
      The image as stored.

    Raises:
      InputError: as `png.read_png`.
    """
    with naming(path, "a PNG file"):
        raw = read_png(existing_file(path))
    return Stored(raw.pixels, raw.axes, "PNG", alpha=raw.alpha)
