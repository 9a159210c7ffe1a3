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

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing
from cellcount_jax.images.regions import Region
from cellcount_jax.report.charts import COUNTED, REJECTED, number
from cellcount_jax.report.counted import Counted
from cellcount_jax.report.diagrams import density_map, depth_chart, mean_density, score_chart
from cellcount_jax.report.overview import doubtful, overview, planes
from cellcount_jax.report.places import cell_radius
from cellcount_jax.report.views import open_volume


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


STYLE = f"""
:root {{ color-scheme: light dark; --ink: #1c1c1c; --faint: #5f5f5f; --paper: #fff;
  --line: #d4d4d4; --band: #f5f5f3; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e8e8e6; --faint: #a9a9a6;
  --paper: #171717; --line: #444; --band: #222; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1100px; margin: 0 auto; padding: 16px 16px 48px; }}
h1 {{ font-size: 1.25rem; margin: 12px 0 0; font-weight: 600; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 40px 0 4px; padding-top: 12px;
  border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 24px 0 0; }}
p {{ margin: 4px 0 12px; max-width: 75ch; }}
.count {{ font-size: 1.5rem; margin: 0; }}
.count b {{ font-size: 3.5rem; line-height: 1.15; font-variant-numeric: tabular-nums; }}
.faint, figcaption {{ color: var(--faint); }}
figcaption {{ font-size: .875rem; line-height: 1.4; margin-top: 6px; overflow-wrap: anywhere; }}
.row {{ display: flex; flex-wrap: wrap; gap: 20px 16px; align-items: flex-start;
  margin-top: 14px; }}
figure {{ margin: 0; width: fit-content; max-width: 100%; min-width: 220px;
  break-inside: avoid; }}
figure.crop {{ min-width: 0; }}
/* A caption is as wide as its picture. */
figcaption {{ width: 0; min-width: 100%; }}
svg {{ display: block; max-width: 100%; height: auto; }}
.crop svg + svg {{ margin-top: 4px; }}
svg text {{ font-size: 13px; fill: currentColor; }}
.pixels {{ image-rendering: pixelated; }}
.grid {{ stroke: var(--line); fill: none; }}
.axis {{ stroke: currentColor; fill: none; }}
.line {{ stroke: currentColor; stroke-width: 2; stroke-dasharray: 6 4; fill: none; }}
.rim, .counted, .beside, .rejected {{ fill: none; stroke-width: 2; }}
.rim {{ stroke: #000; stroke-opacity: .6; stroke-width: 4; }}
.counted, .beside, .other {{ stroke: {COUNTED}; }}
.beside {{ stroke-dasharray: 4 3; }}
.spot {{ fill: none; stroke: #fff; stroke-width: 1.5; stroke-dasharray: 2 3; }}
.beyond {{ fill: #7a7a7a; }}
.rejected {{ stroke: {REJECTED}; }}
.dot {{ stroke-linecap: round; stroke-width: 4; }}
.dot.rim {{ stroke-width: 6; }}
.frame {{ fill: none; stroke: #fff; stroke-width: 1.5; paint-order: stroke;
  filter: drop-shadow(0 0 1px #000); }}
.bar {{ fill: #fff; stroke: #000; stroke-width: 1; }}
svg .on {{ fill: #fff; stroke: #000; stroke-width: 3; paint-order: stroke; font-weight: 600; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: 4px 16px 4px 8px; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }}
tr > th:first-child {{ font-weight: 600; white-space: nowrap; }}
td.n, th.n {{ text-align: right; white-space: nowrap; }}
.wide {{ overflow-x: auto; }}
.regions tbody tr:nth-child(even) {{ background: var(--band); }}
#rings {{ position: absolute; opacity: 0; }}
.toggle {{ position: sticky; top: 0; z-index: 1; display: block; max-width: 1100px;
  margin: 0 auto; padding: 6px 16px; background: var(--paper); cursor: pointer; }}
.toggle::before {{ content: "\\2610\\a0"; }}
#rings:checked ~ .toggle::before {{ content: "\\2611\\a0"; }}
#rings:focus-visible ~ .toggle {{ outline: 2px solid currentColor; }}
#rings:not(:checked) ~ main .rings {{ display: none; }}
@media (max-width: 600px) {{ .row {{ gap: 16px 10px; }}
  .small figure {{ width: calc(50% - 5px); min-width: 0; }}
  .crops figure {{ width: calc(33.3% - 7px); }} .crops figcaption {{ font-size: .75rem; }} }}
@media print {{ .toggle {{ display: none; }} main {{ max-width: none; padding: 0; }}
  h2 {{ break-after: avoid; }} .wide {{ overflow: visible; }} }}
"""
