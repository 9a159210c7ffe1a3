"""Lines that a count prints: the image, its tiles, memory and time, and its doubts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cellcount_jax.counting import estimate
from cellcount_jax.images.regions import extent, size_text
from cellcount_jax.images.remote_state import shows_changes
from cellcount_jax.images.sources import Source
from cellcount_jax.images.zarr_stores import Remote
from cellcount_jax.inference import tasks
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.doubts import Doubt
from cellcount_jax.inference.job import Job
from cellcount_jax.machine import memory_bytes
from cellcount_jax.progress import duration

# Memory of a process that has started and compiled, and per voxel that is computed at a time and
# feature of the network's first level; of planes that pass some are kept. Measured with
# benchmarks/counting.py.
_PROCESS_BYTES = 0.7e9
_BYTES_PER_FEATURE, _BYTES_PER_FEATURE_PASSING = 12, 26


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


def describe_job(job: Job, *, here: bool) -> str:
    """The tiles of an image, and the memory and disk that they take, in a line.

    Args:
      job: the job.
      here: whether this process computes them, or workers do.
    """
    plan = job.plan
    tiles = "in one piece"
    if not plan.whole:
        tiles = f"in {len(plan.cores)} tiles, {size_text(plan.window_shape)} voxels at a time"
    mirrored = f", each in {len(plan.flips)} mirror images" if len(plan.flips) > 1 else ""
    disk = f", up to {_disk_bytes(job) / 1e9:.2g} GB on the disk while it runs"
    disk = "" if plan.whole else disk
    each = "" if here else " for each worker"
    return f"{tiles}{mirrored}: about {_memory_bytes(job) / 1e9:.1f} GB of memory{each}{disk}"


def describe_time(job: Job) -> str:
    """How long the count of an image takes here, in a line; it computes a part, see `estimate.py`.

    Args:
      job: the job.

    Raises:
      InputError: the image cannot be read.
    """
    if _memory_bytes(job) > memory_bytes():
        return "more memory than there is: smaller tiles, with --max-voxels, need less"
    unless = ""
    if not job.plan.whole and tasks.least_brightness(job.model) > -math.inf:
        unless = ", less where tiles are too dark for a cell"
    return f"{duration(estimate.seconds(job))}{unless}"


def describe_dark(path: Path, found: Found) -> str | None:
    """That tiles are missing in a count with a low threshold, in a line; None if none are.

    Args:
      path: of the image.
      found: its cells, by a threshold below the model's own.
    """
    if not found.dark:
        return None
    return (
        f"warning: {path}: {found.dark} of {found.tiles} tiles were left out as too dark for the"
        " cells of the model's own threshold, which is higher; --every-tile computes them too"
    )


def _memory_bytes(job: Job) -> float:
    model = job.model
    each = _BYTES_PER_FEATURE if job.plan.lags is None else _BYTES_PER_FEATURE_PASSING
    voxel_bytes = each * model.config.model.features + 16 * model.channels
    kept = 0
    if len(job.plan.flips) > 1 and not job.plan.whole:  # the maps of a run, until all are added
        runs = map(job.plan.joined, job.plan.runs(range(len(job.plan.cores))))
        voxels = max(math.prod(extent(run)) for run in runs)
        kept = 4 * voxels * (1 + model.config.target.count_head)
    return _PROCESS_BYTES + math.prod(job.plan.window_shape) * voxel_bytes + kept


def _disk_bytes(job: Job) -> float:
    """Size of the map, if no tile is skipped."""
    return 4.0 * math.prod(job.plan.shape) * (1 + tasks.keeps_density(job))
