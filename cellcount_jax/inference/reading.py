"""The tasks that read an image before its tiles are computed.

What they observe is kept in the job's folder until the survey is made of it, so that they can stop,
and run in any process, as others do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing
from cellcount_jax.images.regions import Region
from cellcount_jax.inference import survey
from cellcount_jax.inference.job import Job, Task
from cellcount_jax.inference.survey import Observed

FOLDER = "read"
_GROUPS = 8  # of blocks in a part of the image, which a task reads; up to 2^26 voxels, about


def pending(job: Job) -> list[Task]:
    """The tasks that are not done."""
    parts = enumerate(_parts(job))
    return [Task("read", (i,)) for i, groups in parts if _load(_path(job, i), groups) is None]


def run(job: Job, task: Task, update: Callable[[int], object]) -> None:
    """Runs a task; see `tasks.run`."""
    parts = _parts(job)
    for number in task.tiles:
        groups = parts[number]
        found = {"groups": _bounds(groups)}
        observed = survey.observe(job.image, job.plan, job.model.normalisation, groups)
        for i, of_group in enumerate(observed):
            found |= {f"{name}_{i}": values for name, values in of_group.items()}
            update(0)
        job.check()
        with replacing(_path(job, number)) as temporary, temporary.open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        update(1)


def stored(job: Job) -> Iterator[tuple[Region, Observed]]:
    """All groups of blocks of the image, and what was observed of each.

    Raises:
      InputError: what a task wrote was removed or damaged.
    """
    for number, groups in enumerate(_parts(job)):
        path = _path(job, number)
        found = _load(path, groups)
        if found is None:
            raise InputError(
                f"{path}: was removed or damaged while it was needed; the same command reads that"
                " part of the image again"
            )
        yield from zip(groups, found, strict=True)


def remove(job: Job) -> None:
    """Removes what the tasks wrote."""
    shutil.rmtree(job.folder / FOLDER, ignore_errors=True)


def _load(path: Path, groups: Sequence[Region]) -> list[Observed] | None:
    """Reads a task's file; None where there is none, it is damaged, or of other groups."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if not np.array_equal(kept["groups"], _bounds(groups)):
                return None
            names = ("statistics", "ranges")
            return [{name: kept[f"{name}_{i}"] for name in names} for i in range(len(groups))]
    except Exception:  # whatever a damaged archive leads to, in zipfile, zlib and NumPy
        return None


def _parts(job: Job) -> list[list[Region]]:
    """The groups of blocks of each task."""
    groups = survey.groups(job.image, job.model.normalisation)
    return [groups[i : i + _GROUPS] for i in range(0, len(groups), _GROUPS)]


def _bounds(groups: Sequence[Region]) -> np.ndarray:
    return np.array([[(part.start, part.stop) for part in group] for group in groups])


def _path(job: Job, number: int) -> Path:
    return job.folder / FOLDER / f"{number}.npz"
