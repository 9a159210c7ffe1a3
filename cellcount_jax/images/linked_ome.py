"""OME-TIFF files that belong together: planes, channels or positions, and each names the others.

The OME text of each file, or a file that it names, describes all images of the set: which plane is
which page of which file. An image is joined from the files over which its planes and channels are
spread; positions and time points that lie in other files are images of their own.
Format: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
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
from cellcount_jax.images.ome_text import (
    Described,
    OmeImage,
    PlacesOfPlanes,
    Run,
    children,
    metadata_file,
    read_text,
    written_image,
)
from cellcount_jax.images.stored import naming
from cellcount_jax.images.tiff_checks import check_chain

_MAX_PLANES = 2**20  # of an image in a file, each of which is looked at


@dataclasses.dataclass(frozen=True)
class LinkedImages:
    """The images of which a file has planes, in a set of linked files.

    Attributes:
      files: those that are there of all files of these images, in the order of their planes; none
        where `metadata` does not say which they are.
      known_by: the file that stands for all of them: the first, or one with more images.
      missing: the names of those that are not there.
      problem: why the images cannot be opened, by any of their files; '' if they can.
      text: OME's of these images alone, with the places of their files; '' with a problem.
      alone: whether the set has no other images and no other time points.
      metadata: the file with the text that describes the set, if the one that was opened names it.
    """

    files: tuple[Path, ...]
    known_by: Path
    missing: tuple[str, ...] = ()
    problem: str = ""
    text: str = ""
    alone: bool = False
    metadata: Path | None = None

    @property
    def read(self) -> tuple[Path, ...]:
        """All files of which the images are made, with the one that describes them."""
        more = () if self.metadata in (None, *self.files) else (self.metadata,)
        return (*self.files, *filter(None, more))


def linked_images(tiff: tifffile.TiffFile, path: Path) -> LinkedImages | None:
    """Finds the files of the images of which a file has planes.

    Args:
      tiff: the open file, with OME metadata.
      path: its path.

    Returns:
      The images, also where they have a problem, such as a file that is missing or damaged, or a
      plane that is missing or named twice; None for a file that names no other, or whose own text
      is not understood.

    Raises:
      InputError: the set does not name the file, or has more of it than there is.
    """
    text, metadata = tiff.ome_metadata or "", None
    if (name := metadata_file(text)) is not None:
        metadata = beside(path, name)
        if not metadata.is_file():
            problem = (
                f"{path}: which planes or channels its pages are is not known, since its OME"
                f" metadata are in {few_files([name])}, which is not there; put it back beside this"
                " file."
            )
            return LinkedImages((), path, problem=problem, metadata=metadata)
        try:
            text = _text_in(metadata)
        except InputError as error:
            return LinkedImages((), path, problem=str(error), metadata=metadata)
    described = read_text(text)
    if described is None and metadata is not None:
        problem = (
            f"{metadata}: is not understood as the OME metadata of the files beside it, such as"
            f" {path.name}; copy it again."
        )
        return LinkedImages((), path, problem=problem, metadata=metadata)
    if described is None:
        return None
    images, names = described.images, described.names
    uuid = uuid_of(tiff)
    own = own_uuid(names, uuid, path)
    named_so = own is not None and beside(path, names[own]) == path
    only = len(names) == 1 and own is not None and (named_so or uuid == own)
    if not names or (only and metadata is None):
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
    try:
        members = find_members(wanted, own, member)
        linked = _joined(described, mine, times, own, wanted, members, path)
    except InputError as error:
        places = (beside(path, name) for name in wanted.values())
        files = tuple(dict.fromkeys(place for place in places if place.is_file()))
        linked = LinkedImages(files, path, problem=str(error))
    return dataclasses.replace(linked, metadata=metadata)


def _text_in(path: Path) -> str:
    """The text of a file that describes others.

    Raises:
      InputError: it cannot be read.
    """
    with naming(path, "OME metadata"):
        if path.suffix.lower() not in (".tif", ".tiff"):
            return path.read_text("utf-8")
        check_chain(path)
        with tifffile.TiffFile(path) as described:
            return described.ome_metadata or ""


def _joined(
    described: Described,
    mine: Sequence[OmeImage],
    times: Sequence[set[int]],
    own: str,
    wanted: Mapping[str, str],
    members: Mapping[str, Member],
    path: Path,
) -> LinkedImages:
    """Images of some time points, of the files that were found of those that are wanted."""
    there = tuple(one.path for one in members.values())
    if missing := tuple(name for file, name in wanted.items() if file not in members):
        problem = (
            f"{path}: belongs to an image in {len(wanted)} linked OME-TIFF files, of which"
            f" {len(missing)} cannot be found: {few_files(missing)}; put what is missing beside the"
            " others."
        )
        return LinkedImages(there, there[0], missing, problem)
    if damaged := next((one for one in members.values() if one.problem), None):
        return LinkedImages(there, there[0], problem=damaged.problem)
    pairs = list(zip(mine, times, strict=True))
    planes = [_planes(image, points, members, path) for image, points in pairs]
    files = {members[file].path: file for one in planes for file, _ in one.values()}
    whole = all(len(points) == image.size("T") for image, points in pairs)
    root = ElementTree.Element(described.root.tag, {"UUID": next(iter(files.values()))})
    paths = {file: member.path for file, member in members.items()}
    root.extend(map(written_image, mine, times, planes, [paths] * len(mine)))
    if whole:  # else notes on the time points do not fit
        root.extend(children(described.root, "StructuredAnnotations"))
    held = collections.Counter(
        file for image in described.images for file in {run.file or own for run in image.runs}
    )
    return LinkedImages(
        tuple(files),
        known_by=max(files, key=lambda place: held[files[place]]),
        text=ElementTree.tostring(root, encoding="unicode"),
        alone=whole and len(mine) == len(described.images),
    )


def _with_own(image: OmeImage, own: str) -> OmeImage:
    return image._replace(runs=[run._replace(file=run.file or own) for run in image.runs])


def _own_times(image: OmeImage, own: str, member: Member) -> set[int]:
    """The time points of which a file has planes."""
    runs = [run for run in image.runs if run.file == own]
    return set().union(*(image.times(_stored(run, member)) for run in runs))


def _promised(run: Run, path: Path) -> range:
    """The numbers of the planes of a run; of one that takes what there is, the first."""
    if run.length > _MAX_PLANES:
        raise InputError(f"{path}: its OME metadata promise {run.length} planes in one file.")
    return range(run.first, run.first + max(run.length, 1))


def _stored(run: Run, member: Member) -> range:
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
    image: OmeImage, times: Collection[int], members: Mapping[str, Member], path: Path
) -> PlacesOfPlanes:
    """Where each plane of some time points is, by its number; all of them must be there."""
    found: PlacesOfPlanes = {}
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
