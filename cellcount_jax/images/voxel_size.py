"""The voxel size in a TIFF file's metadata: OME, ImageJ, tifffile's JSON, or resolution tags."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

from cellcount_jax.images.length_units import length, micrometres

# Of the ResolutionUnit tag: inch, centimetre, and of newer writers millimetre and micrometre.
_RESOLUTION_UNITS = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}
_OF_PRINTERS = (2, 3)  # in these the tags often hold a printer's dots

# Micrometres. Resolution tags often hold a printer's dots per inch (72 to 1200: 353 to 21 um)
# or, in ImageJ files, a figure per another unit (a factor of 1e4 or more). The pixels of a light
# microscope lie between these sizes.
_PLAUSIBLE = (0.002, 20.0)
_POSSIBLE = (1e-5, 1e5)  # of any microscope or scanner

# ImageJ writes resolutions in steps of 1e-6: 6 um comes back as 5.999988.
_RELATIVE_STEP = 3e-6
_MAX_CHARACTERS = 60  # of a text that is shown


class VoxelSize(NamedTuple):
    """The voxel size as a file gives it.

    Attributes:
      edges: in micrometres by axis ("Z", "Y", "X"), those that are understood.
      unread: what the file says beside them that is no size, for a message; '' where nothing.
    """

    edges: dict[str, float]
    unread: str = ""


def voxel_size(tiff: tifffile.TiffFile, page: tifffile.TiffPage, *, image: int = 0) -> VoxelSize:
    """Reads the voxel edges from the metadata of an open TIFF file.

    They are OME's PhysicalSize, or the spacing and unit of ImageJ's text or tifffile's JSON with
    the resolution tags, or the resolution tags alone where they are plausible for a microscope.
    Where no text gives a z spacing the z edge is unknown. Nothing that the metadata say makes an
    error: what is no size is an unknown one.

    Args:
      tiff: the open file.
      page: the first page of its image.
      image: its number among those of OME's metadata.

    Returns:
      Edges and what was not understood.
    """
    if tiff.is_ome:
        sizes = _ome_voxel(tiff.ome_metadata or "", image)
    elif tiff.is_imagej:
        sizes = _described_voxel(tiff.imagej_metadata or {}, page)
    else:
        shaped = [text for text in tiff.shaped_metadata or () if isinstance(text, Mapping)]
        sizes = _described_voxel(shaped[0] if shaped else {}, page)
    edges: dict[str, float] = {}
    texts: dict[str, list[str]] = {}
    for axis, size, text in sizes:
        if _possible(size):
            edges.setdefault(axis, shortest(size))
        elif text:
            texts.setdefault(axis, []).append(text)
    unread = (text for axis, found in texts.items() if axis not in edges for text in found)
    return VoxelSize(edges, ", ".join(dict.fromkeys(unread)))


def unknown_text(edges: Sequence[float], unread: str) -> str:
    """What a file says of its voxel size, where that is not all of it.

    Args:
      edges: `(D,)` micrometres; NaN where they are unknown.
      unread: see `VoxelSize`.

    Returns:
      For example `no z, y 1.62 um, x 1.62 um, PhysicalSizeZ=""`; '' where it says nothing.
    """
    named = list(zip("zyx"[-len(edges) :], edges, strict=True))
    known = [f"no {axis}" if math.isnan(edge) else f"{axis} {edge:.6g} um" for axis, edge in named]
    known = known if any(not math.isnan(edge) for edge in edges) else []
    return ", ".join([*known, *filter(None, [unread])])


def possible_edge(size: float) -> float:
    """A voxel edge in micrometres without its sign; NaN where no microscope has such voxels."""
    return abs(size) if _possible(abs(size)) else math.nan


_Sizes = Iterator[tuple[str, float, str]]  # an axis, its size (NaN: unknown), the text of it


def _ome_voxel(xml: str, image: int) -> _Sizes:
    found = ElementTree.fromstring(xml).findall(".//{*}Pixels")[image:]
    return _physical_sizes(found[0].attrib if found else {})


def _physical_sizes(attributes: Mapping[str, Any]) -> _Sizes:
    """The sizes under OME's names."""
    for axis in "ZYX":
        key = f"PhysicalSize{axis}"
        if key not in attributes:
            continue
        unit = attributes.get(f"{key}Unit", "µm")  # the schema's default
        text = _shown(key, attributes[key])
        if f"{key}Unit" in attributes:
            text += f" {_shown(f'{key}Unit', unit)}"
        yield axis, length(attributes[key]) * micrometres(unit), text


def _described_voxel(metadata: Mapping[str, Any], page: tifffile.TiffPage) -> _Sizes:
    """The sizes of ImageJ's text or a JSON description, with the resolution tags."""
    yield from _physical_sizes(metadata)  # which users of tifffile write into its JSON
    unit = metadata.get("unit", "")
    for axis in "ZYX":
        axis_unit = metadata.get(f"{axis.lower()}unit", unit)
        text = _shown("unit", axis_unit) if axis_unit else ""
        if axis != "Z":
            yield axis, _by_tags(page, axis, axis_unit), text
        elif "spacing" in metadata:
            size = length(metadata["spacing"]) * micrometres(axis_unit)
            yield axis, size, f"{_shown('spacing', metadata['spacing'])} {text}".strip()


def _by_tags(page: tifffile.TiffPage, axis: str, unit: Any) -> float:
    """The distance of two pixels in micrometres; `unit` is that of the text, if there is one."""
    tag = _resolution_unit(page)
    apart = _pixels_apart(page, axis)
    by_text = apart * micrometres(unit)
    by_tag = apart * _RESOLUTION_UNITS.get(tag, math.nan)
    if tag not in _RESOLUTION_UNITS:
        return by_text
    if tag not in _OF_PRINTERS:
        return by_tag if _possible(by_tag) else by_text
    # The TIFF standard has it per tag unit, ImageJ per unit of its text, which it reads first.
    # Files of both kinds exist, and mostly one of the two is a microscope's pixel.
    return next(filter(_plausible, (by_text, by_tag)), by_text)


def _shown(key: str, value: Any) -> str:
    """A key and its value on one line, whatever is in it."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return f'{key}="{text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "..."}"'


def _resolution_unit(page: tifffile.TiffPage) -> int:
    unit = page.tags.valueof("ResolutionUnit", default=1)
    return int(unit) if isinstance(unit, int) else 1


def _pixels_apart(page: tifffile.TiffPage, axis: str) -> float:
    """The distance of two pixels in units of the resolution tag; NaN where it has none."""
    value = page.tags.valueof(f"{axis}Resolution", default=0)
    pair = value if isinstance(value, tuple) else (value, 1)  # some write a float
    if len(pair) != 2 or not all(isinstance(part, int | float) for part in pair):
        return math.nan
    return pair[1] / pair[0] if pair[0] else math.nan


def _plausible(size: float) -> bool:
    return _PLAUSIBLE[0] <= size < _PLAUSIBLE[1]


def _possible(size: float) -> bool:
    return _POSSIBLE[0] <= size <= _POSSIBLE[1]


def shortest(size: float) -> float:
    """The shortest decimal within the precision that resolution tags have."""
    for digits in range(1, 9):
        rounded = float(f"{size:.{digits}g}")
        if abs(rounded - size) <= _RELATIVE_STEP * size:
            return rounded
    return size
