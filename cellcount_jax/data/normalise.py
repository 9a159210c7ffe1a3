"""Intensities to the network's range, the same way in training and prediction.

An image becomes `(f(image) - centre) / scale`, with centre and scale per channel: its own, those
of each place in it ('contrast', 'signal_to_noise'), or those of the training set ('dataset'),
which are stored with the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError

# Of a normal distribution, the standard deviation is this times the MAD, and the distance of
# the 10th and 90th percentile divided by this.
_MAD_TO_DEVIATION = 1.4826
_DECILES_TO_DEVIATION = 2.563
# Signals below this many deviations of the noise stay linear, those above are compressed.
_KNEE = 5.0
# Where the noise is less than this share of the image's, as in saturated or padded parts.
_LEAST_NOISE = 0.1


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """How intensities are normalised; a part of a trained model.

    Attributes:
      method: 'dataset', mean and deviation over the training images [authors, VGG];
        'standardise', mean and deviation of each image; 'robust_log', median and MAD of
        log(1 + image) over the voxels that are not 0; and two for volumes that differ in
        density, brightness and background: 'contrast', each place's distance to its own
        background relative to the tissue's brightness, see `contrast`, and 'signal_to_noise',
        the same in units of its own noise, see `signal_to_noise`.
      centre: `(channels,)`, for 'dataset' only.
      scale: `(channels,)`, for 'dataset' only.
      block: `(D,)` voxels, over which the background is one, for those in `LOCAL` only.
    """

    method: str
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    block: tuple[int, ...] = ()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Normalises one image `(*spatial, channels)` to float32 of the same shape.

        Raises:
          InputError: negative intensities under a logarithm, or another number of channels.
        """
        if self.method in LOCAL:
            function = LOCAL[self.method]
            return np.stack([function(c, self.block) for c in np.moveaxis(image, -1, 0)], -1)
        if self.method == "robust_log":
            values = _log(image)
            centre, scale = _robust(values, image > 0)
        elif self.method == "standardise":
            values, (centre, scale) = image, _moments([image])
        else:
            values, centre, scale = image, np.asarray(self.centre), np.asarray(self.scale)
            if image.shape[-1] != len(self.centre):
                raise InputError(
                    f"the image has {image.shape[-1]} channels, the model was trained on "
                    f"{len(self.centre)}"
                )
        return ((values - centre) / scale).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Normalisation:
        """Reads what `to_dict` gave."""
        names = ("centre", "scale", "block")
        return cls(stored["method"], **{name: tuple(stored[name]) for name in names})


def fit(
    images: Iterable[np.ndarray],
    method: str,
    *,
    background: float = 120.0,
    spacing: Sequence[float] = (),
) -> Normalisation:
    """The normalisation of a training set.

    Args:
      images: all training images, labelled or not, each `(*spatial, channels)`.
      method: see `Normalisation`.
      background: length over which the background is one, in the units of `spacing`, for those
        in `LOCAL`.
      spacing: `(D,)` voxel size of the images, for the same.
    """
    if method in LOCAL:
        block = tuple(max(2, round(background / edge)) for edge in spacing)
        return Normalisation(method, block=block)
    if method != "dataset":
        return Normalisation(method)
    centre, scale = _moments(images)
    return Normalisation(method, tuple(map(float, centre)), tuple(map(float, scale)))


def signal_to_noise(values: np.ndarray, block: Sequence[int]) -> np.ndarray:
    """How far each voxel is above its local background, in deviations of the local noise.

    .. math:: \\operatorname{asinh}\\left(\\frac{I - b}{5 \\sigma}\\right)

    b is the median, sigma the noise of a block of voxels, both linear between the blocks'
    centres. The noise is that of neighbours along the last axis: 1.48 MAD of their difference /
    sqrt(2), which neither cells nor slopes of the background raise much. The result is linear for
    signals within the noise and logarithmic for bright ones (the asinh stretch of Lupton et al.
    1999), and does not change with the image's gain and offset, with how densely cells lie, or
    with what is elsewhere in the image.

    Args:
      values: `(*spatial,)` intensities.
      block: `(D,)` voxels. Cells must fill less than half of one.

    Returns:
      `(*spatial,)` float32; 0 where a whole image is constant.
    """
    noise = _of_blocks(values, block, _noise)
    present = noise[noise > 0]
    noise = np.maximum(noise, _LEAST_NOISE * np.median(present) if present.size else 1.0)
    signal = values - background(values, block)
    return np.arcsinh(signal / (_KNEE * _between_blocks(noise, values.shape))).astype(np.float32)


def contrast(values: np.ndarray, block: Sequence[int]) -> np.ndarray:
    """How far each voxel is above its local background, relative to the tissue's brightness.

    .. math:: 10 \\operatorname{asinh}\\left(\\frac{I - b}{2 r}\\right)

    b is the median of a block of voxels, linear between the blocks' centres. r is one number for
    the image, the upper quartile of these medians: the autofluorescence of the tissue, also where
    up to three quarters of the image are dark regions beside it, whose noise stays small. The
    result is 5 times the contrast (I - b) / r up to about 2, and logarithmic beyond; it does not
    change with the image's gain, nor with what is elsewhere in the tissue.

    Args:
      values: `(*spatial,)` intensities, the dark level of the camera not far from 0.
      block: `(D,)` voxels. Cells must fill less than half of one.

    Returns:
      `(*spatial,)` float32; 0 where a whole image is constant.
    """
    medians = _of_blocks(values, block, np.median)
    tissue = float(np.percentile(medians, 75))
    signal = values - _between_blocks(medians, values.shape)
    return (10 * np.arcsinh(signal / (2 * (abs(tissue) or 1.0)))).astype(np.float32)


def background(values: np.ndarray, block: Sequence[int]) -> np.ndarray:
    """The local background of an image: medians of blocks, linear between their centres.

    Args:
      values: `(*spatial,)` intensities.
      block: `(D,)` voxels. Cells must fill less than half of one.

    Returns:
      `(*spatial,)` float32.
    """
    return _between_blocks(_of_blocks(values, block, np.median), values.shape)


# What measures every place against its surroundings, by name.
LOCAL = {"signal_to_noise": signal_to_noise, "contrast": contrast}


def _of_blocks(
    values: np.ndarray, block: Sequence[int], statistic: Callable[[np.ndarray], Any]
) -> np.ndarray:
    """A statistic of each block of about so many voxels."""
    counts = [max(1, round(n / size)) for n, size in zip(values.shape, block, strict=True)]
    found = np.zeros(counts)
    ends = [np.linspace(0, n, c + 1).astype(int) for n, c in zip(values.shape, counts, strict=True)]
    for index in np.ndindex(*counts):
        part = values[tuple(slice(e[i], e[i + 1]) for e, i in zip(ends, index, strict=True))]
        found[index] = statistic(part)
    return found


def _noise(values: np.ndarray) -> float:
    """The deviation of the noise, from neighbours along the last axis; 0 if there are none."""
    if values.shape[-1] < 2:
        return 0.0
    between = np.median(np.abs(np.diff(values.astype(np.float64), axis=-1)))
    return _MAD_TO_DEVIATION * float(between) / math.sqrt(2)


def _between_blocks(grid: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Values of blocks at every voxel: linear between their centres, constant beyond them."""
    factors = [size / count for size, count in zip(shape, grid.shape, strict=True)]
    finer = ndimage.zoom(grid, factors, order=1, mode="nearest", grid_mode=True)
    return finer.astype(np.float32)


def _moments(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel over images of any sizes."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for image in images:
        flat = image.reshape(-1, image.shape[-1]).astype(np.float64)
        count += len(flat)
        total = total + flat.sum(0)
        squares = squares + np.square(flat).sum(0)
    mean = total / count
    return mean, _usable(np.sqrt(np.maximum(squares / count - mean**2, 0)))


def _robust(values: np.ndarray, tissue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centres, scales = [], []
    for channel in range(values.shape[-1]):
        inside = values[..., channel][tissue[..., channel]]
        centre = float(np.median(inside)) if inside.size else 0.0
        centres.append(centre)
        scales.append(_spread(inside, centre) if inside.size else 0.0)
    return np.asarray(centres), _usable(np.asarray(scales))


def _spread(values: np.ndarray, centre: float) -> float:
    """The MAD as a standard deviation; where half of the values are one grey level (8-bit
    images), that of the 10th to 90th percentile, or the standard deviation itself."""
    mad = float(np.median(np.abs(values - centre)))
    low, high = np.percentile(values, [10, 90])
    return (
        _MAD_TO_DEVIATION * mad or float(high - low) / _DECILES_TO_DEVIATION or float(values.std())
    )


def _usable(scale: np.ndarray) -> np.ndarray:
    """A constant channel stays constant instead of being divided by zero."""
    return np.where(scale > 1e-6, scale, 1.0)


def _log(image: np.ndarray) -> np.ndarray:
    lowest = float(image.min())
    if lowest < 0:
        raise InputError(
            f"the image has negative intensities (lowest {lowest:g}), which"
            " config.data.normalisation = 'robust_log' cannot take; use 'standardise'"
        )
    return np.log1p(image)
