"""Zarr in zip files and at addresses, and sizes that lie."""

from __future__ import annotations

import functools
import http.server
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.inputs import find_inputs
from cellcount_jax.images.openers import short_name
from cellcount_jax.images.sources import open_source
from cellcount_jax.images.zarr_stores import as_path, is_zarr

IMAGE = np.random.default_rng(0).integers(0, 999, (12, 16)).astype("u2")


def write(path: Path, zarr_format: Literal[2, 3] = 3) -> Path:
    """A group with an image of 12 chunks."""
    multiscale: Any = {"axes": ["y", "x"], "datasets": [{"path": "0"}], "version": "0.3"}
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=IMAGE, chunks=(4, 4))
    group.attrs["multiscales"] = [multiscale]
    return path


def zipped(folder: Path, path: Path, prefix: str = "", *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for found in sorted(folder.rglob("*")):
            if found.is_file():
                file.write(found, f"{prefix}{found.relative_to(folder).as_posix()}")
    return path


def check(path: str | Path) -> None:
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((slice(0, 12), slice(0, 16)))[..., 0], IMAGE)
        np.testing.assert_array_equal(
            source.read((slice(3, 6), slice(5, 13)))[..., 0], IMAGE[3:6, 5:13]
        )
    with pytest.raises(ValueError, match="was closed"):
        source.read((slice(0, 1), slice(0, 1)))


def check_refused(path: str | Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_source(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and text.endswith(".")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["a.ome.zarr.zip", "a.ozx", "A.ZARR.ZIP"])
@pytest.mark.parametrize("prefix", ["", "a.zarr/"])
def test_zip_files(tmp_path: Path, zarr_format: Literal[2, 3], name: str, prefix: str) -> None:
    path = zipped(write(tmp_path / "b", zarr_format), tmp_path / name, prefix)
    assert is_zarr(path) and short_name(path).lower() == "a"
    assert [i.path for i in find_inputs([path], ndim=2)] == [path]
    check(path)


def test_a_folder_of_zip_files_is_of_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    (tmp_path / "images").mkdir()
    paths = [zipped(folder, tmp_path / "images" / name) for name in ("a.zarr.zip", "c.ozx")]
    (tmp_path / "images" / "other.zip").write_bytes(b"x")
    assert [i.path for i in find_inputs([tmp_path / "images"], ndim=2)] == paths


def test_damaged_zip_files(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr.zip"
    folder = write(tmp_path / "b")
    whole = zipped(folder, path).read_bytes()
    for content, message in (
        (b"PK\x03\x04" + b"0" * 64, "cannot be read as Zarr .*not a zip file"),
        (whole[: len(whole) // 2], "not a zip file"),
        (zipped(tmp_path / "nothing", path).read_bytes(), "none of .zarray, .zgroup, zarr.json"),
        (zipped(tmp_path, path, "c/").read_bytes(), "none of .* is in its top folder"),
    ):
        path.write_bytes(content)
        check_refused(path, message)
    for chunk in (folder / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    zipped(folder, path).read_bytes()
    check_refused(path, "/0: none of its chunks is stored")


@pytest.mark.parametrize(
    ("name", "message"),
    [("0/c/0/0", "0/c/0/0 in it unpacks to"), ("zarr.json", "its metadata are larger than")],
)
def test_what_unpacks_to_far_more_than_it_should(tmp_path: Path, name: str, message: str) -> None:
    folder = write(tmp_path / "b")
    (folder / name).write_bytes(bytes(65 * 2**20))
    path = zipped(folder, tmp_path / "a.zarr.zip", method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    check_refused(path, message)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_address(tmp_path: Path, server: str, zarr_format: Literal[2, 3]) -> None:
    write(tmp_path / "a.zarr", zarr_format)
    check(f"{server}/a.zarr")
    check(as_path(Path(f"{server}/a.zarr/")))  # a path has one slash of the two
    [found] = find_inputs([f"{server}/a.zarr/"], ndim=2)
    assert (found.name, str(found.path)) == ("a", f"{server}/a.zarr")
    assert found.path.resolve() == found.path


def test_what_is_not_at_an_address(tmp_path: Path, server: str) -> None:
    check_refused(f"{server}/b.zarr", "no Zarr array or group.*Only Zarr is read from an address")
    (tmp_path / "a.tif").write_bytes(b"x" * 99)
    check_refused(f"{server}/a.tif", "Only Zarr is read from an address; download other files")
    for chunk in (write(tmp_path / "a.zarr") / "0" / "c").rglob("?"):
        if chunk.is_file():
            chunk.unlink()
    check_refused(f"{server}/a.zarr", "none of its chunks is stored")


def test_an_address_without_the_packages_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    check_refused("https://host/a.zarr", r"EXTRAS=remote .*\.sh\. Or download")
    check_refused("s3://bucket/a.zarr", r"pip install s3fs\. Or download")


def test_a_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    write(tmp_path / "a.zarr", 2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        check(f"http://127.0.0.1:{served.server_port}/a.zarr")
        check_refused(f"http://127.0.0.1:{served.server_port}/b.zarr", "no Zarr array or group")
        served.shutdown()


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((10**6,) * 3, (64,) * 3, r"promise 1000000 x 1000000 x 1000000 voxels .* only 1 could"),
        ((10**9,) * 2, (64,) * 2, r"in 2\.44e\+14 chunks, of which only 1 could be found"),
        ((10**6,) * 3, (10**6,) * 3, "chunks of 1000000 x 1000000 x 1000000 take 2e.09 GB each"),
        ((40, 40, 40), (10**5,) * 3, "too much for the .* GB of memory here; save it with smaller"),
    ],
)
def test_sizes_that_lie(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], message: str
) -> None:
    """Metadata that promise more than there is, with one chunk stored."""
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=shape, chunks=chunks, dtype="u2")
    if max(chunks) < 100:
        array[(slice(0, 4),) * len(shape)] = 1
    started = time.monotonic()
    check_refused(path, message)
    assert time.monotonic() - started < 1


def test_a_large_array_of_which_little_is_stored_is_an_image(tmp_path: Path) -> None:
    """Such as a mask of a part: the rest is the fill value."""
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(10**5,) * 2, chunks=(64, 64), dtype="u1")
    array[:9, :9] = 1
    with open_source(path) as source:
        region = source.read((slice(5, 15), slice(5, 15)))
    assert region.sum() == 16
