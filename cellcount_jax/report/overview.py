"""A counted image as a whole: its slabs and planes with the cells ringed, and places enlarged."""

from __future__ import annotations

import numpy as np

from cellcount_jax.report.counted import Counted, Marks, cells, draw, figure, place, span, stretch
from cellcount_jax.report.places import (
    around,
    clipped,
    densest,
    elongated,
    fullest,
    overlooked,
    voxels_of,
    within,
)
from cellcount_jax.report.places import within as points_within
from cellcount_jax.report.views import IN_ALL, Picture, Region, project

_SLAB_UM, _SLAB_VOXELS = 60.0, 16
_LARGE = 450  # voxels; a larger volume gets the full width
_SLICE = 600  # voxels; of a larger plane a part is shown, at full resolution
_NOWHERE = np.zeros((0, 3))
_FULL, _HALF, _THIRD, _QUARTER = (900, 900), (520, 640), (345, 420), (255, 255)


def overview(counted: Counted) -> str:
    """The whole image, or a slab of a volume from above and one from the side; then zooms.

    Args:
      counted: see `Counted`.

    Returns:
      HTML.
    """
    volume = counted.volume
    whole = tuple(slice(0, size) for size in volume.shape)
    box = _FULL if counted.flat or max(volume.shape) >= _LARGE else _HALF
    above = _cut(counted, _slab(counted, whole, 0), 0)
    picture = project(volume, above, axis=0, box=box)
    zooms, frames = _zooms(counted, picture)
    shown = _inside(counted, above)
    marks = [Marks("counted", shown)]
    if counted.flat:
        part = "The image" if above == whole else f"{span(above)} of the image"
        label = f"{part} with {_part(counted, shown)} ringed."
        svg = draw(counted, picture, marks, box=box, label=label, frames=frames)
        caption = f"{label}{_averaged(picture)} The frames are enlarged below."
        pictures = figure(svg, caption)
    else:
        beside = _cut(counted, _slab(counted, whole, 1), 1)
        label = (
            f"From above: the brightest along z in {stretch(counted, above, 0)}, with"
            f" {_part(counted, shown)}."
        )
        caption = f"{label}{_only(counted, above, 1)} x to the right, y down.{_averaged(picture)}"
        caption += " Lines at the margins: what the side view shows."
        svg = draw(counted, picture, marks, box=box, label=label, slab=beside[1])
        pictures = figure(svg, caption) + _side(counted, beside, above, box)
    return f'<div class="row">{pictures}</div>\n<div class="row small">{zooms}</div>'


def _side(counted: Counted, region: Region, above: Region, box: tuple[int, int]) -> str:
    shown = _inside(counted, region)
    picture = project(counted.volume, region, axis=1, box=box)
    label = (
        f"From the side: the brightest along y in {stretch(counted, region, 1)}, with"
        f" {_part(counted, shown)}."
    )
    caption = f"{label}{_only(counted, region, 0)} x to the right, z down.{_averaged(picture)}"
    caption += " Lines at the margins: what is seen from above."
    marks = [Marks("counted", shown)]
    svg = draw(counted, picture, marks, box=box, label=label, slab=above[0])
    return figure(svg, caption)


def planes(counted: Counted) -> str:
    """Three planes of a volume with the cells in them and in the planes next to them.

    Args:
      counted: see `Counted`.

    Returns:
      HTML.
    """
    volume, points = counted.volume, counted.points
    depth, height, width = volume.shape
    voxels = voxels_of(points, volume.shape)
    depths = voxels[:, 0] if len(points) else np.arange(depth)
    figures = []
    for z in np.unique(np.percentile(depths, (25, 50, 75), method="nearest")):
        near = points[np.abs(voxels[:, 0] - z) <= 1]
        size = (1, min(height, _SLICE), min(width, _SLICE))
        middle = densest(near, (3, *size[1:])) if len(near) else _middle(counted)
        region = _cut(counted, around((z, *middle[1:]), size, shape=volume.shape), 0)
        there = points_within(points, region, volume.shape)
        thick = (slice(int(z) - 1, int(z) + 2), *region[1:])
        beside = points_within(points, thick, volume.shape) & ~there
        part = "" if region[1:] == (slice(0, height), slice(0, width)) else f", {span(region)}"
        caption = (
            f"{stretch(counted, region, 0).capitalize()}{part}: {cells(int(there.sum()))} in it"
            f" (full rings), {int(beside.sum()):,} in the planes next to it (broken rings)."
        )
        marks = [Marks("beside", points[beside]), Marks("counted", points[there])]
        picture = project(volume, region, axis=0, box=_FULL)
        figures.append(figure(draw(counted, picture, marks, box=_THIRD, label=caption), caption))
    return f'<div class="row">{"".join(figures)}</div>'


def _zooms(counted: Counted, picture: Picture) -> tuple[str, list[tuple[str, Region]]]:
    """Places worth a look, enlarged, and their frames; in a volume three planes of each."""
    volume, points = counted.volume, counted.points
    edges = volume.edges[1:]
    shortest = float(np.min(np.array(volume.shape[1:]) * edges))
    side = min(float(np.clip(12 * counted.radius, 36, 120)), max(32.0, shortest / 2))
    size = (3, *(max(1, round(side / float(edge))) for edge in edges))
    places: list[tuple[str, np.ndarray]] = []
    if len(points):
        doubt = np.abs(counted.scores - counted.threshold)
        places.append(("the densest place", densest(points, size)))
        places.append(("the most certain cell", points[np.argmax(counted.scores)]))
        places.append(("the least certain cell", points[np.argmin(doubt)]))
    else:
        places.append(("the middle of the image", _middle(counted)))
    missed = _overlooked(counted, picture)
    if missed is not None:
        places.append(missed)
    figures, frames = [], []
    for letter, (what, centre) in zip("ABCD", places, strict=False):
        region = around(centre, size, shape=volume.shape)
        there = _inside(counted, region)
        where = "" if counted.flat else f" in {stretch(counted, region, 0)}"
        caption = (
            f"{letter}: {what}, {place(counted, centre)}. {cells(len(there)).capitalize()}{where}."
        )
        zoom = project(volume, region, axis=0, box=_QUARTER)
        spot = centre[None] if missed is not None and what == missed[0] else _NOWHERE
        marks = [Marks("spot", spot), Marks("counted", there)]
        figures.append(figure(draw(counted, zoom, marks, box=_QUARTER, label=caption), caption))
        frames.append((letter, region))
    return "".join(figures), frames


def _overlooked(counted: Counted, picture: Picture) -> tuple[str, np.ndarray] | None:
    """Where a cell may have been missed, in words and in voxels."""
    volume = counted.volume
    # A cell just outside a slab shines into it.
    reach = [round(2 * counted.radius / float(edge)) for edge in volume.edges]
    wider = [slice(p.start - r, p.stop + r) for p, r in zip(picture.region, reach, strict=True)]
    near = _inside(counted, clipped(tuple(wider), volume.shape))
    missed = overlooked(picture, near, volume.edges, counted.radius)
    if missed is None:
        return None
    y, x, bright = missed
    column = around((0, y, x), (1, 3, 3), shape=volume.shape)
    light = volume.read((picture.region[0], *column[1:])).mean(axis=(1, 2, 3))
    z = picture.region[0].start + int(np.argmax(light if bright else -light))
    seen = "" if counted.flat else " seen from above"
    what = f"the {'brightest' if bright else 'darkest'} place without a cell{seen} (white ring)"
    return what, np.array([z, y, x])


def _slab(counted: Counted, whole: Region, axis: int) -> Region:
    """The slab with the most cells; all, where it is not much more."""
    volume, size = counted.volume, counted.volume.shape[axis]
    thick = _SLAB_VOXELS
    if counted.unit[0] != "px":
        thick = max(1, round(_SLAB_UM / counted.edges[axis]))
    thick = size if size <= 1.5 * thick else thick
    thick = min(thick, max(1, IN_ALL // (volume.shape[1 - axis] * volume.shape[2])))
    positions = voxels_of(counted.points, volume.shape)[:, axis]
    region = list(whole)
    region[axis] = fullest(positions, size, thick)
    return tuple(region)


def _cut(counted: Counted, region: Region, axis: int) -> Region:
    return elongated(region, _inside(counted, region), counted.volume.edges, axis)


def _inside(counted: Counted, region: Region) -> np.ndarray:
    return counted.points[points_within(counted.points, region, counted.volume.shape)]


def _middle(counted: Counted) -> np.ndarray:
    return (np.array(counted.volume.shape) - 1) / 2


def _part(counted: Counted, shown: np.ndarray) -> str:
    total = len(counted.points)
    return cells(total) if len(shown) == total else f"{len(shown):,} of the {cells(total)}"


def _only(counted: Counted, region: Region, down: int) -> str:
    """What is shown of an image that is too long for a picture, in words."""
    cut = [
        f"{'zyx'[axis]} {region[axis].start} to {region[axis].stop - 1}"
        for axis in (down, 2)
        if region[axis].stop - region[axis].start < counted.volume.shape[axis]
    ]
    return f" Only {cut[0]} is shown." if cut else ""


def _averaged(picture: Picture) -> str:
    """How many voxels share a pixel, in words, where they do."""
    height, width = picture.pixels.shape[:2]
    down, across = picture.covered[0] // height, picture.covered[1] // width
    return f" A pixel is {down} × {across} voxels." if down > 1 or across > 1 else ""


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
