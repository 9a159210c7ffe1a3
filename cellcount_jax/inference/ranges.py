"""The intensities of an image box by box, collected while it is read a region at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from cellcount_jax.images.normalise import Measured
from cellcount_jax.images.regions import Region, extent, within
from cellcount_jax.inference.faint import pairs
from cellcount_jax.inference.plan import Plan

_EDGE = 64  # voxels of a box, at most, along an axis


class Ranges:
    """The lowest and the highest intensity in each box of a grid that divides a plan's cores."""

    def __init__(self, plan: Plan) -> None:
        self._shape = plan.shape
        cores = [_starts_of(plan.cores, axis) for axis in range(len(plan.shape))]
        self._starts = [_divided(*axis) for axis in zip(cores, plan.shape, strict=True)]
        # The highest of pairs of neighbours, too: see `faint.pairs`.
        self._lowest, self._highest, self._paired = _nothing([len(s) for s in self._starts])

    def of(self, values: np.ndarray, region: Region) -> np.ndarray:
        """`(3, *boxes)` of the boxes that a region overlaps, as far as it does, for `add`.

        Args:
          values: `(*region, channels)` intensities.
          region: of the image.
        """
        boxes = _overlapping(self._starts, region)
        found = _nothing(extent(boxes))
        paired = pairs(values.max(-1))
        for index in np.ndindex(*extent(boxes)):
            at = tuple(part.start + i for part, i in zip(boxes, index, strict=True))
            sides = zip(self._box(at), region, strict=True)
            shared = within(
                tuple(slice(max(b.start, r.start), min(b.stop, r.stop)) for b, r in sides), region
            )
            inside = values[shared]
            found[(slice(None), *index)] = inside.min(), inside.max(), paired[shared].max()
        return found

    def add(self, found: np.ndarray, region: Region) -> None:
        """Adds what `of` gave for a region."""
        boxes = _overlapping(self._starts, region)
        for kept, new, choose in (
            (self._lowest, found[0], np.minimum),
            (self._highest, found[1], np.maximum),
            (self._paired, found[2], np.maximum),
        ):
            kept[boxes] = choose(kept[boxes], new)

    def is_constant(self, region: Region) -> bool:
        """Whether all boxes that a region overlaps have one intensity."""
        boxes = _overlapping(self._starts, region)
        return bool(self._lowest[boxes].min() == self._highest[boxes].max())

    def darker(self, measured: Measured, limit: float) -> Callable[[Region], bool]:
        """Tells of a region whether in all boxes that it overlaps nothing is bright.

        Args:
          measured: what normalises the image.
          limit: a normalised intensity, which a voxel and its neighbour are to reach, see
            `faint.py`; -inf: all is bright.
        """
        dark = np.zeros(self._paired.shape, bool)
        if limit > -math.inf:
            for at in np.ndindex(*dark.shape):
                dark[at] = measured.most(float(self._paired[at]), self._box(at)) < limit
        return lambda region: bool(dark[_overlapping(self._starts, region)].all())

    def _box(self, at: Sequence[int]) -> Region:
        sides = zip(self._starts, at, self._shape, strict=True)
        return tuple(
            slice(int(begin[i]), int(begin[i + 1]) if i + 1 < len(begin) else size)
            for begin, i, size in sides
        )


def _nothing(grid: Sequence[int]) -> np.ndarray:
    """`(3, *grid)` of boxes of which nothing is known."""
    found = np.full((3, *grid), -np.inf)
    found[0] = np.inf
    return found


def _starts_of(regions: Sequence[Region], axis: int) -> np.ndarray:
    """The positions at which the regions of a grid begin along an axis."""
    return np.unique([region[axis].start for region in regions])


def _overlapping(starts: Sequence[np.ndarray], region: Region) -> Region:
    """The parts of a grid, along each axis, that a region overlaps."""
    return tuple(
        slice(
            int(np.searchsorted(begin, part.start, "right")) - 1,
            int(np.searchsorted(begin, part.stop, "left")),
        )
        for begin, part in zip(starts, region, strict=True)
    )


def _divided(starts: np.ndarray, size: int) -> np.ndarray:
    """The beginnings of equal boxes of up to `_EDGE` voxels between some beginnings and an end."""
    ends = np.append(starts[1:], size)
    parts = [
        np.linspace(start, end, math.ceil((end - start) / _EDGE), endpoint=False).astype(int)
        for start, end in zip(starts, ends, strict=True)
    ]
    return np.concatenate(parts)
