"""Lines that a count prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellcount_jax.counting import announce
from cellcount_jax.inference.cells import Found


def found(**skipped: int) -> Found:
    none = np.zeros((0, 3), np.float32)
    return Found(none, none[:, 0], 0.2, none, none[:, 0], None, tiles=40, **skipped)


def test_a_low_threshold_is_told_of_tiles_that_were_left_out_as_dark() -> None:
    path = Path("brain.zarr")
    assert announce.describe_dark(path, found(constant=3)) is None
    line = announce.describe_dark(path, found(dark=7))
    assert line is not None
    assert line.startswith("warning: brain.zarr: 7 of 40 tiles were left out as too dark")
    assert line.endswith("--every-tile computes them too")
