"""The density of cells as an image: their number in each bin of a grid, over the bin's volume."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing_folder
from cellcount_jax.images.points import from_corner
from cellcount_jax.images.regions import size_text

_MAX_BINS = 2**26  # 2 GB while they are counted
_CHUNK = {2: (512, 512), 3: (64, 64, 64)}
_GZIP: Any = {"id": "gzip", "level": 5}
# Gives the share of each box of a grid that was counted, `coverage.inside_share`.
Share = Callable[[Sequence[np.ndarray]], np.ndarray]
_METADATA = (".zattrs", ".zgroup", "zarr.json")


class Density(NamedTuple):
    """Cells per volume in a regular grid.

    Along an axis with a block of b voxels, bin i has the voxels from b i - b // 2 on: its centre
    is that of voxel b i, or half a voxel before where b is even. The image cuts the first bin in
    half, and the last one somewhere.

    Attributes:
      values: `(*grid,)` float32 cells per `unit`.
      block: `(D,)` voxels of a bin.
      unit: 'mm3', 'mm2', or 'voxel' where the voxel size is not known.
    """

    values: np.ndarray
    block: tuple[int, ...]
    unit: str


def density_map(
    points: np.ndarray,
    *,
    shape: Sequence[int],
    spacing: Sequence[float] | None,
    bin_um: float = 100.0,
    bin_voxels: int = 32,
    inside: Share | None = None,
) -> Density:
    """The density of points in a grid of cubes.

    A bin is a whole number of voxels, so that its volume is exact; its edges are as near to the
    wanted length as that allows.

    Args:
      points: `(N, D)` in voxels.
      shape: `(D,)` of the image.
      spacing: `(D,)` voxel edges in micrometres, or None.
      bin_um: edge of a bin in micrometres, where the voxel size is known.
      bin_voxels: edge of a bin in voxels, where it is not.
      inside: the part of the image that was counted, which the points lie in; None = all of it.

    Returns:
      The density; each bin is divided by the part of its volume that was counted, and is 0 where
      that is none.

    Raises:
      InputError: an edge that is not positive, or so short that there were too many bins; or see
        `points.from_corner`.
    """
    name, edge = ("bin_voxels", bin_voxels) if spacing is None else ("bin_um", bin_um)
    if not 0 < edge < math.inf:
        raise InputError(f"{name} is {edge}; a positive edge of the bins is needed.")
    voxel = (1.0,) * len(shape) if spacing is None else spacing
    block = [max(round(edge / v), 1) for v in voxel]
    grid = [(n - 1 + b // 2) // b + 1 for n, b in zip(shape, block, strict=True)]
    if math.prod(grid) > _MAX_BINS:
        raise InputError(
            f"{name} is {edge:g}, which makes {size_text(grid)} bins; up to"
            f" {_MAX_BINS} are possible, so give a longer edge."
        )
    unit, volume = unit_and_volume(len(shape), spacing)
    half = [b // 2 for b in block]
    voxels = np.minimum(from_corner(points, shape).astype(np.int64), np.asarray(shape) - 1)
    number = np.ravel_multi_index(tuple(((voxels + half) // block).T), grid)
    counts = np.bincount(number, minlength=math.prod(grid)).reshape(grid)
    # Voxels of the image in the bins along each axis.
    borders = [
        np.clip(b * np.arange(g + 1) - h, 0, n)
        for n, b, h, g in zip(shape, block, half, grid, strict=True)
    ]
    sizes: list[Any] = [np.diff(border) for border in borders]
    volumes = functools.reduce(np.multiply.outer, sizes) * volume
    if inside is not None:
        volumes = volumes * inside([b / n for b, n in zip(borders, shape, strict=True)])
    values = np.divide(counts, volumes, out=np.zeros(grid), where=volumes > 0)
    return Density(values.astype(np.float32), tuple(block), unit)


def write_density(
    path: Path,
    points: np.ndarray,
    *,
    shape: Sequence[int],
    spacing: Sequence[float] | None,
    bin_um: float = 100.0,
    bin_voxels: int = 32,
    inside: Share | None = None,
) -> None:
    """Writes the density of points as OME-Zarr, which lies over the image in a viewer.

    It is version 0.4, compressed by gzip: all versions of Fiji's readers and of napari-ome-zarr
    take that, 0.5 only the latest. The first voxel's centre is the origin of the image and, up to
    half a voxel, of the grid: napari-ome-zarr, from version 0.9 on, does not apply translations.

    Args:
      path: the folder, by custom `*.zarr`; an older one is replaced.
      points: `(N, D)` in voxels.
      shape: `(D,)` of the image.
      spacing: `(D,)` voxel edges in micrometres; None = the file is in voxels.
      bin_um: edge of a bin in micrometres, where the voxel size is known.
      bin_voxels: edge of a bin in voxels, where it is not.
      inside: the part of the image that was counted, see `density_map`.

    Raises:
      InputError: see `density_map`; or there is something else at the path.
    """
    values, block, unit = density_map(
        points,
        shape=shape,
        spacing=spacing,
        bin_um=bin_um,
        bin_voxels=bin_voxels,
        inside=inside,
    )
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not any((path / n).exists() for n in _METADATA):
        raise InputError(f"{path}: is a folder of something else than Zarr; it is not replaced.")
    voxel = (1.0,) * len(shape) if spacing is None else spacing
    scale = [b * float(v) for b, v in zip(block, voxel, strict=True)]
    translation = [0.0 if b % 2 else -0.5 * float(v) for b, v in zip(block, voxel, strict=True)]
    space = {"type": "space"} if spacing is None else {"type": "space", "unit": "micrometer"}
    multiscale = {
        "version": "0.4",
        "name": f"cells per {unit}",
        "axes": [{"name": axis, **space} for axis in "zyx"[-len(shape) :]],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": translation},
                ],
            }
        ],
    }
    with replacing_folder(path) as temporary:
        group = zarr.create_group(
            temporary, zarr_format=2, attributes={"multiscales": [multiscale]}
        )
        array = group.create_array(
            "0",
            shape=values.shape,
            dtype="float32",
            chunks=tuple(map(min, values.shape, _CHUNK[len(shape)])),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            compressors=_GZIP,
            fill_value=0.0,
            config={"write_empty_chunks": True},
        )
        array[...] = values


def unit_and_volume(ndim: int, spacing: Sequence[float] | None) -> tuple[str, float]:
    """The unit of size that densities are given per, and the size of a voxel in it.

    Args:
      ndim: spatial dimensions.
      spacing: `(D,)` voxel edges in micrometres, or None.

    Returns:
      'mm3', 'mm2' or 'voxel'; and the voxel's volume or area in it.
    """
    if spacing is None:
        return "voxel", 1.0
    return f"mm{ndim}", math.prod(edge / 1000 for edge in spacing)
