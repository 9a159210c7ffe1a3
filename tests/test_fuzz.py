"""Files with random faults: each is read, or refused in one line that names it.

Hypothesis changes headers of files that are sound: tags, attributes, JSON, chunks, cells, bytes. A
few examples are tried each time, the same ones; `pytest tests/test_fuzz.py --fuzz 20000` tries as
many of each kind, other ones each time.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from cellcount_jax.data.blocks import read_block_states
from cellcount_jax.errors import InputError
from cellcount_jax.images.points import read_points, table_ndim
from cellcount_jax.images.sources import open_source
from cellcount_jax.inference import model_file
from cellcount_jax.label.session import Session

EDGE = 8  # voxels that are read of each axis

Damaged = st.SearchStrategy[bytes]


def odd_numbers() -> st.SearchStrategy[int]:
    """Small ones, and those at which a number of some bytes ends."""
    ends = [0, 1, 2, 3, 7, 8, 12, 127, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1]
    return st.sampled_from(ends) | st.integers(0, 2**32 - 1)


def odd_texts() -> st.SearchStrategy[str]:
    known = ["", " ", "0", "-1", "1e400", "nan", "inf", "1,62", "1.5", "999999999999", "µm", "dm"]
    known += ["XYZCT", "uint16", "double", "../x", "\x00", "true", "٣", "0x10", "1_0", "😀"]
    return st.sampled_from(known) | st.text(max_size=12)


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | odd_texts()
    return leaves | st.lists(leaves, max_size=4) | st.dictionaries(odd_texts(), leaves, max_size=3)


@st.composite
def other_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes replaced, cut out, put in, or the end cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        # Headers are at either end.
        at = draw(st.integers(0, min(400, len(changed))) | st.integers(0, len(changed)))
        match draw(st.sampled_from(("replace", "cut", "insert", "end"))):
            case "replace":
                new = draw(st.binary(min_size=1, max_size=4))
                changed[at : at + len(new)] = new
            case "cut":
                del changed[at : at + draw(st.integers(1, 16))]
            case "insert":
                changed[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "end":
                del changed[at:]
    return bytes(changed)


@st.composite
def other_tags(draw: st.DrawFn, content: bytes) -> bytes:
    """Fields of the tags of a little-endian TIFF."""
    changed, places, at = bytearray(content), [], struct.unpack_from("<I", content, 4)[0]
    while at:
        (number,) = struct.unpack_from("<H", content, at)
        places += [at + 2 + 12 * i for i in range(number)]
        (at,) = struct.unpack_from("<I", content, at + 2 + 12 * number)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places))
        offset, form = draw(st.sampled_from(((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"))))
        value = draw(odd_numbers()) % 2 ** (8 * struct.calcsize(form))
        struct.pack_into(form, changed, place + offset, value)
    return bytes(changed)


@st.composite
def other_attributes(draw: st.DrawFn, xml: str) -> str:
    """Values of attributes in an XML text."""
    parts = xml.split('"')
    for _ in range(draw(st.integers(1, 3))):
        parts[draw(st.integers(0, len(parts) // 2 - 1)) * 2 + 1] = draw(odd_texts())
    return '"'.join(parts)


@st.composite
def other_json(draw: st.DrawFn, text: str) -> str:
    """One or two values at any depth replaced, removed, or put in."""
    tree = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        at = tree
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 3)):
                at = at[key]
                continue
            if draw(st.integers(0, 4)):
                at[key] = draw(json_values())
            else:
                del at[key]
            break
    return json.dumps(tree)


@st.composite
def other_chunks(draw: st.DrawFn, content: bytes) -> bytes:
    """Chunks of a PNG file changed, left out, twice, or moved, with the right check sum."""
    chunks, at = [], 8
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(draw(st.integers(1, 2))):
        if not chunks:
            break
        i = draw(st.integers(0, len(chunks) - 1))
        kind, data = chunks[i]
        match draw(st.sampled_from(("data", "kind", "drop", "twice", "move"))):
            case "data" if data:
                chunks[i] = kind, draw(other_bytes(data))
            case "kind":
                others = [b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"gAMA", b"acTL", b"IEND", b"zTXt"]
                chunks[i] = draw(st.sampled_from(others)), data
            case "drop":
                del chunks[i]
            case "twice":
                chunks.insert(i, (kind, data))
            case "move":
                chunks.insert(draw(st.integers(0, len(chunks) - 1)), chunks.pop(i))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[:8] + body


@st.composite
def other_cells(draw: st.DrawFn, text: str) -> str:
    """Cells and lines of a table."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        match draw(st.sampled_from(("cell", "more", "less"))):
            case "cell" if row:
                row[draw(st.integers(0, len(row) - 1))] = draw(odd_texts())
            case "more":
                row.append(draw(odd_texts()))
            case "less" if row:
                row.pop()
    ends = draw(st.sampled_from(("\n", "\r\n", "\r")))
    return ends.join(draw(st.sampled_from((",", ";", "\t"))).join(row) for row in rows)


# --- sound files

PIXELS = np.random.default_rng(0).integers(1, 250, (6, 24, 20)).astype(np.uint16)


def tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="minisblack", **options)
    return file.getvalue()


TIFFS = {
    "plain": tiff(metadata=None, resolution=(2, 2), resolutionunit="CENTIMETER"),
    "tiles": tiff(metadata=None, tile=(16, 16), compression="zlib"),
    "ImageJ": tiff(
        imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "um", "spacing": 3}
    ),
}
XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels'
    ' ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="24" SizeZ="6" SizeC="1"'
    ' SizeT="1" PhysicalSizeX="1.5" PhysicalSizeXUnit="um" PhysicalSizeY="1.5" PhysicalSizeZ="3">'
    '<Channel ID="Channel:0:0" Name="a" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="6"/>'
    "</Pixels></Image></OME>"
)
PNG = io.BytesIO()
PillowImage.fromarray(PIXELS[0].astype(np.uint8)).save(PNG, "png")
TABLE = "z,y,x,score\n" + "\n".join(f"{i % 6},{i},{i % 20}.5,0.{i}" for i in range(10))


# --- the contract

Examine = Callable[
    [st.SearchStrategy[Any], Callable[[Any], object], Callable[[Path], object], Path], None
]


@pytest.fixture
def examine(
    request: pytest.FixtureRequest, limited: Callable[[], contextlib.AbstractContextManager[None]]
) -> Examine:
    """Writes examples of a file, as many as `--fuzz` says: each is read or refused in one line."""
    number: int | None = request.config.getoption("--fuzz")

    def examine(
        strategy: st.SearchStrategy[Any],
        write: Callable[[Any], object],
        read: Callable[[Path], object],
        path: Path,
    ) -> None:
        def check(damaged: Any) -> None:
            write(damaged)
            try:
                # Warnings are lines of the command.
                with limited(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path)
            except InputError as error:
                text = str(error)
                assert path.name in text and len(text) < 1000, text
                assert "Traceback" not in text and "Unable to allocate" not in text

        settings(
            max_examples=number or 25,
            derandomize=number is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(given(strategy)(check))()

    return examine


def read_image(path: Path) -> None:
    with open_source(path) as source:
        source.read(tuple(slice(0, min(EDGE, size)) for size in source.shape))


def read_table(path: Path) -> None:
    read_points(path, ndim=table_ndim(path))


@pytest.mark.parametrize("kind", TIFFS)
def test_tiff(examine: Examine, tmp_path: Path, kind: str) -> None:
    content, path = TIFFS[kind], tmp_path / "a.tif"
    examine(other_tags(content) | other_bytes(content), path.write_bytes, read_image, path)


def test_ome_xml(examine: Examine, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"

    def write(xml: str) -> None:
        path.write_bytes(tiff(metadata=None, description=xml.encode("utf-8", "replace")))

    examine(other_attributes(XML), write, read_image, path)


def test_png(examine: Examine, tmp_path: Path) -> None:
    content, path = PNG.getvalue(), tmp_path / "a.png"
    examine(other_chunks(content) | other_bytes(content), path.write_bytes, read_image, path)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(examine: Examine, tmp_path: Path, version: Literal[2, 3]) -> None:
    path = tmp_path / "a.zarr"
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [3.0, 1.5, 1.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    about: dict[str, Any] = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}]}
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_array("0", data=PIXELS, chunks=(3, 12, 10))
    group.attrs.update(about if version == 2 else {"ome": about | {"version": "0.5"}})
    names = (".zattrs", ".zgroup", "0/.zarray") if version == 2 else ("zarr.json", "0/zarr.json")
    sound = {name: (path / name).read_text() for name in names}

    def write(damaged: tuple[str, str]) -> None:
        for name, text in (sound | dict([damaged])).items():
            (path / name).write_text(text)

    strategies = [st.tuples(st.just(name), other_json(text)) for name, text in sound.items()]
    examine(st.one_of(*strategies), write, read_image, path)


def test_table_of_points(examine: Examine, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    cells = other_cells(TABLE).map(lambda text: text.encode("utf-8", "replace"))
    examine(cells | other_bytes(TABLE.encode()), path.write_bytes, read_table, path)


def test_label_json(examine: Examine, tmp_path: Path) -> None:
    image = tmp_path / "a.tif"
    image.write_bytes(TIFFS["ImageJ"])
    with Session(image, block=(3, 12, 10)) as session:
        session.add((1, 2, 3))
        session.mark([(0, 0, 0)], 2)
    (path,) = tmp_path.glob("*label.json")
    examine(other_json(path.read_text()), path.write_text, read_block_states, path)


def test_model_file(examine: Examine, tmp_path: Path, run_2d: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(run_2d / "model.zip") as archive:
        sound = {name: archive.read(name) for name in archive.namelist()}
    arrays = (name for name in sound if name.endswith(".npy"))
    smallest = min(arrays, key=lambda name: len(sound[name]))

    def write(damaged: tuple[str, str | bytes]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (sound | dict([damaged])).items():
                archive.writestr(name, content)

    texts = ("config.json", "model.json")
    strategies = [st.tuples(st.just(n), other_json(sound[n].decode())) for n in texts]
    array = st.tuples(st.just(smallest), other_bytes(sound[smallest]))
    examine(st.one_of(*strategies, array), write, model_file.load_model, path)


def test_zip_of_a_model(examine: Examine, tmp_path: Path) -> None:
    file, path = io.BytesIO(), tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.json", "{}")
    examine(other_bytes(file.getvalue()), path.write_bytes, model_file.load_model, path)
