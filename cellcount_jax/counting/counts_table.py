"""counts.csv: a row an input, of all counts into one folder, by whatever processes."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from cellcount_jax.errors import InputError, reason
from cellcount_jax.images.files import no_formula, write_table
from cellcount_jax.images.locks import held

NAME = "counts.csv"
# The first columns, by which a table is known as one of counts.
_HEADER = "input,count,"
# Further ones of an older or changed table stay, behind these.
_COLUMNS = ("input", "count", "integral", "voxels", "doubts", "folder", "error")
_PATIENCE_S = 120.0


def merge(path: Path, row: Mapping[str, Any], *, replace: bool = True) -> None:
    """Puts the row of an input into the table, whole and at once, whoever else does so too.

    It takes the place of an earlier row of this input (and scene of it), or of one whose results
    were in the same folder; else it is the last.

    Args:
      path: the table; it is created where it is missing.
      row: a value a column, with 'input' and 'folder'.
      replace: whether an earlier row goes; if not, that one stays.

    Raises:
      InputError: the file is no table of counts, or cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            rows = read(path)
            # As the earlier row says it.
            new = {n: "" if v is None else no_formula(str(v)) for n, v in row.items()}
            same = [i for i, old in enumerate(rows) if _is_same(old, new)]
            if same and not replace:
                return
            place = same[0] if same else len(rows)
            rows = [old for i, old in enumerate(rows) if i not in same]
            rows.insert(place, new)
            given = {name for one in rows for name in one}
            others = dict.fromkeys(n for one in rows for n in one if n not in _COLUMNS)
            header = [*(name for name in _COLUMNS if name in given), *others]
            write_table(path, header, ([one.get(name) for name in header] for one in rows))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason(error)})") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from writing the table.

    Raises:
      InputError: another one has done so for long.
      OSError: its folder cannot be written.
    """
    try:
        with held(path.with_name(f".{path.name}.lock"), patience_s=_PATIENCE_S):
            yield
    except filelock.Timeout as error:
        raise InputError(
            f"{path}: another process has held {error.lock_file} for {_PATIENCE_S:g} s; is one"
            " stopped?"
        ) from error


def as_text(cell: str) -> str:
    """A cell as it was before it was made no formula."""
    return cell[1:] if cell[:1] == "'" and no_formula(cell[1:]) == cell else cell


def read(path: Path) -> list[dict[str, str]]:
    """The rows of the table; none where it is missing.

    Raises:
      InputError: the file is no table of counts.
    """
    if not os.path.lexists(path):
        return []
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder, and the table of counts has this name; move it away"
        )
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file, strict=True)
        if not ",".join(header).startswith(_HEADER):
            raise ValueError("the header is another")
        return [dict(zip(header, line, strict=True)) for line in lines if line]
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: is no table of counts, and would be replaced by one ({error}); move it away,"
            " or give another --output"
        ) from error


def _is_same(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Whether two rows are of one input and scene of it, or of one folder of results."""
    same = {n for n in ("input", "folder") if old.get(n) and old.get(n) == new.get(n)}
    scene = old.get("scene") or ""
    # A file of several scenes of which none was chosen has failed as a whole.
    replaced = scene == new.get("scene", "") or (not scene and bool(old.get("error")))
    return "folder" in same or ("input" in same and replaced)
