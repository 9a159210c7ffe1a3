"""The tasks of a count on dask's workers: processes of this machine, or of other machines.

A worker gets a folder and a task, opens the job in the folder (`job_file.py`) and leaves its result
there, so a task that is done twice, or half and then again, does no harm.
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

from cellcount_jax.counting import job_file
from cellcount_jax.errors import InputError, how_to_install, in_words
from cellcount_jax.inference import tasks
from cellcount_jax.inference.job import Engine, Job, Task
from cellcount_jax.machine import share_heap
from cellcount_jax.progress import progress

if TYPE_CHECKING:
    from distributed import Client, Future

LOCAL = "local"
_MAX_SUBMITTED = 1000  # tasks at a time, enough for 100 workers to have some ahead
_TASKS_PER_WORKER = 4  # at least, so that none waits long for the last one
_LEAST_RUN = 4  # tiles; each run begins with planes that are computed for the next ones alone
_RETRIES = 3  # of a task whose error may pass, such as a disk that does not answer
_CORES_PER_WORKER = 4  # on a CPU
_TIMEOUT_S = 20
_NAME = "cellcount_jax"
# Whoever reaches a port of dask can run code.
_LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def engines_on(scheduler: str) -> Iterator[Callable[[Job], Engine]]:
    """Engines whose tasks run on the workers of a scheduler.

    Args:
      scheduler: its address, such as 'tcp://10.0.0.5:8786'; or 'local', for processes on this
        machine, which start with the first task and end with the block.

    Yields:
      A function from a job, which needs an `origin`, to its engine.

    Raises:
      InputError: dask.distributed is not installed, there is no such scheduler; or, while an engine
        runs, a task or a worker fails.
    """
    if importlib.util.find_spec("distributed") is None:
        raise InputError(
            f"--scheduler {scheduler}: needs dask.distributed, which is not installed:"
            f" {how_to_install('cluster')}"
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
    """Runs a task in a worker's process.

    Args:
      folder: of the job.
      mark: of the job, see `job_file.save`.
      task: a `Task`.

    Returns:
      An error of the input, which is the same on any worker; dask would retry if it were raised.
    """
    import dask

    share_heap()
    try:
        job = job_file.reopen(Path(folder), mark)
    except InputError as error:
        return InputError(f"worker on {platform.node()}: {error}")
    try:
        # Some files are read as dask arrays, which would become tasks of the cluster themselves.
        with dask.config.set(scheduler="threads"):
            tasks.run(job, Task(*task))
    except InputError as error:
        return error
    return None


def dask_setup(worker: Any) -> None:
    """Prepares a worker process of the local cluster; called by dask when it starts.

    A terminal sends Ctrl-C to all processes, but the one that the user started ends the others.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A warning for each task that is cancelled then; and what a task raises, a page long, which is
    # raised where the count was started, too.
    logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


def _run_all(
    client: Client, scheduler: str, job: tuple[str, str], todo: Sequence[Task], title: str
) -> None:
    """Runs tasks of a job, which is given by its folder and mark."""
    from distributed import as_completed

    function = _importing_function()

    todo = _shared(todo, workers=len(client.nthreads()))
    tiles: dict[Any, int] = {}

    def submit(task: Task) -> Future:
        future = client.submit(function, *job, tuple(task), pure=False, retries=_RETRIES)
        tiles[future.key] = len(task.tiles)
        return future

    waiting = iter(todo)
    running = as_completed(loop=client.loop)
    try:
        running.update([submit(task) for task in itertools.islice(waiting, _MAX_SUBMITTED)])
        total = sum(len(task.tiles) for task in todo)
        with progress(title, total, unit=todo[0].unit) as bar:
            for future in running:
                _check(future, scheduler)
                bar.update(tiles.pop(future.key))
                running.update([submit(task) for task in itertools.islice(waiting, 1)])
    except BaseException:
        with contextlib.suppress(Exception):
            client.cancel(list(running.futures))
        raise


def _shared(todo: Sequence[Task], *, workers: int) -> list[Task]:
    """The tasks, long runs cut in parts, so that each worker has several."""
    most = sum(len(task.tiles) for task in todo) // (_TASKS_PER_WORKER * max(workers, 1))
    longest = max(most, _LEAST_RUN)
    return [
        task._replace(tiles=task.tiles[first : first + longest])
        for task in todo
        for first in range(0, len(task.tiles), longest)
    ]


def _importing_function() -> Callable[..., InputError | None]:
    """`run_on_worker` without this package: an inner function is sent as code, not by its name, and
    the scheduler, which unpacks all that it is sent, may not have the package."""

    def cellcount(*arguments: Any) -> InputError | None:
        import importlib

        module: Any = importlib.import_module("cellcount_jax.counting.cluster")
        error: InputError | None = module.run_on_worker(*arguments)
        return error

    return cellcount


def _check(future: Future, scheduler: str) -> None:
    """Raises the error of a task, as an `InputError` where the user can do something.

    Raises:
      InputError: of the task; or its worker died again and again, has not got the package, or the
        scheduler is gone.
    """
    from distributed import CancelledError, KilledWorker

    try:
        error_of_input = future.result()
    except KilledWorker as error:
        raise InputError(
            f"--scheduler {scheduler}: tasks were given up as {error.allowed_failures + 1} workers"
            " died while they had them, the last on"
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
    if error_of_input is not None:
        raise error_of_input


@contextlib.contextmanager
def _client(scheduler: str) -> Iterator[Client]:
    """A connection to a scheduler; the local one is started."""
    from distributed import Client
    from distributed.comm import resolve_address

    # Without these, each process logs at length that it starts and ends, and every failed try.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
    with contextlib.ExitStack() as stack:
        try:
            address: Any = scheduler
            if scheduler == LOCAL:
                address = stack.enter_context(_local_cluster())
            else:
                resolve_address(scheduler)  # a client takes long to give up
                _check_certificate(scheduler)
            client = Client(address, timeout=_TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--scheduler {scheduler}: cannot be reached ({in_words(error)}); give the"
                " address that the scheduler logs when it starts, such as tcp://10.0.0.5:8786,"
                " or 'local'"
            ) from error
        yield stack.enter_context(client)


def _check_certificate(scheduler: str) -> None:
    """Raises an `InputError` where an encrypted connection would have no certificate."""
    from distributed import Security

    if scheduler.startswith("tls:") and not Security().get_connection_args("client")["ssl_context"]:
        raise InputError(
            f"--scheduler {scheduler}: dask's configuration names no certificate for it; see"
            " 'Who can reach the scheduler' in docs/cluster.md"
        )


def _wait_for_workers(client: Client, scheduler: str) -> None:
    """Waits until there is a worker, and makes sure that all can do the tasks.

    Raises:
      InputError: one has another version of the package or of Python.
    """
    if not client.nthreads():
        log.warning("--scheduler %s: has no workers yet, waiting for one", scheduler)
    client.wait_for_workers(1)
    versions: Any = client.get_versions(packages=[_NAME])
    ours = _version_text(versions["client"])
    for address, worker in versions["workers"].items():
        theirs = _version_text(worker)
        if theirs != ours:
            raise InputError(
                f"--scheduler {scheduler}: the worker {address} has {theirs}, and here is {ours};"
                " install the same version everywhere"
            )


def _version_text(process: Mapping[str, Any]) -> str:
    python = ".".join(process["host"]["python"].split(".")[:2])
    return f"{_NAME} {process['packages'][_NAME] or 'missing'} on Python {python}"


@contextlib.contextmanager
def _local_cluster() -> Iterator[Any]:
    """Workers on this machine: one for each GPU, or one for some cores."""
    from distributed import Nanny, Scheduler, SpecCluster

    workers = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                # No limit: dask would stop a worker that takes more than its share.
                "memory_limit": 0,
                "env": environment,
                "host": _LOOPBACK,
                "dashboard": False,
                "dashboard_address": f"{_LOOPBACK}:0",
                "silence_logs": logging.ERROR,
                "preload": [__name__],
            },
        }
        for number, environment in enumerate(_environments())
    }
    options = {
        "host": _LOOPBACK,
        "port": 0,
        "dashboard": False,
        "dashboard_address": f"{_LOOPBACK}:0",
    }
    with SpecCluster(workers, {"cls": Scheduler, "options": options}) as cluster:
        yield cluster


def _environments() -> list[dict[str, str]]:
    """The environment variables of each worker on this machine."""
    from dask.system import CPU_COUNT

    devices = jax.local_devices()
    if devices[0].platform == "gpu":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(device.id) for device in devices]
        return [{"CUDA_VISIBLE_DEVICES": name} for name in names]
    if devices[0].platform != "cpu":
        return [{}]
    number = max(1, CPU_COUNT // _CORES_PER_WORKER)
    # The number of threads that XLA starts.
    return [{"NPROC": str(CPU_COUNT // number)}] * number
