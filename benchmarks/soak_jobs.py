"""The jobs of `benchmarks/soak.py`: commands in a folder, and what all of them read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellcount_jax.data.synthetic import synthetic_dataset
from cellcount_jax.images.image_files import write_image

ROOT = Path(__file__).parents[1]
_TRAINING = """
from configs import smoke

def get_config():
    config = smoke.get_config()
    config.data.num_labelled = config.data.num_unlabelled = 2
    config.train.steps, config.train.checkpoint_every, config.train.scan_length = 24, 4, 4
    config.train.crop = (32, 32)
    config.model.levels = 2
    config.evaluation.overlays = 1
    return config
"""
# Acts that go on from what is there; the clock is the number of the act.
_LABELLING = """
import sys
from pathlib import Path
from cellcount_jax.label.session import Session

image = Path(sys.argv[1])
try:
    with Session(image, now=lambda: 1.0) as session:
        for i in range(len(session.dots.points), 400):
            session.add((i // 20 * 9, i % 20 * 9))
except OSError as error:  # which the window shows
    sys.exit(f"error: {error}")
"""


class Job(NamedTuple):
    """A command that works in a folder.

    Attributes:
      command: its words, for the folder.
      results: of the files below the folder, those that are compared, by a pattern of their paths.
      prepare: makes what must be in the folder before.
    """

    command: Callable[[Path], list[str]]
    results: str
    prepare: Callable[[Path], object] = lambda folder: None


def jobs(shared: Path) -> dict[str, Job]:
    """The jobs, on inputs in a folder that they share."""
    python, cellcount = sys.executable, [sys.executable, "-m", "cellcount_jax.cli"]
    config, image, model = (shared / name for name in ("config.py", "large.tif", "run"))

    def train(folder: Path) -> list[str]:
        words = [python, "-m", "cellcount_jax.main", f"--config={config}"]
        return [*words, f"--workdir={folder / 'run'}"]

    def count(folder: Path) -> list[str]:
        words = ["count", str(image), "--model", str(model), "--max-voxels", "20000"]
        return [*cellcount, *words, "--output", str(folder / "counted")]

    def workers(folder: Path) -> list[str]:
        return [*count(folder), "--scheduler", "local"]

    def label(folder: Path) -> list[str]:
        return [python, "-c", _LABELLING, str(folder / "a.tif")]

    def export(folder: Path) -> list[str]:
        return [*cellcount, "export", str(model), str(folder / "a.zip")]

    counted = r"points\.csv|summary\.json|counts\.csv"
    return {
        "train": Job(train, r"model\.zip|metrics\.json"),
        "count": Job(count, counted),
        "workers": Job(workers, counted),
        "label": Job(label, r"a\.csv", lambda folder: shutil.copy(image, folder / "a.tif")),
        "export": Job(export, r"a\.zip"),
    }


def prepared(shared: Path) -> Path:
    """What all jobs read: an image, and a model of the training that one of them is."""
    if (shared / "run" / "model.zip").exists():
        return shared
    shared.mkdir(parents=True, exist_ok=True)
    (shared / "config.py").write_text(_TRAINING)
    made = synthetic_dataset(ndim=2, seed=3, num_labelled=1, num_unlabelled=0, num_test=0)
    pixels = np.tile(made.labelled[0].image[..., 0], (3, 3))
    write_image(shared / "large.tif", pixels.astype(np.uint16), ndim=2)
    subprocess.run(jobs(shared)["train"].command(shared), check=True, env=environment(shared))
    return shared


def environment(folder: Path) -> dict[str, str]:
    """Variables for a process: its own cache of programs, and the hook's folder."""
    path = [str(ROOT / "benchmarks" / "soak_hook"), str(ROOT)]
    kept = {k: v for k, v in os.environ.items() if k != "XDG_CACHE_HOME"}
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
    }
