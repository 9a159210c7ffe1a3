"""Checks that a TIFF file has all of its pixels, by its headers."""

from __future__ import annotations

import importlib.util
import math
import re
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.stored import choose_scene

# How much shorter than its pixels a page can be at most, by its compression: none, LZW, deflate
# and its older number, PackBits. A header that promises more would ask for any memory.
_COMPRESSED_BY = {1: 1, 5: 4096, 8: 1100, 32946: 1100, 32773: 64}
_MAX_TAGS = 4096  # of a page; tifffile finds what has more damaged


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


def check_ome_sizes(tiff: tifffile.TiffFile, path: Path, *, linked: bool) -> None:
    """Compares the sizes that the OME text has with the pages, before tifffile makes room for them.

    Args:
      tiff: the open file; one without OME metadata is passed over, and so is a text that is not
        understood.
      path: its path, for errors.
      linked: whether planes are in other files too; their number is not compared then.

    Raises:
      InputError: more planes than pages, or planes of another width or height.
    """
    if not tiff.is_ome:
        return
    pages = len(tiff.pages)
    for x, y, planes, place in _ome_sizes(tiff.ome_metadata or ""):
        page = tiff.pages[place if place < pages else 0].aspage()
        if (x, y) != (page.imagewidth, page.imagelength):
            raise InputError(
                f"{path}: its OME metadata promise planes of {y} x {x} pixels, and page"
                f" {place + 1} has {page.imagelength} x {page.imagewidth}; save it anew."
            )
        planes //= page.samplesperpixel * page.imagedepth
        if planes > pages and not linked:
            raise InputError(
                f"{path}: plane {pages + 1} of {planes} is missing: its OME metadata promise so"
                f" many, and it has {pages} page(s); copy it again."
            )


def _ome_sizes(text: str) -> list[tuple[int, int, int, int]]:
    """Width, height, planes and first page of each image in an OME text that is understood."""
    sizes = []
    try:
        for pixels in ElementTree.fromstring(text).iterfind(".//{*}Pixels"):
            x, y, *others = (int(pixels.attrib[f"Size{axis}"]) for axis in "XYZCT")
            pieces = pixels.findall("{*}TiffData")
            first = int(pieces[0].get("IFD", 0)) if pieces else 0
            counts = (int(one.get("PlaneCount", one.get("NumPlanes", 0))) for one in pieces)
            sizes.append((x, y, max([math.prod(others), *counts]), max(first, 0)))
    except (ElementTree.ParseError, KeyError, ValueError):
        return []
    return sizes


def check_codec(page: tifffile.TiffPage, path: Path) -> None:
    """Checks that the pixels of a page can be decoded with what is installed.

    Args:
      page: the first one of an image.
      path: its file, for errors.

    Raises:
      InputError: the package imagecodecs is needed and missing, or the compression is unknown.
    """
    missing = importlib.util.find_spec("imagecodecs") is None
    codec = page.compression
    known = codec in tifffile.TIFF.DECOMPRESSORS
    if codec not in tifffile.TIFF.IMAGE_COMPRESSIONS:
        # tifffile itself takes numbers of these sizes out of their bytes.
        unpacked = not missing or page.bitspersample in (1, 8, 16, 32, 64)
        known = known and unpacked and page.predictor in tifffile.TIFF.UNPREDICTORS
    if known:
        return
    name = getattr(codec, "name", str(codec)).replace("_", " ")
    what = f"of {page.bitspersample}-bit numbers" if codec == 1 else f"compressed with {name}"
    what += f" and predictor {page.predictor}" if page.predictor != 1 else ""
    what = what[:80]  # a damaged tag is long
    if missing:
        raise InputError(
            f"{path}: is {what}, for which a package is not installed: pip install imagecodecs. Or"
            " save it without compression."
        )
    raise InputError(f"{path}: is {what}, which cannot be read; save it without compression.")


def choose_series(tiff: tifffile.TiffFile, path: Path, scene: int | str | None) -> int:
    """The number of the image to use in a file.

    Args:
      tiff: the open file.
      path: its path, for errors.
      scene: number or name of one of several images; None = the only one.

    Raises:
      InputError: there is none, or no such one; several, and none is chosen or the OME text
        describes another number; or pages that the OME text does not describe as it should.
    """
    if not tiff.series:
        raise InputError(f"{path}: a TIFF file without an image in it.")
    names = [series.name or size_text(series.shape) for series in tiff.series]
    number = choose_scene(scene, names, path)
    chosen = tiff.series[number]
    described = len(re.findall(r"<(?:\w+:)?Pixels\b", tiff.ome_metadata or ""))
    if tiff.is_ome and len(names) > 1 and described != len(names):
        raise InputError(
            f"{path}: holds {len(names)} images, but its OME metadata describe {described}; save"
            " the one to use on its own."
        )
    text = tiff.pages.first.description[:1000]
    of_ome = re.search(r"<(\w+:)?OME\b", text)
    # Without usable metadata tifffile takes the pages for any.
    if of_ome and chosen.kind in ("uniform", "generic") and len(chosen) > 1:
        elsewhere = re.search(r'BinaryOnly\b[^>]*MetadataFile="([^"]*)"', text)
        where = f"are in {elsewhere[1]}" if elsewhere else "are damaged"
        raise InputError(
            f"{path}: which planes or channels its {len(chosen)} pages are is not known, since"
            f" its OME metadata {where}; save all of it as one OME-TIFF or ImageJ TIFF."
        )
    return number


def check_complete(series: tifffile.TiffPageSeries, path: Path) -> None:
    """Compares what the headers promise with what the files have."""
    first = series.keyframe
    needed = _stored_bytes(first)
    for number, page in enumerate(series.pages):
        if page is None:
            raise InputError(f"{path}: plane {number + 1} of {len(series.pages)} is missing.")
        place = file_of(page, path) if series.is_multifile else path
        if series.is_multifile and page.hash != first.hash:
            raise InputError(
                f"{place}: plane {number + 1} of {len(series.pages)} has another size, type or"
                f" compression than the first one, in {path.name}; save the image as one file."
            )
        stored = sum(page.databytecounts)
        if (
            len(page.dataoffsets) != math.prod(first.chunked)
            or not all(page.databytecounts)
            or not all(page.dataoffsets)
            or stored < needed
        ):
            raise InputError(
                f"{place}: the header of plane {number + 1} does not fit its pixels: it promises"
                f" {first.nbytes} bytes, and {stored} are stored."
            )
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
        _check_end(max(ends), page, place)
    if series.dataoffset is not None:
        _check_end(series.dataoffset + series.nbytes, series.keyframe, path)


def file_of(page: Any, path: Path) -> Path:
    """The file of a page.

    Args:
      page: of the file or of one that is linked with it.
      path: the file, as its errors name it.

    Returns:
      Its path, beside `path` where it lies there.
    """
    place = Path(page.parent.filehandle.path)
    return path.parent / place.name if place.parent == path.parent.absolute() else place


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
