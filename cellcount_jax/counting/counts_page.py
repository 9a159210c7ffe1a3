"""counts.html: all counts of a folder to look at, beside counts.csv."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellcount_jax.counting import counts_table
from cellcount_jax.counting.density import unit_and_volume
from cellcount_jax.errors import InputError, reason
from cellcount_jax.images.files import json_or_none
from cellcount_jax.report.batch_page import MARK, Row, write_batch_page

NAME = "counts.html"
_HEAD = 2000  # bytes of a page, in which its mark is
# What is linked of the results of an image, if it is there.
_LINKS = (
    ("report", "report.html"),
    ("points", "points.csv"),
    ("regions", "regions.csv"),
)


def check(output: Path) -> None:
    """Makes sure that the page replaces nothing else.

    Raises:
      InputError: a file or folder of its name is none.
    """
    path = output / NAME
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as file:
            ours = MARK.encode() in file.read(_HEAD)
    except OSError:
        ours = False
    if not ours:
        raise InputError(
            f"{path}: is no page of counts, and would be replaced by one; move it away, or give"
            " another --output"
        )


def write(output: Path) -> Path | None:
    """Writes the page of a folder from its table of counts and what lies in their folders.

    Args:
      output: the folder.

    Returns:
      The page; None where the table has fewer than two rows, whose report is page enough, or
      nothing was counted.

    Raises:
      InputError: see `check` and `counts_table.read`; or it cannot be written.
    """
    check(output)
    table = output / counts_table.NAME
    try:
        with counts_table.locked(table):
            rows = counts_table.read(table)
            shown = [_row(output, row) for row in rows]
            if len(rows) < 2 or all(row.cells is None for row in shown):
                return None
            write_batch_page(output / NAME, shown)
    except OSError as error:
        raise InputError(f"{output / NAME}: cannot be written ({reason(error)})") from error
    return output / NAME


def _row(output: Path, row: Mapping[str, str]) -> Row:
    """A row of the page from one of the table."""
    given = (counts_table.as_text(row.get(name) or "") for name in ("input", "folder", "error"))
    place, name, error = given
    counted = not error and (row.get("count") or "").isdecimal()
    # Tables of earlier versions do not say in which folder results are.
    folder = output / name if name and counted else None
    summary = _summary(folder)
    count = int(row["count"]) if counted else None
    density, unit = _density(count, summary)
    return Row(
        name=name or Path(place).name,
        place=place,
        cells=count,
        integral=_number(row.get("integral")),
        density=density,
        unit=unit,
        doubts=[str(doubt["text"]) for doubt in summary.get("doubts", ())],
        error="" if counted else error.removeprefix(f"{place}: ") or "the table has no count",
        picture=_picture(folder),
        links=[
            (title, f"{name}/{file}")
            for title, file in _LINKS
            if folder is not None and (folder / file).is_file()
        ],
    )


def _summary(folder: Path | None) -> dict[str, Any]:
    """The summary of a count; {} where there is none, or it is damaged."""
    found = None if folder is None else json_or_none(folder / "summary.json")
    return found if isinstance(found, dict) else {}


def _density(count: int | None, summary: Mapping[str, Any]) -> tuple[float | None, str]:
    """Cells per mm^D of what was counted, and the unit."""
    spacing, voxels = summary.get("spacing_um"), summary.get("voxels_counted")
    if count is None or not spacing or not voxels:
        return None, ""
    _, voxel = unit_and_volume(len(spacing), spacing)
    return count / (voxels * voxel), f"mm{'²³'[len(spacing) - 2]}"


def _picture(folder: Path | None) -> bytes:
    try:
        return b"" if folder is None else (folder / "thumbnail.png").read_bytes()
    except OSError:
        return b""


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
