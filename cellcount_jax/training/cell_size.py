"""How large the cells of a folder are, and how that is known, for `cellcount train`."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from cellcount_jax.data.blocks import (
    ASSUMED,
    ASSUMED_EDGES,
    cell_radius,
    radius_origin,
    read_block_states,
)
from cellcount_jax.data.entries import Entry, selected
from cellcount_jax.images.cell_size import check_diameter, measure_diameter
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source

_MEASURED_IMAGES = 8  # at most


@dataclasses.dataclass(frozen=True)
class CellSize:
    """The size of a cell.

    Attributes:
      diameter: in um, or in pixels where the voxel size is unknown.
      origin: how it is known, for a message.
      known: whether it is known at all, and not assumed.
    """

    diameter: float
    origin: str
    known: bool = True


def cell_size(
    entries: Sequence[Entry],
    spacing: Sequence[float] | None,
    edges: Sequence[float],
    selection: Selection,
    *,
    diameter: float | None,
) -> CellSize:
    """The size that is given, else that of the labelling tool, else as measured in the images.

    Args:
      entries: the images; those with dots are measured, where there are some.
      spacing: `(D,)` voxel edges in um, or None.
      edges: `(D,)` the same, or ones.
      selection: the part of images that no labelling tool has labelled.
      diameter: that was given; None where none was.

    Raises:
      InputError: a diameter that is not positive and finite; an image that cannot be read.
    """
    check_diameter(diameter)
    if diameter is not None:
        return CellSize(diameter, "as --diameter says")
    abouts = [read_block_states(entry.blocks).about for entry in entries if entry.blocks]
    radii = [
        radius
        for about in abouts
        if (radius := cell_radius(about, spacing)) is not None and radius_origin(about) != ASSUMED
    ]
    if radii:
        origin = f"as in the labelling tool ({_of_images(len(radii))})"
        return CellSize(2 * statistics.median(radii), origin)
    with_dots = [entry for entry in entries if entry.points] or list(entries)
    found = (_measured(entry, edges, selection) for entry in with_dots[:_MEASURED_IMAGES])
    measured = [diameter for diameter in found if diameter is not None]
    if measured:
        origin = f"measured ({_of_images(len(measured))})"
        return CellSize(float(f"{statistics.median(measured):.3g}"), origin)
    return CellSize(
        2 * ASSUMED_EDGES * min(edges),
        "assumed, as no cells can be told from the background",
        False,
    )


def _measured(entry: Entry, edges: Sequence[float], selection: Selection) -> float | None:
    """The diameter of the cells in an image, all channels together."""
    with open_source(entry.image, selected(entry, selection)) as source:
        return measure_diameter(lambda part: source.read(part).mean(-1), source.shape, edges)


def _of_images(number: int) -> str:
    return f"the median of {number} images" if number > 1 else "in one image"
