"""A job in its folder, for other processes: saved by one, opened by those that run its tasks.

Neither the model nor the image is sent: the folder has the model and the path of the image.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import uuid
from pathlib import Path
from typing import Any

from cellcount_jax import cache
from cellcount_jax.errors import InputError, reason
from cellcount_jax.images import files, sources
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.zarr_stores import Remote, as_path
from cellcount_jax.inference import model_file
from cellcount_jax.inference.fitted import fit
from cellcount_jax.inference.job import Job

FILES = _JOB, _MODEL = "job.json", "model.zip"
_SHARED = "the images and --output must lie where every worker finds them under the same path"


def origin(
    path: Path,
    selection: Selection,
    *,
    as_slices: bool = False,
    rescale: bool,
    diameter: float | None = None,
    inverted_from: float | None = None,
) -> dict[str, Any]:
    """All that another process needs to open an image, as JSON, for `Job.origin`.

    Args:
      path: of the image.
      selection: the part of the file that is counted.
      as_slices: whether it is a folder of slices.
      rescale: whether it is resampled to the voxels of the model.
      diameter: of its cells, if it is resampled by that.
      inverted_from: the highest intensity, if dark and bright are exchanged.
    """
    return {
        # Not what a link leads to: linked files are looked for beside it, and its ending counts.
        "path": str(path if isinstance(path, Remote) else path.absolute()),
        "selection": selection.to_json(),
        "as_slices": as_slices,
        "rescale": rescale,
        "diameter": diameter,
        "inverted_from": inverted_from,
    }


def save(job: Job) -> str:
    """Saves a job in its folder, for `reopen`.

    Returns:
      A mark, different each time.

    Raises:
      ValueError: the job has no `origin`.
    """
    if job.origin is None:
        raise ValueError("an image in memory cannot be opened in another process")
    model_file.export_model(job.model, job.folder / _MODEL, card="The model of a count.\n")
    version, mark = importlib.metadata.version("cellcount_jax"), uuid.uuid4().hex
    files.write_json(job.folder / _JOB, {"version": version, "mark": mark, **job.origin})
    return mark


def revoke(folder: Path) -> None:
    """Keeps workers of a count that was killed from writing in a folder of which another takes
    over the lock."""
    (folder / _JOB).unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def reopen(folder: Path, mark: str) -> Job:
    """The saved job of a folder, without its mask, which is for the survey alone.

    The last one of a process stays open. It is known by its mark, since a shared disk may report
    old times of files.

    Args:
      folder: of a job that was saved.
      mark: from `save`.

    Raises:
      InputError: the folder or the image cannot be read here, the job was saved by another version
        of the package, or another count was started in the folder.
    """
    cache.keep_programs()
    stored = _read(folder / _JOB, mark)
    ours = importlib.metadata.version("cellcount_jax")
    if stored["version"] != ours:
        raise InputError(
            f"{folder}: is being counted by cellcount_jax {stored['version']}, and here is {ours};"
            " install the same version everywhere"
        )
    path = as_path(stored["path"])
    if not isinstance(path, Remote) and not os.path.lexists(path):
        raise InputError(f"{path}: no such file or folder; {_SHARED}")
    model = model_file.load_model(folder / _MODEL)
    selection = Selection.from_json(stored["selection"])
    source = sources.open_source(path, selection, as_slices=stored["as_slices"])
    spacing = source.spacing if stored["rescale"] else None
    fitted = fit(
        model,
        source,
        spacing=spacing,
        diameter=stored["diameter"],
        # The count has found out already whether it is.
        invert=stored["inverted_from"] is not None,
        inverted_from=stored["inverted_from"],
    )
    check = functools.partial(_read, folder / _JOB, mark)
    return Job(model, fitted.image, folder, check=check)


def _read(path: Path, mark: str) -> dict[str, Any]:
    """The saved job, if it still has a mark."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); {_SHARED}") from error
    if stored["mark"] != mark:
        raise InputError(f"{path}: is of another count, which was started in the same folder")
    return stored
