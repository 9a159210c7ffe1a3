"""Kinds of images, by how they look, so that a rare kind is drawn as often as a frequent one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.cluster import vq

_MOST_KINDS = 8
_LEAST_IMAGES = 4  # of a kind, in the mean
_PERCENTILES = (1, 50, 99)
_SIGMAS = (1.0, 2.0, 4.0)  # voxels: detail of these sizes


def shares(images: Sequence[np.ndarray]) -> np.ndarray:
    """How often each image is to be drawn so that all kinds are drawn equally often.

    Kinds are clusters (k-means) of what images look like: percentiles, detail of a few sizes and
    their number of voxels.

    Args:
      images: `(*spatial, channels)` each, normalised.

    Returns:
      `(images,)` float, which sum to 1.
    """
    number = min(_MOST_KINDS, len(images) // _LEAST_IMAGES)
    if number < 2:
        return np.full(len(images), 1 / len(images))
    looks = np.stack([_look(image) for image in images])
    looks = (looks - looks.mean(axis=0)) / np.maximum(looks.std(axis=0), 1e-6)
    _, kind = vq.kmeans2(looks, number, minit="++", rng=np.random.default_rng(0))
    sizes = np.bincount(kind, minlength=number)
    return 1 / (np.count_nonzero(sizes) * sizes[kind])


def _look(image: np.ndarray) -> np.ndarray:
    values = np.asarray(image, np.float32).mean(axis=-1)
    finer, details = values, []
    for sigma in _SIGMAS:
        smooth = ndimage.gaussian_filter(values, sigma)
        details.append(np.log((finer - smooth).std() + 1e-3))
        finer = smooth
    return np.array([*np.percentile(values, _PERCENTILES), *details, np.log(values.size)])
