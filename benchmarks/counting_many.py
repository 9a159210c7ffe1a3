"""Many small images of many sizes through the command: images a second, memory, programs.

    python benchmarks/counting_many.py [--inputs FOLDER]

Each row is a process of its own, `cellcount count` with the bundled model nuclei2d, which resamples
each image to the size of its cells, and an empty cache of programs. `padded`: as it is, in arrays
of few sizes (`array_sizes.py`); `exact`: the first images, each in an array, and so with a
program, of its own size. The points found are compared. `rest s` are CPU seconds of the threads
that read, measure and write, without what is loaded at the start; `network s` those of the compiled
network alone, on the first images in arrays of their own sizes. Without a folder, round cells of
many diameters are generated in planes of twelve sizes from 161 x 519 to 256 x 320 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timing

from cellcount_jax import cli
from cellcount_jax.counting import batch
from cellcount_jax.images.image_files import write_image
from cellcount_jax.inference import model_file, plan, programs
from cellcount_jax.network.sau_net import create_model

MODEL = "nuclei2d"
SIZES = [(256, 256), (256, 320), (260, 347), (239, 390), (162, 519), (161, 519)]
SIZES += [(253, 259), (200, 200), (212, 330), (240, 240), (180, 300), (256, 192)]
COMPILED = "/jax/core/compile/backend_compile_duration"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("results/counting_many.json"))
    parser.add_argument("--inputs", type=Path, help="a folder of images, instead of generated ones")
    parser.add_argument("--images", type=int, default=200, help="how many to generate")
    parser.add_argument("--exact", type=int, default=24, help="how many are counted so too")
    parser.add_argument("--child", choices=("padded", "exact"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        count(options.inputs, options.output, options.child, options.exact)
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="cellcount_") as name:
        folder = options.inputs or generate(Path(name) / "images", options.images)
        for way in ("padded", "exact"):
            output = Path(name) / way
            command = [sys.executable, __file__, "--child", way, "--inputs", folder]
            command += ["--exact", options.exact]
            environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{name}/{way}_programs"}
            done = subprocess.run(
                [*map(str, command), "--output", str(output)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            network = found.pop("network s", None)
            rows.append({"what": way, **found, "network s": network})
            timing.tell(rows[-1])
        tables = list((Path(name) / "exact").glob("*/points.csv"))
        other = [Path(name) / "padded" / table.parent.name / table.name for table in tables]
        same = sum(a.read_bytes() == b.read_bytes() for a, b in zip(tables, other, strict=True))
    verdict = f"{same} of {len(tables)} tables of points are the same bytes"
    timing.publish(rows, options.output, verdict=verdict)


def generate(folder: Path, number: int) -> Path:
    """Round bright cells, of one diameter an image, at random places."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(number):
        shape = SIZES[i % len(SIZES)]
        sigma = rng.uniform(2, 6)
        y, x = np.indices(shape)
        image = rng.normal(20, 4, shape)
        for place in rng.uniform(0, 1, (int(0.02 * np.prod(shape) / sigma**2), 2)) * shape:
            distance = (y - place[0]) ** 2 + (x - place[1]) ** 2
            image += 150 * np.exp(-distance / (2 * sigma**2))
        write_image(folder / f"{i}.tif", np.clip(image, 0, 255).astype(np.uint8))
    return folder


def count(inputs: Path, output: Path, way: str, exact: int) -> None:
    """Counts in this process, and prints as JSON what it took."""
    images = sorted(path for path in inputs.iterdir() if path.suffix in (".tif", ".tiff", ".png"))
    images = images if way == "padded" else images[:exact]
    rest: list[float] = []
    compiling: list[float] = []
    sizes: list[tuple[int, ...]] = []
    few = plan.array_shape

    def array_shape(config: Any, shape: Any) -> tuple[int, ...]:
        stride = [2 ** (config.model.levels - 1)] * 2
        least = tuple(-(-n // step) * step for n, step in zip(shape, stride, strict=True))
        sizes.append(least)
        return few(config, shape) if way == "padded" else least

    count_each = batch.count_each

    def timed(work: Callable[..., Any], sign: int = 1) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.thread_time()
            try:
                found = work(*arguments)
            finally:
                rest.append(sign * (time.thread_time() - started))
            return timed(found) if callable(found) else found

        return call

    plan.array_shape = array_shape
    programs.call = timed(programs.call, -1)
    batch.count_each = lambda items, table, count, **options: count_each(
        items, table, timed(count), **options
    )
    listen = jax.monitoring.register_event_duration_secs_listener
    listen(lambda event, seconds, **_: compiling.append(seconds) if event == COMPILED else None)
    started, cpu = time.perf_counter(), time.process_time()
    command = ["count", *map(str, images), "--model", MODEL, "--output", str(output), "--no-invert"]
    if cli.main(command) != 0:
        sys.exit("not all were counted")
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    number = len(images)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    found: dict[str, Any] = {"images": number, "sizes": len({*sizes}), "programs": len(compiling)}
    found |= {"seconds": seconds, "images/s": number / seconds, "CPU s": cpu, "rest s": sum(rest)}
    found["peak GB"] = peak
    if way == "exact":
        # A size is asked for more than once an image.
        found["network s"] = network_seconds(sizes) * number / len(sizes)
    print(json.dumps(found))


def network_seconds(sizes: list[tuple[int, ...]]) -> float:
    """CPU seconds of the network, compiled, on all mirror images of planes of some sizes."""
    model = model_file.load_model(MODEL)
    run = jax.jit(create_model(model.config, trained=True).apply)
    flips = len(plan.make_plan(model.config, sizes[0]).flips)
    total = 0.0
    for size in {*sizes}:
        values = np.zeros((1, *size, 1), np.float32)
        run(model.variables, values).block_until_ready()
        cpu = time.process_time()
        run(model.variables, values).block_until_ready()
        total += (time.process_time() - cpu) * flips * sizes.count(size)
    return total


if __name__ == "__main__":
    main()
