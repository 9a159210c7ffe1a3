"""Which found points and which person's dots are of one image: files, results folders, by name.

As in a folder to train on, `cells.csv` or `cells.roi` are points, `cells_labels.tif` instance
labels, `cells.tif` is the image; `cells_valid.tif` and `cells.label.json` say where dots are
complete.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cellcount_jax.data.blocks import SUFFIX
from cellcount_jax.data.entries import role_of_image
from cellcount_jax.errors import InputError, in_words
from cellcount_jax.images.dot_files import SUFFIXES, holds_dots, image_name
from cellcount_jax.images.files import without_broken_links
from cellcount_jax.images.openers import SOURCE_SUFFIXES, short_name
from cellcount_jax.images.slices import natural_order
from cellcount_jax.images.zarr_stores import is_zarr

_NAMED = 5  # of a list of names in a message


@dataclasses.dataclass(frozen=True)
class Side:
    """The cells of one image as one side has them: a program, or a person.

    Attributes:
      name: of the image.
      points: a table (CSV) or a file of another program; None = the labels are the cells.
      labels: instance labels.
      image: what it is of, where it lies beside.
      valid: mask of where the cells are complete.
      blocks: of the labelling tool, in which they are.
      summary: summary.json of `cellcount count`; None for other files.
    """

    name: str
    points: Path | None = None
    labels: Path | None = None
    image: Path | None = None
    valid: Path | None = None
    blocks: Path | None = None
    summary: Mapping[str, Any] | None = None

    @property
    def path(self) -> Path:
        """The file of the cells."""
        path = self.points or self.labels
        assert path is not None, f"{self.name}: no cells"
        return path

    @property
    def files(self) -> list[Path]:
        """All of its files, and the results folder."""
        files = (self.points, self.labels, self.image, self.valid, self.blocks)
        folder = () if self.summary is None or self.points is None else (self.points.parent,)
        return [path for path in (*files, *folder) if path is not None]


class Pairs(NamedTuple):
    """What can be compared, and what cannot.

    Attributes:
      pairs: found and true cells, of one image each.
      alone: of each image without a partner, what is there and what is missing.
    """

    pairs: list[tuple[Side, Side]]
    alone: list[str]


def find_pairs(found: Path, true: Path) -> Pairs:
    """Pairs what was found with what is true: two files, or folders whose images have one name.

    A results folder of `cellcount count` for one image counts as a file.

    Args:
      found: points, instance labels, a results folder of one image or of several, or a
        folder of points or labels.
      true: the same.

    Returns:
      One pair or more.

    Raises:
      InputError: no such file; both are the same; a count that is not finished; two files for one
        image; no image of the one side has a partner on the other.
    """
    if found.exists() and true.exists() and found.resolve() == true.resolve():
        raise InputError(f"{found}: is given for both; what was found and what is true are needed.")
    ours, theirs = _sides(found), _sides(true)
    if isinstance(ours, Side) and isinstance(theirs, Side):
        return Pairs([(ours, theirs)], [])
    there = {side.name: side for side in ([theirs] if isinstance(theirs, Side) else theirs)}
    here = {side.name: side for side in ([ours] if isinstance(ours, Side) else ours)}
    pairs = [(side, there[name]) for name, side in here.items() if name in there]
    if not pairs:
        raise InputError(
            f"{found}: no image of it ({_listed(here)}) has its name among those of {true}"
            f" ({_listed(there)}); give the two files of an image, or folders whose files have the"
            " images' names."
        )
    alone = [f"{name}: found in {s.path}, no dots in {true}" for name, s in here.items()]
    missing = [f"{name}: dots in {s.path}, nothing found in {found}" for name, s in there.items()]
    return Pairs(
        pairs,
        [text for name, text in zip(here, alone, strict=True) if name not in there]
        + [text for name, text in zip(there, missing, strict=True) if name not in here],
    )


def images_in(path: Path) -> dict[str, Path]:
    """The images of a folder, labels and masks apart, by name; of a file itself, under ''."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    if not path.is_dir() or is_zarr(path):
        return {"": path}
    return {name: files["image"] for name, files in _by_name(path).items() if "image" in files}


def _sides(path: Path) -> Side | list[Side]:
    """One image, if a file of it was given, or those of a folder."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    if not path.is_dir() or is_zarr(path):
        return _of_file(path)
    if _is_of_count(path):
        return _of_count(path)
    folders = sorted((p for p in path.iterdir() if p.is_dir()), key=natural_order)
    counts = [_of_count(folder) for folder in folders if _is_of_count(folder)]
    sides = counts or _in_folder(path)
    for side in sides:
        if any("\ud800" <= character <= "\udfff" for character in side.name):
            raise InputError(f"{side.path}: the name is not valid UTF-8; rename the file.")
    return sides


def _is_of_count(folder: Path) -> bool:
    return (folder / "count.json").is_file() or (folder / "summary.json").is_file()


def _of_count(folder: Path) -> Side:
    path = folder / "summary.json"
    if not path.is_file() or not (folder / "points.csv").is_file():
        raise InputError(
            f"{folder}: holds a count that is not finished; the same `cellcount count` goes on"
            " where it was stopped."
        )
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        shape, spacing = summary["shape"], summary["spacing_um"]
        Path(summary["input"])
        if len(shape) not in (2, 3) or len(shape) != len(spacing or shape):
            raise ValueError(f"shape {shape}, spacing {spacing}")
    except OSError as error:
        raise InputError(in_words(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error!r}); count the image again.") from error
    return Side(folder.resolve().name, points=folder / "points.csv", summary=summary)


def _of_file(path: Path) -> Side:
    role_and_name = _role_and_name(path, given=True)
    if role_and_name is None or role_and_name[0] in ("valid", "blocks"):
        raise InputError(
            f"{path}: found points or dots are a file ({', '.join(SUFFIXES)}), instance labels"
            f" ({', '.join(SOURCE_SUFFIXES)}, .zarr) or a results folder of cellcount count."
        )
    role, name = role_and_name
    if role == "points" and _is_of_count(path.parent):
        return dataclasses.replace(_of_count(path.parent), points=path)
    if role == "image":  # labels of a name of their own
        return Side(short_name(path), labels=path)
    beside = _by_name(path.parent, name, quiet=True).get(name, {})
    return Side(name, **{**beside, "points": None, role: path})


def _in_folder(folder: Path) -> list[Side]:
    files = _by_name(folder)
    sides = [
        Side(name, **roles)
        for name, roles in files.items()
        if "points" in roles or "labels" in roles
    ]
    if not sides:
        sides = [Side(name, labels=f["image"]) for name, f in files.items() if "image" in f]
    if not sides:
        raise InputError(
            f"{folder}: has no points ({', '.join(SUFFIXES)}), no instance labels and no results of"
            " cellcount count."
        )
    return sides


def _by_name(folder: Path, only: str = "", *, quiet: bool = False) -> dict[str, dict[str, Any]]:
    """The files of each image by their roles; two of one role are an error, or `quiet` ignored."""
    found: dict[str, dict[str, Any]] = {}
    for path in without_broken_links(sorted(folder.iterdir(), key=natural_order)):
        role_and_name = None if path.name.startswith(".") else _role_and_name(path)
        if role_and_name is None or (only and role_and_name[1] != only):
            continue
        role, name = role_and_name
        files = found.setdefault(name, {})
        if role in files and not quiet:
            raise InputError(
                f"{path}: and {files[role].name} are both of the image {name}; one of them is"
                " needed."
            )
        files.setdefault(role, path)
    return found


def _role_and_name(path: Path, *, given: bool = False) -> tuple[str, str] | None:
    """What a file is, and of which image; None = nothing that is scored.

    One that was `given` by its name is taken by its ending alone.
    """
    if path.is_dir() and not is_zarr(path):
        return None
    if path.name.endswith(SUFFIX):
        return "blocks", path.name.removesuffix(SUFFIX)
    suffix = path.suffix.lower()
    if suffix in SUFFIXES and not is_zarr(path) and (given or holds_dots(path)):
        return "points", image_name(path)
    if suffix not in SOURCE_SUFFIXES and not is_zarr(path):
        return None
    name = short_name(path)
    return role_of_image(name)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = [*names][:_NAMED]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
