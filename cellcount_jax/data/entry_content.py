"""The content of an image's files: the sample for training, its dots, and where they are complete.

Which files belong to an image is in `entries.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cellcount_jax.data.blocks import DONE, BlockStates, read_block_states
from cellcount_jax.data.entries import Entry, none_is_labelled, selected
from cellcount_jax.data.labelled_area import LabelledArea, parse_region
from cellcount_jax.data.sample import Sample
from cellcount_jax.errors import InputError
from cellcount_jax.images.dot_files import is_foreign, read_foreign
from cellcount_jax.images.image_files import read_image, read_instance_labels, read_mask
from cellcount_jax.images.image_points import read_image_points
from cellcount_jax.images.imagej_stack import stack_of
from cellcount_jax.images.point_units import UNKNOWN_UNIT, DotUnit
from cellcount_jax.images.points import check_points_inside
from cellcount_jax.images.regions import all_of, size_text
from cellcount_jax.images.selection import WHOLE_FILE, Selection
from cellcount_jax.images.sources import Source, open_source


def labelled_area(entry: Entry, shape: tuple[int, ...], region: str = "") -> LabelledArea:
    """Where the dots of an image are complete.

    Args:
      entry: the files.
      shape: `(D,)` of the image.
      region: a part of it, see `parse_region`; '' = all.

    Raises:
      InputError: a file that cannot be used or does not fit the image; or nothing is complete.
    """
    mask, blocks = _mask_and_blocks(entry, shape)
    if blocks is not None and not (blocks.states == DONE).any():
        raise InputError(none_is_labelled(entry))
    area = LabelledArea(parse_region(region, shape), blocks, mask)
    if not area.touches(all_of(shape)):
        raise InputError(f"{entry.image}: its dots are complete nowhere in the region {region!r}.")
    return area


def read_dots(
    entry: Entry,
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None,
    known: DotUnit = UNKNOWN_UNIT,
    *,
    valid: np.ndarray | None = None,
    selection: Selection = WHOLE_FILE,
) -> np.ndarray:
    """Reads the dots of an image that has some, of any format.

    Args:
      entry: the files.
      shape: `(D,)` of the image.
      spacing: `(D,)` voxel edges in micrometres; None = unknown.
      known: what is known of the unit of dots that other programs wrote.
      valid: `(*shape)` bool, where dots are expected; None = everywhere.
      selection: the part of the image that is used, see `selected`.

    Returns:
      `(N, D)` float32 dots in voxels.

    Raises:
      InputError: see `read_image_points` and `read_foreign`.
    """
    assert entry.points is not None
    if is_foreign(entry.points):
        with open_source(entry.image, selected(entry, selection)) as source:
            return foreign_dots(entry.points, source)
    known = known if entry.blocks is None else known.of_ours()
    return read_image_points(entry.points, shape=shape, spacing=spacing, known=known, valid=valid)


def foreign_dots(path: Path, source: Source) -> np.ndarray:
    """The dots of an image in a file of another program.

    Args:
      path: the file, see `is_foreign`.
      source: the image.

    Returns:
      `(N, D)` float32 dots in voxels.

    Raises:
      InputError: see `read_foreign`; or a dot outside the image.
    """
    points = read_foreign(path, ndim=len(source.shape), stack=stack_of(source))
    check_points_inside(points, source.shape, path)
    return points


def read_entry(
    entry: Entry,
    selection: Selection = WHOLE_FILE,
    *,
    with_dots: bool,
    known: DotUnit = UNKNOWN_UNIT,
) -> Sample:
    """Reads the files of one image.

    Args:
      entry: the files.
      selection: the part of the image that is used, see `selected`.
      with_dots: whether to read dots, instance labels, mask and blocks too.
      known: what is known of the unit of the dots.

    Returns:
      The sample; its labels count where blocks are done and the mask holds.

    Raises:
      InputError: a file that cannot be used, or that does not fit the image.
    """
    image = read_image(entry.image, selected(entry, selection))
    shape = image.pixels.shape[:-1]
    points = labels = valid = None
    if with_dots and entry.points is not None:
        valid = _valid(entry, shape)
        points = read_dots(entry, shape, image.spacing, known, valid=valid, selection=selection)
        if entry.labels is not None:
            labels = read_instance_labels(entry.labels)
            _check_shape(labels.shape, shape, entry.labels, entry.image)
            if entry.points == entry.labels:  # the middles, in the order of the numbers
                labels = np.searchsorted(np.union1d(labels, [0]), labels).astype(np.int32)
            if labels.max() > len(points):
                raise InputError(
                    f"{entry.labels}: labels up to {labels.max()}, but {entry.points} has"
                    f" {len(points)} rows; cells are numbered from 1 on, and each needs a dot."
                )
    return Sample(
        entry.name,
        image.pixels,
        points,
        spacing=image.spacing or (1.0,) * len(shape),
        spacing_known=image.spacing is not None,
        valid=valid,
        labels=labels,
        source=str(entry.image),
    )


def without_dots(sample: Sample) -> Sample:
    """The same image, unlabelled; its pixels are shared."""
    return dataclasses.replace(sample, points=None, valid=None, labels=None)


def _mask_and_blocks(
    entry: Entry, shape: tuple[int, ...]
) -> tuple[np.ndarray | None, BlockStates | None]:
    """`(*shape)` bool of the mask, and the blocks; None where there is no such file."""
    mask = blocks = None
    if entry.valid is not None:
        mask = read_mask(entry.valid)
        _check_shape(mask.shape, shape, entry.valid, entry.image)
    if entry.blocks is not None:
        blocks = read_block_states(entry.blocks)
        _check_shape(blocks.grid.shape, shape, entry.blocks, entry.image)
    return mask, blocks


def _valid(entry: Entry, shape: tuple[int, ...]) -> np.ndarray | None:
    """`(*shape)` bool: where the dots are complete; None = everywhere."""
    valid, blocks = _mask_and_blocks(entry, shape)
    if blocks is not None and not (blocks.states == DONE).all():
        valid = blocks.valid if valid is None else blocks.valid & valid
        if not valid.any():
            both = "" if entry.valid is None else f", within {entry.valid}"
            raise InputError(f"{none_is_labelled(entry).split(';')[0]}{both}.")
    return valid


def _check_shape(found: tuple[int, ...], shape: tuple[int, ...], path: Path, image: Path) -> None:
    if found != shape:
        raise InputError(f"{path}: is {size_text(found)}, its image {image} is {size_text(shape)}.")
