"""Progress of counting and of training: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging
from tqdm import tqdm

_BAR_INTERVAL_S = 0.5
_TICK_S = 1.0
_DELAY_S = 2.0  # nothing is shown of what takes less
_LONG_COMPILING_S = 20.0  # told in a log
_LINE = "{desc} {n_fmt} of {total_fmt}{postfix}, {rate_noinv_fmt}, {remaining} left"


def progress(title: str, total: int, *, unit: str = "tile") -> tqdm:
    """Progress of a count; a context whose `update` takes how many units are finished.

    Args:
      title: of the work.
      total: units in all.
      unit: 'tile', 'part', or 'voxel' for millions of them.
    """
    options: dict[str, Any] = {"desc": title, "unit": unit, "unit_scale": unit == "voxel"}
    return _bar_of_count(total, **options)


def reading(title: str, voxels: int) -> tqdm:
    """Progress of an image that is read part by part."""
    return progress(title, voxels, unit="voxel")


def images(total: int) -> tqdm:
    """Progress of a batch of images, "12 of 200, about 3 min left"; none of a single one."""
    line = "{desc} {n_fmt} of {total_fmt}{left}"
    return _bar_of_count(total, desc="counting", disable=total < 2, bar_format=line)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Says that a program is compiled, where that takes longer than from the cache."""
    if sys.stderr.isatty():
        # A bar without a length: the time that it has taken.
        line = "{desc} ({elapsed}), once for each size of arrays"
        with _bar_of_count(0, desc="compiling", bar_format=line):
            yield
        return
    timer = threading.Timer(_LONG_COMPILING_S, _to_stderr, ["compiling"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say(line: str) -> None:
    """Prints a line, above the bars where they share a terminal with it."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


class TrainingProgress:
    """Step, loss, learning rate, steps per second and time left; to be used as a context."""

    def __init__(self, *, total: int, done: int) -> None:
        """Starts at step `done`, which a run resumes from, of `total`."""
        self._started = False
        self._at_terminal = sys.stderr.isatty()
        options: dict[str, Any] = {"initial": done, "unit": " step", "smoothing": 0}
        if not self._at_terminal:
            options |= {"desc": "step", "delay": 1e-9}  # no line before the first step
        self._bar = _bar(total, logging.info, seconds_between_lines=30, **options)

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing follows the line of the first call where there was no other.
        self._bar.disable = not self._at_terminal and self._bar.n == self._bar.initial
        self._bar.close()

    def update(self, step: int, *, loss: float, learning_rate: float) -> None:
        """Shows that a step is finished."""
        values = f"loss {loss:.4g}, learning rate {learning_rate:.3g}"
        self._bar.set_postfix_str(values, refresh=False)
        if self._started:
            first = self._bar.n == self._bar.initial
            self._bar.update(step - self._bar.n)
            if first and not self._at_terminal:
                logging.info("the training takes %s more on this machine", self._left())
            return
        # The first call compiles: its time is no measure of the steps to come.
        self._started = True
        self._bar.unpause()
        self._bar.n = self._bar.last_print_n = self._bar.initial = step
        if self._at_terminal:
            self._bar.refresh()
        else:
            logging.info("step %d of %d, %s (compiled)", step, self._bar.total, values)

    def _left(self) -> str:
        bar = self._bar
        each = bar.format_dict["elapsed"] / (bar.n - bar.initial)
        return duration(each * (bar.total - bar.n))


class _BarOfCount(tqdm):
    """A bar whose time goes on, on a terminal, while a step takes long."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._over = threading.Event()
        if not self.disable and sys.stderr.isatty():
            threading.Thread(target=self._tick, daemon=True).start()

    @property
    def format_dict(self) -> Any:
        """What a format may name: also the time left, in words."""
        found = super().format_dict
        done, rate = self.n - self.initial, found["rate"]
        if not rate and found["elapsed"] and done:
            rate = done / found["elapsed"]
        more = f", {duration((self.total - self.n) / rate)} left" if rate and self.total else ""
        return {**found, "left": more}

    def close(self) -> None:
        """Ends the bar; what it showed is gone, but for the first of several."""
        self._over.set()
        super().close()

    def _tick(self) -> None:
        wait = _DELAY_S
        while not self._over.wait(wait):
            self.refresh()
            wait = _TICK_S


def _bar_of_count(total: int, **options: Any) -> tqdm:
    # Nothing is shown of work that takes less than two seconds; of bars below others nothing stays.
    options |= {"delay": _DELAY_S, "leave": None}
    return _bar(total, _to_stderr, seconds_between_lines=60, kind=_BarOfCount, **options)


def _bar(
    total: int,
    write_line: Callable[[str], object],
    *,
    seconds_between_lines: float,
    kind: type[tqdm] = tqdm,
    **options: Any,
) -> tqdm:
    if sys.stderr.isatty():
        interval = _BAR_INTERVAL_S
        options["dynamic_ncols"] = True
        if "bar_format" in options:
            options["bar_format"] += " {bar}"
    else:
        interval = seconds_between_lines
        options = {"bar_format": _LINE, **options, "file": _Lines(write_line)}
    return kind(total=total, mininterval=interval, maxinterval=interval, miniters=1, **options)


class _Lines:
    """A file for tqdm in which a redrawn bar is a line."""

    def __init__(self, write_line: Callable[[str], object]) -> None:
        self._write_line = write_line
        self._last = ""

    def write(self, text: str) -> None:
        line = " ".join(text.split())
        if line and line != self._last:
            self._write_line(line)
            self._last = line

    def flush(self) -> None:
        """Lines are not held back."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time, rounded: "about 40 s", "about 5 min", "about 2.5 h"."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
