"""How long a count will take, by doing a part of it: a small image, or one of its tiles."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cellcount_jax.images.regions import Region
from cellcount_jax.inference import tiled_maps
from cellcount_jax.inference.job import Job
from cellcount_jax.machine import core_count
from cellcount_jax.maps.detect import find_peaks
from cellcount_jax.network.sau_net import create_model

_PROBE_VOXELS = 2**17


def seconds(job: Job) -> float:
    """The time of a count, if no tile is left out.

    What is compiled is done three times.

    Args:
      job: of the image, from the middle of which a tile is read.

    Raises:
      InputError: the image cannot be read.
    """
    plan = job.plan
    if plan.whole:
        return _seconds_of_a_voxel(job) * math.prod(plan.padded_shape) * len(plan.flips)
    window = _seconds_of_a_window(job)
    voxels = math.prod(plan.shape)
    # On a processor both take its cores, elsewhere the slower one is waited for.
    shared = jax.default_backend() == "cpu"
    beside = window.beside / core_count() if shared else window.beside
    each = window.network + beside if shared else max(window.network, beside)
    once = window.survey * voxels + window.search * voxels / core_count()
    skipping = create_model(job.model.config, trained=True).fused
    return each * plan.windows(range(len(plan.cores)), skipping=skipping) + once


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


class _Window(NamedTuple):
    """Seconds of what is computed at a time, and of what is done once for each voxel.

    Attributes:
      network: of the network.
      beside: of reading and normalising it.
      survey: of a voxel that is read and measured.
      search: of a voxel in which peaks are searched.
    """

    network: float
    beside: float
    survey: float
    search: float


def _seconds_of_a_window(job: Job) -> _Window:
    model, plan = job.model, job.plan
    tile = next(i for i, core in enumerate(plan.cores) if _in_the_middle(core, plan.shape))
    needs, core = plan.needs(plan.cores[tile], ()), plan.cores[tile]
    first = core[0].start if plan.lags else needs[0].window.start
    depth = slice(first, first + plan.window_shape[0])
    window = (depth, *(need.window for need in needs[1:]))
    reading, raw = _timed(lambda: plan.read_mirrored(job.image.read, (), window), times=1)
    measuring, measured = _timed(
        lambda: model.normalisation.measure(
            lambda part: raw[part], raw.shape[:-1], channels=model.channels
        ),
        times=1,
    )
    normalising, values = _timed(lambda: measured(raw), times=1)
    compute = tiled_maps.window_program(model.config, model.variables, plan, core, values)
    network, maps = _timed(compute)
    searching, _ = _timed(
        lambda: find_peaks(
            maps[..., 0],
            threshold_abs=model.floor,
            min_distance=tuple(model.config.detect.min_distance),
        ),
        times=1,
    )
    survey = (reading + measuring) / raw[..., 0].size
    return _Window(network, reading + normalising, survey, searching / maps[..., 0].size)


def _in_the_middle(core: Region, shape: Sequence[int]) -> bool:
    return all(part.start <= n // 2 < part.stop for part, n in zip(core, shape, strict=True))


def _timed(work: Callable[[], Any], *, times: int = 3) -> tuple[float, Any]:
    """Seconds of the last time that something is done, and its result: a program is compiled in the
    first one, and gets its memory in the second."""
    for _ in range(times):
        started = time.perf_counter()
        result = work()
        taken = time.perf_counter() - started
    return taken, result
