"""Images and volumes of any size and format, opened at once and read region by region.

The formats are in `openers.py`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images import axes as axis_names
from cellcount_jax.images.openers import open_stored, short_name
from cellcount_jax.images.regions import TOO_LARGE, first_wrong
from cellcount_jax.images.selection import WHOLE_FILE, Selection
from cellcount_jax.images.stored import Stored, exact_labels, naming, spatial_axes, without_alpha
from cellcount_jax.images.voxel_size import possible_edge, unknown_text
from cellcount_jax.images.zarr_stores import as_path


class _OpenFile:
    """The array of an open file, which the copies of a source share; None when it is closed."""

    def __init__(self, stored: Stored):
        self.stored: Stored | None = stored


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """An open image or volume, of which a part is selected. A context manager.

    Attributes:
      name: short name, for output files.
      path: the file or folder.
      kind: the format in words: 'ImageJ TIFF', 'OME-Zarr 0.4', 'folder of 120 TIFF slices'.
      axes: as stored, or as the selection names them, for example 'TCZYX'; TIFF leaves out axes of
        length 1.
      stored_shape: the size of each of `axes`.
      shape: `(D,)` spatial size, y, x or z, y, x.
      channels: how many channels `read` gives.
      channel_names: one a channel; empty where the file has none.
      dtype: the stored type, in the machine's byte order.
      spacing: `(D,)` voxel edges in micrometres; None where the file does not give all.
      spacing_source: its origin in words; 'unknown' where there is none.
      spacing_found: what the file says of an unknown voxel size; '' where nothing.
      chunks: `(D,)` size that is cheap to read at once; None where any region is.
      levels: how many resolutions the file holds.
      files: all files that are read, where these are more than `path`: slices, linked OME-TIFFs;
        of an address see `remote_state.remote_files`.
      selection: what was asked for.
    """

    name: str
    path: Path
    kind: str
    axes: str
    stored_shape: tuple[int, ...]
    shape: tuple[int, ...]
    channels: int
    channel_names: tuple[str, ...]
    dtype: np.dtype
    spacing: tuple[float, ...] | None
    spacing_source: str
    spacing_found: str
    chunks: tuple[int, ...] | None
    levels: int
    files: tuple[Path, ...]
    selection: Selection
    _file: _OpenFile = dataclasses.field(repr=False)
    _spatial: str = dataclasses.field(repr=False)  # the letters of `shape` in `axes`
    _time: int = dataclasses.field(repr=False)
    _channel: int | None = dataclasses.field(repr=False)  # None: all

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the file, for copies too: none can `read` any more. Closing again does nothing."""
        if self._file.stored is not None:
            self._file.stored.close()
        self._file.stored = None

    def with_spacing(self, spacing: Sequence[float], source: str) -> Source:
        """A copy with another voxel size, of the same open file.

        Args:
          spacing: `(D,)` voxel edges in micrometres.
          source: where they are from, in words.
        """
        return dataclasses.replace(self, spacing=tuple(spacing), spacing_source=source)

    def read(self, region: tuple[slice, ...]) -> np.ndarray:
        """Reads a part.

        Args:
          region: `(D,)` slices of step 1 inside `shape`, none of them empty.

        Returns:
          `(*region, channels)` float32, the intensities as stored; the caller's own copy.

        Raises:
          InputError: damaged, NaN, infinite or partly transparent pixels in the region; the
            message names the place.
          ValueError: a region that is not inside, or a source that was closed.
        """
        values, start = self._read(region)
        with np.errstate(over="ignore"):
            # Always a copy, which outlives the file's memory map.
            pixels = np.array(values, dtype=np.float32, order="C")
        if self.dtype.kind == "f":
            good = np.abs(pixels) < TOO_LARGE  # NaN is not
            self._check_all(good, f"NaN, infinite or above {TOO_LARGE:g}", start)
        return pixels

    def read_labels(self, region: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a label volume or mask, exactly.

        `read` gives 32-bit floats, which are exact up to 16777216 alone; the ids of an atlas go
        beyond.

        Args:
          region: as for `read`.

        Returns:
          `(*region,)` int64; the caller's own copy.

        Raises:
          InputError: several channels, numbers that are not whole or were rounded when they were
            saved, or damage; the message names the place.
          ValueError: as `read`.
        """
        if self.channels != 1:
            raise InputError(
                f"{self.path}: has {self.channels} channels; labels are one channel of whole"
                " numbers."
            )
        values, start = self._read(region)
        return exact_labels(values[..., 0], self.path, start)

    def read_mask(self, region: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a mask: where any channel (apart from opacity) is not zero, as stored.

        Args:
          region: as for `read`.

        Returns:
          `(*region,)` bool; the caller's own copy.

        Raises:
          InputError: as `read`, but that a number may be as large or small as it likes.
          ValueError: as `read`.
        """
        values, start = self._read(region)
        if self.dtype.kind == "f":
            self._check_all(np.isfinite(values), "NaN or infinite", start)
        inside: np.ndarray = np.any(values != 0, axis=-1)
        return inside

    def _read(self, region: tuple[slice, ...]) -> tuple[np.ndarray, list[int]]:
        """`(*region, channels)` of the stored type, maybe in the file; and its first voxel."""
        if self._file.stored is None:
            raise ValueError(f"{self.path}: was closed.")
        start, stop = self._bounds(region)
        letters = "zyx"[-len(start) :]
        spans = zip(letters, start, stop, strict=True)
        place = ", ".join(f"{axis} {first}:{last}" for axis, first, last in spans)
        with naming(self.path, f"{self.kind} at {place}"):
            return self._values(self._file.stored, start, stop), start

    def _bounds(self, region: tuple[slice, ...]) -> tuple[list[int], list[int]]:
        if len(region) != len(self.shape):
            raise ValueError(f"{self.path}: a region of {len(region)} axes of {len(self.shape)}.")
        start = [0 if part.start is None else int(part.start) for part in region]
        stop = [
            size if part.stop is None else int(part.stop)
            for part, size in zip(region, self.shape, strict=True)
        ]
        inside = all(0 <= a < b <= n for a, b, n in zip(start, stop, self.shape, strict=True))
        if not inside or any(part.step not in (None, 1) for part in region):
            raise ValueError(f"{self.path}: the region {region} is not inside {self.shape}.")
        return start, stop

    def _values(self, stored: Stored, start: list[int], stop: list[int]) -> np.ndarray:
        """`(*region, channels)` of the stored type."""
        parts = dict(zip(self._spatial, map(slice, start, stop), strict=True))
        index: list[int | slice] = []
        left = ""
        one = self._channel
        for axis, size in zip(stored.axes, stored.array.shape, strict=True):
            if axis in parts:
                index.append(parts[axis])
            elif axis in "CS" and size > 1:
                # The opacity is checked before a channel is taken.
                index.append(slice(None) if one is None or stored.alpha else slice(one, one + 1))
            else:
                index.append(self._time if axis == "T" else 0)
                continue
            left += axis
        values = np.asarray(stored.array[tuple(index)])
        channel = [axis for axis in left if axis in "CS"]
        values = values.transpose([left.index(axis) for axis in (*self._spatial, *channel)])
        if not channel:
            return values[..., None]
        if stored.alpha:
            values = without_alpha(values, self.path, self.axes)
            return values if one is None else values[..., one : one + 1]
        return values

    def _check_all(self, good: np.ndarray, problem: str, start: list[int]) -> None:
        """Makes sure that all of `(*region, channels)` is good; names the first that is not."""
        if good.all():
            return
        index, place = first_wrong(good, start)
        which = f" of channel {index[-1]}" if self.channels > 1 else ""
        raise InputError(
            f"{self.path}: {problem} at {place}{which};"
            f" {int(good.size - good.sum())} such values in the region read. Replace them, and save"
            " the file anew."
        )


def open_source(
    path: str | os.PathLike[str],
    selection: Selection = WHOLE_FILE,
    *,
    as_slices: bool = False,
) -> Source:
    """Opens an image or volume of any size; its pixels are read later, region by region.

    Pages of a plain TIFF are the z axis; a .npy file or a Zarr array without axes is y, x or
    z, y, x. Axes of length 1 other than y and x are dropped, so a volume of one plane is an image.

    Args:
      path: a TIFF, PNG, .npy, CZI, ND2 or LIF file, a Zarr folder, zip file or address
        (https://...), or a folder of slices.
      selection: the part of it that is used; default: all of what has one time point.
      as_slices: the path is a folder of 2D images, one a plane, in order of the numbers in
        their names.

    Returns:
      The source; close it, or use it in a `with` block.

    Raises:
      InputError: missing, unreadable or damaged; more axes than time, z, y, x and channels; not
        real numbers; no such scene, channel, time point or level; several scenes or time points and
        none is chosen; a spacing or axes that do not fit.
    """
    path = as_path(path)
    with naming(path, "an image"):
        stored = open_stored(
            path, level=selection.level, scene=selection.scene, as_slices=as_slices
        )
        try:
            return _select(stored, path, selection)
        except BaseException:
            stored.close()
            raise


def _select(stored: Stored, path: Path, selection: Selection) -> Source:
    if selection.axes is not None:
        stored = axis_names.reinterpreted(stored, selection.axes, path)
    shape = tuple(map(int, stored.array.shape))
    spatial = spatial_axes(stored, path, remedy=axis_names.example(stored.axes, shape))
    sizes = dict(zip(stored.axes, shape, strict=True))
    ndim = len(spatial)
    count = max(sizes.get("C", 1), sizes.get("S", 1))
    count -= stored.alpha and count > 1
    names = stored.channel_names if len(stored.channel_names) == count else ()
    chosen = selection.channel_of(count, names, path)
    found = tuple(stored.voxel.get(axis, math.nan) for axis in "ZYX"[-ndim:])
    edges = tuple(map(possible_edge, found))
    spacing, spacing_source = selection.spacing_of(edges, path), "given"
    if selection.spacing is None:
        spacing_source = "unknown" if spacing is None else stored.voxel_source
    chunks = stored.chunks and dict(zip(stored.axes, stored.chunks, strict=True))
    return Source(
        name=short_name(path),
        path=path,
        kind=stored.kind,
        axes=stored.axes,
        stored_shape=shape,
        shape=tuple(sizes[axis] for axis in spatial),
        channels=count if chosen is None else 1,
        channel_names=names if chosen is None or not names else (names[chosen],),
        dtype=np.dtype(stored.array.dtype).newbyteorder("="),
        spacing=spacing,
        spacing_source=spacing_source,
        spacing_found="" if spacing else unknown_text(found, stored.voxel_unread),
        chunks=tuple(int(chunks[axis]) for axis in spatial) if chunks else None,
        levels=stored.levels,
        files=stored.files,
        selection=selection,
        _file=_OpenFile(stored),
        _spatial=spatial,
        _time=selection.time_of(
            sizes.get("T", 1), path, remedy=axis_names.remedy(stored.axes, shape, ndim=3)
        ),
        _channel=chosen,
    )
