"""How long whole brains take, from the times of the steps that `brain.py` measured.

    python benchmarks/brain_plan.py

Tiles are those that the command would make; those that meet the ellipsoid of tissue are computed.
Parts that are read, slabs and tiles take as long as there, on as many workers as there are, each
with the cores of the machine that was measured. The first row is the volume that was measured. A
few seconds.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import brain
import counting
import numpy as np
import timing

from cellcount_jax.images.regions import Region, around
from cellcount_jax.inference import model_file
from cellcount_jax.inference.plan import make_plan

# z, y, x; the last is a mouse brain in its box, of voxels of 6 x 1.62 x 1.62 um.
SHAPES = (brain.SHAPE, (1330, 4050, 3500), (1330, 8100, 7000))
WORKERS = (1, 16)
# Of a place that is looked at for tissue: the margins of a core and a box, see `survey.py`.
MARGIN = (40, 40, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measured", type=Path, default=Path("results/brain.json"))
    parser.add_argument("--output", type=Path, default=Path("results/brain_plan.json"))
    options = parser.parse_args()
    content = json.loads(options.measured.read_text())
    (measured,) = content["rows"]
    rates = rates_of(measured)
    shapes = (tuple(measured["shape"]), *SHAPES)
    rows = [plan_row(shape, workers, rates) for shape in shapes for workers in WORKERS]
    error = rows[0]["seconds"] / measured["from then"]
    timing.publish(rows, options.output, verdict=f"{error:.2f} of the time that was measured")


def rates_of(measured: dict[str, Any]) -> dict[str, float]:
    """Seconds of a voxel of the survey, of a computed slab and of a searched tile."""
    return {
        "survey": measured["survey s"] / (measured["gigavoxels"] * 1e9),
        "computing": measured["computing s"] / measured["slabs"],
        "searching": measured["searching s"] / measured["computed"],
    }


def plan_row(shape: tuple[int, ...], workers: int, rates: dict[str, float]) -> dict[str, Any]:
    """What a volume takes."""
    model = model_file.load_model(counting.MODEL)
    plan = make_plan(model.config, shape)
    computed = [i for i, core in enumerate(plan.cores) if meets(core, shape)]
    reading = rates["survey"] * math.prod(shape)
    tiles = plan.windows(computed) * rates["computing"] + len(computed) * rates["searching"]
    return {
        "shape": "x".join(map(str, shape)),
        "gigavoxels": math.prod(shape) / 1e9,
        "workers": workers,
        "tiles": len(plan.cores),
        "computed": len(computed) / len(plan.cores),
        "survey h": reading / workers / 3600,
        "tiles h": tiles / workers / 3600,
        "seconds": (reading + tiles) / workers,
        "window": "x".join(map(str, plan.window_shape)),
    }


def meets(core: Region, shape: tuple[int, ...]) -> bool:
    """Whether there is tissue in a core or near it: its nearest place is in the ellipsoid."""
    region = around(core, MARGIN, shape)
    middle = np.array(shape) / 2
    nearest = np.clip(middle, [p.start for p in region], [p.stop for p in region])
    return bool((((nearest - middle) / (brain.AXES * np.array(shape))) ** 2).sum() <= 1)


if __name__ == "__main__":
    main()
