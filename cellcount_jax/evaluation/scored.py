"""The files of a pair as arrays in one frame, checked against each other, and their comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.data.entries import unsaved_warning
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.comparison import Comparison, compare
from cellcount_jax.evaluation.frame import Frame, counted_image, selection_of, valid_regions
from cellcount_jax.evaluation.pairing import Side
from cellcount_jax.evaluation.tolerance import Tolerance, tolerance_of
from cellcount_jax.images.dot_files import is_foreign, read_foreign
from cellcount_jax.images.image_files import read_instance_labels
from cellcount_jax.images.imagej_stack import Stack
from cellcount_jax.images.labelled_cells import cells_of_labels
from cellcount_jax.images.point_units import DotUnit, check_spread
from cellcount_jax.images.points import read_points, read_table, table_ndim
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.selection import Selection

_MARGIN = 1.0  # voxels that a point may lie outside the image: a click on its border


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A pair that was compared.

    Attributes:
      name: of the image.
      found: its files.
      true: its files.
      comparison: the matching.
      spacing: `(D,)` voxel edges in micrometres, where they are known.
      image: file, where there is one; `selection` is the part of it.
      selection: see `image`.
      valid: `(*spatial,)` bool, the scored region; None = all.
    """

    name: str
    found: Side
    true: Side
    comparison: Comparison
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
    points_unit: str | None = None,
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
      points_unit: of CSV files that this package did not write, see `DotUnit`.

    Returns:
      The comparison.

    Raises:
      InputError: a file that cannot be used; sizes that differ; points outside the image; no
        tolerance; see `compare`.
    """
    selection = selection_of(found, true, selection or Selection())
    frame = Frame()
    path = image or counted_image(found, true) or true.image or found.image
    if path is not None and not frame.add_image(path, selection, needed=image is not None):
        path = None
    for side in (found, true):
        frame.add_side(side)
    labels = None if true.labels is None else read_instance_labels(true.labels)
    valid = None
    for file, region in valid_regions(found, true):
        frame.add(file, region.shape)
        valid = region if valid is None else valid & region
    shape = frame.shape
    ndim = _ndim(found, true, shape, selection)
    spacing = next((e for e in (selection.spacing, *frame.spacings) if e and len(e) == ndim), None)
    if selection.spacing is not None and (spacing != selection.spacing or min(spacing) <= 0):
        raise InputError(f"--spacing {selection.spacing}: {ndim} positive voxel edges are needed.")
    others = {e for e in frame.spacings if e and spacing and not np.allclose(e, spacing, rtol=0.02)}
    if others and spacing is not None:
        frame.remarks.append(
            f"voxels are taken to be of {size_text(spacing)} um, but other files of the image say"
            f" {' or '.join(map(size_text, sorted(others)))}"
        )
    known = DotUnit(points_unit, spacing)
    cells = [
        _cells(found, None, ndim, known, frame.stack),
        _cells(true, labels, ndim, known, frame.stack),
    ]
    for side, points in zip((found, true), cells, strict=True):
        if shape is not None:
            _check_inside(points, shape, spacing, side.path)
            if _is_table(side) and (of := _unit(side, known)).unit is None and of.everywhere:
                check_spread(points, shape, side.path, spacing=spacing, valid=valid)
    frame.remarks += _proposals(true, ndim, known)
    if labels is not None and true.points is not None:
        number = len(cells_of_labels(labels, true.labels))
        if number != len(cells[1]):
            frame.remarks.append(
                f"{true.labels} has {number} cells, {true.points} {len(cells[1])} dots"
            )
    value, unit = tolerance_of(tolerance, labels, spacing, true)
    try:
        comparison = compare(
            *cells, tolerance=value, unit=unit, spacing=spacing, labels=labels, valid=valid
        )
    except InputError as error:
        raise InputError(f"{found.path} and {true.path}: {error}") from error
    remarks = (*frame.remarks, *comparison.remarks)
    comparison = dataclasses.replace(comparison, remarks=remarks)
    return Scored(true.name, found, true, comparison, spacing, path, selection, valid)


def _ndim(found: Side, true: Side, shape: tuple[int, ...] | None, selection: Selection) -> int:
    if shape is not None or selection.spacing is not None:
        return len(shape or selection.spacing or ())
    tables = [side.points for side in (found, true) if side.points is not None]
    known = [table_ndim(path) for path in tables if not is_foreign(path)]
    # Markers have a plane in any case; other files need their image to tell.
    markers = not tables or any(path.suffix.lower() == ".xml" for path in tables)
    return max(known, default=3 if markers else 2)


def _is_table(side: Side) -> bool:
    return side.points is not None and not is_foreign(side.points)


def _unit(side: Side, known: DotUnit) -> DotUnit:
    """What is known of the unit of a side's table: those of counts and labels are in voxels."""
    ours = side.summary is not None or side.blocks is not None
    return known.of_ours() if ours else known


def _cells(
    side: Side, labels: np.ndarray | None, ndim: int, known: DotUnit, stack: Stack | None
) -> np.ndarray:
    """`(N, ndim)` cells of a side, in voxels."""
    path = side.path
    if side.points is None:
        labels = read_instance_labels(path) if labels is None else labels
        if labels.ndim != ndim:
            raise InputError(f"{path}: has {labels.ndim} dimensions, {ndim} are needed.")
        return cells_of_labels(labels, path)
    if _is_table(side):
        return read_points(path, ndim=ndim, unit=_unit(side, known).unit, spacing=known.spacing)
    return read_foreign(path, ndim=ndim, stack=stack)


def _proposals(side: Side, ndim: int, known: DotUnit) -> list[str]:
    """A word on dots of the labelling tool that are a program's, or are not saved."""
    if side.points is None or not _is_table(side):
        return []
    warning = unsaved_warning(side.points, side.points.stem)
    if warning or side.blocks is not None:  # in blocks that are done all are verified
        return [warning.rstrip(".")] if warning else []
    unit = _unit(side, known).unit
    _, texts = read_table(
        side.points, ndim=ndim, others=("verified",), unit=unit, spacing=known.spacing
    )
    number = texts.get("verified", []).count("0")
    return [f"{number} of the dots are proposals that nobody has verified"] if number else []


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
            hint += ", with which all lie inside: give --points-unit um"
    raise InputError(
        f"{path}: {int(wrong.sum())} of {len(points)} points lie outside the image of"
        f" {size_text(shape)} voxels, the first at ({','.join('zyx'[-len(shape) :])}) = ({first});"
        f" points are in voxels, counted from 0; {hint}."
    )
