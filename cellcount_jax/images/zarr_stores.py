"""Where Zarr lies, a folder, a zip file or an address, and checks of what is stored of an array.

A chunk that is not stored is the array's fill value, by the Zarr specification. So metadata alone
can promise any size: an array of which nothing is stored, or of a huge one next to nothing, is an
error here, since that is what damaged metadata and copies without their pixels look like.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import zarr
from zarr.storage import FsspecStore, ZipStore

from cellcount_jax import machine
from cellcount_jax.errors import InputError, how_to_install
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.stored import naming

METADATA = (".zarray", ".zgroup", "zarr.json")
ZARR_ENDINGS = (".zarr.zip", ".ozx", ".zarr")  # the first two are zip files
_PACKAGES = {"http:": "aiohttp", "https:": "aiohttp", "s3:": "s3fs"}
_HUGE_VOXELS = 10**13  # above, at least one in so many chunks has to be stored:
_SPARSEST = 1000
_PROBES = 4  # an axis, of the chunks that are looked for at an address, which cannot be listed
_MEMORY_SHARE = 0.5  # of the machine's, that a chunk may take: all of it is decoded at once
_METADATA_BYTES = 2**26


class Remote(type(Path())):  # type: ignore[misc]
    """An address as a path, which keeps its `//` as a text and is never looked for on the disk."""

    def __str__(self) -> str:
        return re.sub(":/+", "://", super().__str__().replace(os.sep, "/"), count=1)

    def resolve(self, strict: bool = False) -> Remote:
        """Itself: it has no links."""
        return self


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path of what a user gave: a file, a folder, or an address (`https://...`).

    Args:
      path: its text, or a path that was made of it.
    """
    text = os.fspath(path)
    return (
        Remote(text) if text.startswith(tuple(f"{start}/" for start in _PACKAGES)) else Path(path)
    )


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr array or group, by its content or by its name.

    Args:
      path: any path; of an address see `as_path`.

    Returns:
      True for an address, a folder called `*.zarr` or with Zarr's metadata in it, and a file called
      `*.zarr.zip` or `*.ozx`.
    """
    if isinstance(path, Remote):
        return True
    if path.is_dir():
        return path.suffix.lower() == ".zarr" or any((path / n).is_file() for n in METADATA)
    return path.name.lower().endswith(ZARR_ENDINGS[:2]) and path.is_file()


def open_node(path: Path) -> zarr.Array | zarr.Group:
    """Opens the array or group at a path, to read.

    Args:
      path: for which `is_zarr` is true.

    Returns:
      The array or group; close its `store`.

    Raises:
      InputError: there is none, it is damaged, or packages are missing.
    """
    with naming(path, "Zarr"):
        if isinstance(path, Remote):
            node = _open_remote(path)
        elif path.is_dir():
            if not any((path / name).is_file() for name in METADATA):
                raise InputError(f"{path}: {_no_metadata('it')}")
            node = zarr.open(path, mode="r")
        else:
            store = ZipStore(path, mode="r")
            node = zarr.open(store, path=_root_in_zip(path), mode="r")
    return node


def check_array(array: zarr.Array, path: Path) -> None:
    """Compares the promised size of an array with its chunks' and with what is stored.

    Args:
      array: of `open_node`, or below it.
      path: what was opened, for the messages.

    Raises:
      InputError: a chunk does not fit into memory, or next to nothing is stored.
    """
    if not array.shape or not all(array.shape):
        return
    place = f"{path}/{array.path}".rstrip("/")
    piece = math.prod(array.chunks) * array.dtype.itemsize
    memory = machine.memory_bytes()
    if piece > _MEMORY_SHARE * memory:
        raise InputError(
            f"{place}: its chunks of {size_text(array.chunks)} take {piece / 1e9:.3g} GB each, too"
            f" much for the {memory / 1e9:.3g} GB of memory here; save it with smaller chunks, such"
            " as 64 an axis, or correct its metadata if it is not that large."
        )
    outer = array.shards or array.chunks
    grid = chunk_grid(array)
    huge = array.size > _HUGE_VOXELS
    needed = max(2, math.prod(grid) // _SPARSEST) if huge else 1
    if isinstance(array.store, FsspecStore):
        keys, needed = _probed(array, place, grid), min(needed, 2)
    elif isinstance(array.store, ZipStore):
        keys = _zipped(array, array.store.path, 2 * math.prod(outer) * array.dtype.itemsize)
    else:
        folder = path / Path(array.path)
        keys = (Path(file).relative_to(folder).as_posix() for file in files_below(folder))
    found = sum(1 for _ in itertools.islice((k for k in keys if _is_chunk(k, array, grid)), needed))
    if not found:
        first = array.metadata.encode_chunk_key((0,) * array.ndim)
        raise InputError(
            f"{place}: none of its chunks is stored: the pixels were not copied, or have other"
            f" names than its metadata say ({first} and so on). An image of one value everywhere"
            " has to be written with write_empty_chunks."
        )
    if found < needed:
        raise InputError(
            f"{place}: its metadata promise {size_text(array.shape)} voxels in"
            f" {math.prod(grid):.3g} chunks, of which only {found} could be found; copy it again,"
            " correct its metadata, or save the part with cells on its own."
        )


def chunk_grid(array: zarr.Array) -> tuple[int, ...]:
    """How many of what is stored as a file, chunks or shards, an array has along each axis."""
    outer = array.shards or array.chunks
    return tuple(-(-size // step) for size, step in zip(array.shape, outer, strict=True))


def spread(grid: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Some places that are spread over a grid, at most four an axis."""
    axes = [sorted({(2 * k + 1) * n // (2 * _PROBES) for k in range(_PROBES)}) for n in grid]
    return itertools.product(*axes)


def _no_metadata(where: str) -> str:
    return f"no Zarr array or group: none of {', '.join(METADATA)} is in {where}."


def _open_remote(path: Remote) -> zarr.Array | zarr.Group:
    scheme = path.parts[0]
    package = _PACKAGES[scheme]
    try:
        for name in ("fsspec", package):
            importlib.import_module(name)
    except ImportError as error:
        how = how_to_install("remote") if package == "aiohttp" else f"pip install {package}"
        raise InputError(
            f"{path}: to read from an address ({scheme}//) a package is missing: {how}. Or"
            " download the Zarr folder."
        ) from error
    store = FsspecStore.from_url(str(path), read_only=True)
    try:
        return zarr.open(store, mode="r")
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: {_no_metadata('it')} Only Zarr is read from an address; download other files."
        ) from error


def _root_in_zip(path: Path) -> str:
    """The folder in a zip file that is the array or group: its top, or the only one in it."""
    with zipfile.ZipFile(path) as file:
        sizes = {info.filename: info.file_size for info in file.infolist()}
    names = (*METADATA, ".zattrs", ".zmetadata")
    if any(s > _METADATA_BYTES for key, s in sizes.items() if key.rpartition("/")[2] in names):
        raise InputError(f"{path}: its metadata are larger than {_METADATA_BYTES} bytes.")
    tops = ["", *sorted({f"{name.split('/')[0]}/" for name in sizes if "/" in name})]
    roots = [top for top in tops if any(f"{top}{name}" in sizes for name in METADATA)]
    if "" in roots:
        return ""
    if len(roots) != 1:
        raise InputError(f"{path}: {_no_metadata('its top folder')}")
    return roots[0].rstrip("/")


def _is_chunk(key: str, array: zarr.Array, grid: tuple[int, ...]) -> bool:
    numbers = tuple(map(int, re.findall(r"\d+", key)[-array.ndim :]))
    inside = len(numbers) == array.ndim and all(k < n for k, n in zip(numbers, grid, strict=True))
    return inside and array.metadata.encode_chunk_key(numbers) == key


def files_below(folder: str | Path) -> Iterator[str]:
    """The paths of files in a folder and below, as they come: there may be millions of them.

    Args:
      folder: that is there.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from files_below(entry.path)
            elif entry.is_file():
                yield entry.path


def _zipped(array: zarr.Array, path: Path, most: int) -> Iterator[str]:
    """The keys of an array in a zip file, none of which may unpack to more than `most` bytes."""
    prefix = f"{array.path}/" if array.path else ""
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            if not info.filename.startswith(prefix):
                continue
            if info.file_size > most + _METADATA_BYTES:
                raise InputError(
                    f"{path}: {info.filename} in it unpacks to {info.file_size} bytes, far more"
                    " than a chunk has; make the zip file anew."
                )
            yield info.filename.removeprefix(prefix)


def _probed(array: zarr.Array, address: str, grid: tuple[int, ...]) -> Iterator[str]:
    """The keys of chunks that are there, of some that are spread over the array."""
    fsspec = importlib.import_module("fsspec")
    system, root = fsspec.url_to_fs(address)
    for numbers in spread(grid):
        key = array.metadata.encode_chunk_key(numbers)
        if system.exists(f"{root}/{key}"):
            yield key
