"""Whether an image at an address was replaced."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.modified import modified
from cellcount_jax.images.remote_state import shows_changes
from cellcount_jax.images.sources import open_source

State = list[int | str]


def write(path: Path, zarr_format: Literal[2, 3] = 3) -> Path:
    """A group with an image of 3 x 4 chunks; its array's folder."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    values = np.random.default_rng(0).integers(1, 999, (12, 16)).astype("u2")
    group.create_array("0", data=values, chunks=(4, 4))
    multiscale: Any = {"axes": ["y", "x"], "datasets": [{"path": "0"}], "version": "0.3"}
    group.attrs["multiscales"] = [multiscale]
    return path / "0"


def state(address: str) -> State:
    with open_source(address) as source:
        return modified(source.path, source.files)


def later(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 5 * 10**9))


@pytest.mark.parametrize(
    ("zarr_format", "chunk", "metadata"),
    [
        (2, "0/1.2", (".zattrs", ".zgroup", "0/.zarray", "0/.zattrs")),
        (3, "0/c/1/2", ("zarr.json", "0/zarr.json")),
    ],
)
def test_changes_are_seen(
    tmp_path: Path,
    server: str,
    zarr_format: Literal[2, 3],
    chunk: str,
    metadata: tuple[str, ...],
) -> None:
    folder, address = write(tmp_path / "a.zarr", zarr_format).parent, f"{server}/a.zarr"
    states = [state(address)]
    with open_source(address) as source:
        assert shows_changes(source.files)
    changes: list[Callable[[], object]] = [
        lambda: later(folder / chunk),
        lambda: (folder / chunk).rename(folder / "kept"),
        lambda: (folder / "kept").rename(folder / chunk),
        *(functools.partial(later, folder / name) for name in metadata),
    ]
    for change in changes:
        assert state(address) == states[-1]
        change()
        states.append(state(address))
    assert states[3] == states[1]  # as it was, put back
    assert len({str(one) for one in states}) == len(states) - 1


def test_a_server_that_says_nothing(tmp_path: Path, silent_server: str) -> None:
    """The content of metadata and the sizes of files are seen still."""
    array, address = write(tmp_path / "a.zarr"), f"{silent_server}/a.zarr"
    before = state(address)
    with open_source(address) as source:
        assert not shows_changes(source.files)
    later(array / "c/1/2")
    assert state(address) == before
    text = (array / "zarr.json").read_text()
    assert "uint16" in text
    (array / "zarr.json").write_text(text.replace("uint16", "int16"))
    other = state(address)
    assert other != before
    (array / "c/1/2").write_bytes((array / "c/1/2").read_bytes() + b"x")
    assert state(address) != other


def test_a_server_that_no_longer_answers(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no image that was replaced; fsspec says so of HTTP by the cause of its error."""
    write(tmp_path / "a.zarr")

    def info(path: str, **_: object) -> dict[str, Any]:
        raise FileNotFoundError(path) from ConnectionError("connection lost")

    with open_source(f"{server}/a.zarr") as source:
        system, _ = fsspec.url_to_fs(f"{server}/a.zarr")
        monkeypatch.setattr(type(system), "info", staticmethod(info))
        with pytest.raises(InputError, match=r"does not answer \(connection lost\).*goes on once"):
            modified(source.path, source.files)


def test_a_server_over_http(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    array = write(tmp_path / "a.zarr")
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{served.server_port}/a.zarr"
        states = [state(address), state(address)]
        later(array / "c/1/2")
        states.append(state(address))
        with open_source(address) as source:
            assert shows_changes(source.files)
            served.shutdown()
            served.server_close()
            with pytest.raises(InputError, match="does not answer"):
                modified(source.path, source.files)
    assert states[0] == states[1] != states[2]
    assert states[0][0] == 2 + 12  # metadata and chunks
