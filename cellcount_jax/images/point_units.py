"""The unit of dots in a table: voxels, or micrometres that become voxels or are refused.

A dot in micrometres that is taken for one in voxels is another place of the image. A table that
may be of either is an error until the unit is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.length_units import micrometres
from cellcount_jax.images.regions import size_text

VOXELS, MICROMETRES = UNITS = ("px", "um")
_ASK = "give --points-unit um if they are micrometres, --points-unit px if they are voxels"
# A name such as `y_um`, `X (µm)`, `axis-0 [micron]`; and the words of a name.
_WITH_UNIT = re.compile(r"(?P<name>.*?)[\s_]*[(\[]?\s*(?P<unit>[^\W\d_]+)\s*[)\]]?")
_WORD = re.compile(r"[^\W\d_]+")
# Of the results of ImageJ, which are in the unit of the image, and of Imaris.
_OF_RESULTS = {"area", "mean", "intden", "rawintden", "perim.", "circ.", "feret", "xm", "ym"}
_OF_RESULTS |= {"unit", "units"}
_SHORT = 0.8  # um: with shorter edges an image in micrometres is notably smaller than in voxels
_BY_CHANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class DotUnit:
    """What is known of the unit of dots that belong to an image.

    Attributes:
      unit: "px" or "um"; None = voxels, and an error where they may be micrometres.
      spacing: `(D,)` voxel edges in micrometres in place of the image's; None = the image's.
      everywhere: whether dots are expected in all of the image, or of its mask.
    """

    unit: str | None = None
    spacing: tuple[float, ...] | None = None
    everywhere: bool = True

    def of_ours(self) -> DotUnit:
        """For a table that this package wrote for a part of an image: it is in voxels."""
        unit = None if self.unit is None else VOXELS
        return dataclasses.replace(self, unit=unit, everywhere=False)


UNKNOWN_UNIT = DotUnit()


def add_points_unit(parser: argparse.ArgumentParser) -> None:
    """Adds the option --points-unit."""
    parser.add_argument(
        "--points-unit",
        choices=UNITS,
        help="of the dots in CSV files of other programs: um converts them by the voxel size of"
        " the image; px says that they are voxels where they are refused as doubtful",
    )


def columns_in(header: Sequence[str], unit: str | None, path: Path) -> list[str]:
    """The names of a table's columns as they are for dots of a unit.

    Args:
      header: the names as they stand there.
      unit: see `DotUnit`.
      path: the table, for errors.

    Returns:
      The names in lower case; '' for those of the other unit. For "um" `y_um` is called `y`.

    Raises:
      InputError: `unit` is None, and a column says that the places may be micrometres.
    """
    names = [cell.strip().casefold() for cell in header]
    bases = [_base(cell) for cell in header]
    if unit == MICROMETRES:
        return [
            base or ("" if name in bases else name) for name, base in zip(names, bases, strict=True)
        ]
    if unit is None:
        # Columns in micrometres beside the same in voxels are those of points.csv of a count.
        told = [
            cell.strip()
            for cell, name, base in zip(header, names, bases, strict=True)
            if name in _OF_RESULTS or (_says_micrometres(name) and base not in names)
        ]
        if told:
            listed = ", ".join(map(repr, told[:4]))
            raise InputError(f"{path}: its points may be micrometres, as it has {listed}; {_ASK}.")
    return names


def in_voxels(points: np.ndarray, spacing: Sequence[float] | None, path: Path) -> np.ndarray:
    """Points `(N, D)` in micrometres as voxels of an image of `spacing`.

    Raises:
      InputError: the voxel size is not known, or not that of D axes.
    """
    if spacing is None or len(spacing) != points.shape[1]:
        raise InputError(
            f"{path}: --points-unit um: the voxel size of its image is not known, which turns"
            " micrometres into voxels; give it with --spacing (in training --set data.spacing=)."
        )
    # Kept within 32-bit floats; such a point lies outside of any image.
    return np.clip(points / np.asarray(spacing, np.float64), -1e30, 1e30)


def check_spread(
    points: np.ndarray,
    shape: Sequence[int],
    path: Path,
    *,
    spacing: Sequence[float] | None,
    valid: np.ndarray | None = None,
) -> None:
    """Makes sure that points in an image are not such as only micrometres would be.

    Of voxels shorter than a micrometre the image in micrometres is a corner of the image in
    voxels. Points that all lie there, although as many by chance would not, may be micrometres.

    Args:
      points: `(N, D)` that would be voxels.
      shape: `(D,)` of the image.
      path: the table, for errors.
      spacing: `(D,)` voxel edges in micrometres; None = unknown, and nothing is checked.
      valid: `(*shape)` bool, where points are expected; None = everywhere.

    Raises:
      InputError: they may be micrometres.
    """
    if spacing is None or min(spacing) >= _SHORT or not len(points):
        return
    edges = np.minimum(spacing, 1.0)
    corner = np.asarray(shape) * edges
    if not (points <= corner).all():
        return
    share = float(np.prod(edges))
    if valid is not None:
        part = tuple(slice(0, int(np.ceil(size))) for size in corner)
        share = float(valid[part].sum() / max(valid.sum(), 1))
    if share ** len(points) < _BY_CHANCE:
        um = size_text(
            tuple(float(f"{n * edge:.3g}") for n, edge in zip(shape, spacing, strict=True))
        )
        raise InputError(
            f"{path}: its {len(points)} points may be micrometres: the image is of"
            f" {size_text(shape)} voxels and {um} um, and all lie within the latter; {_ASK}."
        )


def outside_hint(points: np.ndarray, shape: Sequence[int], spacing: Sequence[float] | None) -> str:
    """What to do about points `(N, D)` of which some lie outside an image, if they are micrometres.

    Returns:
      The end of a message; '' where they would lie outside as well.
    """
    if spacing is None or len(spacing) != points.shape[1]:
        return ""
    places = points / np.asarray(spacing)
    inside = (places >= -0.5) & (places < np.asarray(shape) - 0.5)
    if not inside.all():
        return ""
    size = size_text(tuple(map(float, spacing)))
    return f"; as micrometres all lie inside (voxels of {size} um): give --points-unit um"


def _base(cell: str) -> str:
    """The name of a column in micrometres without its unit; '' for another column."""
    found = _WITH_UNIT.fullmatch(cell.strip())
    of_unit = found is not None and micrometres(found["unit"]) == 1.0
    return found["name"].strip().casefold() if found and of_unit else ""


def _says_micrometres(name: str) -> bool:
    return any(micrometres(word) == 1.0 for word in _WORD.findall(name))
