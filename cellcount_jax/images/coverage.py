"""How much of each box of a grid lies inside a mask, for densities of the part that is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from cellcount_jax.images.label_volumes import blocks
from cellcount_jax.images.regions import Region
from cellcount_jax.images.sources import Source


class Shared(Protocol):
    """What sizes of regions need of a mask."""

    def share_of(self, borders: Sequence[np.ndarray], /) -> np.ndarray:
        """See `inside_share`."""
        ...


class Inside(Shared, Protocol):
    """What a report needs of a mask: the part of an image that was counted."""

    @property
    def share_of_all(self) -> float:
        """The share of the image that is inside."""
        ...


def inside_share(labels: Source, borders: Sequence[np.ndarray]) -> np.ndarray:
    """The share of each box of a grid that is inside a mask, where its label is not 0.

    Exact for boxes of any size: of a voxel of the mask that a border cuts, each side gets its part.

    Args:
      labels: the mask, from `label_volumes.open_label_volume`; read once, block by block.
      borders: D times `(boxes + 1,)` increasing places at which boxes begin and end, as fractions
        of the extent, 0 to 1.

    Returns:
      `(*boxes,)` float64, 0 to 1.

    Raises:
      InputError: see `Source.read_labels`.
    """
    ends = [np.asarray(b, np.float64) * n for b, n in zip(borders, labels.shape, strict=True)]
    found = np.zeros([len(e) - 1 for e in ends])
    touched = tuple(
        slice(int(e[0]), min(int(np.ceil(e[-1])), n))
        for e, n in zip(ends, labels.shape, strict=True)
    )
    for region in blocks(labels, touched):
        values = labels.read_labels(region) != 0
        if values.any():
            boxes = _boxes(ends, region)
            for axis, (end, part, box) in enumerate(zip(ends, region, boxes, strict=True)):
                values = _summed(values, end[box.start : box.stop + 1] - part.start, axis)
            found[boxes] += values
    for axis, end in enumerate(ends):
        found /= np.diff(end).reshape(-1, *[1] * (found.ndim - axis - 1))
    return np.clip(found, 0, 1)


def _boxes(ends: Sequence[np.ndarray], region: Region) -> Region:
    """The boxes, along each axis, that a region of the mask overlaps."""
    return tuple(
        slice(
            max(int(np.searchsorted(end, part.start, "right")) - 1, 0),
            min(int(np.searchsorted(end, part.stop, "left")), len(end) - 1),
        )
        for end, part in zip(ends, region, strict=True)
    )


def _summed(values: np.ndarray, ends: np.ndarray, axis: int) -> np.ndarray:
    """The sum of voxels between the ends along an axis, of cut voxels the part of each side."""
    length = values.shape[axis]
    if len(ends) == length + 1 and np.array_equal(ends, np.arange(length + 1)):
        return values
    values = np.moveaxis(values, axis, -1)
    total = np.zeros((*values.shape[:-1], length + 1))
    np.cumsum(values, axis=-1, out=total[..., 1:])
    at = np.clip(ends, 0, length)
    voxel = np.minimum(at.astype(np.int64), length - 1)
    sums = total[..., voxel] + (at - voxel) * values[..., voxel]
    return np.moveaxis(np.diff(sums), -1, axis)
