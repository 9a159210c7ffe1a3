"""A count as one HTML file: the number, what it was made with, and all that helps to judge it.

The file needs nothing else, runs no program and fetches nothing; the same count gives the same
bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from cellcount_jax.data.files import replacing
from cellcount_jax.errors import InputError
from cellcount_jax.panels.charts import number
from cellcount_jax.panels.counted import Counted
from cellcount_jax.panels.crops import doubtful
from cellcount_jax.panels.diagrams import density_map, depth_chart, mean_density, score_chart
from cellcount_jax.panels.overview import overview, planes
from cellcount_jax.panels.places import cell_radius
from cellcount_jax.panels.style import STYLE
from cellcount_jax.panels.views import Region, open_volume


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
) -> None:
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

    Raises:
      InputError: the arrays do not fit the image or each other.
    """
    _check(shape, points, scores, candidates, candidate_points, spacing)
    volume = open_volume(read, shape, spacing=spacing, chunks=chunks)
    places = _three(points)
    below = candidates < threshold
    nowhere = np.zeros((0, len(shape)))
    rejected = nowhere if candidate_points is None else candidate_points[below]
    counted = Counted(
        volume=volume,
        points=places,
        scores=np.asarray(scores, np.float64),
        threshold=threshold,
        rejected=_three(rejected),
        rejected_scores=candidates[below] if candidate_points is not None else np.zeros(0),
        radius=cell_radius(places, volume.edges),
        unit=("px", 1.0) if spacing is None else ("µm", float(min(spacing[-2:]))),
    )
    text = "\n".join(
        [
            _head(title, counted),
            _facts(facts),
            _pictures(counted),
            _charts(counted, candidates[below]),
            _regions(regions or ()),
            "</main>\n</body>\n</html>\n",
        ]
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


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


def _three(points: np.ndarray) -> np.ndarray:
    """Points with z; those of an image have z = 0."""
    missing = 3 - points.shape[1]
    return np.pad(np.asarray(points, np.float64), ((0, 0), (missing, 0)))


def _head(title: str, counted: Counted) -> str:
    count = len(counted.points)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: {count:,} cells</title>
<style>{STYLE}</style>
</head>
<body>
<input type="checkbox" id="rings" checked><label class="toggle" for="rings">Show the rings</label>
<main>
<h1>{escape(title)}</h1>
<p class="count"><b>{count:,}</b> cell{"" if count == 1 else "s"}</p>
<p class="faint">{escape(mean_density(counted))}</p>"""


def _facts(facts: Mapping[str, str]) -> str:
    rows = (
        f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items()
    )
    return f"<h2>What was counted, and how</h2>\n<table>{''.join(rows)}</table>" if facts else ""


def _pictures(counted: Counted) -> str:
    parts = ["<h2>The cells</h2>", overview(counted)]
    if not counted.flat:
        parts += ["<h3>Single planes</h3>", planes(counted)]
    kept, rejected = doubtful(counted)
    side_seen = not counted.flat and counted.volume.deep
    parts.append("<h2>Around the threshold</h2>")
    level = number(counted.threshold)
    beside = " Below each the same place from the side." if side_seen else ""
    if kept:
        parts.append(
            f"<h3>Counted, with scores nearest to the threshold of {level}</h3><p class='faint'>"
            "If most of these are no cells, a higher threshold is better. Dots are other counted"
            f" cells.{beside} Every crop has its own contrast.</p>{kept}"
        )
    else:
        parts.append("<p>No cell was counted.</p>")
    if rejected:
        parts.append(
            f"<h3>Not counted, with scores just below {level}</h3><p class='faint'>If most of"
            f" these are cells, a lower threshold is better.</p>{rejected}"
        )
    return "\n".join(parts)


def _charts(counted: Counted, rejected: np.ndarray) -> str:
    figures = [score_chart(counted, rejected), density_map(counted)]
    figures += [] if counted.flat else [depth_chart(counted)]
    return f'<h2>Scores, and where the cells are</h2>\n<div class="row">{"".join(figures)}</div>'


def _regions(regions: Sequence[Mapping[str, object]]) -> str:
    if not regions:
        return ""
    columns = list(dict.fromkeys(column for row in regions for column in row))
    numeric = {c: all(_is_number(row[c]) for row in regions if c in row) for c in columns}

    def cell(tag: str, column: str, text: str) -> str:
        kind = ' class="n"' if numeric[column] else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", c, _heading(c)) for c in columns)
    body = "".join(
        f"<tr>{''.join(cell('td', c, _value(c, row.get(c, ''))) for c in columns)}</tr>"
        for row in regions
    )
    return (
        f'<h2>Regions</h2>\n<div class="wide"><table class="regions"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _heading(column: str) -> str:
    """volume_mm3 is read as volume (mm³)."""
    words = str(column).replace("mm3", "mm³").replace("mm2", "mm²").split("_")
    if len(words) > 1 and words[-1].startswith("mm") and words[-2] != "per":
        words[-1] = f"({words[-1]})"
    return " ".join(words)


def _value(column: str, value: object) -> str:
    """Numbers for people, but numbers that are names as they are."""
    if isinstance(value, float | np.floating):
        return number(float(value)) if math.isfinite(value) else "–"
    is_name = str(column).lower() in ("region", "label") or str(column).lower().endswith("id")
    return f"{value:,}" if _is_number(value) and not is_name else str(value)
