"""What runs the tasks of a count: threads of this process."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence

from cellcount_jax.inference import tasks
from cellcount_jax.inference.tasks import Engine, Job, Task
from cellcount_jax.progress import progress

# One computes (see tiled_maps.py), one reads for it, one writes.
_THREADS = 3


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
