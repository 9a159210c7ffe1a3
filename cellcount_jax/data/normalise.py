"""Intensities to the network's range, the same way in training and prediction.

An image becomes `(f(image) - centre) / scale`, with centre and scale per channel, either
its own or, with 'dataset', those of the training set, which are stored with the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError

# Of a normal distribution, the standard deviation is this times the MAD, and the distance of
# the 10th and 90th percentile divided by this.
_MAD_TO_DEVIATION = 1.4826
_DECILES_TO_DEVIATION = 2.563


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """How intensities are normalised; a part of a trained model.

    Attributes:
      method: 'dataset', mean and deviation over the training images [authors, VGG];
        'standardise', mean and deviation of each image; 'robust_log', median and MAD of
        log(1 + image) over the voxels that are not 0, for volumes that differ in density
        and background or have black regions outside the tissue.
      centre: `(channels,)`, for 'dataset' only.
      scale: `(channels,)`, for 'dataset' only.
    """

    method: str
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Normalises one image `(*spatial, channels)` to float32 of the same shape.

        Raises:
          InputError: negative intensities under a logarithm, or another number of channels.
        """
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
        return cls(stored["method"], tuple(stored["centre"]), tuple(stored["scale"]))


def fit(images: Iterable[np.ndarray], method: str) -> Normalisation:
    """The normalisation of a training set.

    Args:
      images: all training images, labelled or not, each `(*spatial, channels)`.
      method: see `Normalisation`.
    """
    if method != "dataset":
        return Normalisation(method)
    centre, scale = _moments(images)
    return Normalisation(method, tuple(map(float, centre)), tuple(map(float, scale)))


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
