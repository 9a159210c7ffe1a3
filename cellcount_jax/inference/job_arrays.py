"""The Zarr arrays in a job's folder, in which tiles put their results."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BloscCodec

from cellcount_jax.images.regions import Region
from cellcount_jax.images.zarr_stores import files_below

_MAX_CHUNK_VOXELS = 64  # along an axis of the map in its file


def chunk_edge(size: int) -> int:
    """The longest chunk that divides a size; 0 = any."""
    if not size:
        return _MAX_CHUNK_VOXELS
    return max(n for n in range(1, min(size, _MAX_CHUNK_VOXELS) + 1) if size % n == 0)


def is_array(path: Path) -> bool:
    """Whether an array is there, whole or in part."""
    return (path / "zarr.json").exists()


def make_array(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    """Makes a Zarr array of which nothing is stored yet."""
    shutil.rmtree(path, ignore_errors=True)
    sizes = tuple(min(chunk, size) for chunk, size in zip(chunks, shape, strict=True))
    zarr.create_array(
        path,
        shape=shape,
        chunks=sizes,
        dtype="float32",
        fill_value=0.0,
        compressors=BloscCodec(cname="lz4", shuffle="bitshuffle"),
    )


def open_array(path: Path) -> Any:
    """An array to read and write, of which zeros are stored too: a chunk that is not there is lost,
    and no part of an image without cells."""
    return zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": True})


def stored_parts(path: Path) -> Callable[[Region], bool]:
    """Tells whether all of a part of an array is stored, by one listing of its files.

    Args:
      path: of the array.

    Returns:
      A function of a region `(D,)` of the array without its last axis, the channels.
    """
    array = zarr.open_array(path, mode="r")
    start = len(str(path)) + 1
    stored = {file[start:].replace(os.sep, "/") for file in files_below(str(path))}

    def is_stored(region: Region) -> bool:
        grid = [
            range(part.start // step, -(-part.stop // step))
            for part, step in zip((*region, slice(0, array.shape[-1])), array.chunks, strict=True)
        ]
        keys = map(array.metadata.encode_chunk_key, itertools.product(*grid))
        return all(key in stored for key in keys)

    return is_stored


def remove_array(path: Path) -> None:
    """Removes an array, at once for `is_array`: one of which some is gone is gone."""
    if path.is_symlink():
        path.unlink()
        return
    (path / "zarr.json").unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
