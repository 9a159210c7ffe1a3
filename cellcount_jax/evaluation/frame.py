"""What the files of a pair tell of their image: its size, its voxels, where dots are complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.data.blocks import DONE, read_block_states
from cellcount_jax.errors import InputError, in_words
from cellcount_jax.evaluation.pairing import Side
from cellcount_jax.images.image_files import read_mask
from cellcount_jax.images.imagej_stack import Stack, stack_of
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import Source, open_source
from cellcount_jax.images.zarr_stores import is_zarr


class Frame:
    """What the files of a pair tell of their image, which must be one.

    Attributes:
      shape: `(D,)` voxels; None = no file tells.
      spacings: `(D,)` voxel edges in micrometres of each file, None where it has none.
      remarks: what the user should know, a sentence each.
      stack: as ImageJ numbers the slices of the image; None = the image is not known.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None
        self.spacings: list[tuple[float, ...] | None] = []
        self.remarks: list[str] = []
        self.stack: Stack | None = None
        self._first: Path | None = None

    def add(self, path: Path, shape: Sequence[int]) -> None:
        """Takes the size of the image in voxels, as a file has it."""
        if self.shape is None:
            self.shape, self._first = tuple(shape), path
        elif self.shape != tuple(shape):
            raise InputError(
                f"{path}: is of {size_text(shape)} voxels, {self._first} of"
                f" {size_text(self.shape)}; files of one image at one resolution are needed."
            )

    def add_image(self, path: Path, selection: Selection, *, needed: bool) -> bool:
        """Takes what the image tells; False = it is not `needed`, and cannot be used."""
        try:
            with open_image(path, selection) as source:
                self.add(path, source.shape)
                self.spacings.append(source.spacing)
                self.stack = stack_of(source)
        except (InputError, OSError) as error:
            if needed:
                raise
            self.remarks.append(
                f"there is no picture, since the image cannot be read ({in_words(error)})"
            )
            return False
        return True

    def add_side(self, side: Side) -> None:
        """Takes what the files of a side tell: its count and its labels."""
        if side.summary is not None:
            self.add(side.path.parent / "summary.json", side.summary["shape"])
            edges = side.summary["spacing_um"]
            self.spacings.append(None if edges is None else tuple(map(float, edges)))
            if side.summary.get("mask"):
                self.remarks.append(
                    f"counted was only where {side.summary['mask']} is not 0; dots elsewhere are"
                    " missed ones"
                )
        if side.labels is not None:
            with open_source(side.labels) as source:
                self.add(side.labels, source.shape)
                self.spacings.append(source.spacing)


def open_image(path: Path, selection: Selection) -> Source:
    """Opens an image; a folder that is no Zarr is one of slices, as `cellcount count` takes it."""
    return open_source(path, selection, as_slices=path.is_dir() and not is_zarr(path))


def selection_of(found: Side, true: Side, given: Selection) -> Selection:
    """The part of the image that was counted and labelled, where no other is given."""
    known: dict[str, Any] = {}
    for side in (true, found):
        told: dict[str, Any] = {}
        if side.blocks is not None:
            told |= read_block_states(side.blocks).about
        if side.summary is not None:
            summary = side.summary
            told |= {**summary, "spacing": summary["spacing_um"], "axes": summary.get("axes_given")}
        for name in ("scene", "time", "level"):
            # None, of a file with one scene or time point, is its first.
            both = {name} <= told.keys() & known.keys()
            if both and str(told[name] or 0) != str(known[name] or 0):
                raise InputError(
                    f"{side.path}: is of {name} {told[name]}, {true.path} of {known[name]}; points"
                    " and dots of one time point, level and scene are needed."
                )
        known |= {name: v for name, v in told.items() if v is not None or name == "time"}
    names = ("scene", "channel", "time", "level", "spacing", "axes")
    part = {name: getattr(given, name) for name in names}
    for name, value in part.items():
        if value is None or (name, value) == ("level", 0):
            part[name] = known.get(name, value)
    if part["spacing"] is not None:
        part["spacing"] = tuple(map(float, part["spacing"]))
    return Selection(**part)


def counted_image(found: Side, true: Side) -> Path | None:
    """The image that was counted, if it is still there."""
    paths = [Path(side.summary["input"]) for side in (found, true) if side.summary is not None]
    return next((path for path in paths if path.exists()), None)


def valid_regions(*sides: Side) -> Iterator[tuple[Path, np.ndarray]]:
    """The files that say where cells are complete, and the region, if it is not all."""
    for side in sides:
        if side.valid is not None:
            yield side.valid, read_mask(side.valid)
        if side.blocks is not None:
            blocks = read_block_states(side.blocks)
            if not (blocks.states == DONE).any():
                raise InputError(
                    f"{side.blocks}: none of its blocks is done, so that no dots are known to be"
                    " complete; mark blocks done where all cells have dots (cellcount label)."
                )
            if not (blocks.states == DONE).all():
                yield side.blocks, blocks.valid
