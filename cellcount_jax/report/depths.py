"""All depths of a volume in one picture: the brightest along z, in the colour of its depth."""

from __future__ import annotations

import itertools
import math

import numpy as np

from cellcount_jax.images.regions import Region
from cellcount_jax.report.charts import open_svg, pixels, ticks
from cellcount_jax.report.counted import (
    Counted,
    Marks,
    draw,
    figure,
    letter_size,
    number_text,
    planes_text,
)
from cellcount_jax.report.places import in_region, nearest_voxels
from cellcount_jax.report.views import MAX_READ_VALUES, Picture, Volume, encode, fit, project

_MAX_LAYERS = 16
_MIN_BAR_WIDTH = 220
# Sky blue, bluish green, yellow, vermilion and reddish purple of Okabe and Ito (2008): five
# colours of about one lightness that colour-blind readers can distinguish.
_COLOURS = np.array(
    [(86, 180, 233), (0, 180, 131), (240, 228, 66), (235, 110, 30), (204, 121, 167)], np.float64
)


def all_depths(
    counted: Counted,
    slab: Picture,
    *,
    box: tuple[int, int],
    frames: list[tuple[str, Region]],
    note: str,
) -> tuple[str, Picture]:
    """A volume from above, with all of its cells in the colours of their depths, as a figure.

    Args:
      counted: the count, of a volume.
      slab: a part of the volume from above. It is what is behind the cells of a volume that is too
        large to be held in memory.
      box: the greatest width and height in pixels.
      frames: letters, and the regions to frame.
      note: the end of the caption.

    Returns:
      The figure, and its picture without marks.
    """
    volume = counted.volume
    depth = volume.shape[0]
    borders = layer_borders(depth)
    colours = layer_colours(len(borders) - 1)
    region = (slice(0, depth), *slab.region[1:])
    if math.prod(volume.shape) * volume.channels > MAX_READ_VALUES:
        picture = slab
        how = (
            f"The rings have the colours of their depths. Behind them are only"
            f" {planes_text(counted, slab.region, 0)}: the volume is too large to be read again."
        )
    else:
        picture = _brightest(volume, region, borders, colours, box=box)
        how = "A spot has the colour of the depth where it is brightest, a ring that of its cell."
    label = f"All depths from above, with {number_text(counted, region)}."
    inside = counted.points[in_region(counted.points, region, volume.shape)]
    layers = np.searchsorted(borders, nearest_voxels(inside, volume.shape)[:, 0], "right") - 1
    css = ["#{:02x}{:02x}{:02x}".format(*map(round, colour)) for colour in colours]
    # The upper ones, drawn last, lie on the lower ones.
    marks = [
        Marks("counted", inside[layers == layer], css[layer]) for layer in reversed(range(len(css)))
    ]
    svg = draw(counted, picture, marks, box=box, label=label, frames=frames)
    down, right = (volume.edges[k] * (region[k].stop - region[k].start) for k in (1, 2))
    width = max(_MIN_BAR_WIDTH, fit(down, right, box)[0])
    svg += _colour_bar(counted, colours, width)
    return figure(svg, f"{label} {how}{note}"), picture


def layer_borders(depth: int) -> np.ndarray:
    """The first planes of the layers that have a colour each, and the number of planes last."""
    return np.rint(np.linspace(0, depth, min(depth, _MAX_LAYERS) + 1)).astype(int)


def layer_colours(count: int) -> np.ndarray:
    """`(count, 3)` colours, 0 to 255, from the first plane to the last."""
    places = np.linspace(0, len(_COLOURS) - 1, count)
    anchors = np.arange(len(_COLOURS))
    return np.stack([np.interp(places, anchors, channel) for channel in _COLOURS.T], axis=1)


def _brightest(
    volume: Volume,
    region: Region,
    borders: np.ndarray,
    colours: np.ndarray,
    *,
    box: tuple[int, int],
) -> Picture:
    """The maximum along z, layer by layer, in the colours of the layers it is in."""
    layers = []
    for first, last in itertools.pairwise(borders.tolist()):
        picture = project(volume, (slice(first, last), *region[1:]), axis=0, box=box)
        layers.append(picture.pixels.max(axis=-1))
    stack = np.stack(layers)
    tint = colours[stack.argmax(axis=0)] / 255
    return Picture(stack.max(axis=0)[..., None], region, 0, picture.covered, tint)


def _colour_bar(counted: Counted, colours: np.ndarray, width: int) -> str:
    """The colours of the depths, with the depths."""
    known = counted.unit[0] != "px"
    depth = counted.volume.shape[0] * float(counted.edges[0])
    bar = encode(np.rint(colours).astype(np.uint8)[None])
    letters = letter_size(width)
    label = "The colours of the depths."
    parts = [open_svg(width, letters + 27, label), pixels(bar, 0, 4, width, 12)]
    for value in ticks(0, depth, about=max(2, width // (12 * letters))):
        x = value / depth * width
        text = f"{value:,.10g} µm" if known else f"plane {value:,.10g}"
        text = f"depth {text}" if known and not value else text
        anchor = "start" if x < 24 else "end" if x > width - 4 * letters else "middle"
        parts.append(f'<path class="axis" d="M{x:.1f} 16v5"/>')
        parts.append(
            f'<text style="font-size:{letters}px" x="{x:.1f}" y="{letters + 22}"'
            f' text-anchor="{anchor}">{text}</text>'
        )
    return "".join(parts) + "</svg>"
