"""The files and folders that a command works on, each with a name of its own."""

from __future__ import annotations

import argparse
import collections
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from cellcount_jax.errors import InputError
from cellcount_jax.images.axes import reinterpreted
from cellcount_jax.images.companions import companions, describe
from cellcount_jax.images.files import unlinked, without_broken_links
from cellcount_jax.images.input_names import unique_names
from cellcount_jax.images.linked_inputs import LinkedInputs
from cellcount_jax.images.openers import SOURCE_SUFFIXES, open_stored
from cellcount_jax.images.slices import natural_order, slice_files
from cellcount_jax.images.stored import naming, spatial_axes
from cellcount_jax.images.zarr_stores import as_path, is_zarr


class Input(NamedTuple):
    """One image or volume to work on.

    Attributes:
      name: for its output files; unique among the inputs, also where case does not count.
      path: for `open_source`.
      as_slices: whether it is a folder of slices, for `open_source`.
      scene: number of the image in a file of several, or its name where that is all that it has;
        None of the only image.
      files: all files that are read, where these are more than `path`.
    """

    name: str
    path: Path
    as_slices: bool = False
    scene: str | None = None
    files: tuple[Path, ...] = ()


def find_inputs(
    paths: Iterable[str | os.PathLike[str]],
    *,
    ndim: int,
    scene: str | None = None,
    axes: str | None = None,
    reserved: Collection[str] = (),
    show: Callable[[str], None] = lambda _: None,
) -> list[Input]:
    """The inputs among files and folders, in the order given, a folder's in natural order.

    A Zarr folder is one input. Of another folder, every image file (and Zarr folder) in it is an
    input; but where `ndim` is 3 and they are 2D, they are the slices of one volume. Files that
    begin with a dot, other files, links that lead nowhere, and the labels and masks of images
    (`companions.py`: `a_labels.tif` beside `a.tif`) are not; its subfolders are not looked at. A
    file that cannot be read is an input, so that its error is that of one input. A link is an input
    by its own name. Linked OME-TIFF files with the planes and channels of one image are one input,
    by the file of the first plane (or one with more images), also where only some are given.

    Inputs of one name are told apart by their endings (`a_tif`, `a_png`) or their folders
    (`x_a`, `y_a`).

    Args:
      paths: files and folders.
      ndim: spatial dimensions that the model takes.
      scene: number or name of the image that is used of each file, which the results are named
        after as well (`brain_scene_2`), by number if it has one, however it was given; not of
        one image alone.
      axes: of the files that have as many, in place of their own.
      reserved: names that no input may have.
      show: called with a line about what was skipped in a folder, and about links to one file.

    Returns:
      The inputs, at least one.

    Raises:
      InputError: a path that is not there or not an image, or given twice; a folder without
        images, or of 2D and 3D ones where `ndim` is 3; names that cannot be told apart, or that
        are not Unicode, since results could not name them.
    """
    found: list[tuple[Path, bool]] = []
    linked = LinkedInputs(show)
    for path in map(as_path, paths):
        with naming(path, "an image or a folder of images"):
            if is_zarr(path):
                found.append((path, False))
            elif path.is_dir():
                found += _in_folder(path, ndim, scene, axes, linked, show)
            elif not path.exists():
                raise InputError(f"{path}: no such file or folder.")
            elif path.suffix.lower() in SOURCE_SUFFIXES:
                found += [(one, False) for one in linked.join([path])]
            else:
                raise InputError(
                    f"{path}: the name of an image must end in {', '.join(SOURCE_SUFFIXES)}, or be"
                    " a .zarr folder or .zarr.zip."
                )
    found = [(path, as_slices) for path, as_slices in found if not linked.is_part(path)]
    if not found:
        raise InputError("no input: give image files, or folders of them.")
    for path, number in collections.Counter(unlinked(path) for path, _ in found).items():
        if number > 1:
            raise InputError(f"{path}: is given {number} times; once is enough.")
    for path, _ in found:
        if any("\ud800" <= character <= "\udfff" for character in str(path)):
            raise InputError(f"{path}: the name is not valid UTF-8; rename the file or folder.")
    targets: dict[Path, list[str]] = {}
    for path, _ in found:
        targets.setdefault(path.resolve(), []).append(str(path))
    for target, links in targets.items():
        if len(links) > 1:
            show(f"{' and '.join(links)}: are links to one file, {target}; each is an input")
    names = unique_names([path for path, _ in found], reserved)
    made = []
    for name, (path, as_slices) in zip(names, found, strict=True):
        files = tuple(slice_files(path)) if as_slices else linked.members(path)
        one = None if scene is None else _known_scene(path, scene, as_slices)
        ending = "" if one is None else "_scene_" + re.sub(r"[^\w.-]+", "_", one)
        made.append(Input(f"{name}{ending}", path, as_slices, one, files))
    return made


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that are read of a mask or label volume: slices, or linked OME-TIFF files.

    Args:
      path: a file or folder; of a Zarr folder, or what cannot be read, it is all.
    """
    if is_zarr(path):
        return (path,)
    if path.is_dir():
        return (path, *slice_files(path))
    linked = LinkedInputs(lambda _: None)
    linked.join([path])
    return (path, *linked.members(path))


def _known_scene(path: Path, scene: str, as_slices: bool) -> str | None:
    """The number of the scene of a file that is given by number or name, so that it has one name
    for results; None of the only image; as it is given where it has no number or is not there, or
    where the number is the name of another."""
    opens, number = _scene_number(path, scene, as_slices)
    if number is None:
        return None if opens and _scene_number(path, None, as_slices)[0] else scene
    return str(number) if _scene_number(path, str(number), as_slices)[1] == number else scene


def _scene_number(path: Path, scene: str | None, as_slices: bool) -> tuple[bool, int | None]:
    """Whether a scene can be opened, and its number among several."""
    try:
        stored = open_stored(path, scene=scene, as_slices=as_slices)
    except InputError:  # which counting it tells
        return False, None
    stored.close()
    return True, stored.scene


def _in_folder(
    folder: Path,
    ndim: int,
    scene: str | None,
    axes: str | None,
    linked: LinkedInputs,
    show: Callable[[str], None],
) -> list[tuple[Path, bool]]:
    everything = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = sorted(filter(_is_image, everything), key=natural_order)
    images = list(without_broken_links(images))
    if skipped := companions(images):
        show(describe(folder, skipped))
        images = [path for path in images if path not in skipped]
    if not images:
        others = "; what was skipped is counted if it is named" if skipped else ""
        raise InputError(
            f"{folder}: has no image ({', '.join(SOURCE_SUFFIXES)}, .zarr); its subfolders are not"
            f" looked at{others}."
        )
    images = linked.join(images)
    if ndim == 2:
        return [(path, False) for path in images]
    dimensions: dict[Path, int] = {}
    errors: dict[Path, InputError] = {}
    for path in images:
        try:
            dimensions[path] = _spatial_ndim(path, scene, axes)
        except InputError as error:
            errors[path] = error
    flat, volumes = ([p for p, found in dimensions.items() if found == n] for n in (2, 3))
    if not flat:
        return [(path, False) for path in images]
    if volumes:
        raise InputError(
            f"{folder}: holds 2D images ({flat[0].name}) beside volumes ({volumes[0].name}); put"
            " the slices of a volume in a folder of their own."
        )
    linked.check_slices(flat)
    # A broken slice is told when the volume is opened; a pipe, only here.
    for path, why in errors.items():
        if not path.is_file() and not path.is_dir():
            raise why
    for path in sorted({*images} ^ {*slice_files(folder)}):
        raise InputError(
            f"{path}: is among the slices of a volume, which are TIFF or PNG files with no labels"
            " or masks beside them; put it elsewhere."
        )
    return [(folder, True)]


def _is_image(path: Path) -> bool:
    return is_zarr(path) or (not path.is_dir() and path.suffix.lower() in SOURCE_SUFFIXES)


def _spatial_ndim(path: Path, scene: str | None, axes: str | None) -> int:
    with naming(path, "an image"):
        stored = open_stored(path, scene=scene)
        try:
            if axes is not None and len(axes) == len(stored.array.shape):  # else of all slices
                stored = reinterpreted(stored, axes, path)
            return len(spatial_axes(stored, path))
        finally:
            stored.close()


def add_source(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of which `Selection.from_arguments` makes a selection."""
    parser.add_argument(
        "--spacing",
        type=numbers,
        help="voxel edges in um, z,y,x or y,x, in place of those of the files",
    )
    parser.add_argument(
        "--channel", help="number, from 0, or name of the channel to use (default: all)"
    )
    parser.add_argument(
        "--scene",
        help="number, from 0, or name of the image to use in a file of several (CZI, LIF, ND2,"
        " OME-TIFF, OME-Zarr)",
    )
    parser.add_argument("--time", type=int, help="number, from 0, of the time point to use")
    parser.add_argument(
        "--axes",
        type=str.upper,
        help="letters of T, C, Z, Y, X for the axes of the file, if its own are wrong: ZYX for a"
        " stack that was saved as time points or channels",
    )
    parser.add_argument(
        "--level", type=int, default=0, help="of a pyramid, 0 (the default) is the finest"
    )


def numbers(text: str) -> tuple[float, ...]:
    """The numbers of a text such as '6,1.62,1.62'."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas are needed") from error


def whole_numbers(text: str) -> tuple[int, ...]:
    """The whole numbers of a text such as '1,256,256'."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        message = f"{text!r}: whole numbers with commas are needed"
        raise argparse.ArgumentTypeError(message) from error
