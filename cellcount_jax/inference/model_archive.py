"""The zip archive of a model, which anyone may have made: JSON and plain arrays, within limits.

Nothing in it is unpacked to the disk or executed, and no more is read than the network needs.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file

VARIABLES = "variables/"
_MAX_TEXT_BYTES = 2**20  # of each file but the arrays
_MAX_HEADER_BYTES = 1000  # of an array
_MAX_NETWORK_BYTES = 2**31  # of all arrays


def read_json(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    """The content of a JSON file in the archive at `path`.

    Raises:
      InputError: it is not there, damaged, or no JSON.
    """
    try:
        return json.loads(read_member(archive, name, path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {name} in it is not valid JSON ({error})") from error


def read_arrays(archive: zipfile.ZipFile, expected: Any, path: Path) -> Any:
    """The arrays, in the shapes and types that the network has; no others are read.

    Args:
      archive: the file at `path`.
      expected: a tree of dictionaries of shapes and types.
      path: for errors.

    Returns:
      The tree of arrays.

    Raises:
      InputError: an array is missing, another one, damaged or not finite; or they are too large.
    """
    sizes = {name: math.prod(x.shape) * x.dtype.itemsize for name, x in named(expected).items()}
    if (total := sum(sizes.values())) > _MAX_NETWORK_BYTES:
        raise InputError(
            f"{path}: its config describes a network of {total / 1e9:.3g} GB, and no model has more"
            f" than {_MAX_NETWORK_BYTES / 1e9:.3g}; get the file anew"
        )
    found = []
    for name, like in named(expected).items():
        member, most = f"{VARIABLES}{name}.npy", sizes[name] + _MAX_HEADER_BYTES
        content = io.BytesIO(read_member(archive, member, path, max_bytes=most))
        try:
            np.lib.format.read_magic(content)
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(
                content, max_header_size=_MAX_HEADER_BYTES
            )
        # Its parser raises anything, from TokenError to MemoryError.
        except Exception as error:
            reason = str(error).splitlines()[:1] or [type(error).__name__]
            raise InputError(f"{path}: {name} in it is no plain array ({reason[0]})") from error
        if (shape, dtype) != (like.shape, like.dtype):
            raise InputError(
                f"{path}: {name} in it is {dtype} of {shape}, the network that its config"
                f" describes has {like.dtype} of {like.shape}"
            )
        numbers = content.read()
        value = np.frombuffer(numbers, dtype) if len(numbers) == sizes[name] else None
        if value is None or not np.isfinite(value).all():
            raise InputError(f"{path}: is damaged ({name} in it is incomplete or not finite)")
        found.append(value.reshape(shape, order="F" if columns_first else "C"))
    return jax.tree.unflatten(jax.tree.structure(expected), found)


def named(tree: Any) -> Mapping[str, Any]:
    """The leaves of a tree of dictionaries by their path, 'params/encoder/level_0/...'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def open_archive(path: Path) -> zipfile.ZipFile:
    """Opens the archive.

    Raises:
      InputError: it is none.
    """
    try:
        return zipfile.ZipFile(existing_file(path))
    # Damaged ones raise NotImplementedError and struct.error too.
    except (ValueError, NotImplementedError, zipfile.BadZipFile, struct.error) as error:
        raise InputError(
            f"{path}: is not a model file ({error}); cellcount export writes one"
        ) from error


def read_member(
    archive: zipfile.ZipFile, name: str, path: Path, *, max_bytes: int = _MAX_TEXT_BYTES
) -> bytes:
    """The content of a file in the archive.

    Raises:
      InputError: it is not there, damaged, or larger than in any model.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{path}: is not a model file, it holds no {name}") from None
    if info.file_size > max_bytes:
        raise InputError(f"{path}: is not a model file, {name} in it has {info.file_size} bytes")
    try:
        return archive.read(info)
    # Damaged archives raise anything, from zlib.error to EOFError.
    except Exception as error:
        raise InputError(f"{path}: is damaged ({error})") from error
