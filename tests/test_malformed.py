"""What is no image, or no model: one line that names the file, status 1, and no results.

Every case is a function that writes something malformed; the command counts it. The network is
tiny and untrained, since none of these may reach it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as PillowImage

from cellcount_jax import cli, variants
from cellcount_jax import config as settings
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source
from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.network.sau_net import initial_variables

pytestmark = pytest.mark.usefixtures("quick_compiling")


class Case(NamedTuple):
    """One malformed input."""

    write: Callable[[Path], Any]
    name: str  # of the input, in a folder of its own
    words: str  # that the error says
    options: tuple[str, ...]
    ndim: int  # of the model
    named: str  # what the error names


CASES: dict[str, Case] = {}
Writer = Callable[[Path], Any]


def malformed(
    name: str, words: str, *options: str, ndim: int = 2, named: str = ""
) -> Callable[[Writer], Writer]:
    """Registers a function that writes a malformed input at the path that it is given."""

    def register(write: Writer) -> Writer:
        add(write.__name__, write, name, words, *options, ndim=ndim, named=named)
        return write

    return register


def add(
    title: str, write: Writer, name: str, words: str, *options: str, ndim: int = 2, named: str = ""
) -> None:
    assert title not in CASES
    CASES[title] = Case(write, name, words, options, ndim, named or name)


def steps(*writers: Writer) -> Writer:
    """One after the other, at the same path."""

    def write(path: Path) -> None:
        for one in writers:
            one(path)

    return write


IMAGE = np.random.default_rng(0).integers(1, 250, (24, 20)).astype(np.uint16)
VOLUME = np.random.default_rng(1).integers(1, 250, (6, 24, 20)).astype(np.uint16)


def cut(path: Path, size: int) -> None:
    """Leaves the first bytes of a file; a negative number leaves out the last."""
    content = path.read_bytes()
    assert size < len(content)
    path.write_bytes(content[:size])


# --- TIFF: truncated

KINDS_OF_TIFF: dict[str, dict[str, Any]] = {
    "strips": {"metadata": None, "rowsperstrip": 4},
    "tiles": {"metadata": None, "tile": (16, 16)},
    "deflate": {"metadata": None, "compression": "zlib", "rowsperstrip": 4},
    "deflate tiles": {"metadata": None, "compression": "zlib", "tile": (16, 16)},
    "big": {"metadata": None, "bigtiff": True, "rowsperstrip": 4},
    "big-endian": {"metadata": None, "byteorder": ">", "rowsperstrip": 4},
    "imagej": {"imagej": True},
    "ome": {"ome": True},
}
# Where in the file, by what is still whole of it.
NOT_TIFF = "cannot be read as a TIFF file"
TIFF_HEAD = "cannot be read as a TIFF file|damaged|without an image in it"
CUTS = {"in the header": 5, "behind the header": 8, "in the tags": 20, "in the pixels": -30}


def cut_tiff(size: int, options: dict[str, Any]) -> Writer:
    def write(path: Path) -> None:
        tifffile.imwrite(path, IMAGE, photometric="minisblack", **options)
        cut(path, size)

    return write


for _kind, _options in KINDS_OF_TIFF.items():
    for _place, _size in CUTS.items():
        _words = "truncated|invalid value offset" if _size < 0 else TIFF_HEAD
        add(f"TIFF {_kind} cut {_place}", cut_tiff(_size, _options), "a.tif", _words)


def cut_pillow_tiff(compression: str) -> Writer:
    def write(path: Path) -> None:
        picture = PillowImage.fromarray((IMAGE % 256).astype(np.uint8))
        picture.save(path, compression=compression)
        cut(path, path.stat().st_size // 2)

    return write


for _compression in ("tiff_lzw", "zstd", "packbits", "jpeg", "tiff_adobe_deflate", "lzma"):
    add(f"TIFF {_compression} cut in half", cut_pillow_tiff(_compression), "a.tif", TIFF_HEAD)


@malformed("a.tif", "ImageJ series metadata invalid or corrupted", ndim=3)
def a_hyperstack_of_imagej_that_is_cut(path: Path) -> None:
    # One IFD, and the planes behind each other.
    tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "ZYX"})
    cut(path, -3 * VOLUME[0].nbytes)


@malformed("a.tif", "damaged|truncated|promises", ndim=3)
def a_hyperstack_of_imagej_with_more_planes_than_are_stored(path: Path) -> None:
    tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "ZYX"})
    swap(path, b"images=6\nslices=6", b"images=9\nslices=9")


@malformed("a.tif", "damaged|truncated|cannot be read", ndim=3)
def pages_of_which_the_last_is_cut(path: Path) -> None:
    tifffile.imwrite(path, VOLUME, metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[5]
        end = page.dataoffsets[0] + 9
    cut(path, end)


def swap(path: Path, old: bytes, new: bytes) -> None:
    """Exchanges bytes of a file for as many others."""
    content = path.read_bytes()
    assert content.count(old) >= 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


# --- TIFF: headers that lie

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS = 256, 257, 258, 259, 262, 273
SAMPLES, ROWS, COUNTS, PLANAR, FORMAT, DESCRIPTION = 277, 278, 279, 284, 339, 270
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
SUB_IFDS = 330
SHORT, LONG = 3, 4


def raw_tiff(
    path: Path,
    changes: dict[int, int | None | tuple[int, int, int]] | None = None,
    *,
    follows: int = 0,
    pixels: bytes = bytes(24 * 20),
    magic: bytes = b"II*\0",
    first: int = 8,
) -> None:
    """A TIFF file of 24 x 20 bytes by the specification, without tifffile.

    Args:
      path: to write.
      changes: tag -> value, (type, count, value), or None to leave it out.
      follows: offset of the next IFD.
      pixels: behind the IFD.
      magic: at the start.
      first: offset of the first IFD; it is written at 8.
    """
    tags: dict[int, Any] = {
        WIDTH: 20,
        LENGTH: 24,
        BITS: 8,
        COMPRESSION: 1,
        PHOTOMETRIC: 1,
        OFFSETS: -1,
        SAMPLES: 1,
        ROWS: 24,
        COUNTS: len(pixels),
        **(changes or {}),
    }
    tags = {tag: value for tag, value in sorted(tags.items()) if value is not None}
    behind = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, value in tags.items():
        kind, count, number = value if isinstance(value, tuple) else (LONG, 1, value)
        number = behind if number == -1 else number
        entries += struct.pack("<HHII", tag, kind, count, number)
    head = magic + struct.pack("<I", first) + struct.pack("<H", len(tags))
    path.write_bytes(head + entries + struct.pack("<I", follows) + pixels)


def lie(changes: dict[int, Any], **options: Any) -> Writer:
    return lambda path: raw_tiff(path, changes, **options)


ANY = (
    "with 3 channels|damaged|truncated|cannot be read|promises|holds no pixels|of type"
    "|without an image"
)
PROMISES = "does not fit its pixels: it promises"
HUGE = 2**31
LARGE = {WIDTH: HUGE, LENGTH: HUGE, ROWS: HUGE}
LIES: dict[str, tuple[Writer, str]] = {
    "offset beyond the end": (lie({OFFSETS: 10**6}), "truncated: its pixels reach to byte 1000480"),
    "offset at the end of 32 bits": (lie({OFFSETS: 2**32 - 1}), "truncated"),
    "offset of zero": (lie({OFFSETS: 0}), "does not fit its pixels"),
    "no offset": (lie({OFFSETS: None}), ANY),
    "no width": (lie({WIDTH: None}), ANY),
    "no length": (lie({LENGTH: None}), ANY),
    "no bytes counted": (lie({COUNTS: 0}), ANY),
    "fewer bytes than pixels": (lie({COUNTS: 100}), "promises 480 bytes, and 100 are stored"),
    "2^31 x 2^31": (lie(LARGE), PROMISES),
    "2^31 x 2^31 deflate": (lie({**LARGE, COMPRESSION: 8}), PROMISES),
    "2^31 x 2^31 LZW": (lie({**LARGE, COMPRESSION: 5}), PROMISES),
    "2^31 x 2^31 packbits": (lie({**LARGE, COMPRESSION: 32773}), PROMISES),
    "10^5 x 10^5 deflate": (
        lie({WIDTH: 10**5, LENGTH: 10**5, ROWS: 10**5, COMPRESSION: 8}),
        PROMISES,
    ),
    "2^31 x 2^31 in tiles": (
        lie(
            {
                WIDTH: HUGE,
                LENGTH: HUGE,
                **{OFFSETS: None, COUNTS: None, ROWS: None},
                **{TILE_WIDTH: 64, TILE_LENGTH: 64, TILE_OFFSETS: -1, TILE_COUNTS: 480},
            }
        ),
        ANY,
    ),
    "a tile of 2^31 x 2^31": (
        lie(
            {
                **{OFFSETS: None, COUNTS: None, ROWS: None, COMPRESSION: 8},
                **{TILE_WIDTH: HUGE, TILE_LENGTH: HUGE, TILE_OFFSETS: -1, TILE_COUNTS: 480},
            }
        ),
        ANY,
    ),
    "a tile of no size": (
        lie(
            {
                **{OFFSETS: None, COUNTS: None, ROWS: None},
                **{TILE_WIDTH: 0, TILE_LENGTH: 0, TILE_OFFSETS: -1, TILE_COUNTS: 480},
            }
        ),
        ANY,
    ),
    "width 0": (lie({WIDTH: 0}), ANY),
    "length 0": (lie({LENGTH: 0}), ANY),
    "0 bits": (lie({BITS: 0}), ANY),
    "16 bits of 8": (lie({BITS: 16}), "promises 960 bytes, and 480 are stored"),
    "64 bits of 8": (lie({BITS: 64}), ANY),
    "1000 bits": (lie({BITS: 1000}), ANY),
    "complex integers": (lie({BITS: 32, FORMAT: 5, WIDTH: 5}), ANY),
    "complex floats": (lie({BITS: 64, FORMAT: 6, WIDTH: 2}), "real numbers are needed|of type"),
    "an unknown sample format": (lie({FORMAT: 77}), ANY),
    "3 samples a pixel": (lie({SAMPLES: 3, PHOTOMETRIC: 2}), ANY),
    "65535 samples a pixel": (lie({SAMPLES: 65535}), ANY),
    "0 samples a pixel": (lie({SAMPLES: 0}), ANY),
    "3 samples in planes": (lie({SAMPLES: 3, PHOTOMETRIC: 2, PLANAR: 2}), ANY),
    "0 rows a strip": (lie({ROWS: 0}), ANY),
    "1 row a strip, and one strip": (lie({ROWS: 1}), "does not fit its pixels"),
    "an unknown compression": (lie({COMPRESSION: 12345}), ANY),
    "compressed, and is not": (lie({COMPRESSION: 8}, pixels=b"\xff" * 480), ANY),
    "LZMA, and is not": (lie({COMPRESSION: 34925}, pixels=b"\xff" * 480), ANY),
    "JPEG, and is not": (lie({COMPRESSION: 7}), ANY),
    "a subsampled JPEG, and is not": (lie({COMPRESSION: 7, PHOTOMETRIC: 6, SAMPLES: 3}), ANY),
    "packbits, and is not": (lie({COMPRESSION: 32773}, pixels=b"\x7f" * 480), ANY),
    "half a deflate stream": (
        lie({COMPRESSION: 8}, pixels=zlib.compress(IMAGE.tobytes())[:200]),
        ANY,
    ),
    "too little deflate": (lie({COMPRESSION: 8}, pixels=zlib.compress(bytes(100))), ANY),
    "2^31 strips": (lie({OFFSETS: (LONG, HUGE, 8), COUNTS: (LONG, HUGE, 8), ROWS: 1}), ANY),
    "more counts than strips": (lie({COUNTS: (LONG, 3, 8)}), ANY),
    "text beyond the end": (lie({DESCRIPTION: (2, 100, 10**6)}), ANY),
    "a width of text": (lie({WIDTH: (2, 4, 0x30303030)}), ANY),
    "a width of an unknown type": (lie({WIDTH: (99, 1, 20)}), ANY),
    "the first IFD beyond the end": (lie({}, first=10**6), ANY),
    "the first IFD in the header": (lie({}, first=2), ANY),
    "no IFD": (lie({}, first=0), ANY),
    "the next IFD beyond the end": (lie({}, follows=10**6), ANY),
    "the next IFD in zeros": (lie({}, follows=300), "the header of page 2 has no tags"),
    "an IFD that is its own next": (lie({}, follows=8), "behind page 1 page 1 follows again"),
    "another magic": (lie({}, magic=b"II\x2c\0"), ANY),
    "another byte order": (lie({}, magic=b"MM\0*"), ANY),
    "BigTIFF by its magic alone": (lie({}, magic=b"II+\0"), ANY),
    "a sub-IFD beyond the end": (lie({SUB_IFDS: 10**6}), ANY),
}
for _title, (_write, _words) in LIES.items():
    add(f"TIFF says {_title}", _write, "a.tif", _words)


def circle(path: Path, *, pages: int, back_to: int, big: bool) -> None:
    """Pages of which the last leads back to an earlier one, both from 1."""
    with tifffile.TiffWriter(path, bigtiff=big) as writer:
        for _ in range(pages):
            writer.write(IMAGE[:2, :3], metadata=None)
    with tifffile.TiffFile(path) as tiff:
        offsets = [page.offset for page in tiff.pages]
    content = bytearray(path.read_bytes())
    number = struct.unpack_from("<Q" if big else "<H", content, offsets[-1])[0]
    place = offsets[-1] + (8 + 20 * number if big else 2 + 12 * number)
    struct.pack_into("<Q" if big else "<I", content, place, offsets[back_to - 1])
    path.write_bytes(content)


for _pages, _back, _big in ((2, 1, False), (99, 3, True), (150, 120, False), (150, 150, True)):
    add(
        f"TIFF of {_pages} pages, and then page {_back} again",
        partial(circle, pages=_pages, back_to=_back, big=_big),
        "a.tif",
        f"behind page {_pages} page {_back} follows again, in a circle",
        ndim=3,
    )


@malformed("a.tif", "the header of page 4 has no tags", ndim=3)
def pages_with_a_hole_of_zeros(path: Path) -> None:
    tifffile.imwrite(path, VOLUME, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        start, stop = tiff.pages[3].offset, tiff.pages[4].offset
    content = bytearray(path.read_bytes())
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


# --- OME-TIFF: text that lies

PIXELS = (
    '<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="{type}" SizeX="{x}" SizeY="{y}"'
    ' SizeC="{c}" SizeZ="{z}" SizeT="{t}">{data}</Pixels>'
)


def ome(
    path: Path,
    *,
    order: str = "XYZCT",
    type: str = "uint16",
    x: str = "20",
    y: str = "24",
    c: str = "1",
    z: str = "6",
    t: str = "1",
    data: str = "<TiffData/>",
    text: str = "",
) -> None:
    """Six pages, and the OME text of them."""
    pixels = PIXELS.format(order=order, type=type, x=x, y=y, c=c, z=z, t=t, data=data)
    whole = (
        '<?xml version="1.0" encoding="UTF-8"?><OME'
        ' xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0">{pixels}</Image></OME>'
    )
    text = text or whole
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(VOLUME):
            writer.write(page, description=text if number == 0 else None, metadata=None)


def data(uuid: str) -> str:
    return "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{uuid.format(z)}">'
        f"urn:uuid:00000000-0000-0000-0000-00000000000{z}</UUID></TiffData>"
        for z in range(6)
    )


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]><OME>&i;</OME>"
)
EXTERNAL = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
    "<OME><Image><Description>&e;</Description></Image></OME>"
)
OME: dict[str, tuple[dict[str, Any], str]] = {
    "of twice the width": ({"x": "40"}, "promise planes of 24 x 40 pixels"),
    "of twice the height": ({"y": "48"}, "promise planes of 48 x 20 pixels"),
    "of more planes": ({"z": "9"}, "plane 7 of 9 is missing"),
    "of a million planes": ({"z": "1000000"}, "plane 7 of 1000000 is missing"),
    "of 10^12 planes": ({"z": "1000000000000"}, "plane 7 of 10+ is missing"),
    "of 10^9 time points": ({"t": "999999999"}, "plane 7 of 5999999994 is missing"),
    "of 10^9 planes in a piece": (
        {"data": '<TiffData PlaneCount="999999999"/>'},
        "plane 7 of 999999999 is missing",
    ),
    "of a negative number of planes": ({"z": "-6"}, ANY),
    "of no plane": ({"z": "0"}, ANY),
    "of planes by a word": ({"z": "six"}, ANY),
    "of more channels": ({"c": "2"}, "plane 7 of 12 is missing"),
    "of more time points": ({"t": "4"}, "plane 7 of 24 is missing"),
    "of time points, of which none was chosen": ({"t": "6", "z": "1"}, "6 time points; choose one"),
    "in an order of none": ({"order": "ABCDE"}, ANY),
    "in an order of two": ({"order": "XY"}, ANY),
    "with files that are missing": ({"data": data("missing{}.ome.tif")}, "name 6 linked file"),
    "with one file that is a folder": ({"data": data("..")}, "name 6 linked file"),
    "with a companion file alone": (
        {"text": '<OME><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:1"/></OME>'},
        "its OME metadata are in a.companion.ome",
    ),
    "with planes that are not there": (
        {"data": '<TiffData IFD="90" FirstZ="0" PlaneCount="6"/>'},
        ANY,
    ),
    "with planes of a negative place": (
        {"data": '<TiffData IFD="0" FirstZ="-3" PlaneCount="6"/>'},
        ANY,
    ),
    "without an image": ({"text": "<OME></OME>"}, "its OME metadata are damaged"),
    "that is broken off": ({"text": "<OME><Image><Pixels "}, "its OME metadata are damaged"),
    "that explodes": ({"text": BOMB}, ANY),
    "that names another file": ({"text": EXTERNAL}, "its OME metadata are damaged"),
}
for _title, (_text, _words) in OME.items():
    add(f"OME {_title}", partial(ome, **_text), "a.ome.tif", _words, ndim=3)


# --- PNG


def png(path: Path, array: np.ndarray | None = None) -> bytearray:
    PillowImage.fromarray((IMAGE % 256).astype(np.uint8) if array is None else array).save(path)
    return bytearray(path.read_bytes())


def chunk(kind: bytes, content: bytes, *, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def raw_png(
    path: Path,
    *,
    width: int = 20,
    height: int = 24,
    bits: int = 8,
    colour: int = 0,
    pixels: bytes = zlib.compress(bytes(24 * 21)),
    crc: int | None = None,
    between: bytes = b"",
    end: bytes = chunk(b"IEND", b""),
) -> None:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + between
    path.write_bytes(content + chunk(b"IDAT", pixels, crc=crc) + end)


NOT_PNG = "cannot be (opened or )?read as a PNG file|is not a PNG file"
for _place, _size in (("signature", 5), ("header", 20), ("header's check", 31), ("pixels", -40)):
    add(f"PNG cut in its {_place}", steps(png, partial(cut, size=_size)), "a.png", NOT_PNG)
PNG: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong check of its pixels": ({"crc": 1}, "broken PNG file .*IDAT"),
    "a wrong check of a text": (
        {"between": chunk(b"tEXt", b"a\0b", crc=1)},
        "is not a PNG file, or is damaged",
    ),
    "pixels that are no deflate": ({"pixels": b"\xff" * 90}, NOT_PNG),
    "fewer pixels than promised": ({"pixels": zlib.compress(bytes(24 * 10))}, NOT_PNG),
    "no pixel": ({"pixels": b""}, NOT_PNG),
    "2^31 - 1 by 2^31 - 1 pixels": ({"width": 2**31 - 1, "height": 2**31 - 1}, NOT_PNG),
    "20000 by 20000 pixels": ({"width": 20000, "height": 20000}, NOT_PNG),
    "9000 by 9000 pixels": ({"width": 9000, "height": 9000}, NOT_PNG),
    "a width of 0": ({"width": 0}, NOT_PNG),
    "a height of 0": ({"height": 0}, NOT_PNG),
    "5 bits": ({"bits": 5}, NOT_PNG),
    "an unknown colour": ({"colour": 9}, NOT_PNG),
    "a palette that is missing": ({"colour": 3}, "its palette is missing"),
    "a chunk that is longer than the file": (
        {"between": struct.pack(">I", 2**31 - 1) + b"tEXt"},
        NOT_PNG,
    ),
    "no end": ({"end": b""}, NOT_PNG),
    "16 bits a colour": (
        {"bits": 16, "colour": 2, "pixels": zlib.compress(bytes(24 * 121))},
        "16 bits a colour channel",
    ),
}
for _title, (_parts, _words) in PNG.items():
    add(f"PNG of {_title}", partial(raw_png, **_parts), "a.png", _words)


@malformed("a.png", NOT_PNG)
def a_png_with_a_changed_header(path: Path) -> None:
    content = png(path)
    content[19] += 1
    path.write_bytes(content)


@malformed("a.png", "an animation of 2 pictures")
def an_animated_png(path: Path) -> None:
    frames = [PillowImage.new("L", (20, 24), n) for n in (1, 2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@malformed("a.png", "240 pixels are partly transparent", "--channel", "0")
def a_png_that_is_half_transparent(path: Path) -> None:
    rgba = np.full((24, 20, 4), 255, np.uint8)
    rgba[12:, :, 3] = 100
    png(path, rgba)


add(
    "a_png_with_a_transparent_colour",
    lambda p: raw_png(p, between=chunk(b"tRNS", b"\0\0")),
    "a.png",
    "partly transparent",
    "--channel",
    "0",
)
add(
    "a_jpeg_called_png",
    lambda p: PillowImage.new("L", (20, 24)).save(p, format="JPEG"),
    "a.png",
    NOT_PNG,
)
add(
    "three_channels_for_a_model_of_one",
    lambda p: png(p, np.zeros((24, 20, 3), np.uint8)),
    "a.png",
    "2D with 3 channels, the model",
)


# --- .npy


def npy(path: Path, array: np.ndarray, *, pickled: bool = False) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=pickled)


def raw_npy(path: Path, header: str, *, size: int = 960, version: tuple[int, int] = (1, 0)) -> None:
    text = header.encode("latin1") + b"\n"
    path.write_bytes(
        b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + bytes(size)
    )


def npy_header(shape: str = "(24, 20)", dtype: str = "'<u2'") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"


NOT_NPY = r"cannot be (opened or )?read as a \.npy file"
NPY: dict[str, tuple[Writer, str]] = {
    "cut in its magic": (steps(lambda p: npy(p, IMAGE), lambda p: cut(p, 4)), NOT_NPY),
    "cut in its header": (steps(lambda p: npy(p, IMAGE), lambda p: cut(p, 60)), NOT_NPY),
    "cut in its pixels": (steps(lambda p: npy(p, IMAGE), lambda p: cut(p, -100)), NOT_NPY),
    "cut behind its header": (steps(lambda p: npy(p, IMAGE), lambda p: cut(p, 128)), NOT_NPY),
    "of version 9": (lambda p: raw_npy(p, npy_header(), version=(9, 0)), NOT_NPY),
    "of a larger shape": (lambda p: raw_npy(p, npy_header("(240, 200)")), NOT_NPY),
    "of 2^31 x 2^31": (lambda p: raw_npy(p, npy_header(f"({HUGE}, {HUGE})")), NOT_NPY),
    "of 2^63 x 2": (lambda p: raw_npy(p, npy_header(f"({2**63}, 2)")), NOT_NPY),
    "of a negative shape": (lambda p: raw_npy(p, npy_header("(-24, -20)")), NOT_NPY),
    "of a shape of text": (lambda p: raw_npy(p, npy_header("('24', '20')")), NOT_NPY),
    "of a shape of fractions": (lambda p: raw_npy(p, npy_header("(24.5, 20.0)")), NOT_NPY),
    "of no known type": (lambda p: raw_npy(p, npy_header(dtype="'<q9'")), NOT_NPY),
    "of a type of no size": (lambda p: raw_npy(p, npy_header(dtype="'|V0'")), "a.npy: "),
    "of a header that is a list": (lambda p: raw_npy(p, "[1, 2]"), NOT_NPY),
    "of a header that is code": (lambda p: raw_npy(p, "__import__('os').getpid()"), NOT_NPY),
    "of a header that is deep": (lambda p: raw_npy(p, "(" * 9000 + ")" * 9000), NOT_NPY),
    "of a header that goes on in its pixels": (
        lambda p: raw_npy(p, npy_header() + "\n" + "x\0" * 5000),
        NOT_NPY,
    ),
    "of pickled objects": (lambda p: npy(p, np.array([[{}]]), pickled=True), NOT_NPY),
    "of complex numbers": (lambda p: npy(p, np.ones((24, 20), "c8")), "of type complex64"),
    "of strings": (lambda p: npy(p, np.full((24, 20), "x")), "of type <U1"),
    "of bytes": (lambda p: npy(p, np.full((24, 20), b"x")), r"of type \|S1"),
    "of dates": (lambda p: npy(p, np.zeros((24, 20), "M8[s]")), r"of type datetime64\[s\]"),
    "of a structure": (lambda p: npy(p, np.zeros((24, 20), "u1,u2")), "real numbers are needed"),
    "of no axis": (lambda p: npy(p, np.array(3.0)), "an array of 0 axes"),
    "of 1 axis": (lambda p: npy(p, np.ones(24)), r"an array of 1 axes \(24\)"),
    "of 4 axes": (lambda p: npy(p, np.ones((2, 3, 4, 5))), r"of 4 axes \(2 x 3 x 4 x 5\)"),
    "of 6 axes": (lambda p: npy(p, np.ones((2,) * 6)), "of 6 axes"),
    "of no row": (lambda p: npy(p, np.ones((0, 20))), "holds no pixels"),
    "of no column": (lambda p: npy(p, np.ones((24, 0))), "holds no pixels"),
    "of several arrays": (lambda p: zipped(p), "holds several arrays"),
    "of a zip file of nothing": (lambda p: zipfile.ZipFile(p, "w").close(), "a.npy: "),
}
for _title, (_write, _words) in NPY.items():
    add(f".npy {_title}", _write, "a.npy", _words)


def zipped(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3), b=np.ones(3))


# --- pixels that are no intensities


def with_pixel(value: float, place: tuple[int, ...], kind: str, dtype: str = "float32") -> Writer:
    def write(path: Path) -> None:
        array = np.ones((24, 20) if len(place) == 2 else (6, 24, 20), dtype)
        array[place] = value
        if kind == "npy":
            npy(path, array)
        elif kind == "zarr":
            zarr.create_array(path, data=array, chunks=(2, 8, 8)[-array.ndim :])
        else:
            tifffile.imwrite(path, array, photometric="minisblack", tile=(16, 16))

    return write


PLACES: tuple[tuple[float, tuple[int, ...]], ...] = (
    (np.nan, (0, 0)),
    (np.inf, (23, 19)),
    (-np.inf, (0, 0, 0)),
    (np.nan, (5, 23, 19)),
)
for _kind in ("tif", "npy", "zarr"):
    for _value, _voxel in PLACES:
        add(
            f"{_value} at {_voxel} of a .{_kind}",
            with_pixel(_value, _voxel, _kind),
            f"a.{_kind}",
            rf"at \([zyx, ]+\) = \({', '.join(map(str, _voxel))}\)",
            # The last pixel lies in another tile than the first.
            *("--max-voxels", "800"),
            ndim=len(_voxel),
        )
add("1e300 in doubles", with_pixel(1e300, (3, 4), "npy", "float64"), "a.npy", "infinite or above")
add(
    "infinity in half precision",
    with_pixel(np.inf, (3, 4), "npy", "float16"),
    "a.npy",
    r"= \(3, 4\)",
)


@malformed("a.tif", "12 pixels are partly transparent", "--channel", "0")
def a_tiff_that_is_partly_transparent(path: Path) -> None:
    rgba = np.full((24, 20, 4), 255, np.uint8)
    rgba[:12, 0, 3] = 0
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"])


# --- axes and options


def hyperstack(path: Path, axes: str = "TZCYX", shape: tuple[int, ...] = (3, 4, 2, 24, 20)) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata={"axes": axes})


def plain(path: Path) -> None:
    tifffile.imwrite(path, IMAGE)


OPTIONS: dict[str, tuple[Writer, int, str, tuple[str, ...]]] = {
    "no time point": (hyperstack, 3, "3 time points; choose one with --time", ()),
    "a time point too late": (hyperstack, 3, "time point 3 is not there", ("--time", "3")),
    "a negative time point": (hyperstack, 3, "time point -1 is not there", ("--time", "-1")),
    "no channel": (hyperstack, 3, "2 channels.*--channel", ("--time", "0")),
    "a channel too high": (hyperstack, 3, "channel '2'", ("--time", "0", "--channel", "2")),
    "a channel by a name": (hyperstack, 3, "channel 'DAPI'", ("--time", "0", "--channel", "DAPI")),
    "an empty channel": (hyperstack, 3, "channel ''", ("--time", "0", "--channel", "")),
    "a superscript channel": (hyperstack, 3, "channel '¹'", ("--time", "0", "--channel", "¹")),
    "a channel of a plain image": (plain, 2, "channel '1': is not there", ("--channel", "1")),
    "a time of a plain image": (plain, 2, "0 alone can be chosen", ("--time", "1")),
    "a level too coarse": (plain, 2, "level 1 is not there", ("--level", "1")),
    "a negative level": (plain, 2, "level -1 is not there", ("--level", "-1")),
    "a spacing too short": (plain, 2, "2 positive voxel edges", ("--spacing", "1")),
    "a spacing too long": (plain, 2, "2 positive voxel edges", ("--spacing", "1,1,1")),
    "a spacing of 0": (plain, 2, "2 positive voxel edges", ("--spacing", "0,1")),
    "a negative spacing": (plain, 2, "2 positive voxel edges", ("--spacing=-1,1",)),
    "an infinite spacing": (plain, 2, "2 positive voxel edges", ("--spacing", "inf,1")),
    "a spacing that is no number": (plain, 2, "2 positive voxel edges", ("--spacing", "nan,1")),
    "a huge time": (plain, 2, "time point 9{30} is not there", ("--time", "9" * 30)),
    "a huge level": (plain, 2, "level 9{30} is not there", ("--level", "9" * 30)),
    "a huge channel": (plain, 2, "channel '9{30}'", ("--channel", "9" * 30)),
}
for _title, (_write, _ndim, _words, _arguments) in OPTIONS.items():
    add(f"option: {_title}", _write, "a.tif", _words, *_arguments, ndim=_ndim)
add(
    "a_volume_for_a_model_of_images",
    lambda p: tifffile.imwrite(p, VOLUME, imagej=True, metadata={"axes": "ZYX"}),
    "a.tif",
    "3D with 1 channels, the model",
)
add("an_image_for_a_model_of_volumes", plain, "a.tif", "2D with 1 channels, the model", ndim=3)


@malformed("a.tif", "holds 2 images")
def images_of_two_sizes_in_one_file(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE, metadata=None)
        writer.write(IMAGE[:9], metadata=None)


@malformed("a.tif", "axes .*; y, x and at most z", ndim=3)
def channels_of_colours(path: Path) -> None:
    array = np.ones((2, 24, 20, 3), np.uint8)
    tifffile.imwrite(path, array, photometric="rgb", ome=True, metadata={"axes": "CYXS"})


add(
    "an_axis_of_angles",
    lambda p: hyperstack(p, "AZYX", (2, 4, 24, 20)),
    "a.tif",
    "axes .*; y, x and at most z",
    ndim=3,
)


# --- files that are no images


add("nothing", Path.touch, "a.tif", "the file is empty")
add("nothing_called_npy", Path.touch, "a.npy", "the file is empty")
add("nothing_called_png", Path.touch, "a.png", "the file is empty")
add("text", lambda p: p.write_text("y,x\n1,2\n" * 50), "a.tif", NOT_TIFF)
add("zeros", lambda p: p.write_bytes(bytes(1000)), "a.tif", NOT_TIFF)
add(
    "a_png_called_tif",
    lambda p: PillowImage.new("L", (20, 24)).save(p, format="PNG"),
    "a.tif",
    NOT_TIFF,
)
add("an_unknown_ending", lambda p: p.write_text("x"), "a.txt", "must end in")


@malformed("a", "must end in")
def no_ending(path: Path) -> None:
    plain(path.with_suffix(".tif"))
    path.with_suffix(".tif").rename(path)


add(
    "a_format_whose_packages_are_missing",
    lambda p: p.write_bytes(b"ZISRAWFILE" + bytes(100)),
    "a.czi",
    "pip install .*formats",
)
add("nothing_at_all", lambda p: None, "a.tif", "no such file")
add("a_dangling_link", lambda p: p.symlink_to(p.with_name("missing.tif")), "a.tif", "no such file")
add("a_link_to_itself", lambda p: p.symlink_to(p), "a.tif", "symbolic links|no such file")
add("a_folder_called_tif", Path.mkdir, "a.tif", "has no image")
add("a_pipe", os.mkfifo, "a.tif", "no regular file")
add("a_pipe_called_npy", os.mkfifo, "a.npy", "no regular file")
add("dev_null", lambda p: p.symlink_to("/dev/null"), "a.png", "no regular file")
add("dev_zero", lambda p: p.symlink_to("/dev/zero"), "a.tif", "no regular file")


@malformed("a.tif", "no permission to read or write it")
def a_file_that_may_not_be_read(path: Path) -> None:
    plain(path)
    path.chmod(0)


# --- names


def no_image(path: Path) -> None:
    path.write_text("no image at all")


LONG_NAME = "a" * 251 + ".tif"


add("a_name_with_a_space", no_image, "two words.tif", NOT_TIFF)
add("a_name_in_unicode", no_image, "Zellen µm 細胞 é.tif", NOT_TIFF)
add("a_name_of_two_lines", no_image, "a\nb.tif", NOT_TIFF, named=r"a\nb.tif")
add(
    "a_name_that_clears_the_screen",
    no_image,
    "a\x1b[2Jb\u2028.tif",
    "cannot be read",
    named=r"a\x1b[2Jb\u2028.tif",
)
add("a_name_that_is_no_unicode", plain, "a\udcff.tif", "the name", named=r"a\udcff.tif")
add("the_longest_name", no_image, LONG_NAME, NOT_TIFF)
add("a_name_that_is_too_long", lambda p: None, "a" * 300 + ".tif", "the name is too long")
add("a_name_with_a_zero", lambda p: None, "a\0b.tif", "no such file|null", named=r"a\x00b.tif")


# --- Zarr


def zarr_array(path: Path, array: np.ndarray = IMAGE, **options: Any) -> None:
    zarr.create_array(path, data=array, chunks=(8,) * array.ndim, **options)


def edit(path: Path, **changes: Any) -> None:
    """Changes the keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def edited(version: int, **changes: Any) -> Writer:
    def write(path: Path) -> None:
        zarr_array(path, zarr_format=version)
        edit(path / (".zarray" if version == 2 else "zarr.json"), **changes)

    return write


def replaced(name: str, content: bytes | None, version: int = 3) -> Writer:
    def write(path: Path) -> None:
        zarr_array(path, zarr_format=version)
        if content is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(content)

    return write


def ome_zarr(path: Path, version: str = "0.4", array: np.ndarray = VOLUME, **changes: Any) -> None:
    """An image of two levels; the changes are of its multiscales."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for level in range(2):
        zarr_array(path / str(level), array, zarr_format=2 if version == "0.4" else 3)
    multiscale = {
        "version": version,
        "axes": [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"],
        "datasets": [
            {"path": n, "coordinateTransformations": [{"type": "scale", "scale": [2, 1, 1]}]}
            for n in "01"
        ],
        **changes,
    }
    content = {"multiscales": [{k: v for k, v in multiscale.items() if v is not None}]}
    group.attrs.update(content if version == "0.4" else {"ome": {"version": "0.5", **content}})


def all_missing(path: Path, fill: Any, dtype: str = "f4", size: int = 24) -> None:
    zarr.create_array(path, shape=(size, size), chunks=(8, 8), dtype=dtype, fill_value=fill)


def group_of(path: Path, attributes: dict[str, Any], version: Any = 2) -> None:
    zarr.open_group(path, mode="w", zarr_format=version).attrs.update(attributes)


def scaled(scale: Any) -> list[dict[str, Any]]:
    return [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]


NOT_ZARR = "cannot be (opened or )?read as (a )?Zarr"
NONE_STORED = "none of its chunks is stored"
ZARR: dict[str, tuple[Writer, str]] = {
    "a folder of nothing": (lambda p: p.mkdir(), "no Zarr array or group"),
    "a folder of a text": (
        steps(lambda p: p.mkdir(), lambda p: (p / "a.txt").touch()),
        "no Zarr array or group",
    ),
    "chunks without metadata": (replaced("zarr.json", None), "no Zarr array or group"),
    "empty metadata": (replaced("zarr.json", b""), NOT_ZARR),
    "metadata that are broken off": (replaced("zarr.json", b'{"shape": [24,'), NOT_ZARR),
    "metadata that are a list": (replaced("zarr.json", b"[1, 2]"), NOT_ZARR),
    "metadata that are no text": (replaced("zarr.json", b"\xff\xfe\0"), NOT_ZARR),
    "metadata that are deep": (replaced("zarr.json", b"[" * 10**5), NOT_ZARR),
    "version 2 broken off": (replaced(".zarray", b'{"shape": [24,', 2), NOT_ZARR),
    "version 2 called 3": (edited(2, zarr_format=3), NOT_ZARR),
    "version 3 called 2": (edited(3, zarr_format=2), NOT_ZARR),
    "version 9": (edited(3, zarr_format=9), NOT_ZARR),
    "metadata of version 2 under the name of 3": (
        steps(
            lambda p: zarr_array(p, zarr_format=2),
            lambda p: (p / ".zarray").rename(p / "zarr.json"),
        ),
        "no OME-Zarr image",
    ),
    "chunks in folders, and metadata that say they are not": (
        steps(
            lambda p: zarr_array(
                p, zarr_format=2, chunk_key_encoding={"name": "v2", "separator": "/"}
            ),
            lambda p: edit(p / ".zarray", dimension_separator="."),
        ),
        r"none of its chunks is stored.*names than its metadata say \(0\.0 and so on",
    ),
    "no shape": (edited(3, shape=None), NOT_ZARR),
    "a negative shape": (edited(3, shape=[-24, 20]), "a.zarr: "),
    "a shape of text": (edited(2, shape="24x20"), "a.zarr: "),
    "a shape of other axes than its chunks": (edited(2, shape=[24, 20, 3]), "a.zarr: "),
    "chunks of size 0": (edited(2, chunks=[0, 8]), "a.zarr: "),
    "no codec of that name": (
        edited(3, codecs=[{"name": "bytes", "configuration": {}}, {"name": "zip9"}]),
        NOT_ZARR,
    ),
    "no codec": (edited(3, codecs=[]), NOT_ZARR),
    "another codec": (
        edited(3, codecs=[{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 5}}]),
        NOT_ZARR,
    ),
    "another compressor": (edited(2, compressor={"id": "zlib", "level": 1}), NOT_ZARR),
    "no compressor": (edited(2, compressor=None), NOT_ZARR),
    "no known compressor": (edited(2, compressor={"id": "zip9"}), NOT_ZARR),
    "another type": (edited(2, dtype="<f8"), NOT_ZARR),
    "an unknown type": (edited(3, data_type="colour"), NOT_ZARR),
    "an object type": (edited(2, dtype="|O"), "a.zarr: "),
    "another data type of 3": (edited(3, data_type="float64", fill_value=0.0), NOT_ZARR),
    "a fill value of text": (edited(3, fill_value="grey"), NOT_ZARR),
    "an unknown chunk grid": (edited(3, chunk_grid={"name": "hexagons"}), NOT_ZARR),
    "a chunk that is empty": (replaced("c/1/1", b""), NOT_ZARR),
    "a chunk that is cut": (steps(zarr_array, lambda p: cut(p / "c/2/2", -3)), NOT_ZARR),
    "a chunk of version 2 that is cut": (
        steps(lambda p: zarr_array(p, zarr_format=2), lambda p: cut(p / "2.2", -3)),
        NOT_ZARR,
    ),
    "a plain chunk that is cut": (
        steps(lambda p: zarr_array(p, compressors=None), lambda p: cut(p / "c/2/2", -3)),
        NOT_ZARR,
    ),
    "a plain chunk that is longer": (
        steps(lambda p: zarr_array(p, compressors=None), lambda p: append(p / "c/2/2")),
        NOT_ZARR,
    ),
    "a cut shard": (
        steps(
            lambda p: zarr.create_array(p, data=IMAGE[:16, :16], chunks=(4, 4), shards=(8, 8)),
            lambda p: cut(p / "c/1/1", -3),
        ),
        NOT_ZARR,
    ),
    "a missing chunk where NaN fills": (
        steps(
            lambda p: zarr_array(p, IMAGE.astype("f4"), fill_value=np.nan),
            lambda p: (p / "c/1/1").unlink(),
        ),
        r"NaN, infinite .* at \(y, x\) = \(8, 8\)",
    ),
    "no chunk at all": (lambda p: all_missing(p, 0), NONE_STORED),
    "no chunk, and NaN fills": (lambda p: all_missing(p, np.nan), NONE_STORED),
    "no chunk of 2^31 x 2^31": (lambda p: all_missing(p, 0, "u2", HUGE), NONE_STORED),
    "complex numbers": (lambda p: zarr_array(p, IMAGE.astype("c8")), "of type complex64"),
    "strings": (lambda p: zarr_array(p, np.full((24, 20), "abc")), "real numbers are needed"),
    "strings of any length": (
        lambda p: zarr.create_array(p, shape=(24, 20), chunks=(8, 8), dtype=str),
        "a.zarr: ",
    ),
    "no row": (
        lambda p: zarr.create_array(p, shape=(0, 20), chunks=(8, 8), dtype="u1"),
        "holds no pixels",
    ),
    "1 axis": (lambda p: zarr_array(p, np.ones(24)), "an array of 1 axes"),
    "no axis": (lambda p: zarr.create_array(p, shape=(), dtype="u1"), "an array of 0 axes"),
    "5 axes": (lambda p: zarr_array(p, np.ones((1, 1, 6, 24, 20))), "5 axes .* which they are"),
    "an array without pixels in a group": (lambda p: group_of(p, {}), "in it: nothing"),
    "a plate": (lambda p: group_of(p, {"plate": {"wells": []}}), r"a plate of 0 well\(s\)"),
    "a plate of version 0.5": (
        lambda p: group_of(p, {"ome": {"version": "0.5", "plate": {}}}, 3),
        r"a plate of 0 well\(s\)",
    ),
    "a well": (lambda p: group_of(p, {"well": {"images": []}}), "holds no image"),
    "labels": (lambda p: group_of(p, {"labels": ["cells"]}), "no multiscales"),
    "labels of version 0.5": (
        lambda p: group_of(p, {"ome": {"labels": ["cells"]}}, 3),
        "no multiscales",
    ),
    "attributes of version 0.5 that are text": (
        lambda p: group_of(p, {"ome": "multiscales"}, 3),
        "a.zarr: ",
    ),
    "no multiscale": (lambda p: group_of(p, {"multiscales": []}), "0 multiscale images"),
    "a multiscale of text": (lambda p: group_of(p, {"multiscales": ["0"]}), NOT_ZARR),
    "multiscales that are null": (lambda p: group_of(p, {"multiscales": None}), NOT_ZARR),
    "no level": (lambda p: ome_zarr(p, datasets=[]), "level 0 is not there"),
    "levels that are no list": (lambda p: ome_zarr(p, datasets={"path": "0"}), NOT_ZARR),
    "an array that is missing": (
        lambda p: ome_zarr(p, datasets=[{"path": "7"}]),
        "name the array '7' for level 0, which is not there",
    ),
    "an array outside": (lambda p: ome_zarr(p, datasets=[{"path": "../../etc"}]), "a.zarr: "),
    "an array that is the group": (lambda p: ome_zarr(p, datasets=[{"path": ""}]), "a.zarr: "),
    "an array by a number": (lambda p: ome_zarr(p, datasets=[{"path": 0}]), "a.zarr: "),
    "no axes": (lambda p: ome_zarr(p, axes=None), "do not say which the 3 axes"),
    "axes that are null": (lambda p: ome_zarr(p, axes=[None] * 3), NOT_ZARR),
    "axes without names": (lambda p: ome_zarr(p, axes=[{"type": "space"}] * 3), NOT_ZARR),
    "an axis too few": (lambda p: ome_zarr(p, axes=["y", "x"]), r"name 2 axes \(YX\)"),
    "an axis twice": (lambda p: ome_zarr(p, axes=["z", "x", "x"]), "axes Z of 6, X of 24"),
    "an axis of frequencies": (lambda p: ome_zarr(p, axes=["f", "y", "x"]), "called 'f'"),
    "a scale too short": (lambda p: ome_zarr(p, datasets=scaled([1, 1])), "does not fit 3 axes"),
    "a scale of text": (
        lambda p: ome_zarr(p, datasets=scaled(["1"] * 3)),
        "is not a number for each axis",
    ),
    "a scale that is null": (lambda p: ome_zarr(p, datasets=scaled(None)), "a.zarr: "),
    "transformations that are null": (
        lambda p: ome_zarr(p, datasets=[{"path": "0", "coordinateTransformations": 5}]),
        NOT_ZARR,
    ),
    "version 2 metadata beside a level of 3": (
        steps(
            ome_zarr, lambda p: (p / "0/.zarray").unlink(), lambda p: zarr_array(p / "0/x", VOLUME)
        ),
        "name the array '0' for level 0, which is not there|is no array",
    ),
    "a level without metadata": (
        steps(ome_zarr, lambda p: (p / "0/.zarray").unlink()),
        "name the array '0' for level 0, which is not there",
    ),
    "a level without chunks": (steps(ome_zarr, lambda p: remove_chunks(p / "0")), NONE_STORED),
    "a level of version 0.5 without chunks": (
        steps(lambda p: ome_zarr(p, "0.5"), lambda p: remove_chunks(p / "0")),
        r"a\.zarr/0: none of its chunks is stored",
    ),
    "channels that are no list": (
        steps(ome_zarr, lambda p: edit(p / ".zattrs", omero={"channels": 5})),
        NOT_ZARR,
    ),
    "a pipe for metadata": (
        steps(lambda p: p.mkdir(), lambda p: os.mkfifo(p / "zarr.json")),
        "no Zarr array or group",
    ),
}
for _title, (_write, _words) in ZARR.items():
    add(f"Zarr: {_title}", _write, "a.zarr", _words, ndim=2)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def remove_chunks(array: Path) -> None:
    for path in array.rglob("*"):
        if path.is_file() and path.name[0] != "." and path.name != "zarr.json":
            path.unlink()


add("a_text_called_zarr", lambda p: p.write_text("x"), "a.zarr", "must end in")
add(
    "a_level_that_a_pyramid_has_not",
    ome_zarr,
    "a.zarr",
    "level 5 is not there; it has 2",
    "--level",
    "5",
    ndim=3,
)


# --- folders


def slices(folder: Path, suffix: str = ".tif") -> None:
    folder.mkdir()
    for number, plane in enumerate(VOLUME.astype(np.uint8)):
        if suffix == ".png":
            PillowImage.fromarray(plane).save(folder / f"s{number}.png")
        else:
            tifffile.imwrite(folder / f"s{number}.tif", plane)


def with_slice(name: str, change: Callable[[Path], Any], suffix: str = ".tif") -> Writer:
    """Slices of which one is written anew."""

    def write(folder: Path) -> None:
        slices(folder, suffix)
        (folder / name).unlink(missing_ok=True)
        change(folder / name)

    return write


def write_plane(array: np.ndarray) -> Writer:
    return lambda path: tifffile.imwrite(path, array, photometric="minisblack")


def png_cut(path: Path) -> None:
    png(path, VOLUME[0].astype(np.uint8))
    cut(path, -40)


def tiff_cut(path: Path) -> None:
    tifffile.imwrite(path, VOLUME[0].astype(np.uint8))
    cut(path, -40)


SMALL = np.ones((24, 20), np.uint8)
SLICES: dict[str, tuple[Writer, str, str]] = {
    "of another height": (with_slice("s3.tif", write_plane(SMALL[:20])), "s3.tif", "Y of 20"),
    "of another width": (with_slice("s3.tif", write_plane(SMALL[:, :9])), "s3.tif", "X of 9"),
    "of another type": (with_slice("s3.tif", write_plane(IMAGE)), "s3.tif", "uint16"),
    "of a volume": (
        with_slice("s3.tif", write_plane(VOLUME.astype(np.uint8))),
        "folder",
        r"2D images \(s0.tif\) beside volumes \(s3.tif\)",
    ),
    "cut": (with_slice("s3.tif", tiff_cut), "s3.tif", "truncated"),
    "empty": (with_slice("s3.tif", lambda p: p.touch()), "s3.tif", "the file is empty"),
    "of text": (with_slice("s3.tif", lambda p: p.write_text("no image")), "s3.tif", "TIFF"),
    "a dangling link": (
        with_slice("s3.tif", lambda p: p.symlink_to("x")),
        "folder",
        "3 missing between s2.tif and s4.tif",
    ),
    "a link to itself": (
        with_slice("s3.tif", lambda p: p.symlink_to("s3.tif")),
        "folder",
        "3 missing between s2.tif and s4.tif",
    ),
    "missing": (
        with_slice("s3.tif", lambda p: None),
        "folder",
        "3 missing between s2.tif and s4.tif",
    ),
    "a projection": (with_slice("MAX_s.tif", write_plane(SMALL)), "MAX_s.tif", "put it elsewhere"),
    "two of a number": (with_slice("s03.tif", write_plane(SMALL)), "s03.tif", "the same number"),
    "a pipe": (with_slice("s3.tif", os.mkfifo), "s3.tif", "no regular file"),
    "a PNG": (
        with_slice("s9.png", lambda p: PillowImage.fromarray(SMALL).save(p)),
        "s9.png",
        "a PNG file among TIFF slices",
    ),
    "a .npy": (with_slice("s9.npy", lambda p: npy(p, SMALL)), "s9.npy", "among the slices"),
    "an infinite pixel": (
        steps(
            lambda folder: folder.mkdir(),
            lambda folder: [
                write_plane(SMALL * np.float32(v))(folder / f"{z}.tif")
                for z, v in enumerate((1, 2, np.inf))
            ],
        ),
        "folder",
        r"NaN, infinite .* = \(2, 0, 0\)",
    ),
    "colours": (
        with_slice("s3.tif", lambda p: tifffile.imwrite(p, np.ones((24, 20, 3), np.uint8))),
        "s3.tif",
        "S of 3",
    ),
    "a PNG that is cut": (with_slice("s3.png", png_cut, ".png"), "s3.png", NOT_PNG),
    "a PNG of another size": (
        with_slice("s3.png", lambda p: png(p, SMALL[:9]), ".png"),
        "s3.png",
        "the PNG header differs",
    ),
    "a PNG of colours": (
        with_slice("s3.png", lambda p: png(p, np.ones((24, 20, 3), np.uint8)), ".png"),
        "s3.png",
        "the PNG header differs",
    ),
}
for _title, (_write, _named, _words) in SLICES.items():
    add(f"a slice: {_title}", _write, "folder", _words, ndim=3, named=_named)
add("an_empty_folder", Path.mkdir, "folder", "has no image")


@malformed("folder", "has no image", ndim=3)
def a_folder_of_texts(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("x")
    (path / ".hidden.tif").write_text("x")


@malformed("folder", "has no image")
def a_folder_of_folders(path: Path) -> None:
    (path / "below").mkdir(parents=True)
    plain(path / "below" / "a.tif")


@malformed("folder", "two or more", ndim=3)
def a_folder_of_one_slice(path: Path) -> None:
    path.mkdir()
    plain(path / "a.tif")


@malformed("folder", "no permission to read or write it")
def a_folder_that_may_not_be_read(path: Path) -> None:
    path.mkdir()
    plain(path / "a.tif")
    path.chmod(0)


@malformed("folder", "the file is empty", named="b.tif", ndim=3)
def a_broken_file_in_a_folder(path: Path) -> None:
    path.mkdir()
    (path / "b.tif").touch()


@malformed("folder", "the model was trained on 2D", named="s0.tif")
def a_folder_with_a_volume_for_a_model_of_images(path: Path) -> None:
    path.mkdir()
    write_plane(VOLUME)(path / "s0.tif")


@malformed("folder", "would both write results called 'a'", named="A.tif")
def names_that_collide_where_case_does_not_count(path: Path) -> None:
    path.mkdir()
    for name in ("A.tif", "a.tif"):
        tifffile.imwrite(path / name, IMAGE)


# --- models

Members = dict[str, bytes]


def members(change: Callable[[Members], Members]) -> Callable[[Path], None]:
    """A change of what the archive holds."""

    def apply(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in change(content).items():
                archive.writestr(name, value)

    return apply


def without(part: str) -> Callable[[Path], None]:
    """Leaves out the first member whose name holds a text."""

    def change(content: Members) -> Members:
        first = next(name for name in content if part in name)
        return {name: value for name, value in content.items() if name != first}

    return members(change)


def setting(file: str, *keys: str, value: Any) -> Callable[[Path], None]:
    """Changes a value in one of the JSON files; ... leaves it out."""

    def change(content: Members) -> Members:
        parsed = inner = json.loads(content[file])
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        if value is ...:
            del inner[keys[-1]]
        return {**content, file: json.dumps(parsed).encode()}

    return members(change)


def weights(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Changes the largest array."""

    def apply(content: Members) -> Members:
        name = max((n for n in content if n.endswith(".npy")), key=lambda n: len(content[n]))
        buffer = io.BytesIO()
        np.save(buffer, change(np.load(io.BytesIO(content[name]))))
        return {**content, name: buffer.getvalue()}

    return members(apply)


def member(name: str, value: bytes) -> Callable[[Path], None]:
    return members(lambda content: {**content, name: value})


in_config, in_model = partial(setting, "config.json"), partial(setting, "model.json")
NO_MODEL, OTHER_VERSION = "is not a model file", "is not a model of this version"
MODEL_CASES: tuple[tuple[str, str, Callable[[Path], Any]], ...] = (
    ("cut in half", NO_MODEL, lambda p: cut(p, p.stat().st_size // 2)),
    ("without its last byte", NO_MODEL, lambda p: cut(p, -1)),
    ("without its first bytes", "", lambda p: p.write_bytes(p.read_bytes()[300:])),
    ("empty", "the file is empty", lambda p: p.write_bytes(b"")),
    ("text", NO_MODEL, lambda p: p.write_text("weights")),
    ("missing", "no such model", lambda p: p.unlink()),
    (
        "a dangling link",
        "no such model",
        steps(lambda p: p.unlink(), lambda p: p.symlink_to("missing")),
    ),
    (
        "a pipe",
        "no such model|no regular file",
        steps(lambda p: p.unlink(), lambda p: os.mkfifo(p)),
    ),
    ("an empty folder", "no such file, so", steps(lambda p: p.unlink(), lambda p: p.mkdir())),
    ("an empty archive", "it holds no config.json", members(lambda content: {})),
    ("without its config", "it holds no config.json", without("config.json")),
    ("without model.json", "it holds no model.json", without("model.json")),
    ("without an array", "it holds no variables/", without(".npy")),
    ("of weights that are NaN", "is damaged", weights(lambda w: w * np.nan)),
    ("of weights that are infinite", "is damaged", weights(lambda w: w + np.inf)),
    ("of weights of another shape", "describes has", weights(lambda w: np.stack([w, w]))),
    ("of weights of another type", "in it is float64", weights(lambda w: w.astype("f8"))),
    ("of a config that is no JSON", "config.json in it is not", member("config.json", b"{")),
    ("of a config that is no text", "config.json in it is not", member("config.json", b"\xff\xfe")),
    ("of a config that is deep", "config.json", member("config.json", b"[" * 10**5)),
    ("of a config that is a list", "no JSON object", member("config.json", b"[]")),
    ("of model.json that is a list", OTHER_VERSION, member("model.json", b"[]")),
    ("of model.json that is null", OTHER_VERSION, member("model.json", b"null")),
    (
        "of a setting of the future",
        "another version, .* settings train.magic",
        in_config("train", "magic", value=1),
    ),
    ("of a section that is a number", "", in_config("model", value=5)),
    ("of levels by a word", "config.json|levels", in_config("model", "levels", value="two")),
    ("of levels that are null", "config.json|levels", in_config("model", "levels", value=None)),
    ("of features that are a list", "", in_config("model", "features", value=[4])),
    ("of 10^9 features", "", in_config("model", "features", value=10**9)),
    ("of no such kernel", "kernel", in_config("target", "kernel", value="box")),
    ("of no such normalisation", "", in_model("normalisation", "method", value="box")),
    ("without normalisation", OTHER_VERSION, in_model("normalisation", value=...)),
    ("without thresholds", "", in_model("thresholds", value=...)),
    ("of thresholds that are empty", "", in_model("thresholds", value={})),
    ("of thresholds that are null", "TypeError", in_model("thresholds", value=None)),
    ("of strides that are null", "model.strides = None", in_config("model", "strides", value=None)),
    ("of a threshold that is text", "", in_model("thresholds", value={"peaks": "x"})),
    ("of channels by a word", "", in_model("channels", value="one")),
    ("of a negative number of channels", "", in_model("channels", value=-1)),
    ("of a fraction of a channel", "", in_model("channels", value=1.5)),
    ("of a spacing that is text", OTHER_VERSION, in_model("spacing", value="um")),
    ("of a spacing of one axis", "", in_model("spacing", value=[1.0])),
    ("of a spacing of 0", "", in_model("spacing", value=[0.0, 1.0])),
    ("of an unknown entry", OTHER_VERSION, in_model("magic", value=1)),
)
MODELS = {title: (damage, words) for title, words, damage in MODEL_CASES}


# --- the contract


def untrained(ndim: int) -> TrainedModel:
    """A model of one channel with voxels of 1 um and weights of 0, which finds nothing."""
    config = settings.default_config()
    if ndim == 3:
        variants.use_volumes(config)
        config.model.strides = ((1, 2, 2),)
    config.model.levels, config.model.features = 2, 2
    config.model.attention = "none"
    config.data.normalisation = "standardise"
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: initial_variables(key, config, channels=1))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return TrainedModel(
        config=config,
        step=1,
        variables=variables,
        normalisation=Normalisation("standardise"),
        channels=1,
        spacing=(1.0,) * ndim,
        spacing_known=False,
        thresholds={"peaks": 0.5},
    )


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A file for each number of dimensions."""
    files = {n: tmp_path_factory.mktemp("models") / f"{n}d.zip" for n in (2, 3)}
    for ndim, path in files.items():
        model_file.export_model(untrained(ndim), path, card="# None\n")
    return files


@pytest.fixture(scope="module")
def loaded(model_files: dict[int, Path]) -> dict[int, TrainedModel]:
    return {ndim: model_file.load_model(path) for ndim, path in model_files.items()}


Count = Callable[..., int]
Limits = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch, loaded: dict[int, TrainedModel]) -> Count:
    """The command with a model that is read once for all cases."""

    def run(path: Path, output: Path, *options: str, ndim: int) -> int:
        model = loaded[ndim]
        monkeypatch.setattr(model_file, "load_model", lambda _: model)
        return cli.main(["count", str(path), "--model", "m", "--output", str(output), *options])

    return run


def assert_one_line(errors: str, named: str, words: str) -> None:
    assert errors.endswith("\n") and len(errors.splitlines()) == 1, errors
    assert errors.startswith("error: ") and named in errors, errors
    assert re.search(words, errors), errors
    assert "Traceback" not in errors and "Unable to allocate" not in errors
    assert len(errors) < 1000 and errors[:-1].isprintable(), errors


def assert_no_results(output: Path) -> None:
    found = {path.name for path in output.rglob("*")} if output.exists() else set()
    assert not found & {"summary.json", "points.csv"}
    for table in output.glob("counts.csv"):
        with table.open(newline="", encoding="utf-8") as file:
            assert all(row["error"] and not row["count"] for row in csv.DictReader(file))


AS_ROOT = {"a_file_that_may_not_be_read", "a_folder_that_may_not_be_read"}


@pytest.mark.parametrize("title", CASES)
def test_a_malformed_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: Count, limited: Limits, title: str
) -> None:
    case = CASES[title]
    if title in AS_ROOT and os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.write(folder / case.name)
    with limited(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        status = count(folder / case.name, output, *case.options, ndim=case.ndim)
    assert status == 1
    assert_one_line(capsys.readouterr().err, case.named, case.words)
    assert_no_results(output)
    # Python would write these to stderr too.
    hidden = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    assert [w for w in told if not issubclass(w.category, hidden)] == []


@pytest.mark.parametrize("title", MODELS)
def test_a_malformed_model_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model_files: dict[int, Path],
    limited: Limits,
    title: str,
) -> None:
    damage, words = MODELS[title]
    model, output, image = tmp_path / "mine.zip", tmp_path / "out", tmp_path / "a.tif"
    shutil.copy(model_files[2], model)
    damage(model)
    tifffile.imwrite(image, IMAGE)
    with limited():
        status = cli.main(["count", str(image), "--model", str(model), "--output", str(output)])
    assert status == 1
    assert_one_line(capsys.readouterr().err, "mine.zip", words)
    assert_no_results(output)


def counted(array: np.ndarray, *, order: Literal["C", "F"]) -> np.ndarray:
    return np.asarray(np.arange(array.size).reshape(array.shape), array.dtype, order=order)


def test_weights_in_another_order_are_the_same(
    tmp_path: Path, model_files: dict[int, Path]
) -> None:
    models = []
    orders: tuple[Literal["C"], Literal["F"]] = ("C", "F")
    for order in orders:
        path = tmp_path / f"{order}.zip"
        shutil.copy(model_files[2], path)
        weights(partial(counted, order=order))(path)
        models.append(model_file.load_model(path).variables)
    jax.tree.map(np.testing.assert_array_equal, *models)
    assert max(value.max() for value in jax.tree.leaves(models[0])) > 1


# --- what looks malformed and is not

FINE: dict[str, tuple[str, Callable[[Path], Any], np.ndarray, tuple[str, ...]]] = {}


def fine(title: str, name: str, write: Writer, expected: np.ndarray = IMAGE, *options: str) -> None:
    """Registers what has to be read; the expected pixels are (z,) y, x of one channel."""
    FINE[title] = (name, write, expected, options)


GREY = (IMAGE % 256).astype(np.uint8)
BINARY = IMAGE > 100
SIGNED = IMAGE.astype(np.int16) - 120
for _dtype in ("u1", "i1", "u4", "u8", "i8", "f2", ">u2", ">f4", "f8", "g"):
    _array = (IMAGE % 100).astype(_dtype)
    fine(f".npy of {_dtype}", "a.npy", partial(npy, array=_array), _array)
fine(".npy of bool", "a.npy", lambda p: npy(p, BINARY), BINARY)
fine(".npy of negative numbers", "a.npy", lambda p: npy(p, SIGNED), SIGNED)
fine(".npy in Fortran's order", "a.npy", lambda p: npy(p, np.asfortranarray(IMAGE)))
fine(".npy volume in Fortran's order", "a.npy", lambda p: npy(p, np.asfortranarray(VOLUME)), VOLUME)
fine(".npy of version 3", "a.npy", lambda p: versioned(p, (3, 0)))
fine(".npy of one plane", "a.npy", lambda p: npy(p, IMAGE[None]))
fine("TIFF of bool", "a.tif", lambda p: tifffile.imwrite(p, BINARY), BINARY)
fine("TIFF by the specification alone", "a.tif", lie({}, pixels=GREY.tobytes()), GREY)
fine(
    "TIFF of an older deflate",
    "a.tif",
    lie({COMPRESSION: 32946}, pixels=zlib.compress(GREY.tobytes())),
    GREY,
)
fine(
    "TIFF that deflate makes 1000 times as short",
    "a.tif",
    lambda p: tifffile.imwrite(p, np.zeros((24, 20000), "u1"), compression="zlib", rowsperstrip=24),
    np.zeros((24, 20000), np.uint8),
)
fine(
    "TIFF of a resolution by zero",
    "a.tif",
    lie({282: (5, 1, 8), 283: (5, 1, 300)}, pixels=GREY.tobytes()),
    GREY,
)
fine("OME of another type", "a.tif", lambda p: ome(p, type="uint8"), VOLUME)
fine("OME of no known type", "a.tif", lambda p: ome(p, type="colour"), VOLUME)
fine("a time point", "a.tif", lambda p: ome(p, t="6", z="1"), VOLUME[4], "--time", "4")
fine("a channel", "a.tif", lambda p: ome(p, c="6", z="1"), VOLUME[2], "--channel", "2")
fine("PNG of one bit", "a.png", lambda p: png(p, BINARY), BINARY)
fine("PNG of 16 bits", "a.png", lambda p: png(p, IMAGE), IMAGE)
fine("PNG by the specification alone", "a.png", raw_png, np.zeros((24, 20), np.uint8))
fine("PNG with more behind it", "a.png", steps(png, append), GREY)
fine(
    "PNG that is opaque",
    "a.png",
    lambda p: png(p, np.dstack([GREY] * 3 + [np.full_like(GREY, 255)])),
    GREY,
    "--channel",
    "1",
)
fine("Zarr 2", "a.zarr", lambda p: zarr_array(p, zarr_format=2))
fine(
    "Zarr 2 with chunks in folders",
    "a.zarr",
    lambda p: zarr_array(p, zarr_format=2, chunk_key_encoding={"name": "v2", "separator": "/"}),
)
fine(
    "Zarr 3 with chunks in one folder",
    "a.zarr",
    lambda p: zarr_array(p, chunk_key_encoding={"name": "default", "separator": "."}),
)
fine(
    "Zarr shards",
    "a.zarr",
    lambda p: zarr.create_array(p, data=IMAGE, chunks=(4, 5), shards=(8, 10)),
)
fine(
    "Zarr without one chunk",
    "a.zarr",
    steps(lambda p: zarr_array(p, fill_value=7), lambda p: (p / "c/1/1").unlink()),
    np.where(np.pad(np.ones((8, 8)), ((8, 8), (8, 4))), 7, IMAGE),
)
fine(
    "Zarr of one value",
    "a.zarr",
    lambda p: zarr.create_array(
        p, data=0 * IMAGE, chunks=(8, 8), config={"write_empty_chunks": True}
    ),
    0 * IMAGE,
)
fine("OME-Zarr 0.4", "a.zarr", ome_zarr, VOLUME)
fine("OME-Zarr 0.5", "a.zarr", lambda p: ome_zarr(p, "0.5"), VOLUME)
fine("OME-Zarr, the coarser level", "a.zarr", ome_zarr, VOLUME, "--level", "1")
for _name in (
    "two words.tif",
    "細胞 é.tif",
    "a\nb.tif",
    "-a.tif",
    "a,b;c'd\".tif",
    ".tif.tif",
    LONG_NAME,
):
    fine(f"a name: {_name[:20]!r}", _name, lambda p: tifffile.imwrite(p, IMAGE))
fine(
    "a link",
    "a.tif",
    steps(lambda p: tifffile.imwrite(p.with_name("b.tif"), IMAGE), lambda p: p.symlink_to("b.tif")),
)


def versioned(path: Path, version: tuple[int, int]) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array(file, IMAGE, version=version)


@pytest.mark.parametrize("title", FINE)
def test_what_looks_malformed_and_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: Count, title: str
) -> None:
    name, write, expected, options = FINE[title]
    path, output = tmp_path / "in" / name, tmp_path / "out"
    path.parent.mkdir()
    write(path)
    numbers: dict[str, Any] = {
        option[2:]: int(value) for option, value in zip(options[::2], options[1::2], strict=True)
    }
    with open_source(path, Selection(**numbers)) as source:
        pixels = source.read((slice(None),) * expected.ndim)
    np.testing.assert_array_equal(pixels[..., 0], expected.astype(np.float32))
    assert pixels.shape == (*expected.shape, 1)
    assert count(path, output, *options, ndim=expected.ndim) == 0
    assert capsys.readouterr().err == "" and (output / "counts.csv").exists()
