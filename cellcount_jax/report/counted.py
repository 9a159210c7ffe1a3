"""A count as the parts of a page take it, and words for parts of its image."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from cellcount_jax.report.charts import open_svg, pixels, round_down
from cellcount_jax.report.views import Picture, Region, Volume, encode, fit, levels


class Counted(NamedTuple):
    """A count, with its image.

    Attributes:
      volume: the image; one plane if it has no depth.
      points: `(N, 3)` voxels.
      scores: `(N,)`.
      threshold: in the unit of the scores.
      rejected: `(R, 3)` candidates below the threshold, where their places are known.
      rejected_scores: `(R,)`.
      radius: of a ring, in the unit of `volume.edges`.
      unit: of a length, and how long the unit of `volume.edges` is in it.
    """

    volume: Volume
    points: np.ndarray
    scores: np.ndarray
    threshold: float
    rejected: np.ndarray
    rejected_scores: np.ndarray
    radius: float
    unit: tuple[str, float]

    @property
    def flat(self) -> bool:
        """Whether the image has no depth."""
        return self.volume.shape[0] == 1

    @property
    def edges(self) -> np.ndarray:
        """`(3,)` of a voxel, in `unit`; where that is pixels they are all 1."""
        return self.volume.edges * self.unit[1]


def figure(svg: str, caption: str, *, kind: str = "") -> str:
    """A drawing with what one sees in it.

    Args:
      svg: the drawing.
      caption: plain text.
      kind: class of the figure.

    Returns:
      HTML.
    """
    return f'<figure class="{kind}">{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def draw(
    counted: Counted,
    picture: Picture,
    marks: Sequence[Marks],
    *,
    box: tuple[int, int],
    label: str,
    frames: Sequence[tuple[str, Region]] = (),
    slab: slice | None = None,
    bar: bool = True,
    view: Region | None = None,
    highest: float | None = None,
) -> str:
    """A picture of a count; see `overlay_svg`.

    Args:
      counted: see `Counted`.
      picture: of its image.
      marks: what to mark.
      box: the greatest width and height in pixels.
      label: what it shows, for those who do not see it.
      frames: letters, and the regions to frame.
      slab: the part of the vertical axis to mark at the margins.
      bar: whether there is a scale bar.
      view: what to show, where that reaches beyond the picture's region.
      highest: what is shown brightest; see `levels`.

    Returns:
      SVG.
    """
    return overlay_svg(
        picture,
        marks,
        edges=counted.volume.edges,
        radius=counted.radius,
        box=box,
        label=label,
        frames=frames,
        slab=slab,
        unit=counted.unit if bar else None,
        view=view,
        highest=highest,
    )


def cells(count: int) -> str:
    """A number of cells in words.

    Args:
      count: how many.

    Returns:
      "1 cell", "1,234 cells".
    """
    return f"{count:,} cell{'' if count == 1 else 's'}"


def place(counted: Counted, point: np.ndarray) -> str:
    """A place in words, in voxels as in points.csv.

    Args:
      counted: see `Counted`.
      point: `(3,)` voxels.

    Returns:
      "z 1, y 2, x 3".
    """
    axes = "yx" if counted.flat else "zyx"
    voxel = np.floor(point[3 - len(axes) :] + 0.5).astype(int)
    return ", ".join(f"{a}\N{NO-BREAK SPACE}{v}" for a, v in zip(axes, voxel, strict=True))


def stretch(counted: Counted, region: Region, axis: int) -> str:
    """Planes or rows in words, and how deep a single one lies or how thick several are.

    Args:
      counted: see `Counted`.
      region: z, y, x.
      axis: 0 for planes, 1 for rows.

    Returns:
      "planes 10 to 19 (60 µm)".
    """
    part, word = region[axis], ("plane", "row")[axis]
    count = part.stop - part.start
    length = (part.start if count == 1 else count) * counted.edges[axis]
    known = counted.unit[0] != "px" and (count > 1 or axis == 0)
    text = f"{'z ' * (count == 1)}{length:,.0f}\N{NO-BREAK SPACE}{counted.unit[0]}"
    value = f" ({text})" if known else ""
    if count == 1:
        return f"{word} {part.start}{value}"
    if count == counted.volume.shape[axis]:
        return f"all {count} {word}s{value}"
    return f"{word}s {part.start} to {part.stop - 1}{value}"


def span(region: Region) -> str:
    """Rows and columns of a part of a plane in words.

    Args:
      region: z, y, x.

    Returns:
      "y 0 to 9, x 20 to 29".
    """
    _, y, x = region
    return f"y {y.start} to {y.stop - 1}, x {x.start} to {x.stop - 1}"


_RADIUS = (5.0, 24.0)  # pixels
_CROWDED = 0.15  # part of a picture that rings may enclose; they shrink beyond it
_MANY = 20_000  # marks in a picture; of more, those are left out that would lie on each other


class Marks(NamedTuple):
    """Points that are marked alike.

    Attributes:
      kind: how: "counted", "beside" (counted, in a plane next to it), "rejected", "spot" (no
        cell, but worth a look), or "other", a dot.
      points: `(N, 3)` voxels.
    """

    kind: str
    points: np.ndarray


def overlay_svg(
    picture: Picture,
    marks: Sequence[Marks],
    *,
    edges: np.ndarray,
    radius: float,
    box: tuple[int, int],
    label: str,
    frames: Sequence[tuple[str, Region]] = (),
    slab: slice | None = None,
    unit: tuple[str, float] | None = None,
    view: Region | None = None,
    highest: float | None = None,
) -> str:
    """A picture with marks, and a scale bar.

    Args:
      picture: the pixels.
      marks: what to mark; everything given is taken to lie in the picture.
      edges: `(3,)` of a voxel.
      radius: of a cell in the unit of `edges`.
      box: the greatest width and height in pixels.
      label: what it shows, for those who do not see it.
      frames: letters, and the regions to frame.
      slab: the part of the vertical axis that another picture shows, to mark at the margins.
      unit: for a scale bar, its name and the length of `edges`' unit in it; None = no bar.
      view: what to show, where that reaches beyond the picture's region; None = that region.
      highest: what is shown brightest; see `levels`.

    Returns:
      SVG.
    """
    axes = [1 - picture.axis, 2]
    shown = picture.region if view is None else view
    size = np.array([shown[a].stop - shown[a].start for a in axes])
    first = np.array([shown[a].start for a in axes])
    tall, wide = size * edges[axes]
    width, height = fit(tall, wide, box)
    # Exact in each direction: the picture fills its box to the pixel.
    per_voxel = np.array([height, width]) / size
    per_unit = width / wide

    y, x = (np.array([picture.region[a].start for a in axes]) - first) * per_voxel
    h, w = np.asarray(picture.covered) * per_voxel
    parts = [
        open_svg(width, height, label),
        f'<rect class="beyond" width="{width}" height="{height}"/>' if view else "",
        pixels(encode(levels(picture.pixels, highest=highest)), x, y, w, h),
    ]
    ink = []
    for mark in marks:
        places = (mark.points[:, axes] - first + 0.5) * per_voxel
        wanted = float(np.clip(radius * per_unit, *_RADIUS))
        room = (_CROWDED * width * height / np.pi / max(len(places), 1)) ** 0.5
        ink.append(_rings(places, min(wanted, room), mark.kind))
    parts.append(f'<g class="rings">{"".join(ink)}</g>')
    for letter, frame in frames:
        y, x = (np.array([frame[a].start for a in axes]) - first) * per_voxel
        h, w = np.array([frame[a].stop - frame[a].start for a in axes]) * per_voxel
        parts.append(
            f'<rect class="frame" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>'
            f'<text class="on" x="{x + 5:.1f}" y="{y + 17:.1f}">{escape(letter)}</text>'
        )
    if slab is not None:
        for edge in (slab.start, slab.stop):
            y = (edge - first[0]) * per_voxel[0]
            parts.append(f'<path class="frame" d="M0 {y:.1f}h14M{width} {y:.1f}h-14"/>')
    if unit is not None and min(width, height) >= 40:
        parts.append(_scale_bar(width, height, unit[0], unit[1] / per_unit))
    return "".join(parts) + "</svg>"


def _rings(places: np.ndarray, radius: float, kind: str) -> str:
    """Of a dark and a coloured line, so that they show on any picture."""
    if not len(places):
        return ""
    if radius < 3 or kind == "other" or len(places) > _MANY:
        step = 3.0 if len(places) > _MANY else 0.5
        dots = np.unique(np.rint(places / step), axis=0) * step
        path = "".join(f"M{x:g} {y:g}h0" for y, x in dots)
        return f'<path class="dot rim" d="{path}"/><path class="dot {kind}" d="{path}"/>'
    r = round(radius, 1)
    circle = f"a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0"
    path = "".join(f"M{x - r:.1f} {y:.1f}{circle}" for y, x in places)
    return f'<path class="rim" d="{path}"/><path class="{kind}" d="{path}"/>'


def _scale_bar(width: int, height: int, unit: str, per_pixel: float) -> str:
    """A round length, about a fifth of the width, in the lower right corner."""
    length = round_down(max(width, 60) * per_pixel / 4)
    wide = length / per_pixel
    x, y = width - 10 - wide, height - 14
    text = f"{length / 1000:g} mm" if unit == "µm" and length >= 1000 else f"{length:g} {unit}"
    middle = min(x + wide / 2, width - 4 - 4.5 * len(text))  # so that no letter is cut
    return (
        f'<rect class="bar" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="4"/>'
        f'<text class="on" x="{middle:.1f}" y="{y - 6}" text-anchor="middle">'
        f"{escape(text)}</text>"
    )
