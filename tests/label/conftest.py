"""A process with labelling windows, for the tests of this folder."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax.images.image_files import write_image


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Bright balls at known places."""
    shape, edges = (12, 60, 80), np.array([4.0, 2.0, 2.0])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * edges
    pixels = np.random.default_rng(0).normal(200, 5, shape)
    for centre in np.array([(3, 15, 20), (3, 40, 60), (6, 30, 40), (9, 20, 70)]) * edges:
        pixels += 2000 * np.exp(-0.5 * np.square(grid - centre).sum(-1) / 5.0**2)
    path = tmp_path / "cells.tif"
    write_image(path, pixels.astype(np.uint16), spacing=tuple(edges))
    return path


class WindowProcess:
    """A process with windows, see `window_process.py`; started again after a test that failed."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, program: str, image: Path | None = None, **options: Any) -> None:
        """Runs a program on a window with an image, or without a window; fails where it does."""
        if self._process is None:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("window_process.py"))],
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        request = {
            "program": textwrap.dedent(program),
            "image": None if image is None else str(image),
            "options": options,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        begin = self._log.stat().st_size
        timer = threading.Timer(120, self._process.kill)
        timer.start()
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        timer.cancel()
        errors = self._log.read_bytes()[begin:].decode()
        problem = json.loads(line) if line else errors or "the process has ended"
        if problem or "Traceback" in errors:
            self.close()
            pytest.fail(problem or errors)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="session")
def drive(
    display: Callable[[Path], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WindowProcess]:
    """One process for the windows of all tests."""
    folder = tmp_path_factory.mktemp("window")
    process = WindowProcess(display(folder), folder / "log.txt")
    yield process
    process.close()
