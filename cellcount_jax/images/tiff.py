"""TIFF files of any size, read region by region.

What is stored as it is used, uncompressed, is a memory map; the rest is decoded page by page,
or strip by strip where a page is large, or tile by tile.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file, replacing
from cellcount_jax.images.linked_ome import LinkedImages, linked_images
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.stored import LazyArray, Stored, check_level, naming
from cellcount_jax.images.tiff_checks import (
    check_chain,
    check_codec,
    check_complete,
    check_ome_sizes,
    choose_series,
    file_of,
)
from cellcount_jax.images.tiff_complaints import no_complaints
from cellcount_jax.images.tiff_values import as_intensities
from cellcount_jax.images.voxel_size import voxel_size

# A compressed page up to this size is decoded whole, which is faster than strip by strip: many
# files have a strip per row.
_WHOLE_PAGE_BYTES = 64 * 2**20

_OPEN_FILES = 8  # at a time, of linked ones; as many as tifffile has where it decodes


def open_tiff(path: Path, *, level: int = 0, scene: int | str | None = None) -> Stored:
    """Opens one image or volume of a TIFF file (plain, BigTIFF, ImageJ, OME).

    One that is spread over linked OME-TIFF files is opened whole by any of them.

    Args:
      path: the file.
      level: of a pyramid; 0 is the finest.
      scene: number or name of one of several images; None = the only one.

    Returns:
      The image as stored, brighter pixels higher; close it.

    Raises:
      InputError: not a TIFF file, truncated or damaged as far as the headers show it, several
        images in it and none is chosen, a linked file that is missing, a compression that cannot be
        read, or no such level or image.
    """
    existing_file(path)
    tiff = None
    try:
        with naming(path, "a TIFF file"), no_complaints(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_chain(path)
            tiff = tifffile.TiffFile(path)
            linked = linked_images(tiff, path) if tiff.is_ome else None
            if linked is not None:
                tiff.close()
                tiff = _open_linked(linked)
            check_ome_sizes(tiff, path, linked=linked is not None)
            stored = _stored(tiff, path, level, scene)
    except InputError:
        if tiff is not None:
            tiff.close()
        raise
    if linked is None or linked.read == (path,):
        return stored
    several = f" of {len(linked.files)} linked files" if len(linked.files) > 1 else ""
    return dataclasses.replace(stored, kind=f"{stored.kind}{several}", files=linked.read)


def linked_to(path: Path) -> LinkedImages | None:
    """The files that an OME-TIFF file is linked with.

    Args:
      path: any TIFF file.

    Returns:
      The files of the images of which it has planes; None if it names no other file.

    Raises:
      InputError: it cannot be read, or see `linked_images`.
    """
    with naming(path, "a TIFF file"), no_complaints(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_chain(path)
        with tifffile.TiffFile(path) as tiff:
            return linked_images(tiff, path) if tiff.is_ome else None


def _open_linked(linked: LinkedImages) -> tifffile.TiffFile:
    if linked.problem:
        raise InputError(linked.problem)
    return tifffile.TiffFile(linked.files[0], omexml=linked.text)


def _stored(tiff: tifffile.TiffFile, path: Path, level: int, scene: int | str | None) -> Stored:
    number = choose_series(tiff, path, scene)
    base = tiff.series[number]
    check_level(level, len(base.levels), path)
    series = base.levels[level]
    page = series.keyframe
    check_codec(page, path)
    check_complete(series, path)
    size = voxel_size(tiff, base.keyframe, image=number)
    voxel = {axis: edge * _reduction(base, series, axis) for axis, edge in size.edges.items()}
    array, chunks = _lazy(tiff, series, path)
    array, meaning = as_intensities(array, page, path, imagej=tiff.is_imagej)
    colours = len(array.shape) - len(series.shape)
    if tiff.is_ome:
        kind, source = "OME-TIFF", "OME metadata"
    elif tiff.is_imagej:
        kind, source = "ImageJ TIFF", "ImageJ metadata"
    else:
        kind = "BigTIFF" if tiff.is_bigtiff else "TIFF"
        source = "tifffile's JSON" if tiff.is_shaped and "Z" in voxel else "resolution tags"
    if len(tiff.series) > 1:
        kind += f", scene {number} of {len(tiff.series)} ({base.name or size_text(base.shape)})"
    return Stored(
        array=array,
        axes=series.axes + "S" * colours,
        kind=f"{kind} ({meaning})" if meaning else kind,
        voxel=voxel,
        voxel_source=source,
        voxel_unread=size.unread,
        alpha=any(int(extra) in (1, 2) for extra in page.extrasamples),
        channel_names=_channel_names(tiff.ome_metadata, number) if tiff.is_ome else (),
        chunks=chunks and (*chunks, *array.shape[len(chunks) :]),
        levels=len(base.levels),
        scene=number if len(tiff.series) > 1 else None,
        close=tiff.close,
    )


def _lazy(
    tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path
) -> tuple[LazyArray, tuple[int, ...] | None]:
    """The array of a series, and its chunks."""
    if series.transform is None:
        dtype = np.dtype(tiff.byteorder + series.dtype.char)
        if series.dataoffset is not None and not series.is_multifile:
            place = file_of(series.keyframe, path)
            return np.memmap(place, dtype, "r", series.dataoffset, series.shape), None
        if all(page is not None and _is_plain(page) for page in series):
            return _MappedPages(path, dtype, series), None
    page = series.keyframe
    # Where the first page is one piece, tifffile takes every whole page for one.
    by_parts = page.is_tiled or page.is_contiguous or page.nbytes > _WHOLE_PAGE_BYTES
    store = series.aszarr(level=0, chunkmode=0 if by_parts else 2)
    array = zarr.open_array(store, mode="r")
    return _Complaining(array, path), array.chunks


def _is_plain(page: tifffile.TiffPage | tifffile.TiffFrame) -> bool:
    """Whether a page is one piece of the file, of pixels as they are used."""
    # tifffile itself compares only the pieces of the first page.
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    joined = all(start + size == after[0] for (start, size), after in itertools.pairwise(pieces))
    return bool(page.is_final) and joined


class _MappedPages:
    """Pages that lie in files with something between them, as Bio-Formats writes them."""

    def __init__(self, path: Path, dtype: np.dtype[Any], series: tifffile.TiffPageSeries):
        self.shape: tuple[int, ...] = tuple(series.shape)
        self.dtype = dtype
        self._places = [
            (file_of(page, path), page.dataoffsets[0]) for page in series if page is not None
        ]
        # Of linked files a few are open at a time.
        self._bytes = functools.lru_cache(_OPEN_FILES)(lambda file: np.memmap(file, np.uint8, "r"))
        # The series has dropped axes of length 1 that the page may still have.
        self._leading = next(
            number
            for number in range(len(self.shape) + 1)
            if math.prod(self.shape[number:]) == series.keyframe.size
            and math.prod(self.shape[:number]) == len(self._places)
        )

    def __getitem__(self, index: tuple[int | slice, ...], /) -> np.ndarray:
        pages, within = index[: self._leading], index[self._leading :]
        numbers = np.arange(len(self._places)).reshape(self.shape[: self._leading])[pages]
        found = [self._page(int(number))[within] for number in np.ravel(numbers)]
        return np.reshape(found, np.shape(numbers) + found[0].shape)

    def _page(self, number: int) -> np.ndarray:
        file, offset = self._places[number]
        shape = self.shape[self._leading :]
        return np.ndarray(shape, self.dtype, self._bytes(file), offset)


class _Complaining:
    """An array for which each warning that tifffile logs while it reads is an error."""

    def __init__(self, array: LazyArray, path: Path):
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = array.dtype
        self._array = array
        self._path = path

    def __getitem__(self, index: tuple[int | slice, ...], /) -> Any:
        with no_complaints(self._path):
            return self._array[index]


def _reduction(base: tifffile.TiffPageSeries, series: tifffile.TiffPageSeries, axis: str) -> float:
    """How much coarser a level of the pyramid is along an axis.

    A level of 501 of 1001 pixels is reduced by 2: its last pixel is only half covered.
    """
    if axis not in base.axes or axis not in series.axes:
        return 1.0
    fine, coarse = base.shape[base.axes.index(axis)], series.shape[series.axes.index(axis)]
    whole = round(fine / coarse)
    exact = coarse in (fine // whole, math.ceil(fine / whole))
    return float(whole) if exact else fine / coarse


def _channel_names(xml: str | None, image: int) -> tuple[str, ...]:
    """The names of the channels in OME's metadata; none unless every channel has one."""
    pixels = ElementTree.fromstring(xml or "<OME/>").findall(".//{*}Pixels")[image:]
    names = [channel.get("Name") for channel in pixels[0].findall("{*}Channel")] if pixels else []
    return tuple(name for name in names if name) if all(names) else ()


def write_tiff(
    path: Path, channels_last: np.ndarray, *, spacing: Sequence[float] | None = None
) -> None:
    """Writes an ImageJ TIFF, all or nothing.

    Args:
      path: the file.
      channels_last: `(*spatial, channels)` uint8, uint16 or float32, or what fits into them
        without loss; bool becomes 0 and 1.
      spacing: `(D,)` voxel edges in micrometres.

    Raises:
      InputError: a type that does not fit, a spacing that is no size, a volume of one plane.
    """
    if channels_last.ndim == 4 and channels_last.shape[0] == 1:
        raise InputError(f"{path}: ImageJ TIFF cannot tell a volume of one plane from an image.")
    stored = _imagej_type(channels_last, path)
    axes = "ZCYX"[4 - stored.ndim :]
    stored = np.moveaxis(stored, -1, -3)
    if stored.shape[-3] == 1:
        stored, axes = stored[..., 0, :, :], axes.replace("C", "")
    metadata: dict[str, str | float] = {"axes": axes}
    resolution = None
    if spacing is not None:
        if not all(0 < edge < math.inf for edge in spacing):
            raise InputError(f"{path}: spacing {tuple(spacing)}; positive micrometres are needed.")
        metadata["unit"] = "um"
        if len(spacing) == 3:
            metadata["spacing"] = float(spacing[0])
        resolution = (1 / spacing[-1], 1 / spacing[-2])
    with replacing(path) as temporary:
        tifffile.imwrite(
            temporary,
            np.ascontiguousarray(stored),
            imagej=True,
            photometric="minisblack",
            resolution=resolution,
            metadata=metadata,
        )


def _imagej_type(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype in (np.uint8, np.uint16, np.float32):
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind in "ui" and array.min() >= 0 and array.max() <= np.iinfo(np.uint16).max:
        return array.astype(np.uint16)
    raise InputError(
        f"{path}: ImageJ TIFF cannot hold {array.dtype} without loss; use uint8, uint16 or float32."
    )
