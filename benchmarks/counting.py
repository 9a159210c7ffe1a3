"""Large volumes through the command: memory, time, and what it had said of them before.

    python benchmarks/counting.py

Every row is a process of its own, `cellcount count` with the bundled model nuclei3d or, for 16
features, random weights, without mirror images. `sparse`: Zarr arrays of growing size of which only
two blocks with generated cells are stored; the cells found there are counted again on each block
and its surroundings alone, in one piece. `dense`: stored everywhere, with tiles of several sizes.
`said` is what the command says before it begins, of the dense ones: a sparse one cannot be known;
`from then` are the seconds after it.
About 10 minutes on 2 cores, and 6 GB of memory.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timing
import zarr

from cellcount_jax.data import scene
from cellcount_jax.images.regions import Region, around
from cellcount_jax.inference import model_file, survey, tiled_maps
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps.detect import find_peaks
from cellcount_jax.training.step import create_train_state

ROOT = Path(__file__).parents[1]
MODEL = "nuclei3d"
FILL = 350  # grey level of what is not stored, as of the background of generated cells
CHUNK = (64, 64, 64)
# z, y, x; 0.25, 1 and 4 gigavoxels.
SPARSE = ((256, 1024, 1024), (512, 1408, 1408), (1024, 2048, 2048))
DENSE = (128, 480, 480)
TILES = (4_000_000, 8_000_000, 16_000_000)
FEATURES = (8, 16)
TINY = 650_000  # voxels of a tile for a test
# Attention mixes a block, and a voxel of it acts on its surroundings: two blocks suffice.
AROUND = (64, 128, 128)
# Starts a process and prints what it took: of a child, Linux's largest memory is at least that of
# the one that started it, so that it has to be a small one.
LAUNCH = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss * 1024 / 1e9, used.ru_utime + used.ru_stime)
sys.exit(status)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("results/counting.json"))
    parser.add_argument("--only", choices=("sparse", "dense"), help="one half of it")
    parser.add_argument("--tiny", action="store_true", help="for a test")
    options = parser.parse_args()
    sparse, dense = SPARSE, [(tile, n) for n in FEATURES for tile in TILES]
    if options.tiny:
        sparse, dense = ((32, 72, 400),), [(TINY, 8)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="cellcount_") as name:
        folder = Path(name)
        for shape in sparse if options.only != "dense" else ():
            rows.append(count_sparse(folder, shape, tile=TINY if options.tiny else TILES[-1]))
            timing.tell(rows[-1])
        shape = (32, 100, 260) if options.tiny else DENSE
        for tile, features in dense if options.only != "sparse" else ():
            rows.append(count_dense(folder, shape, tile=tile, features=features))
            timing.tell(rows[-1])
    print()
    timing.publish(rows, options.output, verdict=_verdict(rows))


def _verdict(rows: Sequence[dict[str, Any]]) -> str:
    said = [row for row in rows if row["said GB"] is not None]
    parts = [f"at most {max(row['peak GB'] for row in rows):.2f} GB"]
    for unit in ("GB", "s") if said else ():
        name = {"GB": "peak GB", "s": "from then"}[unit]
        ratios = [row[name] / row[f"said {unit}"] for row in said]
        parts.append(f"{min(ratios):.2f} to {max(ratios):.2f} of the {unit} that were said")
    return ", ".join(parts)


def count_sparse(folder: Path, shape: tuple[int, ...], *, tile: int) -> dict[str, Any]:
    """A row on a volume of which two blocks are stored."""
    file = folder / "sparse.zarr"
    array = zarr.create_array(
        file,
        shape=shape,
        chunks=CHUNK,
        dtype="uint16",
        fill_value=FILL,
        dimension_names="zyx",
        overwrite=True,
    )
    places = block_places(shape)
    for number, place in enumerate(places):
        array[place] = cells(number)[tuple(slice(p.stop - p.start) for p in place)]
    row, _, output = count(folder, file, shape, tile=tile, features=8)
    model = model_file.load_model(MODEL)
    measured = survey.load(output / "work" / "survey.npz").measured
    alone = 0
    for place in places:
        region = around(place, AROUND, shape)
        values = measured(np.asarray(array[region], np.float32)[..., None], region)
        points = alone_in(model, values)
        alone += len(points)
        start = [part.start for part in region]
        _check(output / "points.csv", points + start, region)
    if alone != row["cells"]:
        raise SystemExit(f"error: {row['cells']} cells, {alone} in the stored blocks alone")
    return {"what": "sparse", **row, "alone": alone, "said GB": None, "said s": None}


def block_places(shape: tuple[int, ...]) -> list[Region]:
    """Chunks far from each other."""
    shares = ((0.0, 0.0, 0.0), (0.6, 0.5, 0.6))
    corners = [
        [int(s * (n // edge - 1)) * edge for s, n, edge in zip(share, shape, CHUNK, strict=True)]
        for share in shares
    ]
    return [
        tuple(slice(c, min(c + edge, n)) for c, edge, n in zip(corner, CHUNK, shape, strict=True))
        for corner in corners[: 1 if min(shape) < 64 else 2]
    ]


def cells(seed: int) -> np.ndarray:
    """A chunk of generated cells, on the voxels of the model."""
    image, *_ = scene.generate(
        jax.random.key(seed), CHUNK, spacing=(6.0, 1.62, 1.62), count_range=(60, 120)
    )
    return np.rint(np.asarray(image)[..., 0]).astype(np.uint16)


def alone_in(model: TrainedModel, values: np.ndarray) -> np.ndarray:
    """The points in normalised intensities, of the network applied to them as they are."""
    model = model.with_settings({"predict.flips": False, "predict.max_voxels": values.size})
    return find_peaks(
        tiled_maps.compute(model.config, model.variables, values)[..., 0],
        threshold_abs=model.thresholds["peaks"],
        min_distance=tuple(model.config.detect.min_distance),
    )


def _check(path: Path, points: np.ndarray, region: Region) -> None:
    """Makes sure that the command found the same points in a region."""
    with path.open(newline="") as file:
        told = np.array([[float(row[a]) for a in "zyx"] for row in csv.DictReader(file)])
    start, stop = ([getattr(part, side) for part in region] for side in ("start", "stop"))
    told = told[((told >= start) & (told < stop)).all(1)]
    if not np.array_equal(told, points):
        raise SystemExit(f"error: the points in {region} are not those of it alone")


def count_dense(
    folder: Path, shape: tuple[int, ...], *, tile: int, features: int
) -> dict[str, Any]:
    """A row on a volume that is cells everywhere."""
    file = folder / "dense.zarr"
    if not file.exists():
        array = zarr.create_array(file, shape=shape, chunks=CHUNK, dtype="uint16")
        block = cells(0)
        times = [-(-n // edge) for n, edge in zip(shape, CHUNK, strict=True)]
        array[:] = np.tile(block, times)[tuple(map(slice, shape))]
    row, estimate, _ = count(folder, file, shape, tile=tile, features=features)
    return {"what": "dense", **row, "alone": None, **estimate}


def count(
    folder: Path,
    file: Path,
    shape: tuple[int, ...],
    *,
    tile: int,
    features: int,
    anew: bool = False,
) -> tuple[dict[str, Any], dict[str, float], Path]:
    """Runs the command: what it came to, what it had said, and the folder of its results.

    Args:
      folder: for the results.
      file: of the volume.
      shape: of it.
      tile: its voxels.
      features: of the network.
      anew: whether results of an earlier run are deleted first.
    """
    output = folder / f"{file.stem}_{math.prod(shape)}_{tile}_{features}"
    if anew:
        shutil.rmtree(output, ignore_errors=True)
    arguments = [str(file), "--model", _model(folder, features), "--output", str(output)]
    command = [sys.executable, "-m", "cellcount_jax.cli", "count", *arguments]
    command += ["--no-thorough", "--max-voxels", str(tile)]
    estimate = said(subprocess.check_output([*command, "--dry-run"], cwd=ROOT, text=True))
    log, lines = folder / "log.txt", []
    started = time.perf_counter()
    launch = [sys.executable, "-c", LAUNCH, *command]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            launch, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if " GB of memory" in line:
                promised = time.perf_counter()
    ended = time.perf_counter()
    if process.returncode:
        raise SystemExit(f"error: {command} ended with {process.returncode}:\n{log.read_text()}")
    memory, cpu = map(float, lines[-1].split())
    summary = json.loads((output / file.stem / "summary.json").read_text())
    row = {
        "gigavoxels": math.prod(shape) / 1e9,
        "features": features,
        "voxels of a tile": tile,
        "tiles": summary["tiles"],
        "skipped": summary["tiles_constant"] + summary["tiles_dark"],
        "cells": summary["count"],
        "seconds": ended - started,
        "from then": ended - promised,
        "CPU s": cpu,
        "peak GB": memory,
    }
    return row, estimate, output / file.stem


def said(log: str) -> dict[str, float]:
    """What the command estimated: gigabytes and seconds."""
    found = re.search(r"about ([\d.]+) GB of memory.*\nabout ([\d.]+) (s|min|h)\b", log)
    assert found is not None, log
    memory, duration, unit = found.groups()
    return {
        "said GB": float(memory),
        "said s": float(duration) * {"s": 1, "min": 60, "h": 3600}[unit],
    }


def _model(folder: Path, features: int) -> str:
    """The bundled model, or one like it of another size with random weights."""
    bundled = model_file.load_model(MODEL)
    if features == bundled.config.model.features:
        return MODEL
    path = folder / f"random_{features}.zip"
    if not path.exists():
        config = bundled.config.copy_and_resolve_references()
        config.model.features = features
        state = create_train_state(jax.random.key(0), config, channels=1)
        variables = jax.device_get(state.variables)
        model = dataclasses.replace(bundled, config=config, variables=variables)
        model_file.export_model(model, path, card="# Random weights\n")
    return str(path)


if __name__ == "__main__":
    main()
