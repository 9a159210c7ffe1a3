"""How bright a cell is at least, so that nothing is looked for where nothing is as bright.

A cell is at least two voxels wide along x, which single bright voxels, as of a camera, are not:
so what counts is the intensity that two neighbours both reach. A model stores that of the
faintest cells in the images on which it was calibrated, normalised; half of it is the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

NAME = "faintest"  # in the reference of a model, see `reference.py`
_SHARE = 0.5
_QUANTILE = 0.01  # of the cells of an image; a false one may lie in the dark
_NEAR = 0.25  # of a diameter, from a cell's place


def pairs(values: np.ndarray) -> np.ndarray:
    """The intensity that each voxel and the next one along the last axis both reach.

    Args:
      values: `(*spatial,)`.

    Returns:
      The same shape; the last one of a line is alone.
    """
    found = values.copy()
    np.minimum(values[..., :-1], values[..., 1:], out=found[..., :-1])
    return found


def of_cells(values: np.ndarray, points: np.ndarray, *, diameter: Sequence[float]) -> float:
    """How bright the faintest cells of an image are; NaN where there are none.

    Args:
      values: `(*spatial,)` normalised intensities.
      points: `(N, D)` the cells.
      diameter: `(D,)` of a cell, voxels.
    """
    if not len(points):
        return math.nan
    reach = np.maximum(1, np.rint(_NEAR * np.asarray(diameter))).astype(int)
    brightest = ndimage.maximum_filter(pairs(values), (2 * reach + 1).tolist())
    places = np.clip(np.rint(points).astype(int), 0, np.asarray(values.shape) - 1)
    return float(np.quantile(brightest[tuple(places.T)], _QUANTILE))


def limit(reference: Mapping[str, tuple[float, float]]) -> float:
    """The normalised intensity below which a model finds no cell; -inf where that is not known.

    Args:
      reference: of the model.
    """
    faintest = reference.get(NAME, (0.0, 0.0))[0]
    return _SHARE * faintest if faintest > 0 else -math.inf
