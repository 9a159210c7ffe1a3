"""Label volumes of any size and resolution: exact ids, read in blocks, points by their fraction."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from cellcount_jax.errors import InputError
from cellcount_jax.images import label_volumes
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source

ALLEN = 614454277  # an id of the Allen atlas, which 32-bit floats round to 614454272


def everything(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def write_zarr(path: Path, array: np.ndarray, chunks: tuple[int, ...] | None = None) -> Path:
    zarr.create_array(
        path,
        data=array,
        chunks=chunks or array.shape,
        overwrite=True,
        config={"write_empty_chunks": True},
    )
    return path


# --- Source.read_labels


@pytest.mark.parametrize(
    "dtype", ["bool", "u1", "<u2", ">u2", "<i4", ">u4", "<i8", "<u8", ">f4", "f8"]
)
@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_of_every_type(tmp_path: Path, dtype: str, ndim: int) -> None:
    array = np.random.default_rng(0).integers(0, 3, (4, 5, 6)[-ndim:]).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    region = (slice(1, 3), slice(0, 5), slice(2, 6))[-ndim:]
    with open_source(tmp_path / "a.npy") as source:
        found = source.read_labels(region)
    assert found.dtype == np.int64 and found.flags["OWNDATA"] and found.flags["WRITEABLE"]
    np.testing.assert_array_equal(found, array[region].astype(int))


@pytest.mark.parametrize("value", [ALLEN, 2**32 - 1, 2**32 + 1, 2**53 + 1, 2**63 - 1, -5])
def test_large_labels_are_exact(tmp_path: Path, value: int) -> None:
    array = np.full((2, 5, 6), value, np.int64)
    write_zarr(tmp_path / "a.zarr", array)
    np.save(tmp_path / "a.npy", array)
    paths = [tmp_path / "a.zarr", tmp_path / "a.npy"]
    if 0 < value < 2**32:
        paths += [tmp_path / "a.tif", tmp_path / "zlib.tif"]
        tifffile.imwrite(paths[2], array.astype(np.uint32), metadata={"axes": "ZYX"}, ome=True)
        tifffile.imwrite(paths[3], array.astype(np.uint32), metadata=None, compression="zlib")
    for path in paths:
        with open_source(path) as source:
            found = source.read_labels(everything((2, 5, 6)))
        assert found.dtype == np.int64 and (found == value).all(), path


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("f4", 1.5, "1.5 at (z, y, x) = (1, 2, 3); labels are whole numbers"),
        ("f4", np.nan, "nan at (z, y, x) = (1, 2, 3); labels are whole numbers"),
        ("f8", np.inf, "inf at (z, y, x) = (1, 2, 3); labels are whole numbers"),
        ("f4", ALLEN, "614454272 at (z, y, x) = (1, 2, 3); from 16777216 on, labels are rounded"),
        ("f4", 2**24, "from 16777216 on"),
        ("f2", 2048, "from 2048 on"),
        ("f8", 2.0**53, "from 9007199254740992 on"),
        ("u8", 2**63, "labels are below 2^63"),
    ],
)
def test_numbers_that_are_no_labels(tmp_path: Path, dtype: str, value: Any, words: str) -> None:
    array = np.zeros((3, 4, 5), dtype)
    array[1, 2, 3] = value
    path = tmp_path / "a.npy"
    np.save(path, array)
    with open_source(path) as source:
        with pytest.raises(InputError) as error:
            source.read_labels((slice(1, 3), slice(0, 4), slice(1, 5)))
        assert (source.read_labels((slice(0, 1), slice(0, 4), slice(0, 5))) == 0).all()
    message = str(error.value)
    assert message.startswith(f"{path}: ") and words in message and "as integers" in message


def test_whole_floats_are_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[2**24 - 1, -3]], np.float32))
    with open_source(tmp_path / "a.npy") as source:
        assert source.read_labels(everything((1, 2))).tolist() == [[2**24 - 1, -3]]


def test_labels_of_several_channels(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    PillowImage.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    with (
        open_source(path) as source,
        pytest.raises(InputError, match=r"mask\.png: has 3 channels") as error,
    ):
        source.read_labels(everything((4, 5)))
    assert str(error.value).startswith(str(path))
    with open_source(path, Selection(channel=1)) as source:
        assert source.read_labels(everything((4, 5))).shape == (4, 5)
    with pytest.raises(InputError, match=r"mask\.png: has 3 channels"):
        label_volumes.open_label_volume(path, shape=(8, 10), spacing=None)


# --- open_label_volume


def test_what_is_opened(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.uint16).reshape(2, 5, 6)
    (tmp_path / "slices").mkdir()
    for number, plane in enumerate(array):
        tifffile.imwrite(tmp_path / "slices" / f"{number}.tif", plane)
    np.save(tmp_path / "a.npy", array)
    tifffile.imwrite(tmp_path / "a.tif", array)
    write_zarr(tmp_path / "a.zarr", array)
    for name in ("slices", "a.npy", "a.tif", "a.zarr"):
        opened = label_volumes.open_label_volume(
            tmp_path / name, shape=(4, 10, 12), spacing=(1.0, 1.0, 1.0)
        )
        with opened as source:
            np.testing.assert_array_equal(source.read_labels(everything((2, 5, 6))), array)


def test_another_number_of_dimensions(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5), np.uint8))
    with pytest.raises(
        InputError, match=r"a\.npy: labels of 4 x 5 voxels for an image of 2 x 4 x 5"
    ):
        label_volumes.open_label_volume(tmp_path / "a.npy", shape=(2, 4, 5), spacing=None)


def ome_zarr(path: Path, shape: tuple[int, ...], scale: tuple[float, ...] | None) -> Path:
    """Of all pixels one is written: a volume as large as is wanted."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array("0", shape=shape, chunks=(64,) * len(shape), dtype="u4")
    array[(0,) * len(shape)] = 1
    unit = {} if scale is None else {"unit": "micrometer"}
    transform = {"type": "scale", "scale": list(scale or (1.0,) * len(shape))}
    multiscale: dict[str, Any] = {
        "version": "0.4",
        "axes": [{"name": a, "type": "space", **unit} for a in "zyx"[-len(shape) :]],
        "datasets": [{"path": "0", "coordinateTransformations": [transform]}],
    }
    group.attrs["multiscales"] = [multiscale]
    return path


@pytest.mark.parametrize(
    ("theirs", "scale", "fits"),
    [
        ((528, 320, 456), (25.0, 25.0, 25.0), True),
        # An atlas is larger than the brain by the same factor along all axes.
        ((528, 320, 456), (30.0, 30.0, 30.0), True),
        ((528, 320, 456), (25.4, 25.0, 25.0), True),
        ((528, 320, 456), (25.7, 25.0, 25.0), False),
        ((528, 320, 456), (25.0, 25.0, 24.3), False),
        ((320, 528, 456), (25.0, 25.0, 25.0), False),
        ((528, 320, 456), None, True),
        # One voxel of ten more or less is rounding, two are not.
        ((11, 8, 11), (1200.0, 1000.0, 1000.0), True),
        ((14, 8, 11), (1200.0, 1000.0, 1000.0), False),
    ],
)
def test_stretched_labels(
    tmp_path: Path, theirs: tuple[int, ...], scale: tuple[float, ...] | None, fits: bool
) -> None:
    path = ome_zarr(tmp_path / "atlas.zarr", theirs, scale)
    ours: dict[str, Any] = {"shape": (2200, 4938, 7037), "spacing": (6.0, 1.62, 1.62)}
    if fits:
        label_volumes.open_label_volume(path, **ours).close()
    else:
        with pytest.raises(InputError, match=r"atlas\.zarr: labels of .* um: they are stretched"):
            label_volumes.open_label_volume(path, **ours)
    label_volumes.open_label_volume(path, shape=ours["shape"], spacing=None).close()


def test_labels_of_a_few_planes_are_not_stretched_by_rounding(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", (3, 100, 100), (25.0, 25.0, 25.0))
    label_volumes.open_label_volume(path, shape=(10, 500, 500), spacing=(6.0, 5.0, 5.0)).close()


# --- Names


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text(
        'parent,ID,acronym, Name\n,997,root,root\n997,614454277,x,"Layer 1, ü "\n,5,y,\n',
        encoding="utf-8-sig",
    )
    assert label_volumes.read_names(path) == {997: "root", ALLEN: "Layer 1, ü", 5: ""}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"number,name\n1,a\n", "found the columns 'number', 'name'; a header with id and name"),
        (b"id,name\n1,a\n1.5,b\n", "line 3: the id '1.5' is not a whole number"),
        (b"name,id\na\n", "line 2: the id None is not a whole number"),
        (b"id,name\n1_0,a\n", "line 2: the id '1_0' is not a whole number"),
        (b"id,name\n1,a\n2,b\n1,c\n", "line 4: the id 1 stands twice"),
        (b"id,name\n1,\xff\n", "is not a CSV text file in UTF-8"),
        (b"", "is empty"),
    ],
)
def test_files_of_names_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "names.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        label_volumes.read_names(path)
    assert str(error.value).startswith(str(path)) and words in str(error.value)


# --- Blocks


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_blocks_fill_a_region_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = tuple(data.draw(st.lists(st.integers(2, 12), min_size=2, max_size=3)))
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    region = tuple(
        slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True)
    )
    limit = data.draw(st.integers(1, 100))
    path = write_zarr(tmp_path_factory.mktemp("a") / "a.zarr", np.zeros(shape, np.uint8), chunks)
    with pytest.MonkeyPatch.context() as patch, open_source(path) as source:
        patch.setattr(label_volumes, "_BLOCK_VOXELS", limit)
        for wanted in (region, None):
            seen = np.zeros(shape, int)
            for block in label_volumes.blocks(source, wanted):
                assert 0 < seen[block].size <= limit
                seen[block] += 1
            expected = np.zeros(shape, int)
            expected[wanted or ...] = 1
            np.testing.assert_array_equal(seen, expected)


def test_blocks_are_whole_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zarr(tmp_path / "a.zarr", np.zeros((8, 20, 20), np.uint8), (4, 8, 8))
    for limit, sizes in (
        (4 * 8 * 8, (4, 8, 8)),
        (4 * 8 * 23, (4, 8, 16)),
        (4 * 8 * 24, (4, 8, 20)),
        (10**6, (8, 20, 20)),
    ):
        monkeypatch.setattr(label_volumes, "_BLOCK_VOXELS", limit)
        with open_source(path) as source:
            first = next(label_volumes.blocks(source))
        assert tuple(part.stop for part in first) == sizes


# --- Points


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_the_label_of_a_point(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """By exact fractions of the extent, with labels finer or coarser than the image."""
    shape = tuple(data.draw(st.lists(st.integers(1, 40), min_size=2, max_size=3)))
    # A first axis of one voxel is dropped when a volume is opened.
    theirs = (
        data.draw(st.integers(len(shape) - 1, 12)),
        *(data.draw(st.integers(1, 12)) for _ in shape[1:]),
    )
    place = [
        st.floats(-0.5, n - 0.5, width=32) | st.integers(0, 2 * n).map(lambda i: i / 2 - 0.5)
        for n in shape
    ]
    points = data.draw(st.lists(st.tuples(*place), max_size=12))
    array = np.arange(np.prod(theirs)).reshape(theirs) * 10**9
    path = tmp_path_factory.mktemp("a") / "a.npy"
    np.save(path, array)
    expected = []
    for point in points:
        voxel = [
            min(int((Fraction(float(v)) + Fraction(1, 2)) * theirs[a] / shape[a]), theirs[a] - 1)
            for a, v in enumerate(point)
        ]
        expected.append(int(array[tuple(voxel)]))
    with pytest.MonkeyPatch.context() as patch, open_source(path) as source:
        patch.setattr(label_volumes, "_BLOCK_VOXELS", data.draw(st.integers(1, 60)))
        found = label_volumes.lookup(
            source, np.array(points, np.float32).reshape(-1, len(shape)), shape=shape
        )
    assert found.dtype == np.int64 and found.tolist() == expected


def test_only_blocks_with_points_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_volumes, "_BLOCK_VOXELS", 64)
    np.save(tmp_path / "a.npy", np.ones((16, 8, 8), np.uint8))
    with open_source(tmp_path / "a.npy") as source:
        read: list[Any] = []
        once = source.read_labels

        def noted(_: object, region: tuple[slice, ...]) -> np.ndarray:
            read.append(region)
            return once(region)

        monkeypatch.setattr(type(source), "read_labels", noted)
        points = np.array([[0, 0, 0], [15, 7, 7], [0, 5, 1]], np.float32)
        assert label_volumes.lookup(source, points, shape=(16, 8, 8)).tolist() == [1, 1, 1]
    assert [part.start for part, *_ in read] == [0, 15]


def test_options_of_the_image_are_not_those_of_labels_that_are_time_points(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.ones((5, 8, 8), np.uint8), imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(InputError, match=r"5 time points.*save its labels .* axes z, y, x\.$"):
        label_volumes.open_label_volume(path, shape=(5, 8, 8), spacing=None)
