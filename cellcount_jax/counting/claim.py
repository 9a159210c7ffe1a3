"""Ownership of a results folder: it is of one count, and apart from the user's own files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellcount_jax.counting import job_file, results
from cellcount_jax.errors import InputError
from cellcount_jax.images import files, locks
from cellcount_jax.inference import tasks

FILE = "count.json"
WORK = "work"
# Nothing else is ever removed. The claim goes last: a folder that has lost other files is still
# known as that of a count.
_REMOVABLE = (*results.FILES, WORK, FILE)
_OLD = ("coarse",)  # of counts that earlier versions began
_WORK_FOLDERS = (*tasks.FOLDERS, *_OLD)
_FOLDERS = ("density.zarr", WORK, *_WORK_FOLDERS)
# The saved job first, so that workers which outlive a count write no more.
_REMOVABLE_WORK = (*job_file.FILES, *tasks.FILES, *_OLD)


def folder_for(output: Path, name: str) -> Path:
    """The folder for the results of an input, without links, also where these lead in a circle."""
    return Path(os.path.realpath(output / name))


def locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Locks a folder of results for the count that writes it.

    Raises:
      InputError: another count does; the error says which process.
      OSError: the folder cannot be written.
    """
    return locks.locked_folder(
        folder,
        busy=f"{folder}: another count is writing its results there",
        remedy="wait until it has ended, or give another --output",
    )


def places(folder: Path) -> list[Path]:
    """The folder of results and what the links in it lead to, in which a count writes too."""
    inside = [folder / WORK, *(folder / WORK / name for name in _WORK_FOLDERS)]
    return [folder, *(Path(os.path.realpath(path)) for path in inside if path.is_symlink())]


def check(folder: Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Makes sure that a count may write into a folder.

    Args:
      folder: for the results of one input, resolved.
      identity: all that the result depends on but the threshold, for JSON.
      overwrite: whether the results of another count may be deleted.

    Raises:
      InputError: it holds the results of another count, with the settings that differ; or files
        or folders with the names of results that no count wrote.
    """
    if not _is_claimed(folder):
        if taken := [name for name in _REMOVABLE if os.path.lexists(folder / name)]:
            raise InputError(
                f"{folder / taken[0]}: is not of a count, and would be replaced; move it, or give"
                " another --output"
            )
    elif differing := _differing(folder, identity):
        if not overwrite:
            raise InputError(
                f"{folder}: holds the results of another count, which differs in"
                f" {', '.join(differing)}; give another --output, or --overwrite to replace them"
            )
        for path in _results(folder):
            _check_kind(path)


def take(
    folder: Path, identity: Mapping[str, Any], *, overwrite: bool = False, anew: bool = False
) -> None:
    """Claims a folder for a count; with `overwrite` the results of another count are deleted.

    With `anew` those of this count are too.

    Raises:
      InputError: see `check`, as another count may have been faster.
    """
    check(folder, identity, overwrite=overwrite)
    if _is_claimed(folder) and (anew or _differing(folder, identity)):
        _remove_results(folder)
    if not (folder / FILE).exists():
        files.write_json(folder / FILE, identity)


def _is_claimed(folder: Path) -> bool:
    """Whether a folder holds the claim of a count, or without a whole one its summary."""
    claim = files.json_or_none(folder / FILE)
    if claim is not None:
        return isinstance(claim, dict) and {"input", "model", "version"} <= claim.keys()
    summary = files.json_or_none(folder / "summary.json")
    versions = summary.get("versions") if isinstance(summary, dict) else None
    return isinstance(versions, dict) and "cellcount_jax" in versions


def _differing(folder: Path, identity: Mapping[str, Any]) -> list[str]:
    """The settings in which the count of a folder differs, as text."""
    stored = files.json_or_none(folder / FILE)
    if not isinstance(stored, dict):
        return [f"its settings ({FILE} is missing or damaged)"]
    given = json.loads(json.dumps(identity))
    return [
        f"{key} (there {stored.get(key)!r}, given {given.get(key)!r})"
        if key != "modified"
        else "the content of the input, whose files were changed since"
        for key in sorted(stored.keys() | given.keys())
        if stored.get(key) != given.get(key)
    ]


def _remove_results(folder: Path) -> None:
    """Removes the files of a count, and nothing else; nothing at all where one is not a count's."""
    found = list(_results(folder))
    for path in found:
        _check_kind(path)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    work = folder / WORK
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()


def _results(folder: Path) -> Iterator[Path]:
    """What is there of the files, folders and links of a count, in the order of removal."""
    for name in _REMOVABLE:
        path = folder / name
        inside = name == WORK and path.is_dir() and not path.is_symlink()
        for found in [path / part for part in _REMOVABLE_WORK] if inside else [path]:
            if os.path.lexists(found):
                yield found


def _check_kind(path: Path) -> None:
    """Makes sure that a folder has the name of a count's folder, and a file that of a file.

    Raises:
      InputError: it is the other of them. Of a link only the link is removed, so it is either.
    """
    if not path.is_symlink() and path.is_dir() != (path.name in _FOLDERS):
        kind = "folder" if path.is_dir() else "file"
        raise InputError(f"{path}: is a {kind}, which no count makes of this name; move it away")
