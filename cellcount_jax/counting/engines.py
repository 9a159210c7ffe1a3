"""What runs the tasks of a count: threads of this process."""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Sequence

from tqdm import tqdm

from cellcount_jax.inference import tasks
from cellcount_jax.inference.tasks import Engine, Job, Task

# One computes (see tiled_maps.py), one reads for it, one writes.
_THREADS = 3
_SOON_S = 2


def progress(title: str, total: int, *, unit: str = "tile") -> tqdm:
    """A bar on a terminal, in a log a line now and then; nothing of what takes no time."""
    interval = 0.5 if sys.stderr.isatty() else 60
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        unit_scale=unit == "voxel",
        mininterval=interval,
        maxinterval=interval,
        delay=_SOON_S,
    )


def reading(title: str, voxels: int) -> tqdm:
    """The same for an image that is read part by part."""
    return progress(title, voxels, unit="voxel")


def in_threads(job: Job) -> Engine:
    """Tasks in this process; while one computes, others read and write."""

    def engine(todo: Sequence[Task], title: str) -> None:
        with (
            concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
            progress(title, len(todo)) as bar,
        ):
            running = [pool.submit(tasks.run, job, task) for task in todo]
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return engine
