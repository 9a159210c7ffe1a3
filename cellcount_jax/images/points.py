"""Dots as CSV files, and the check that they lie in their image."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from cellcount_jax.errors import InputError
from cellcount_jax.images import point_units
from cellcount_jax.images.files import existing_file, write_table
from cellcount_jax.images.point_units import MICROMETRES
from cellcount_jax.images.regions import size_text

_AXES = {2: ("y", "x"), 3: ("z", "y", "x")}
_LARGEST = float(np.finfo(np.float32).max)


def read_points(
    path: str | os.PathLike[str],
    *,
    ndim: int,
    unit: str | None = None,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Reads the dots of one image from a CSV file.

    The header names the columns, in any order and case: `y,x` or `z,y,x`, or napari's
    `axis-0,axis-1` or `axis-0,axis-1,axis-2`. Other columns are ignored. A header without
    rows is an image without cells.

    Args:
      path: a comma-separated file in UTF-8.
      ndim: spatial dimensions of the image, 2 or 3.
      unit: "um" for dots in micrometres, of the columns `y_um,x_um` or the like where there are
        such; "px" for voxels; None = voxels, unless the header says that they may be micrometres.
      spacing: `(ndim,)` voxel edges in micrometres, needed for "um".

    Returns:
      `(N, ndim)` float32 dots in index order and voxels, in the file's order.

    Raises:
      InputError: no such file, empty, a column missing (or a third one for a 2D image), a row
        of another length than the header, a value that is no finite number, or another unit.
    """
    points, _ = read_table(path, ndim=ndim, unit=unit, spacing=spacing)
    return points.astype(np.float32)


def read_table(
    path: str | os.PathLike[str],
    *,
    ndim: int,
    others: Sequence[str] = (),
    unit: str | None = None,
    spacing: Sequence[float] | None = None,
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Reads dots, and further columns as text.

    Args:
      path: see `read_points`.
      ndim: see `read_points`.
      others: names of columns, in lower case.
      unit: see `read_points`.
      spacing: see `read_points`.

    Returns:
      `(N, ndim)` float64 dots, and by name the N texts of each of the columns that are there.

    Raises:
      InputError: see `read_points`.
    """
    path = existing_file(path)
    points = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
            _, header = next(rows, (0, None))
            if header is None:
                raise InputError(f"{path}: the file is empty; a header {_wanted(ndim)} is needed.")
            columns = _columns(header, ndim, unit, path)
            names = [cell.strip().casefold() for cell in header]
            texts: dict[str, list[str]] = {name: [] for name in others if name in names}
            places = [(texts[name], names.index(name)) for name in texts]
            for line, row in rows:
                points.append(_numbers(row, header, columns, line, path))
                for kept, at in places:
                    kept.append(row[at].strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV text file in UTF-8 ({error}).") from error
    found = np.asarray(points, dtype=np.float64).reshape(-1, ndim)
    if unit == MICROMETRES:
        found = point_units.in_voxels(found, spacing, path)
    return found, texts


def table_ndim(path: str | os.PathLike[str]) -> int:
    """How many spatial dimensions the dots of a CSV file have, by its header.

    Args:
      path: see `read_points`.

    Returns:
      3 where there is a column z or axis-2, also in micrometres where all are, else 2.

    Raises:
      InputError: no such file, empty, or no text in UTF-8.
    """
    path = existing_file(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header: list[str] = next((row for row in csv.reader(file) if any(row)), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV text file in UTF-8 ({error}).") from error
    names = {cell.strip().casefold() for cell in header}
    if not names & {"y", "axis-0"}:
        names = set(point_units.columns_in(header, MICROMETRES, path))
    return 3 if {"z", "axis-2"} & names else 2


def write_points(
    path: str | os.PathLike[str], points: np.ndarray, *, scores: np.ndarray | None = None
) -> None:
    """Writes dots as `read_points` reads them, all or nothing.

    Args:
      path: the CSV file; its folder is created where missing.
      points: `(N, D)` finite dots in index order and voxels, D 2 or 3; kept to 0.001 voxel.
      scores: `(N,)` finite scores, a further column `score`; six significant digits.

    Raises:
      InputError: the arrays have other shapes, or hold NaN or infinite values.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] not in _AXES:
        raise InputError(f"{path}: points of shape {points.shape}; (N, 2) or (N, 3) is needed.")
    if not np.isfinite(points).all():
        raise InputError(f"{path}: some of the points to write are NaN or infinite.")
    # Adding 0 turns -0.0 into 0.0.
    rows = [[f"{value:.3f}" for value in point] for point in np.round(points, 3) + 0.0]
    header = list(_AXES[points.shape[1]])
    if scores is not None:
        scores = np.asarray(scores)
        if scores.shape != points.shape[:1] or not np.isfinite(scores).all():
            raise InputError(
                f"{path}: scores of shape {scores.shape} for {len(points)} points;"
                " one finite score a point is needed."
            )
        header.append("score")
        rows = [[*row, f"{score:.6g}"] for row, score in zip(rows, scores, strict=True)]
    write_table(path, header, rows, line_end="\n")


def check_points_inside(
    points: np.ndarray,
    shape: Sequence[int],
    path: str | os.PathLike[str],
    *,
    spacing: Sequence[float] | None = None,
) -> None:
    """Makes sure that every dot lies within a voxel of the image.

    Args:
      points: `(N, D)` in voxels, voxel centres at integers.
      shape: `(D,)` spatial shape of the image.
      path: the file of the points, for the message.
      spacing: `(D,)` voxel edges in micrometres, for the remedy; None = unknown.

    Raises:
      InputError: some lie outside `[-0.5, size - 0.5)`, or are NaN; the message has their
        number and the first one.
    """
    upper = np.asarray(shape, dtype=np.float64) - 0.5
    outside = ~((points >= -0.5) & (points < upper)).all(axis=1)
    if outside.any():
        first = ", ".join(f"{value:g}" for value in points[outside][0])
        raise InputError(
            f"{path}: {int(outside.sum())} of {len(points)} points lie outside the image of"
            f" {size_text(shape)}, the first at ({','.join(_AXES[len(shape)])}) ="
            f" ({first}); points are in voxels of the image, counted from 0"
            f"{point_units.outside_hint(points, shape, spacing)}."
        )


def warn_of_other_times(used: np.ndarray, time: int, path: Path) -> None:
    """Warns of points that are left out, as they are of other times than the one that is used.

    Args:
      used: `(N,)` bool, which points are of it.
      time: from 0.
      path: the file of the points.
    """
    if not used.all():
        logging.warning(
            "%s: %d of %d points are of other times than %d and are left out.",
            path,
            (~used).sum(),
            len(used),
            time,
        )


def from_corner(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """How far points lie from the first corner of the image, to find them in coarser grids.

    Args:
      points: `(N, D)` in voxels, voxel centres at integers. Up to a voxel outside the image they
        count as on its border.
      shape: `(D,)` spatial shape of the image.

    Returns:
      `(N, D)` float64 voxels, 0 to the size: voxel i reaches from i to i + 1.

    Raises:
      InputError: a point is further outside, or NaN, or of another number of dimensions.
    """
    if points.ndim != 2 or points.shape[1] != len(shape):
        raise InputError(f"points of shape {points.shape} for an image of {len(shape)} dimensions.")
    offsets = points.astype(np.float64) + 0.5
    far = ~((offsets >= -1) & (offsets <= np.asarray(shape) + 1)).all(axis=1)
    if far.any():
        first = ", ".join(f"{value:g}" for value in points[far][0])
        raise InputError(
            f"{int(far.sum())} of {len(points)} points lie outside the image of"
            f" {size_text(shape)}, the first at ({first})."
        )
    return np.clip(offsets, 0, shape)


def _wanted(ndim: int) -> str:
    return "with the columns " + ",".join(_AXES[ndim])


def _columns(header: list[str], ndim: int, unit: str | None, path: Path) -> list[int]:
    """Where in a row the coordinates stand, in index order."""
    names = point_units.columns_in(header, unit, path)
    napari = tuple(f"axis-{axis}" for axis in range(5))  # of time and channels too
    for known, of_ndim in ((_AXES[3], _AXES[ndim]), (napari, napari[:ndim])):
        if not set(of_ndim) <= set(names):
            continue
        found = [name for name in names if name in known]
        if sorted(found) == sorted(of_ndim):
            columns = [names.index(name) for name in of_ndim]
            if len({header[column].strip().casefold() in known for column in columns}) > 1:
                raise InputError(
                    f"{path}: some of the columns {','.join(header[k] for k in columns)} say um and"
                    " some do not; one unit is needed."
                )
            return columns
        if len(set(found)) < len(found):
            raise InputError(f"{path}: a column stands twice in the header {','.join(header)}.")
        raise InputError(
            f"{path}: has points in {len(found)}D (columns {', '.join(found)}), but the image is"
            f" {ndim}D."
        )
    raise InputError(
        f"{path}: found the columns {', '.join(repr(cell) for cell in header)}; a header"
        f" {_wanted(ndim)} is needed, separated by commas."
    )


def _numbers(
    row: list[str], header: list[str], columns: list[int], line: int, path: Path
) -> list[float]:
    if len(row) != len(header):
        raise InputError(
            f"{path}: line {line} has {len(row)} values, the header has {len(header)} columns."
        )
    values = []
    for column in columns:
        text = row[column].strip()
        try:
            value = float(text) if "_" not in text else math.nan  # Python reads 1_0 as 10
        except ValueError:
            value = math.nan
        if not abs(value) <= _LARGEST:
            raise InputError(
                f"{path}: line {line}, column {header[column].strip()}: {text!r} is not a finite"
                " number."
            )
        values.append(value)
    return values
