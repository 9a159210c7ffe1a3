"""JSON files, metrics.jsonl that is cut back to a checkpoint, TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images import files
from cellcount_jax.training import metrics_log
from cellcount_jax.training.metrics_log import MetricsWriter


def lines_of(workdir: Path) -> list[Any]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "values.json"
    files.write_json(path, {"a": [1, 2.5], "b": None})
    assert json.loads(path.read_text()) == {"a": [1, 2.5], "b": None}
    for impossible in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            files.write_json(path, {"a": impossible})
    assert json.loads(path.read_text()) == {"a": [1, 2.5], "b": None}
    assert [p.name for p in path.parent.iterdir()] == ["values.json"]


def test_values_are_in_the_file_as_soon_as_they_are_written(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, after_step=0, tensorboard=False)
    writer.write(10, {"loss": 0.1234567890123, "seconds": 2.0})
    assert lines_of(tmp_path) == [{"step": 10, "loss": 0.1234567890123, "seconds": 2.0}]
    writer.close()


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, after_step=0, tensorboard=False)
    writer.write(1, {"loss": float("nan"), "supervised": float("inf"), "consistency": 1.0})
    writer.close()
    assert lines_of(tmp_path) == [{"step": 1, "loss": None, "supervised": None, "consistency": 1.0}]


@pytest.mark.parametrize("after_step", [0, 10, 15, 20, 30])
def test_a_resumed_run_keeps_what_its_checkpoint_has_done(tmp_path: Path, after_step: int) -> None:
    given = [{"step": s, name: 1.0} for s in (10, 20, 30) for name in ("loss", "f1")]
    text = "".join(json.dumps(line) + "\n" for line in given)
    (tmp_path / "metrics.jsonl").write_text(text)
    writer = MetricsWriter(tmp_path, after_step=after_step, tensorboard=False)
    writer.write(99, {"loss": 2.0})
    writer.close()
    kept = [line for line in given if line["step"] <= after_step]
    assert lines_of(tmp_path) == [*kept, {"step": 99, "loss": 2.0}]


@pytest.mark.parametrize("torn", ['{"step": 4, "lo', '{"step": 4, "loss": 1.0}', "{", '"'])
def test_a_line_that_a_killed_run_left_unfinished_is_dropped(tmp_path: Path, torn: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "loss": 3.0}\n' + torn)
    MetricsWriter(tmp_path, after_step=4, tensorboard=False).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 2, "loss": 3.0}\n'


def test_an_unreadable_line_is_dropped_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n\0\0\0\n[1]\n{"loss": 1}\n{"step": "x"}\n{"step": 4}\n')
    MetricsWriter(tmp_path, after_step=4, tensorboard=False).close()
    assert lines_of(tmp_path) == [{"step": 2}, {"step": 4}]
    assert caplog.text.count(f"{path}: dropped an unreadable line") == 4


def test_tensorboard_without_its_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"config\.train\.tensorboard = True needs tensorboardX"):
        metrics_log.require_tensorboard()


def test_tensorboard_gets_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, *values: Any) -> None:
            written.append(values)

        def close(self) -> None:
            written.append(("closed",))

    package = types.ModuleType("tensorboardX")
    monkeypatch.setattr(package, "SummaryWriter", SummaryWriter, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboardX", package)
    writer = MetricsWriter(tmp_path, after_step=0, tensorboard=True)
    writer.write(3, {"loss": 0.5, "f1": 0.25})
    writer.close()
    folder = str(tmp_path / "tensorboard")
    assert written == [(folder, 1), ("loss", 0.5, 3), ("f1", 0.25, 3), ("closed",)]
