"""How bright a cell is at least, so that nothing is looked for where nothing is as bright.

A cell is at least two voxels wide along x, which single bright voxels, as of a camera, are not:
so what counts is the intensity that two neighbours both reach. A model stores that of the
faintest cells in the images on which it was calibrated, normalised; half of it is the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cellcount_jax.images.regions import Reader, around, voxels_of

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


def of_cells(
    read: Reader, shape: Sequence[int], points: np.ndarray, *, diameter: Sequence[float]
) -> float:
    """How bright the faintest cells of an image are; NaN where there are none.

    Args:
      read: gives normalised intensities of a part, `(*region, 1)`.
      shape: `(D,)` of the image.
      points: `(N, D)` the cells.
      diameter: `(D,)` of a cell, voxels.
    """
    if not len(points):
        return math.nan
    reach = np.maximum(1, np.rint(_NEAR * np.asarray(diameter))).astype(int).tolist()
    places = np.clip(voxels_of(points), 0, np.asarray(shape) - 1).tolist()
    near = (around(tuple(slice(i, i + 1) for i in place), reach, shape) for place in places)
    return float(np.quantile([pairs(read(part)[..., 0]).max() for part in near], _QUANTILE))


def lowered(
    reference: Mapping[str, tuple[float, float]], faintest: float
) -> dict[str, tuple[float, float]]:
    """The reference of a model that is to find cells as faint as some others too.

    Args:
      reference: of the model; one that does not know its faintest cells stays so.
      faintest: of the others, NaN for none.
    """
    known = dict(reference)
    if NAME in known and faintest < known[NAME][0]:
        known[NAME] = (float(f"{faintest:.4g}"), known[NAME][1])
    return known


def limit(reference: Mapping[str, tuple[float, float]]) -> float:
    """The normalised intensity below which a model finds no cell; -inf where that is not known.

    Args:
      reference: of the model.
    """
    faintest = reference.get(NAME, (0.0, 0.0))[0]
    return _SHARE * faintest if faintest > 0 else -math.inf
