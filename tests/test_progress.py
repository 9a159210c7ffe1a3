"""Progress: a bar on a terminal, lines in a log, nothing of what takes no time."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest
import tqdm.std

from cellcount_jax import progress as bars
from cellcount_jax.progress import TrainingProgress, compiling, images, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """The clock of the bars."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tqdm.std, "time", clock)
    return clock


def test_a_person_sees_a_bar_with_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with TrainingProgress(total=40, done=10) as bar:
        for step in (20, 30, 40):
            bar.update(step, loss=0.12345, learning_rate=3e-3)
    last = terminal.getvalue().split("\r")[-1]
    assert "40/40" in last and "100%" in last and "loss 0.1235, learning rate 0.003" in last
    assert "step/s" in last
    assert "<" in last  # elapsed < left


def test_a_log_of_training_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    caplog.set_level(logging.INFO, logger="absl")
    with TrainingProgress(total=1000, done=100) as bar:
        for step in range(110, 1001, 10):
            clock.now += 20.0 if step == 110 else 1.0
            bar.update(step, loss=2.0, learning_rate=1e-3)
    # The first call compiles and is no part of the rate; then what it takes, and a line in 30 s.
    assert [record.getMessage() for record in caplog.records] == [
        "step 110 of 1000, loss 2, learning rate 0.001 (compiled)",
        "the training takes about 88 s more on this machine",
        "step 410 of 1000, loss 2, learning rate 0.001, 10.00 step/s, 00:59 left",
        "step 710 of 1000, loss 2, learning rate 0.001, 10.00 step/s, 00:29 left",
        "step 1000 of 1000, loss 2, learning rate 0.001, 10.00 step/s, 00:00 left",
    ]
    assert log.getvalue() == ""


@pytest.mark.parametrize(("seconds", "lines"), [(0.1, []), (20.0, [30, 60, 90, 100])])
def test_a_log_of_a_count_gets_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float, lines: list[int]
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress("a.tif", 10) as bar:
        for _ in range(10):
            clock.now += seconds
            bar.update()
    text = [f"a.tif {n // 10} of 10, 0.05tile/s" for n in lines]
    assert [line.rpartition(",")[0] for line in log.getvalue().splitlines()] == text


def test_a_batch_says_how_many_images_and_how_long(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with images(200) as bar:
        for _ in range(12):
            clock.now += 61.0
            bar.update()
    lines = log.getvalue().splitlines()
    assert lines[11] == "counting 12 of 200, about 3.2 h left"
    assert len(lines) == 12


def test_a_bar_goes_on_while_a_step_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(bars, "_DELAY_S", 0.01)
    monkeypatch.setattr(bars, "_TICK_S", 0.01)
    shown = threading.Event()
    write = terminal.write

    def written(text: str) -> int:
        if text.count("compiling") and "once for each size" in text:
            shown.set()
        return write(text)

    monkeypatch.setattr(terminal, "write", written)
    with compiling():
        assert shown.wait(30)
    before = threading.active_count()
    with progress("computing", 8) as bar:
        bar.update(8)
    assert threading.active_count() <= before + 1


def test_a_log_is_told_of_long_compiling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with compiling():
        pass
    assert log.getvalue() == ""
    monkeypatch.setattr(bars, "_LONG_COMPILING_S", 0.0)
    told = threading.Event()

    def tell(line: str) -> None:
        assert line == "compiling"
        told.set()

    monkeypatch.setattr(bars, "_to_stderr", tell)
    with compiling():
        assert told.wait(30)
