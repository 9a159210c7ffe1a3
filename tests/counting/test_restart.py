"""A count that is killed at its worst moments, again and again, ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.images import whole

ROOT = Path(__file__).parents[2]

# Runs the command, and is gone when the `left`-th file whose path has a pattern in it is half
# written, as if killed or without power. All files get their names by `os.replace`.
DEADLY = """
import os, signal, sys
from cellcount_jax import cli

pattern, left, *arguments = sys.argv[1:]
left, replace = int(left), os.replace

def deadly(source, target, **options):
    global left
    if pattern in str(target):
        left -= 1
        if left == 0:
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **options)

os.replace = deadly
sys.exit(cli.main(arguments))
"""

# In the order in which they come.
MOMENTS = {
    "measuring": ("survey.npz", 1),
    "encoding": ("coarse/0.zarr/c/", 4),
    "decoding": ("map.zarr/c/", 7),
    "searching": ("peaks/", 3),
    "writing": ("points.csv", 1),
}


def times(folder: Path, pattern: str) -> dict[str, int]:
    """When the files that are done were written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


@pytest.mark.usefixtures("quick_compiling")
def test_a_count_that_is_killed_in_every_phase_ends_with_the_same_bytes(
    tmp_path: Path, run_2d: Path, cells_2d: Path
) -> None:
    pixels = whole.read_image(cells_2d / "test" / "t0.png").pixels[..., 0].astype(np.uint8)
    file = tmp_path / "large.tif"
    whole.write_image(file, np.tile(pixels, (4, 5)))
    options = [str(file), "--model", str(run_2d), "--max-voxels", "4000"]
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert cli.main(["count", *options, "--output", str(undisturbed)]) == 0
    expected = (undisturbed / "large" / "points.csv").read_bytes()
    assert expected.count(b"\n") > 50

    command = ["count", *options, "--output", str(disturbed)]
    work, before = disturbed / "large" / "work", dict[str, int]()
    for title, (pattern, left) in MOMENTS.items():
        killed = subprocess.run(
            [sys.executable, "-c", DEADLY, pattern, str(left), *command],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert killed.returncode == -signal.SIGKILL, (title, killed.stderr)
        assert not (disturbed / "large" / "points.csv").exists()
        after = times(work / "done", "*")
        assert after.items() >= before.items(), f"{title}: what was done is not done again"
        before = after
    assert {name.partition("-")[0] for name in before} == {"encode", "decode", "find"}
    assert cli.main(command) == 0
    assert times(work / "done", "*") == before
    assert (disturbed / "large" / "points.csv").read_bytes() == expected
    for name in ("counts.csv", "large/summary.json"):
        assert (disturbed / name).read_bytes() == (undisturbed / name).read_bytes()
