"""What runs the tasks of a count: threads of this process."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Sequence

import jax

from cellcount_jax.inference import tasks, tiled_maps
from cellcount_jax.inference.job import Engine, Job, Task
from cellcount_jax.progress import progress

# One computes (see tiled_maps.py), one reads for it, one writes. Where planes pass, a run does all
# of that by itself, and on a CPU two would take the memory twice.
_THREADS = 3
_READING = 2  # one of them compiles the program first


class _StoppedError(Exception):
    """Ends a task in a thread, as another one failed or the user stopped the count."""


def in_threads(job: Job) -> Engine:
    """Tasks in this process; while one computes, others read and write."""

    def engine(todo: Sequence[Task], title: str) -> None:
        kind, stopped, lock = todo[0].kind, threading.Event(), threading.Lock()
        with (
            concurrent.futures.ThreadPoolExecutor(_threads(job, kind)) as pool,
            progress(title, sum(len(task.tiles) for task in todo), unit=todo[0].unit) as bar,
        ):

            def update(tiles: int) -> None:
                if stopped.is_set():
                    raise _StoppedError
                with lock:
                    bar.update(tiles)

            running: list[concurrent.futures.Future[None]] = []
            if kind == "read":
                network = job.model.config, job.model.variables, job.plan
                running.append(pool.submit(tiled_maps.compile_ahead, *network, job.image.channels))
            running += [pool.submit(tasks.run, job, task, update) for task in todo]
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
            except BaseException:
                stopped.set()  # a task ends after its slab
                pool.shutdown(cancel_futures=True)
                raise

    return engine


def _threads(job: Job, kind: str) -> int:
    if kind == "read":
        return _READING
    alone = kind == "compute" and job.plan.lags is not None and jax.default_backend() == "cpu"
    return 1 if alone else _THREADS
