"""How fast a large volume is counted, against its network alone, and what the rest is.

    python benchmarks/counting_speed.py

A real volume (c-Fos, repeated to the size) is counted with the bundled model nuclei3d: all that the
command does but starting and writing points. In turn with it the bare network computes the maps of
as many voxels, in pieces as large as the count's windows, with nothing around them and nothing
else. Seconds are those of the clock; the CPU's, of all threads, do not see what else runs on the
machine. The parts of a count are CPU seconds of one more count, one task after the other. About 12
minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import math
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import timing
import zarr
from counting import CHUNK, MODEL, cells

from cellcount_jax.counting import engines
from cellcount_jax.images import sources
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.normalise import Measured
from cellcount_jax.inference import model_file, programs, reading, tasks
from cellcount_jax.inference.cells import find
from cellcount_jax.inference.job import Engine, Job
from cellcount_jax.maps import pieces
from cellcount_jax.network.sau_net import create_model

VOLUME = Path(__file__).parents[1] / "../shared/data/lightsheet_cfos/train/969.tif"
# z, y, x: more than the model computes in one piece.
SHAPE, TINY_SHAPE = (128, 500, 500), (32, 72, 320)
PARTS = ("survey", "reading", "normalising", "network", "storing", "search")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/counting_speed.json"))
    parser.add_argument("--tiny", action="store_true", help="for a test: a generated volume")
    options = parser.parse_args()
    rows = []
    shape = TINY_SHAPE if options.tiny else SHAPE
    for flips in (False,) if options.tiny else (False, True):
        with tempfile.TemporaryDirectory(prefix="cellcount_") as folder:
            image = cells(0) if options.tiny else read_image(VOLUME).pixels[..., 0]
            times = [-(-n // size) for n, size in zip(shape, image.shape, strict=True)]
            values = np.tile(image, times)[tuple(map(slice, shape))].astype(np.uint16)
            file = Path(folder) / "volume.zarr"
            zarr.create_array(file, data=values, chunks=CHUNK)
            limit = 500_000 if options.tiny else None
            rows.append(measure(file, flips=flips, repeats=options.repeats, limit=limit))
            timing.tell(rows[-1])
    print()
    ratios = ", ".join(f"{row['CPU ratio']:.2f} ({row['what']})" for row in rows)
    timing.publish(rows, options.output, verdict=f"CPU time of the bare network's: {ratios}")


def measure(file: Path, *, flips: bool, repeats: int, limit: int | None) -> dict[str, Any]:
    """A row on a file."""
    model = model_file.load_model(MODEL)
    limit = limit or model.config.predict.max_voxels
    model = model.with_settings({"predict.flips": flips, "predict.max_voxels": limit})
    with sources.open_source(file) as source:
        job = Job(model, source, file.parent / "work")
        apply = jax.jit(create_model(model.config, trained=True).apply)
        clocks: dict[str, list[tuple[float, float]]] = {"count": [], "bare": []}
        for number in range(repeats + 1):
            taken = {
                "count": timed(lambda: count(job, engines.in_threads)),
                "bare": bare(job, apply),
            }
            for name in clocks if number else ():  # the first ones compile
                clocks[name].append(taken[name])
        shares = split(job)
    seconds, cpu = (
        {name: statistics.median(pair[i] for pair in clocks[name]) for name in clocks}
        for i in range(2)
    )
    megavoxels = math.prod(job.plan.shape) / 1e6
    return {
        "what": f"{len(job.plan.flips)} mirror images" if flips else "one pass",
        "megavoxels": megavoxels,
        "window": "x".join(map(str, job.plan.window_shape)),
        "tiles": len(job.plan.cores),
        "seconds": seconds["count"],
        "megavoxels/s": megavoxels / seconds["count"],
        "ratio": seconds["count"] / seconds["bare"],
        "CPU s": cpu["count"],
        "CPU ratio": cpu["count"] / cpu["bare"],
        **{f"{name} s": shares[name] for name in (*PARTS, "rest")},
    }


def count(job: Job, engine: Callable[[Job], Engine]) -> None:
    """Counts once more from the beginning."""
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir()
    # What is cached with the job is of the last count.
    job = dataclasses.replace(job)
    find(job, engine=engine(job))


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the clock and of all the process's threads."""
    clock, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - clock, time.process_time() - cpu


def bare(job: Job, apply: Callable[..., Any]) -> tuple[float, float]:
    """`timed` of the network alone, on pieces that make up the image of a job that was counted."""
    plan = job.plan
    corners = itertools.product(
        *(range(0, n, edge) for n, edge in zip(plan.shape, plan.window_shape, strict=True))
    )
    total, computed = np.zeros(2), 0
    for corner in corners:
        sides = zip(corner, plan.window_shape, strict=True)
        piece = tuple(slice(at, at + edge) for at, edge in sides)
        values = plan.read_mirrored(job.read, (), piece)[None]
        taken = timed(lambda x=values: np.asarray(apply(job.model.variables, x)))  # type: ignore[misc]
        total += taken
        computed += math.prod(plan.window_shape)
    # Pieces at the far ends are as large as the others.
    clock, cpu = total * math.prod(plan.shape) / computed * len(plan.flips)
    return float(clock), float(cpu)


def split(job: Job) -> dict[str, float]:
    """CPU seconds of the parts of a count."""
    seconds: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        for name, owner, attribute in (
            ("survey", reading, "run"),
            ("reading", sources.Source, "read"),
            ("normalising", Measured, "__call__"),
            ("storing", zarr.Array, "__setitem__"),
            ("storing", zarr.Array, "__getitem__"),
            ("search", pieces, "peaks"),
        ):
            function = watched(name, getattr(owner, attribute), seconds)
            stack.enter_context(mock.patch.object(owner, attribute, function))
        call = programs.call
        waited = watched("network", lambda *x: jax.block_until_ready(call(*x)), seconds)
        stack.enter_context(mock.patch.object(programs, "call", waited))
        _, total = timed(lambda: count(job, tasks.one_by_one))
    return {**seconds, "rest": total - seconds.total()}


_inside: list[str] = []


def watched(name: str, function: Callable[..., Any], seconds: Counter[str]) -> Callable[..., Any]:
    """The function; its CPU time is added up, but within another that is watched."""

    def run(*args: Any, **options: Any) -> Any:
        if _inside:
            return function(*args, **options)
        _inside.append(name)
        began = time.process_time()
        try:
            return function(*args, **options)
        finally:
            seconds[name] += time.process_time() - began
            _inside.clear()

    return run


if __name__ == "__main__":
    main()
