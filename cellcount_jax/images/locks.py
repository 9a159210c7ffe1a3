"""Locks of folders and files that one process at a time may write.

The system frees a lock however its process ends, also on another machine that shares the disk, and
processes that it started do not hold it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import check_folder

_NAME = ".cellcount.lock"
# Another process may be about to end: it has the lock file removed, but not freed yet.
_PATIENCE_S, _POLL_S = 0.5, 0.05
_held: dict[Path, int] = {}  # locked folder -> the thread that holds it


@contextlib.contextmanager
def locked_folder(folder: Path, *, busy: str, remedy: str) -> Iterator[None]:
    """Locks a folder, which is made where it is missing, and removed at the end if it is empty.

    The thread that has locked it may do so again.

    Args:
      folder: to which results are written.
      busy: what another process is doing, for the error: "runs/mine: is being trained".
      remedy: what to do then.

    Raises:
      InputError: another process holds the lock, the error says which, and since when; or see
        `files.check_folder`.
      OSError: the folder cannot be written for another reason.
    """
    check_folder(folder)
    folder = folder.resolve()
    if _held.get(folder) == threading.get_ident():
        yield
        return
    made = _make(folder)
    try:
        with locked(folder / _NAME, busy=busy, remedy=remedy):
            _held[folder] = threading.get_ident()
            try:
                yield
            finally:
                del _held[folder]
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            for each in made:
                each.rmdir()


@contextlib.contextmanager
def locked(path: Path, *, busy: str, remedy: str) -> Iterator[None]:
    """Holds a lock file, which says who holds it and is removed at the end.

    Args:
      path: the lock file, in a folder that is there.
      busy: what another process is doing, for the error.
      remedy: what to do then.

    Raises:
      InputError: another process holds the lock.
      OSError: the folder cannot be written.
    """
    lock = filelock.FileLock(path, timeout=_PATIENCE_S, poll_interval=_POLL_S)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise InputError(f"{busy} ({_holder(path)}); {remedy}") from error
    try:
        # Where the file system cannot lock, filelock has written its own record there.
        if isinstance(lock, filelock.UnixFileLock):
            path.write_text(_own_record())
        yield
    finally:
        if isinstance(lock, filelock.UnixFileLock):
            # Whoever waits with the file open sees that it has no name any more.
            path.unlink(missing_ok=True)
        lock.release()


def _own_record() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {platform.node()}, since {now}\n"


def _holder(path: Path) -> str:
    """Who holds a lock, as the file says."""
    with contextlib.suppress(OSError, ValueError):
        if (text := path.read_text().strip()).startswith("process "):
            return text
    return "it does not say which process"


def _make(folder: Path) -> list[Path]:
    """Makes a folder; returns it and its parents that were made too, from the inside out."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing
