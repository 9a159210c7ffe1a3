"""The size of the cells of an image, measured before anything else is known of them.

It is a beginning, to be looked at and corrected: parts that are brighter than Otsu's threshold are
taken for cells, without a network and in a second or so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.images import levels
from cellcount_jax.images.background import noise_of
from cellcount_jax.images.regions import Region, all_of

_BOX_VOXELS = 2**21  # of a volume, looked at in one piece
_BOXES = 4  # of a larger volume, spread over it
_SMALLEST = 5  # voxels; parts of fewer are noise
# The least distance of cells and background, in deviations of the noise. The two parts of nothing
# but noise have up to 1.2, those of 92 images and volumes of nuclei, c-Fos and microglia 6 or more.
_LEAST_CONTRAST = 3.0


def measure_diameter(
    read: Callable[[Region], np.ndarray], shape: Sequence[int], edges: Sequence[float]
) -> float | None:
    """The diameter of a cell: of the circle (ball) of the median area (volume) of the bright parts.

    Of the test images of nuclei2d it is within 25 % of that of the labels in 90 %, and within a
    factor of 2 in all; on twelve light-sheet volumes it is 0.9 to 2.3 times it, as light spreads.
    In an image with dark cells, those are measured.

    Args:
      read: the intensities `(*region)` of a part of the image.
      shape: `(D,)` of it; a large image is looked at in parts all over it.
      edges: `(D,)` of a voxel.

    Returns:
      In the unit of `edges`; None where nothing can be told from the background.
    """
    if len(shape) == 3:
        return _of_volume(read, shape, np.asarray(edges))
    found = levels.measure(lambda region: read(region)[..., None], shape, channels=1)[0]
    if found.inverted:
        found = levels.measure(lambda region: -read(region)[..., None], shape, channels=1)[0]
    if found.diameter is None or found.cells - found.background < _LEAST_CONTRAST * found.noise:
        return None
    return found.diameter * math.sqrt(math.prod(edges))


def check_diameter(diameter: float | None) -> None:
    """Makes sure that a diameter that a command was given is a size.

    Raises:
      InputError: it is not positive and finite.
    """
    if diameter is not None and not 0 < diameter < math.inf:
        raise InputError(f"--diameter {diameter:g}: must be a positive number.")


def _of_volume(
    read: Callable[[Region], np.ndarray], shape: Sequence[int], edges: np.ndarray
) -> float | None:
    boxes = [read(region) for region in _boxes(shape, edges)]
    # Against noise, by as much along each axis; where planes are far apart not across them.
    sigma = np.where(edges > 2 * edges.min(), 0.3, edges.min() / edges)
    smooth = [ndimage.gaussian_filter(box.astype(np.float32), sigma) for box in boxes]
    smoothed = np.concatenate([values.ravel() for values in smooth])
    threshold = levels.otsu(smoothed)
    if threshold is None:
        return None
    raw = np.concatenate([box.ravel() for box in boxes])
    above = smoothed > threshold
    noise = noise_of(np.concatenate([np.diff(box.astype(float)).ravel() for box in boxes]))
    if np.median(raw[above]) - np.median(raw[~above]) < _LEAST_CONTRAST * noise:
        return None
    parts = (ndimage.label(values > threshold)[0] for values in smooth)
    sizes = np.concatenate([np.bincount(labels.ravel())[1:] for labels in parts])
    sizes = sizes[sizes > _SMALLEST]
    if not len(sizes):
        return None
    return float(np.cbrt(6 / math.pi * np.median(sizes) * edges.prod()))


def _boxes(shape: Sequence[int], edges: np.ndarray) -> Iterator[Region]:
    """All of a volume or, of a large one, about cubes that are spread over it."""
    if math.prod(shape) <= _BOXES * _BOX_VOXELS:
        yield all_of(shape)
        return
    side = (_BOX_VOXELS * edges.prod()) ** (1 / 3)
    size = np.clip(np.round(side / edges).astype(int), 1, shape).tolist()
    starts = [range(0, n - s + 1, s) for n, s in zip(shape, size, strict=True)]
    corners = list(itertools.product(*starts))
    # Not the outermost ones, in which there is often nothing.
    for at in np.linspace(0, len(corners) - 1, _BOXES + 2).round().astype(int)[1:-1]:
        yield tuple(slice(c, c + s) for c, s in zip(corners[at], size, strict=True))
