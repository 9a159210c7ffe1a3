"""What `cellcount train` has trained on, kept in its workdir; runs that make way for others."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.data.blocks import DONE, read_block_states
from cellcount_jax.data.entries import Entry, scan
from cellcount_jax.errors import InputError
from cellcount_jax.images import files
from cellcount_jax.images.point_units import VOXELS
from cellcount_jax.images.points import read_points
from cellcount_jax.training import run_folder

_RECORD = "labels.json"  # in the workdir: what was trained on
# The model first, so that none of the old run is left beside a new one; config.json last, so that a
# folder of which some is gone is still known as that of a run. model.json is of older versions.
_OF_A_RUN = (*run_folder.WRITTEN, "model.json", _RECORD, "config.json")


def digest(entries: Sequence[Entry], folder: Path) -> str:
    """Changes when dots that are learned from or their blocks change, or images come and go.

    Args:
      entries: the images of the folder.
      folder: whose `test/` counts too.
    """
    whole = hashlib.sha256()
    test = folder / "test"
    for entry in (*entries, *(scan(test) if test.is_dir() else ())):
        whole.update(f"{entry.image}\n".encode())
        whole.update(_digest_of(entry.points) if entry.blocks is None else _of_done(entry))
        for path in (entry.labels, entry.valid):
            whole.update(_digest_of(path))
    return whole.hexdigest()


def _digest_of(path: Path | None) -> bytes:
    return b"-" if path is None else hashlib.sha256(path.read_bytes()).digest()


def _of_done(entry: Entry) -> bytes:
    """Of an image that the labelling tool has labelled: its blocks that are done and their dots.

    What is elsewhere, for example proposals, changes without an effect, as does the order of dots.
    """
    assert entry.blocks is not None
    blocks = read_block_states(entry.blocks)
    grid, done = blocks.grid, blocks.states == DONE
    found = hashlib.sha256(np.array([grid.shape, grid.block]).tobytes() + done.tobytes())
    if entry.points is not None and done.any():
        points = read_points(entry.points, ndim=len(grid.shape), unit=VOXELS)
        points = points + np.float32(0)  # no -0.0
        points = points[done[tuple(grid.index_of(points).T)]]
        found.update(points[np.lexsort(points.T)].tobytes())
    return found.digest()


def _record_of(path: Path) -> dict[str, str]:
    """The stored record of a run; empty if there is no such file.

    Raises:
      InputError: a file of this name is something else, and would be lost.
    """
    if not path.exists():
        return {}
    stored = files.json_or_none(path)
    if not isinstance(stored, dict) or stored.keys() != {"sha256"}:
        raise InputError(f"{path}: is not the file of a run; give another --output.")
    return stored


@contextlib.contextmanager
def recorded(output: Path, digest: str) -> Iterator[None]:
    """Keeps in a workdir what is trained on, so that a run never goes on with other labels.

    Args:
      output: the workdir.
      digest: of the labels, see `digest`.

    Raises:
      InputError: the workdir is that of a run on others, or holds a file of this name.
    """
    path = output / _RECORD
    stored = _record_of(path)
    if (output / "config.json").exists():
        if stored.get("sha256") != digest:
            raise InputError(
                f"{output}: holds a model of other labels than {'those' if stored else 'any'} of"
                " now; give another --output, or --overwrite to replace it."
            )
        yield
        return
    new = not output.exists()
    files.write_json(path, {"sha256": digest})
    try:
        yield
    finally:
        if not (output / "config.json").exists():  # nothing was begun
            path.unlink()
            if new:
                output.rmdir()


def check_apart(output: Path, entries: Sequence[Entry], folder: Path) -> None:
    """Makes sure that a run writes and removes nothing of what it learns from.

    Args:
      output: the workdir.
      entries: the images of the folder.
      folder: whose `test/` counts too.

    Raises:
      InputError: what it writes is, holds or lies in one of these files.
    """
    test = folder / "test"
    every = (*entries, *(scan(test) if test.is_dir() else ()))
    read = [path for entry in every for path in entry.files]
    files.check_apart([Path(os.path.realpath(output / name)) for name in _OF_A_RUN], read)


def remove_run(output: Path) -> None:
    """Removes the files of a run, and nothing else; of a link the link alone.

    Raises:
      InputError: the folder holds files of these names, but is not the folder of a run.
    """
    present = [path for name in _OF_A_RUN if os.path.lexists(path := output / name)]
    # A run that was killed before it began has left its record alone.
    begun = [path.name for path in present] == [_RECORD] and _record_of(output / _RECORD)
    if present and not begun and not run_folder.is_run(output):
        names = ", ".join(path.name for path in present)
        raise InputError(
            f"{output}: is not the folder of a run, so that --overwrite removes nothing of"
            f" {names} there; give another --output."
        )
    for path in present:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
