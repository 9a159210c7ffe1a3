"""Where the dots of an image are complete: a box, blocks that are done, a mask."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from cellcount_jax.data.blocks import DONE, BlockStates
from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Region, all_of, lies_in, size_text, voxels_of


def parse_region(text: str, shape: Sequence[int]) -> Region:
    """The box that a text such as 'z>=3,y<120' describes.

    Args:
      text: conditions on voxel indices that must all hold, separated by commas: an axis (z, y,
        x), one of < <= > >=, and a number. '' is the whole image.
      shape: `(D,)` spatial shape.

    Returns:
      `(D,)` slices of the image.

    Raises:
      InputError: names the text: not such a condition, an axis that the image has not, or no
        voxel at all.
    """
    axes = "zyx"[-len(shape) :]
    low, high = [0] * len(shape), list(shape)
    for condition in text.split(",") if text.strip() else ():
        match = re.fullmatch(r"\s*([a-z])\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*", condition)
        if match is None or match[1] not in axes:
            raise InputError(
                f"region {text!r}: {condition.strip()!r} is not an axis of {', '.join(axes)}, then"
                " <, <=, > or >=, and a number, such as 'y<120'."
            )
        axis, sign, limit = axes.index(match[1]), match[2], float(match[3])
        # The first voxel at or after the limit, or after it.
        index = math.floor(limit) + 1 if sign in ("<=", ">") else math.ceil(limit)
        if sign.startswith("<"):
            high[axis] = min(high[axis], index)
        else:
            low[axis] = max(low[axis], index)
    if any(first >= last for first, last in zip(low, high, strict=True)):
        raise InputError(f"region {text!r}: holds no voxel of an image of {size_text(shape)}.")
    return tuple(slice(*ends) for ends in zip(low, high, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledArea:
    """Where the dots of an image are complete: within all that is given.

    Attributes:
      box: `(D,)` slices.
      blocks: those that are done; None: all.
      mask: `(*shape)` bool; None: everywhere.
    """

    box: Region
    blocks: BlockStates | None = None
    mask: np.ndarray | None = None

    def holds(self, points: np.ndarray) -> np.ndarray:
        """`(N,)` bool: which points `(N, D)` (voxels) lie in it."""
        inside = lies_in(points, self.box)
        if self.blocks is not None:
            done = self.blocks.states == DONE
            inside &= done[tuple(self.blocks.grid.index_of(points).T)]
        if self.mask is not None:
            places = np.clip(voxels_of(points), 0, np.asarray(self.mask.shape) - 1)
            inside &= self.mask[tuple(places.T)]
        return inside

    def touches(self, region: Region) -> bool:
        """Whether a region may have voxels of it."""
        both = tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(region, self.box, strict=True)
        )
        if any(part.start >= part.stop for part in both):
            return False
        if self.blocks is not None:
            sizes = zip(both, self.blocks.grid.block, strict=True)
            near = tuple(slice(p.start // b, -(-p.stop // b)) for p, b in sizes)
            if not (self.blocks.states[near] == DONE).any():
                return False
        return self.mask is None or bool(self.mask[both].any())


def everywhere(shape: Sequence[int]) -> LabelledArea:
    """The whole of an image of a shape."""
    return LabelledArea(all_of(shape))
