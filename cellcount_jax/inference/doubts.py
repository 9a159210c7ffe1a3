"""Reasons not to trust a count, and what to do about each.

The statistics of `appearance.measure` are compared with what holds for counts that are right, of
any model, and with the range that they had on the images that the model was calibrated on, its
reference. The limits were chosen on training images alone, see RESULTS.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cellcount_jax.images.regions import Readable, Resampled, size_text
from cellcount_jax.inference.appearance import Statistics
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.job import Model
from cellcount_jax.inference.reference import Reference, is_bright, measure
from cellcount_jax.inference.survey import Mask

_SAME_EDGE = 0.1  # relative difference of voxel edges that is no reason for a doubt
_PLAUSIBLE_PIXELS = (5.0, 80.0)  # diameter of cells in an image that was resampled
_DEVIATIONS = 2.0  # of a share in a small sample, by which it may exceed its limit
_TIMES = {2: 1.8, 3: 4.0}  # by which a count may differ from a plain one; tissue is no plain image
_SIZES = (0.55, 1.5)  # widths of objects, in diameters
_RELIEF = -0.5  # the least skewness, with bright cells
_SCORE = 0.7  # the least median score, as a share of the reference's
_PADDED = 0.05  # share of an image that may make a count doubtful


class DoubtfulCountWarning(UserWarning):
    """A count from Python that should not be trusted; its text says why.

    Examples:
      >>> import warnings
      >>> import numpy as np
      >>> from cellcount_jax import DoubtfulCountWarning, load_model
      >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
      >>> image = 100 * np.tile(blob, (4, 4))  # 16 cells
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("error", DoubtfulCountWarning)  # stops a script
      ...     try:
      ...         load_model("nuclei2d").predict(image, diameter=100)
      ...     except DoubtfulCountWarning as doubt:
      ...         print(str(doubt).split(":")[0])
      doubtful count
    """


@dataclasses.dataclass(frozen=True)
class Doubt:
    """A reason not to trust a count.

    Attributes:
      kind: a word for tables.
      reason: what was measured, in words.
      remedy: what to do.
      value: what was measured.
      expected: the range in which it need not be doubted; None = no limit on that side.
    """

    kind: str
    reason: str
    remedy: str
    value: float
    expected: tuple[float | None, float | None]

    @property
    def text(self) -> str:
        """Reason and remedy."""
        return f"{self.reason}: {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """For summary.json."""
        value, *expected = (
            None if one is None else float(f"{one:.4g}") for one in (self.value, *self.expected)
        )
        return {"kind": self.kind, "text": self.text, "value": value, "expected": expected}


class _Share(NamedTuple):
    """A share of the cells that is small where a count is right.

    Attributes:
      limit: of any model.
      most: that a reference may raise it to: a model may be bad on its own images.
      of: the statistic that it is a share of.
      reason: with the share in it.
      remedy: what to do.
    """

    limit: float
    most: float
    of: str
    reason: str
    remedy: str


_CALIBRATE = "set --threshold, or choose it with dots of your own (cellcount calibrate)"
_OTHER = "use another model, or train this one further (cellcount train --from)"
_RESIZE = {
    2: "give the width of a cell in pixels with --diameter",
    3: "resample the image to the voxels of the training, with --spacing and --rescale",
}
_INVERT = "give --invert for dark cells, choose another --channel, or use another model"
_SHARES = {
    "crowded": _Share(
        0.17, 0.4, "cells", "{} of the cells lie within half a cell's width of another", ""
    ),
    "merged": _Share(
        0.65,
        0.9,
        "sampled",
        "for {} of the cells the image does not darken on the way to the next one, as where a cell"
        " is found several times",
        "",
    ),
    "dark": _Share(
        0.2, 0.4, "sampled", "{} of the cells are no brighter than what is around them", _INVERT
    ),
    "outside": _Share(
        0.3, 0.6, "sampled", "{} of the cells lie outside of all bright objects", _OTHER
    ),
    "missed": _Share(
        0.3, 0.6, "plain", "{} of the area of bright objects holds no cell", _CALIBRATE
    ),
    "threshold": _Share(
        0.35,
        0.6,
        "cells",
        "a threshold a quarter lower or higher changes the count by {}",
        _CALIBRATE,
    ),
}
# Statistics that tell nothing about an image of dark cells.
_OF_BRIGHT_CELLS = (
    *("plain", "plain_most", "ratio", "size"),
    *("outside", "missed", "merged", "crowded"),
)
# Those that most explain others first.
_ORDER = (
    *("voxel size", "inverted", "diameter", "size", "padding", "crowded", "merged"),
    *("dark", "count", "missed", "outside", "score", "threshold"),
)


def find(
    model: Model, image: Readable, found: Found, *, mask: Mask | None = None
) -> tuple[Doubt, ...]:
    """The doubts about a count.

    Args:
      model: that counted.
      image: raw intensities, on the voxels of the model.
      found: the cells, in its voxels.
      mask: where cells were counted.

    Returns:
      Those that most explain others first.
    """
    reference = model.reference
    statistics = measure(model, image, found, mask=mask, bright=is_bright(reference))
    if image.channels > 1 and not reference:
        # Cells in colour images are often dark, and nothing says whether these are.
        statistics = {name: statistics[name] for name in ("cells", "crowded", "threshold")}
    pixel = 1.0
    if isinstance(image, Resampled):
        pixel = image.original.shape[-1] / image.shape[-1]
    return judge(
        statistics,
        reference=reference,
        ndim=len(image.shape),
        known=model.config.data.diameter,
        pixel=pixel,
    )


def voxel_size(
    trained: Sequence[float], spacing: Sequence[float] | None, *, rescaled: bool
) -> Doubt | None:
    """The doubt about an image whose voxels are not those of the training images; or None.

    Args:
      trained: `(D,)` voxel size of the training images, in um.
      spacing: `(D,)` that of the image; None = unknown, which is no doubt but a risk.
      rescaled: whether the image is resampled to the first.
    """
    if spacing is None or rescaled:
        return None
    ratios = [a / b for a, b in zip(spacing, trained, strict=True)]
    worst = max(ratios, key=lambda ratio: abs(math.log(ratio)))
    if all(abs(ratio - 1) < _SAME_EDGE for ratio in ratios):
        return None
    reason = (
        f"voxels of {size_text(spacing)} um, but the model was trained on {size_text(trained)} um;"
        " cells look larger or smaller to it than they are"
    )
    remedy = "--rescale resamples the image"
    return Doubt("voxel size", reason, remedy, worst, (1 - _SAME_EDGE, 1 + _SAME_EDGE))


def judge(
    statistics: Statistics,
    *,
    reference: Reference,
    ndim: int,
    known: float = 0.0,
    pixel: float = 1.0,
) -> tuple[Doubt, ...]:
    """The doubts that follow from the statistics of an image and its cells.

    Args:
      statistics: of `appearance.measure`; what is missing or NaN raises no doubt.
      reference: of the model; empty without.
      ndim: axes of the image.
      known: diameter of a cell in pixels that the model says it knows; 0 = none.
      pixel: edge of a pixel of the model in those of the file.

    Returns:
      Those that most explain others first.
    """
    resize = _RESIZE[ndim]
    inverted = list(_of_relief(statistics, reference))
    if inverted:
        statistics = {n: v for n, v in statistics.items() if n not in _OF_BRIGHT_CELLS}
    doubts = [
        *inverted,
        *_of_size(statistics, reference, known=known, pixel=pixel, remedy=resize),
        *_of_ratio(statistics, reference, _TIMES[ndim]),
        *_of_shares(statistics, reference, resize),
        *_of_score(statistics, reference),
    ]
    padded = statistics.get("padding", 0.0)
    if doubts and padded > _PADDED:
        reason = f"{padded:.0%} of the image is padding of one intensity"
        remedy = "crop it, or give a --mask"
        doubts.append(Doubt("padding", reason, remedy, padded, (None, _PADDED)))
    return tuple(sorted(doubts, key=lambda doubt: _ORDER.index(doubt.kind)))


def _of_shares(statistics: Statistics, reference: Reference, resize: str) -> Iterator[Doubt]:
    """Doubts about shares of cells, with room for chance where these are few."""
    for kind, rule in _SHARES.items():
        share, number = (statistics.get(name, math.nan) for name in (kind, rule.of))
        usual = reference.get(kind, (0.0, 0.0))[1]
        limit = min(rule.most, max(rule.limit, 1.25 * usual + 0.05))
        if not number > 0:
            continue
        chance = _DEVIATIONS * math.sqrt(limit * (1 - limit) / number) + 0.5 / number
        if share > limit + chance:
            reason = rule.reason.format(f"{share:.0%}")
            yield Doubt(kind, reason, rule.remedy or resize, share, (None, limit))


def _of_ratio(statistics: Statistics, reference: Reference, times: float) -> Iterator[Doubt]:
    """The doubt about a count that is far from the plain one."""
    cells, least, most, ratio = (
        statistics.get(name, math.nan) for name in ("sampled", "plain", "plain_most", "ratio")
    )
    usual = reference.get("ratio", (1.0, 1.0))
    low, high = min(1.0, usual[0]) / times, max(1.0, usual[1]) * times
    too_many = cells > high * most + _DEVIATIONS * math.sqrt(high * most) + 2
    too_few = least > cells / low + _DEVIATIONS * math.sqrt(cells / low) + 2
    if too_many or too_few:
        plain = f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
        reason = f"a plain count of bright objects finds {plain} where the model finds {cells:.0f}"
        yield Doubt("count", reason, _OTHER, ratio, (low, high))


def _of_size(
    statistics: Statistics,
    reference: Reference,
    *,
    known: float,
    pixel: float,
    remedy: str,
) -> Iterator[Doubt]:
    """Doubts about the size of the cells, and about that to which an image was resampled."""
    width = statistics.get("size", math.nan)
    resampled = known * pixel
    if known and pixel != 1 and not _PLAUSIBLE_PIXELS[0] <= resampled <= _PLAUSIBLE_PIXELS[1]:
        reason = f"the image was resampled for cells of {resampled:.3g} pixels"
        yield Doubt("diameter", reason, remedy, resampled, _PLAUSIBLE_PIXELS)
    ranges = [_SIZES] if known else []
    if "size" in reference:
        low, high = reference["size"]
        ranges.append((0.6 * low, 1.6 * high))
    if not ranges:
        return
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if width < low or width > high:
        pixels = f" ({width * resampled:.0f} pixels)" if known else ""
        times = f"{width:.2g} times as wide as the cells that the model knows"
        reason = f"bright objects are {times}{pixels}"
        yield Doubt("size", reason, remedy, width, (low, high))


def _of_relief(statistics: Statistics, reference: Reference) -> Iterator[Doubt]:
    """The doubt about an image of dark cells where the model's are bright, or the reverse."""
    relief = statistics.get("relief", math.nan)
    least = min(_RELIEF, reference.get("relief", (0.0, 0.0))[0] - 1)
    if relief < least:
        light = "dark cells on bright" if is_bright(reference) else "bright cells on dark"
        reason = f"the image looks like {light}, the other way round than the model's"
        yield Doubt("inverted", reason, _INVERT, relief, (least, None))


def _of_score(statistics: Statistics, reference: Reference) -> Iterator[Doubt]:
    """The doubt about scores lower than a model gives to the cells that it knows."""
    score, usual = statistics.get("score", math.nan), reference.get("score", (0.0, 0.0))[0]
    if score < _SCORE * usual:
        reason = f"the scores are low, {score:.2g} in the median where {usual:.2g} or more is usual"
        yield Doubt("score", reason, _OTHER, score, (_SCORE * usual, None))
