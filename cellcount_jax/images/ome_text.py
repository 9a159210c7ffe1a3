"""What OME's text in a TIFF file says: which plane of which image is which page of which file.

Format: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
"""

from __future__ import annotations

import copy
import functools
import html
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

_HEAD = 4096  # characters of a text that have the attributes of its first element


class Run(NamedTuple):
    """Planes of an image that are pages of a file, one after the other."""

    first: int  # its number among the planes of the image
    file: str  # the UUID; empty: the file that has the text
    page: int
    length: int  # 0: all that are left


class OmeImage(NamedTuple):
    """An image of a text."""

    element: ElementTree.Element
    axes: str  # of the planes, the slowest first
    sizes: tuple[int, ...]  # of `axes`
    runs: list[Run]

    def time(self, plane: int) -> int:
        """The time point of a plane, by its number."""
        place = self.axes.index("T")
        return plane // math.prod(self.sizes[place + 1 :]) % self.sizes[place]

    def number(self, plane: int, times: Collection[int]) -> int:
        """The number of a plane among those of some time points."""
        stride = math.prod(self.sizes[self.axes.index("T") + 1 :])
        rank = sum(time < self.time(plane) for time in times)
        slower = plane // (stride * self.size("T"))
        return (slower * len(times) + rank) * stride + plane % stride

    def times(self, planes: Iterable[int]) -> set[int]:
        """The time points of planes."""
        return {0} if self.size("T") == 1 else {self.time(plane) for plane in planes}

    def size(self, axis: str) -> int:
        """The length of an axis."""
        return self.sizes[self.axes.index(axis)]


PlacesOfPlanes = dict[int, tuple[str, int]]  # the UUID of the file and the page of each plane


class Described(NamedTuple):
    """The images of a text, and the files that it names."""

    root: ElementTree.Element
    images: list[OmeImage]
    names: dict[str, str]  # of the files, by UUID


def metadata_file(text: str) -> str | None:
    """The name of the file that a text leaves all to; None: it says itself what there is."""
    found = re.search(r"<(?:\w+:)?BinaryOnly\b[^>]*>", text[:_HEAD])
    if found is None:
        return None
    named = re.search(r"MetadataFile\s*=\s*[\"']([^\"']*)", found[0])
    return "another file" if named is None else html.unescape(named[1])


def read_text(text: str) -> Described | None:
    """The images of a text; None where it is not understood."""
    # The texts of the files of a set are long, and the same but for the UUID at their head.
    head = re.sub(r"\sUUID\s*=\s*([\"'])[^\"'>]*\1", "", text[:_HEAD], count=1)
    return _read_once(head + text[_HEAD:])


@functools.lru_cache(maxsize=1)
def _read_once(text: str) -> Described | None:
    names: dict[str, str] = {}
    try:
        root = ElementTree.fromstring(text)
        images = [
            _image(element, pixels, names)
            for element in children(root, "Image")
            for pixels in children(element, "Pixels")
        ]
    except (ElementTree.ParseError, KeyError, ValueError):
        return None
    return Described(root, images, names)


def _image(
    element: ElementTree.Element, pixels: ElementTree.Element, names: dict[str, str]
) -> OmeImage:
    axes = pixels.attrib["DimensionOrder"][:1:-1]
    if sorted(axes) != ["C", "T", "Z"]:
        raise ValueError(axes)
    channel = next(children(pixels, "Channel"), None)
    samples = 1 if channel is None else int(channel.get("SamplesPerPixel", 1))
    sizes = [int(pixels.attrib[f"Size{axis}"]) for axis in axes]
    sizes[axes.index("C")] //= samples
    runs = []
    for data in children(pixels, "TiffData"):
        page, count = int(data.get("IFD", 0)), int("IFD" in data.attrib)
        count = int(data.get("PlaneCount", data.get("NumPlanes", count)))
        first = 0
        for axis, size in zip(axes, sizes, strict=True):
            number = int(data.get(f"First{axis}", 0))
            if not 0 <= number < size or page < 0 or count < 0:
                raise ValueError(data.attrib)
            first = first * size + number
        uuid = next(children(data, "UUID"), None)
        file = "" if uuid is None else (uuid.text or "").strip()
        if uuid is not None:
            names[file] = uuid.get("FileName", "")
        runs.append(Run(first, file, page, count))
    return OmeImage(element, axes, tuple(sizes), runs)


def children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """The children of a name, in the namespace of any version of OME."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def written_image(
    image: OmeImage, times: Collection[int], planes: PlacesOfPlanes, paths: Mapping[str, Path]
) -> ElementTree.Element:
    """The element of an image with some of its time points, a piece of text a plane.

    Args:
      image: the image.
      times: its time points that are kept.
      planes: of these.
      paths: of the files, by UUID.
    """
    element = copy.deepcopy(image.element)
    for pixels in children(element, "Pixels"):
        for data in list(children(pixels, "TiffData")):
            pixels.remove(data)
        pixels.set("SizeT", str(len(times)))
        renumbered = {time: number for number, time in enumerate(sorted(times))}
        for plane, (file, page) in planes.items():
            firsts, rest = {}, plane
            for axis, size in reversed(list(zip(image.axes, image.sizes, strict=True))):
                rest, firsts[axis] = divmod(rest, size)
            firsts["T"] = renumbered[firsts["T"]]
            place = {f"First{axis}": str(number) for axis, number in firsts.items()}
            place |= {"IFD": str(page), "PlaneCount": "1"}
            name = {"FileName": str(paths[file].absolute())}
            data = ElementTree.SubElement(pixels, "TiffData", place)
            ElementTree.SubElement(data, "UUID", name).text = file
    return element
