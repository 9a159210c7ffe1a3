"""How an image looks where cells were found in it: statistics by which a count can be doubted.

Beside the found cells a plain count is made, of the parts above Otsu's threshold, in the whole
image or in windows of a large one, so that nothing is read twice but those. It is a rough second
opinion: where a network that fits counts 40 cells it says 30 to 60, where one that does not
counts 400 it says the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, spatial

from cellcount_jax.images.background import noise_of
from cellcount_jax.images.levels import filled, otsu, padding
from cellcount_jax.images.regions import Readable, Region, all_of, lies_in
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.survey import Mask, voxels_inside

_WHOLE_VOXELS = 2**21  # a larger image is looked at in windows
_WINDOW_VOXELS = 2**18
_WINDOWS = 8
_MAX_POINTS = 20_000  # whose neighbours are looked for
_NEAR = 0.5  # of a diameter: cells this close are one, unless they overlap
_QUARTER = 0.25  # by which the threshold is moved
_SMOOTH = 0.12  # of a diameter: sigma against noise
_DIP = 0.1  # of the height above the background, by which the image falls between two cells
_RING = 1.0  # of a diameter: radius of the surroundings
_DIRECTIONS = 24
_THINNEST = 0.15  # of a diameter: half the width of the narrowest part that is an object
_LEAST_CONTRAST = 2.0  # of objects above the rest, in deviations of the noise of a voxel

# Name -> value, NaN where it cannot be told; see `measure`.
Statistics = dict[str, float]


class _Window(NamedTuple):
    """A part of an image.

    Attributes:
      raw: `(*region,)` intensities, cells bright, padding replaced.
      smooth: likewise, against noise at the size of cells.
      points: `(N, D)` the cells in it, in its voxels.
      counted: `(*region,)` bool, what is inside the mask; or whether all is.
    """

    raw: np.ndarray
    smooth: np.ndarray
    points: np.ndarray
    counted: np.ndarray | bool = True


class _Objects(NamedTuple):
    """The bright parts of a window."""

    labels: np.ndarray
    areas: np.ndarray
    widths: np.ndarray  # `(objects,)`, in the unit of the spacing


def measure(
    image: Readable,
    found: Found,
    *,
    diameter: float,
    spacing: Sequence[float],
    mask: Mask | None = None,
    bright: bool = True,
) -> Statistics:
    """Measures an image and the cells found in it.

    Args:
      image: raw intensities, as the model saw them: resampled.
      found: its cells, in its voxels.
      diameter: of a cell that the model knows, in the unit of the spacing.
      spacing: `(D,)` of a voxel.
      mask: where cells were counted.
      bright: whether cells are brighter than what is around them.

    Returns:
      'cells': their number; 'sampled': that in the windows; 'score': median of the scores;
      'threshold': the share of the count by which it changes between 3/4 and 5/4 of the threshold;
      'crowded': the share of cells closer than half a diameter to another. In the windows,
      'dark': the share of cells no brighter than their surroundings; 'merged': that of cells
      between which and their neighbour the image does not fall; 'outside': that of cells outside
      of bright objects; 'missed': the share of the area of bright objects that hold no cell;
      'plain', 'plain_most': the least and the greatest number of objects by two thresholds;
      'ratio': the cells to the nearer of these, 1 between them;
      'size': the median width of objects, in diameters; 'relief': the skewness of the image at
      the size of cells, negative where these are dark; 'padding': the share of it.
    """
    scale = diameter / np.asarray(spacing, float)
    statistics = _of_scores(found)
    statistics["crowded"] = _crowded(found.points * spacing, _NEAR * diameter)
    regions = list(windows(image.shape, found.candidate_points, spacing=spacing, mask=mask))
    parts = [np.asarray(image.read(region), np.float64).mean(-1) for region in regions]
    parts = parts if bright else [-part for part in parts]
    pad = padding(parts) if parts else None
    total = sum(part.size for part in parts)
    empty = sum(int((part == pad).sum()) for part in parts) if pad is not None else 0
    statistics["padding"] = empty / max(total, 1)
    sampled = [
        _window(part, pad, region, found.points, _SMOOTH * scale)._replace(
            counted=mask is None or voxels_inside(mask, region, image.shape)
        )
        for part, region in zip(parts, regions, strict=True)
    ]
    return statistics | _around_cells(sampled, scale) | _of_objects(sampled, diameter, spacing)


def windows(
    shape: Sequence[int],
    places: np.ndarray,
    *,
    spacing: Sequence[float],
    mask: Mask | None = None,
) -> Iterator[Region]:
    """The whole of an image, or of a large one some windows where cells may be.

    Args:
      shape: `(D,)` of the image.
      places: `(C, D)` voxels where something was found, of which some are chosen evenly; where
        there are none the windows lie all over the image.
      spacing: `(D,)` of a voxel; windows are about as long in each direction.
      mask: of the image.
    """
    if math.prod(shape) <= _WHOLE_VOXELS:
        yield all_of(shape)
        return
    size = _window_size(shape, spacing)
    if len(places):
        ranks = np.linspace(0, len(places) - 1, _WINDOWS + 2).round().astype(int)[1:-1]
        order = np.lexsort(places.T[::-1])
        centres = places[order[ranks]]
    else:
        grid = np.meshgrid(*[[n / 4, 3 * n / 4] for n in shape], indexing="ij")
        centres = np.stack(grid, -1).reshape(-1, len(shape))[:_WINDOWS]
    seen = set()
    for centre in centres:
        start = np.clip(np.rint(centre - size / 2), 0, np.asarray(shape) - size).astype(int)
        region = tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
        if tuple(start) in seen or (mask is not None and not mask.touches(region, shape)):
            continue
        seen.add(tuple(start))
        yield region


def _window_size(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """`(D,)` voxels of a window, of about equal edges but where the image is thinner."""
    size = np.asarray(shape)
    edge = (_WINDOW_VOXELS * math.prod(spacing)) ** (1 / len(size))
    for _ in size:  # what a thin axis lacks, the others have more
        wanted = np.minimum(size, np.maximum(1, np.rint(edge / np.asarray(spacing)))).astype(int)
        edge *= (_WINDOW_VOXELS / math.prod(wanted)) ** (1 / len(size))
    return np.asarray(wanted)


def _of_scores(found: Found) -> Statistics:
    """What the scores alone tell."""
    least, scores = found.threshold, found.candidates
    low, middle, high = (
        int((scores > factor * least).sum()) for factor in (1 - _QUARTER, 1, 1 + _QUARTER)
    )
    return {
        "cells": float(len(found.points)),
        "score": float(np.median(found.scores)) if len(found.scores) else math.nan,
        "threshold": (low - high) / max(middle, 1),
    }


def _crowded(points: np.ndarray, distance: float) -> float:
    """The share of points `(N, D)` within a distance of another."""
    if len(points) < 2:
        return 0.0
    asked = points[:: max(1, len(points) // _MAX_POINTS)]
    nearest = spatial.cKDTree(points).query(asked, k=2)[0][:, 1]
    return float((nearest < distance).mean())


def _window(
    values: np.ndarray, pad: float | None, region: Region, points: np.ndarray, sigma: np.ndarray
) -> _Window:
    """A window; padding gets the level of a dark place beside it, not to be an edge."""
    if pad is not None and (empty := values == pad).any() and not empty.all():
        # Where the image was resampled, what is between it and the padding is neither.
        wider = ndimage.binary_dilation(empty, iterations=2)
        empty = empty if wider.all() else wider
        values = np.where(empty, np.percentile(values[~empty], 25), values)
    inside = points[lies_in(points, region)] - [part.start for part in region]
    return _Window(values, ndimage.gaussian_filter(values, sigma), inside)


def _around_cells(sampled: Sequence[_Window], scale: np.ndarray) -> Statistics:
    """The image at the cells, around them and between neighbours; `scale` is a diameter."""
    number = sum(len(window.points) for window in sampled)
    dark = merged = 0
    skewness = []
    for smooth, points in ((window.smooth, window.points) for window in sampled):
        band = ndimage.gaussian_filter(smooth, 0.25 * scale)
        band -= ndimage.gaussian_filter(smooth, 0.6 * scale)
        deviation = band.std()
        if deviation > 0:
            relative = (band - band.mean()) / deviation
            skewness.append((np.mean(relative * relative * relative), smooth.size))
        if not len(points):
            continue
        # The same directions for every cell, so that a count has the same doubts again.
        directions = np.random.default_rng(0).normal(size=(_DIRECTIONS, points.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        centre = _values(smooth, points)
        ring = [_values(smooth, points + _RING * scale * one) for one in directions]
        dark += int((centre <= np.median(ring, 0)).sum())
        merged += _merged(smooth, points, scale)
    weights = [size for _, size in skewness]
    return {
        "sampled": float(number),
        "dark": dark / max(number, 1),
        "merged": merged / max(number, 1),
        "relief": float(np.average([s for s, _ in skewness], weights=weights))
        if skewness
        else math.nan,
    }


def _merged(smooth: np.ndarray, points: np.ndarray, scale: np.ndarray) -> int:
    """How many points have a neighbour within two diameters, and no dip on the way to it."""
    if len(points) < 2:
        return 0
    distance, index = spatial.cKDTree(points / scale).query(points / scale, k=2)
    other = points[index[:, 1]]
    line = [_values(smooth, (1 - t) * points + t * other) for t in np.linspace(0, 1, 9)]
    lower = np.minimum(line[0], line[-1])
    height = np.maximum(lower - np.percentile(smooth, 10), np.finfo(np.float32).tiny)
    return int((((lower - np.min(line, 0)) / height < _DIP) & (distance[:, 1] < 2)).sum())


def _values(array: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values `(N,)` between voxels."""
    found: np.ndarray = ndimage.map_coordinates(array, points.T, order=1, mode="nearest")
    return found


def _of_objects(
    sampled: Sequence[_Window], diameter: float, spacing: Sequence[float]
) -> Statistics:
    """The bright parts of the windows, against the cells found in them."""
    names = ("plain", "plain_most", "ratio", "size", "outside", "missed")
    unknown = dict.fromkeys(names, math.nan)
    edges = np.asarray(spacing, float)
    finest = edges.min()
    sigma = finest / edges * (1.0 if len(edges) == 2 else min(1.0, diameter / finest / 8))
    smooth = [ndimage.gaussian_filter(window.raw, sigma) for window in sampled]
    pooled = np.concatenate([part.ravel() for part in smooth]) if smooth else np.zeros(0)
    if not pooled.size:
        return unknown
    low, high = np.percentile(pooled, (0.1, 99.9))
    pooled = np.clip(pooled, low, high)
    # Of the roots too, since cells beside much brighter ones are below the other threshold.
    threshold, root = otsu(pooled), otsu(np.sqrt(pooled - low))
    differences = np.concatenate([np.diff(w.raw, axis=-1).ravel() for w in sampled])
    noise = noise_of(differences)
    if threshold is None or root is None:
        return unknown
    step = pooled[pooled > threshold].mean() - pooled[pooled <= threshold].mean()
    if step < _LEAST_CONTRAST * noise:
        return unknown
    pairs = [(part, window.counted) for part, window in zip(smooth, sampled, strict=True)]
    objects = [_objects((part > threshold) & counted, diameter, edges) for part, counted in pairs]
    faint = [_objects((part - low > root**2) & counted, diameter, edges) for part, counted in pairs]
    numbers = [sum(len(one.widths) for one in some) for some in (objects, faint)]
    widths = np.concatenate([one.widths for one in objects])
    cells = outside = 0
    area = empty = 0.0
    for window, one in zip(sampled, objects, strict=True):
        top = np.asarray(window.raw.shape) - 1
        places = np.clip(np.rint(window.points).astype(int), 0, top)
        hits = np.bincount(one.labels[tuple(places.T)], minlength=len(one.areas))
        cells, outside = cells + len(places), outside + int(hits[0])
        area, empty = area + one.areas[1:].sum(), empty + one.areas[1:][hits[1:] == 0].sum()
    return {
        "plain": float(min(numbers)),
        "plain_most": float(max(numbers)),
        "ratio": cells / max(float(np.clip(cells, min(numbers), max(numbers))), 1.0),
        "size": float(np.median(widths)) / diameter if widths.size else math.nan,
        "outside": outside / cells if cells else 0.0,
        "missed": float(empty / area) if area else 0.0,
    }


def _objects(above: np.ndarray, diameter: float, edges: np.ndarray) -> _Objects:
    """The parts of a mask; each peak of the distance to its rim is an object."""
    if above.ndim == 2:
        above = filled(above)
    labels, number = ndimage.label(above)
    areas = np.bincount(labels.ravel(), minlength=number + 1)
    inner = np.pad(above, 1, mode="constant")
    depth = ndimage.distance_transform_edt(inner, sampling=edges)[(slice(1, -1),) * above.ndim]
    finest = edges.min()
    smooth = ndimage.gaussian_filter(depth, finest / edges)
    reach = np.maximum(1, np.rint(min(2.5 * finest, diameter / 4) / edges)).astype(int)
    highest = ndimage.maximum_filter(smooth, (2 * reach + 1).tolist())
    peaks, count = ndimage.label((smooth == highest) & (depth > _THINNEST * diameter))
    highest_of = np.zeros(count + 1)
    inside = peaks > 0
    np.maximum.at(highest_of, peaks[inside], depth[inside])
    return _Objects(labels, areas, 2 * highest_of[1:])
