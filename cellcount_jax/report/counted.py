"""A count with its image, as the parts of a page take it: drawn with marks, and as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from cellcount_jax.images.coverage import Inside
from cellcount_jax.images.regions import Region, extent, voxels_of
from cellcount_jax.report.charts import open_svg, pixels
from cellcount_jax.report.pictures import round_down
from cellcount_jax.report.places import in_region
from cellcount_jax.report.views import Picture, Volume, encode, fit, levels

_RADIUS_PIXELS = (5.0, 24.0)
_MAX_RING_SHARE = 0.15  # of a picture that rings may enclose; they shrink beyond it
_MAX_MARKS = 20_000  # in a picture; of more, those are left out that would lie on each other
_LETTERS_IN_WIDTH = 45  # of a picture: on a narrow screen it shrinks with its text
_SPACE = "\N{NO-BREAK SPACE}"


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
      unit: of a length, and the unit of `volume.edges` in it.
      inside: the part of the image that was counted; None = all was.
    """

    volume: Volume
    points: np.ndarray
    scores: np.ndarray
    threshold: float
    rejected: np.ndarray
    rejected_scores: np.ndarray
    radius: float
    unit: tuple[str, float]
    inside: Inside | None = None

    @property
    def flat(self) -> bool:
        """Whether the image has no depth."""
        return self.volume.shape[0] == 1

    @property
    def edges(self) -> np.ndarray:
        """`(3,)` of a voxel, in `unit`; where that is pixels they are all 1."""
        return self.volume.edges * self.unit[1]


class Marks(NamedTuple):
    """Points that are marked alike.

    Attributes:
      kind: "counted", "beside" (counted, in a plane next to it), "rejected", "spot" (no cell, but
        worth a look), "other", a dot; of a score "hit", "missed", a square, or "false", a cross.
      points: `(N, 3)` voxels.
      colour: as in CSS; empty = that of the kind.
    """

    kind: str
    points: np.ndarray
    colour: str = ""


def figure(svg: str, caption: str, *, kind: str = "") -> str:
    """A drawing with its caption, which is escaped here, and a class of CSS."""
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
    """A picture of a count with marks, as SVG.

    Args:
      counted: the count.
      picture: of its image.
      marks: points in the picture.
      box: the greatest width and height in pixels.
      label: description, for screen readers.
      frames: letters, and the regions to frame.
      slab: the part of the vertical axis that another picture shows, marked at the margins.
      bar: whether there is a scale bar, below the picture: no cell is under it.
      view: the region to show, which may reach beyond the picture's; None = the picture's.
      highest: the brightest value shown; see `levels`.
    """
    axes = [1 - picture.axis, 2]
    edges = counted.volume.edges[axes]
    shown = picture.region if view is None else view
    size = np.array(extent(shown))[axes]
    first = np.array([shown[a].start for a in axes])
    tall, wide = size * edges
    width, height = fit(tall, wide, box)
    # Exact in each direction: the picture fills its box to the pixel.
    per_voxel = np.array([height, width]) / size
    per_unit = width / wide

    y, x = (np.array([picture.region[a].start for a in axes]) - first) * per_voxel
    h, w = np.asarray(picture.covered) * per_voxel
    letters = letter_size(width)
    scale = _scale_bar((width, height), counted.unit, per_unit, letters) if bar else ""
    shown_pixels = levels(picture.pixels, highest=highest)
    if picture.tint is not None:
        shown_pixels = np.rint(shown_pixels * picture.tint).astype(np.uint8)
    parts = [
        open_svg(width, height + (letters + 15) * bool(scale), label),
        f'<rect class="beyond" width="{width}" height="{height}"/>' if view else "",
        pixels(encode(shown_pixels), x, y, w, h),
    ]
    marked = [(mark.points[:, axes] - first + 0.5) * per_voxel for mark in marks]
    count = sum(map(len, marked))
    if count > _MAX_MARKS:
        marked = _apart(marked)
    rings = []
    for mark, places in zip(marks, marked, strict=True):
        radius = float(np.clip(counted.radius * per_unit, *_RADIUS_PIXELS))
        room = (_MAX_RING_SHARE * width * height / np.pi / max(count, 1)) ** 0.5
        rings.append(_rings(places, min(radius, room), mark))
    parts.append(f'<g class="rings">{"".join(rings)}</g>')
    for letter, frame in frames:
        y, x = (np.array([frame[a].start for a in axes]) - first) * per_voxel
        h, w = np.array(extent(frame))[axes] * per_voxel
        parts.append(
            f'<rect class="frame" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>'
            f'<text class="on" style="font-size:{letters}px" x="{x + 5:.1f}"'
            f' y="{y + letters + 4:.1f}">{escape(letter)}</text>'
        )
    if slab is not None:
        for edge in (slab.start, slab.stop):
            y = (edge - first[0]) * per_voxel[0]
            parts.append(f'<path class="frame" d="M0 {y:.1f}h14M{width} {y:.1f}h-14"/>')
    return "".join(parts) + scale + "</svg>"


def letter_size(width: float) -> int:
    """The size of the letters of a drawing of a width, in pixels."""
    return max(13, round(width / _LETTERS_IN_WIDTH))


def _apart(marked: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Places `(N, 2)` in pixels without those that would lie on others; the last ones stay."""
    step = 3.0
    grid = np.rint(np.concatenate(marked)[::-1] / step)
    _, kept = np.unique(grid, axis=0, return_index=True)
    kept = len(grid) - 1 - np.sort(kept)
    ends = np.cumsum([0, *map(len, marked)])
    spans = zip(ends, ends[1:], marked, strict=False)
    return [places[np.sort(kept[(kept >= a) & (kept < b)]) - a] for a, b, places in spans]


def _rings(places: np.ndarray, radius: float, mark: Marks) -> str:
    """Rings, squares, crosses or dots of a dark and a coloured line: they show on any picture."""
    if not len(places):
        return ""
    own = f' style="stroke:{mark.colour}"' if mark.colour else ""
    if radius < 3 or mark.kind == "other":
        dots = np.unique(np.rint(places / 0.5), axis=0) * 0.5
        path = "".join(f"M{x:g} {y:g}h0" for y, x in dots)
        return f'<path class="dot rim" d="{path}"/><path class="dot {mark.kind}"{own} d="{path}"/>'
    path = mark_path(places, radius, mark.kind)
    return f'<path class="rim" d="{path}"/><path class="{mark.kind}"{own} d="{path}"/>'


def mark_path(places: np.ndarray, radius: float, kind: str) -> str:
    """The outline of marks of a kind, as SVG: squares, crosses, or else rings.

    Args:
      places: `(N, 2)` y, x in pixels.
      radius: half the width, in pixels.
      kind: see `Marks`.
    """
    r, up = round(radius, 1), 0.0
    if kind == "missed":
        shape = f"v{r:g}h{2 * r:g}v{-2 * r:g}h{-2 * r:g}z"
    elif kind == "false":
        shape, up = f"l{2 * r:g} {2 * r:g}m{-2 * r:g} 0l{2 * r:g} {-2 * r:g}", r
    else:
        shape = f"a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0"
    return "".join(f"M{x - r:.1f} {y - up:.1f}{shape}" for y, x in places)


def _scale_bar(
    size: tuple[int, int], unit: tuple[str, float], per_unit: float, letters: int
) -> str:
    """A round length, about a quarter of the width, below a picture; empty if it is too narrow.

    Args:
      size: width and height of the picture, in pixels.
      unit: of the length, and how long an edge of a pixel of the image is in it.
      per_unit: pixels of the picture for one of the image.
      letters: their size in pixels.
    """
    width, height = size
    name, per_pixel = unit[0], unit[1] / per_unit
    length = round_down(max(width, 60) * per_pixel / 4)
    text = f"{length / 1000:g} mm" if name == "µm" and length >= 1000 else f"{length:g} {name}"
    if width < 0.6 * letters * len(text):
        return ""
    return (
        # What lies across the picture's border ends there.
        f'<rect class="paper" y="{height}" width="{width}" height="{letters + 15}"/>'
        f'<rect class="bar" y="{height + 5}" width="{length / per_pixel:.1f}" height="4"/>'
        f'<text style="font-size:{letters}px" y="{height + letters + 11}">{escape(text)}</text>'
    )


def cells_text(count: int) -> str:
    """A number of cells as text: "1 cell", "1,234 cells"."""
    return f"{count:,} cell{'' if count == 1 else 's'}"


def number_text(counted: Counted, region: Region) -> str:
    """The number of cells in a region as text: "23 of the 307 cells", or "307 cells"."""
    shown = int(in_region(counted.points, region, counted.volume.shape).sum())
    total = len(counted.points)
    return cells_text(total) if shown == total else f"{shown:,} of the {cells_text(total)}"


def place_text(counted: Counted, point: np.ndarray) -> str:
    """The voxel of a point `(3,)` as text: "z 1, y 2, x 3"."""
    axes = "yx" if counted.flat else "zyx"
    voxel = voxels_of(point[3 - len(axes) :])
    return ", ".join(f"{a}{_SPACE}{v}" for a, v in zip(axes, voxel, strict=True))


def planes_text(counted: Counted, region: Region, axis: int) -> str:
    """The planes (axis 0) or rows (axis 1) of a region as text: "planes 10 to 19 (60 µm)"."""
    part, word = region[axis], ("plane", "row")[axis]
    count = part.stop - part.start
    length = (part.start if count == 1 else count) * counted.edges[axis]
    known = counted.unit[0] != "px" and (count > 1 or axis == 0)
    text = f"{'z ' * (count == 1)}{length:,.0f}{_SPACE}{counted.unit[0]}"
    value = f" ({text})" if known else ""
    if count == 1:
        return f"{word} {part.start}{value}"
    if count == counted.volume.shape[axis]:
        return f"all {count} {word}s{value}"
    return f"{word}s {part.start} to {part.stop - 1}{value}"


def area_text(region: Region) -> str:
    """The rows and columns of a region as text: "y 0 to 9, x 20 to 29"."""
    _, y, x = region
    return f"y {y.start} to {y.stop - 1}, x {x.start} to {x.stop - 1}"
