"""Where to look in a counted image: the fullest slab, the densest place, the doubtful cells.

Pure functions on points `(N, 3)` in voxels z, y, x; those of an image have z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from cellcount_jax.report.views import Picture, Region

_ASKED = 2000  # points whose neighbours are looked for
_LONGEST = 20  # times the width, for a picture


def voxels_of(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The voxels that points lie in; for a point beyond the border the nearest one.

    Args:
      points: `(N, 3)`.
      shape: z, y, x.

    Returns:
      `(N, 3)` int64.
    """
    return np.clip(np.floor(points + 0.5).astype(np.int64), 0, np.asarray(shape) - 1)


def within(points: np.ndarray, region: Region, shape: Sequence[int]) -> np.ndarray:
    """Which points lie in a region.

    Args:
      points: `(N, 3)`.
      region: z, y, x.
      shape: of the image; a point beyond its border counts for the nearest voxel.

    Returns:
      `(N,)` bool.
    """
    voxels = voxels_of(points, shape)
    start, stop = np.array([(part.start, part.stop) for part in region]).T
    return ((voxels >= start) & (voxels < stop)).all(axis=1)


def cell_radius(points: np.ndarray, edges: np.ndarray) -> float:
    """Half the distance of close neighbours: rings of this size do not cross.

    Args:
      points: `(N, 3)`.
      edges: `(3,)` of a voxel.

    Returns:
      A length in the unit of `edges`, between 3 and 30.
    """
    if len(points) < 2:
        return 8.0
    places = np.unique(points * edges, axis=0)
    if len(places) < 2:
        return 8.0
    asked = places[:: math.ceil(len(places) / _ASKED)]
    distances = KDTree(places).query(asked, k=2)[0][:, 1]
    return float(np.clip(np.percentile(distances, 10) / 2, 3, 30))


def around(
    centre: Sequence[float] | np.ndarray,
    size: Sequence[int] | np.ndarray,
    *,
    shape: Sequence[int] | None = None,
) -> Region:
    """A region of a size round a place.

    Args:
      centre: `(3,)` voxels.
      size: `(3,)` voxels.
      shape: of the image, inside which it is moved or cut to lie; None = it may reach beyond.

    Returns:
      The region.
    """
    region = []
    for axis, (middle, length) in enumerate(zip(centre, size, strict=True)):
        length = int(length) if shape is None else min(int(length), shape[axis])
        start = math.floor(middle - (length - 1) / 2 + 0.5)
        if shape is not None:
            start = max(0, min(start, shape[axis] - length))
        region.append(slice(start, start + length))
    return tuple(region)


def clipped(region: Region, shape: Sequence[int]) -> Region:
    """The part of a region that lies in the image.

    Args:
      region: z, y, x.
      shape: of the image.

    Returns:
      It.
    """
    spans = zip(region, shape, strict=True)
    return tuple(slice(max(0, part.start), min(size, part.stop)) for part, size in spans)


def fullest(positions: np.ndarray, size: int, length: int) -> slice:
    """The stretch of an axis with the most points, the middle one where there are several.

    Args:
      positions: `(N,)` voxels.
      size: of the axis.
      length: of the stretch.

    Returns:
      The stretch; in the middle of the axis where there are no points.
    """
    length = max(1, min(length, size))
    counts = np.bincount(positions, minlength=size)
    sums = np.concatenate([[0], np.cumsum(counts)])
    inside = sums[length:] - sums[:-length]
    best = np.flatnonzero(inside == inside.max())
    start = int(best[len(best) // 2])
    return slice(start, start + length)


def densest(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The middle of the points in the fullest box of a grid.

    Args:
      points: `(N, 3)`, N > 0.
      size: `(3,)` of a box in voxels.

    Returns:
      `(3,)` voxels.
    """
    boxes = np.floor((points + 0.5) / np.asarray(size)).astype(np.int64)
    _, index, counts = np.unique(boxes, axis=0, return_inverse=True, return_counts=True)
    middle: np.ndarray = points[index.reshape(-1) == np.argmax(counts)].mean(axis=0)
    return middle


def elongated(region: Region, points: np.ndarray, edges: np.ndarray, axis: int) -> Region:
    """Cuts a region that is too long for a picture to the stretch with the most points.

    Args:
      region: z, y, x.
      points: `(N, 3)`.
      edges: `(3,)` of a voxel.
      axis: that is looked along.

    Returns:
      A region at most 20 times as long as wide.
    """
    cut = list(region)
    for long, short in ((1 - axis, 2), (2, 1 - axis)):
        width = (region[short].stop - region[short].start) * edges[short]
        most = math.ceil(_LONGEST * width / edges[long])
        if region[long].stop - region[long].start > most:
            positions = voxels_of(points, [part.stop for part in region])[:, long]
            cut[long] = fullest(positions, region[long].stop, most)
    return tuple(cut)


def overlooked(
    picture: Picture, points: np.ndarray, edges: np.ndarray, radius: float
) -> tuple[float, float, bool] | None:
    """The most cell-like place without a cell in a picture: the brightest, or the darkest.

    Cells are taken to be bright unless the pixels at the points are darker than most.

    Args:
      picture: of a region.
      points: `(N, 3)` those in the region.
      edges: `(3,)` of a voxel.
      radius: of a cell, in the unit of `edges`.

    Returns:
      The place in voxels, down and to the right, and whether it was the brightest; None where
      no spot is further than two radii from all points, or all pixels are alike.
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
    # A spot of its own, not the slope of a cell.
    spots = free & (smooth == ndimage.maximum_filter(smooth, [2 * r + 1 for r in reach]))
    if not spots.any() or smooth.max() <= smooth.min():
        return None
    best = np.unravel_index(int(np.argmax(np.where(spots, smooth, -np.inf))), smooth.shape)
    place = (np.array(best) + 0.5) * scale - 0.5 + offset
    return float(place[0]), float(place[1]), bright
