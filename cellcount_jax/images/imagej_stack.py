"""The slices of an image as ImageJ numbers them, from 1: first channels, then planes and times."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.points import warn_of_other_times
from cellcount_jax.images.sources import Source


@dataclasses.dataclass(frozen=True)
class Stack:
    """How many slices of what an image is to ImageJ, in the order czt.

    Attributes:
      planes: along z.
      channels: of the file, whichever is used.
      times: of the file.
      time: the time point that is used, from 0.
    """

    planes: int
    channels: int = 1
    times: int = 1
    time: int = 0


def stack_of(source: Source) -> Stack:
    """The slices of an open image, all channels and times of its file."""
    sizes = dict(zip(source.axes, source.stored_shape, strict=True))
    planes = source.shape[0] if len(source.shape) == 3 else 1
    return Stack(planes, sizes.get("C", 1), sizes.get("T", 1), source.selection.time or 0)


def planes_at(
    slices: np.ndarray, stack: Stack | None, *, ndim: int, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """The planes of points by the slices of ImageJ that they are on.

    Args:
      slices: `(N,)` whole numbers from 1; 0 = of no slice.
      stack: of the image; None = not known, and a slice is a plane.
      ndim: spatial dimensions of the image.
      path: the file of the points, for errors.

    Returns:
      `(N,)` planes from 0, all 0 in 2D, and `(N,)` bool: which points are of the time that is used.

    Raises:
      InputError: there is no such slice, or points of a volume are on none.
    """
    slices = np.asarray(slices, np.int64)
    if ndim == 3 and (slices < 1).any():
        raise InputError(
            f"{path}: {int((slices < 1).sum())} of {len(slices)} points are on no slice, so that"
            " their depth is not known: ImageJ counts slices from 1. In the ROI Manager, More,"
            " Options, tick 'Associate ROIs with slices' and add them on their slices again."
        )
    if stack is None:
        if ndim == 2 and len(np.unique(slices)) > 1:
            raise InputError(f"{path}: has points on several slices, but the image is 2D.")
        return (np.maximum(slices - 1, 0) if ndim == 3 else np.zeros_like(slices)), slices > -1
    number = stack.planes * stack.channels * stack.times
    if slices.max(initial=0) > number:
        raise InputError(
            f"{path}: has points on slice {slices.max()}, but its image has {number}"
            f" ({stack.planes} planes, {stack.channels} channels, {stack.times} times); points of"
            " this image are needed."
        )
    plane = np.maximum(slices - 1, 0) // stack.channels
    time, plane = np.divmod(plane, stack.planes)
    used = (slices < 1) | (time == stack.time)
    warn_of_other_times(used, stack.time, path)
    return plane, used
