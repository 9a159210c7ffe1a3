"""A count that is killed at its worst moments, again and again, ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax.images.image_files import read_image, write_image

ROOT = Path(__file__).parents[2]

# For each line of stdin, runs the command in a process that ends when the `left`-th file whose path
# has a pattern in it is half-written, as if killed or without power, and prints its exit status.
# All files get their names by `os.replace`. A fork saves the time of importing the package.
DEADLY = """
import os, signal, sys
from cellcount_jax import cli

replace = os.replace

def run(pattern, left):
    def deadly(source, target, **options):
        nonlocal left
        if pattern in str(target):
            left -= 1
            if left == 0:
                os.truncate(source, os.path.getsize(source) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **options)

    os.replace = deadly
    signal.alarm(120)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os._exit(cli.main(sys.argv[1:]))

for line in sys.stdin:
    pattern, left = line.split()
    child = os.fork()
    if not child:
        run(pattern, int(left))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# In the order in which they come; those that begin with "volume" are of volumes alone.
MOMENTS = {
    "volume: reading": ("read/", 1),
    "measuring": ("survey.npz", 1),
    "computing": ("map.zarr/c/", 4),
    "computing on": ("map.zarr/c/", 7),
    "searching": ("peaks/", 3),
    "writing": ("points.csv", 1),
}


@pytest.fixture(scope="module")
def run_and_cells(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A run, and its images, in 2D or 3D."""
    run, cells = (request.getfixturevalue(f"{name}_{request.param}d") for name in ("run", "cells"))
    return run, cells


@pytest.mark.usefixtures("quick_compiling")
@pytest.mark.parametrize(
    ("run_and_cells", "image", "times", "limit"),
    [(2, "t0.png", (4, 5), "6000"), (3, "test.tif", (1, 2, 2), "1500")],
    indirect=["run_and_cells"],
)
def test_a_count_that_is_killed_in_every_phase_ends_with_the_same_bytes(
    tmp_path: Path,
    run_and_cells: tuple[Path, Path],
    image: str,
    times: tuple[int, ...],
    limit: str,
    call: Callable[..., int],
    done_marks: Callable[[Path], dict[str, int]],
) -> None:
    run, cells = run_and_cells
    pixels = read_image(cells / "test" / image).pixels[..., 0].astype(np.uint8)
    ndim, file = pixels.ndim, tmp_path / "large.tif"
    write_image(file, np.tile(pixels, times), ndim=ndim)
    command = ["count", str(file), "--model", str(run), "--max-voxels", limit, "--output"]
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert call(*command, undisturbed) == 0
    expected = (undisturbed / "large" / "points.csv").read_bytes()
    assert expected.count(b"\n") > 50

    marks: dict[str, int] = {}
    log = tmp_path / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", DEADLY, *command, str(disturbed)],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        moments = {t: m for t, m in MOMENTS.items() if ndim == 3 or not t.startswith("volume")}
        for title, moment in moments.items():
            print(*moment, file=process.stdin, flush=True)
            assert process.stdout.readline() == f"{-signal.SIGKILL}\n", (title, log.read_text())
            assert not (disturbed / "large" / "points.csv").exists()
            now = done_marks(disturbed / "large")
            assert now.items() >= marks.items(), f"{title}: what was done is not done again"
            marks = now
    assert {name.partition("-")[0] for name in marks} == {"compute", "find"}
    assert call(*command, disturbed) == 0
    assert done_marks(disturbed / "large") == marks
    for name in ("counts.csv", "large/summary.json", "large/points.csv"):
        assert (disturbed / name).read_bytes() == (undisturbed / name).read_bytes()
