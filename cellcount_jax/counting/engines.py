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
# of that by itself, and on a CPU two would take the memory twice. What is read first has threads of
# its own.
_THREADS = 3


class _StoppedError(Exception):
    """Ends a task in a thread, as another one failed or the user stopped the count."""


def in_threads(job: Job) -> Engine:
    """Tasks in this process; while one computes, others read and write.

    While the image is read first, the program of the network is compiled.
    """

    def engine(todo: Sequence[Task], title: str) -> None:
        kind, stopped, lock = todo[0].kind, threading.Event(), threading.Lock()
        with (
            concurrent.futures.ThreadPoolExecutor(1) as beside,
            concurrent.futures.ThreadPoolExecutor(_threads(job, kind)) as pool,
            progress(title, sum(len(task.tiles) for task in todo), unit=todo[0].unit) as bar,
        ):

            def update(tiles: int) -> None:
                if stopped.is_set():
                    raise _StoppedError
                with lock:
                    bar.update(tiles)

            running = [pool.submit(tasks.run, job, task, update) for task in todo]
            if kind == "read":
                network = job.model.config, job.model.variables, job.plan
                channels = job.image.channels
                running.append(beside.submit(tiled_maps.compile_ahead, *network, channels))
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
            except BaseException:
                stopped.set()  # a task ends after its slab, but a compilation at its own end
                pool.shutdown(cancel_futures=True)
                raise

    return engine


def _threads(job: Job, kind: str) -> int:
    passing = kind == "compute" and job.plan.lags is not None
    alone = kind == "read" or (passing and jax.default_backend() == "cpu")
    return 1 if alone else _THREADS
