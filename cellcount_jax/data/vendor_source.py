"""Files of microscope makers (Zeiss CZI, Nikon ND2, Leica LIF), through bioio where installed."""

from __future__ import annotations

import importlib
from pathlib import Path

from cellcount_jax.data.files import existing_file
from cellcount_jax.data.stored import Stored, naming
from cellcount_jax.errors import InputError

VENDOR_SUFFIXES = (".czi", ".nd2", ".lif")


def open_vendor(path: Path) -> Stored:
    """Opens the one image of a CZI, ND2 or LIF file.

    Args:
      path: the file.

    Returns:
      The image as stored; read chunk by chunk.

    Raises:
      InputError: bioio or its part for the format is not installed; several images (scenes) in
        the file; or what bioio cannot read.
    """
    existing_file(path)
    suffix = path.suffix.lower()[1:]
    try:
        bioio = importlib.import_module("bioio")
        reader = importlib.import_module(f"bioio_{suffix}").Reader
    except ImportError as error:
        raise InputError(
            f"{path}: a .{suffix} file needs packages that are not installed: pip install bioio"
            f" bioio-{suffix}. Or save it as OME-TIFF."
        ) from error
    with naming(path, f"a {suffix.upper()} file"):
        image = bioio.BioImage(path, reader=reader)
        if len(image.scenes) != 1:
            raise InputError(
                f"{path}: holds {len(image.scenes)} images ({', '.join(image.scenes[:4])}); save"
                " the one to use on its own, for example as OME-TIFF."
            )
        edges = image.physical_pixel_sizes
        array = image.dask_data
        return Stored(
            array=array,
            axes=str(image.dims.order),
            kind=suffix.upper(),
            voxel={axis: float(edge) for axis, edge in zip("ZYX", edges, strict=True) if edge},
            voxel_source=f"{suffix.upper()} metadata",
            channel_names=tuple(map(str, image.channel_names or ())),
            chunks=tuple(array.chunksize),
        )
