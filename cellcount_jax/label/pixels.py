"""An image as napari asks for it: a plane at a time, whatever its size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cellcount_jax.label.session import Session

_IN_MEMORY = 2**26  # voxels; more are read as they are shown


class Pixels:
    """What napari needs of an array, read from a session's image. The mean of its channels."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.shape = tuple(session.grid.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.float32)

    @property
    def size(self) -> int:
        """How many voxels."""
        return math.prod(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        region: list[slice] = []
        index: list[slice | int] = []
        for part, size in zip(key, self.shape, strict=True):
            if isinstance(part, slice):
                start, stop, step = part.indices(size)
                region.append(slice(start, stop))
                index.append(slice(None, None, step))
            else:
                at = int(part) % size
                region.append(slice(at, at + 1))
                index.append(0)
        values: np.ndarray = self._session.intensities(tuple(region))[tuple(index)]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)


def pixels(session: Session) -> Pixels | np.ndarray:
    """The image of a session: in memory where it is small."""
    lazy = Pixels(session)
    return np.asarray(lazy) if lazy.size <= _IN_MEMORY else lazy


def contrast_limits(session: Session) -> tuple[float, float]:
    """Between which intensities an image is shown: percentiles of its middle plane."""
    shape = session.grid.shape
    plane = [slice(0, n) for n in shape]
    if len(shape) == 3:
        plane[0] = slice(shape[0] // 2, shape[0] // 2 + 1)
    values = session.intensities(tuple(plane))
    low, high = np.percentile(values, (0.5, 99.8)).tolist()
    if not high > low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1)
