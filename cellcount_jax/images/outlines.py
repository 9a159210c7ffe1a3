"""The middle of what is drawn around a cell."""

from __future__ import annotations

import numpy as np


def middle(outline: np.ndarray) -> np.ndarray:
    """The centre of the area inside of an outline, `(2,)`; without area the mean of its corners.

    Args:
      outline: `(N, 2)` corners in order, N at least 1; closed or not.
    """
    corners = np.asarray(outline, np.float64)
    origin = corners.mean(0)
    a = corners - origin  # near 0, so that nothing is lost in the products
    b = np.roll(a, -1, axis=0)
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = cross.sum() / 2
    extent = np.ptp(a, axis=0).prod()
    if abs(area) <= 1e-9 * max(extent, 1e-9):
        return np.asarray(origin)
    return np.asarray(origin + ((a + b) * cross[:, None]).sum(0) / (6 * area))
