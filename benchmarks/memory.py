"""Peak memory of a 3D training step and of the map of a whole volume, and the time they take.

    python benchmarks/memory.py

Every row is a process of its own: the largest resident memory that it ever had, Python, JAX,
compilation, data and result included. A training step is that of configs/lightsheet_microglia.py
(2 + 1 crops of 32x64x64), with and without rematerialisation. A map is that of a volume of random
numbers, without mirror images, in tiles where it has more voxels than config.predict.max_voxels;
the time includes compilation. About 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timing
import workload

from cellcount_jax import config as settings
from cellcount_jax import variants
from cellcount_jax.inference import tiled_maps
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.training.step import create_train_state

# z, y, x; the volumes of the microglia set, and larger ones.
VOLUMES = ((200, 100, 100), (128, 256, 256), (128, 512, 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--features", type=int, nargs="+", default=[16])
    parser.add_argument("--volumes", type=_shape, nargs="+", default=VOLUMES, metavar="Z,Y,X")
    parser.add_argument("--output", type=Path, default=Path("results/memory.json"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(**json.loads(options.case))))
        return
    rows = []
    for features in options.features:
        cases: list[dict[str, Any]] = [{"remat": remat} for remat in (False, True)]
        cases += [{"shape": shape} for shape in options.volumes]
        for case in cases:
            command = [
                sys.executable,
                __file__,
                "--case",
                json.dumps({**case, "features": features}),
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            timing.tell(rows[-1])
    print()
    largest = max((row for row in rows if "map" in row["what"]), key=lambda row: row["voxels"])
    verdict = f"{largest['what']}: {largest['peak GB']:.2f} GB"
    timing.publish(rows, options.output, verdict=verdict)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def measure(
    *, features: int, remat: bool = False, shape: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """Runs one case in this process: a training step, or the map of a volume of `shape`."""
    config = settings.default_config()
    variants.use_volumes(config)
    config.model.features = features
    config.model.remat = remat
    started = time.perf_counter()
    if shape is None:
        what = "training step, remat" if remat else "training step"
        batch = config.train.batch_labelled + config.train.batch_unlabelled
        voxels, tiles = batch * int(np.prod(config.train.crop)), None
        train_once(config)
    else:
        what = f"map of {'x'.join(map(str, shape))}"
        voxels, tiles = int(np.prod(shape)), len(make_plan(config, shape).cores)
        state = create_train_state(jax.random.key(0), config, channels=1)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        values = np.random.default_rng(0).normal(size=(*shape, 1)).astype(np.float32)
        tiled_maps.compute(config, variables, values)
    return {
        "what": what,
        "features": features,
        "voxels": voxels,
        "tiles": tiles,
        "seconds": time.perf_counter() - started,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def train_once(config: Any) -> None:
    """One call of the training loop's compiled run."""
    state = jax.device_get(create_train_state(jax.random.key(0), config, channels=1))
    workload.jax_training(config, state, workload.random_batch(config), steps=1)()


if __name__ == "__main__":
    main()
