"""Locks of folders and files that one process at a time may write.

The system frees a lock however its process ends, also on another machine that shares the disk, and
processes that it started do not hold it.
"""

from __future__ import annotations

import contextlib
import errno
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
# Of file systems that cannot lock, beside the error that filelock knows.
_CANNOT_LOCK = (errno.ENOLCK, errno.EOPNOTSUPP)
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
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(held(path, patience_s=_PATIENCE_S))
        except filelock.Timeout as error:
            raise InputError(f"{busy} ({_holder(Path(error.lock_file))}); {remedy}") from error
        if isinstance(lock, filelock.UnixFileLock):
            path.write_text(_own_record(), encoding="utf-8")
        yield


@contextlib.contextmanager
def held(path: Path, *, patience_s: float) -> Iterator[filelock.BaseFileLock]:
    """Holds a lock file, which is removed at the end.

    Where the file system cannot lock, a file that has the process in it is the lock.

    Args:
      path: the lock file, in a folder that is there.
      patience_s: for so long another process may hold it.

    Yields:
      The lock.

    Raises:
      filelock.Timeout: another process holds it, with its file.
      OSError: the folder cannot be written.
    """
    # Another thread may free it.
    lock: filelock.BaseFileLock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=patience_s, poll_interval=_POLL_S)
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        path.unlink(missing_ok=True)  # which nobody can hold
        lock = filelock.SoftFileLock(path.with_name(f"{path.name}.soft"), thread_local=False)
        lock.acquire(timeout=patience_s, poll_interval=_POLL_S)
    try:
        yield lock
    finally:
        if isinstance(lock, filelock.UnixFileLock):
            # While it is held: whoever waits with the file open sees that it has no name any more,
            # and makes it anew.
            path.unlink(missing_ok=True)
        lock.release()


def _own_record() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {platform.node()}, since {now}\n"


def _holder(path: Path) -> str:
    """Who holds a lock, as the file says."""
    with contextlib.suppress(OSError, ValueError):
        if (text := path.read_text(encoding="utf-8").strip()).startswith("process "):
            return text
        number, computer, *_ = text.split("\n")  # filelock's, which stays if the process is killed
        return f"process {number} on {computer}; if there is none such, remove {path}"
    return "it does not say which process"


def _make(folder: Path) -> list[Path]:
    """Makes a folder; returns it and its parents that were made too, from the inside out."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing
