"""Whether an image's files were replaced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from cellcount_jax.images.modified import modified


def store(folder: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 99, (8, 8), np.uint8)
    zarr.create_array(folder / "a.zarr", data=array, chunks=(4, 4))
    return folder / "a.zarr"


def same_times(path: Path, content: bytes) -> None:
    found = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def later(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


def test_any_change_below_a_folder_is_seen(tmp_path: Path) -> None:
    folder = store(tmp_path)
    chunk = folder / "c/0/1"
    states = [modified(folder)]
    for change in (
        lambda: later(chunk),
        lambda: same_times(chunk, chunk.read_bytes() + b"x"),
        lambda: chunk.rename(folder / "c/0/2"),
        lambda: shutil.copy(folder / "c/0/2", chunk),
        lambda: later(folder / "zarr.json"),
        lambda: (folder / "c/0/2").unlink(),
        lambda: (folder / "c/9").symlink_to("nowhere"),
    ):
        assert modified(folder) == states[-1]
        change()
        states.append(modified(folder))
    assert len({str(state) for state in states}) == len(states)
    assert states[0] is not None and states[0][0] == 5  # four chunks and the metadata


def test_what_a_file_browser_leaves_changes_nothing(tmp_path: Path) -> None:
    folder = store(tmp_path)
    before = modified(folder)
    for name in (".DS_Store", "c/Thumbs.db", "c/0/desktop.ini", "._a"):
        (folder / name).write_text("x")
    assert modified(folder) == before


def test_files_in_place_of_their_folder(tmp_path: Path) -> None:
    files = [tmp_path / f"z{z}.tif" for z in range(3)]
    for path in files:
        path.write_bytes(b"12")
    before = modified(tmp_path, files)
    assert before is not None and before[:2] == [3, 6]
    (tmp_path / "notes.txt").write_text("x")
    assert modified(tmp_path, files) == before
    later(files[1])
    assert modified(tmp_path, files) != before
    assert modified(files[0]) == [2, files[0].stat().st_mtime_ns]
    with pytest.raises(FileNotFoundError):
        modified(tmp_path, [tmp_path / "none.tif"])


def test_files_are_the_same_by_a_relative_path_and_through_a_linked_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "slices"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    for z in range(2):
        (folder / f"z{z}.tif").write_bytes(b"12")
    monkeypatch.chdir(tmp_path)
    places = (folder, Path("slices"), Path("link"))
    states = [modified(place, sorted(place.iterdir())) for place in places]
    assert states[0] == states[1] == states[2]
