"""`cellcount count` for `peers.py`, in a process like those of the others.

All that the command does is timed, reading the file and writing points and report included.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from peer_loop import serve

import cellcount_jax


def find(volume: np.ndarray, spacing: Sequence[float], settings: Mapping[str, Any]) -> np.ndarray:
    """The cells by a bundled model; `settings` are options of the count."""
    options = dict(settings)
    model = _load(options.pop("model"))
    with tempfile.TemporaryDirectory(prefix="cellcount_") as folder:
        file = f"{folder}/volume.npy"
        np.save(file, volume)
        counted = cellcount_jax.count_files(
            model, file, output=f"{folder}/counted", spacing=spacing, **options
        )[0]
        return np.column_stack([counted.points, counted.scores])


@functools.cache
def _load(name: str) -> cellcount_jax.TrainedModel:
    return cellcount_jax.load_model(name)


if __name__ == "__main__":
    serve(find)
