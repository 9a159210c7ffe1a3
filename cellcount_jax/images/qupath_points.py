"""Cells in QuPath's GeoJSON.

QuPath gives x, y in pixels of the full image from its corner, so that the middle of the first pixel
is 0.5; planes and times are counted from 0.

Source: PathObjectTypeAdapters.java, ROITypeAdapters.java and GsonTools.java of QuPath 0.5.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file, replacing
from cellcount_jax.images.outlines import middle
from cellcount_jax.images.points import warn_of_other_times
from cellcount_jax.images.regions import voxels_of

_OBJECTS = {
    "PathCellObject": "cell",
    "PathDetectionObject": "detection",
}  # as QuPath 0.2 calls them
_ROWS = 2**14  # cells that are formatted at once


def read_geojson(path: Path, *, ndim: int, time: int = 0) -> np.ndarray:
    """Reads points, or the middles of cells and detections where there are no points.

    Args:
      path: as QuPath exports objects, a FeatureCollection or a list of features.
      ndim: spatial dimensions of the image.
      time: the time point that is used.

    Returns:
      `(N, ndim)` float32 dots in voxels.

    Raises:
      InputError: no such file, no GeoJSON, points in several planes of a 2D image, or only
        annotations of areas.
    """
    path = existing_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        features = _features(content)
        dots, middles, areas = [], [], 0
        classes: collections.Counter[str] = collections.Counter()
        for feature in features:
            geometry, properties = feature.get("geometry"), feature.get("properties") or {}
            kind = str(properties.get("objectType") or properties.get("object_type") or "")
            kind = kind or _OBJECTS.get(str(feature.get("id")), "")
            if geometry is None:
                continue
            name = str((properties.get("classification") or {}).get("name", ""))
            if name.endswith("*"):  # of QuPath's classes that are to be ignored
                continue
            table = _points(geometry)
            if not len(table) and kind in ("cell", "detection"):
                middles.append((name, _middle(feature.get("nucleusGeometry") or geometry)))
            elif not len(table):
                areas += 1
            else:
                dots.append((name, table))
        for name, table in dots or middles:
            classes[name] += len(table)
        tables = [table for _, table in dots or middles]
        found = np.concatenate([*tables, np.zeros((0, 4))])
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"{path}: is not GeoJSON of QuPath ({error!r}).") from error
    if not np.isfinite(found).all():
        raise InputError(f"{path}: a point is NaN or infinite.")
    if not len(found) and areas:
        raise InputError(
            f"{path}: has {areas} annotations of areas, but no points, cells or detections; mark"
            " cells with QuPath's points tool, or export its detections."
        )
    left_out = areas + len(middles) * bool(dots)
    if left_out:
        logging.warning("%s: %d objects that are no points are left out.", path, left_out)
    if len(classes) > 1:
        listed = ", ".join(f"{name or 'no class'} {n}" for name, n in classes.most_common())
        logging.warning("%s: all classes are taken as cells: %s.", path, listed)
    used = found[:, 0] == time
    warn_of_other_times(used, time, path)
    found = found[used, 1:]
    if ndim == 2 and len(np.unique(found[:, 0])) > 1:
        raise InputError(f"{path}: has points in several planes, but the image is 2D.")
    return found[:, 3 - ndim :].astype(np.float32)


def write_geojson(path: Path, points: np.ndarray, scores: np.ndarray, *, time: int = 0) -> None:
    """Writes a detection a cell, of the class Cell and with its score, for QuPath's Import objects.

    Args:
      path: the file, replaced as a whole; its folder is created where missing.
      points: `(N, D)` voxels, D 2 or 3.
      scores: `(N,)`.
      time: the time point that they are of.
    """
    places = np.column_stack([points[:, :-3:-1].astype(np.float64) + 0.5, np.zeros(len(points))])
    if points.shape[1] == 3:
        places[:, 2] = voxels_of(points[:, 0])
    row = (
        '{"type":"Feature","geometry":{"type":"Point","coordinates":[%.7g,%.7g],"plane":{"c":-1,'
        f'"z":%d,"t":{time}}}}},"properties":{{"objectType":"detection","classification":{{"name":'
        '"Cell","color":[200,50,50]},"measurements":{"score":%.6g}}}'
    )
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for start in range(0, len(points), _ROWS):
            rows = np.column_stack([places, scores])[start : start + _ROWS].tolist()
            file.write(",\n" if start else "\n")
            file.write(",\n".join(row % tuple(values) for values in rows))
        file.write("\n]}\n")


def _features(content: Any) -> Iterator[Mapping[str, Any]]:
    """The features of a collection, a list or a single one."""
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content["features"]
    elif isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list):
        raise ValueError("neither a FeatureCollection nor a list of features")
    for feature in content:
        if feature["type"] != "Feature":
            raise ValueError(f"a {feature['type']} among the features")
        yield feature


def _points(geometry: Mapping[str, Any]) -> np.ndarray:
    """`(N, 4)` time, z, y, x of a Point or MultiPoint; `(0, 4)` of another geometry."""
    places = {"Point": [geometry.get("coordinates")], "MultiPoint": geometry.get("coordinates")}
    if geometry["type"] not in places:
        return np.zeros((0, 4))
    xy = np.asarray(places[geometry["type"]], np.float64)
    return _placed(xy.reshape(len(xy), -1)[:, :2], geometry)


def _middle(geometry: Mapping[str, Any]) -> np.ndarray:
    """`(1, 4)` time, z, y, x of the middle of a cell."""
    rings = geometry["coordinates"]
    if geometry["type"] == "MultiPolygon":
        rings = max((part for part in rings), key=lambda part: len(part[0]))
    elif geometry["type"] != "Polygon":
        raise ValueError(f"a cell that is a {geometry['type']}")
    return _placed(middle(np.asarray(rings[0], np.float64)[:, :2])[None], geometry)


def _placed(xy: np.ndarray, geometry: Mapping[str, Any]) -> np.ndarray:
    plane = geometry.get("plane") or {}
    table = np.empty((len(xy), 4))
    table[:, 0], table[:, 1] = int(plane.get("t", 0)), int(plane.get("z", 0))
    table[:, 2:] = xy[:, ::-1] - 0.5
    return table
