"""A count as one HTML file: the number, its settings, and pictures and charts to judge it by.

The file needs nothing else, runs no program and fetches nothing; the same count gives the same
bytes. Its text is in page.html, a template of Jinja, which escapes all that is filled in but the
drawings.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.coverage import Inside
from cellcount_jax.images.files import replacing
from cellcount_jax.images.regions import Region
from cellcount_jax.report.charts import COUNTED, REJECTED, number
from cellcount_jax.report.counted import Counted
from cellcount_jax.report.diagrams import density_map, depth_chart, mean_density, score_chart
from cellcount_jax.report.overview import doubtful, overview, planes
from cellcount_jax.report.places import cell_radius, with_depth
from cellcount_jax.report.templates import template
from cellcount_jax.report.views import open_volume, thumbnail


class _Column(NamedTuple):
    """A column of the table of regions."""

    heading: str
    numeric: bool


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    facts: Mapping[str, str],
    read: Callable[[Region], np.ndarray],
    shape: Sequence[int],
    points: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    candidates: np.ndarray,
    candidate_points: np.ndarray | None = None,
    spacing: Sequence[float] | None = None,
    chunks: Sequence[int] | None = None,
    regions: Sequence[Mapping[str, object]] | None = None,
    regions_note: str = "",
    doubts: Sequence[str] = (),
    inside: Inside | None = None,
) -> np.ndarray:
    """Writes the report of a count as one HTML file, whole or not at all.

    Args:
      path: the file.
      title: heading, such as the name of the image.
      facts: what the count was made with, to be shown as a table in this order.
      read: gives `(*region, channels)` float32 of any part of the image; never asked for more
        than 64 million values at once.
      shape: `(D,)` y, x or z, y, x, in voxels.
      points: `(N, D)` the counted cells in voxels, in the order of points.csv.
      scores: `(N,)` theirs.
      threshold: that the scores had to reach.
      candidates: `(C,)` scores of all candidates, those below the threshold too; may be empty.
      candidate_points: `(C, D)` theirs; with them the page shows what was nearly counted.
      spacing: `(D,)` voxel edges in micrometres; None = unknown, lengths are in pixels then.
      chunks: `(D,)` what is stored together in the file, `Source.chunks`; what to read of an
        image that does not fit in memory depends on it.
      regions: rows of a table of counts, a mapping from the columns' names to values.
      regions_note: a sentence below that table.
      doubts: reasons not to trust the count, shown in a box at the top.
      inside: the part of the image that was counted; densities are of that part. None = all of it.

    Returns:
      `(height, width, 1 or 3)` uint8, its first picture as a thumbnail.

    Raises:
      InputError: the arrays do not fit the image or each other.
    """
    _check(shape, points, scores, candidates, candidate_points, spacing)
    volume = open_volume(read, shape, spacing=spacing, chunks=chunks)
    places = with_depth(points)
    below = candidates < threshold
    rejected = np.zeros((0, 3)), np.zeros(0)
    if candidate_points is not None:
        rejected = with_depth(candidate_points[below]), candidates[below]
    counted = Counted(
        volume=volume,
        points=places,
        scores=np.asarray(scores, np.float64),
        threshold=threshold,
        rejected=rejected[0],
        rejected_scores=rejected[1],
        radius=cell_radius(places, volume.edges),
        unit=("px", 1.0) if spacing is None else ("µm", float(min(spacing[-2:]))),
        inside=inside,
    )
    kept_crops, rejected_crops = doubtful(counted)
    charts = score_chart(counted, candidates[below]) + density_map(counted)
    columns, rows = _table(regions or ())
    pictures, first = overview(counted)
    text = template("page.html").render(
        title=title,
        count=f"{len(points):,}",
        density=mean_density(counted),
        doubts=doubts,
        facts=facts,
        overview=pictures,
        planes="" if counted.flat else planes(counted),
        threshold=number(threshold),
        side_views=not counted.flat and volume.deep,
        counted=kept_crops,
        rejected=rejected_crops,
        charts=charts if counted.flat else charts + depth_chart(counted),
        columns=columns,
        rows=rows,
        regions_note=regions_note,
        counted_colour=COUNTED,
        rejected_colour=REJECTED,
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return thumbnail(first)


def _check(
    shape: Sequence[int],
    points: np.ndarray,
    scores: np.ndarray,
    candidates: np.ndarray,
    candidate_points: np.ndarray | None,
    spacing: Sequence[float] | None,
) -> None:
    ndim = len(shape)
    if ndim not in (2, 3):
        raise InputError(f"shape is {tuple(shape)}; it must be y, x or z, y, x.")
    if spacing is not None and len(spacing) != ndim:
        raise InputError(f"spacing is {tuple(spacing)}; the image has {ndim} axes.")
    pairs = [("points", points, scores), ("candidate_points", candidate_points, candidates)]
    for name, places, values in pairs:
        if places is not None and places.shape != (len(values), ndim):
            raise InputError(
                f"{name} has shape {places.shape}; for {len(values)} scores of this image it must"
                f" be ({len(values)}, {ndim})."
            )


def _table(regions: Sequence[Mapping[str, object]]) -> tuple[list[_Column], list[list[str]]]:
    """The columns and the cells of the table of regions, as text."""
    names = list(dict.fromkeys(name for row in regions for name in row))
    numeric = [
        all(_is_number(row[name]) or row[name] is None for row in regions if name in row)
        for name in names
    ]
    columns = [_Column(_heading(name), flag) for name, flag in zip(names, numeric, strict=True)]
    return columns, [[_value(name, row.get(name, "")) for name in names] for row in regions]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _heading(column: str) -> str:
    """The name of a column as text: "volume (mm³)" for volume_mm3."""
    words = str(column).replace("mm3", "mm³").replace("mm2", "mm²").split("_")
    if len(words) > 1 and words[-1].startswith("mm") and words[-2] != "per":
        words[-1] = f"({words[-1]})"
    return " ".join(words)


def _value(column: str, value: object) -> str:
    """A value as text: numbers rounded, but identifiers as they are; a dash for no number."""
    if value is None:
        return "–"
    if isinstance(value, float | np.floating):
        return number(float(value)) if math.isfinite(value) else "–"
    is_name = str(column).lower() in ("region", "label") or str(column).lower().endswith("id")
    return f"{value:,}" if _is_number(value) and not is_name else str(value)
