"""Zarr folders of any size: OME-Zarr 0.4 and 0.5 with their scales, and plain arrays.

A chunk that is not stored is the array's fill value, by the Zarr specification; but an array of
which none is stored is an error, since that is what copies without their pixels look like.
"""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.stored import Stored, check_level, naming
from cellcount_jax.images.voxel_size import micrometres

_METADATA = (".zarray", ".zgroup", "zarr.json")
_AXES_BY_NUMBER = {2: "YX", 3: "ZYX"}
_LETTERS = "TCZYX"


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group, by its content or by its name.

    Args:
      path: any path.

    Returns:
      True for a folder called `*.zarr`, and for one with Zarr's metadata in it.
    """
    if not path.is_dir():
        return False
    return path.suffix.lower() == ".zarr" or _has_metadata(path)


def open_zarr(path: Path, *, level: int = 0) -> Stored:
    """Opens a Zarr array, or one level of the image of an OME-Zarr group.

    Args:
      path: the folder of the array or of the group.
      level: of the multiscales; 0 is the finest.

    Returns:
      The array as stored.

    Raises:
      InputError: damaged metadata, no such level, a group without an image or with several, a
        plain array of other than 2 (y, x) or 3 (z, y, x) axes, or no chunk of it is stored.
    """
    with naming(path, "a Zarr folder"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of codecs that the specification does not list
        if not _has_metadata(path):
            raise InputError(
                f"{path}: no Zarr array or group: none of {', '.join(_METADATA)} is in it."
            )
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            return _plain_array(node, path, level)
        return _image(node, path, level)


def _has_metadata(path: Path) -> bool:
    return any((path / name).is_file() for name in _METADATA)


def _check_stored(array: zarr.Array, path: Path) -> None:
    """Looks for one chunk, under the name that the metadata give."""
    if not all(array.shape):
        return
    folder = path / array.path
    for file in _files(folder):
        key = Path(file).relative_to(folder).as_posix()
        numbers = tuple(map(int, re.findall(r"\d+", key)))
        if len(numbers) == array.ndim and array.metadata.encode_chunk_key(numbers) == key:
            return
    raise InputError(
        f"{folder}: none of its chunks is stored: the pixels were not copied, or have other names"
        f" than its metadata say ({array.metadata.encode_chunk_key((0,) * array.ndim)} and so on)."
        " An image of one value everywhere has to be written with write_empty_chunks."
    )


def _files(folder: str | Path) -> Iterator[str]:
    """The files in a folder and below, as they come: there may be millions of them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path)
            elif entry.is_file():
                yield entry.path


def _plain_array(array: zarr.Array, path: Path, level: int) -> Stored:
    check_level(level, 1, path)
    axes = _dimension_names(array) or _AXES_BY_NUMBER.get(array.ndim)
    if axes is None:
        raise InputError(
            f"{path}: a Zarr array of {array.ndim} axes ({size_text(array.shape)}) that does not"
            " say which they are; 2 (y, x) or 3 (z, y, x) are needed, or the OME-Zarr folder that"
            " the array is part of."
        )
    _check_stored(array, path)
    kind = f"Zarr array, format {array.metadata.zarr_format}"
    return Stored(array, axes, kind, chunks=array.chunks)


def _dimension_names(array: zarr.Array) -> str | None:
    """The axes where a Zarr 3 array names them all as OME-Zarr would."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    letters = [str(name).upper() for name in names]
    known = bool(letters) and all(len(name) == 1 and name in _LETTERS for name in letters)
    return "".join(letters) if known else None


def _image(group: zarr.Group, path: Path, level: int) -> Stored:
    attributes: Mapping[str, Any] = group.attrs.asdict()
    attributes = attributes.get("ome", attributes)  # version 0.5 has them one step down
    if "plate" in attributes:
        raise InputError(
            f"{path}: a plate of many images; give the folder of one field, for example"
            f" {path / 'A' / '1' / '0'}."
        )
    if "multiscales" not in attributes:
        return _only_image(group, path, level, wrapper="bioformats2raw.layout" in attributes)
    multiscales = attributes["multiscales"]
    if len(multiscales) != 1:
        raise InputError(
            f"{path}: {len(multiscales)} multiscale images in one group; one is needed."
        )
    multiscale = multiscales[0]
    datasets = multiscale["datasets"]
    check_level(level, len(datasets), path)
    dataset = datasets[level]
    if dataset["path"] not in group:
        raise InputError(
            f"{path}: its metadata name the array {dataset['path']!r} for level {level}, which is"
            " not there."
        )
    array = group[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise InputError(f"{path}: {dataset['path']!r} is no array, level {level} should be.")
    axes = [_axis(axis, path) for axis in multiscale["axes"]]
    letters = "".join(letter for letter, _ in axes)
    if len(axes) != array.ndim:
        raise InputError(
            f"{path}: its metadata name {len(axes)} axes ({letters}), its array"
            f" {dataset['path']!r} has {array.ndim} ({size_text(array.shape)})."
        )
    _check_stored(array, path)
    scale = [1.0] * len(axes)
    scaled = False
    for owner in (dataset, multiscale):
        for transform in owner.get("coordinateTransformations", ()):
            if transform["type"] == "scale":
                scale = _times(scale, transform["scale"], path)
                scaled = True
    voxel = {
        letter: factor * micrometres(unit)
        for factor, (letter, unit) in zip(scale, axes, strict=True)
        if letter in "ZYX" and unit is not None and scaled
    }
    channels = (attributes.get("omero") or {}).get("channels") or ()
    names = [str(channel.get("label") or "") for channel in channels]
    version = attributes.get("version", multiscale.get("version", "of unknown version"))
    return Stored(
        array=array,
        axes=letters,
        kind=f"OME-Zarr {version}",
        voxel=voxel,
        voxel_source="OME-Zarr metadata",
        channel_names=tuple(names) if all(names) else (),
        chunks=array.chunks,
        levels=len(datasets),
    )


def _only_image(group: zarr.Group, path: Path, level: int, *, wrapper: bool) -> Stored:
    """The one image that bioformats2raw wraps in a group of its own; an error for the rest."""
    arrays = sorted(name for name, _ in group.arrays())
    images = sorted(name for name, _ in group.groups() if name != "OME")
    if wrapper and images == ["0"]:
        stored = open_zarr(path / "0", level=level)
        return dataclasses.replace(stored, kind=f"{stored.kind} (bioformats2raw)")
    inside = ", ".join([*images, *arrays][:8]) or "nothing"
    example = path / next(iter([*images, *arrays]), "0")
    raise InputError(
        f"{path}: a Zarr group that is no OME-Zarr image (no multiscales); in it: {inside}. Give"
        f" one image, for example {example}."
    )


def _axis(axis: Any, path: Path) -> tuple[str, str | None]:
    """The letter of an axis and its unit, if it has one."""
    if isinstance(axis, str):  # up to version 0.3
        axis = {"name": axis}
    by_type = {"time": "T", "channel": "C"}.get(axis.get("type", ""))
    letter = by_type or str(axis["name"]).upper()
    if letter not in tuple(_LETTERS):
        raise InputError(
            f"{path}: an axis called {axis['name']!r} of type {axis.get('type')!r}; t, c, z, y and"
            " x are known."
        )
    return letter, axis.get("unit")


def _times(scale: Sequence[float], factors: Sequence[float], path: Path) -> list[float]:
    if len(factors) != len(scale) or not all(isinstance(f, int | float) for f in factors):
        raise InputError(f"{path}: the scale {factors} does not fit {len(scale)} axes.")
    return [a * b for a, b in zip(scale, factors, strict=True)]
