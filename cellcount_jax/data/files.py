"""What readers and writers of files share: is it there, what is in it, never half-written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellcount_jax.errors import InputError


class RawImage(NamedTuple):
    """An image as it is in its file.

    Attributes:
      pixels: the stored values; look-up tables are not applied.
      axes: a letter per axis of `pixels`, as tifffile names them.
      voxel: edges in micrometres by axis, as far as the file tells.
      alpha: whether the last channel is an opacity.
    """

    pixels: np.ndarray
    axes: str
    voxel: Mapping[str, float]
    alpha: bool


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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
