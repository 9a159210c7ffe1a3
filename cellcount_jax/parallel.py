"""The only place that knows of several devices: the one pmap, and what works inside it.

The state is replicated and unstacked: it goes in and comes out without a device axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array

from cellcount_jax.errors import InputError

AXIS = "batch"

Tree = TypeVar("Tree")
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
    """Puts a tree on every device, whole."""
    mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def scanned(
    step: Step, *, length: int, devices: Sequence[jax.Device]
) -> Callable[[Any, Any, Array], tuple[Any, Any]]:
    """Compiles `length` steps into one call over all devices.

    Args:
      step: `step(state, data, key) -> (state, metrics)`, run on every device with the axis
        named `AXIS`; it must give the same result on all. `state.step` counts the steps,
        and step s gets `fold_in(key, s)`: a resumed run is the same run.
      length: steps per call.
      devices: where to run.

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
    index = np.arange(len(devices))
    return lambda state, data, key: mapped(state, data, key, index)
