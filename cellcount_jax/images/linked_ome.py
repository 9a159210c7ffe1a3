"""OME-TIFF files that belong together: planes, channels or positions, and each names the others.

The OME text of each file, or a file that it names, describes all images of the set: which plane is
which page of which file. An image is joined from the files over which its planes and channels are
spread; positions and time points that lie in other files are images of their own.
Format: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import html
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images.linked_files import (
    Member,
    beside,
    few_files,
    find_members,
    own_uuid,
    read_member,
    uuid_of,
)
from cellcount_jax.images.tiff_checks import check_chain

_HEAD = 4096  # characters of a text that have the attributes of its first element
_MAX_PLANES = 2**20  # of an image in a file, each of which is looked at


@dataclasses.dataclass(frozen=True)
class LinkedImages:
    """The images of which a file has planes, in a set of linked files.

    Attributes:
      files: those that are there of all files of these images, in the order of their planes.
      missing: the names of those that are not.
      text: OME's of these images alone, with the places of their files; empty if some are missing.
      alone: whether the set has no other images and no other time points.
      known_by: the file that stands for all of them: the first, or one with more images.
    """

    files: tuple[Path, ...]
    missing: tuple[str, ...]
    text: str
    alone: bool
    known_by: Path


class _Run(NamedTuple):
    """Planes of an image that are pages of a file, one after the other."""

    first: int  # its number among the planes of the image
    file: str  # the UUID; empty: the file that has the text
    page: int
    length: int  # 0: all that are left


class _Image(NamedTuple):
    element: ElementTree.Element
    axes: str  # of the planes, the slowest first
    sizes: tuple[int, ...]  # of `axes`
    runs: list[_Run]

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


_Planes = dict[int, tuple[str, int]]  # the UUID of the file and the page of each plane


def linked_images(tiff: tifffile.TiffFile, path: Path) -> LinkedImages | None:
    """Finds the files of the images of which a file has planes.

    Args:
      tiff: the open file, with OME metadata.
      path: its path.

    Returns:
      The images; None for a file that names no other, or whose text is not understood.

    Raises:
      InputError: the set does not name the file, its metadata are in a file that is missing, a
        plane is missing or named twice, or a file is of another set.
    """
    described = _described(tiff, path)
    if described is None:
        return None
    root, images, names = described
    uuid = uuid_of(tiff)
    own = own_uuid(names, uuid, path)
    named_so = own is not None and beside(path, names[own]) == path
    if not names or (len(names) == 1 and own is not None and (named_so or uuid == own)):
        return None
    mine = [image for image in images if any(run.file in ("", own) for run in image.runs)]
    if own is None or not mine:
        raise InputError(
            f"{path}: its OME metadata name {len(names)} linked file(s),"
            f" {few_files(names.values())}, and not this one; give it the name that it was"
            " written with."
        )
    original = beside(path, names[own])
    if not named_so and original.is_file() and read_member(original).uuid == own == uuid:
        with tifffile.TiffFile(original) as copied:  # of which the path is a copy
            return linked_images(copied, original)
    member = Member(path, uuid, len(tiff.pages))
    mine = [_with_own(image, own) for image in mine]
    times = [_own_times(image, own, member) for image in mine]
    wanted = {
        run.file: names[run.file]
        for image, points in zip(mine, times, strict=True)
        for run in image.runs
        if points & image.times(_promised(run, path))
    }
    members = find_members(wanted, own, member)
    if missing := tuple(name for file, name in wanted.items() if file not in members):
        there = tuple(one.path for one in members.values())
        return LinkedImages(there, missing, "", alone=False, known_by=there[0])
    planes = [
        _planes(image, points, members, path) for image, points in zip(mine, times, strict=True)
    ]
    files = {members[file].path: file for one in planes for file, _ in one.values()}
    whole = all(len(points) == image.size("T") for image, points in zip(mine, times, strict=True))
    written = ElementTree.Element(root.tag, {"UUID": next(iter(files.values()))})
    written.extend(map(_written, mine, times, planes, [members] * len(mine)))
    if whole:  # else notes on the time points do not fit
        written.extend(_children(root, "StructuredAnnotations"))
    text = ElementTree.tostring(written, encoding="unicode")
    held = collections.Counter(
        file for image in images for file in {run.file or own for run in image.runs}
    )
    return LinkedImages(
        tuple(files),
        (),
        text,
        alone=whole and len(mine) == len(images),
        known_by=max(files, key=lambda place: held[files[place]]),
    )


class _Described(NamedTuple):
    root: ElementTree.Element
    images: list[_Image]
    names: dict[str, str]  # of the files, by UUID


def _described(tiff: tifffile.TiffFile, path: Path) -> _Described | None:
    """What the text of a file, or of the one that has its metadata, says; None: not understood."""
    text = tiff.ome_metadata or ""
    found = re.search(r"<(?:\w+:)?BinaryOnly\b[^>]*>", text[:_HEAD])
    if found is None:
        return _read(text)
    named = re.search(r"MetadataFile\s*=\s*[\"']([^\"']*)", found[0])
    name = "another file" if named is None else html.unescape(named[1])
    place = beside(path, name)
    if not place.is_file():
        raise InputError(
            f"{path}: which planes or channels its pages are is not known, since its OME metadata"
            f" are in {few_files([name])}, which is not there; put it back beside this file."
        )
    if place.suffix.lower() not in (".tif", ".tiff"):
        return _read(place.read_text("utf-8"))
    check_chain(place)
    with tifffile.TiffFile(place) as described:
        return _read(described.ome_metadata or "")


def _read(text: str) -> _Described | None:
    # The texts of the files of a set are long, and the same but for the UUID at their head.
    head = re.sub(r"\sUUID\s*=\s*([\"'])[^\"'>]*\1", "", text[:_HEAD], count=1)
    return _read_once(head + text[_HEAD:])


@functools.lru_cache(maxsize=1)
def _read_once(text: str) -> _Described | None:
    names: dict[str, str] = {}
    try:
        root = ElementTree.fromstring(text)
        images = [
            _image(element, pixels, names)
            for element in _children(root, "Image")
            for pixels in _children(element, "Pixels")
        ]
    except (ElementTree.ParseError, KeyError, ValueError):
        return None
    return _Described(root, images, names)


def _image(
    element: ElementTree.Element, pixels: ElementTree.Element, names: dict[str, str]
) -> _Image:
    axes = pixels.attrib["DimensionOrder"][:1:-1]
    if sorted(axes) != ["C", "T", "Z"]:
        raise ValueError(axes)
    channel = next(_children(pixels, "Channel"), None)
    samples = 1 if channel is None else int(channel.get("SamplesPerPixel", 1))
    sizes = [int(pixels.attrib[f"Size{axis}"]) for axis in axes]
    sizes[axes.index("C")] //= samples
    runs = []
    for data in _children(pixels, "TiffData"):
        page, count = int(data.get("IFD", 0)), int("IFD" in data.attrib)
        count = int(data.get("PlaneCount", data.get("NumPlanes", count)))
        first = 0
        for axis, size in zip(axes, sizes, strict=True):
            number = int(data.get(f"First{axis}", 0))
            if not 0 <= number < size or page < 0 or count < 0:
                raise ValueError(data.attrib)
            first = first * size + number
        uuid = next(_children(data, "UUID"), None)
        file = "" if uuid is None else (uuid.text or "").strip()
        if uuid is not None:
            names[file] = uuid.get("FileName", "")
        runs.append(_Run(first, file, page, count))
    return _Image(element, axes, tuple(sizes), runs)


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """The children of a name, in the namespace of any version of OME."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _with_own(image: _Image, own: str) -> _Image:
    return image._replace(runs=[run._replace(file=run.file or own) for run in image.runs])


def _own_times(image: _Image, own: str, member: Member) -> set[int]:
    """The time points of which a file has planes."""
    runs = [run for run in image.runs if run.file == own]
    return set().union(*(image.times(_stored(run, member)) for run in runs))


def _promised(run: _Run, path: Path) -> range:
    """The numbers of the planes of a run; of one that takes what there is, the first."""
    if run.length > _MAX_PLANES:
        raise InputError(f"{path}: its OME metadata promise {run.length} planes in one file.")
    return range(run.first, run.first + max(run.length, 1))


def _stored(run: _Run, member: Member) -> range:
    """The numbers of the planes of a run.

    Raises:
      InputError: its file has not as many pages.
    """
    count = run.length or max(member.pages - run.page, 1)
    if run.page + count > member.pages:
        raise InputError(
            f"{member.path}: has {member.pages} page(s), and its OME metadata promise"
            f" {run.page + count}; copy it again."
        )
    return range(run.first, run.first + count)


def _planes(
    image: _Image, times: Collection[int], members: Mapping[str, Member], path: Path
) -> _Planes:
    """Where each plane of some time points is, by its number; all of them must be there."""
    found: _Planes = {}
    for run in image.runs:
        if run.file not in members:
            continue
        for page, plane in enumerate(_stored(run, members[run.file]), start=run.page):
            if image.time(plane) not in times:
                continue
            if found.setdefault(plane, (run.file, page)) != (run.file, page):
                raise InputError(
                    f"{path}: its OME metadata name two pages as plane {plane + 1}; save the image"
                    " as one file."
                )
    promised = image.size("Z") * image.size("C") * len(times)
    if len(found) < promised:
        numbers = sorted(image.number(plane, times) for plane in found)
        gap = next((n for n, number in enumerate(numbers) if n != number), len(numbers))
        raise InputError(
            f"{path}: plane {gap + 1} of {promised} is missing: its OME metadata promise so many,"
            f" and have {len(found)} in {len(members)} file(s)."
        )
    return dict(sorted(found.items()))


def _written(
    image: _Image, times: Collection[int], planes: _Planes, members: Mapping[str, Member]
) -> ElementTree.Element:
    """The element of an image with some of its time points, a piece of text a plane."""
    element = copy.deepcopy(image.element)
    for pixels in _children(element, "Pixels"):
        for data in list(_children(pixels, "TiffData")):
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
            name = {"FileName": str(members[file].path.absolute())}
            data = ElementTree.SubElement(pixels, "TiffData", place)
            ElementTree.SubElement(data, "UUID", name).text = file
    return element
