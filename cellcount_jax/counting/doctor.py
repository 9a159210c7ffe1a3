"""`cellcount doctor`: versions, devices and memory of this machine, and a small count."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellcount_jax import machine
from cellcount_jax.counting import count
from cellcount_jax.counting.options import Options
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.inputs import find_inputs
from cellcount_jax.inference import model_file
from cellcount_jax.network import native

EXAMPLES = """\
example:
  cellcount doctor"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount doctor`: none."""


def run(options: argparse.Namespace) -> int:
    """Prints what this machine has, and counts; returns the exit status."""
    import jax  # here, since it starts the devices that are to be listed

    packages = ("cellcount_jax", "jax", "jaxlib", "flax", "numpy", "scipy", "tifffile")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"python {platform.python_version()} on {platform.platform()}\n{versions}")
    good = importlib.util.find_spec("imagecodecs") is not None
    if good:
        print(f"compressed TIFF files: imagecodecs {importlib.metadata.version('imagecodecs')}")
    else:
        print(
            "compressed TIFF files: NOT as it should be, LZW, JPEG, zstd and others cannot be read:"
            " pip install imagecodecs"
        )
    print(f"devices: {', '.join(str(device) for device in jax.devices())}")
    memory = machine.memory_bytes() / 1e9
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    cores = machine.core_count()
    print(f"{cores} cores, {memory:.1f} GB of memory, {free:.1f} GB free on this disk")
    if jax.default_backend() == "cpu":
        without = "without a C++ compiler, two to three times slower (docs/installing.md)"
        print(f"convolutions: {'C++' if native.available() else without}")
    bundled = model_file.bundled_models()
    print(f"bundled models: {', '.join(bundled) or 'none'}")
    if not bundled:
        return int(not good)
    name = next(iter(bundled))
    model = model_file.load_model(name)
    image, true = check_image(model.spacing)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.tif"
        write_image(path, image, spacing=model.spacing if model.spacing_known else None)
        started = time.perf_counter()
        rows = count.count_files(
            model,
            find_inputs([path], ndim=model.config.data.ndim),
            Path(folder) / "out",
            options=Options(),
            name=name,
        )
        seconds = time.perf_counter() - started
    found = rows[0]["count"]
    well = abs(found - true) <= 0.1 * true
    verdict = "all is well" if well else "NOT as it should be"
    print(f"check: {name} finds {found} of {true} generated cells in {seconds:.1f} s: {verdict}")
    return int(not (well and good))


def check_image(spacing: Sequence[float]) -> tuple[np.ndarray, int]:
    """A generated image of bright round cells, far from each other, and their number."""
    edges, ndim = np.asarray(spacing), len(spacing)
    apart, radius = 16 * edges.min(), 1.5 * edges.min()
    shape = [round(5 * apart / edge) for edge in edges]
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * edges
    rng = np.random.default_rng(0)
    image = rng.normal(1000, 30, shape)
    for index in np.ndindex(*(4,) * ndim):
        centre = (np.asarray(index) + 1) * apart
        image += 6000 * np.exp(-0.5 * np.square(grid - centre).sum(-1) / radius**2)
    return image.astype(np.uint16), 4**ndim
