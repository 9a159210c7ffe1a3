"""The tasks of a count on a cluster of dask: of processes on this machine, or of other machines.

A worker gets the name of a folder and a task, and opens the job there (`job_file.py`). What it
finds it leaves in the folder, so a task that is done twice, or half and then again, does no harm.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import logging
import os
import platform
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from absl import logging as log

from cellcount_jax.counting import engines, job_file
from cellcount_jax.errors import InputError
from cellcount_jax.inference import tasks
from cellcount_jax.inference.tasks import Engine, Job, Task

if TYPE_CHECKING:
    from distributed import Client, Future

LOCAL = "local"
# Tasks that the scheduler knows of at a time: enough for each of 100 workers to have some ahead.
_AHEAD = 1000
# Of a task that fails with what may pass, such as a disk that does not answer.
_RETRIES = 3
_CORES = 4  # of a worker on a CPU
_TIMEOUT_S = 20
_NAME = "cellcount_jax"


@contextlib.contextmanager
def engines_on(scheduler: str) -> Iterator[Callable[[Job], Engine]]:
    """Engines whose tasks run on the workers of a scheduler.

    Args:
      scheduler: its address, such as 'tcp://10.0.0.5:8786'; or 'local', for processes on this
        machine, which start with the first task and end with the block.

    Yields:
      What gives the engine of a job; the job needs an `origin`.

    Raises:
      InputError: dask.distributed is not installed, there is no such scheduler, or, while an engine
        runs, what is wrong with a task or a worker.
    """
    if importlib.util.find_spec("distributed") is None:
        raise InputError(
            f"--scheduler {scheduler}: needs dask.distributed, which is not installed:"
            f' pip install "{_NAME}[cluster]"'
        )
    with contextlib.ExitStack() as stack:
        connect = functools.cache(lambda: stack.enter_context(_client(scheduler)))
        if scheduler != LOCAL:
            connect()  # before an image is read

        def engine(job: Job) -> Engine:
            saved = functools.cache(lambda: job_file.save(job))

            def run(todo: Sequence[Task], title: str) -> None:
                client = connect()
                _wait_for_workers(client, scheduler)
                _run_all(client, scheduler, (str(job.folder.resolve()), saved()), todo, title)

            return run

        yield engine


def run_on_worker(folder: str, mark: str, task: Sequence[Any]) -> InputError | None:
    """Does a task, in a worker's process.

    Args:
      folder: of the job.
      mark: of the job, see `job_file.save`.
      task: a `Task`.

    Returns:
      What is wrong with the input, on any worker; if it were raised, dask would try again.
    """
    import dask

    try:
        job = job_file.reopen(Path(folder), mark)
    except InputError as error:
        return InputError(f"worker on {platform.node()}: {error}")
    try:
        # Some files are read as arrays of dask; on a worker these would become tasks themselves.
        with dask.config.set(scheduler="threads"):
            tasks.run(job, Task(*task))
    except InputError as error:
        return error
    return None


def dask_setup(worker: Any) -> None:
    """What dask calls in a worker process of the local cluster when it starts.

    A terminal sends Ctrl-C to all processes, but the one that the user started ends the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It tells of tasks that are cancelled then.
    logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)


def _run_all(
    client: Client, scheduler: str, job: tuple[str, str], todo: Sequence[Task], title: str
) -> None:
    """Runs the tasks of a job, which is given by its folder and mark."""
    from distributed import as_completed

    send = _sent()

    def submit(task: Task) -> Future:
        return client.submit(send, *job, tuple(task), pure=False, retries=_RETRIES)

    waiting = iter(todo)
    running = as_completed(loop=client.loop)
    try:
        running.update([submit(task) for task in itertools.islice(waiting, _AHEAD)])
        with engines.progress(title, len(todo)) as bar:
            for future in running:
                _check(future, scheduler)
                bar.update()
                running.update([submit(task) for task in itertools.islice(waiting, 1)])
    except BaseException:
        with contextlib.suppress(Exception):
            client.cancel(list(running.futures))
        raise


def _sent() -> Callable[..., InputError | None]:
    """What the workers get; a function in a function is sent as code, not by its name, so that the
    scheduler, which looks into all that it is sent, needs nothing of this package."""

    def cellcount(*arguments: Any) -> InputError | None:
        import importlib

        here: Any = importlib.import_module("cellcount_jax.counting.cluster")
        found: InputError | None = here.run_on_worker(*arguments)
        return found

    return cellcount


def _check(future: Future, scheduler: str) -> None:
    """Raises what went wrong with a task, as an error of one line where the user can do something.

    Raises:
      InputError: of the task; or its worker died again and again, has not got the package, or the
        scheduler is gone.
    """
    from distributed import CancelledError, KilledWorker

    try:
        wrong = future.result()
    except KilledWorker as error:
        raise InputError(
            f"--scheduler {scheduler}: a tile was given up as {error.allowed_failures + 1} workers"
            " died while they had it, the last on"
            f" {error.last_worker.address}; if memory ran out, a smaller --max-voxels needs less"
        ) from error
    except CancelledError as error:
        raise InputError(
            f"--scheduler {scheduler}: the connection was lost; the same command goes on where it"
            " was stopped"
        ) from error
    except ModuleNotFoundError as error:
        raise InputError(
            f"--scheduler {scheduler}: a worker has no {error.name}; install the same version of"
            f" {_NAME} everywhere"
        ) from error
    if wrong is not None:
        raise wrong


@contextlib.contextmanager
def _client(scheduler: str) -> Iterator[Client]:
    """A connection to a scheduler, which is started where it is the local one."""
    from distributed import Client
    from distributed.comm import resolve_address

    # Each process would tell at length that it starts and ends: this one, and those it starts.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    with contextlib.ExitStack() as stack:
        try:
            at: Any = scheduler
            if scheduler == LOCAL:
                at = stack.enter_context(_local_cluster())
            else:
                resolve_address(scheduler)  # a client that cannot takes long to give up
            client = Client(at, timeout=_TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--scheduler {scheduler}: cannot be reached ({error}); give the address that the"
                " scheduler tells when it starts, such as tcp://10.0.0.5:8786, or 'local'"
            ) from error
        yield stack.enter_context(client)


def _wait_for_workers(client: Client, scheduler: str) -> None:
    """Waits until there is a worker, and makes sure that all can do the tasks.

    Raises:
      InputError: one has another version of the package or of Python.
    """
    if not client.nthreads():
        log.warning("--scheduler %s: has no workers yet, waiting for one", scheduler)
    client.wait_for_workers(1)
    told: Any = client.get_versions(packages=[_NAME])
    ours = _versions(told["client"])
    for address, worker in told["workers"].items():
        theirs = _versions(worker)
        if theirs != ours:
            raise InputError(
                f"--scheduler {scheduler}: the worker {address} has {theirs}, and here is {ours};"
                " install the same version everywhere"
            )


def _versions(told: Mapping[str, Any]) -> str:
    python = ".".join(told["host"]["python"].split(".")[:2])
    return f"{_NAME} {told['packages'][_NAME] or 'missing'} on Python {python}"


@contextlib.contextmanager
def _local_cluster() -> Iterator[Any]:
    """Workers on this machine: one a GPU where there are several, else one for some cores."""
    from distributed import Nanny, Scheduler, SpecCluster

    workers = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                # Dask would stop a worker that has more than its share, but tiles may be large.
                "memory_limit": 0,
                "env": environment,
                "dashboard": False,
                "silence_logs": logging.WARNING,
                "preload": [__name__],
            },
        }
        for number, environment in enumerate(_environments())
    }
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": ":0"}
    with SpecCluster(workers, {"cls": Scheduler, "options": options}) as cluster:
        yield cluster


def _environments() -> list[dict[str, str]]:
    """What each of the workers on this machine has in its environment."""
    from dask.system import CPU_COUNT

    devices = jax.local_devices()
    if devices[0].platform == "gpu":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(device.id) for device in devices]
        return [{"CUDA_VISIBLE_DEVICES": name} for name in names]
    if devices[0].platform != "cpu":
        return [{}]
    number = max(1, CPU_COUNT // _CORES)
    # XLA starts so many threads.
    return [{"NPROC": str(CPU_COUNT // number)}] * number
