"""The way to cut an image that takes the least work: windows around tiles, or slabs that pass.

Windows hold all that a tile needs around it, on all sides. The planes of a volume can also pass in
slabs, which need nothing around them along that axis; but at the end of a run the maps of some
planes are still to come, so that a thin volume has more slabs than its planes need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cellcount_jax.errors import InputError
from cellcount_jax.inference import tiles
from cellcount_jax.inference.tiles import Axis, Option, computed
from cellcount_jax.network.passing import rounded_up

_SLAB = 32  # planes that pass at a time, at most about
# A plane beyond the ends of the image takes this share of the time: the kernels in C++ skip it.
# All images are cut as is best there, on any device, as the results are to be the same.
_REST = 0.1
# Of the voxels that may be computed at a time: what is kept for the next slab takes memory, too.
_PASSING_SHARE = 0.57


class Layout(NamedTuple):
    """A way to cut an image.

    Attributes:
      slab: planes that pass at a time; 0 = they do not pass.
      chosen: the cores along each axis, but that of planes that pass.
    """

    slab: int
    chosen: tuple[Option, ...]

    def cost(self, depth: int, lag: int) -> float:
        """The voxels that are computed, about, of an image with so many planes."""
        voxels = computed(self.chosen)
        if not self.slab:
            return voxels
        planes = planes_worth(depth, rounded_up(depth + lag, self.slab))
        # What a slab takes from the one before is prepared again: that of two planes, about.
        return voxels * planes * (1 + 2 / self.slab)


def planes_worth(inside: int, planes: int) -> float:
    """The time of some planes, in planes of the image: those beyond its ends take less."""
    return (1 - _REST) * inside + _REST * planes


def choose(
    options: Sequence[Sequence[Option]],
    depth: Axis,
    shape: Sequence[int],
    *,
    max_voxels: int,
    lag: int,
) -> Layout:
    """Chooses the layout with the least work.

    Args:
      options: of each axis.
      depth: the first axis.
      shape: `(D,)` of the image.
      max_voxels: the most voxels that are computed at a time.
      lag: of planes that pass.

    Raises:
      InputError: not even the smallest tile is small enough.
    """
    areas = {0: float(max_voxels)}
    if len(shape) == 3:
        areas |= {slab: _PASSING_SHARE * max_voxels / slab for slab in _slabs(depth)}
    found = []
    for slab, area in areas.items():
        chosen = tiles.choose(options[1:] if slab else options, max_voxels=area)
        if chosen is not None:
            found.append(Layout(slab, chosen))
    if not found:
        least = min(_least(options, slab) for slab in areas)
        raise InputError(
            f"config.predict.max_voxels = {max_voxels}: a tile of an image of shape {tuple(shape)}"
            f" needs at least {least}, with the surroundings that the network sees; allow so many"
            " with --max-voxels (max_voxels=), which takes more memory"
        )
    return min(found, key=lambda layout: layout.cost(shape[0], lag))


def _least(options: Sequence[Sequence[Option]], slab: int) -> int:
    """The voxels that the smallest tile needs."""
    narrowest = [min(option.window for option in of_axis) for of_axis in options]
    if not slab:
        return math.prod(narrowest)
    return math.ceil(slab * math.prod(narrowest[1:]) / _PASSING_SHARE)


def _slabs(axis: Axis) -> list[int]:
    """The numbers of planes that a slab may have, in whole blocks, the largest first."""
    unit = axis.block * axis.stride
    most = min(max(_SLAB // unit, 1), -(-axis.size // unit))
    return [unit * n for n in range(most, 0, -1)]
