"""What a run tells while it trains: metrics.jsonl, a progress bar or log lines, TensorBoard."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing

Record = Callable[[int, Mapping[str, float]], None]

_SECONDS_BETWEEN_LINES = 30.0


@contextlib.contextmanager
def recording(workdir: Path, *, after_step: int, total: int, tensorboard: bool) -> Iterator[Record]:
    """Gives a function that records the values of a step, and shows progress by their `loss`.

    Args:
      workdir: of the run.
      after_step: what the run has done, the step that it resumes from.
      total: steps in all.
      tensorboard: whether to write curves for TensorBoard too.
    """
    writer = MetricsWriter(workdir, after_step=after_step, tensorboard=tensorboard)
    with contextlib.closing(writer), Progress(total=total, done=after_step) as progress:

        def record(step: int, values: Mapping[str, float]) -> None:
            writer.write(step, values)
            if "loss" in values:
                progress.update(step, values["loss"])

        yield record


class MetricsWriter:
    """Appends one JSON object a line to metrics.jsonl, and to TensorBoard by option."""

    def __init__(self, workdir: Path, *, after_step: int, tensorboard: bool) -> None:
        """Opens the file, cut back to what a run resumed after `after_step` has done."""
        path = workdir / "metrics.jsonl"
        _cut_back(path, after_step)
        self._board = _tensorboard(workdir, after_step) if tensorboard else None
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of a step; a value that is not finite is written as null."""
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _cut_back(path: Path, step: int) -> None:
    """Drops the lines after a step, and a last one that a killed run left unfinished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            logging.warning("%s: dropped an unreadable line", path)
    with replacing(path) as temporary:
        temporary.write_text("".join(kept))


def require_tensorboard() -> None:
    """Makes sure, before anything is written, that curves for TensorBoard can be.

    Raises:
      InputError: the extra is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "config.train.tensorboard = True needs tensorboardX, which is not installed:"
            " pip install 'cellcount_jax[tensorboard]'"
        )


def _tensorboard(workdir: Path, after_step: int) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(workdir / "tensorboard"), purge_step=after_step + 1)


class Progress:
    """A bar for a person at a terminal, a line now and then for a log file.

    Both tell the step, the loss, steps per second and the time left. Use as a context.
    """

    def __init__(self, *, total: int, done: int) -> None:
        self._total = total
        self._told = time.monotonic()
        self._timed_from: tuple[int, float] | None = None
        at_terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)
            if at_terminal
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int, loss: float) -> None:
        """Tells that a step is finished."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if self._timed_from is not None and (
            now - self._told >= _SECONDS_BETWEEN_LINES or step == self._total
        ):
            self._told = now
            first, started = self._timed_from
            rate = (step - first) / max(now - started, 1e-9)
            left = (self._total - step) / rate
            logging.info(
                "step %d of %d, loss %.4g, %.3g steps/s, %s left",
                step,
                self._total,
                loss,
                rate,
                f"{left / 60:.1f} min" if left >= 60 else f"{left:.0f} s",
            )
        if self._timed_from is None:
            # The first call compiles, which says nothing of the time to come.
            logging.info("step %d of %d, loss %.4g (compiled)", step, self._total, loss)
            self._timed_from = (step, now)
