"""The state of an image at an address, by which it is seen whether it is the one that was read.

An address lists nothing and a large image has millions of chunks, so the metadata are compared and
what the server says of some chunks, which are spread over the image.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.stored import one_line
from cellcount_jax.images.zarr_stores import Remote, chunk_grid, spread

_DOCUMENTS = {2: (".zgroup", ".zarray", ".zattrs", ".zmetadata"), 3: ("zarr.json",)}
# What changes with a file's content, by the names of fsspec for HTTP and of s3fs.
_MARKS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "LastModified")
_CHUNKS = 32  # asked for, at most
_AT_ONCE = 8


def remote_files(array: zarr.Array, address: Remote) -> tuple[Path, ...]:
    """What stands for an image at an address: its metadata, and some of its chunks.

    Args:
      array: of the image.
      address: that was opened; the array lies there, or in a group below it.

    Returns:
      Their addresses, of which some need not be there.
    """
    parts = array.path.split("/") if array.path else []
    nodes = ["".join(f"{part}/" for part in parts[:depth]) for depth in range(len(parts) + 1)]
    keys = [node + name for node in nodes for name in _DOCUMENTS[array.metadata.zarr_format]]
    places = list(spread(chunk_grid(array)))
    number = min(_CHUNKS, len(places))
    chosen = [places[k * (len(places) - 1) // max(1, number - 1)] for k in range(number)]
    keys += [nodes[-1] + array.metadata.encode_chunk_key(place) for place in chosen]
    return tuple(Remote(f"{address}/{key}") for key in keys)


def remote_state(files: Sequence[Path]) -> list[int | str]:
    """The state of what is at some addresses, which is another one after a change that is seen.

    Args:
      files: of `remote_files`.

    Returns:
      The number of files that are there, their size together as far as it is known, and a digest:
      of the content of metadata, and of what the server says of all (ETag, time and size).

    Raises:
      InputError: the server does not answer.
    """
    told = _told(files)
    contents = _each(_content, [file for file in files if _is_document(file)])
    found = [facts for facts in told.values() if facts is not None]
    digest = hashlib.sha256()
    for file in sorted(files):
        facts = told[file] or {}
        said = [str(facts.get(name)) for name in ("size", *_MARKS)]
        digest.update("\0".join([str(file), str(file in contents), *said]).encode())
        digest.update(hashlib.sha256(contents.get(file) or b"").digest())
    return [len(found), sum(facts.get("size") or 0 for facts in found), digest.hexdigest()[:16]]


def shows_changes(files: Sequence[Path]) -> bool:
    """Whether a server says something of an image's chunks by which a change of them is seen.

    Args:
      files: of `remote_files`.

    Raises:
      InputError: the server does not answer.
    """
    told = _told([file for file in files if not _is_document(file)]).values()
    return any(facts is not None and any(map(facts.get, _MARKS)) for facts in told)


def _is_document(file: Path) -> bool:
    return any(file.name in names for names in _DOCUMENTS.values())


def _told(files: Iterable[Path]) -> dict[Path, Mapping[str, Any] | None]:
    """What the server says of files; None of one that is not there."""
    return _each(lambda system, path: system.info(path), files)


def _content(system: Any, path: str) -> bytes:
    content: bytes = system.cat_file(path)
    return content


def _each(ask: Callable[[Any, str], Any], files: Iterable[Path]) -> dict[Path, Any]:
    """Answers to a question about each file, by several requests at once."""
    fsspec = importlib.import_module("fsspec")

    def answer(file: Path) -> tuple[Path, Any]:
        system, path = fsspec.url_to_fs(str(file))
        system.invalidate_cache()
        try:
            return file, ask(system, path)
        except Exception as error:
            # FileNotFoundError is also what fsspec makes of a server that does not answer.
            cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
            status = getattr(cause, "status", 0)
            if not isinstance(cause, Exception) or isinstance(cause, FileNotFoundError):
                return file, None
            if 400 <= status < 500:
                return file, None
            raise InputError(
                f"{file}: the server does not answer ({one_line(cause)}); what was counted is kept,"
                " and the same command goes on once it does"
            ) from error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(pool.map(answer, files))
