"""The images of a folder and the files that belong to each.

`cells.tif` (or .tiff, .png) is an image, `cells.csv` its dots (or `cells.roi`, `cells.zip`,
`cells.xml` and `cells.geojson` of other programs), `cells_labels.tif` its instance labels,
`cells_valid.tif` a mask of where its dots are complete, and `cells.label.json`, from the labelling
tool, the blocks in which they are. A .npy, CZI, ND2 or LIF file or a Zarr folder is an image where
one of these is beside it and no TIFF or PNG file of its name.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from absl import logging

from cellcount_jax.data.blocks import DONE, SUFFIX, journal_path, read_block_states
from cellcount_jax.errors import InputError
from cellcount_jax.images.axes import option_text
from cellcount_jax.images.dot_files import holds_dots, image_name, is_foreign
from cellcount_jax.images.files import without_broken_links
from cellcount_jax.images.image_files import IMAGE_SUFFIXES
from cellcount_jax.images.linked_inputs import LinkedInputs
from cellcount_jax.images.openers import SOURCE_SUFFIXES, short_name
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.zarr_stores import is_zarr

_BESIDE_DOTS = tuple(suffix for suffix in SOURCE_SUFFIXES if suffix not in IMAGE_SUFFIXES)
# The images of which a folder is scanned, for messages.
SCANNED = f"{', '.join(IMAGE_SUFFIXES)}; beside dots also {', '.join(_BESIDE_DOTS)}, .zarr"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The files of one image; None where there is no such file.

    Where there are instance labels and no dots, the labels are the file of both.
    """

    name: str
    image: Path
    points: Path | None = None
    labels: Path | None = None
    valid: Path | None = None
    blocks: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All files of the image that there are."""
        found = (self.image, self.points, self.labels, self.valid, self.blocks)
        return list(dict.fromkeys(path for path in found if path is not None))


def scan(directory: Path) -> list[Entry]:
    """The images of a folder, with the files that belong to each.

    Files that begin with a dot are ignored, and files of other kinds and links that lead nowhere,
    which the log names.

    Args:
      directory: the folder; its subfolders are not looked at, but for those that are images.

    Returns:
      One entry an image, sorted by name.

    Raises:
      InputError: two files of one name, or dots, labels, a mask or blocks without what they
        belong to.
    """
    found: dict[str, dict[str, Path]] = {}
    everything = list(without_broken_links(sorted(directory.iterdir())))
    for path in (path for path in everything if path.is_file()):
        if path.name.startswith("."):
            continue
        role_and_name = _role_and_name(path)
        if role_and_name is None:
            if path.suffix.lower() not in _BESIDE_DOTS:
                logging.info("%s: not an image and no file of dots, ignored.", path)
            continue
        role, name = role_and_name
        _add(found.setdefault(name, {}), role, path, "one of them is needed")
    others = [path for path in everything if _is_image_beside_dots(path)]
    for path in others:
        if short_name(path) not in found:
            logging.info("%s: has no dots beside it, ignored.", path)
            continue
        image = found[short_name(path)].setdefault("image", path)
        if image in others and image != path:
            raise InputError(f"{path}: and {image.name} have the same name; one of them is needed.")
    for name, files in found.items():
        _settle_dots(files)
        if "image" not in files:
            raise InputError(
                f"{next(iter(files.values()))}: there is no image {name} ({SCANNED}) beside it that"
                " it belongs to."
            )
        if "valid" in files and "points" not in files:
            raise InputError(f"{files['valid']}: goes with dots, but there is no {name}.csv.")
    _join_linked(found)
    return [Entry(name, **files) for name, files in sorted(found.items())]


def _join_linked(found: dict[str, dict[str, Path]]) -> None:
    """Leaves one file, that with dots, of an image in linked OME-TIFF files."""
    linked = LinkedInputs(logging.info)
    for name, files in sorted(found.items(), key=lambda item: "points" not in item[1]):
        if not linked.join([files["image"]]):
            if "points" in files:
                raise InputError(
                    f"{files['points']}: its image is linked with one that has dots too; an image"
                    " in several OME-TIFF files has one file of dots."
                )
            del found[name]


def entry_of(image: Path) -> Entry:
    """An image with the files beside it that belong to it, as `scan` finds them.

    Args:
      image: a file or folder of any format.

    Raises:
      InputError: there is no such image, or two files of one role.
    """
    if not image.exists():
        raise InputError(f"{image}: no such file or folder.")
    name = short_name(image)
    files: dict[str, Path] = {}
    for path in sorted(image.absolute().parent.iterdir()):
        found = None if path.is_dir() or path.name.startswith(".") else _role_and_name(path)
        if found is None or found[1] != name or found[0] == "image":
            continue
        path = image.with_name(path.name)
        _add(files, found[0], path, "one is needed")
    _settle_dots(files)
    return Entry(name, image, **files)


def selected(entry: Entry, selection: Selection) -> Selection:
    """The part of an image that is trained on: scene, time, level and axes as labelled.

    Args:
      entry: the files.
      selection: the part of images that no labelling tool has labelled.

    Raises:
      InputError: another scene, time point, level or other axes were labelled than are asked for.
    """
    if entry.blocks is None:
        return selection
    about = read_block_states(entry.blocks).about
    time, level = about.get("time", selection.time), about.get("level", selection.level)
    if selection.time not in (None, time) or selection.level not in (0, level):
        asked = f"level {selection.level}"
        if selection.time is not None:
            asked = f"time point {selection.time} and {asked}"
        raise InputError(
            f"{entry.blocks}: time point {time} and level {level} were labelled; {asked} does not"
            " fit."
        )
    scene = about.get("scene", selection.scene)
    if selection.scene not in (None, scene):
        raise InputError(
            f"{entry.blocks}: scene {scene} was labelled; scene {selection.scene} does not fit."
        )
    axes = about.get("axes", selection.axes)
    if selection.axes not in (None, axes):
        raise InputError(
            f"{entry.blocks}: was labelled with {option_text(axes)}; axes {selection.axes} do not"
            " fit."
        )
    return dataclasses.replace(selection, time=time, level=level, scene=scene, axes=axes)


def labelled_share(entry: Entry) -> float:
    """The share of an image's blocks in which its dots are complete.

    Args:
      entry: the files.

    Returns:
      0 without dots, 1 with dots and no word on blocks.

    Raises:
      InputError: its blocks cannot be read, or some are done and there are no dots.
    """
    if entry.blocks is None:
        return float(entry.points is not None)
    share = float(np.mean(read_block_states(entry.blocks).states == DONE))
    if share and entry.points is None:
        raise InputError(
            f"{entry.blocks}: marks blocks as done, but there is no {entry.name}.csv; put"
            " the dots back, or move the file away to use the image without dots."
        )
    return share


def unsaved_warning(path: Path, name: str) -> str | None:
    """A warning where the labelling tool has acts that it did not save; or None.

    Args:
      path: of the image, or of its dots.
      name: of the image.
    """
    if not journal_path(path, name).exists():
        return None
    return (
        f"{path}: is being labelled, or was when its window was killed; what was not saved is not"
        " used. Save there (Ctrl+S); after a kill open the image again with cellcount label, which"
        " finds all again, and save and close it."
    )


def none_is_labelled(entry: Entry) -> str:
    """What is wrong with an image that should be labelled and of which no block is done."""
    return (
        f"{entry.blocks}: none of its blocks is done, so that nothing is learned from its dots;"
        f" mark blocks done where all cells have dots (cellcount label {entry.image})."
    )


def _is_image_beside_dots(path: Path) -> bool:
    """Whether it is an image where dots are beside it; a TIFF or PNG file is one in any case."""
    if path.name.startswith("."):
        return False
    return is_zarr(path) or (not path.is_dir() and path.suffix.lower() in _BESIDE_DOTS)


def _role_and_name(path: Path) -> tuple[str, str] | None:
    if path.name.endswith(SUFFIX):
        return "blocks", path.name.removesuffix(SUFFIX)
    suffix, name = path.suffix.lower(), image_name(path)
    if name.lower().endswith(".ome"):
        name = name[:-4]
    if holds_dots(path):
        return "points", name
    return role_of_image(name) if suffix in IMAGE_SUFFIXES else None


def role_of_image(name: str) -> tuple[str, str]:
    """What an image file is by its name without ending, and the name of the image it belongs to.

    Returns:
      "labels", "valid" or "image", and the name.
    """
    for ending, role in (("_labels", "labels"), ("_cp_masks", "labels"), ("_valid", "valid")):
        if name.endswith(ending) and name != ending:
            return role, name.removesuffix(ending)
    return "image", name


def _settle_dots(files: dict[str, Path]) -> None:
    """Of instance labels alone the middles are the dots; of labelled blocks only our table."""
    if "blocks" in files:
        if "points" in files and is_foreign(files["points"]):
            logging.warning("%s: is not used beside %s.", files.pop("points"), files["blocks"].name)
    elif "labels" in files:
        files.setdefault("points", files["labels"])


def _add(files: dict[str, Path], role: str, path: Path, remedy: str) -> None:
    """Takes a file of an image; of dots in several formats the table, which labelling writes."""
    other = files.setdefault(role, path)
    if other == path:
        return
    tables = [file for file in (other, path) if not is_foreign(file)]
    if role != "points" or len(tables) != 1:
        raise InputError(f"{path}: and {other.name} have the same name; {remedy}.")
    files[role] = tables[0]
    left_out = path if tables[0] == other else other
    logging.warning("%s: is not used, as the dots are in %s.", left_out, tables[0].name)
