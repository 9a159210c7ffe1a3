"""Each place of an image against its surroundings: local background and noise, block by block.

The statistics of blocks are measured once, some blocks in memory at a time; then any part of the
image can be normalised, with the same result as within the whole. Pure functions on one channel.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from cellcount_jax.images.ahead import in_turn
from cellcount_jax.images.arcsinh import arcsinh
from cellcount_jax.images.block_grid import BlockGrid
from cellcount_jax.images.regions import Region, all_of, extent, neighbours, within

# A part of one channel, `(*region)`, or of all, `(*region, channels)`.
Reader = Callable[[Region], np.ndarray]

# The standard deviation of a normal distribution is this times its MAD.
MAD_TO_DEVIATION = 1.4826
# The deviation of what rounding to whole grey levels adds, in their steps: no noise is less.
ROUNDING = 1 / math.sqrt(12)
# Signals below this many deviations of the noise stay linear, those above are compressed.
_KNEE = 5.0
# The least noise, as a share of the image's: in saturated or padded parts it is lower.
_LEAST_NOISE = 0.1
# A constant area is padding if it holds so much of a part of an image, and lies so far below or
# above the 2nd and 98th percentile of the rest, as a share of their distance.
PADDING_SHARE = 0.02
_PADDING_GAP = 0.05
_RECORDED_SHARE = 0.05  # the least share of what is no padding
# The brightness of tissue in units of its noise, and between what it is taken as measured: in 24
# light-sheet volumes of two stains and many brains it is 16 to 57, 31 in the middle.
_USUAL_BRIGHTNESS = 30.0
_PLAUSIBLE_BRIGHTNESS = (8.0, 130.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """Statistics of the blocks of one channel.

    Attributes:
      shape: `(D,)` of the image.
      median: `(*blocks,)` of the intensities of each block.
      noise: `(*blocks,)` deviation of the noise in it: that of neighbours along the last axis,
        1.48 MAD of their difference / sqrt(2), which neither cells nor slopes of the background
        raise much; 0 where nothing was recorded.
      padding: intensity that stands for 'nothing was recorded here', as outside of a mask; NaN
        where there is none. Blocks of nothing else have the median of the nearest other one.
    """

    shape: tuple[int, ...]
    median: np.ndarray
    noise: np.ndarray
    padding: float = math.nan

    @functools.cached_property
    def tissue(self) -> float:
        """The brightness of the tissue, see `contrast`."""
        recorded = self.noise > 0
        if not recorded.any():
            return abs(float(np.percentile(self.median, 75))) or 1.0
        brightness = float(np.percentile(self.median[recorded], 75))
        # Beside tissue there may be dark regions, whose noise is less.
        bright = self.median >= brightness - abs(brightness) / 2
        noise = float(np.median(self.noise[recorded & bright]))
        low, high = _PLAUSIBLE_BRIGHTNESS
        plausible = low * noise <= brightness <= high * noise
        return brightness if plausible else _USUAL_BRIGHTNESS * noise

    @functools.cached_property
    def usable_noise(self) -> np.ndarray:
        """`(*blocks,)` the noise, not 0."""
        present = self.noise[self.noise > 0]
        return np.maximum(self.noise, _LEAST_NOISE * np.median(present) if present.size else 1.0)


def measure(read: Reader, shape: Sequence[int], block: Sequence[int]) -> Blocks:
    """Measures the blocks of an image of one channel; see `measure_blocks`.

    Args:
      read: gives a part of the image, `(*region,)`.
      shape: `(D,)` of the image.
      block: `(D,)` voxels, about.
    """
    grid = BlockGrid.of(shape, block)
    return measure_blocks(lambda region: read(region)[..., None], grid, channels=1)[0]


def measure_blocks(read: Reader, grid: BlockGrid, *, channels: int) -> tuple[Blocks, ...]:
    """Measures the blocks of an image, reading each once, and neighbours together.

    While one group of neighbours is read, others are measured.

    Args:
      read: gives a part of the image, `(*region, channels)`.
      grid: of the blocks. Cells must fill less than half of one.
      channels: of the image.

    Returns:
      The blocks of each channel.
    """
    groups = grid.groups
    parts = in_turn(
        groups,
        lambda group: read(grid.region(group)),
        lambda group, values: statistics(values, grid, group),
    )
    return blocks_of(grid, zip(groups, parts, strict=True), channels=channels)


def statistics(values: np.ndarray, grid: BlockGrid, group: Region) -> np.ndarray:
    """Measures a group of blocks.

    Args:
      values: `(*region, channels)` intensities of the group.
      grid: of the blocks.
      group: one of its groups.

    Returns:
      `(3, channels, *group)` float64: median, noise and padding of each block.
    """
    found = np.zeros((3, values.shape[-1], *extent(group)))
    region = grid.region(group)
    for at in np.ndindex(*extent(group)):
        index = (part.start + i for part, i in zip(group, at, strict=True))
        block = grid.region(tuple(slice(i, i + 1) for i in index))
        part = values[within(block, region)]
        for channel in range(values.shape[-1]):
            found[(slice(None), channel, *at)] = _statistics(part[..., channel])
    return found


def blocks_of(
    grid: BlockGrid, measured: Iterable[tuple[Region, np.ndarray]], *, channels: int
) -> tuple[Blocks, ...]:
    """The blocks of each channel.

    Args:
      grid: of the blocks.
      measured: all its groups, and the `statistics` of each.
      channels: of the image.
    """
    found = np.full((3, channels, *grid.counts), math.nan)
    for group, part in measured:
        found[(slice(None), slice(None), *group)] = part
    return tuple(_blocks(grid.shape, *one) for one in zip(*found, strict=True))


def _blocks(
    shape: Sequence[int], median: np.ndarray, noise: np.ndarray, padding: np.ndarray
) -> Blocks:
    """The blocks of a channel, from the statistics of each and its own padding, NaN for none."""
    found, numbers = np.unique(padding[np.isfinite(padding)], return_counts=True)
    recorded = noise > 0
    if not found.size or not recorded.any():
        return Blocks(tuple(shape), median, noise)
    nearest = ndimage.distance_transform_edt(~recorded, return_distances=False, return_indices=True)
    value = float(found[numbers.argmax()])
    empty = ~recorded & (padding == value)
    return Blocks(tuple(shape), np.where(empty, median[tuple(nearest)], median), noise, value)


def _statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Median and noise of a block without its padding; and the padding, NaN for none."""
    lowest = values.min()
    if lowest == values.max():  # as where nothing was stored: quicker, and the same
        return float(lowest), 0.0, float(lowest)
    padded = values == lowest
    flat = padded[..., 1:] & padded[..., :-1]
    if flat.mean() < PADDING_SHARE or not is_padding(float(lowest), [values]):
        return float(np.median(values)), _noise(values), math.nan
    return float(np.median(values[~padded])), _noise(values, ~padded), float(lowest)


def is_padding(value: float, parts: Sequence[np.ndarray]) -> bool:
    """Whether an intensity of many pixels stands for 'nothing was recorded here'.

    It lies apart from all others: a background that was clipped to one intensity does not, as the
    others begin right above it. And the others hang together: what was recorded is one piece, where
    cells on a background of one intensity are many.

    Args:
      value: the intensity.
      parts: of the image, each `(*spatial,)`.
    """
    others = np.concatenate([part[part != value] for part in parts])
    if others.size < _RECORDED_SHARE * sum(part.size for part in parts):
        return False
    low, high = np.percentile(others, (2, 98))
    gap = _PADDING_GAP * (high - low)
    if low - gap <= value <= high + gap:
        return False
    sizes = (np.bincount(ndimage.label(part != value)[0].ravel())[1:] for part in parts)
    largest = sum(int(size.max(initial=0)) for size in sizes)
    return bool(largest >= 0.5 * others.size)


def background(blocks: Blocks, region: Region | None = None) -> np.ndarray:
    """The local background: medians of blocks, linear between their centres.

    Args:
      blocks: of the image.
      region: `(D,)` slices with start and stop; default all of it.

    Returns:
      `(*region,)` float32.
    """
    return _between(blocks.median, blocks.shape, region)


def _signal(values: np.ndarray, blocks: Blocks, region: Region | None) -> np.ndarray:
    """Intensities above the local background; 0 in the padding."""
    return np.where(values == blocks.padding, 0, values - background(blocks, region))


def signal_to_noise(values: np.ndarray, blocks: Blocks, region: Region | None = None) -> np.ndarray:
    """How far each voxel is above its local background, in deviations of the local noise.

        asinh((I - b) / (5 σ))

    b is the median, sigma the noise of a block of voxels, both linear between the blocks'
    centres. The result is linear for signals within the noise and logarithmic for bright ones
    (the asinh stretch of Lupton et al. 1999), and does not change with the image's gain and
    offset, with how densely cells lie, or with what is elsewhere in the image.

    Args:
      values: `(*region,)` intensities.
      blocks: of the image.
      region: where the values are from; default the whole image.

    Returns:
      `(*region,)` float32; 0 where a whole image is constant.
    """
    noise = _between(blocks.usable_noise, blocks.shape, region)
    return _in_deviations(_signal(values, blocks, region), noise)


def most_signal_to_noise(intensity: float, blocks: Blocks, region: Region) -> float:
    """What `signal_to_noise` of an intensity is at most in a region, where that is positive."""
    signal = intensity - _lowest(blocks.median, blocks.shape, region)
    return float(_in_deviations(signal, _lowest(blocks.usable_noise, blocks.shape, region)))


def _in_deviations(signal: Any, noise: Any) -> np.ndarray:
    return arcsinh(signal / (_KNEE * noise)).astype(np.float32)


def contrast(values: np.ndarray, blocks: Blocks, region: Region | None = None) -> np.ndarray:
    """How far each voxel is above its local background, relative to the tissue's brightness.

        10 asinh((I - b) / (2 r))

    b is the median of a block of voxels, linear between the blocks' centres. r is one number for
    the image, the upper quartile of these medians: the autofluorescence of the tissue, also where
    up to three quarters of the image are dark regions beside it, whose noise stays small; blocks
    of one intensity, as outside a mask, do not count. The result is 5 times the contrast
    (I - b) / r up to about 2, and logarithmic beyond; it does not change with the image's gain.
    Where r is not 8 to 130 times the noise, a level was added or subtracted, and r is 30 times it.

    Args:
      values: `(*region,)` intensities; the dark level of the camera is best near 0.
      blocks: of the image.
      region: where the values are from; default the whole image.

    Returns:
      `(*region,)` float32; 0 where a whole image is constant.
    """
    return _relative(_signal(values, blocks, region), blocks.tissue)


def most_contrast(intensity: float, blocks: Blocks, region: Region) -> float:
    """What `contrast` of an intensity is at most in a region, where that is positive."""
    signal = intensity - _lowest(blocks.median, blocks.shape, region)
    return float(_relative(signal, blocks.tissue))


def _relative(signal: Any, tissue: float) -> np.ndarray:
    return (10 * arcsinh(signal / (2 * tissue))).astype(np.float32)


def noise_of(differences: np.ndarray) -> float:
    """The noise's deviation from differences of neighbours, which few of them raise much."""
    if not differences.size:
        return 0.0
    return MAD_TO_DEVIATION * float(np.median(np.abs(differences))) / math.sqrt(2)


def _noise(values: np.ndarray, kept: np.ndarray | None = None) -> float:
    between = np.diff(values.astype(np.float64), axis=-1)
    return noise_of(between if kept is None else between[kept[..., 1:] & kept[..., :-1]])


def _between(grid: np.ndarray, shape: Sequence[int], region: Region | None) -> np.ndarray:
    """Values of blocks at each voxel of a region: linear between their centres, constant beyond.

    Each voxel's value is computed alone, so that no other voxel of the region matters.
    """
    region = region or all_of(shape)
    for axis, (part, size) in enumerate(zip(region, shape, strict=True)):
        low, high, share = neighbours(part, grid.shape[axis], size)
        share = share.reshape(-1, *[1] * (grid.ndim - axis - 1))
        grid = np.take(grid, low, axis) * (1 - share) + np.take(grid, high, axis) * share
    return grid.astype(np.float32)


def _lowest(grid: np.ndarray, shape: Sequence[int], region: Region) -> float:
    """The lowest value of the blocks between which those of a region's voxels lie."""
    around = []
    for part, blocks, size in zip(region, grid.shape, shape, strict=True):
        low, high, _ = neighbours(part, blocks, size)
        around.append(slice(int(low[0]), int(high[-1]) + 1))
    return float(grid[tuple(around)].min())
