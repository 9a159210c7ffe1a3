"""Whose a folder of results is: one count's alone, apart from the user's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cellcount_jax.errors import InputError
from cellcount_jax.images import files

FILE = "count.json"
# All that a count writes into the folder of an input; nothing else is ever removed there. The claim
# goes last, so that a folder from which some are gone is still known as that of a count.
_WRITTEN = (
    "summary.json",
    "points.csv",
    "points.parquet",
    "points.xml",
    "points_napari.csv",
    "regions.csv",
    "density.zarr",
    "overlay.png",
    "report.html",
    "work",
    FILE,
)
# The same of its folder `work`.
_WORK = ("survey.npz", "coarse", "map.zarr", "peaks", "done", "job.json", "model.zip")


def check_apart(folders: Iterable[Path], files: Iterable[Path]) -> None:
    """Makes sure that no folder of results is, holds or lies in what the user brought.

    Args:
      folders: of results, resolved.
      files: images, masks and label volumes, files or folders.

    Raises:
      InputError: names the folder and the file.
    """
    # A link is the user's as much as what it leads to.
    own = {place: path for path in files for place in (path.resolve(), _unlinked(path))}
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


def check_table(path: Path, header: str) -> None:
    """Makes sure that a table of all counts may be written.

    Args:
      path: of it.
      header: how the first line of such a table begins.

    Raises:
      InputError: there is another file of this name.
    """
    if path.is_dir() or (path.exists() and not path.read_bytes().startswith(header.encode())):
        raise InputError(
            f"{path}: is no table of counts, and would be replaced by one; give another --output"
        )


def check(folder: Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Makes sure that a folder may become a count's.

    Args:
      folder: of the results of one input, resolved.
      identity: all that the result depends on but the threshold, for JSON.
      overwrite: whether the results of another count may be deleted.

    Raises:
      InputError: it is another count's, and names what differs; or it has files with the names of
        results that are of no count.
    """
    if not _is_claimed(folder):
        if taken := [name for name in _WRITTEN if _lexists(folder / name)]:
            raise InputError(
                f"{folder / taken[0]}: is not of a count, and would be replaced; move it, or give"
                " another --output"
            )
    elif not overwrite and (differing := _differing(folder, identity)):
        raise InputError(
            f"{folder}: holds the results of another count, which differs in"
            f" {', '.join(differing)}; give another --output, or --overwrite to replace them"
        )


def take(folder: Path, identity: Mapping[str, Any]) -> None:
    """Makes a folder that was checked a count's; another's results in it are deleted."""
    if _is_claimed(folder) and _differing(folder, identity):
        _remove_results(folder)
    if not (folder / FILE).exists():
        files.write_json(folder / FILE, identity)


def _is_claimed(folder: Path) -> bool:
    return (folder / FILE).exists() or (folder / "summary.json").exists()


def _differing(folder: Path, identity: Mapping[str, Any]) -> list[str]:
    """What differs, in words; nothing where there are no results."""
    path = folder / FILE
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):
        return [f"what it says of itself ({path.name} is missing or damaged)"]
    given = json.loads(json.dumps(identity))
    return [
        f"{key} (there {stored.get(key)!r}, given {given.get(key)!r})"
        for key in sorted(stored.keys() | given.keys())
        if stored.get(key) != given.get(key)
    ]


def _remove_results(folder: Path) -> None:
    """Removes what a count wrote, and nothing else."""
    for name in _WRITTEN:
        path = folder / name
        if name == "work" and path.is_dir() and not path.is_symlink():
            for part in _WORK:
                _remove(path / part)
            if not any(path.iterdir()):
                path.rmdir()
        else:
            _remove(path)


def _remove(path: Path) -> None:
    """Removes a file or folder; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unlinked(path: Path) -> Path:
    """The path itself where it is a link, without links before its last part."""
    return path.parent.resolve() / path.name if path.is_symlink() else path.resolve()


def _lexists(path: Path) -> bool:
    return path.exists() or path.is_symlink()
