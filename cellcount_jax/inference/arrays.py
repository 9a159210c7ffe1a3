"""Arrays that a user gives to a model: the image, and the mask of what is counted in it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images import label_volumes
from cellcount_jax.images.regions import Array, Region, size_text
from cellcount_jax.inference.fitted import check_diameter
from cellcount_jax.inference.job import Model


def image_of(array: Any, model: Model, *, channel: int | None = None) -> Array:
    """An array as an image for a model.

    Args:
      array: NumPy, Zarr, dask or another array, `(*spatial,)` or `(*spatial, channels)`.
      model: that it must fit.
      channel: the one that is used, from 0; None = all.

    Raises:
      InputError: it is no array of real numbers but, for example, a path; it has other axes or
        channels than the model takes, not that channel, or no voxels.
    """
    _check_array(array, "predict takes an array")
    ndim = model.config.data.ndim
    shape = tuple(map(int, array.shape))
    if channel is not None and len(shape) != ndim + 1:
        raise InputError(
            f"channel {channel}: an array of {size_text(shape)} has no axis of channels after the"
            f" {ndim} axes that the model takes; np.moveaxis puts one there"
        )
    if channel is not None and channel not in range(shape[-1]):
        raise InputError(
            f"channel {channel}: the last axis of the array of {size_text(shape)} has the channels"
            f" 0 to {shape[-1] - 1}"
        )
    image = Array(array, ndim, channel)
    try:
        model.check_fits(len(shape) - (len(shape) > ndim), image.channels)
    except InputError as error:
        hint = ""
        if len(shape) == ndim + 1:
            hint = (
                "; choose one with channel=, or move the axis of channels to the end (np.moveaxis)"
            )
        raise InputError(f"{error}{hint}") from error
    if 0 in shape:
        raise InputError(f"the array of {size_text(shape)} is empty")
    return image


def check_sizes(ndim: int, *, spacing: Sequence[float] | None, diameter: float | None) -> None:
    """Makes sure that the sizes by which an array is to be resampled are such.

    Args:
      ndim: spatial dimensions.
      spacing: `(D,)` voxel size in micrometres, or None.
      diameter: of the cells in pixels, or None.

    Raises:
      InputError: they are not positive numbers, or not of so many axes.
    """
    if spacing is not None:
        edges = np.asarray(spacing)
        good = edges.shape == (ndim,) and edges.dtype.kind in "iuf" and (edges > 0).all()
        if not good or not np.isfinite(edges).all():
            axes = ", ".join("zyx"[-ndim:])
            raise InputError(
                f"spacing {spacing!r}: {ndim} positive voxel edges in um are needed ({axes})"
            )
    check_diameter(diameter, ndim=ndim, name="diameter", of_volumes="by their spacing")


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayMask:
    """The part of an image in which cells are counted, see `survey.Mask`, from an array.

    Attributes:
      inside: `(*spatial,)` bool, of the extent of the image, whatever the voxels of that are.
    """

    inside: np.ndarray

    @classmethod
    def of(cls, array: Any, *, shape: Sequence[int]) -> ArrayMask:
        """The mask where an array is not 0.

        Args:
          array: NumPy or another array of real numbers, `(*spatial,)`.
          shape: `(D,)` of the image.

        Raises:
          InputError: it is no such array, or of another shape.
        """
        _check_array(array, "mask: is an array")
        inside = np.asarray(array)
        if inside.shape != tuple(shape):
            raise InputError(
                f"mask: is an array of {size_text(inside.shape)}, the image of {size_text(shape)};"
                " one of the same shape is needed (files of other voxels: model.count, mask=path)"
            )
        if inside.dtype.kind == "f" and not np.isfinite(inside).all():
            raise InputError("mask: has NaN or infinite values; 0 is outside, any other inside")
        return cls(inside != 0)

    def touches(self, region: Region, shape: Sequence[int]) -> bool:
        """Whether the mask may overlap a region of an image of a shape."""
        return bool(
            self.inside[label_volumes.touched_by(region, self.inside.shape, shape=shape)].any()
        )

    def holds(self, points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """`(N,)` bool: whether each of `(N, D)` points of an image of a shape lies in the mask."""
        voxels = label_volumes.voxels_at(points, self.inside.shape, shape=shape)
        held: np.ndarray = self.inside[tuple(voxels.T)]
        return held


def _check_array(array: Any, wanted: str) -> None:
    if isinstance(array, str | bytes | os.PathLike):
        raise InputError(
            f"{wanted}, and {os.fspath(array)!r} is a path; model.count(path, output=folder) counts"
            " files, with mask= a file too"
        )
    if not all(hasattr(array, name) for name in ("shape", "ndim", "dtype")):
        raise InputError(f"{wanted}, not a {type(array).__name__}; np.asarray(...) makes one")
    kind = getattr(array.dtype, "kind", "f")  # of others than NumPy's: found out when it is read
    if kind not in "buif":
        raise InputError(f"{wanted} of real numbers, not of {array.dtype}")
