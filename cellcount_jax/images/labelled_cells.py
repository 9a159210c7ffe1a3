"""Instance labels as dots."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError


def cells_of_labels(labels: np.ndarray, path: object) -> np.ndarray:
    """The centroids of labelled cells.

    Args:
      labels: `(*spatial,)` integers, 0 = background.
      path: their file, for the message.

    Returns:
      `(M, D)` float64 voxels, in the order of the labels.

    Raises:
      InputError: they look like a mask or like intensities, not like a number a cell.
    """
    numbers = np.unique(labels[labels > 0])
    _, parts = ndimage.label(labels > 0, structure=np.ones((3,) * labels.ndim))
    if parts > 2 * len(numbers) and parts > 2:
        raise InputError(
            f"{path}: {parts} separate places share {len(numbers)} label(s): a mask, not instance"
            " labels. Number the cells (in Fiji: Analyze Particles, Count Masks; in Python:"
            " scipy.ndimage.label), or give their points as CSV."
        )
    same = total = 0
    for axis in range(labels.ndim):
        a, b = (np.take(labels, np.arange(labels.shape[axis] - 1) + i, axis) for i in (0, 1))
        both = (a > 0) & (b > 0)
        total += int(both.sum())
        same += int((both & (a == b)).sum())
    if same < total / 2 and total > labels.size / 10:
        raise InputError(
            f"{path}: neighbouring voxels are mostly of other values: intensities, not instance"
            " labels, in which a cell has one number. Give labels or points."
        )
    centroids = ndimage.center_of_mass(labels > 0, labels, numbers)
    return np.asarray(centroids, np.float64).reshape(-1, labels.ndim)
