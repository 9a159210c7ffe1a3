"""Settings for a folder of one's own, and how they follow from its images and cells."""

from __future__ import annotations

from collections.abc import Sequence

import ml_collections

from cellcount_jax import config as settings
from cellcount_jax import variants


def folder_config(*, ndim: int = 2) -> ml_collections.ConfigDict:
    """The settings of configs/folder.py: for images, or for volumes where `ndim` is 3."""
    config = settings.default_config()
    config.name = "folder"
    config.data.kind = "folder"
    config.data.normalisation = "robust_log"
    if ndim == 3:
        variants.use_volumes(config)
    return config


def use_radius(config: ml_collections.ConfigDict, radius: float, edges: Sequence[float]) -> None:
    """Settings in which a cell's size counts.

    A detection is true within a radius of a dot. Two peaks are two cells if they are apart by more
    than a third of it along some axis: cells that touch overlap where the image is blurred.
    Over the cells of VGG, MBM and the two light-sheet sets this gives, to a voxel, what was chosen
    for them by hand.

    Args:
      config: changed in place.
      radius: of a cell, in the unit of `edges`.
      edges: `(D,)` of a voxel: micrometres, or ones where they are unknown.
    """
    config.evaluation.max_distance = float(radius)
    config.detect.min_distance = tuple(max(1, int(radius / 3 / edge)) for edge in edges)


def use_sizes(config: ml_collections.ConfigDict, shapes: Sequence[Sequence[int]]) -> None:
    """Crops that fit the smallest of the images, as far as the network's strides allow.

    Args:
      config: changed in place.
      shapes: `(D,)` of each image.
    """
    smallest = [min(sizes) for sizes in zip(*shapes, strict=True)]
    strides = settings.total_stride(config)
    config.train.crop = tuple(
        min(crop, max(size // stride, 1) * stride)
        for crop, size, stride in zip(config.train.crop, smallest, strides, strict=True)
    )
