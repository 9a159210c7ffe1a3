"""Crops round the cells that the threshold just took in, or just left out."""

from __future__ import annotations

import numpy as np

from cellcount_jax.panels.counted import Counted, draw, figure, place
from cellcount_jax.panels.overlays import Marks
from cellcount_jax.panels.places import around, clipped, voxels_of, within
from cellcount_jax.panels.views import Region, project

_CELLS = 12
_BOX = (164, 328)  # crops fill its width


def doubtful(counted: Counted) -> tuple[str, str]:
    """Crops round the cells with scores nearest to the threshold, on each side of it.

    Args:
      counted: see `Counted`.

    Returns:
      HTML of the counted ones, and of the rejected ones; empty where there are none.
    """
    return (
        _crops(counted, counted.points, counted.scores, "counted"),
        _crops(counted, counted.rejected, counted.rejected_scores, "rejected"),
    )


def _crops(counted: Counted, points: np.ndarray, scores: np.ndarray, kind: str) -> str:
    volume = counted.volume
    nearest = np.argsort(np.abs(scores - counted.threshold), kind="stable")[:_CELLS]
    side = np.clip(6 * counted.radius, 20, 96)
    # Odd, so that the cell is in the middle.
    size = [2 * round(float(side / edge) / 2) + 1 for edge in volume.edges]
    figures = []
    for index in nearest:
        point = points[index]
        voxel = voxels_of(point[None], volume.shape)[0]
        name = f"no. {index + 1:,}, " if kind == "counted" else ""
        text = f"{name}score {scores[index]:#.3g}, {place(counted, point)}"
        svg = _crop(counted, around(voxel, (1, *size[1:])), 0, point, kind, text)
        if not counted.flat and volume.deep:
            view = around(voxel, (size[0], 1, size[2]))
            svg += _crop(counted, view, 1, point, kind, f"{text}, from the side")
        figures.append(figure(svg, text, kind="crop"))
    return f'<div class="row crops">{"".join(figures)}</div>' if figures else ""


def _crop(
    counted: Counted, view: Region, axis: int, point: np.ndarray, kind: str, label: str
) -> str:
    """One cell in its plane; the other counted ones there are dots."""
    points = counted.points
    region = clipped(view, counted.volume.shape)
    others = within(points, region, counted.volume.shape) & (points != point).any(axis=1)
    marks = [Marks("other", points[others]), Marks(kind, point[None])]
    picture = project(counted.volume, region, axis=axis, box=_BOX)
    return draw(
        counted,
        picture,
        marks,
        box=_BOX,
        label=label,
        bar=False,
        view=view,
        highest=_brightest(counted, region, axis, point),
    )


def _brightest(counted: Counted, region: Region, axis: int, point: np.ndarray) -> float | None:
    """Of the cell itself: a bright neighbour would leave a faint one in the dark."""
    edges = counted.volume.edges
    reach = 2 * np.rint(counted.radius / edges).astype(int) + 1
    near = around(voxels_of(point[None], counted.volume.shape)[0], reach)
    spans = zip(near, region, strict=True)
    inner = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in spans]
    pixels = project(counted.volume, tuple(inner), axis=axis, box=_BOX).pixels
    # Colours are those of a stain as a rule, on a bright ground.
    return None if pixels.shape[-1] == 3 else float(pixels.max())
