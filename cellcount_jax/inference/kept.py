"""What a model saw in an image in one piece, kept in a file: another threshold needs no map."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cellcount_jax.images.files import replacing

FILE = "whole.npz"


class Whole(NamedTuple):
    """Of the map of an image what chooses its cells by any threshold.

    Attributes:
      points: `(C, D)` float32 peaks above the model's floor, in voxels.
      scores: `(C,)` the map's values there.
      integral: number of cells by the integral of the density; None for a model without one.
      location: `(*spatial,)` the map, 0 up to the floor, for the rule of components; or None.
      density: `(*spatial,)` cells per voxel, where it is needed after its sum; or None.
    """

    points: np.ndarray
    scores: np.ndarray
    integral: float | None = None
    location: np.ndarray | None = None
    density: np.ndarray | None = None


def save(path: Path, whole: Whole, *, key: str) -> None:
    """Writes the file, whole or not at all.

    Args:
      path: the file.
      whole: what is kept.
      key: names all that it depends on.

    Raises:
      OSError: it cannot be written.
    """
    arrays: dict[str, Any] = {k: v for k, v in whole._asdict().items() if v is not None}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, key=key, **arrays)


def load(path: Path, *, key: str) -> Whole | None:
    """Reads the file; None where there is none, it is damaged, or it depends on something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            # Reading them checks their sums.
            found = {name: stored[name] for name in Whole._fields if name in stored.files}
            integral = found.pop("integral", None)
            return Whole(**found, integral=None if integral is None else float(integral))
    except Exception:  # whatever a damaged archive leads to, in zipfile, zlib and NumPy
        return None
