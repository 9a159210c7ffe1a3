"""Points in the XML of cellfinder and of ImageJ's cell counter."""

from __future__ import annotations

import os
from xml.etree import ElementTree

import numpy as np

from cellcount_jax.data.files import existing_file
from cellcount_jax.errors import InputError

_AXES = {2: ("MarkerY", "MarkerX"), 3: ("MarkerZ", "MarkerY", "MarkerX")}
_CELL, _NOT_A_CELL = "2", "1"  # of cellfinder


def read_cellfinder(path: str | os.PathLike[str], *, ndim: int) -> np.ndarray:
    """Reads the cells of a file, as `outputs.write_cellfinder` or cellfinder writes it.

    Args:
      path: XML.
      ndim: spatial dimensions of the image; in 2D planes are ignored.

    Returns:
      `(N, ndim)` float32 voxels. Of cellfinder's two types only those that are cells, if there are
      any; otherwise all markers, as ImageJ's types mean what the user likes.

    Raises:
      InputError: no such file, no such XML, a marker without a number.
    """
    path = existing_file(path)
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise InputError(f"{path}: has a DOCTYPE, which files of cellfinder have not.")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: is not XML ({error}).") from error
    groups = {
        kind.findtext("Type", ""): kind.findall("Marker") for kind in root.iter("Marker_Type")
    }
    if root.tag != "CellCounter_Marker_File":
        raise InputError(
            f"{path}: begins with <{root.tag}>; a file of cellfinder or ImageJ's cell counter"
            " begins with <CellCounter_Marker_File>."
        )
    if groups.get(_CELL):
        groups.pop(_NOT_A_CELL, None)
    try:
        points = [
            [float(marker.findtext(axis, "")) for axis in _AXES[ndim]]
            for markers in groups.values()
            for marker in markers
        ]
    except ValueError as error:
        raise InputError(
            f"{path}: a marker has no number for one of its axes ({error})."
        ) from error
    found = np.asarray(points, np.float32).reshape(-1, ndim)
    if not np.isfinite(found).all():
        raise InputError(f"{path}: a marker is NaN or infinite.")
    return found
