"""Where the files of a set of linked OME-TIFFs are: known by their UUIDs, else by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import tifffile

from cellcount_jax.errors import InputError, few
from cellcount_jax.images.stored import naming
from cellcount_jax.images.tiff_checks import check_chain
from cellcount_jax.images.tiff_complaints import no_complaints

_SUFFIXES = (".tif", ".tiff")
_HEAD = 4096  # bytes of an OME text, which have the UUID of its file
_LONGEST = 100  # characters of a name in a message


class Member(NamedTuple):
    """A TIFF file.

    Attributes:
      path: where it is.
      uuid: the one that its own OME text gives it; empty where there is none.
      pages: how many it has.
      problem: why it cannot be read; '' if it can.
    """

    path: Path
    uuid: str
    pages: int
    problem: str = ""


def read_member(path: Path) -> Member:
    """Reads what tells a file from others.

    Args:
      path: an existing TIFF file.

    Raises:
      InputError: it cannot be read as one.
    """
    with naming(path, "a TIFF file"), no_complaints(path):
        check_chain(path)
        with tifffile.TiffFile(path) as tiff:
            return Member(path, uuid_of(tiff), len(tiff.pages))


def uuid_of(tiff: tifffile.TiffFile) -> str:
    """The UUID of an open file, without reading the whole of its text; empty if it has none."""
    tag = tiff.pages.first.tags.get("ImageDescription")
    if tag is None:
        return ""
    tiff.filehandle.seek(tag.valueoffset)
    text = tiff.filehandle.read(min(tag.count, _HEAD)).decode("utf-8", "replace")
    found = re.search(r"<(?:\w+:)?OME\b[^>]*?\bUUID\s*=\s*[\"']([^\"'>]*)", text)
    return found[1].strip() if found else ""


def own_uuid(names: Mapping[str, str], uuid: str, path: Path) -> str | None:
    """The UUID by which a set knows one of its files.

    Args:
      names: of the files of the set, by their UUIDs.
      uuid: that the file gives itself.
      path: of the file.

    Returns:
      The UUID; None if the set does not have the file.
    """
    by_uuid = uuid if uuid in names else None
    own = path.name.casefold()
    by_name = next((one for one, name in names.items() if base(name).casefold() == own), None)
    if by_uuid is not None and by_name not in (None, by_uuid):
        # Names were exchanged, or a program gave one UUID to all files.
        other = beside(path, names[by_uuid])
        return by_name if other.is_file() and read_member(other).uuid == uuid else by_uuid
    if by_uuid is None and by_name is None and len(names) == 1:
        (only,) = names
        return None if beside(path, names[only]).is_file() else only
    return by_uuid or by_name


def find_members(names: Mapping[str, str], own: str, member: Member) -> dict[str, Member]:
    """Finds files of a set in the folder of one of them, where they may have been renamed.

    Args:
      names: of the files, by the UUIDs that the set gives them.
      own: the UUID of the one that is known.
      member: that one.

    Returns:
      The files by UUID; those that are missing are left out, those that are damaged say so.

    Raises:
      InputError: a file has the name of one of the set, and is from another set.
    """
    by_name = {uuid: beside(member.path, name) for uuid, name in names.items()}
    known = {member.path: member}
    for place in by_name.values():
        if place not in known and place.is_file():
            try:
                known[place] = read_member(place)
            except InputError as error:
                known[place] = Member(place, "", 0, str(error))
    if any(place not in known for uuid, place in by_name.items() if uuid != own):
        known |= {one.path: one for one in _others(member.path.parent, known)}
    holders: dict[str, list[Member]] = {}
    for one in known.values():
        holders.setdefault(one.uuid, []).append(one)
    members = {}
    for uuid, place in by_name.items():
        held, so_named = holders.get(uuid, []), known.get(place)
        if uuid == own:
            members[uuid] = member
        elif len(held) == 1:
            members[uuid] = held[0]
        elif so_named is not None:
            # By its UUID it may be another one of the set; but some programs give one to all.
            if so_named.uuid in names and len(holders[so_named.uuid]) == 1:
                continue
            _check_set(so_named, uuid, member.path)
            members[uuid] = so_named
    return members


def _others(folder: Path, known: Collection[Path]) -> Iterator[Member]:
    """The other TIFF files of a folder, those that can be read."""
    for place in sorted(folder.iterdir()):
        if place.suffix.lower() in _SUFFIXES and place not in known and place.is_file():
            try:
                yield read_member(place)
            except InputError:
                continue


def _check_set(member: Member, uuid: str, path: Path) -> None:
    """Checks that a file that was found by its name is of the set."""
    if member.uuid in ("", uuid):
        return
    with tifffile.TiffFile(member.path) as tiff:
        if uuid not in (tiff.ome_metadata or uuid):
            raise InputError(
                f"{member.path}: is not the file of this name that {path.name} is linked with, but"
                " of another set; put the right one in its place."
            )


def beside(path: Path, name: str) -> Path:
    """Where a file lies that another one names; never outside the folder, whatever the name.

    Args:
      path: the file that names the other.
      name: a name, or a path as the program had it that wrote the files.

    Returns:
      A path, where there may be no file.
    """
    inner = os.path.normpath(name.replace("\\", "/"))
    outside = os.path.isabs(inner) or inner.startswith("..")
    options = [base(name)] if outside else [inner, base(name)]
    folders = (path.parent, path.resolve().parent)
    places = [folder / option for folder in folders for option in options]
    return next((place for place in places if place.is_file()), places[0])


def base(name: str) -> str:
    """The last part of a path of any system."""
    return re.split(r"[/\\]", name)[-1]


def few_files(names: Iterable[str]) -> str:
    """Names of files for a message, without their folders; see `few`."""
    return few([base(name)[:_LONGEST] for name in names])
