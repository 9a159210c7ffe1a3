"""The voxel size in a TIFF file's metadata: OME, ImageJ, or plain resolution tags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import tifffile

# Keys are casefolded, which also makes the micro sign and the Greek mu one character.
_MICROMETRES = {
    "pm": 1e-6,
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "å": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "um": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "inch": 25400.0,
    "in": 25400.0,
}
_RESOLUTION_UNITS = {2: 25400.0, 3: 1e4}  # of the ResolutionUnit tag: inch, centimetre

# Micrometres. Resolution tags often hold a printer's dots per inch (72 to 1200: 353 to 21 um)
# or, in ImageJ files, a figure per another unit (a factor of 1e4 or more). The pixels of a light
# microscope lie between these sizes.
_PLAUSIBLE = (0.002, 20.0)

# ImageJ writes resolutions in steps of 1e-6: 6 um comes back as 5.999988.
_RELATIVE_STEP = 3e-6


def voxel_size(
    tiff: tifffile.TiffFile, page: tifffile.TiffPage, *, image: int = 0
) -> dict[str, float]:
    """Reads the voxel edges from the metadata of an open TIFF file.

    They are OME's PhysicalSize, or ImageJ's spacing and unit with the resolution tags, or the
    resolution tags alone where they are per inch or centimetre and plausible for a microscope.
    Where ImageJ's text gives no z spacing the z edge is unknown.

    Args:
      tiff: the open file.
      page: the first page of its image.
      image: its number among those of OME's metadata.

    Returns:
      Edges in micrometres by axis ("Z", "Y", "X"), those that the file gives.
    """
    if tiff.is_ome:
        sizes = _ome_voxel(tiff.ome_metadata or "", image)
    elif tiff.is_imagej:
        sizes = _imagej_voxel(tiff.imagej_metadata or {}, page)
    else:
        unit = _RESOLUTION_UNITS.get(_resolution_unit(page), math.nan)
        sizes = {axis: _pixels_apart(page, axis) * unit for axis in "YX"}
        sizes = {axis: size for axis, size in sizes.items() if _plausible(size)}
    return {axis: shortest(size) for axis, size in sizes.items() if 0 < size < math.inf}


def _ome_voxel(xml: str, image: int) -> dict[str, float]:
    found = ElementTree.fromstring(xml).findall(".//{*}Pixels")[image:]
    if not found:
        return {}
    pixels, sizes = found[0], {}
    for axis in "ZYX":
        size = pixels.get(f"PhysicalSize{axis}")
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")  # the schema's default
        if size is not None:
            sizes[axis] = float(size) * micrometres(unit)
    return sizes


def _imagej_voxel(metadata: Mapping[str, Any], page: tifffile.TiffPage) -> dict[str, float]:
    unit = metadata.get("unit", "")
    sizes = {}
    for axis, axis_unit in (("Y", metadata.get("yunit", unit)), ("X", unit)):
        apart = _pixels_apart(page, axis)
        by_text = apart * micrometres(axis_unit)
        tag_unit = _RESOLUTION_UNITS.get(_resolution_unit(page))
        if tag_unit is None:
            sizes[axis] = by_text
        else:
            # The TIFF standard has it per tag unit, ImageJ per unit of its text; files of both
            # kinds exist, and at most one of the two is a microscope's pixel.
            sizes[axis] = next(filter(_plausible, (apart * tag_unit, by_text)), math.nan)
    if "spacing" in metadata:
        sizes["Z"] = float(metadata["spacing"]) * micrometres(metadata.get("zunit", unit))
    return sizes


def micrometres(unit: Any) -> float:
    """How many micrometres a unit is, by its name in any spelling; NaN where it is not known."""
    name = str(unit).replace("\\u00B5", "µ").strip().casefold()
    return _MICROMETRES.get(name, math.nan)


def _resolution_unit(page: tifffile.TiffPage) -> int:
    return int(page.tags.valueof("ResolutionUnit", default=1))


def _pixels_apart(page: tifffile.TiffPage, axis: str) -> float:
    """The distance of two pixels in units of the resolution tag; NaN where it has none."""
    numerator, denominator = page.tags.valueof(f"{axis}Resolution", default=(0, 1))
    return denominator / numerator if numerator else math.nan


def _plausible(size: float) -> bool:
    return _PLAUSIBLE[0] <= size < _PLAUSIBLE[1]


def shortest(size: float) -> float:
    """The shortest decimal within the precision that resolution tags have."""
    for digits in range(1, 9):
        rounded = float(f"{size:.{digits}g}")
        if abs(rounded - size) <= _RELATIVE_STEP * size:
            return rounded
    return size
