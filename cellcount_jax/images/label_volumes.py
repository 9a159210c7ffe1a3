"""Label volumes beside an image, of any size: an atlas's annotation, or a mask drawn by hand.

A label volume covers the extent of its image, in voxels of its own: a point lies in the voxel at
the same fraction of the extent.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file
from cellcount_jax.images.points import from_corner
from cellcount_jax.images.regions import Region, all_of, size_text
from cellcount_jax.images.sources import Source, open_source
from cellcount_jax.images.zarr_stores import is_zarr

# Labels that are in memory at once: 128 MB.
_BLOCK_VOXELS = 2**24
# How much a label volume may be stretched along one axis more than along another.
_STRETCH = 1.02


class Labels(Protocol):
    """What is read of a label volume."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(D,)` voxels."""
        ...

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """`(D,)` voxels that are stored together; None = single ones."""
        ...

    def read_labels(self, region: tuple[slice, ...], /) -> np.ndarray:
        """`(*region,)` whole numbers, see `Source.read_labels`."""
        ...


def open_label_volume(
    path: str | os.PathLike[str], *, shape: Sequence[int], spacing: Sequence[float] | None
) -> Source:
    """Opens a label volume or mask that covers the extent of an image.

    Args:
      path: a TIFF, PNG, .npy or Zarr file, or a folder of slices; one channel.
      shape: `(D,)` of the image.
      spacing: `(D,)` of the image, micrometres, or None.

    Returns:
      The labels, for `Source.read_labels`; close them.

    Raises:
      InputError: as `open_source`; several channels; another number of dimensions; or, where both
        voxel sizes are known, an extent that is longer along one axis than along another,
        compared with the image's, by over 2 % and more than a voxel.
    """
    path = Path(path)
    try:
        labels = open_source(path, as_slices=path.is_dir() and not is_zarr(path))
    except InputError as error:
        if " choose one with --" not in str(error):
            raise
        axes = ", ".join("zyx"[-len(shape) :])
        raise InputError(
            f"{error} Such options are of the image alone: save its labels as one image of the axes"
            f" {axes}."
        ) from error
    try:
        _check_fit(labels, shape, spacing)
    except InputError:
        labels.close()
        raise
    return labels


def _check_fit(labels: Source, shape: Sequence[int], spacing: Sequence[float] | None) -> None:
    if labels.channels != 1:
        remedy = "Save one channel on its own."
        if len(labels.shape) < len(shape):
            remedy = "If these are planes, save it anew with the axes z, y, x: --axes is of images."
        raise InputError(
            f"{labels.path}: has {labels.channels} channels; labels are one channel of whole"
            f" numbers. {remedy}"
        )
    if len(labels.shape) != len(shape):
        raise InputError(
            f"{labels.path}: labels of {size_text(labels.shape)} voxels for an image of"
            f" {size_text(shape)}; labels in {len(shape)}D that cover the image are needed."
        )
    if spacing is None or labels.spacing is None:
        return
    ours = [n * edge for n, edge in zip(shape, spacing, strict=True)]
    theirs = [n * edge for n, edge in zip(labels.shape, labels.spacing, strict=True)]
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    # An extent in whole voxels may be up to one of them too long or too short.
    exact = [1 / min(a, b) for a, b in zip(shape, labels.shape, strict=True)]
    largest = max(ratio * (1 - share) for ratio, share in zip(ratios, exact, strict=True))
    smallest = min(ratio * (1 + share) for ratio, share in zip(ratios, exact, strict=True))
    if largest > _STRETCH * smallest:
        raise InputError(
            f"{labels.path}: labels of {size_text(theirs)} um for an image of {size_text(ours)}"
            " um: they are stretched, or the axes are in another order. Labels that cover the"
            " image, and its true voxel size, are needed."
        )


def read_names(path: str | os.PathLike[str]) -> dict[int, str]:
    """Reads the names of regions.

    Args:
      path: a CSV file with a header that has the columns id and name, and maybe others.

    Returns:
      Name by id.

    Raises:
      InputError: not such a file, an id that is not a whole number, or one that stands twice.
    """
    path = existing_file(path)
    names: dict[int, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = {str(name).strip().casefold(): name for name in table.fieldnames or ()}
            if not {"id", "name"} <= columns.keys():
                raise InputError(
                    f"{path}: found the columns {', '.join(map(repr, table.fieldnames or ()))}; a"
                    " header with id and name is needed, separated by commas."
                )
            for row in table:
                text, name = row[columns["id"]], row[columns["name"]]
                try:
                    number = int(text.replace("_", "no"))  # Python reads 1_0 as 10
                except (AttributeError, ValueError):
                    raise InputError(
                        f"{path}: line {table.line_num}: the id {text!r} is not a whole number."
                    ) from None
                if number in names:
                    raise InputError(
                        f"{path}: line {table.line_num}: the id {number} stands twice."
                    )
                names[number] = (name or "").strip()
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV text file in UTF-8 ({error}).") from error
    return names


def blocks(labels: Labels, region: tuple[slice, ...] | None = None) -> Iterator[tuple[slice, ...]]:
    """Regions to read a label volume in, one after the other: whole chunks, as many as fit.

    Args:
      labels: the label volume.
      region: `(D,)` slices, what is to be read of it; None = all.

    Yields:
      Regions in index order, which fill `region` without overlap.
    """
    sizes = _block(labels)
    parts = region or all_of(labels.shape)
    grid = [
        range(part.start // size, -(-part.stop // size))
        for part, size in zip(parts, sizes, strict=True)
    ]
    for index in np.ndindex(*map(len, grid)):
        yield tuple(
            slice(max(numbers[i] * n, part.start), min((numbers[i] + 1) * n, part.stop))
            for i, numbers, n, part in zip(index, grid, sizes, parts, strict=True)
        )


def _block(labels: Labels) -> list[int]:
    """What is read at once: chunks, side by side along the last axes first, or part of one."""
    chunk = labels.chunks or (1,) * len(labels.shape)
    block = [min(size, n) for size, n in zip(chunk, labels.shape, strict=True)]
    for axis, size in enumerate(block):
        if (voxels := math.prod(block)) > _BLOCK_VOXELS:
            block[axis] = max(1, size * _BLOCK_VOXELS // voxels)
    for axis in reversed(range(len(block))):
        times = max(1, _BLOCK_VOXELS // math.prod(block))
        block[axis] = min(labels.shape[axis], block[axis] * times)
    return block


def blocks_with_points(
    labels: Labels, points: np.ndarray, *, shape: Sequence[int]
) -> Iterator[tuple[tuple[slice, ...], np.ndarray, tuple[np.ndarray, ...]]]:
    """The blocks of a label volume, each with the points in it.

    Args:
      labels: the label volume.
      points: `(N, D)` in voxels of the image.
      shape: `(D,)` of the image.

    Yields:
      The block; which points are in it, `(M,)` places in `points`; and their voxels in the block,
      D arrays `(M,)`, an index of what was read there.

    Raises:
      InputError: see `points.from_corner`.
    """
    voxels = voxels_at(points, labels.shape, shape=shape)
    sizes = np.asarray(_block(labels))
    grid = -(-np.asarray(labels.shape) // sizes)
    number = np.ravel_multi_index(tuple((voxels // sizes).T), tuple(grid))
    order = np.argsort(number, kind="stable")
    bounds = np.searchsorted(number, np.arange(math.prod(grid) + 1), sorter=order)
    for block, region in enumerate(blocks(labels)):
        members = order[bounds[block] : bounds[block + 1]]
        start = [part.start for part in region]
        yield region, members, tuple((voxels[members] - start).T)


def voxels_at(
    points: np.ndarray, labels_shape: Sequence[int], *, shape: Sequence[int]
) -> np.ndarray:
    """The voxels of a label volume that points lie in.

    Args:
      points: `(N, D)` in voxels of the image.
      labels_shape: `(D,)` of the label volume.
      shape: `(D,)` of the image.

    Returns:
      `(N, D)` int64.

    Raises:
      InputError: see `points.from_corner`.
    """
    voxels = from_corner(points, shape) * labels_shape / np.asarray(shape)
    return np.minimum(voxels.astype(np.int64), np.asarray(labels_shape) - 1)


def touched_by(
    region: Sequence[slice], labels_shape: Sequence[int], *, shape: Sequence[int]
) -> Region:
    """The part of a label volume that points of a region of the image may lie in.

    It is a voxel (of the image) wider on each side, as a point may be found a little outside of the
    tile that it belongs to.

    Args:
      region: `(D,)` slices of the image.
      labels_shape: `(D,)` of the label volume.
      shape: `(D,)` of the image.
    """
    return tuple(
        slice(
            max(part.start - 1, 0) * theirs // ours,
            -(-min(part.stop + 1, ours) * theirs // ours),
        )
        for part, theirs, ours in zip(region, labels_shape, shape, strict=True)
    )


def lookup(labels: Source, points: np.ndarray, *, shape: Sequence[int]) -> np.ndarray:
    """The label at each point, read block by block, where there are points.

    Args:
      labels: the label volume.
      points: `(N, D)` in voxels of the image.
      shape: `(D,)` of the image.

    Returns:
      `(N,)` int64.

    Raises:
      InputError: see `points.from_corner` and `Source.read_labels`.
    """
    found = np.zeros(len(points), np.int64)
    for region, members, place in blocks_with_points(labels, points, shape=shape):
        if len(members):
            found[members] = labels.read_labels(region)[place]
    return found
