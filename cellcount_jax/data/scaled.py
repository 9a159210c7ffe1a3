"""A labelled image at another size: its pixels, dots, masks and labels together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cellcount_jax.data.sample import Sample
from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import Array, Resampled, all_of, size_text


def scaled(sample: Sample, factors: Sequence[float]) -> Sample:
    """Resamples a sample, as a model resamples the image that it counts.

    Args:
      sample: labelled or not.
      factors: `(D,)` by which each axis gets longer, above 0.

    Returns:
      The sample with `round(factor * size)` voxels along each axis, which fill the same space: the
      image averaged or linear between its voxels, dots `(x + 1/2) f - 1/2`, labels and the valid
      region those of the nearest voxel. Where the voxel size is not known it stays 1.

    Raises:
      InputError: no voxel would be left.
    """
    shape = tuple(round(n * f) for n, f in zip(sample.shape, factors, strict=True))
    if min(shape) < 1:
        raise InputError(
            f"{sample.source or sample.name}: nothing of {size_text(sample.shape)} voxels is left"
            f" at {size_text(tuple(factors))} of the size"
        )
    if shape == sample.shape:
        return sample
    exact = np.divide(shape, sample.shape)
    image = Resampled(Array(sample.image, len(shape)), shape).read(all_of(shape))
    points = sample.points
    if points is not None:
        inside = (-0.49, np.asarray(shape) - 0.51)
        points = np.clip((points + 0.5) * exact - 0.5, *inside).astype(np.float32)
    spacing = sample.spacing
    if sample.spacing_known:
        spacing = tuple(float(edge / f) for edge, f in zip(spacing, exact, strict=True))
    return dataclasses.replace(
        sample,
        image=image,
        points=points,
        spacing=spacing,
        valid=_nearest(sample.valid, shape),
        labels=_nearest(sample.labels, shape),
    )


def _nearest(array: np.ndarray | None, shape: Sequence[int]) -> np.ndarray | None:
    """The values of the nearest voxels on a grid of another shape on the same space."""
    if array is None:
        return None
    sizes = zip(shape, array.shape, strict=True)
    places = [((np.arange(new) + 0.5) * old / new).astype(int) for new, old in sizes]
    found: np.ndarray = array[np.ix_(*places)]
    return found
