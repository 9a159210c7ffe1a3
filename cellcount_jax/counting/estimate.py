"""How long a count will take, by doing a part of it: a small image, or one of its tiles."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cellcount_jax.images.regions import Region, extent
from cellcount_jax.inference import tiled_maps
from cellcount_jax.inference.job import Job
from cellcount_jax.machine import core_count
from cellcount_jax.maps.detect import find_peaks

_PROBE_VOXELS = 2**17


def seconds(job: Job) -> float:
    """The time of a count, if no tile is left out.

    What is compiled is done twice.

    Args:
      job: of the image, from the middle of which a tile is read.

    Raises:
      InputError: the image cannot be read.
    """
    plan = job.plan
    if plan.whole:
        return _seconds_of_a_voxel(job) * math.prod(plan.padded_shape) * len(plan.flips)
    network, rest = _seconds_of_a_tile(job)
    # On a processor both take its cores, elsewhere the slower one is waited for.
    shared = jax.default_backend() == "cpu"
    each = network + rest / core_count() if shared else max(network, rest)
    return each * len(plan.tiles)


def _seconds_of_a_voxel(job: Job) -> float:
    """Of the network on a small image."""
    plan, model = job.plan, job.model
    stride = np.asarray(plan.stride)
    edge = _PROBE_VOXELS ** (1 / len(stride))
    wanted = stride * np.maximum(1, np.rint(edge / stride).astype(int))
    shape = np.minimum(plan.padded_shape, wanted)
    values = np.zeros((*shape.tolist(), model.channels), np.float32)
    probe = model.with_settings({"predict.flips": False, "predict.max_voxels": int(np.prod(shape))})
    taken, _ = _timed(lambda: tiled_maps.compute(probe.config, probe.variables, values))
    return taken / float(np.prod(shape))


def _seconds_of_a_tile(job: Job) -> tuple[float, float]:
    """Of the network on a tile with all its mirror images, and of all that is done beside it."""
    model, plan = job.model, job.plan
    index = next(i for i, core in enumerate(plan.cores) if _in_the_middle(core, plan.shape))
    window = plan.window(plan.cores[index], ())
    reading, raw = _timed(lambda: plan.read_mirrored(job.image.read, (), window), times=1)
    measuring, measured = _timed(
        lambda: model.normalisation.measure(
            lambda part: raw[part], raw.shape[:-1], channels=model.channels
        ),
        times=1,
    )
    normalising, values = _timed(lambda: measured(raw), times=1)

    def read(part: Region) -> np.ndarray:
        return np.resize(values, (*extent(part), model.channels))

    encode = (model.config, model.variables, plan, read)
    encoding, level = _timed(lambda: tiled_maps.encode(*encode, index=index, flip=()))

    def coarse(_: int, part: Region) -> np.ndarray:
        return np.resize(level, (*extent(part), level.shape[-1]))

    decode = (model.config, model.variables, plan._replace(flips=((),)), read, coarse)
    decoding, found = _timed(lambda: tiled_maps.decode(*decode, index=index))
    searching, _ = _timed(
        lambda: find_peaks(
            found[..., 0],
            threshold_abs=model.floor,
            min_distance=tuple(model.config.detect.min_distance),
        ),
        times=1,
    )
    flips = len(plan.flips)
    # Read to measure it, to encode and to decode it.
    rest = reading * (1 + 2 * flips) + measuring + normalising * 2 * flips + searching
    return (encoding + decoding) * flips, rest


def _in_the_middle(core: Region, shape: Sequence[int]) -> bool:
    return all(part.start <= n // 2 < part.stop for part, n in zip(core, shape, strict=True))


def _timed(work: Callable[[], Any], *, times: int = 2) -> tuple[float, Any]:
    """Seconds of the last time that something is done, and its result."""
    for _ in range(times):
        started = time.perf_counter()
        result = work()
        taken = time.perf_counter() - started
    return taken, result
