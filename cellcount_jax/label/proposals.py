"""Proposals: where cells may be, by Otsu's threshold or by a trained model, to be corrected.

Otsu's takes cells to be brighter than what is around them. Both take images of any size.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import (
    Readable,
    Region,
    Resampled,
    all_of,
    around,
    extent,
    lies_in,
    within,
)
from cellcount_jax.inference import cells, model_file, tasks, trained_model
from cellcount_jax.inference.tasks import Job, Progress, Task, silent
from cellcount_jax.inference.tiles import tile_grid
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.label import blobs as finding
from cellcount_jax.label.blobs import Blobs
from cellcount_jax.label.session import Session

_MOST = 2**24  # voxels that are read together
_HALO = 4  # radii around a tile in which components are seen

# The defaults, in radii, chosen on the training volumes; see `defaults`.
_SMOOTH = 0.3
_FACTOR = 1.2
_OPENING = 0.0
_SMALLEST = 0.1
_SPLIT = 0.4


def otsu(
    values: np.ndarray,
    *,
    edges: Sequence[float] | np.ndarray,
    smooth: float,
    factor: float,
    opening: float,
    smallest: float,
    background: float = 0.0,
    split: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Bright blobs by Otsu's threshold, as the paper's labelling tool proposes cells.

    Smoothing, Otsu's threshold, opening, connected components (voxels that share a face), and the
    centroid of each. With `split`, a component is cut by a watershed from its brightest places,
    as cells that touch are one component.

    Args:
      values: `(*spatial,)` intensities, cells bright.
      edges: `(D,)` of a voxel, in um or px: the unit of all lengths here.
      smooth: sigma of a Gaussian; 0 = none.
      factor: by which the threshold is multiplied: larger ones give fewer cells.
      opening: radius of the ball that must fit into a blob; below the finest edge it does nothing.
      smallest: blobs of a smaller volume (area), in unit^D, are left out.
      background: sigma of a wide Gaussian that is subtracted, where the background is uneven; some
        six radii of a cell. 0 = none.
      split: half-width of the box in which a cell's brightest place is the brightest. 0 = none.

    Returns:
      `(N, D)` float64 voxels, ordered by z, y, x, and `(N,)` scores: (peak - threshold) / peak, the
      peak the blob's largest value after smoothing. 0 at the threshold, 0.5 at twice the
      threshold, always below 1 but with a threshold of 0; gain does not change it.

    Raises:
      InputError: scikit-image is not installed; a parameter is negative or not finite.
    """
    blobs = Blobs(
        np.asarray(edges, np.float64), smooth, factor, opening, smallest, background, split
    )
    found = finding.filtered(values, blobs)
    limits = finding.threshold(finding.histogram(found), blobs)
    if limits is None:
        return np.zeros((0, found.ndim)), np.zeros(0)
    return finding.cells(found, blobs, above=limits[0], origin=limits[1])


def otsu_image(
    session: Session,
    *,
    smooth: float,
    factor: float,
    opening: float,
    smallest: float,
    background: float = 0.0,
    split: float = 0.0,
    progress: Progress | None = None,
    most_voxels: int = _MOST,
) -> tuple[np.ndarray, np.ndarray]:
    """`otsu` of a session's image, of any size, with one threshold for all of it.

    A large image is read twice, in tiles: for the threshold, from a histogram that does not
    depend on the tiles, and for the cells. A cell belongs to the one tile in which its centroid
    lies. Each tile sees four radii (`session.radius`) around it: where components do not reach
    further the result is the same as in one piece; one that does is cut there.

    Args:
      session: its `intensities` are searched, the mean of the channels.
      smooth: see `otsu`, as the next five.
      factor: of the threshold.
      opening: radius.
      smallest: volume.
      background: sigma.
      split: half-width.
      progress: shows how far it is, in voxels; what its `update` raises ends it.
      most_voxels: that are held at once, about.

    Raises:
      InputError: see `otsu`; the image cannot be read.
    """
    how = {"smooth": smooth, "factor": factor, "opening": opening, "smallest": smallest}
    blobs = Blobs(session.edges, background=background, split=split, **how)
    shape = session.grid.shape
    halo = np.ceil(_HALO * session.radius / session.edges).astype(int)
    reach = halo + blobs.margin + blobs.filter_reach
    core = _core(shape, reach, most_voxels)
    cores = [
        tile.core
        for tile in tile_grid(shape, core=core, halo=[0] * len(shape), block=[1] * len(shape))
    ]
    if len(cores) == 1:
        with (progress or silent)("proposing", math.prod(shape)) as bar:
            values = session.intensities(all_of(shape))
            found = otsu(values, edges=session.edges, background=background, split=split, **how)
            bar.update(math.prod(shape))
        return found
    none = np.zeros(len(shape), int)
    counts: np.ndarray | int = 0
    with (progress or silent)("measuring", math.prod(shape)) as bar:
        for region in cores:
            part, _ = _filtered(session, region, none, blobs)
            counts = counts + finding.histogram(part)
            bar.update(part.size)
    limits = finding.threshold(np.asarray(counts), blobs)
    points, scores = [np.zeros((0, len(shape)))], [np.zeros(0)]
    if limits is not None:
        with (progress or silent)("proposing", math.prod(shape)) as bar:
            for region in cores:
                values, inner = _filtered(session, region, halo, blobs)
                start = np.array([max(c.start - h, 0) for c, h in zip(region, halo, strict=True)])
                near, certain = finding.cells(
                    values, blobs, above=limits[0], origin=limits[1], region=inner, start=start
                )
                own = lies_in(near, region)
                points.append(near[own])
                scores.append(certain[own])
                bar.update(math.prod(extent(region)))
    placed = np.concatenate(points)
    order = np.lexsort(placed.T[::-1])
    return placed[order], np.concatenate(scores)[order]


def defaults(session: Session) -> dict[str, float]:
    """The parameters of `otsu_image` for cells of the session's radius.

    They follow from the radius alone and are the same for every image: cells are taken to be
    bright on dark. They were chosen on the training volumes of microglia and c-Fos.
    """
    radius = session.radius
    return {
        "smooth": _SMOOTH * radius,
        "factor": _FACTOR,
        "opening": _OPENING * radius,
        "smallest": _SMALLEST * radius ** len(session.grid.shape),
        "background": 0.0,
        "split": _SPLIT * radius,
    }


def fitting_model(session: Session, model: str) -> tuple[TrainedModel, Readable]:
    """A trained model, and a session's image as that model sees it.

    Where the voxel sizes of both are known and differ, the image is resampled to the model's.

    Args:
      session: its image, with all channels that were chosen.
      model: a run's folder, an exported file, or the name of a model that the package brings.

    Raises:
      InputError: no such model; it was trained on images of other dimensions or channels.
    """
    loaded = model_file.load_model(model)
    source = session.source
    try:
        trained_model.check_fits(loaded, len(source.shape), source.channels)
        spacing = source.spacing if loaded.spacing_known else None
        image = trained_model.resampled(loaded, source, spacing)
    except InputError as error:
        hint = ""
        if len(source.shape) == loaded.config.data.ndim and source.channels > loaded.channels:
            hint = "; open the image with one of its channels (--channel)"
        raise InputError(f"{source.path}: {error}{hint}.") from error
    return loaded, image


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
      progress: as for `otsu_image`, of a large image; in voxels and then in tiles.

    Returns:
      `(N, D)` float64 voxels inside the image, `(N,)` scores in 0..1, 1 where the model is as
      certain as of a dot in training, and what `Session.propose` is told.

    Raises:
      InputError: see `fitting_model`; a threshold that is not allowed.
    """
    loaded, image = fitting_model(session, model)
    source = session.source
    if threshold is not None and not tasks.FLOOR <= threshold < 1:
        raise InputError(f"threshold {threshold}: must be at least {tasks.FLOOR}, and less than 1.")
    peak = trained_model.target_peak(loaded)
    found = _found(loaded, image, None if threshold is None else threshold * peak, progress)
    points = np.asarray(found.points, np.float64)
    if isinstance(image, Resampled):
        points = np.asarray(image.back(found.points), np.float64)
    points = np.clip(points, -0.499, np.asarray(source.shape) - 0.501)
    by = {
        "method": "model",
        "model": str(model),
        "step": loaded.step,
        "threshold": round(float(found.threshold) / peak, 6),
        "rescaled": image is not source,
        "version": importlib.metadata.version("cellcount_jax"),
    }
    return points, np.clip(np.asarray(found.scores, np.float64) / peak, 0.0, 1.0), by


def _found(
    model: TrainedModel, image: Readable, threshold: float | None, progress: Progress | None
) -> cells.Found:
    job = Job(model, image, Path())
    if job.cut.whole:
        values = image.read(all_of(image.shape))
        return cells.in_one_piece(model, values, threshold=threshold)
    show = progress or silent
    with tempfile.TemporaryDirectory(prefix="cellcount_") as folder:
        job = dataclasses.replace(job, folder=Path(folder))

        def engine(todo: Sequence[Task], title: str) -> None:
            with show(title, len(todo)) as bar:
                for task in todo:
                    tasks.run(job, task)
                    bar.update(1)

        return cells.locate(job, threshold=threshold, engine=engine, progress=show)


def _filtered(
    session: Session, core: Region, halo: np.ndarray, blobs: Blobs
) -> tuple[np.ndarray, Region]:
    """Filtered values around a tile, as in the whole, and where in them the tile with its halo is.

    Without a halo they are of the tile alone.
    """
    shape = session.grid.shape
    region = around(core, halo.tolist(), shape)
    seen = around(region, blobs.margin.tolist(), shape) if halo.any() else region
    read = around(seen, blobs.filter_reach.tolist(), shape)
    values = finding.filtered(session.intensities(read), blobs)
    return values[within(seen, read)], within(region, seen)


def _core(shape: Sequence[int], reach: np.ndarray, most: int) -> list[int]:
    """The size of a tile: halved along the axis where it is the longest, until it is small."""
    core = list(shape)
    while True:
        sizes = zip(core, reach.tolist(), shape, strict=True)
        voxels = math.prod(n if c == n else min(c + 2 * r, n) for c, r, n in sizes)
        longer = [axis for axis, r in enumerate(reach) if core[axis] > max(r, 1)]
        if voxels <= most or not longer:
            return core
        axis = max(longer, key=lambda axis: core[axis] / max(int(reach[axis]), 1))
        core[axis] = -(-core[axis] // 2)
