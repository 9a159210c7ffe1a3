"""Lines that a count prints: the image, its tiles, memory and time, and its doubts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.images.regions import size_text
from cellcount_jax.images.remote_state import shows_changes
from cellcount_jax.images.sources import Source
from cellcount_jax.images.zarr_stores import Remote
from cellcount_jax.inference import tiled_maps
from cellcount_jax.inference.doubts import Doubt
from cellcount_jax.inference.job import Job
from cellcount_jax.inference.plan import Plan
from cellcount_jax.progress import duration

# Memory of a process that has started and compiled, and per voxel of a tile and feature of the
# network's first level: measured with benchmarks/counting.py.
_PROCESS_BYTES = 0.7e9
_BYTES_PER_FEATURE = 12
_PROBE_VOXELS = 2**17


def describe_image(source: Source) -> str:
    """An image in a line: format, axes, size, type and voxel size."""
    voxels = "unknown voxel size"
    if source.spacing_found:
        voxels += f" (the file says {source.spacing_found})"
    if source.spacing is not None:
        voxels = f"voxels of {size_text(source.spacing)} um ({source.spacing_source})"
    given = "" if source.selection.axes is None else " (given)"
    channels = f", {source.channels} channels" if source.channels > 1 else ""
    return (
        f"{source.path}: {source.kind}, {source.axes}{given} of {size_text(source.stored_shape)}"
        f" {source.dtype}{channels}, {voxels}"
    )


def describe_unseen(source: Source) -> str | None:
    """That a change of an image at an address would not be seen, in a line; None if it would be.

    Raises:
      InputError: the server does not answer.
    """
    if not isinstance(source.path, Remote) or shows_changes(source.files):
        return None
    return (
        f"{source.path}: its server says neither when the chunks were changed nor their ETag, so a"
        " change there would not be noticed; if there was one, count it anew with --overwrite"
    )


def describe_doubts(path: Path, found: Sequence[Doubt]) -> str | None:
    """The doubts about a count in a line, but that about voxels, which was told before it.

    Args:
      path: of the image.
      found: those that most explain others first.

    Returns:
      The line; None without doubts.
    """
    rest = [doubt for doubt in found if doubt.kind != "voxel size"]
    if not rest:
        return None
    told = rest[:1]
    # A second one, if there is another thing to do about it.
    told += [doubt for doubt in rest if doubt.remedy != told[0].remedy][:1]
    more = len(rest) - len(told)
    hint = f" (and {more} more: report.html)" if more else ""
    texts = "; ".join(doubt.text for doubt in told)
    return f"warning: {path}: do not trust this count: {texts}{hint}"


def describe_job(job: Job, *, timed: bool = True) -> str:
    """The tiles of an image, and the memory, disk and time that they take, in a line.

    Args:
      job: the job.
      timed: whether to estimate the time, by computing a small image; without it the memory is
        given as that of each worker.
    """
    plan, model = job.plan, job.model
    tiles = "in one piece"
    if not plan.whole:
        tiles = f"in {len(plan.tiles)} tiles of {size_text(plan.window_shape)} voxels"
    mirrored = f", each in {len(plan.flips)} mirror images" if len(plan.flips) > 1 else ""
    voxel_bytes = _BYTES_PER_FEATURE * model.config.model.features + 16 * model.channels
    memory = _PROCESS_BYTES + math.prod(plan.window_shape) * voxel_bytes
    disk = f", up to {_disk_bytes(job) / 1e9:.2g} GB on the disk while it runs"
    disk = "" if plan.whole else disk
    taken = f", {duration(_seconds(job))}" if timed else ""
    each = "" if timed else " for each worker"
    return f"{tiles}{mirrored}: about {memory / 1e9:.1f} GB of memory{each}{disk}{taken}"


def _disk_bytes(job: Job) -> float:
    """Size of the coarse levels and of the map, if no tile is skipped."""
    plan = job.plan
    features = tiled_maps.coarse_features(job.model.config)
    coarse = math.prod(plan.coarse_shape) * features * len(plan.flips)
    return 4.0 * (coarse + math.prod(plan.shape) * (1 + job.model.splits))


def _seconds(job: Job) -> float:
    """Time of all tiles, from that of a small image, which is computed twice to compile first."""
    plan, model = job.plan, job.model
    stride = np.asarray(plan.stride)
    edge = _PROBE_VOXELS ** (1 / len(stride))
    wanted = stride * np.maximum(1, np.rint(edge / stride).astype(int))
    shape = np.minimum(plan.padded_shape, wanted)
    values = np.zeros((*shape.tolist(), model.channels), np.float32)
    probe = model.with_settings({"predict.flips": False, "predict.max_voxels": int(np.prod(shape))})
    for _ in range(2):
        started = time.perf_counter()
        tiled_maps.compute(probe.config, probe.variables, values)
        taken = time.perf_counter() - started
    return taken / float(np.prod(shape)) * _voxels_of_work(plan)


def _voxels_of_work(plan: Plan) -> float:
    """The voxels of an image in one piece that are as much work for the network as all tiles.

    A convolution takes as long as its input channels times its output channels times its voxels.
    Channels double from level to level. Of the two of the encoder the first has half as many inputs
    as outputs, the second as many; of those of the decoder the first has twice as many.
    """
    if plan.whole:
        return math.prod(plan.padded_shape) * len(plan.flips)
    levels = range(len(plan.strides) + 1)
    steps = [math.prod(map(math.prod, plan.strides[:level])) for level in levels]
    encoder = [1.5 * 4**level / step for level, step in zip(levels, steps, strict=True)]
    decoder = [3 * 4**level / step for level, step in zip(levels, steps, strict=True)][:-1]
    window = math.prod(plan.window_shape)
    parts = [step * math.prod(part) for step, part in zip(steps, plan.part_shapes, strict=True)]
    # Once for the coarsest level alone, and once to decode, see tiled_maps.py.
    work = window * (sum(encoder) + sum(encoder[:-1]))
    work += sum(share * part for share, part in zip(decoder, parts[:-1], strict=True))
    return work / (sum(encoder) + sum(decoder)) * len(plan.tiles) * len(plan.flips)
