"""Checks of files before they are read or written over, and atomic writing.

Of files, folders, JSON and tables.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import logging

from cellcount_jax.errors import InputError, in_words


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path, once it is sure that a file with something in it is there.

    Args:
      path: the file.

    Returns:
      It, as a `Path`.

    Raises:
      InputError: there is no such file, it is a folder, a pipe or a device, or it has 0 bytes.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a file is needed.")
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if not path.is_file():  # a reader would wait for a pipe without an end
        raise InputError(f"{path}: is no regular file, but a pipe or a device.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes).")
    return path


def without_broken_links(paths: Iterable[Path]) -> Iterator[Path]:
    """What is there of the files and folders of a folder; links that lead nowhere are told.

    Args:
      paths: of a folder, as it lists them.

    Yields:
      The others.
    """
    for path in paths:
        if not path.is_symlink() or path.exists():  # of a link to itself too
            yield path
        elif not path.name.startswith("."):  # editors leave such
            logging.warning("%s: is a link that leads nowhere, skipped.", path)


def check_apart(folders: Iterable[Path], files: Iterable[Path]) -> None:
    """Makes sure that no results folder is, holds or lies in a file or folder that is read.

    Args:
      folders: of results, resolved.
      files: images, masks, label volumes, points; files or folders.

    Raises:
      InputError: with the folder and the file.
    """
    # A link belongs to the user as much as its target.
    own = {place: path for path in files for place in (path.resolve(), unlinked(path))}
    holders = {parent: path for place, path in own.items() for parent in place.parents}
    for folder in folders:
        inside = next((own[parent] for parent in folder.parents if parent in own), None)
        for found, relation in (
            (own.get(folder), "is"),
            (holders.get(folder), "holds"),
            (inside, "lies in"),
        ):
            if found is not None:
                raise InputError(
                    f"{folder}: the folder for the results {relation} {found}, which is read;"
                    " give another --output"
                )


def unlinked(path: Path) -> Path:
    """The path of a link itself, with its parents resolved; of anything else its target.

    Args:
      path: a file, a folder or a link.
    """
    return path.parent.resolve() / path.name if path.is_symlink() else path.resolve()


def check_folder(folder: Path) -> None:
    """Makes sure, before anything is computed, that a folder can be made and written; makes none.

    Args:
      folder: for results.

    Raises:
      InputError: it is a file or a link to nothing, may not be written, or the disk is full.
    """
    place = folder
    while not place.exists():
        _check_link(place)
        place = place.parent
    if not place.is_dir():
        raise InputError(
            f"{place}: is a file, a folder for results is needed there; move it away, or give"
            " another place for them"
        )
    disk = shutil.disk_usage(place)
    if _is_read_only(place):
        number: int | None = errno.EROFS
    elif not os.access(place, os.W_OK | os.X_OK):
        number = errno.EACCES
    else:
        # Some file systems do not tell how large they are.
        number = errno.ENOSPC if disk.total and not disk.free else None
    if number is not None:
        reason = in_words(OSError(number, "", str(place)))
        raise InputError(f"{reason}; give another place for the results, or mend that")


def _is_read_only(folder: Path) -> bool:
    """Whether nothing can be written to a disk; False where the system does not say it."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _check_link(path: Path) -> None:
    """Refuses a link to nothing, or to itself."""
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path}: is a link to {os.readlink(path)}, which is not there; remove the link, or"
            " give another place for the results"
        )


def check_file(path: Path) -> None:
    """Makes sure, before anything is computed, that a file can be written; writes none.

    Raises:
      InputError: it is a folder or a link to nothing; of the folder that it lies in see
        `check_folder`.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, the name of a file is needed, such as mine.zip")
    _check_link(path)
    check_folder(path.parent)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` when the block ends well.

    A reader sees the old file or the whole new one, never a part; after an error the old
    file is as it was. The temporary file is in the same folder, since a rename is atomic
    only within one file system. The folder is created where it is missing.

    Args:
      path: the file to write.

    Yields:
      The path to write to.

    Raises:
      InputError: there is a folder of this name.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        raise InputError(f"{path}: is a folder, a file is to be written there; give another name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to make a folder at, which replaces `path` when the block ends well.

    As `replacing`, for a format that is a folder. A folder cannot be renamed onto another: the
    old one is renamed away just before, and removed after.

    Args:
      path: the folder to write.

    Yields:
      The path to make the folder at.

    Raises:
      InputError: there is a file of this name.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, a folder is to be written there; move it away.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # No process number: in containers on several machines it may be the same.
    mark = secrets.token_hex(4)
    temporary, old = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("tmp", "old"))
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
        if old.is_symlink():
            old.unlink()
        else:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def json_or_none(path: Path) -> Any:
    """The content of a JSON file; None where there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all; no number in it is infinite or NaN."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_table(
    path: str | os.PathLike[str],
    header: Iterable[str],
    rows: Iterable[Iterable[Any]],
    *,
    line_end: str = "\r\n",
) -> None:
    """Writes a CSV file, whole or not at all.

    Args:
      path: the file; its folder is created where missing.
      header: names of the columns.
      rows: a value a column each; None is an empty cell. Text that a spreadsheet would take for a
        formula, such as the name of an image, gets an apostrophe before it.
      line_end: "\\r\\n" as spreadsheets write it, or "\\n".

    Source of the apostrophe: OWASP, "CSV Injection".
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        written = ([no_formula(cell) for cell in row] for row in (header, *rows))
        csv.writer(file, lineterminator=line_end).writerows(written)


def no_formula(cell: Any) -> Any:
    """What a cell of a table becomes, so that no spreadsheet computes it, see `write_table`."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
