"""ImageJ's selections as dots: .roi files of the multi-point tool, .zip files of the ROI Manager.

ImageJ gives points as x, y, the middle of the first pixel being 0 as it is here; outlines of areas
run along the corners of pixels, where that middle is 0.5. Slices are counted from 1.

Source: ij/gui/Roi.java (`setIntBounds`, `useLineSubpixelConvention`) and ij/gui/PointRoi.java of
ImageJ 1.53.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import roifile
from absl import logging
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file, replacing
from cellcount_jax.images.imagej_stack import Stack, planes_at
from cellcount_jax.images.outlines import middle
from cellcount_jax.images.regions import voxels_of

_MOST_BYTES = 2**30  # of all selections of a file; a point takes 12
_OUTLINES = {ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED}
_BOXES = {ROI_TYPE.RECT, ROI_TYPE.OVAL}


def holds_rois(path: Path) -> bool:
    """Whether a zip file is one of the ROI Manager, and not a model or an image."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.lower().endswith(".roi") for name in file.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def read_rois(path: Path, *, ndim: int, stack: Stack | None = None) -> np.ndarray:
    """Reads the points of ImageJ's selections, or the middles of areas where there are no points.

    Args:
      path: a .roi file, or a .zip file of them.
      ndim: spatial dimensions of the image.
      stack: of the image; None = not known, and a slice is a plane.

    Returns:
      `(N, ndim)` float32 dots in voxels.

    Raises:
      InputError: no such file, damaged, a slice that the image does not have, or only lines.
    """
    path = existing_file(path)
    dots, middles, others, counters = [], [], 0, set()
    for name, content in _contents(path):
        try:
            roi = ImagejRoi.frombytes(content)
            places = _points(roi) if roi.roitype == ROI_TYPE.POINT else _middle(roi)
            slices = _slices(roi, len(places), stack)
        except Exception as error:  # whatever its numbers lead to
            raise InputError(f"{path}: {name} is no selection of ImageJ ({error}).") from error
        if not np.isfinite(places).all():
            raise InputError(f"{path}: {name} has a point that is NaN or infinite.")
        table = np.column_stack([slices, places[:, ::-1]])
        if roi.roitype == ROI_TYPE.POINT:
            dots.append(table)
            counters |= set(roi.counters if roi.counters is not None else [0])
        elif len(places):
            middles.append(table)
        else:
            others += 1
    if not dots and not middles and others:
        raise InputError(
            f"{path}: has {others} lines or texts and no points; mark cells with ImageJ's"
            " multi-point tool."
        )
    if dots and middles or others:
        left_out = others + len(middles) * bool(dots)
        logging.warning("%s: %d selections that are no points are left out.", path, left_out)
    if middles and not dots:
        logging.warning("%s: the middles of %d outlines are the dots.", path, len(middles))
    if len(counters) > 1:
        logging.warning(
            "%s: has points of %d counters; all of them are taken as cells.", path, len(counters)
        )
    found = np.concatenate(dots or middles or [np.zeros((0, 3))])
    planes, used = planes_at(found[:, 0], stack, ndim=ndim, path=path)
    found[:, 0] = planes
    return found[used, 3 - ndim :].astype(np.float32)


def write_rois(path: Path, points: np.ndarray, *, stack: Stack | None = None) -> None:
    """Writes points as a .zip file for ImageJ's ROI Manager: a multi-point selection a plane.

    Args:
      path: the file, replaced as a whole; its folder is created where missing.
      points: `(N, D)` voxels, D 2 or 3.
      stack: of the image; None = one channel and time.
    """
    planes = voxels_of(points[:, 0]) if points.shape[1] == 3 else np.zeros(len(points), int)
    order = np.argsort(planes, kind="stable")
    starts = np.flatnonzero(np.diff(planes[order], prepend=-1))
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for members in np.split(order, starts[1:]) if len(order) else []:
            plane = int(planes[members[0]])
            name = f"cells_z{plane + 1:04d}" if points.shape[1] == 3 else "cells"
            roi = ImagejRoi.frompoints(points[members, :-3:-1].astype(np.float32), name=name)
            roi.roitype, roi.options = ROI_TYPE.POINT, ROI_OPTIONS.SUB_PIXEL_RESOLUTION
            if stack is not None and stack.channels * stack.times > 1:
                # Of all channels; a number of slices would be that of one.
                roi.z_position = plane + 1 if points.shape[1] == 3 else 0
                roi.t_position = stack.time + 1 if stack.times > 1 else 0
            elif points.shape[1] == 3:
                roi.position = plane + 1
            # With a time of its own the same points would be other bytes each time.
            file.writestr(
                zipfile.ZipInfo(f"{name}.roi"), roi.tobytes(), compress_type=zipfile.ZIP_DEFLATED
            )


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each selection of a file."""
    if path.suffix.lower() != ".zip":
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: is too large for a selection of ImageJ.")
        yield path.name, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as file:
            members = [m for m in file.infolist() if m.filename.lower().endswith(".roi")]
            if not members:
                raise InputError(f"{path}: holds no .roi file; one of ImageJ's ROI Manager does.")
            if sum(member.file_size for member in members) > _MOST_BYTES:
                raise InputError(f"{path}: its selections are too large to be ImageJ's.")
            contents = [(member.filename, file.read(member)) for member in members]
    except InputError:
        raise
    except Exception as error:  # a zip file can be damaged in any way
        raise InputError(f"{path}: is damaged, or no zip file ({error}).") from error
    yield from contents


def _points(roi: ImagejRoi) -> np.ndarray:
    """`(N, 2)` x, y of the points of a selection."""
    if roi.n_coordinates == 0:
        return np.zeros((0, 2))
    return np.asarray(roi.coordinates(), np.float64)


def _middle(roi: ImagejRoi) -> np.ndarray:
    """`(1, 2)` x, y of the middle of an area; `(0, 2)` of a line or a text."""
    if roi.subtype == roifile.ROI_SUBTYPE.TEXT:
        return np.zeros((0, 2))
    if roi.composite or (roi.roitype in _OUTLINES and roi.n_coordinates):
        return middle(np.asarray(roi.coordinates()))[None] - 0.5  # of several parts the largest
    if roi.roitype in _BOXES:
        x, y = (roi.left + roi.right) / 2, (roi.top + roi.bottom) / 2
        if roi.subpixelrect:
            x, y = roi.xd + roi.widthd / 2, roi.yd + roi.heightd / 2
        return np.array([[x, y]]) - 0.5
    return np.zeros((0, 2))


def _slices(roi: ImagejRoi, number: int, stack: Stack | None) -> np.ndarray:
    """`(number,)` the slice of each point of a selection; 0 = none."""
    if roi.counter_positions is not None and roi.counter_positions.any():
        return np.asarray(roi.counter_positions[:number], np.int64)
    position = roi.position
    if not position and (roi.z_position or roi.t_position):
        known = stack or Stack(planes=max(roi.z_position, 1))
        plane, time = max(roi.z_position, 1) - 1, max(roi.t_position, 1) - 1
        if roi.z_position > known.planes or time >= known.times:
            raise ValueError(
                f"it is on z {roi.z_position} and t {roi.t_position}, which the image does not have"
            )
        if not roi.t_position:
            time = known.time
        if known.planes > 1 and not roi.z_position:
            return np.zeros(number, np.int64)
        position = (time * known.planes + plane) * known.channels + max(roi.c_position, 1)
    return np.full(number, position, np.int64)
