"""A score as one HTML file: the figures, how they came about, and the images with hits and errors.

As `page.py`: the file needs nothing else, and the same score gives the same bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from cellcount_jax.images.files import replacing
from cellcount_jax.images.regions import Region, all_of
from cellcount_jax.report.charts import open_svg
from cellcount_jax.report.counted import (
    Counted,
    Marks,
    area_text,
    draw,
    figure,
    mark_path,
    place_text,
    planes_text,
)
from cellcount_jax.report.pictures import GREEN, VERMILION, YELLOW
from cellcount_jax.report.places import (
    cell_radius,
    clipped,
    in_region,
    nearest_voxels,
    region_around,
    with_depth,
)
from cellcount_jax.report.templates import template
from cellcount_jax.report.views import MAX_PICTURE_VOXELS, open_volume, project

_COLOURS = {"hit": GREEN, "missed": YELLOW, "false": VERMILION}
_SLAB_UM, _SLAB_VOXELS = 60.0, 16
_MAX_SLABS = 12
_LARGE_VOXELS = 450  # along an axis; a larger image gets the full width
_WINDOW = 300  # voxels along an axis, of a part of a large plane
_CROPS = 7  # of the missed cells of an image, and of the false ones
# Greatest widths and heights in pixels.
_FULL, _HALF, _THIRD, _CROP = (900, 900), (520, 640), (345, 420), (128, 128)


class Shown(NamedTuple):
    """An image of the page.

    Attributes:
      name: of the image.
      html: its pictures.
    """

    name: str
    html: str


class _Section(NamedTuple):
    anchor: str
    html: str


def write_score_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    f1: float,
    sentence: str,
    facts: Mapping[str, str],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: Sequence[str] = (),
    means: str = "",
    remarks: Sequence[str] = (),
    alone: Sequence[str] = (),
    shown: Sequence[Shown] = (),
    chosen: bool = False,
) -> None:
    """Writes the page of a score, whole or not at all.

    Args:
      path: the file.
      title: heading.
      f1: of all images together.
      sentence: the other figures, in words.
      facts: what was compared and how, shown as a table in this order.
      header: names of the columns of the table of scores.
      rows: an image each, as text, its name first.
      total: the last row, of all images together.
      means: what the table does not hold, in words.
      remarks: what speaks against the score, sentences without a full stop.
      alone: images that were not scored, a sentence each.
      shown: the pictures of images, from `show`.
      chosen: whether those images are the ones with the lowest F1.
    """
    text = template("score.html").render(
        title=title,
        f1=f"{f1:.3f}",
        sentence=sentence,
        facts=facts,
        header=header,
        rows=rows,
        total=total,
        means=means,
        remarks=remarks,
        alone=alone,
        shown={one.name: _Section(f"image{i}", one.html) for i, one in enumerate(shown)},
        chosen=chosen,
        keys={kind: _key(kind) for kind in _COLOURS},
        **{f"{kind}_colour": "#{:02x}{:02x}{:02x}".format(*rgb) for kind, rgb in _COLOURS.items()},
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def show(
    name: str,
    *,
    read: Callable[[Region], np.ndarray],
    shape: Sequence[int],
    hits: np.ndarray,
    false: np.ndarray,
    missed: np.ndarray,
    spacing: Sequence[float] | None = None,
    chunks: Sequence[int] | None = None,
) -> Shown:
    """Draws an image, or slabs of a volume, with its hits and errors, and crops of some errors.

    Args:
      name: of the image.
      read: gives `(*region, channels)` float32 of any part of it.
      shape: `(D,)` voxels.
      hits: `(N, D)` found cells that have a dot, in voxels.
      false: `(P, D)` found cells that have none.
      missed: `(M, D)` dots that have no found cell.
      spacing: `(D,)` voxel edges in micrometres; None = unknown.
      chunks: `(D,)` what is stored together, see `page.write_page`.
    """
    volume = open_volume(read, shape, spacing=spacing, chunks=chunks)
    marks = [
        Marks(kind, with_depth(points))
        for kind, points in (("hit", hits), ("missed", missed), ("false", false))
    ]
    every = np.concatenate([mark.points for mark in marks])
    counted = Counted(
        volume=volume,
        points=every,
        scores=np.zeros(len(every)),
        threshold=0.0,
        rejected=np.zeros((0, 3)),
        rejected_scores=np.zeros(0),
        radius=cell_radius(np.concatenate([marks[0].points, marks[1].points]), volume.edges),
        unit=("px", 1.0) if spacing is None else ("µm", float(min(spacing[-2:]))),
    )
    html = f'<div class="row">{_overview(counted, marks)}</div>'
    for kind, others, heading in (
        ("missed", "false", "Missed, those furthest from any found cell first"),
        ("false", "missed", "False, those furthest from any dot first"),
    ):
        crops = _crops(counted, marks, kind, others)
        if crops:
            html += f'<p class="faint">{heading}:</p><div class="row crops">{crops}</div>'
    return Shown(name, html)


def _overview(counted: Counted, marks: Sequence[Marks]) -> str:
    """The image, or the slabs of a volume with the most errors, from above."""
    volume = counted.volume
    depth, *plane = volume.shape
    regions = [all_of(volume.shape)]
    large = max(plane) >= _LARGE_VOXELS
    thick = _SLAB_VOXELS
    if counted.unit[0] != "px":
        thick = max(1, round(_SLAB_UM / counted.edges[0]))
    thick = min(thick, max(1, MAX_PICTURE_VOXELS // math.prod(plane)))
    box = _FULL if large else _HALF
    words = ""
    if depth > 1.5 * thick:
        number = math.ceil(depth / thick)
        bounds = [round(depth * i / number) for i in range(number + 1)]
        regions = [(slice(a, b), *regions[0][1:]) for a, b in zip(bounds, bounds[1:], strict=False)]
        errors = [sum(len(_in(m, region, counted).points) for m in marks[1:]) for region in regions]
        chosen = sorted(np.argsort(np.negative(errors), kind="stable")[:_MAX_SLABS])
        left = len(regions) - len(chosen)
        if left:
            cells = sum(errors) - sum(errors[i] for i in chosen)
            words = f"<p>{left} slabs with {cells} errors in all are not shown.</p>"
        regions = [regions[i] for i in chosen]
        box = _FULL if large else _THIRD
    figures = []
    for region in regions:
        inside = [_in(mark, region, counted) for mark in marks]
        where = "" if counted.flat else f"{planes_text(counted, region, 0).capitalize()}: "
        caption = f"{where}{_numbers(inside)}."
        picture = project(volume, region, axis=0, box=box)
        frames = _closer(counted, marks, region) if max(plane) > 2 * _WINDOW else []
        if frames:
            caption += " The frames, where most errors are, are enlarged below."
        svg = draw(counted, picture, inside, box=box, label=caption, frames=frames)
        figures.append(figure(svg, caption))
        for letter, window in frames:
            there = [_in(mark, window, counted) for mark in marks]
            text = f"{letter}: {area_text(window)}, {_numbers(there)}."
            picture = project(volume, window, axis=0, box=_THIRD)
            figures.append(figure(draw(counted, picture, there, box=_THIRD, label=text), text))
    return "".join(figures) + words


def _closer(counted: Counted, marks: Sequence[Marks], region: Region) -> list[tuple[str, Region]]:
    """Windows of a large plane with most errors, with a letter each."""
    errors = np.concatenate([_in(mark, region, counted).points for mark in marks[1:]])
    if not len(errors):
        return []
    boxes, numbers = np.unique(
        nearest_voxels(errors, counted.volume.shape)[:, 1:] // _WINDOW, axis=0, return_counts=True
    )
    windows: list[tuple[str, Region]] = []
    for place in np.argsort(-numbers, kind="stable")[: len("ABC")]:
        centre = (0, *(boxes[place] + 0.5) * _WINDOW - 0.5)
        size = (1, _WINDOW, _WINDOW)
        window = region_around(centre, size, shape=counted.volume.shape)
        windows.append(("ABC"[len(windows)], (region[0], *window[1:])))
    return windows


def _crops(counted: Counted, marks: Sequence[Marks], kind: str, others: str) -> str:
    """Some of the errors of a kind, each in its plane with those next to it."""
    points = next(mark.points for mark in marks if mark.kind == kind)
    rest = np.concatenate([mark.points for mark in marks if mark.kind in ("hit", others)])
    if not len(points):
        return ""
    edges, shape = counted.volume.edges, counted.volume.shape
    order = np.arange(len(points))
    if len(rest):
        order = np.argsort(-KDTree(rest * edges).query(points * edges)[0], kind="stable")
    side = float(np.clip(8 * counted.radius, 24, 160))
    size = (3, *(2 * round(side / float(edge) / 2) + 1 for edge in edges[1:]))
    figures = []
    for index in order[:_CROPS]:
        voxel = nearest_voxels(points[index][None], shape)[0]
        view = region_around(voxel, size)  # the error is in the middle, at the border too
        region = clipped(view, shape)
        picture = project(counted.volume, region, axis=0, box=_CROP)
        text = place_text(counted, points[index])
        inside = [_in(mark, region, counted) for mark in marks]
        svg = draw(
            counted, picture, inside, box=_CROP, label=f"{kind}: {text}", bar=False, view=view
        )
        figures.append(figure(svg, text, kind="crop"))
    return "".join(figures)


def _numbers(marks: Sequence[Marks]) -> str:
    hits, missed, false = (len(mark.points) for mark in marks)
    return f"{hits:,} hits, {missed:,} missed, {false:,} false"


def _in(mark: Marks, region: Region, counted: Counted) -> Marks:
    inside = in_region(mark.points, region, counted.volume.shape)
    return Marks(mark.kind, mark.points[inside])


def _key(kind: str) -> str:
    """A mark for the legend."""
    path = mark_path(np.array([[11.0, 11.0]]), 8.0, kind)
    drawn = f'<path class="rim" d="{path}"/><path class="{kind}" d="{path}"/>'
    return f"{open_svg(22, 22, kind)}{drawn}</svg>"
