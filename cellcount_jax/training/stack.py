"""A data set's training images as device arrays.

Images of different sizes are stacked into one array, padded at the far ends; crops come from
inside each image's own box, so that the padding is never seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from flax import struct
from jax import Array
from scipy import ndimage

from cellcount_jax import config as settings
from cellcount_jax.data.sample import Dataset, Sample, valid_box, voxels_inside
from cellcount_jax.errors import InputError
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import size_text
from cellcount_jax.maps import targets
from cellcount_jax.training import augment, kinds

_MIN_USED_SHARE = 0.1  # of the labelled voxels; a warning is given below


@struct.dataclass
class ImageStack:
    """Images of one kind, stacked.

    Attributes:
      images: `(N, *spatial, channels)` float32, normalised.
      low: `(N, D)` int32, first voxel of the box that crops come from.
      high: `(N, D)` int32, one past its last voxel.
      valid: `(N, *spatial)` bool, where the target is known; None for unlabelled images.
      points: `(N, K, D)` int32, voxels of the dots inside the valid region, or None.
      mask: `(N, K)` bool, or None.
      size: `(N, D)` int32, of the images without padding, or None.
      drawn: `(N,)` float32, up to which of the numbers in [0, 1) an image is drawn; None: all of
        them equally often.
      cells: `(N, *spatial)` float32, 1 inside cells, for the full-annotation target only,
        else None.
    """

    images: Array
    low: Array
    high: Array
    valid: Array | None = None
    points: Array | None = None
    mask: Array | None = None
    size: Array | None = None
    drawn: Array | None = None
    cells: Array | None = None


@struct.dataclass
class TrainingData:
    """What lives on the device while training."""

    labelled: ImageStack
    unlabelled: ImageStack | None


def on_device(
    dataset: Dataset, normalisation: Normalisation, config: ml_collections.ConfigDict
) -> TrainingData:
    """Stacks a data set's training images.

    Raises:
      InputError: a crop does not fit an image, or the full-annotation target has no labels.
    """
    labelled = _stack(dataset.labelled, normalisation, config, with_labels=True)
    if config.consistency.weight == 0 or config.train.batch_unlabelled == 0:
        return TrainingData(labelled, None)
    # Without unlabelled images the labelled ones serve, their dots unused.
    without = dataset.unlabelled or dataset.labelled
    return TrainingData(labelled, _stack(without, normalisation, config, with_labels=False))


def unlabelled_window(config: ml_collections.ConfigDict) -> tuple[int, ...]:
    """The voxels that the teacher sees: a crop, or more where the student's is of another size."""
    crop, scale = tuple(config.train.crop), config.consistency.scale
    if scale == 0:
        return crop
    sizes = augment.window(crop, scale=scale)
    strides = settings.total_stride(config)
    return tuple(-(-size // stride) * stride for size, stride in zip(sizes, strides, strict=True))


def _stack(
    samples: Sequence[Sample],
    normalisation: Normalisation,
    config: ml_collections.ConfigDict,
    *,
    with_labels: bool,
) -> ImageStack:
    crop = tuple(config.train.crop)
    for sample in samples:
        if any(size < c for size, c in zip(sample.shape, crop, strict=True)):
            raise InputError(
                f"{sample.source or sample.name}: the image is {size_text(sample.shape)} voxels,"
                f" smaller than config.train.crop = {size_text(crop)}; choose a smaller crop"
            )
    seen = crop if with_labels else unlabelled_window(config)
    window = augment.window(seen, scale=config.augment.scale)
    shape = tuple(max(sizes) for sizes in zip(window, *(s.shape for s in samples), strict=True))
    normalised = (normalisation(s.image, original=s.original) for s in samples)
    images = np.stack([_padded(values, shape) for values in normalised])
    boxes = [_box(s, window) for s in samples]
    low = np.asarray([b[0] for b in boxes], np.int32)
    high = np.asarray([b[1] for b in boxes], np.int32)
    if not with_labels:
        drawn = None
        if config.consistency.balance:
            pairs = zip(images, samples, strict=True)
            shares = kinds.shares([image[tuple(map(slice, s.shape))] for image, s in pairs])
            drawn = jnp.asarray(np.cumsum(shares), jnp.float32)
        return ImageStack(jnp.asarray(images), jnp.asarray(low), jnp.asarray(high), drawn=drawn)
    dots = [voxels_inside(s) for s in samples]
    most = max(1, *(len(d) for d in dots))
    points = np.zeros((len(samples), most, len(shape)), np.int32)
    mask = np.zeros((len(samples), most), bool)
    for i, d in enumerate(dots):
        points[i, : len(d)] = d
        mask[i, : len(d)] = True
    counted = [trusted(s, config) for s in samples]
    _warn_of_unused(samples, counted)
    valid = np.stack([_padded(c, shape) for c in counted])
    cells = None
    if config.target.kernel == "mask":
        cells = jnp.asarray(np.stack([_padded(_cells(s), shape) for s in samples]))
    return ImageStack(
        images=jnp.asarray(images),
        low=jnp.asarray(low),
        high=jnp.asarray(high),
        valid=jnp.asarray(valid),
        points=jnp.asarray(points),
        mask=jnp.asarray(mask),
        size=jnp.asarray([s.shape for s in samples], jnp.int32),
        cells=cells,
    )


def trusted(sample: Sample, config: ml_collections.ConfigDict) -> np.ndarray:
    """Where a labelled sample's target is known, `(*spatial,)` bool.

    Outside the valid region there may be dots that nobody placed. A voxel inside counts where
    none of them could change its target: with the inverse-distance kernel where a known dot, or
    the end of the kernel, is as near as the region's edge; with a Gaussian one, beyond its reach.
    """
    if sample.valid is None:
        return np.ones(sample.shape, bool)
    if config.target.kernel == "mask" or sample.valid.all():
        return sample.valid
    edges, unit = sample.spacing, config.target.unit or min(sample.spacing)
    to_unknown = ndimage.distance_transform_edt(sample.valid, sampling=edges)
    if config.target.kernel == "gaussian":
        return to_unknown > targets.GAUSSIAN_REACH * config.target.sigma * unit
    if config.target.count_head:
        whole = to_unknown > targets.GAUSSIAN_REACH * config.target.count_sigma * unit
    else:
        whole = sample.valid
    known = to_unknown > config.target.max_distance * unit
    apart = np.ones(sample.shape, bool)
    apart[tuple(voxels_inside(sample).T)] = False
    if not apart.all():
        known |= to_unknown >= ndimage.distance_transform_edt(apart, sampling=edges)
    return whole & known


def _warn_of_unused(samples: Sequence[Sample], counted: Sequence[np.ndarray]) -> None:
    """Warns of images whose labelled part is learned from hardly at all."""
    for sample, known in zip(samples, counted, strict=True):
        if sample.valid is not None and known.sum() < _MIN_USED_SHARE * sample.valid.sum():
            logging.warning(
                "%s: %.1f %% of what is labelled is learned from, as elsewhere dots beyond its end"
                " could change the map; label more cells, or larger and neighbouring parts",
                sample.source or sample.name,
                100 * known.sum() / sample.valid.sum(),
            )


def _cells(sample: Sample) -> np.ndarray:
    """The mask target of a whole image, so that a crop's edge does not change it."""
    if sample.labels is None:
        raise InputError(
            f"{sample.source or sample.name}: config.target.kernel = 'mask' needs a full annotation"
            f" ({sample.name}_labels.tif) of every labelled image, and this one has none"
        )
    return np.asarray(targets.mask_target(jnp.asarray(sample.labels)))


def _box(sample: Sample, window: Sequence[int]) -> tuple[list[int], list[int]]:
    """The box that crops come from: all of the image, or what holds its valid region."""
    if sample.points is None:
        return [0] * len(sample.shape), list(sample.shape)
    low, high = (ends.tolist() for ends in valid_box(sample))
    # A region smaller than the window may lie at the image's end: the window starts before it.
    ends = zip(low, sample.shape, window, strict=True)
    return [max(min(first, n - w), 0) for first, n, w in ends], high


def _padded(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    ends = [(0, n - size) for n, size in zip(shape, array.shape, strict=False)]
    return np.pad(array, ends + [(0, 0)] * (array.ndim - len(shape)))
