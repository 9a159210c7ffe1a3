"""What runs the tasks of a count: threads of this process."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Sequence

import jax

from cellcount_jax.inference import tasks
from cellcount_jax.inference.job import Engine, Job, Task
from cellcount_jax.progress import progress

# One computes (see tiled_maps.py), one reads for it, one writes. Where planes pass, a run does all
# of that by itself, and on a CPU two would take the memory twice.
_THREADS = 3


class _StoppedError(Exception):
    """Ends a task in a thread, as another one failed or the user stopped the count."""


def in_threads(job: Job) -> Engine:
    """Tasks in this process; while one computes, others read and write."""

    def engine(todo: Sequence[Task], title: str) -> None:
        passing = job.plan.lags is not None and todo[0].kind == "compute"
        alone = passing and jax.default_backend() == "cpu"
        stopped, lock = threading.Event(), threading.Lock()
        with (
            concurrent.futures.ThreadPoolExecutor(1 if alone else _THREADS) as pool,
            progress(title, sum(len(task.tiles) for task in todo)) as bar,
        ):

            def update(tiles: int) -> None:
                if stopped.is_set():
                    raise _StoppedError
                with lock:
                    bar.update(tiles)

            running = [pool.submit(tasks.run, job, task, update) for task in todo]
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
            except BaseException:
                stopped.set()  # a task ends after its slab
                pool.shutdown(cancel_futures=True)
                raise

    return engine
