"""Charts of a count: histogram of the scores, density map, and cells by depth."""

from __future__ import annotations

import math

import numpy as np

from cellcount_jax.report.charts import COUNTED, REJECTED, Bars, bars, heat_map, number
from cellcount_jax.report.counted import Counted, figure
from cellcount_jax.report.places import nearest_voxels

_SCORE_BINS = 40
_MAX_DEPTH_BARS = 60
_CELLS_PER_BOX = 6  # of the density map, on average
_MIN_SHARE = 0.05  # of the fullest box that is inside a mask; a density of less says nothing
_MAX_BOXES = 64  # along the longer side of the density map


def mean_density(counted: Counted) -> str:
    """Cells per area or volume of what was counted of the image, as text without a full stop."""
    sizes = (np.array(counted.volume.shape) * counted.edges)[int(counted.flat) :]
    factor, per = _per(counted)
    extent = " × ".join(number(float(size)) for size in sizes)
    extent = f"{extent} {counted.unit[0]}"
    content = float(np.prod(sizes)) / factor
    if counted.inside is not None:
        share = counted.inside.share_of_all
        content *= share
        extent = f"{number(content)} {per} inside the mask, {number(100 * share)} % of {extent}"
        if not share:
            return f"nothing of the image is inside the mask, {extent}"
    density = len(counted.points) / content
    return f"{number(density)} cells per {per} on average, in {extent}"


def score_chart(counted: Counted, rejected: np.ndarray) -> str:
    """Histogram of the scores, also of the rejected candidates `(R,)`; empty without any score."""
    scores, threshold = counted.scores, counted.threshold
    every = np.concatenate([scores, rejected, [threshold]])
    if len(every) == 1:
        return ""
    # Edges lie on the threshold, so that no bin holds both kinds.
    width = float(every.max() - every.min()) / _SCORE_BINS or max(abs(threshold), 1.0) / _SCORE_BINS
    first = math.floor((every.min() - threshold) / width - 1e-9)
    last = math.ceil((every.max() - threshold) / width + 1e-9)
    edges = threshold + width * np.arange(first, last + 1)
    kinds = []
    for name, colour, values, bins in (
        ("counted", COUNTED, scores, edges[-first:]),
        ("below the threshold", REJECTED, rejected, edges[: 1 - first]),
    ):
        if not len(values):
            continue
        heights = np.zeros(len(edges) - 1, np.int64)
        offset = -first if name == "counted" else 0
        found = np.histogram(values, bins)[0]
        heights[offset : offset + len(found)] = found
        spans = zip(edges, edges[1:], heights, strict=False)
        notes = [f"{a:.3g} to {b:.3g}: {n:,} {name}" for a, b, n in spans]
        kinds.append(Bars(name, colour, heights, notes))
    # Bars of noise can be so tall that the cells would not be seen.
    tallest = int(max(kind.heights.max() for kind in kinds))
    cells = int(kinds[0].heights.max()) if len(scores) else tallest
    cut = 3.0 * cells if tallest > 4 * cells else None
    caption = f"How many have which score. {_other_counts(counted, rejected)}"
    if cut is not None:
        caption += f" Bars that end at the top are taller, the tallest has {tallest:,}."
    svg = bars(
        edges,
        kinds,
        across="score",
        up="candidates" if len(rejected) else "cells",
        label=f"Histogram of the scores, with the threshold at {number(threshold)}.",
        line=(threshold, f"threshold {number(threshold)}"),
        highest=cut,
    )
    return figure(svg, caption, kind="chart")


def density_map(counted: Counted) -> str:
    """Cells per area, or per volume over the whole depth, in boxes of a few cells each."""
    shape, unit = counted.volume.shape, counted.unit[0]
    points = counted.points[:, 1:]
    size = [n * float(edge) for n, edge in zip(shape[1:], counted.edges[1:], strict=True)]
    side = math.sqrt(size[0] * size[1] * _CELLS_PER_BOX / max(len(points), 1))
    side = max(side, max(size) / _MAX_BOXES)
    boxes = [max(1, min(round(s / side), n)) for s, n in zip(size, shape[1:], strict=True)]
    # An image ends half a voxel beyond the middle of its last one.
    places = np.clip(points, -0.5, np.array(shape[1:]) - 0.5)
    borders = [(-0.5, n - 0.5) for n in shape[1:]]
    counts = np.histogram2d(places[:, 0], places[:, 1], boxes, borders)[0]
    content = np.full(boxes, math.prod(size) / math.prod(boxes))
    content *= 1.0 if counted.flat else shape[0] * float(counted.edges[0])
    if counted.inside is not None:
        grid = [np.linspace(0, 1, n + 1) for n in (*(() if counted.flat else (1,)), *boxes)]
        content *= counted.inside.share_of(grid).reshape(boxes)
    factor, per = _per(counted)
    whole = content.max(initial=0.0)
    values = np.divide(
        counts * factor, content, out=np.full(boxes, np.nan), where=content > _MIN_SHARE * whole
    )
    highest = float(np.nanmax(values, initial=0.0))
    svg = heat_map(
        values,
        extent=(size[0], size[1]),
        unit=unit,
        legend=f"cells per {per}",
        label=f"Map of the density of cells, up to {number(highest)} cells per {per}.",
    )
    box = " × ".join(number(s / n) for s, n in zip(size, boxes, strict=True))
    deep = "" if counted.flat else ", seen from above and averaged over the whole depth"
    masked = "" if counted.inside is None else ", of what is inside the mask"
    grey = " Grey: hardly anything is inside." if np.isnan(values).any() else ""
    caption = f"Density of cells{deep}{masked}. A box is {box} {unit}.{grey}"
    return figure(svg, caption, kind="chart")


def depth_chart(counted: Counted) -> str:
    """Cells per plane of a volume, over its depth."""
    depth, unit = counted.volume.shape[0], counted.unit[0]
    step = math.ceil(depth / _MAX_DEPTH_BARS)
    planes = np.append(np.arange(0, depth, step), depth)
    found = np.bincount(nearest_voxels(counted.points, counted.volume.shape)[:, 0], minlength=depth)
    sums = np.add.reduceat(found, planes[:-1])
    spans = zip(planes, planes[1:], sums, strict=False)
    notes = [f"planes {a} to {b - 1}: {n:,} cells" for a, b, n in spans]
    svg = bars(
        planes * float(counted.edges[0]),
        [Bars("", COUNTED, sums / np.diff(planes), notes)],
        across="z (plane)" if unit == "px" else f"z ({unit})",
        up="cells per plane",
        label="Bar chart of the number of cells by depth.",
    )
    each = "A bar is a plane." if step == 1 else f"A bar is the mean of {step} planes."
    return figure(svg, f"Cells by depth. {each}", kind="chart")


def _per(counted: Counted) -> tuple[float, str]:
    """The factor from cells per `unit` to a unit of size with readable numbers, and that unit."""
    ndim = 2 if counted.flat else 3
    power = "²³"[ndim - 2]
    if counted.unit[0] == "px":
        return 100.0**ndim, f"(100 px){power}"
    return 1000.0**ndim, f"mm{power}"


def _other_counts(counted: Counted, rejected: np.ndarray) -> str:
    """The counts with a lower and a higher threshold, as text."""
    scores, threshold = counted.scores, counted.threshold
    parts = []
    if len(rejected) and rejected.min() <= 0.9 * threshold:
        more = len(scores) + int((rejected >= 0.9 * threshold).sum())
        parts.append(f"{0.9 * threshold:.3g} about {more:,}")
    parts.append(f"{1.1 * threshold:.3g} about {int((scores >= 1.1 * threshold).sum()):,}")
    return f"The count is {len(scores):,}; with a threshold of {' and of '.join(parts)}."
