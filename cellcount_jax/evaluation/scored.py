"""The files of a pair as arrays in one frame, checked against each other, and their comparison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.data.blocks import DONE, read_block_states
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.comparison import (
    Comparison,
    cells_of_labels,
    compare,
    labels_tolerance,
)
from cellcount_jax.evaluation.pairing import Side
from cellcount_jax.images.exports import read_cellfinder
from cellcount_jax.images.image_files import read_instance_labels, read_mask
from cellcount_jax.images.ome_zarr import is_zarr
from cellcount_jax.images.points import read_points, table_ndim
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import Source, open_source

_MARGIN = 1.0  # voxels that a point may lie outside the image: a click on its border


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a found cell may be from its dot.

    Attributes:
      value: a positive number.
      unit: "um", "px", or None: um where the voxel size is known, else px.
    """

    value: float
    unit: str | None = None

    @classmethod
    def from_text(cls, text: str) -> Tolerance:
        """The tolerance of a text such as '12', '12um' or '4.5px'.

        Raises:
          InputError: it is none, or not positive.
        """
        number, unit = text.strip(), None
        for ending, name in (("um", "um"), ("µm", "um"), ("px", "px")):
            if number.endswith(ending):
                number, unit = number.removesuffix(ending), name
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise InputError(
                f"--tolerance {text}: a positive number is needed, with um or px after it or"
                " without: 12, 12um, 5px."
            )
        return cls(value, unit)


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A pair that was compared.

    Attributes:
      name: of the image.
      found: its files.
      true: its files.
      comparison: the matching.
      shape: `(D,)` voxels of the image, where it is known.
      spacing: `(D,)` voxel edges in micrometres, where they are known.
      image: file, where there is one; `selection` is the part of it.
      selection: see `image`.
      valid: `(*shape,)` bool, the scored region; None = all.
    """

    name: str
    found: Side
    true: Side
    comparison: Comparison
    shape: tuple[int, ...] | None
    spacing: tuple[float, ...] | None
    image: Path | None
    selection: Selection
    valid: np.ndarray | None


def score_pair(
    found: Side,
    true: Side,
    *,
    tolerance: Tolerance | None = None,
    selection: Selection | None = None,
    image: Path | None = None,
) -> Scored:
    """Reads the two sides of an image and compares them.

    The voxel size is that of `selection`, else of the count, the image, the labels or the
    labelling tool.

    Args:
      found: files.
      true: files; its name is that of the result.
      tolerance: None = from the instance labels of the true cells, see `labels_tolerance`.
      selection: the part of the image, and its voxel size; None = as it was counted or labelled.
      image: its file; None = the one that was counted, or that lies beside the points.

    Returns:
      The comparison.

    Raises:
      InputError: a file that cannot be used; sizes that differ; points outside the image; no
        tolerance; see `compare`.
    """
    selection = _selection(found, true, selection or Selection())
    remarks = []
    shapes: list[tuple[Path, tuple[int, ...]]] = []
    spacings: list[tuple[float, ...] | None] = [selection.spacing]
    path = image or _counted_image(found, true) or true.image or found.image
    if path is not None:
        try:
            with open_image(path, selection) as source:
                shapes.append((path, source.shape))
                spacings.append(source.spacing)
        except (InputError, OSError) as error:
            if image is not None:
                raise
            remarks.append(f"there is no picture, since the image cannot be read ({error})")
            path = None
    for side in (found, true):
        if side.summary is not None:
            shapes.append((side.path.parent / "summary.json", tuple(side.summary["shape"])))
            edges = side.summary["spacing_um"]
            spacings.append(None if edges is None else tuple(map(float, edges)))
            if side.summary.get("mask"):
                remarks.append(
                    f"counted was only where {side.summary['mask']} is not 0; dots elsewhere are"
                    " missed ones"
                )
    labels = None
    for side in (found, true):
        if side.labels is not None:
            with open_source(side.labels) as source:
                spacings.append(source.spacing)
    if true.labels is not None:
        labels = read_instance_labels(true.labels)
        shapes.append((true.labels, labels.shape))
    valid = None
    for file, region, edges in _valid_regions(found, true):
        shapes.append((file, region.shape))
        spacings.append(edges)
        _check_shapes(shapes)
        valid = region if valid is None else valid & region
    _check_shapes(shapes)
    shape = shapes[0][1] if shapes else None
    ndim = _ndim(found, true, shape, selection)
    spacing = next((edges for edges in spacings if edges and len(edges) == ndim), None)
    if selection.spacing is not None and (spacing != selection.spacing or min(spacing) <= 0):
        raise InputError(f"--spacing {selection.spacing}: {ndim} positive voxel edges are needed.")
    ours, theirs = _cells(found, None, ndim), _cells(true, labels, ndim)
    if labels is not None and true.points is not None:
        cells = len(cells_of_labels(labels, true.labels))
        if cells != len(theirs):
            remarks.append(f"{true.labels} has {cells} cells, {true.points} {len(theirs)} dots")
    if shape is not None:
        for side, points in ((found, ours), (true, theirs)):
            _check_inside(points, shape, spacing, side.path)
    value, unit = _tolerance(tolerance, labels, theirs, spacing, true)
    try:
        comparison = compare(
            ours, theirs, tolerance=value, unit=unit, spacing=spacing, labels=labels, valid=valid
        )
    except InputError as error:
        raise InputError(f"{found.path} and {true.path}: {error}") from error
    comparison = dataclasses.replace(comparison, remarks=(*remarks, *comparison.remarks))
    return Scored(true.name, found, true, comparison, shape, spacing, path, selection, valid)


def open_image(path: Path, selection: Selection) -> Source:
    """Opens an image; a folder that is no Zarr is one of slices, as `cellcount count` takes it."""
    return open_source(path, selection, as_slices=path.is_dir() and not is_zarr(path))


def _selection(found: Side, true: Side, given: Selection) -> Selection:
    """The part of the image that was counted and labelled, where no other is given."""
    known: dict[str, Any] = {}
    for side in (true, found):
        told: dict[str, Any] = {}
        if side.blocks is not None:
            told |= read_block_states(side.blocks).about
        if side.summary is not None:
            told |= {**side.summary, "spacing": side.summary["spacing_um"]}
        for name in ("time", "level"):
            if (known.get(name) or 0) != (told.get(name, known.get(name)) or 0):
                raise InputError(
                    f"{side.path}: is of {name} {told[name]}, {true.path} of {known[name]}; points"
                    " and dots of one time point and level are needed."
                )
        known |= {name: value for name, value in told.items() if value is not None}
    part = {name: getattr(given, name) for name in ("channel", "time", "level", "spacing")}
    for name, value in part.items():
        if value is None or (name, value) == ("level", 0):
            part[name] = known.get(name, value)
    if part["spacing"] is not None:
        part["spacing"] = tuple(map(float, part["spacing"]))
    return Selection(**part)


def _counted_image(found: Side, true: Side) -> Path | None:
    """The image that was counted, if it is still there."""
    paths = [Path(side.summary["input"]) for side in (found, true) if side.summary is not None]
    return next((path for path in paths if path.exists()), None)


def _valid_regions(
    *sides: Side,
) -> Iterator[tuple[Path, np.ndarray, tuple[float, ...] | None]]:
    """The files that say where cells are complete, the region, and the voxel size they tell."""
    for side in sides:
        if side.valid is not None:
            yield side.valid, read_mask(side.valid), None
        if side.blocks is not None:
            blocks = read_block_states(side.blocks)
            if not (blocks.states == DONE).any():
                raise InputError(
                    f"{side.blocks}: none of its blocks is done, so that no dots are known to be"
                    " complete; mark blocks done where all cells have dots (cellcount label)."
                )
            edges = blocks.about.get("spacing")
            if not (blocks.states == DONE).all():
                yield side.blocks, blocks.valid, edges and tuple(map(float, edges))


def _check_shapes(shapes: Sequence[tuple[Path, tuple[int, ...]]]) -> None:
    for path, shape in shapes[1:]:
        if shape != shapes[0][1]:
            raise InputError(
                f"{path}: is of {size_text(shape)} voxels, {shapes[0][0]} of"
                f" {size_text(shapes[0][1])}; files of one image at one resolution are needed."
            )


def _ndim(found: Side, true: Side, shape: tuple[int, ...] | None, selection: Selection) -> int:
    if shape is not None or selection.spacing is not None:
        return len(shape or selection.spacing or ())
    tables = [side.points for side in (found, true) if side.points is not None]
    tables = [path for path in tables if path.suffix.lower() == ".csv"]
    return max((table_ndim(path) for path in tables), default=3)


def _cells(side: Side, labels: np.ndarray | None, ndim: int) -> np.ndarray:
    """`(N, ndim)` cells of a side, in voxels."""
    path = side.path
    if side.points is None:
        labels = read_instance_labels(path) if labels is None else labels
        if labels.ndim != ndim:
            raise InputError(f"{path}: has {labels.ndim} dimensions, {ndim} are needed.")
        return cells_of_labels(labels, path)
    if path.suffix.lower() != ".xml":
        return read_points(path, ndim=ndim)
    cells = read_cellfinder(path, ndim=3)
    if ndim == 2 and len(np.unique(cells[:, 0])) > 1:
        raise InputError(f"{path}: has markers in several planes, but the image is 2D.")
    return cells[:, 3 - ndim :]


def _check_inside(
    points: np.ndarray, shape: tuple[int, ...], spacing: Sequence[float] | None, path: Path
) -> None:
    size = np.asarray(shape)

    def outside(places: np.ndarray) -> np.ndarray:
        far = (places < -0.5 - _MARGIN) | (places > size - 0.5 + _MARGIN)
        return np.asarray(far.any(axis=1))

    wrong = outside(points)
    if not wrong.any():
        return
    first = ", ".join(f"{value:g}" for value in points[wrong][0])
    hint = "if these are micrometres, divide them by the voxel size"
    if spacing is not None:
        hint += f" ({size_text(tuple(map(float, spacing)))})"
        if not outside(points / np.asarray(spacing)).any():
            hint += ", with which all lie inside"
    raise InputError(
        f"{path}: {int(wrong.sum())} of {len(points)} points lie outside the image of"
        f" {size_text(shape)} voxels, the first at ({','.join('zyx'[-len(shape) :])}) = ({first});"
        f" points are in voxels, counted from 0; {hint}."
    )


def _tolerance(
    given: Tolerance | None,
    labels: np.ndarray | None,
    dots: np.ndarray,
    spacing: tuple[float, ...] | None,
    true: Side,
) -> tuple[float, str]:
    known = "px" if spacing is None else "um"
    if given is None and labels is not None:
        return labels_tolerance(labels, spacing), known
    if given is None:
        raise InputError(
            f"--tolerance: is needed, as {true.path} has no instance labels that tell the size of"
            f" the cells: how far a found cell may be from its dot, about a cell's radius, in"
            f" {'um' if spacing is not None else 'pixels (the voxel size is not known)'}."
        )
    if given.unit == "um" and spacing is None:
        raise InputError(
            f"--tolerance {given.value:g}um: the voxel size of {true.name} is not known; give it"
            " with --spacing, or the image with --image, or a tolerance in px."
        )
    return given.value, given.unit or known


def tolerance_text(scored: Sequence[Scored], given: Tolerance | None) -> str:
    """The tolerance of a set of images in words.

    Raises:
      InputError: one number stands for micrometres in some of them and for pixels in others.
    """
    units = {one.comparison.unit: one for one in scored}
    if given is not None:
        if len(units) > 1:
            raise InputError(
                f"--tolerance {given.value:g}: would be micrometres for {units['um'].name} and"
                f" pixels for {units['px'].name}, of which no voxel size is known; give --spacing,"
                " or the unit, as in 5px."
            )
        unit = next(iter(units))
        unknown = given.unit is None and unit == "px"
        return f"{given.value:g} {unit}" + (" (the voxel size is not known)" if unknown else "")
    spans = []
    for unit in units:
        values = [o.comparison.tolerance for o in scored if o.comparison.unit == unit]
        low, high = (f"{value:.3g}" for value in (min(values), max(values)))
        spans.append(f"{low} {unit}" if low == high else f"{low} to {high} {unit}")
    return f"half the median diameter of an image's labels, at least 4 px: {' or '.join(spans)}"
