"""Points to files: the project's own CSV, Parquet, and what napari and cellfinder read.

A whole brain has millions of cells, so rows are formatted many at a time, and no more than that
is in memory beside the points.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from absl import logging

from cellcount_jax.errors import InputError, how_to_install
from cellcount_jax.images.files import existing_file, replacing
from cellcount_jax.images.imagej_stack import Stack, planes_at
from cellcount_jax.images.regions import voxels_of

# Rows that are formatted at once; more is not faster.
_ROWS = 2**14
# Rows of a row group of Parquet, which a reader takes at once: 64 MB.
_ROWS_OF_GROUP = 2**20
_LINE_END = "\r\n"  # that of the csv module


def write_csv(
    path: Path, points: np.ndarray, scores: np.ndarray, *, spacing: Sequence[float] | None
) -> None:
    """Writes points.csv: id from 1, voxels, micrometres where the voxel size is known, score.

    Args:
      path: the file, replaced as a whole; its folder is created where missing.
      points: `(N, D)` voxels, D 2 or 3.
      scores: `(N,)`.
      spacing: `(D,)` voxel edges in micrometres, or None.

    Raises:
      ValueError: there are not as many scores as points.
    """
    header = column_names(points.shape[1], spacing)
    row = ",".join(["%d", *["%.7g"] * (len(header) - 2), "%.6g"]) + _LINE_END
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        file.write(",".join(header) + _LINE_END)
        for table in _tables(points, scores, spacing, rows=_ROWS):
            file.write(_formatted(row, table))


def write_parquet(
    path: Path, points: np.ndarray, scores: np.ndarray, *, spacing: Sequence[float] | None
) -> None:
    """Writes the columns of points.csv, not rounded, to a Parquet file.

    Args:
      path: the file, replaced as a whole; its folder is created where missing.
      points: `(N, D)` voxels, D 2 or 3.
      scores: `(N,)`.
      spacing: `(D,)` voxel edges in micrometres, or None.

    Raises:
      InputError: the extra is not installed.
      ValueError: there are not as many scores as points.
    """
    pyarrow, parquet = require_parquet()
    header = column_names(points.shape[1], spacing)
    types = [pyarrow.int64(), *[pyarrow.float64()] * (len(header) - 1)]
    schema = pyarrow.schema(list(zip(header, types, strict=True)))
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema) as file:
        for table in _tables(points, scores, spacing, rows=_ROWS_OF_GROUP):
            columns = [table[:, 0].astype(np.int64), *table.T[1:]]
            file.write_batch(pyarrow.record_batch(columns, schema=schema))


def require_parquet() -> tuple[Any, Any]:
    """Makes sure, before anything is counted, that a Parquet file can be written.

    Returns:
      The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
      InputError: the extra is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            f"Parquet files need pyarrow, which is not installed: {how_to_install('parquet')}"
        ) from error


def write_napari(path: Path, points: np.ndarray) -> None:
    """Writes points in voxels as napari's own CSV of a points layer.

    Args:
      path: the file, replaced as a whole; its folder is created where missing.
      points: `(N, D)` voxels.
    """
    header = ["index", *(f"axis-{a}" for a in range(points.shape[1]))]
    row = ",".join(["%d", *["%.7g"] * points.shape[1]]) + _LINE_END
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        file.write(",".join(header) + _LINE_END)
        for start in range(0, len(points), _ROWS):
            block = points[start : start + _ROWS]
            file.write(_formatted(row, np.column_stack([start + np.arange(len(block)), block])))


_NO_IMAGE = "placeholder.tif"  # what cellfinder writes for the name of the image
_XML_START = """\
<?xml version='1.0' encoding='UTF-8'?>
<CellCounter_Marker_File>
  <Image_Properties>
    <Image_Filename>placeholder.tif</Image_Filename>
  </Image_Properties>
  <Marker_Data>
    <Current_Type>1</Current_Type>
    <Marker_Type>
      <Type>2</Type>
"""
_XML_MARKER = """\
      <Marker>
        <MarkerX>%d</MarkerX>
        <MarkerY>%d</MarkerY>
        <MarkerZ>%d</MarkerZ>
      </Marker>
"""
_XML_END = """\
    </Marker_Type>
  </Marker_Data>
</CellCounter_Marker_File>"""


def write_cellfinder(path: Path, points: np.ndarray) -> None:
    """Writes the XML of cellfinder and of ImageJ's cell counter: voxels, all of type 2, a cell.

    A cell of an image is in plane 0. Coordinates are whole voxels there.

    Args:
      path: the file, replaced as a whole; its folder is created where missing.
      points: `(N, D)` voxels, D 2 or 3.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.write(_XML_START)
        for start in range(0, len(points), _ROWS):
            voxels = voxels_of(points[start : start + _ROWS])
            markers = np.zeros((len(voxels), 3), int)
            markers[:, : voxels.shape[1]] = voxels[:, ::-1]
            file.write(_formatted(_XML_MARKER, markers))
        file.write(_XML_END)


def column_names(ndim: int, spacing: Sequence[float] | None) -> list[str]:
    """The columns of points.csv, for points in `ndim` dimensions."""
    axes = "zyx"[3 - ndim :]
    return ["id", *axes, *(f"{a}_um" for a in axes if spacing is not None), "score"]


def _tables(
    points: np.ndarray, scores: np.ndarray, spacing: Sequence[float] | None, *, rows: int
) -> Iterator[np.ndarray]:
    """Some rows at a time, float64, of the columns of `column_names`."""
    if len(points) != len(scores):
        raise ValueError(f"{len(scores)} scores for {len(points)} points.")
    for start in range(0, len(points), rows):
        block = points[start : start + rows].astype(np.float64)
        places = [block] if spacing is None else [block, block * np.asarray(spacing)]
        numbers = np.arange(start + 1, start + len(block) + 1)
        yield np.column_stack([numbers, *places, scores[start : start + rows]])


def _formatted(row: str, table: np.ndarray) -> str:
    """The rows of a table as text: one operation for all of them, which is what takes the time."""
    return row * len(table) % tuple(table.ravel().tolist())


_CELL, _NOT_A_CELL = "2", "1"  # of cellfinder


def is_markers(path: Path) -> bool:
    """Whether an XML file is one of cellfinder or of ImageJ's cell counter."""
    with path.open("rb") as file:
        return b"<CellCounter_Marker_File" in file.read(4096)


def read_cellfinder(
    path: str | os.PathLike[str], *, ndim: int, stack: Stack | None = None
) -> np.ndarray:
    """Reads the cells of a file, as `exports.write_cellfinder`, cellfinder or ImageJ writes it.

    The files are of one form, but cellfinder counts planes from 0 and ImageJ's cell counter slices
    from 1; cellfinder names no image and no types.

    Args:
      path: XML.
      ndim: spatial dimensions of the image; in 2D planes are ignored.
      stack: of the image, for slices of ImageJ; None = not known, and a slice is a plane.

    Returns:
      `(N, ndim)` float32 voxels. Of cellfinder's two types only those that are cells, if there are
      any; of ImageJ's all, as these mean what the user likes.

    Raises:
      InputError: no such file, no such XML, a marker without a number, a slice that there is not.
    """
    path = existing_file(path)
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise InputError(f"{path}: has a DOCTYPE, which files of cellfinder have not.")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # an unknown encoding too
        raise InputError(f"{path}: is not XML ({error}).") from error
    if root.tag != "CellCounter_Marker_File":
        raise InputError(
            f"{path}: begins with <{root.tag}>; a file of cellfinder or ImageJ's cell counter"
            " begins with <CellCounter_Marker_File>."
        )
    named = root.findtext("Image_Properties/Image_Filename", _NO_IMAGE).strip() != _NO_IMAGE
    of_imagej = named or root.find("Marker_Data/Marker_Type/Name") is not None
    groups: dict[str, list[ElementTree.Element]] = {}
    for kind in root.iter("Marker_Type"):
        groups.setdefault(kind.findtext("Type", ""), []).extend(kind.findall("Marker"))
    used = {name: markers for name, markers in groups.items() if markers}
    if not of_imagej and _CELL in used:
        used.pop(_NOT_A_CELL, None)
    elif of_imagej and len(used) > 1:
        listed = ", ".join(f"type {name} {len(markers)}" for name, markers in used.items())
        logging.warning("%s: all types of markers are taken as cells: %s.", path, listed)
    try:
        points = [
            [float(marker.findtext(axis, "")) for axis in ("MarkerZ", "MarkerY", "MarkerX")]
            for markers in used.values()
            for marker in markers
        ]
    except ValueError as error:
        raise InputError(
            f"{path}: a marker has no number for one of its axes ({error})."
        ) from error
    found = np.asarray(points, np.float64).reshape(-1, 3)
    if not np.isfinite(found).all():
        raise InputError(f"{path}: a marker is NaN or infinite.")
    if of_imagej:
        found[:, 0], kept = planes_at(found[:, 0], stack, ndim=ndim, path=path)
        found = found[kept]
    elif ndim == 2 and len(np.unique(found[:, 0])) > 1:
        raise InputError(f"{path}: has markers in several planes, but the image is 2D.")
    return found[:, 3 - ndim :].astype(np.float32)
