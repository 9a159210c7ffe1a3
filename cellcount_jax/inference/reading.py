"""The tasks that read an image before its tiles are computed: what they see is kept in the job's
folder until the survey is made of it, so that they can stop, and run in any process, as others do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing
from cellcount_jax.inference import survey
from cellcount_jax.inference.job import Job, Task
from cellcount_jax.inference.survey import Part, Seen

FOLDER = "read"
_PARTS = 16  # of a task, whose results are in one file; up to 2^27 voxels


def pending(job: Job) -> list[Task]:
    """The tasks that are not done."""
    number = -(-len(_parts(job)) // _PARTS)
    return [Task("read", (i,)) for i in range(number) if not _path(job, i).exists()]


def run(job: Job, task: Task, update: Callable[[int], object]) -> None:
    """Runs a task; see `tasks.run`."""
    parts = _parts(job)
    for number in task.tiles:
        some = parts[number * _PARTS : (number + 1) * _PARTS]
        found: dict[str, np.ndarray] = {}
        for i, seen in enumerate(survey.see(job.image, job.plan, job.model.normalisation, some)):
            found |= {f"{name}_{i}": values for name, values in seen.items()}
            update(0)
        job.check()
        with replacing(_path(job, number)) as temporary, temporary.open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        update(1)


def seen(job: Job) -> Iterator[tuple[Part, Seen]]:
    """All parts of the image, and what was seen in each.

    Raises:
      InputError: what a task wrote was removed.
    """
    parts = _parts(job)
    for number in range(-(-len(parts) // _PARTS)):
        try:
            with np.load(_path(job, number), allow_pickle=False) as stored:
                found = {name: stored[name] for name in stored.files}
        except FileNotFoundError as error:
            raise InputError(
                f"{_path(job, number)}: was removed while it was needed; the same command reads"
                " that part of the image again"
            ) from error
        for i, part in enumerate(parts[number * _PARTS : (number + 1) * _PARTS]):
            ends = f"_{i}"
            names = {name.removesuffix(ends): name for name in found if name.endswith(ends)}
            yield part, {name: found[stored_as] for name, stored_as in names.items()}


def remove(job: Job) -> None:
    """Removes what the tasks wrote."""
    shutil.rmtree(job.folder / FOLDER, ignore_errors=True)


def _parts(job: Job) -> list[Part]:
    return survey.parts(job.image, job.plan, job.model.normalisation)


def _path(job: Job, number: int) -> Path:
    return job.folder / FOLDER / f"{number}.npz"
