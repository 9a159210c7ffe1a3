"""What is replaced is the old one or the whole new one; tables hold no formulas."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing, replacing_folder, write_table


def make(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a").write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.zarr"
    for text in ("one", "two"):
        with replacing_folder(path) as temporary:
            make(temporary, text)
            (temporary / text).write_text("")
        assert texts(path.parent) == {"a.zarr/a": text, f"a.zarr/{text}": ""}


def test_the_old_folder_stays_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    make(path, "old")
    with pytest.raises(KeyError), replacing_folder(path) as temporary:
        make(temporary, "new")
        raise KeyError
    assert texts(tmp_path) == {"a.zarr/a": "old"}
    rename = os.rename

    def full(old: Path, new: Path) -> None:
        if str(old).endswith(".tmp"):
            raise OSError("no space")
        rename(old, new)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="no space"), replacing_folder(path) as temporary:
        make(temporary, "new")
    assert texts(tmp_path) == {"a.zarr/a": "old"}


def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path: Path) -> None:
    make(tmp_path / "target", "kept")
    (tmp_path / "a.zarr").symlink_to(tmp_path / "target", target_is_directory=True)
    with replacing_folder(tmp_path / "a.zarr") as temporary:
        make(temporary, "new")
    assert texts(tmp_path) == {"a.zarr/a": "new", "target/a": "kept"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("mine")
    with pytest.raises(InputError, match="is a file"), replacing_folder(tmp_path / "a.zarr"):
        raise AssertionError
    assert texts(tmp_path) == {"a.zarr": "mine"}


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    make(tmp_path / "a", "mine")
    for path in (tmp_path / "a", tmp_path / "a/.."):
        with pytest.raises(InputError, match="is a folder, a file is"), replacing(path):
            raise AssertionError
    assert texts(tmp_path) == {"a/a": "mine"}


def test_text_of_a_table_is_no_formula(tmp_path: Path) -> None:
    cells = ["=1+1", "+a.tif", "-a.tif", "@sum", "\tx", "\rx", "a=b", "-1.5", "+3e5", -2, None, ""]
    write_table(tmp_path / "a.csv", ["=header"], [[cell] for cell in cells])
    with (tmp_path / "a.csv").open(newline="") as file:
        written = [row[0] if row else "" for row in csv.reader(file)]
    expected = ["'=1+1", "'+a.tif", "'-a.tif", "'@sum", "'\tx", "'\rx", "a=b", "-1.5", "+3e5", "-2"]
    assert written == ["'=header", *expected, "", ""]
