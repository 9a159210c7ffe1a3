"""Samples, the images of all readers and of the generator, and data sets made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import voxels_of


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image or volume, with its dots where it is labelled.

    Attributes:
      name: short name, unique in its set; output files are named after it.
      image: `(*spatial, channels)` float32, raw intensities as read, finite.
      points: `(N, D)` float32 dots in index order (`y, x` or `z, y, x`), voxel centres
        at integers, all inside the image; None for an unlabelled image.
      spacing: `(D,)` voxel size in micrometres; ones where it is unknown
        (`spacing_known` False), so that distances are then in voxels.
      spacing_known: whether the voxel size was read or given.
      valid: `(*spatial,)` bool, where the labels can be trusted; None means everywhere.
        Outside it dots are unknown, not absent.
      labels: `(*spatial,)` int32 instance labels, 0 = background, every cell its own
        number, whatever the order of the points; None where there is no full annotation.
      source: the file that the image was read from, or a description.
      scale: `(D,)` voxels for one of the file, of an image that was resampled; () of others.
      original: `(*spatial, channels)` what was resampled, by which the image is normalised.
    """

    name: str
    image: np.ndarray
    points: np.ndarray | None
    spacing: tuple[float, ...]
    spacing_known: bool = False
    valid: np.ndarray | None = None
    labels: np.ndarray | None = None
    source: str = ""
    scale: tuple[float, ...] = ()
    original: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape, without channels."""
        return self.image.shape[:-1]

    def in_file(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, D)` of this image in voxels of its file."""
        if not self.scale:
            return points
        return ((points + 0.5) / np.asarray(self.scale) - 0.5).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The images of one experiment.

    Attributes:
      description: one line for logs and reports: kind, numbers and place of the images.
      labelled: the training images with dots (at least one).
      unlabelled: the training images without dots; may be empty.
      tests: name of a test set -> its labelled images; the first is the main one. May be
        empty: a run is then scored on `calibration`, or on its training images.
      calibration: labelled images, or parts of training images by their valid regions, that are
        not learned from but choose the threshold; empty: the training images do.
    """

    description: str
    labelled: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    tests: Mapping[str, tuple[Sample, ...]]
    calibration: tuple[Sample, ...] = ()


T = TypeVar("T")


def permuted(items: Sequence[T], *, seed: int) -> list[T]:
    """The items in the order of NumPy's legacy permutation, which published splits use.

    Args:
      items: the sorted items.
      seed: of `numpy.random.RandomState`.

    Returns:
      A permutation of them.
    """
    return [items[index] for index in np.random.RandomState(seed).permutation(len(items))]


def take(items: Sequence[T], count: int, *, key: str, least: int = 0) -> list[T]:
    """The first `count` items.

    Args:
      items: what there is, in order of preference.
      count: how many to use; -1 is all.
      key: the setting that `count` comes from, for the message.
      least: how many are needed.

    Returns:
      `count` items.

    Raises:
      InputError: fewer than `least`, more than there are, or a negative number but -1.
    """
    wanted = len(items) if count == -1 else count
    if not least <= wanted <= len(items):
        raise InputError(
            f"{key} = {count}: there are {len(items)} to choose from, and at least {least} must be"
            f" used; {least} to {len(items)} or -1 (all) is allowed."
        )
    return list(items[:wanted])


def voxels_inside(sample: Sample) -> np.ndarray:
    """Voxels `(N, D)` int32 of a labelled sample's dots that lie in its valid region."""
    voxels = voxels_of(np.asarray(sample.points)).astype(np.int32)
    return voxels if sample.valid is None else voxels[sample.valid[tuple(voxels.T)]]


def valid_box(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The first voxel `(D,)` of the box around the valid region, and one past its last.

    Raises:
      InputError: the region is empty.
    """
    if sample.valid is None:
        return np.zeros(len(sample.shape), int), np.asarray(sample.shape)
    if not sample.valid.any():
        raise InputError(f"{sample.source or sample.name}: the valid region is empty")
    axes = range(sample.valid.ndim)
    used = [
        np.flatnonzero(sample.valid.any(axis=tuple(a for a in axes if a != axis))) for axis in axes
    ]
    return np.array([u[0] for u in used]), np.array([u[-1] + 1 for u in used])
