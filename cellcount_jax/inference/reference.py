"""What a model's own images look like: the range of each statistic where its counts are right.

It is measured when the model is calibrated, and stored with it; `doubts.py` compares with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cellcount_jax.images.normalise import Measured
from cellcount_jax.images.regions import Readable
from cellcount_jax.inference import appearance, faint
from cellcount_jax.inference.appearance import Statistics
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.job import Model, cell_diameter
from cellcount_jax.inference.survey import Mask

# The range `(lowest, highest)` of statistics over the images that a model was calibrated on, and
# 'sign', 1 or -1: whether its cells are bright or dark.
Reference = Mapping[str, tuple[float, float]]

_NAMES = (
    *("crowded", "merged", "dark", "outside", "missed", "threshold"),
    *("ratio", "relief", "score", "size"),
)
_QUANTILES = (0.05, 0.95)  # one image in ten may be odd
_LEAST_CELLS = 5  # of an image whose statistics tell anything


def measure(
    model: Model,
    image: Readable,
    found: Found,
    *,
    mask: Mask | None = None,
    bright: bool = True,
) -> Statistics:
    """`appearance.measure` with the voxels and the cells that a model knows."""
    diameter = cell_diameter(model)
    return appearance.measure(
        image, found, diameter=diameter, spacing=model.spacing, mask=mask, bright=bright
    )


def is_bright(reference: Reference) -> bool:
    """Whether a model's cells are brighter than what is around them."""
    return reference.get("sign", (1.0, 1.0))[0] > 0


def of_images(
    model: Model, images: Iterable[tuple[Readable, Found]]
) -> dict[str, tuple[float, float]]:
    """The reference of a model.

    Args:
      model: calibrated.
      images: those that it was calibrated on, and the cells found in them.

    Returns:
      For `Reference`; empty without images.
    """
    counted = list(images)
    for bright in (True, False):
        statistics = [measure(model, *one, bright=bright) for one in counted]
        dark = [one["dark"] for one in statistics if one["cells"] >= _LEAST_CELLS]
        # Where most are darker than their surroundings, cells are dark ones.
        if not dark or np.median(dark) < 0.5:
            break
    found = of_statistics(statistics, bright=bright)
    if bright and dark:
        known = [faintest(model, image, one.points) for image, one in counted]
        known = [value for value in known if math.isfinite(value)]
        if known:
            found[faint.NAME] = (float(f"{min(known):.4g}"), float(f"{max(known):.4g}"))
    return found


def faintest(
    model: Model, image: Readable, points: np.ndarray, *, measured: Measured | None = None
) -> float:
    """The normalised brightness of the faintest cells in an image, see `faint.py`.

    Args:
      model: of cells brighter than what is around them.
      image: as the model takes it.
      points: `(N, D)` the cells.
      measured: what normalises the image; None = it is measured.

    Returns:
      The brightness; NaN without cells, for several channels, and where intensities are not
      measured against their surroundings.
    """
    if model.channels != 1 or not model.normalisation.block:
        return math.nan
    measure = measured or model.normalisation.measure_image(image)
    diameter = [cell_diameter(model) / edge for edge in model.spacing]
    return faint.of_cells(
        lambda region: measure(image.read(region), region), image.shape, points, diameter=diameter
    )


def of_statistics(
    statistics: Sequence[Statistics], *, bright: bool = True
) -> dict[str, tuple[float, float]]:
    """The reference of a model, from the statistics of the images it was calibrated on.

    Args:
      statistics: one an image.
      bright: whether they were measured for bright cells.

    Returns:
      Name -> `(lowest, highest)`, for `Reference`; empty without images.
    """
    if not statistics:
        return {}
    found: dict[str, tuple[float, float]] = {"sign": (1.0, 1.0) if bright else (-1.0, -1.0)}
    for name in _NAMES:
        values = [
            s[name] for s in statistics if math.isfinite(s[name]) and s["cells"] >= _LEAST_CELLS
        ]
        if values:
            low, high = np.quantile(values, _QUANTILES)
            found[name] = (float(f"{low:.4g}"), float(f"{high:.4g}"))
    return found
