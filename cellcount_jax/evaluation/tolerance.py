"""How far a found cell may be from its dot: as text, from labels, in the unit of an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.comparison import Comparison, labels_tolerance
from cellcount_jax.evaluation.pairing import Side


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a found cell may be from its dot.

    Attributes:
      value: a positive number.
      unit: "um", "px", or None: um where the voxel size is known, else px.
    """

    value: float
    unit: str | None = None

    @classmethod
    def from_text(cls, text: str) -> Tolerance:
        """The tolerance of a text such as '12', '12um' or '4.5px'.

        Raises:
          InputError: it is none, or not positive.
        """
        number, unit = text.strip(), None
        for ending, name in (("um", "um"), ("µm", "um"), ("px", "px")):
            if number.endswith(ending):
                number, unit = number.removesuffix(ending), name
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise InputError(
                f"--tolerance {text}: a positive number is needed, with um or px after it or"
                " without: 12, 12um, 5px."
            )
        return cls(value, unit)


def tolerance_of(
    given: Tolerance | None,
    labels: np.ndarray | None,
    spacing: tuple[float, ...] | None,
    true: Side,
) -> tuple[float, str]:
    """The tolerance of an image, a positive number, and its unit.

    Args:
      given: None = from the labels.
      labels: `(*spatial,)` instance labels of the true cells, where there are.
      spacing: `(D,)` voxel edges in micrometres, where they are known.
      true: the files of the true cells, for the messages.

    Raises:
      InputError: it is neither given nor in labels, or in um without a voxel size.
    """
    known = "px" if spacing is None else "um"
    if given is None and labels is not None:
        return labels_tolerance(labels, spacing), known
    if given is None:
        raise InputError(
            f"--tolerance: is needed, as {true.path} has no instance labels that tell the size of"
            f" the cells: how far a found cell may be from its dot, about a cell's radius, in"
            f" {'um' if spacing is not None else 'pixels (the voxel size is not known)'}."
        )
    if given.unit == "um" and spacing is None:
        raise InputError(
            f"--tolerance {given.value:g}um: the voxel size of {true.name} is not known; give it"
            " with --spacing, or the image with --image, or a tolerance in px."
        )
    return given.value, given.unit or known


def tolerance_text(compared: Mapping[str, Comparison], given: Tolerance | None) -> str:
    """The tolerance of a set of images in words.

    Args:
      compared: by the names of the images, at least one.
      given: None = from each image's labels.

    Raises:
      InputError: one number stands for micrometres in some of them and for pixels in others.
    """
    units = {one.unit: name for name, one in compared.items()}
    if given is not None:
        if len(units) > 1:
            raise InputError(
                f"--tolerance {given.value:g}: would be micrometres for {units['um']} and"
                f" pixels for {units['px']}, of which no voxel size is known; give --spacing,"
                " or the unit, as in 5px."
            )
        unit = next(iter(units))
        unknown = given.unit is None and unit == "px"
        return f"{given.value:g} {unit}" + (" (the voxel size is not known)" if unknown else "")
    spans = []
    for unit in units:
        values = [one.tolerance for one in compared.values() if one.unit == unit]
        low, high = (f"{value:.3g}" for value in (min(values), max(values)))
        spans.append(f"{low} {unit}" if low == high else f"{low} to {high} {unit}")
    return f"half the median diameter of an image's labels, at least 4 px: {' or '.join(spans)}"
