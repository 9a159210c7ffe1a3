"""The tasks of a count in threads: an error or Ctrl-C ends all of them soon."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cellcount_jax.counting import engines
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import programs, tasks
from cellcount_jax.inference.job import Job, Task
from cellcount_jax.inference.trained_model import TrainedModel


@pytest.mark.parametrize("lags", [None, "some"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_stops_one_task_stops_the_others_after_their_part(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], lags: Any
) -> None:
    """A run of tiles may take many minutes."""
    begun, parts = threading.Event(), 0

    def run(job: Any, task: Task, update: Callable[[int], object]) -> None:
        nonlocal parts
        begun.set()
        if task.tiles == (0,):
            raise error
        for _ in range(1000):  # a run of 20 s
            time.sleep(0.02)
            update(0)
            parts += 1

    monkeypatch.setattr(tasks, "run", run)
    engine = engines.in_threads(SimpleNamespace(plan=SimpleNamespace(lags=lags)))  # type: ignore[arg-type]
    todo = [Task("find", (1,)), Task("find", (2,)), Task("find", (0,))]
    started = time.monotonic()
    with pytest.raises(error):
        engine(todo, "searching")
    assert begun.is_set() and time.monotonic() - started < 5 and parts < 500


def test_progress_is_counted_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(tasks, "run", lambda job, task, update: [update(1) for _ in task.tiles])

    class Bar:
        busy = False

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, tiles: int) -> None:
            assert not self.busy
            self.busy = True
            time.sleep(0.001)
            counted.append(tiles)
            self.busy = False

    monkeypatch.setattr(engines, "progress", lambda title, total, unit: Bar())
    engine = engines.in_threads(SimpleNamespace(plan=SimpleNamespace(lags=None)))  # type: ignore[arg-type]
    engine([Task("find", tuple(range(n))) for n in (3, 5, 7, 1)], "searching")
    assert sum(counted) == 16


@pytest.mark.parametrize("shape", [(190, 260), (60, 90, 70)])
def test_the_program_is_compiled_while_the_image_is_read(
    untrained_model: Callable[..., TrainedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
) -> None:
    model = untrained_model(len(shape), predict__max_voxels=30_000)
    normalisation = Normalisation("contrast", block=(30,) * len(shape))
    model = dataclasses.replace(model, normalisation=normalisation)
    values = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    job = Job(model, Array(values, len(shape)), tmp_path)
    assert (job.plan.lags is None) == (len(shape) == 2)
    monkeypatch.setattr(programs, "_compiled", {})
    engine, after = engines.in_threads(job), []

    def watched(todo: Any, title: str) -> None:
        engine(todo, title)
        after.append((title, len(programs._compiled)))

    tasks.complete(job, watched, lambda *_: pytest.fail("read by tasks"))
    assert after == [("reading", 1), ("computing", 1), ("searching", 1)]


def test_an_image_in_which_nothing_is_computed(
    untrained_model: Callable[..., TrainedModel], tmp_path: Path
) -> None:
    """What is compiled meanwhile is not needed then."""
    model = untrained_model(2, predict__max_voxels=30_000)
    model = dataclasses.replace(model, normalisation=Normalisation("contrast", block=(30, 30)))
    job = Job(model, Array(np.full((190, 260), 7, np.float32), 2), tmp_path)
    tasks.complete(job, engines.in_threads(job), lambda *_: pytest.fail("read by tasks"))
    assert job.survey.constant == len(job.plan.cores) > 1
    assert len(tasks.peaks(job)[0]) == 0
