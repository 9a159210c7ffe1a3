"""Where to look in a counted image: the fullest slab, the densest place, the doubtful cells.

Pure functions on points `(N, 3)` in voxels z, y, x; those of an image have z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from cellcount_jax.images.regions import Region, voxels_of
from cellcount_jax.report.views import Picture

_MAX_QUERIES = 2000  # points whose neighbours are looked for
_MAX_ASPECT = 20  # length of a picture over its width


def with_depth(points: np.ndarray) -> np.ndarray:
    """Points `(N, 3)` float64 of `(N, 2 or 3)`; those of a 2D image have z = 0."""
    missing = 3 - points.shape[1]
    return np.pad(np.asarray(points, np.float64), ((0, 0), (missing, 0)))


def nearest_voxels(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`(N, 3)` int64 voxels of an image that points lie in or, beyond its border, are nearest."""
    return np.clip(voxels_of(points), 0, np.asarray(shape) - 1)


def in_region(points: np.ndarray, region: Region, shape: Sequence[int]) -> np.ndarray:
    """`(N,)` bool: which points `(N, 3)` have their `nearest_voxels` in a region."""
    voxels = nearest_voxels(points, shape)
    start, stop = np.array([(part.start, part.stop) for part in region]).T
    return ((voxels >= start) & (voxels < stop)).all(axis=1)


def cell_radius(points: np.ndarray, edges: np.ndarray) -> float:
    """Half the distance of close neighbours, 3 to 30 in the unit of `edges`: rings do not cross."""
    if len(points) < 2:
        return 8.0
    places = np.unique(points * edges, axis=0)
    if len(places) < 2:
        return 8.0
    queries = places[:: math.ceil(len(places) / _MAX_QUERIES)]
    distances = KDTree(places).query(queries, k=2)[0][:, 1]
    return float(np.clip(np.percentile(distances, 10) / 2, 3, 30))


def region_around(
    centre: Sequence[float] | np.ndarray,
    size: Sequence[int] | np.ndarray,
    *,
    shape: Sequence[int] | None = None,
) -> Region:
    """A region round a centre; with the `shape` of the image, moved or cut to lie in it."""
    region = []
    for axis, (middle, length) in enumerate(zip(centre, size, strict=True)):
        length = int(length) if shape is None else min(int(length), shape[axis])
        start = math.floor(middle - (length - 1) / 2 + 0.5)
        if shape is not None:
            start = max(0, min(start, shape[axis] - length))
        region.append(slice(start, start + length))
    return tuple(region)


def clipped(region: Region, shape: Sequence[int]) -> Region:
    """The part of a region that lies in the image."""
    spans = zip(region, shape, strict=True)
    return tuple(slice(max(0, part.start), min(size, part.stop)) for part, size in spans)


def fullest(positions: np.ndarray, size: int, length: int) -> slice:
    """The stretch of an axis with the most points, the middle one where there are several.

    Args:
      positions: `(N,)` voxels of the points.
      size: of the axis.
      length: of the stretch.
    """
    length = max(1, min(length, size))
    counts = np.bincount(positions, minlength=size)
    sums = np.concatenate([[0], np.cumsum(counts)])
    inside = sums[length:] - sums[:-length]
    best = np.flatnonzero(inside == inside.max())
    start = int(best[len(best) // 2])
    return slice(start, start + length)


def densest(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The mean of the points (at least one) in the fullest box of a grid, of `size` voxels each."""
    boxes = np.floor((points + 0.5) / np.asarray(size)).astype(np.int64)
    _, index, counts = np.unique(boxes, axis=0, return_inverse=True, return_counts=True)
    middle: np.ndarray = points[index.reshape(-1) == np.argmax(counts)].mean(axis=0)
    return middle


def shortened(region: Region, points: np.ndarray, edges: np.ndarray, axis: int) -> Region:
    """Cuts a region that is too long for a picture along `axis` to the stretch with most points."""
    cut = list(region)
    for long, short in ((1 - axis, 2), (2, 1 - axis)):
        width = (region[short].stop - region[short].start) * edges[short]
        most = math.ceil(_MAX_ASPECT * width / edges[long])
        if region[long].stop - region[long].start > most:
            positions = nearest_voxels(points, [part.stop for part in region])[:, long]
            cut[long] = fullest(positions, region[long].stop, most)
    return tuple(cut)


def overlooked(
    picture: Picture, points: np.ndarray, edges: np.ndarray, radius: float
) -> tuple[float, float, bool] | None:
    """The most cell-like place without a cell in a picture: the brightest, or the darkest.

    Cells are taken to be bright unless the pixels at the points are darker than most.

    Args:
      picture: of a region.
      points: `(N, 3)` in the region.
      edges: `(3,)` of a voxel.
      radius: of a cell, in the unit of `edges`.

    Returns:
      The place in voxels, down and to the right, and whether it is the brightest; None where no
      spot is further than two radii from all points, or all pixels are alike.
    """
    height, width = picture.pixels.shape[:2]
    down, right = (picture.region[1 - picture.axis], picture.region[2])
    scale = np.array([picture.covered[0] / height, picture.covered[1] / width])
    light = picture.pixels.mean(axis=-1, dtype=np.float64)
    offset = np.array([down.start, right.start])
    places = (points[:, [1 - picture.axis, 2]] - offset + 0.5) / scale
    index = np.clip(np.floor(places).astype(np.int64), 0, np.array([height, width]) - 1)
    free = np.ones((height, width), bool)
    free[index[:, 0], index[:, 1]] = False
    sampling = scale * edges[[1 - picture.axis, 2]]
    if len(points):
        free = ndimage.distance_transform_edt(free, sampling=sampling) > 2 * radius
    at_cells = light[index[:, 0], index[:, 1]]
    bright = not len(points) or bool(np.median(at_cells) >= np.median(light))
    reach = [max(1, 2 * round(radius / 2 / edge) + 1) for edge in sampling]
    smooth = ndimage.uniform_filter(light if bright else -light, reach, mode="nearest")
    # A local maximum, not the slope of a cell.
    spots = free & (smooth == ndimage.maximum_filter(smooth, [2 * r + 1 for r in reach]))
    if not spots.any() or smooth.max() <= smooth.min():
        return None
    best = np.unravel_index(int(np.argmax(np.where(spots, smooth, -np.inf))), smooth.shape)
    place = (np.array(best) + 0.5) * scale - 0.5 + offset
    return float(place[0]), float(place[1]), bright
