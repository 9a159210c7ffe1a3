"""What the numbers of a TIFF page mean: white that is zero, and palettes, as the standard has them.

ImageJ writes an inverted or coloured look-up table with the same tags, and means the display alone:
it measures the numbers as they are stored. tifffile, and scikit-image with it, writes masks of one
bit as if white were zero. Both are read as their programs have them.
Standard: TIFF 6.0 (Adobe, 1992), PhotometricInterpretation and ColorMap.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images.stored import LazyArray

_WHITE_IS_ZERO, _PALETTE = 0, 3  # of PhotometricInterpretation


def as_intensities(
    array: LazyArray, page: tifffile.TiffPage, path: Path, *, imagej: bool
) -> tuple[LazyArray, str]:
    """The intensities that the stored numbers mean, higher ones brighter.

    Args:
      array: the pages as stored.
      page: the first of them.
      path: the file, for errors.
      imagej: whether ImageJ wrote it, whose numbers are the intensities.

    Returns:
      The array, with red, green and blue as last axis where a palette has colours; and what was
      done to it in words, empty if nothing.

    Raises:
      InputError: white is zero for numbers of which the standard has no black.
    """
    if imagej or page.photometric not in (_WHITE_IS_ZERO, _PALETTE):
        return array, ""
    dtype = np.dtype(array.dtype)
    if page.photometric == _WHITE_IS_ZERO and dtype.kind not in "bu":
        raise InputError(
            f"{path}: white is zero (PhotometricInterpretation 0) with {dtype} pixels, of which the"
            " TIFF standard does not say what is black; save it anew with BlackIsZero."
        )
    highest = 2 ** int(page.bitspersample) - 1
    inverted = "white is zero, inverted"
    if dtype.kind == "b":
        if page.software.startswith("tifffile"):
            return array, ""
        return _Converted(array, np.logical_not, dtype), inverted
    turned = _Converted(array, lambda values: dtype.type(highest) - values, dtype)
    if page.photometric == _WHITE_IS_ZERO:
        return turned, inverted
    colours = page.colormap
    if colours is None or dtype.kind != "u":
        return array, ""
    steps = np.diff(colours.astype(np.int64), axis=1)
    if (steps >= 0).all():  # a tint
        return array, ""
    if (steps <= 0).all() and (colours == colours[:1]).all():
        return turned, inverted
    table = (colours.T >> 8).astype(np.uint8)
    return _Converted(array, lambda values: table[values], table.dtype, (3,)), "palette"


class _Converted:
    """An array of which each part is converted when it is read."""

    def __init__(
        self,
        array: LazyArray,
        convert: Callable[[np.ndarray], np.ndarray],
        dtype: np.dtype[Any],
        colours: tuple[int, ...] = (),
    ):
        self.shape: tuple[int, ...] = (*array.shape, *colours)
        self.dtype = dtype
        self._array = array
        self._convert = convert

    def __getitem__(self, index: tuple[int | slice, ...], /) -> np.ndarray:
        stored = len(self._array.shape)
        values = self._convert(np.asarray(self._array[index[:stored]]))
        return values[(..., *index[stored:])]
