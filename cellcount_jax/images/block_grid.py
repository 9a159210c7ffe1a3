"""The blocks of equal size of an image, and groups of them that are read together."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellcount_jax.images.regions import Region

# Blocks are read together up to this size, since a chunk of a file lies in several blocks.
_MAX_READ_VOXELS = 2**23


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of an image.

    Attributes:
      shape: `(D,)` of the image.
      counts: `(D,)` how many there are along each axis.
    """

    shape: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int], block: Sequence[float]) -> BlockGrid:
        """The grid of blocks of `(D,)` voxels, about."""
        counts = (max(1, round(n / size)) for n, size in zip(shape, block, strict=True))
        return cls(tuple(shape), tuple(counts))

    @property
    def groups(self) -> list[Region]:
        """Groups of neighbours, by their indices; in all about a cube of voxels."""
        numbers = self._together()
        starts = [range(0, count, n) for count, n in zip(self.counts, numbers, strict=True)]
        return [
            tuple(
                slice(start, min(start + n, count))
                for start, n, count in zip(corner, numbers, self.counts, strict=True)
            )
            for corner in itertools.product(*starts)
        ]

    def region(self, group: Region) -> Region:
        """The voxels of some blocks."""
        sides = zip(self._ends, group, strict=True)
        return tuple(slice(int(ends[g.start]), int(ends[g.stop])) for ends, g in sides)

    @functools.cached_property
    def _ends(self) -> list[np.ndarray]:
        sides = zip(self.shape, self.counts, strict=True)
        return [np.linspace(0, n, count + 1).astype(int) for n, count in sides]

    def _together(self) -> list[int]:
        """How many blocks along each axis are read together."""
        sizes = [n / count for n, count in zip(self.shape, self.counts, strict=True)]
        numbers = [1] * len(sizes)
        while True:
            lengths = [size * number for size, number in zip(sizes, numbers, strict=True)]
            longer = [axis for axis in range(len(sizes)) if numbers[axis] < self.counts[axis]]
            if not longer or 2 * math.prod(lengths) > _MAX_READ_VOXELS:
                return numbers
            axis = min(longer, key=lambda axis: lengths[axis])
            numbers[axis] = min(2 * numbers[axis], self.counts[axis])
