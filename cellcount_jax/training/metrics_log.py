"""The values of each step of a run: metrics.jsonl, and curves for TensorBoard."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from cellcount_jax.errors import InputError, how_to_install
from cellcount_jax.images.files import replacing
from cellcount_jax.progress import TrainingProgress
from cellcount_jax.training import parallel

Record = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def recording(workdir: Path, *, after_step: int, total: int, tensorboard: bool) -> Iterator[Record]:
    """Gives a function that records the values of a step and shows progress, in process 0.

    Args:
      workdir: of the run.
      after_step: the step that the run resumes from.
      total: steps in all.
      tensorboard: whether to write curves for TensorBoard too.
    """
    if not parallel.is_first():
        yield lambda step, values: None
        return
    writer = MetricsWriter(workdir, after_step=after_step, tensorboard=tensorboard)
    progress = TrainingProgress(total=total, done=after_step)
    with contextlib.closing(writer), progress as bar:

        def record(step: int, values: Mapping[str, float]) -> None:
            writer.write(step, values)
            if "loss" in values:
                bar.update(step, loss=values["loss"], learning_rate=values["learning_rate"])

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
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
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
            f" {how_to_install('tensorboard')}"
        )


def _tensorboard(workdir: Path, after_step: int) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(workdir / "tensorboard"), purge_step=after_step + 1)
