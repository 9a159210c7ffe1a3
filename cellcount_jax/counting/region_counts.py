"""Counts per region of a label volume, and a mask as a label volume."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.counting.density import unit_and_volume
from cellcount_jax.images.coverage import Shared, inside_share
from cellcount_jax.images.files import write_table
from cellcount_jax.images.label_volumes import (
    Labels,
    blocks,
    blocks_with_points,
    lookup,
    touched_by,
)
from cellcount_jax.images.sources import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """The part of an image that is counted, where the labels are not 0, see `survey.Mask`."""

    labels: Source

    def touches(self, region: Sequence[slice], shape: Sequence[int]) -> bool:
        """See `any_inside`."""
        return any_inside(self.labels, region, shape)

    def holds(self, points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """See `inside`."""
        return inside(points, self.labels, shape=shape)

    def share_of(self, borders: Sequence[np.ndarray]) -> np.ndarray:
        """See `coverage.inside_share`."""
        return inside_share(self.labels, borders)

    @functools.cached_property
    def share_of_all(self) -> float:
        """The share of the image that is inside; the mask is read for it once."""
        return float(self.share_of([np.array([0.0, 1.0])] * len(self.labels.shape)).item())


def count_regions(
    points: np.ndarray,
    labels: Labels,
    *,
    shape: Sequence[int],
    spacing: Sequence[float] | None,
    names: Mapping[int, str] | None = None,
    mask: Shared | None = None,
) -> list[dict[str, Any]]:
    """Counts the points in each region of a label volume, which is read once, block by block.

    Args:
      points: `(N, D)` in voxels of the image.
      labels: covers the image, from `label_volumes.open_label_volume`; 0 is outside.
      shape: `(D,)` of the image.
      spacing: `(D,)` of the image, voxel edges in micrometres, or None.
      names: by label; those of labels that do not occur are not used.
      mask: the part that was counted, which the points lie in; sizes are of that part, 0 for a
        region outside of it.

    Returns:
      A row a region that occurs, in order of the labels, and one for 'outside' last: `region`,
      with names `name`, `count`, `volume_mm3` and `density_per_mm3`. In 2D these are `area_mm2`
      and `density_per_mm2`; where the voxel size is not known `volume_voxels`, voxels of the
      image, and `density_per_voxel`. The density of nothing is None. The counts add up to N, the
      volumes to the image or the part of it that was counted.

    Raises:
      InputError: see `label_volumes.lookup`.
    """
    counts: dict[int, int] = collections.defaultdict(int)
    sizes: dict[int, float] = collections.defaultdict(float)
    for region, _, place in blocks_with_points(labels, points, shape=shape):
        values = labels.read_labels(region)
        weights = None
        if mask is not None:
            parts = zip(region, labels.shape, strict=True)
            borders = [np.arange(part.start, part.stop + 1) / size for part, size in parts]
            weights = mask.share_of(borders).ravel()
        for total, (found, numbers) in (
            (sizes, _occurrences(values.ravel(), weights)),
            (counts, np.unique(values[place], return_counts=True)),
        ):
            for label, number in zip(found.tolist(), numbers.tolist(), strict=True):
                total[label] += number
    unit, voxel = unit_and_volume(len(shape), spacing)
    voxel *= math.prod(shape) / math.prod(labels.shape)
    measure = {"mm2": "area_mm2", "mm3": "volume_mm3", "voxel": "volume_voxels"}[unit]
    rows = []
    for label in [*sorted(sizes.keys() - {0}), 0]:
        row: dict[str, Any] = {"region": label if label else "outside"}
        if names is not None:
            row["name"] = names.get(label, "") if label else "outside"
        count, volume = counts[label], sizes[label] * voxel
        density = count / volume if volume else None
        rows.append({**row, "count": count, measure: volume, f"density_per_{unit}": density})
    return rows


def _occurrences(values: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The values that occur and how often, or their weights; fast where neighbours are alike."""
    starts = np.flatnonzero(values[1:] != values[:-1]) + 1
    starts = np.concatenate([[0], starts])
    lengths = np.diff(starts, append=len(values))
    if weights is not None:
        lengths = np.add.reduceat(weights, starts)
    found, place = np.unique(values[starts], return_inverse=True)
    # Sums of floats, exact up to 2^53.
    return found, np.bincount(place, weights=lengths)


def write_regions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table of regions, whole or not at all.

    Args:
      path: the CSV file; its folder is created where missing.
      rows: from `count_regions`; None is written as nothing, a float with seven digits.
    """
    texts = ([f"{v:.7g}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    write_table(path, rows[0], texts)


def inside(points: np.ndarray, labels: Source, *, shape: Sequence[int]) -> np.ndarray:
    """The points that lie inside of a mask, where its label is not 0.

    Args:
      points: `(N, D)` in voxels of the image.
      labels: the mask, covers the image, from `label_volumes.open_label_volume`.
      shape: `(D,)` of the image.

    Returns:
      `(N,)` bool.

    Raises:
      InputError: see `label_volumes.lookup`.
    """
    return lookup(labels, points, shape=shape) != 0


def any_inside(labels: Source, region: Sequence[slice], shape: Sequence[int]) -> bool:
    """Whether a region of the image may have points inside of a mask; others need no computation.

    True also where the mask comes within a voxel (of the image) of the region, see `touched_by`.

    Args:
      labels: the mask, covers the image, from `label_volumes.open_label_volume`.
      region: `(D,)` slices of the image.
      shape: `(D,)` of the image.

    Returns:
      False where no point of the region is `inside`.

    Raises:
      InputError: see `Source.read_labels`.
    """
    touched = touched_by(region, labels.shape, shape=shape)
    return any(labels.read_labels(block).any() for block in blocks(labels, touched))
