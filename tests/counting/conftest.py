"""The command in this process, what it has done, and random points."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.inference import model_file

_LOADED = functools.cache(model_file.load_model)


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """Runs `cellcount ARGUMENTS` in this process; gives the exit status."""
    return lambda *arguments: cli.main([str(argument) for argument in arguments])


@pytest.fixture
def models_stay_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time of reading a model, where many counts are refused."""
    monkeypatch.setattr(model_file, "load_model", _LOADED)


@pytest.fixture(scope="session")
def done_marks() -> Callable[[Path], dict[str, int]]:
    """The tasks that are done in a results folder, and the times of their marks.

    A name with a dot is no mark: a process that was killed left it half-written.
    """
    return lambda folder: {
        path.name: path.stat().st_mtime_ns for path in folder.glob("work/done/[!.]*")
    }


@pytest.fixture(scope="session")
def random_points() -> Callable[..., np.ndarray]:
    """`(number, D)` points anywhere in the voxels of an image."""

    def points(shape: tuple[int, ...], number: int, seed: int = 0) -> np.ndarray:
        places = np.random.default_rng(seed).uniform(0, 1, (number, len(shape))) * shape - 0.5
        return np.clip(places, -0.5, np.subtract(shape, 0.5)).astype(np.float32)

    return points
