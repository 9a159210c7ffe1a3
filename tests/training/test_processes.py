"""Training in several processes: the run of one process, written by the first of them alone."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.training import parallel

Start = Callable[..., subprocess.Popen[str]]

STEPS = 8
SETTINGS = (
    "--config.model.dtype=float64",
    f"--config.train.steps={STEPS}",
    "--config.train.checkpoint_every=4",
    "--config.train.evaluate_every=0",
    "--config.train.batch_labelled=4",
    "--config.train.batch_unlabelled=4",
)


def together(start_module: Start, config: Path, workdirs: list[Path]) -> list[tuple[int, str]]:
    """Runs one process for each workdir, two devices each: status and log of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    processes = [
        start_module(
            "main",
            f"--config={config}",
            *SETTINGS,
            f"--workdir={workdir}",
            f"--coordinator={address}",
            f"--num_processes={len(workdirs)}",
            f"--process_id={i}",
            devices=2,
        )
        for i, workdir in enumerate(workdirs)
    ]
    try:
        logs = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, log) for process, log in zip(processes, logs, strict=True)]


def parameters(workdir: Path, step: int = STEPS) -> Any:
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        stored = checkpointer.restore((workdir / "checkpoints" / str(step)).absolute())
    found = {name: stored[name] for name in ("params", "batch_stats")}
    # It adds the same to all scores that a softmax compares, so that its gradient is 0 but for
    # rounding errors, of which Adam makes steps.
    del found["params"]["attention"]["phi"]["bias"]
    return found


def largest_difference(a: Any, b: Any) -> float:
    """Over all leaves, relative to the largest number of a leaf, or to 1 if that is larger."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.subtract(x, y)).max() / max(np.abs(x).max(), 1)) for x, y in pairs)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    start_module: Start,
    run_module: Callable[..., tuple[int, str, str]],
    config_file_2d: Path,
) -> Iterator[dict[str, Any]]:
    """The same run in one process of four devices, and in two of two."""
    folder = tmp_path_factory.mktemp("processes")
    options = (f"--config={config_file_2d}", *SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        # In float32 the order of a sum alone makes Adam's first steps differ.
        patch.setenv("JAX_ENABLE_X64", "1")
        status, _, log = run_module("main", *options, f"--workdir={folder / 'one'}", devices=4)
        assert status == 0, log
        two = together(start_module, config_file_2d, [folder / "two", folder / "not_written"])
        yield {"folder": folder, "log": log, "two": two, "options": options}


def test_two_processes_give_the_parameters_of_one(runs: dict[str, Any]) -> None:
    assert [status for status, _ in runs["two"]] == [0, 0], runs["two"]
    assert "4 cpu device(s), results" in runs["log"] and " processes, " not in runs["log"]
    assert "2 processes, 4 cpu device(s), results" in runs["two"][0][1]
    for step in (4, STEPS):
        one, two = (parameters(runs["folder"] / name, step) for name in ("one", "two"))
        assert {str(x.dtype) for x in jax.tree.leaves(one)} == {"float64"}
        assert largest_difference(one, two) < 1e-12
    assert largest_difference(one, parameters(runs["folder"] / "one", 4)) > 1e-3


def test_the_first_process_alone_writes_and_reports(runs: dict[str, Any]) -> None:
    assert not (runs["folder"] / "not_written").exists()
    written = {path.name for path in (runs["folder"] / "two").iterdir()}
    assert written == {path.name for path in (runs["folder"] / "one").iterdir()}
    lines = (runs["folder"] / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6, 8]
    assert "results in" not in runs["two"][1][1], "the second process told what the first does"


def test_a_run_of_two_processes_goes_on_in_one_on_one_device(
    runs: dict[str, Any], run_module: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    shutil.copytree(runs["folder"] / "two", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(STEPS))
    status, _, log = run_module("main", *runs["options"], f"--workdir={tmp_path / 'run'}")
    assert status == 0, log
    assert "after step 4 of 8" in log
    difference = largest_difference(
        parameters(tmp_path / "run"), parameters(runs["folder"] / "one")
    )
    assert difference < 1e-12


def test_what_stops_the_first_process_stops_all(
    start_module: Start, config_file_2d: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    (folder / "checkpoints").mkdir(parents=True)
    found = together(start_module, config_file_2d, [folder, tmp_path / "b"])
    assert [status for status, _ in found] == [1, 1], found
    assert "without a config.json" in found[0][1]
    assert "error: process 0 failed; its own message says why" in found[1][1]


@pytest.mark.parametrize(
    "given", [("host:1", None, None), (None, 2, 0), ("host:1", 2, None), ("auto", 2, 0)]
)
def test_flags_that_do_not_belong_together(given: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match="--coordinator=.*give all three, or"):
        parallel.start_processes(coordinator=given[0], num_processes=given[1], process_id=given[2])


def test_one_process_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    parallel.start_processes()
    assert parallel.is_first() and parallel.any_process(True) and not parallel.any_process(False)
    assert parallel.on_first(lambda: 3) == 3
    tree = {"a": np.ones(2)}
    assert parallel.from_first(tree) is tree


@pytest.mark.parametrize(
    ("tasks", "gpus", "expected"), [("1(x4)", "8", range(8)), ("4(x2)", "8", None), ("1", "", None)]
)
def test_a_slurm_task_that_has_a_node_for_itself_takes_all_its_gpus(
    monkeypatch: pytest.MonkeyPatch, tasks: str, gpus: str, expected: range | None
) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", gpus or "0")
    asked: list[Any] = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda **options: asked.append(options["local_device_ids"])
    )
    parallel.start_processes()
    assert asked == [list(expected) if expected is not None else None]
