"""A count as the parts of a page take it, and words for parts of its image."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from cellcount_jax.panels.overlays import Marks, overlay_svg
from cellcount_jax.panels.views import Picture, Region, Volume


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
