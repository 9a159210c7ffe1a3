"""The state of an image's files, by which it is seen whether it is the one that was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cellcount_jax.images.remote_state import remote_state
from cellcount_jax.images.zarr_stores import Remote, as_path

# What file browsers leave in folders that are looked at.
_NOT_OF_IMAGES = ("._", ".DS_Store", "Thumbs.db", "desktop.ini")


def modified(path: Path, files: Sequence[Path] = ()) -> list[int | str]:
    """The state of an image's files, which is another one after any of them was replaced.

    A digest of names, sizes and times of modification (in nanoseconds, as the file system has
    them), not of the content: 100,000 chunks take one or two seconds on a local disk. It does not
    see a change that leaves size and time as they were. Of an address see `remote_state`.

    Args:
      path: a file; or a folder, of which all files are taken, at any depth.
      files: those that are read, in place of `path`, where an image has several of its own; of
        an address those of `remote_files`.

    Returns:
      Of a file its size and time; else the number of files, their size together, and the digest.

    Raises:
      InputError: a server does not answer.
      OSError: a file is not there, or cannot be looked at.
    """
    if isinstance(as_path(path), Remote):
        return remote_state(files)
    if not files and not path.is_dir():
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    states: list[str] = []
    total = 0
    for name, found in _below(path) if not files else _named(files):
        states.append(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n")
        total += found.st_size
    digest = hashlib.sha256("".join(sorted(states)).encode("utf-8", "surrogateescape"))
    return [len(states), total, digest.hexdigest()[:16]]


def _named(files: Sequence[Path]) -> Iterator[tuple[str, os.stat_result]]:
    """Files by their names, which are the same from whichever folder they are given."""
    folders = {path.parent: path.parent.resolve() for path in files}
    return ((str(folders[path.parent] / path.name), path.stat()) for path in files)


def _below(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files of a folder at any depth, by their names within it."""
    start = len(str(folder))
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(_NOT_OF_IMAGES):
                    continue
                try:
                    is_folder, found = entry.is_dir(), entry.stat()
                except OSError:  # a link that leads nowhere
                    is_folder, found = False, entry.stat(follow_symlinks=False)
                if is_folder:
                    waiting.append(entry.path)
                else:
                    yield entry.path[start:], found
