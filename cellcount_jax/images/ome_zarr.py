"""Zarr of any size: OME-Zarr 0.1 to 0.6 with their scales, and plain arrays.

OME-Zarr 0.1 and 0.2 are always t, c, z, y, x; 0.3 names its axes; 0.4 and 0.5 give them types,
units and scales; 0.6 has them in coordinate systems, of which scales are read, and no others.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.length_units import micrometres
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.remote_state import remote_files
from cellcount_jax.images.stored import Stored, check_level, choose_scene, naming
from cellcount_jax.images.zarr_stores import Remote, check_array, open_node

_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")  # of the last there are previews: 0.6rc0
_AXES_BY_NUMBER = {2: "YX", 3: "ZYX"}
_LETTERS = "TCZYX"


def open_zarr(path: Path, *, level: int = 0, scene: int | str | None = None) -> Stored:
    """Opens a Zarr array, or one level of the image of an OME-Zarr group.

    Args:
      path: the folder, zip file or address of the array or of the group, see `zarr_stores.is_zarr`.
      level: of the multiscales; 0 is the finest by its scale, wherever it stands.
      scene: the image, where a group has several: number or name of a series of bioformats2raw or
        of a field of a well; the path of a field in a plate; None = the only one.

    Returns:
      The array as stored; close it.

    Raises:
      InputError: damaged metadata or such of an unknown version, no such level or scene, a group
        without an image or with several, or what `zarr_stores.check_array` finds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of codecs that the specification does not list
        node = open_node(path)
        try:
            with naming(path, "Zarr"):
                if isinstance(node, zarr.Array):
                    choose_scene(scene, ("",), path)
                    stored = _plain_array(node, path, level)
                else:
                    stored = _image(node, path, level, scene)
        except BaseException:
            node.store.close()
            raise
    stored = dataclasses.replace(stored, close=node.store.close)
    if isinstance(path, Remote) and isinstance(stored.array, zarr.Array):
        return dataclasses.replace(stored, files=remote_files(stored.array, path))
    return stored


def _plain_array(array: zarr.Array, path: Path, level: int) -> Stored:
    check_level(level, 1, path)
    axes = _dimension_names(array) or _AXES_BY_NUMBER.get(array.ndim, "?" * array.ndim)
    check_array(array, path)
    kind = f"Zarr array, format {array.metadata.zarr_format}"
    return Stored(array, axes, kind, chunks=array.chunks)


def _dimension_names(array: zarr.Array) -> str | None:
    """The axes where a Zarr 3 array names them all as OME-Zarr would."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    letters = [str(name).upper() for name in names]
    known = bool(letters) and all(len(name) == 1 and name in _LETTERS for name in letters)
    return "".join(letters) if known else None


def _attributes(node: zarr.Group | zarr.Array) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = node.attrs.asdict()
    return attributes.get("ome", attributes)  # from version 0.5 on they are one step down


def _image(group: zarr.Group, path: Path, level: int, scene: int | str | None) -> Stored:
    attributes = _attributes(group)
    if "multiscales" not in attributes:
        name, number, kind = _choose_image(group, attributes, path, scene)
        if (image := _image_at(group, name)) is None:
            raise InputError(f"{path}: its metadata name the image {name!r}, which is not there.")
        stored = _image(image, path, level, None)
        return dataclasses.replace(stored, kind=f"{stored.kind} ({kind})", scene=number)
    choose_scene(scene, ("",), path)
    multiscales = attributes["multiscales"]
    if len(multiscales) != 1:
        raise InputError(
            f"{path}: {len(multiscales)} multiscale images in one group; one is needed."
        )
    multiscale = multiscales[0]
    version = attributes.get("version", multiscale.get("version"))
    if version is not None and str(version)[:3] not in _VERSIONS:
        raise InputError(
            f"{path}: OME-Zarr of version {version!r}, which is not known here;"
            f" {_VERSIONS[0]} to {_VERSIONS[-1]} are. Save it as one of these, or give one of its"
            f" arrays of z, y, x, such as {path / str(multiscale['datasets'][0]['path'])}."
        )
    datasets = multiscale["datasets"]
    check_level(level, len(datasets), path)
    order = _finest_first(group, multiscale, path) if len(datasets) > 1 else [0]
    dataset = datasets[order[level]]
    if dataset["path"] not in group:
        raise InputError(
            f"{path}: its metadata name the array {dataset['path']!r} for level {level}, which is"
            " not there."
        )
    array = group[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise InputError(f"{path}: {dataset['path']!r} is no array, level {level} should be.")
    axes = _axes(multiscale, dataset, array, path)
    letters = "".join(letter for letter, _ in axes)
    if len(axes) != array.ndim:
        raise InputError(
            f"{path}: its metadata name {len(axes)} axes ({letters}), its array"
            f" {dataset['path']!r} has {array.ndim} ({size_text(array.shape)})."
        )
    check_array(array, path)
    scale = _scale(multiscale, dataset, path)
    if scale is not None and len(scale) != len(axes):
        raise InputError(f"{path}: the scale {scale} does not fit {len(axes)} axes.")
    voxel = {
        letter: factor * micrometres(unit)
        for factor, (letter, unit) in zip(scale or (), axes, strict=False)
        if letter in "ZYX" and unit is not None
    }
    channels = (attributes.get("omero") or {}).get("channels") or ()
    names = [str(channel.get("label") or "") for channel in channels]
    return Stored(
        array=array,
        axes=letters,
        kind=f"OME-Zarr {version or 'of unknown version'}",
        voxel=voxel,
        voxel_source="OME-Zarr metadata",
        channel_names=tuple(names) if all(names) else (),
        chunks=array.chunks,
        levels=len(datasets),
    )


def _choose_image(
    group: zarr.Group, attributes: Mapping[str, Any], path: Path, scene: int | str | None
) -> tuple[str, int | None, str]:
    """The path in a group of the image that is chosen of it, its number if there are several that
    have numbers, and what the group is, in words."""
    if "plate" in attributes:
        if scene is not None and _image_at(group, str(scene)) is not None:
            return str(scene), None, f"field {scene} of a plate"
        wells = attributes["plate"].get("wells") or ()
        example = _field_of_plate(group, wells)
        hint = f"for example {example}" if example else "but none that its metadata name is there"
        raise InputError(
            f"{path}: a plate of {len(wells)} well(s); choose a field with"
            f" --scene, or give its folder, {hint}."
        )
    if "well" in attributes:
        names = [str(image["path"]) for image in attributes["well"]["images"]]
        number = choose_scene(scene, names, path)
        among = number if len(names) > 1 else None
        return names[number], among, f"field {names[number]} of a well of {len(names)}"
    if "bioformats2raw.layout" in attributes:
        ome = group.get("OME")
        listed = None if ome is None else _attributes(ome).get("series")
        names = [str(name) for name in listed or ()]
        while listed is None and str(len(names)) in group:
            names.append(str(len(names)))
        if names:
            number = choose_scene(scene, names, path)
            among = number if len(names) > 1 else None
            return names[number], among, f"bioformats2raw, series {number} of {len(names)}"
    try:
        inside = sorted(name for name in group if name != "OME")
    except Exception:  # an address need not list what it has
        inside = []
    example = f", for example {path / inside[0]}" if inside else ""
    raise InputError(
        f"{path}: a Zarr group that is no OME-Zarr image (no multiscales); in it:"
        f" {', '.join(inside[:8]) or 'nothing'}. Give one image{example}."
    )


def _image_at(group: zarr.Group, name: str) -> zarr.Group | None:
    """The group of an image in a group, if it is there."""
    node = group.get(name)
    if isinstance(node, zarr.Group) and "multiscales" in _attributes(node):
        return node
    return None


def _field_of_plate(group: zarr.Group, wells: Sequence[Mapping[str, Any]]) -> str | None:
    """The path in a plate of the first field that is there."""
    for well in wells:
        if isinstance(node := group.get(well["path"]), zarr.Group):
            for image in (_attributes(node).get("well") or {}).get("images", ()):
                if _image_at(group, field := f"{well['path']}/{image['path']}") is not None:
                    return field
    return None


def _finest_first(group: zarr.Group, multiscale: Mapping[str, Any], path: Path) -> list[int]:
    """The numbers of the levels, that of the smallest scale first, or else the largest array.

    Raises:
      InputError: the finest by its scale is not the largest.
    """
    datasets = multiscale["datasets"]
    scales = [_scale(multiscale, dataset, path) for dataset in datasets]
    arrays = [group.get(dataset["path"]) for dataset in datasets]
    sizes = [math.prod(a.shape) for a in arrays if isinstance(a, zarr.Array)]
    voxels = [math.prod(scale) for scale in scales if scale is not None]
    order = list(range(len(datasets)))
    if len(sizes) == len(order):
        order.sort(key=lambda k: -sizes[k])
    if len(voxels) == len(order):
        order.sort(key=lambda k: voxels[k])
        if len(sizes) == len(order) and sizes[order[0]] < max(sizes):
            finest, largest = order[0], sizes.index(max(sizes))
            raise InputError(
                f"{path}: by its scales {datasets[finest]['path']!r} is the finest level, but"
                f" {datasets[largest]['path']!r} has more voxels; correct its metadata, or give the"
                " array to use as a Zarr of its own, with --spacing."
            )
    return order


def _axes(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], array: zarr.Array, path: Path
) -> list[tuple[str, str | None]]:
    """The letter of each axis of a level, and its unit, if it has one."""
    axes = multiscale.get("axes")
    if axes is None and "coordinateSystems" in multiscale:  # version 0.6
        output = dataset["coordinateTransformations"][0].get("output")
        name = output.get("name") if isinstance(output, Mapping) else output
        systems = {system["name"]: system["axes"] for system in multiscale["coordinateSystems"]}
        axes = systems.get(name)
    elif axes is None and array.ndim == len(_LETTERS):  # versions 0.1 and 0.2
        axes = _LETTERS
    if axes is None:
        raise InputError(
            f"{path}: its metadata do not say which the {array.ndim} axes of"
            f" {dataset['path']!r} are ({size_text(array.shape)}); correct them, or give an array"
            f" of y, x or z, y, x itself ({path / str(dataset['path'])}), with --spacing."
        )
    return [_axis(axis, path) for axis in axes]


def _axis(axis: Any, path: Path) -> tuple[str, str | None]:
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


def _scale(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], path: Path
) -> list[float] | None:
    """The scale of a level along its axes; None where there is none, or more than a scale."""
    steps = list(dataset.get("coordinateTransformations", ()))
    if "coordinateSystems" not in multiscale:  # else they lead on to other systems
        steps += multiscale.get("coordinateTransformations", ())
    scale: list[float] | None = None
    for step in steps:
        if step["type"] == "sequence":
            steps += step["transformations"]
        elif step["type"] == "scale":
            scale = _times(scale, step.get("scale"), path)
        elif step["type"] not in ("translation", "identity"):
            return None
    return scale


def _times(scale: Sequence[float] | None, factors: Any, path: Path) -> list[float]:
    numbers = isinstance(factors, list) and all(type(f) in (int, float) for f in factors)
    if not numbers or len(factors) != len(scale or factors):
        raise InputError(f"{path}: the scale {factors} is not a number for each axis.")
    return [a * b for a, b in zip(scale or [1.0] * len(factors), factors, strict=True)]
