"""Labelling windows under Xvfb, for the tests of this folder."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax.images.image_files import write_image

ROOT = Path(__file__).parents[2]


def missing() -> str:
    """Why a window cannot be shown; nothing where it can."""
    # Not imported here, where warnings are errors: the packages of napari have some.
    if not all(importlib.util.find_spec(name) for name in ("napari", "qtpy")):
        return "napari is not installed (the extra `label`)"
    return "" if shutil.which("Xvfb") else "Xvfb is not installed"


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A display of its own."""
    if reason := missing():
        pytest.skip(reason)
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1500x1000x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(writer)
        with os.fdopen(reader) as file:
            number = file.readline().strip()
        try:
            if not number:
                pytest.skip("Xvfb does not start")
            yield f":{number}"
        finally:
            server.terminate()


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


def shown_on(display: str, folder: Path) -> dict[str, str]:
    """The environment of a process with a window, and settings in a folder."""
    return {
        **os.environ,
        "DISPLAY": display,
        "QT_QPA_PLATFORM": "xcb",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "XDG_CONFIG_HOME": str(folder / "settings"),
        "NAPARI_CONFIG": str(folder / "settings" / "napari.yaml"),
        "PYTHONPATH": str(ROOT),
    }


class WindowProcess:
    """A process with windows, see `window_process.py`; started again after a test that failed."""

    def __init__(self, display: str, folder: Path) -> None:
        self._environment, self._log = shown_on(display, folder), folder / "log.txt"
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
def drive(display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowProcess]:
    """One process for the windows of all tests."""
    process = WindowProcess(display, tmp_path_factory.mktemp("window"))
    yield process
    process.close()
