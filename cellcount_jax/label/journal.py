"""The journal, a file that gets one record after each act, and the lock that one process holds.

A line is the CRC-32 of a JSON object and the object. A kill cuts off the last line at most, and
that line's checksum is wrong then.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellcount_jax.errors import InputError, reason
from cellcount_jax.images import locks
from cellcount_jax.images.files import replacing

Record = Mapping[str, Any]


class Journal:
    """Records in a file, open to add more."""

    def __init__(self, path: Path, length: int) -> None:
        """Goes on after the first `length` bytes of a file; the rest is cut off."""
        self.path = path
        self._file = path.open("r+b")
        self._length = length
        self._cut()

    def append(self, record: Record) -> None:
        """Adds a record, all or nothing: when this returns it is on the disk.

        Raises:
          OSError: it could not be written; the file is as before.
        """
        line = _line(record)
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            # The buffer would be written with the next record.
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = self.path.open("r+b")
            self._cut()
            raise
        self._length += len(line)

    def close(self) -> None:
        self._file.close()

    def _cut(self) -> None:
        self._file.truncate(self._length)
        self._file.seek(self._length)


def start(path: Path, first: Record) -> Journal:
    """A new journal with a first record; one that is there already is replaced."""
    line = _line(first)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return Journal(path, len(line))


def read(path: Path) -> tuple[list[Record], int]:
    """The records of a journal, and how many bytes they take.

    Raises:
      InputError: damage before the last line, or no whole record at all.
    """
    records: list[Record] = []
    length = 0
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is None:
            if any(_record(later) is not None for later in lines[number:]):
                raise InputError(
                    f"{path}: line {number} is damaged; move the file away to go on from what was"
                    " saved last."
                )
            break
        records.append(record)
        length += len(line) + 1
    if len(records) == len(lines):  # the last one has no line end: maybe not on the disk
        length -= len(lines.pop()) + 1
        records.pop()
    if not records:
        raise InputError(f"{path}: holds no record; move the file away.")
    return records, length


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds the lock file of an image's labels.

    Raises:
      InputError: another process holds it, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                locks.locked(
                    path,
                    busy=f"{what}: is being labelled in another window",
                    remedy="close that one first.",
                )
            )
        except OSError as error:
            raise InputError(
                f"{what}: its folder cannot be written ({reason(error)}), and dots are stored"
                " beside the image; copy the image to a folder of your own."
            ) from error
        yield


def _line(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> Record | None:
    """The record of a line; None where the line is not whole."""
    text = line[9:]
    if line[:9] != b"%08x " % zlib.crc32(text):
        return None
    record: Record = json.loads(text)
    return record
