"""Files of microscope makers (CZI, ND2, LIF), through bioio and its part for the format."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from cellcount_jax.errors import InputError, how_to_install
from cellcount_jax.images.files import existing_file
from cellcount_jax.images.stored import Stored, choose_scene, naming

VENDOR_SUFFIXES = (".czi", ".nd2", ".lif")


def open_vendor(path: Path, *, scene: int | str | None = None) -> Stored:
    """Opens one image of a CZI, ND2 or LIF file.

    Args:
      path: the file.
      scene: number or name of the image, which bioio calls a scene; None = the only one.

    Returns:
      The image as stored; read chunk by chunk.

    Raises:
      InputError: bioio or its part for the format is not installed; no such image, or several and
        none is chosen; metadata that leave out some of the images; or what bioio cannot read.
    """
    existing_file(path)
    suffix = path.suffix.lower()[1:]
    kind = suffix.upper()
    try:
        bioio = importlib.import_module("bioio")
        reader = importlib.import_module(f"bioio_{suffix}").Reader
    except ImportError as error:
        # That of ND2 does not go with the versions of constraints.txt.
        how = "pip install bioio bioio-nd2" if suffix == "nd2" else how_to_install("formats")
        raise InputError(
            f"{path}: a .{suffix} file needs packages that are not installed: {how}. Or save it as"
            " OME-TIFF."
        ) from error
    with naming(path, f"a {kind} file"):
        image = bioio.BioImage(path, reader=reader)
        names = tuple(map(str, image.scenes))
        stored = _stored_scenes(path, suffix)
        if stored is not None and stored != len(names):
            raise InputError(
                f"{path}: holds {stored} images (scenes), but its metadata name {len(names)}, so"
                " that not each can be read; save the one to use as OME-TIFF."
            )
        number = choose_scene(scene, names, path)
        image.set_scene(number)
        edges = image.physical_pixel_sizes
        array = image.dask_data
        if len(names) > 1:
            kind += f", scene {number} of {len(names)} ({names[number]})"
        return Stored(
            array=array,
            axes=str(image.dims.order),
            kind=kind,
            voxel={axis: float(edge) for axis, edge in zip("ZYX", edges, strict=True) if edge},
            voxel_source=f"{suffix.upper()} metadata",
            channel_names=tuple(map(str, image.channel_names or ())),
            chunks=tuple(array.chunksize),
            scene=number if len(names) > 1 else None,
        )


def _stored_scenes(path: Path, suffix: str) -> int | None:
    """How many images the pixels of a file are of, whatever its metadata name; None = not known.

    bioio takes the scenes of CZI from an XML text that some writers leave out, and the positions
    of ND2 from the settings of the experiment. In LIF it lists the images themselves.
    """
    if suffix == "czi":
        shapes = _library("aicspylibczi").CziFile(path).get_dims_shape()
        ranges = [shape["S"] for shape in shapes if "S" in shape]
        return max(stop for _, stop in ranges) - min(first for first, _ in ranges) if ranges else 1
    if suffix == "nd2":
        with _library("nd2").ND2File(path) as file:
            return int(file.sizes.get("P", 1))
    return None


def _library(name: str) -> Any:
    """A library that bioio's parts read with."""
    return importlib.import_module(name)
