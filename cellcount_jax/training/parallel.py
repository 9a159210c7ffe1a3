"""The only place that knows of several devices or processes: the one pmap, what works inside it,
and what processes on several hosts need to go in step.

The state is replicated and unstacked: it goes in and comes out without a device axis. Every
process holds it, on its own devices; process 0 alone reads and writes the run's folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from cellcount_jax.errors import InputError

AXIS = "batch"
# As --coordinator: have JAX find the other processes (TPU pods, MPI, Kubernetes).
AUTO = "auto"

Tree = TypeVar("Tree")
Result = TypeVar("Result")
Step = Callable[[Any, Any, Array], tuple[Any, Any]]


def split_batch(size: int, devices: int, key: str) -> int:
    """The share of one device of a batch.

    Raises:
      InputError: the batch does not divide; `key` names the setting.
    """
    if size % devices:
        raise InputError(
            f"config.{key} = {size}: must be a multiple of the number of devices, {devices}"
        )
    return size // devices


def example_keys(key: Array, count: int, *, axis_name: str | None) -> Array:
    """Keys for this device's `count` examples, which do not depend on the device count.

    The keys of the whole batch are split first, then each device takes its own.

    Args:
      key: the key of the whole batch.
      count: examples on one device.
      axis_name: the mapped axis; None outside of pmap.

    Returns:
      `(count,)` keys.
    """
    if axis_name is None:
        return jax.random.split(key, count)
    everyones = jax.random.split(key, count * jax.lax.axis_size(axis_name))
    start = jax.lax.axis_index(axis_name) * count
    return jax.lax.dynamic_slice_in_dim(everyones, start, count)


def all_sum(tree: Tree, *, axis_name: str | None) -> Tree:
    """Sum over the devices, leaf by leaf; the tree itself outside of pmap."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def replicate(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Puts a tree on every one of the devices that is this process's, whole."""
    mesh = jax.sharding.Mesh(np.asarray(_local(devices)), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def _local(devices: Sequence[jax.Device]) -> list[jax.Device]:
    return [d for d in devices if d.process_index == jax.process_index()]


def scanned(
    step: Step, *, length: int, devices: Sequence[jax.Device]
) -> Callable[[Any, Any, Array], tuple[Any, Any]]:
    """Compiles `length` steps into one call over all devices.

    Args:
      step: `step(state, data, key) -> (state, metrics)`, run on every device with the axis
        named `AXIS`; it must give the same result on all. `state.step` counts the steps,
        and step s gets `fold_in(key, s)`: a resumed run is the same run.
      length: steps per call.
      devices: where to run, those of all processes.

    Returns:
      A function `(state, data, key) -> (state, metrics)`, its metrics with a leading axis
      of steps. It takes the state's memory over: the state passed in is used up.
    """

    def many(state: Any, data: Any, key: Array, _: Array) -> tuple[Any, Any]:
        def body(state: Any, __: None) -> tuple[Any, Any]:
            return step(state, data, jax.random.fold_in(key, state.step))

        return jax.lax.scan(body, state, None, length=length)

    mapped = jax.pmap(
        many,
        axis_name=AXIS,
        in_axes=(None, None, None, 0),
        out_axes=None,
        devices=devices,
        donate_argnums=0,
    )
    index = np.arange(len(_local(devices)))
    return lambda state, data, key: mapped(state, data, key, index)


def start_processes(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of a run on several hosts, before anything else is done with JAX.

    Without arguments it joins the tasks of a SLURM step, if there are several; else it does
    nothing.

    Args:
      coordinator: `host:port` of process 0, or `AUTO`.
      num_processes: how many there are.
      process_id: which one this is.

    Raises:
      InputError: some are given without the others.
    """
    numbers = (num_processes, process_id)
    if coordinator == AUTO and numbers == (None, None):
        jax.distributed.initialize()
    elif coordinator not in (None, AUTO) and None not in numbers:
        # Not also what the environment says: inside a SLURM step it would take one GPU a process.
        jax.distributed.initialize(
            coordinator, num_processes, process_id, cluster_detection_method="deactivate"
        )
    elif coordinator is not None or numbers != (None, None):
        raise InputError(
            f"--coordinator={coordinator} --num_processes={num_processes}"
            f" --process_id={process_id}: give all three, or --coordinator={AUTO} alone"
        )
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        jax.distributed.initialize(local_device_ids=_slurm_devices())


def _slurm_devices() -> list[int] | None:
    """All devices of the node where it has one task; JAX's own choice is one device a task."""
    if os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] != "1":
        return None
    count = int(os.environ.get("SLURM_GPUS_ON_NODE", 0))
    return list(range(count)) or None


def describe() -> str:
    """What a run runs on, for its log."""
    devices = jax.devices()
    processes = jax.process_count()
    several = f"{processes} processes, " if processes > 1 else ""
    return f"{several}{len(devices)} {devices[0].platform} device(s)"


def is_first() -> bool:
    """Whether this is process 0, the one that reads and writes the run's folder."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def on_first(action: Callable[[], Result]) -> Result | None:
    """Does something in process 0, while the others wait; where it fails, all of them do.

    Returns:
      What the action returned; None in the other processes.

    Raises:
      InputError: it failed in process 0.
    """
    if jax.process_count() == 1:
        return action()
    result, error = None, None
    if is_first():
        try:
            result = action()
        except Exception as caught:  # to be raised again when the others know
            error = caught
    if any_process(error is not None):
        raise error or InputError("process 0 failed; its own message says why")
    return result


def from_first(tree: Tree) -> Tree:
    """Process 0's tree of arrays, in all processes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)
