"""Each place of an image against its surroundings: local background and noise, block by block.

The statistics of blocks are measured once, one block in memory at a time; then any part of the
image can be normalised, with the same result as within the whole. Pure functions on one channel.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cellcount_jax.data.readable import Region, neighbours

# A part of one channel, `(*region)`.
Reader = Callable[[Region], np.ndarray]

# Of a normal distribution, the standard deviation is this times the MAD.
MAD_TO_DEVIATION = 1.4826
# Signals below this many deviations of the noise stay linear, those above are compressed.
_KNEE = 5.0
# Where the noise is less than this share of the image's, as in saturated or padded parts.
_LEAST_NOISE = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """Statistics of the blocks of one channel.

    Attributes:
      shape: `(D,)` of the image.
      median: `(*blocks,)` of the intensities of each block.
      noise: `(*blocks,)` deviation of the noise in it: that of neighbours along the last axis,
        1.48 MAD of their difference / sqrt(2), which neither cells nor slopes of the background
        raise much.
    """

    shape: tuple[int, ...]
    median: np.ndarray
    noise: np.ndarray


def measure(read: Reader, shape: Sequence[int], block: Sequence[int]) -> Blocks:
    """Measures the blocks of an image, reading each once.

    Args:
      read: gives a part of the image.
      shape: `(D,)` of the image.
      block: `(D,)` voxels, about; the image is divided into blocks of equal size. Cells must fill
        less than half of one.
    """
    counts = [max(1, round(n / size)) for n, size in zip(shape, block, strict=True)]
    median, noise = np.zeros(counts), np.zeros(counts)
    for index, region in _regions(shape, counts):
        part = read(region)
        median[index] = np.median(part)
        noise[index] = _noise(part)
    return Blocks(tuple(shape), median, noise)


def background(blocks: Blocks, region: Region | None = None) -> np.ndarray:
    """The local background: medians of blocks, linear between their centres.

    Args:
      blocks: of the image.
      region: `(D,)` slices with start and stop; default all of it.

    Returns:
      `(*region,)` float32.
    """
    return _between(blocks.median, blocks.shape, region)


def signal_to_noise(values: np.ndarray, blocks: Blocks, region: Region | None = None) -> np.ndarray:
    """How far each voxel is above its local background, in deviations of the local noise.

    .. math:: \\operatorname{asinh}\\left(\\frac{I - b}{5 \\sigma}\\right)

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
    present = blocks.noise[blocks.noise > 0]
    noise = np.maximum(blocks.noise, _LEAST_NOISE * np.median(present) if present.size else 1.0)
    signal = values - background(blocks, region)
    return np.arcsinh(signal / (_KNEE * _between(noise, blocks.shape, region))).astype(np.float32)


def contrast(values: np.ndarray, blocks: Blocks, region: Region | None = None) -> np.ndarray:
    """How far each voxel is above its local background, relative to the tissue's brightness.

    .. math:: 10 \\operatorname{asinh}\\left(\\frac{I - b}{2 r}\\right)

    b is the median of a block of voxels, linear between the blocks' centres. r is one number for
    the image, the upper quartile of these medians: the autofluorescence of the tissue, also where
    up to three quarters of the image are dark regions beside it, whose noise stays small. The
    result is 5 times the contrast (I - b) / r up to about 2, and logarithmic beyond; it does not
    change with the image's gain.

    Args:
      values: `(*region,)` intensities, the dark level of the camera not far from 0.
      blocks: of the image.
      region: where the values are from; default the whole image.

    Returns:
      `(*region,)` float32; 0 where a whole image is constant.
    """
    tissue = float(np.percentile(blocks.median, 75))
    signal = values - background(blocks, region)
    return (10 * np.arcsinh(signal / (2 * (abs(tissue) or 1.0)))).astype(np.float32)


def _regions(
    shape: Sequence[int], counts: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Region]]:
    """The blocks of an image: index and place."""
    ends = [np.linspace(0, n, c + 1).astype(int) for n, c in zip(shape, counts, strict=True)]
    for index in np.ndindex(*counts):
        yield (
            index,
            tuple(slice(int(e[i]), int(e[i + 1])) for e, i in zip(ends, index, strict=True)),
        )


def _noise(values: np.ndarray) -> float:
    if values.shape[-1] < 2:
        return 0.0
    between = np.median(np.abs(np.diff(values.astype(np.float64), axis=-1)))
    return MAD_TO_DEVIATION * float(between) / math.sqrt(2)


def _between(grid: np.ndarray, shape: Sequence[int], region: Region | None) -> np.ndarray:
    """Values of blocks at each voxel of a region: linear between their centres, constant beyond.

    Each voxel's value is computed alone, so that no other voxel of the region matters.
    """
    region = region or tuple(slice(0, n) for n in shape)
    for axis, (part, size) in enumerate(zip(region, shape, strict=True)):
        low, high, share = neighbours(part, grid.shape[axis], size)
        share = share.reshape(-1, *[1] * (grid.ndim - axis - 1))
        grid = np.take(grid, low, axis) * (1 - share) + np.take(grid, high, axis) * share
    return grid.astype(np.float32)
