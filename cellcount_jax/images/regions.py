"""Regions of images, and images that are read a region at a time: any array, a resampled image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from cellcount_jax.errors import InputError

Region = tuple[slice, ...]
MAX_RESAMPLING = 20  # times that an axis may get longer; more is a mistake in a size
TOO_LARGE = 1e30  # of an intensity: its square is beyond 32-bit floats
SAME_SIZE = 0.01  # relative: sizes so near are one, and nothing is resampled
# Gives a part of an image, `(*region, channels)`.
Reader = Callable[[Region], np.ndarray]


class Readable(Protocol):
    """An image that gives its parts, such as a `sources.Source`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(D,)` voxels."""
        ...

    @property
    def channels(self) -> int:
        """How many channels `read` gives."""
        ...

    def read(self, region: Region, /) -> np.ndarray:
        """`(*region, channels)` float32 intensities."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Array:
    """An array as an image.

    Attributes:
      values: NumPy, Zarr, dask or what else NumPy reads when it is indexed, `(*spatial,)` or
        `(*spatial, channels)`.
      ndim: spatial dimensions.
      channel: the one that is used; None = all.
    """

    values: Any
    ndim: int
    channel: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """`(D,)` voxels."""
        return tuple(map(int, self.values.shape[: self.ndim]))

    @property
    def channels(self) -> int:
        """1 where the array has no axis for them, or one is used."""
        several = self.values.ndim > self.ndim and self.channel is None
        return int(self.values.shape[-1]) if several else 1

    def read(self, region: Region) -> np.ndarray:
        """`(*region, channels)` float32.

        Raises:
          InputError: values are NaN, infinite or far too large.
        """
        part = self.values[region if self.channel is None else (*region, self.channel)]
        with np.errstate(over="ignore"):
            part = np.asarray(part, np.float32)
        if not (good := np.abs(part) < TOO_LARGE).all():  # NaN is not
            _, place = first_wrong(good, [part.start for part in region])
            raise InputError(
                f"the array is NaN, infinite or above {TOO_LARGE:g} at {place}; replace such values"
            )
        return part if part.ndim > self.ndim else part[..., None]


@dataclasses.dataclass(frozen=True, eq=False)
class Inverted:
    """An image with dark and bright exchanged: `highest - intensity`.

    Attributes:
      original: the image.
      highest: its highest intensity, so that none becomes negative.
    """

    original: Readable
    highest: float

    @property
    def shape(self) -> tuple[int, ...]:
        """`(D,)` voxels."""
        return self.original.shape

    @property
    def channels(self) -> int:
        """Those of the original."""
        return self.original.channels

    def read(self, region: Region) -> np.ndarray:
        """`(*region, channels)` float32."""
        return np.float32(self.highest) - self.original.read(region)


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """An image on other voxels, linear between the original's.

    Along an axis that gets shorter, a voxel is the mean of the original's around it, which weigh
    less with their distance, down to none at that of the next voxel: noise does not stay as
    strong, and nothing is skipped. Both fill the same space; a part is the same as of the whole.

    Attributes:
      original: the image.
      shape: `(D,)` voxels after resampling.
    """

    original: Readable
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Those of the original."""
        return self.original.channels

    def read(self, region: Region) -> np.ndarray:
        """`(*region, channels)` float32."""
        sizes = zip(region, self.original.shape, self.shape, strict=True)
        taps = [_taps(part, old, new) for part, old, new in sizes]
        needed = tuple(slice(int(at.min()), int(at.max()) + 1) for at, _ in taps)
        values = self.original.read(needed)
        for axis, ((places, weights), part) in enumerate(zip(taps, needed, strict=True)):
            taps_at = [np.take(values, at - part.start, axis) for at in places]
            # Differences to the first: where all are equal, as in padding, none is rounded.
            total = taps_at[0].copy()
            for tap, weight in zip(taps_at[1:], weights[1:].astype(np.float32), strict=True):
                total += (tap - taps_at[0]) * weight.reshape(-1, *[1] * (values.ndim - axis - 1))
            values = total
        return values

    def back(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, D)` in voxels of the original."""
        factors = np.divide(self.shape, self.original.shape)
        return ((points + 0.5) / factors - 0.5).astype(np.float32)


def original_of(image: Readable) -> Readable:
    """The image itself, of one that is resampled the original."""
    return image.original if isinstance(image, Resampled) else image


def neighbours(part: slice, old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Between which samples of an axis those of a finer or coarser grid on it lie.

    Args:
      part: of the new samples.
      old: samples on the axis.
      new: samples on the new grid, which fills the same length.

    Returns:
      For each new sample the old ones before and after it, the nearest one twice beyond the
      first and last centre, and the share of the second.
    """
    at = (np.arange(part.start, part.stop) + 0.5) * old / new - 0.5
    low = np.clip(np.floor(at).astype(int), 0, max(old - 2, 0))
    return low, np.minimum(low + 1, old - 1), np.clip(at - low, 0, 1)


def _taps(part: slice, old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Of which old samples on an axis each new one is made: `(taps, N)` places and weights."""
    if new >= old:
        low, high, share = neighbours(part, old, new)
        return np.stack([low, high]), np.stack([1 - share, share])
    step = old / new
    centre = (np.arange(part.start, part.stop) + 0.5) * step - 0.5
    first = np.ceil(centre - step).astype(int)
    places = first + np.arange(math.floor(2 * step) + 1)[:, None]
    weights = np.maximum(1 - np.abs(places - centre) / step, 0)
    weights[(places < 0) | (places >= old)] = 0
    return np.clip(places, 0, old - 1), weights / weights.sum(0)


def all_of(shape: Sequence[int]) -> Region:
    """The region of a whole image."""
    return tuple(slice(0, size) for size in shape)


def around(region: Region, margin: Sequence[int], shape: Sequence[int]) -> Region:
    """A region with a margin on all sides, as far as the image goes.

    Args:
      region: `(D,)` slices.
      margin: `(D,)` voxels.
      shape: `(D,)` of the image.
    """
    sizes = zip(region, margin, shape, strict=True)
    return tuple(slice(max(p.start - m, 0), min(p.stop + m, n)) for p, m, n in sizes)


def within(region: Region, outer: Region) -> Region:
    """A region, relative to one that holds it."""
    pairs = zip(region, outer, strict=True)
    return tuple(slice(p.start - o.start, p.stop - o.start) for p, o in pairs)


def placed(region: Region, outer: Region) -> Region:
    """A region that is given in the coordinates of an outer one; undoes `within`."""
    pairs = zip(region, outer, strict=True)
    return tuple(slice(part.start + o.start, part.stop + o.start) for part, o in pairs)


def lies_in(points: np.ndarray, region: Region) -> np.ndarray:
    """`(N,)` bool: which points `(N, D)` lie in the voxels of a region, centres at integers."""
    start, stop = ([getattr(p, side) - 0.5 for p in region] for side in ("start", "stop"))
    return np.asarray(((points >= start) & (points < stop)).all(1))


def first_wrong(good: np.ndarray, start: Sequence[int]) -> tuple[tuple[int, ...], str]:
    """Which value of a part of an image is the first that is not good, for a message.

    Args:
      good: `(*region,)` or `(*region, channels)` bool, not all true.
      start: `(D,)` the first voxel of the region.

    Returns:
      Its index in `good`, and its place in the image, for example "(y, x) = (3, 7)".
    """
    index = tuple(map(int, np.unravel_index(int(np.argmin(good)), good.shape)))
    place = ", ".join(str(i + first) for i, first in zip(index, start, strict=False))
    return index, f"({', '.join('zyx'[-len(start) :])}) = ({place})"


def extent(region: Region) -> tuple[int, ...]:
    """The size of a region."""
    return tuple(part.stop - part.start for part in region)


def voxels_of(points: np.ndarray) -> np.ndarray:
    """Indices `(N, D)` int64 of the voxels that points `(N, D)` lie in: floor(x + 0.5)."""
    return np.floor(np.asarray(points) + 0.5).astype(np.int64)


def size_text(sizes: Sequence[float]) -> str:
    """Sizes of axes as text, for example "256 x 256" or "6 x 1.62 x 1.62"."""
    return " x ".join(f"{size:g}" if isinstance(size, float) else str(size) for size in sizes)
