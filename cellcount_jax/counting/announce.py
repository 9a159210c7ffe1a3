"""What a count will take: tiles, memory, disk and time, before it begins."""

from __future__ import annotations

import math
import time

import numpy as np

from cellcount_jax.images.regions import size_text
from cellcount_jax.images.sources import Source
from cellcount_jax.inference import tiled_maps, trained_model
from cellcount_jax.inference.tasks import Job
from cellcount_jax.inference.trained_model import TrainedModel

# Of a process that has started and compiled, and for each voxel of a tile and feature of the
# network's first level: measured with benchmarks/counting.py.
_BASE_BYTES = 0.7e9
_BYTES_PER_FEATURE = 20
_PROBE_VOXELS = 2**17


def describe_job(job: Job, *, timed: bool = True) -> str:
    """A line for people.

    Args:
      job: the job.
      timed: whether to say how long it takes, by computing a small image; or else that the memory
        is that of each worker.
    """
    cut, model = job.cut, job.model
    pieces = "in one piece"
    if not cut.whole:
        pieces = f"in {len(cut.tiles)} tiles of {' x '.join(map(str, cut.window))} voxels"
    mirrored = f", each in {len(cut.flips)} mirror images" if len(cut.flips) > 1 else ""
    a_voxel = _BYTES_PER_FEATURE * model.config.model.features + 16 * model.channels
    memory = _BASE_BYTES + math.prod(cut.window) * a_voxel
    disk = "" if cut.whole else f", up to {_disk(job) / 1e9:.2g} GB on the disk while it runs"
    took = f", {duration(_seconds(job))}" if timed else ""
    each = "" if timed else " for each worker"
    needs = f"about {memory / 1e9:.1f} GB of memory{each}{disk}{took}"
    return f"{pieces}{mirrored}: {needs}"


def _disk(job: Job) -> float:
    """Of what is in progress, if no tile is skipped."""
    cut = job.cut
    coarse = math.prod(cut.coarse) * tiled_maps.coarse_features(job.model.config) * len(cut.flips)
    return 4.0 * (coarse + math.prod(cut.shape) * (1 + trained_model.splits(job.model)))


def _seconds(job: Job) -> float:
    """Time by that of a small image, computed twice, as the first time compiles."""
    cut, model = job.cut, job.model
    config = model.config.copy_and_resolve_references()
    config.predict.flips = False
    stride = np.asarray(cut.stride)
    edge = _PROBE_VOXELS ** (1 / len(stride))
    shape = np.minimum(cut.padded, stride * np.maximum(1, np.rint(edge / stride).astype(int)))
    values = np.zeros((*shape.tolist(), model.channels), np.float32)
    config.predict.max_voxels = int(np.prod(shape))
    for _ in range(2):
        started = time.perf_counter()
        tiled_maps.compute(config, model.variables, values)
        taken = time.perf_counter() - started
    voxels = math.prod(cut.window) * len(cut.tiles) * len(cut.flips)
    # The encoder runs twice, see maps.py.
    return taken / float(np.prod(shape)) * voxels * (1 if cut.whole else 1.35)


def duration(seconds: float) -> str:
    """About how long, in words."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


# Voxel sizes that differ by less than this are one.
_ALIKE = 0.1


def describe_image(source: Source) -> str:
    """What was read, in a line."""
    voxels = "unknown voxel size"
    if source.spacing is not None:
        voxels = f"voxels of {size_text(source.spacing)} um ({source.spacing_source})"
    channels = f", {source.channels} channels" if source.channels > 1 else ""
    return (
        f"{source.path}: {source.kind}, {source.axes} of {size_text(source.stored_shape)}"
        f" {source.dtype}{channels}, {voxels}"
    )


def warning(model: TrainedModel, source: Source, *, rescale: bool) -> str | None:
    """Where cells may look larger or smaller to the model than those that it knows; or None."""
    if not model.spacing_known:
        return None
    known = size_text(model.spacing)
    if source.spacing is None:
        return (
            f"warning: {source.path}: the file does not tell the voxel size; it is taken to be that"
            f" of the training images, {known} um. If it is another, give it with --spacing, and"
            " --rescale"
        )
    ratios = [a / b for a, b in zip(source.spacing, model.spacing, strict=False)]
    if rescale or all(abs(r - 1) < _ALIKE for r in ratios):
        return None
    return (
        f"warning: {source.path}: voxels of {size_text(source.spacing)} um, but the model was"
        f" trained on {known} um; cells look larger or smaller to it than they are. --rescale"
        " resamples the image"
    )
