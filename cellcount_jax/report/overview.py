"""Pictures of a count: all cells ringed, zooms, slabs and planes, and doubtful cells."""

from __future__ import annotations

import numpy as np

from cellcount_jax.images.regions import Region, all_of
from cellcount_jax.report.counted import (
    Counted,
    Marks,
    area_text,
    cells_text,
    draw,
    figure,
    number_text,
    place_text,
    planes_text,
)
from cellcount_jax.report.depths import all_depths
from cellcount_jax.report.places import (
    clipped,
    densest,
    fullest,
    in_region,
    nearest_voxels,
    overlooked,
    region_around,
    shortened,
)
from cellcount_jax.report.views import MAX_PICTURE_VOXELS, Picture, project

_SLAB_UM, _SLAB_VOXELS = 60.0, 16
_LARGE_VOXELS = 450  # along an axis; a larger volume gets the full width
_MANY_CELLS = 1000  # a volume with more gets it too
_MAX_PLANE_VOXELS = 600  # along an axis; a part of a larger plane is shown, at full resolution
_DOUBTFUL_CELLS = 12
_BESIDE = "beside or below it"
_NO_POINT = np.zeros((0, 3))
# Greatest widths and heights in pixels.
_FULL, _HALF, _THIRD, _QUARTER = (900, 900), (520, 640), (345, 420), (255, 255)
_CROP = (164, 328)


def overview(counted: Counted) -> tuple[str, Picture]:
    """The whole image, of a volume all depths from above, and zooms; then slabs of a volume.

    Returns:
      The pictures, and the first of them without marks.
    """
    volume = counted.volume
    whole = all_of(volume.shape)
    large = max(volume.shape) >= _LARGE_VOXELS or len(counted.points) > _MANY_CELLS
    box = _FULL if counted.flat or large else _HALF
    above = _cut(counted, _slab(counted, whole, 0), 0)
    picture = slab = project(volume, above, axis=0, box=box)
    zooms, frames = _zooms(counted, slab)
    slabs = ""
    if counted.flat:
        part = "The image" if above == whole else f"{area_text(above)} of the image"
        label = f"{part} with {number_text(counted, above)} ringed."
        marks = [Marks("counted", _points_in(counted, above))]
        svg = draw(counted, picture, marks, box=box, label=label, frames=frames)
        first = figure(
            svg, f"{label}{_pixel_text(counted, picture)} The frames are enlarged {_BESIDE}."
        )
    else:
        note = (
            f"{_cut_text(counted, above, 1)} x to the right, y down.{_pixel_text(counted, picture)}"
            f" The frames are enlarged {_BESIDE}."
        )
        first, picture = all_depths(counted, slab, box=box, frames=frames, note=note)
        slabs = _slabs(counted, slab)
    zooms = f'<div class="row small beside-it">{zooms}</div>'
    return f'<div class="row">{first}{zooms}</div>\n{slabs}', picture


def _slabs(counted: Counted, picture: Picture) -> str:
    """A part of the depth from above, and one of the rows from the side."""
    volume, above = counted.volume, picture.region
    beside = _cut(counted, _slab(counted, all_of(volume.shape), 1), 1)
    side_picture = project(volume, beside, axis=1, box=_HALF)
    if above[0] == slice(0, volume.shape[0]):  # as in the picture of all depths
        pictures = _view(counted, side_picture, "the side", None)
    else:
        pictures = _view(counted, picture, "above", beside[1])
        pictures += _view(counted, side_picture, "the side", above[0])
    return f'<h3>Slabs</h3>\n<div class="row">{pictures}</div>'


def _view(counted: Counted, picture: Picture, side: str, slab: slice | None) -> str:
    """A slab of a volume, with lines at its margins round the slab of the other view, if any."""
    region, axis = picture.region, picture.axis
    label = (
        f"From {side}: the brightest along {'zy'[axis]} in {planes_text(counted, region, axis)},"
        f" with {number_text(counted, region)}."
    )
    caption = (
        f"{label}{_cut_text(counted, region, 1 - axis)} x to the right, {'yz'[axis]} down."
        f"{_pixel_text(counted, picture)}"
    )
    if slab is not None:
        seen = "the side view shows" if axis == 0 else "is seen from above"
        caption += f" Lines at the margins: what {seen}."
    marks = [Marks("counted", _points_in(counted, region))]
    return figure(draw(counted, picture, marks, box=_HALF, label=label, slab=slab), caption)


def planes(counted: Counted) -> str:
    """Three planes of a volume with the cells in them and in the planes next to them."""
    volume, points = counted.volume, counted.points
    depth, height, width = volume.shape
    voxels = nearest_voxels(points, volume.shape)
    depths = voxels[:, 0] if len(points) else np.arange(depth)
    figures = []
    for z in np.unique(np.percentile(depths, (25, 50, 75), method="nearest")):
        near = points[np.abs(voxels[:, 0] - z) <= 1]
        size = (1, min(height, _MAX_PLANE_VOXELS), min(width, _MAX_PLANE_VOXELS))
        middle = densest(near, (3, *size[1:])) if len(near) else _middle(counted)
        region = _cut(counted, region_around((z, *middle[1:]), size, shape=volume.shape), 0)
        there = in_region(points, region, volume.shape)
        thick = (slice(int(z) - 1, int(z) + 2), *region[1:])
        beside = in_region(points, thick, volume.shape) & ~there
        whole = region[1:] == all_of((height, width))
        part = "" if whole else f", {area_text(region)}"
        caption = (
            f"{planes_text(counted, region, 0).capitalize()}{part}: {cells_text(int(there.sum()))}"
            f" in it (full rings), {int(beside.sum()):,} in the planes next to it (broken rings)."
        )
        marks = [Marks("beside", points[beside]), Marks("counted", points[there])]
        picture = project(volume, region, axis=0, box=_FULL)
        figures.append(figure(draw(counted, picture, marks, box=_THIRD, label=caption), caption))
    return f'<div class="row">{"".join(figures)}</div>'


def _zooms(counted: Counted, picture: Picture) -> tuple[str, list[tuple[str, Region]]]:
    """Places worth a look, enlarged, with their frames; in a volume three planes of each."""
    volume, points = counted.volume, counted.points
    edges = volume.edges[1:]
    shortest = float(np.min(np.array(volume.shape[1:]) * edges))
    side = min(float(np.clip(12 * counted.radius, 36, 120)), max(32.0, shortest / 2))
    size = (3, *(max(1, round(side / float(edge))) for edge in edges))
    places: list[tuple[str, np.ndarray]] = []
    if len(points) == 1:
        places.append(("the only cell", points[0]))
    elif len(points):
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
        region = region_around(centre, size, shape=volume.shape)
        there = _points_in(counted, region)
        where = "" if counted.flat else f" in {planes_text(counted, region, 0)}"
        caption = (
            f"{letter}: {what}, {place_text(counted, centre)}."
            f" {cells_text(len(there)).capitalize()}{where}."
        )
        zoom = project(volume, region, axis=0, box=_QUARTER)
        spot = centre[None] if missed is not None and what == missed[0] else _NO_POINT
        marks = [Marks("spot", spot), Marks("counted", there)]
        figures.append(figure(draw(counted, zoom, marks, box=_QUARTER, label=caption), caption))
        frames.append((letter, region))
    return "".join(figures), frames


def _overlooked(counted: Counted, picture: Picture) -> tuple[str, np.ndarray] | None:
    """A place where a cell may have been missed: its description and its voxel."""
    volume = counted.volume
    # The light of a cell just outside a slab is seen in it.
    reach = [round(2 * counted.radius / float(edge)) for edge in volume.edges]
    wider = [slice(p.start - r, p.stop + r) for p, r in zip(picture.region, reach, strict=True)]
    near = _points_in(counted, clipped(tuple(wider), volume.shape))
    missed = overlooked(picture, near, volume.edges, counted.radius)
    if missed is None:
        return None
    y, x, bright = missed
    column = region_around((0, y, x), (1, 3, 3), shape=volume.shape)
    light = volume.read((picture.region[0], *column[1:])).mean(axis=(1, 2, 3))
    z = picture.region[0].start + int(np.argmax(light if bright else -light))
    seen = "" if counted.flat else " seen from above"
    what = f"the {'brightest' if bright else 'darkest'} place without a cell{seen} (white ring)"
    return what, np.array([z, y, x])


def _slab(counted: Counted, whole: Region, axis: int) -> Region:
    """The slab with the most cells; the whole image where that is not much thicker."""
    volume, size = counted.volume, counted.volume.shape[axis]
    thick = _SLAB_VOXELS
    if counted.unit[0] != "px":
        thick = max(1, round(_SLAB_UM / counted.edges[axis]))
    thick = size if size <= 1.5 * thick else thick
    thick = min(thick, max(1, MAX_PICTURE_VOXELS // (volume.shape[1 - axis] * volume.shape[2])))
    positions = nearest_voxels(counted.points, volume.shape)[:, axis]
    region = list(whole)
    region[axis] = fullest(positions, size, thick)
    return tuple(region)


def _cut(counted: Counted, region: Region, axis: int) -> Region:
    return shortened(region, _points_in(counted, region), counted.volume.edges, axis)


def _points_in(counted: Counted, region: Region) -> np.ndarray:
    return counted.points[in_region(counted.points, region, counted.volume.shape)]


def _middle(counted: Counted) -> np.ndarray:
    return (np.array(counted.volume.shape) - 1) / 2


def _cut_text(counted: Counted, region: Region, down: int) -> str:
    """The part of an image that is too long for a picture, as text."""
    cut = [
        f"{'zyx'[axis]} {region[axis].start} to {region[axis].stop - 1}"
        for axis in (down, 2)
        if region[axis].stop - region[axis].start < counted.volume.shape[axis]
    ]
    return f" Only {cut[0]} is shown." if cut else ""


def _pixel_text(counted: Counted, picture: Picture) -> str:
    """The number of voxels that share a pixel, as text, if any do."""
    height, width = picture.pixels.shape[:2]
    down, across = picture.covered[0] // height, picture.covered[1] // width
    if down == across == 1:
        return ""
    return f" A pixel is {down} × {across} {'of the image' if counted.flat else 'voxels'}."


def doubtful(counted: Counted) -> tuple[str, str]:
    """Crops round the counted and the rejected cells with scores nearest to the threshold."""
    return (
        _crops(counted, counted.points, counted.scores, "counted"),
        _crops(counted, counted.rejected, counted.rejected_scores, "rejected"),
    )


def _crops(counted: Counted, points: np.ndarray, scores: np.ndarray, kind: str) -> str:
    volume = counted.volume
    nearest = np.argsort(np.abs(scores - counted.threshold), kind="stable")[:_DOUBTFUL_CELLS]
    # Cells that the border cuts come last: little can be seen of them.
    reach = counted.radius / volume.edges[1:]
    low, high = reach - 0.5, np.asarray(volume.shape[1:]) - 0.5 - reach
    cut = ((points[nearest, 1:] < low) | (points[nearest, 1:] > high)).any(axis=1)
    nearest = nearest[np.argsort(cut, kind="stable")]
    side = np.clip(6 * counted.radius, 20, 96)
    # Odd sizes, with the cell in the middle.
    size = [2 * round(float(side / edge) / 2) + 1 for edge in volume.edges]
    figures = []
    for index in nearest:
        point = points[index]
        voxel = nearest_voxels(point[None], volume.shape)[0]
        name = f"no. {index + 1:,}, " if kind == "counted" else ""
        text = f"{name}score {scores[index]:#.3g}, {place_text(counted, point)}"
        svg = _crop(counted, region_around(voxel, (1, *size[1:])), 0, point, kind, text)
        if not counted.flat and volume.deep:
            view = region_around(voxel, (size[0], 1, size[2]))
            svg += _crop(counted, view, 1, point, kind, f"{text}, from the side")
        figures.append(figure(svg, text, kind="crop"))
    return f'<div class="row crops">{"".join(figures)}</div>' if figures else ""


def _crop(
    counted: Counted, view: Region, axis: int, point: np.ndarray, kind: str, label: str
) -> str:
    """One cell in its plane; other counted cells in it are dots."""
    points = counted.points
    region = clipped(view, counted.volume.shape)
    others = in_region(points, region, counted.volume.shape) & (points != point).any(axis=1)
    marks = [Marks("other", points[others]), Marks(kind, point[None])]
    picture = project(counted.volume, region, axis=axis, box=_CROP)
    return draw(
        counted,
        picture,
        marks,
        box=_CROP,
        label=label,
        bar=False,
        view=view,
        highest=_brightest(counted, region, axis, point),
    )


def _brightest(counted: Counted, region: Region, axis: int, point: np.ndarray) -> float | None:
    """The brightest value of the cell itself, so that no bright neighbour leaves it dark."""
    edges = counted.volume.edges
    reach = 2 * np.rint(counted.radius / edges).astype(int) + 1
    near = region_around(nearest_voxels(point[None], counted.volume.shape)[0], reach)
    spans = zip(near, region, strict=True)
    inner = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in spans)
    pixels = project(counted.volume, inner, axis=axis, box=_CROP).pixels
    # Three channels are mostly a stain on a bright ground, where the cell is darker.
    return None if pixels.shape[-1] == 3 else float(pixels.max())
