"""Checks that a TIFF file has all of its pixels, by its headers and by what tifffile logs.

tifffile logs the damage that it finds and fills the gaps with zeros. Here each of its warnings is
an error, since zeros would be counted as background.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import size_text

# How much shorter than its pixels a page can be at most, by its compression: none, LZW, deflate
# and its older number, PackBits. A header that promises more would ask for any memory.
_COMPRESSED_BY = {1: 1, 5: 4096, 8: 1100, 32946: 1100, 32773: 64}
_MAX_TAGS = 4096  # of a page; tifffile finds what has more damaged


@contextlib.contextmanager
def no_complaints(path: Path) -> Iterator[None]:
    """Makes an error of what tifffile logs, from warnings up, while the block reads a file.

    Args:
      path: of the file.

    Raises:
      InputError: at the end of the block, with the first complaint.
    """
    messages: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    level, disabled = logger.level, logger.disabled
    logger.addFilter(collect)
    logger.setLevel(logging.WARNING)
    logger.disabled = False
    try:
        yield
    finally:
        logger.removeFilter(collect)
        logger.setLevel(level)
        logger.disabled = disabled
    if messages:
        raise InputError(
            f"{path}: damaged or not a regular TIFF file ({_plain(messages[0])}); save it again,"
            " for example with ImageJ."
        )


def _plain(message: str) -> str:
    """A library's message without the object that it begins with, and without a full stop."""
    return re.sub(r"^<.*?>\s+", "", message.strip()).rstrip(".")


def check_chain(path: Path) -> None:
    """Follows the headers of the pages, each of which has the place of the next one.

    In a circle of them tifffile may go round until the memory is full, and one without tags is
    the end to it, though a copy that left out a part of a file has zeros there.

    Args:
      path: of the file; what is no TIFF file is passed over, and so is what ends too early.

    Raises:
      InputError: a circle, or a header without tags.
    """
    with open(path, "rb", buffering=0) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(16).ljust(16, b"\0")
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "<")
        (version,) = struct.unpack(f"{order}H", head[2:4])
        if version not in (42, 43):
            return
        count, entry, pointer, first = ("H", 12, "I", 4) if version == 42 else ("Q", 20, "Q", 8)
        count, pointer = f"{order}{count}", f"{order}{pointer}"
        (offset,) = struct.unpack_from(pointer, head, first)
        seen: dict[int, int] = {}
        while 0 < offset < size:
            if offset in seen:
                raise InputError(
                    f"{path}: damaged: behind page {len(seen)} page {seen[offset]} follows again,"
                    " in a circle; save it anew."
                )
            seen[offset] = len(seen) + 1
            file.seek(offset)
            found = file.read(struct.calcsize(count))
            if len(found) < struct.calcsize(count):
                return
            (tags,) = struct.unpack(count, found)
            if tags == 0:
                raise InputError(
                    f"{path}: damaged: the header of page {len(seen)} has no tags; copy it again."
                )
            if tags > _MAX_TAGS:
                return
            file.seek(entry * tags, 1)
            found = file.read(struct.calcsize(pointer))
            if len(found) < struct.calcsize(pointer):
                return
            (offset,) = struct.unpack(pointer, found)


def only_series(tiff: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    """The one image of a file.

    Args:
      tiff: the open file.
      path: its path, for errors.

    Raises:
      InputError: there is none, or several; or pages that the OME text
        does not describe as it should.
    """
    series = tiff.series
    if not series:
        raise InputError(f"{path}: a TIFF file without an image in it.")
    if len(series) > 1:
        sizes = ", ".join(size_text(one.shape) for one in series[:4])
        raise InputError(
            f"{path}: holds {len(series)} images ({sizes}); save the one to use on its own."
        )
    text = tiff.pages.first.description[:1000]
    of_ome = re.search(r"<(\w+:)?OME\b", text)
    # Without usable metadata tifffile takes the pages for any.
    if of_ome and series[0].kind in ("uniform", "generic") and len(series[0]) > 1:
        elsewhere = re.search(r'BinaryOnly\b[^>]*MetadataFile="([^"]*)"', text)
        where = f"are in {elsewhere[1]}" if elsewhere else "are damaged"
        raise InputError(
            f"{path}: which planes or channels its {len(series[0])} pages are is not known, since"
            f" its OME metadata {where}; save all of it as one OME-TIFF or ImageJ TIFF."
        )
    return series[0]


def check_complete(series: tifffile.TiffPageSeries, path: Path) -> None:
    """Compares what the headers promise with what the file has."""
    for number, page in enumerate(series.pages):
        if page is None:
            raise InputError(f"{path}: plane {number + 1} of {len(series.pages)} is missing.")
        first = series.keyframe
        needed = _stored_bytes(first)
        stored = sum(page.databytecounts)
        if (
            len(page.dataoffsets) != math.prod(first.chunked)
            or not all(page.databytecounts)
            or not all(page.dataoffsets)
            or stored < needed
        ):
            raise InputError(
                f"{path}: the header of plane {number + 1} does not fit its pixels: it promises"
                f" {first.nbytes} bytes, and {stored} are stored."
            )
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
        _check_end(max(ends), page, path)
    if series.dataoffset is not None:
        _check_end(series.dataoffset + series.nbytes, series.keyframe, path)


def _check_end(end: int, page: Any, path: Path) -> None:
    size = page.parent.filehandle.size
    if end > size:
        raise InputError(
            f"{path}: the file is truncated: its pixels reach to byte {end}, it has {size}."
        )


def _stored_bytes(page: tifffile.TiffPage) -> int:
    """How many bytes the pixels of a page take at least; 0 where that is not known."""
    shorter = _COMPRESSED_BY.get(int(page.compression))
    if shorter is None or page.is_subsampled:
        return 0
    width, rows = page.imagewidth, page.imagelength
    if page.is_tiled:
        width = page.tilewidth * math.ceil(width / page.tilewidth)
        rows = page.tilelength * math.ceil(rows / page.tilelength)
    together = page.samplesperpixel if page.planarconfig == 1 else 1
    row_bytes = math.ceil(width * together * page.bitspersample / 8)
    return row_bytes * rows * page.imagedepth * page.samplesperpixel // together // shorter
