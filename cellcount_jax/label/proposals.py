"""Proposals, dots to be corrected: by Otsu's threshold or by a trained model, for any image size.

Otsu's threshold needs cells that are brighter than their surroundings.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellcount_jax.data.blocks import ASSUMED, ASSUMED_EDGES, GIVEN
from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import (
    Region,
    all_of,
    around,
    extent,
    lies_in,
    within,
)
from cellcount_jax.inference import model_file
from cellcount_jax.inference.fitted import Fitted
from cellcount_jax.inference.job import Progress, silent
from cellcount_jax.inference.threshold import checked_threshold
from cellcount_jax.inference.tiles import grid
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.label import blobs
from cellcount_jax.label.blobs import BlobSettings
from cellcount_jax.label.session import Session

_MAX_VOXELS = 2**24  # read together
_MAX_PREVIEW_VOXELS = 2**22
_HALO_RADII = 4  # around a tile

# The defaults, lengths in radii, chosen on the training volumes; see `defaults`.
_SMOOTH = 0.3
_FACTOR = 1.2
_OPENING = 0.0
_SMALLEST = 0.1
_SPLIT = 0.4


def otsu_image(
    session: Session,
    settings: BlobSettings,
    *,
    progress: Progress | None = None,
    max_voxels: int = _MAX_VOXELS,
) -> tuple[np.ndarray, np.ndarray]:
    """`blobs.otsu` of a session's image, of any size, with one threshold for all of it.

    A large image is read twice, in tiles: for the threshold, from a histogram that does not
    depend on the tiles, and for the cells. A cell belongs to the one tile in which its centroid
    lies. Each tile has a halo of four radii (`session.radius`): where components do not reach
    further the result is the same as in one piece; one that does is cut there.

    Args:
      session: its `intensities` are searched, the mean of the channels.
      settings: the parameters.
      progress: shows the progress, in voxels; an exception of its `update` ends the search.
      max_voxels: held at once, about.

    Raises:
      InputError: the image cannot be read.
    """
    shape = session.grid.shape
    halo = np.ceil(_HALO_RADII * session.radius / session.edges).astype(int)
    reach = halo + settings.margin + settings.filter_reach
    core = _core(shape, reach, max_voxels)
    sides = zip(shape, core, strict=True)
    cores = list(itertools.product(*(grid(size, edge, edge) for size, edge in sides)))
    if len(cores) == 1:
        with (progress or silent)("proposing", math.prod(shape)) as bar:
            found = blobs.otsu(session.intensities(all_of(shape)), settings)
            bar.update(math.prod(shape))
        return found
    none = np.zeros(len(shape), int)
    counts: np.ndarray | int = 0
    with (progress or silent)("measuring", math.prod(shape)) as bar:
        for region in cores:
            part, _ = _filtered(session, region, none, settings)
            counts = counts + blobs.histogram(part)
            bar.update(part.size)
    limits = blobs.threshold(np.asarray(counts), settings)
    points, scores = [np.zeros((0, len(shape)))], [np.zeros(0)]
    if limits is not None:
        with (progress or silent)("proposing", math.prod(shape)) as bar:
            for region in cores:
                values, inner = _filtered(session, region, halo, settings)
                start = np.array([max(c.start - h, 0) for c, h in zip(region, halo, strict=True)])
                near, certain = blobs.cells(
                    values, settings, above=limits[0], origin=limits[1], region=inner, start=start
                )
                own = lies_in(near, region)
                points.append(near[own])
                scores.append(certain[own])
                bar.update(math.prod(extent(region)))
    placed = np.concatenate(points)
    order = np.lexsort(placed.T[::-1])
    return placed[order], np.concatenate(scores)[order]


def defaults(session: Session) -> dict[str, float]:
    """The parameters of `BlobSettings` for cells of the session's radius.

    They follow from the radius alone, for bright cells on a dark background, and were chosen on the
    training volumes of microglia and c-Fos. Below a radius of 5 finest edges they are those of that
    one: noise does not become smaller with the cells.
    """
    radius = max(session.radius, ASSUMED_EDGES * float(session.edges.min()))
    return {
        "smooth": _SMOOTH * radius,
        "factor": _FACTOR,
        "opening": _OPENING * radius,
        "smallest": _SMALLEST * radius ** len(session.grid.shape),
        "background": 0.0,
        "split": _SPLIT * radius,
    }


def fitting_model(session: Session, model: str) -> tuple[TrainedModel, Fitted]:
    """A trained model, and a session's image as that model sees it.

    It is resampled by the size of the session's cells, where the model says how large its own are
    and either measures them itself or the user has given the size; else, where the voxel sizes of
    both are known and differ, to the model's voxels.

    Args:
      session: its image, with all channels that were chosen.
      model: a run's folder, an exported file, or the name of a model that the package brings.

    Raises:
      InputError: no such model; it was trained on images of other dimensions or channels.
    """
    loaded = model_file.load_model(model)
    source = session.source
    try:
        spacing = source.spacing if loaded.spacing_known else None
        fitted = loaded.fitted(source, spacing=spacing, diameter=_diameter(session, loaded))
    except InputError as error:
        hint = ""
        if len(source.shape) == loaded.config.data.ndim and source.channels > loaded.channels:
            hint = "; open the image with one of its channels (--channel)"
        raise InputError(f"{source.path}: {error}{hint}.") from error
    return loaded, fitted


def from_model(
    session: Session,
    model: str,
    *,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Cells that a trained model finds in a session's image, of any size.

    Args:
      session: see `fitting_model`.
      model: likewise.
      threshold: of the scores, as `cellcount count --threshold`; default the model's own.
      progress: as for `otsu_image`, for a large image; in voxels and then in tiles.

    Returns:
      `(N, D)` float64 voxels inside the image, `(N,)` scores in 0..1, 1 where the model is as
      certain as of a dot in training, and how they were made, for `Session.propose`.

    Raises:
      InputError: see `fitting_model`; a threshold that is not allowed.
    """
    loaded, fitted = fitting_model(session, model)
    source = session.source
    if threshold is not None:
        checked_threshold(threshold)
    peak = loaded.target_peak
    found = loaded.find(
        fitted.image, threshold=loaded.threshold_from(threshold), progress=progress or silent
    )
    points = np.asarray(fitted.back(found.points), np.float64)
    points = np.clip(points, -0.499, np.asarray(source.shape) - 0.501)
    by = {
        "method": "model",
        "model": str(model),
        "step": loaded.step,
        "threshold": round(float(found.threshold) / peak, 6),
        "rescaled": fitted.image is not source,
        "diameter": fitted.diameter,
        "version": importlib.metadata.version("cellcount_jax"),
    }
    return points, np.clip(np.asarray(found.scores, np.float64) / peak, 0.0, 1.0), by


def limited(region: Region, place: np.ndarray) -> Region:
    """The part of a large region around a place `(D,)` that is quick to preview."""
    voxels = float(np.prod([part.stop - part.start for part in region]))
    share = min(1.0, (_MAX_PREVIEW_VOXELS / voxels) ** (1 / len(region)))
    parts = []
    for part, at in zip(region, place, strict=True):
        size = max(1, int((part.stop - part.start) * share))
        start = min(max(int(at) - size // 2, part.start), part.stop - size)
        parts.append(slice(start, start + size))
    return tuple(parts)


def _diameter(session: Session, model: TrainedModel) -> float | None:
    """The diameter of the session's cells in pixels, for a model that takes it; else None."""
    origin = session.history.content.radius_from
    if model.config.data.ndim != 2 or not model.config.data.diameter or origin == ASSUMED:
        return None
    # What is measured is a guess, for models that would guess themselves.
    if origin != GIVEN and not model.config.predict.estimate_diameter:
        return None
    return float(2 * session.radius / session.edges[-1])


def _filtered(
    session: Session, core: Region, halo: np.ndarray, settings: BlobSettings
) -> tuple[np.ndarray, Region]:
    """Filtered values of a tile and what its halo needs, and the region of tile and halo in them.

    Without a halo they are those of the tile.
    """
    shape = session.grid.shape
    region = around(core, halo.tolist(), shape)
    seen = around(region, settings.margin.tolist(), shape) if halo.any() else region
    read = around(seen, settings.filter_reach.tolist(), shape)
    values = blobs.filtered(session.intensities(read), settings)
    return values[within(seen, read)], within(region, seen)


def _core(shape: Sequence[int], reach: np.ndarray, max_voxels: int) -> list[int]:
    """The size of a tile: halved along its longest axis (in `reach`) until it is small enough."""
    core = list(shape)
    while True:
        sizes = zip(core, reach.tolist(), shape, strict=True)
        voxels = math.prod(n if c == n else min(c + 2 * r, n) for c, r, n in sizes)
        longer = [axis for axis, r in enumerate(reach) if core[axis] > max(r, 1)]
        if voxels <= max_voxels or not longer:
            return core
        axis = max(longer, key=lambda axis: core[axis] / max(int(reach[axis]), 1))
        core[axis] = -(-core[axis] // 2)
