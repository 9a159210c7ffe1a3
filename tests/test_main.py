"""The command: what its flags accept, one line for what they do not, killed and started again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from cellcount_jax.inference import model_file
from cellcount_jax.training import run_folder

Run = Callable[..., tuple[int, str, str]]

SMOKE = "--config=configs/smoke.py"
# Arguments, and what the one line on stderr must hold.
WRONG: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "unknown key": (
        [SMOKE, "--config.optim.lerning_rate=1e-3"],
        ("config.optim.lerning_rate: no such setting", "config.optim.learning_rate?"),
    ),
    "wrong type": ([SMOKE, "--config.train.steps=many"], ("--config.train.steps=many", "int")),
    "missing config": ([], ("--config is missing",)),
    "no such config file": (
        ["--config=configs/vgh.py"],
        ("--config=configs/vgh.py: no such file", "configs/vgg.py"),
    ),
    "unknown variant": (
        ["--config=configs/vgg.py:papre"],
        ("--config=vgg.py:papre: no such variant", "paper"),
    ),
    "unknown mode": ([SMOKE, "--mode=train"], ("--mode=train", "train_and_evaluate|evaluate")),
    "extra argument": ([SMOKE, "steps=3"], ("unexpected argument 'steps=3'", "--config.key")),
    "another network than the model's": (
        [SMOKE, "--config.init_from=nuclei2d", "--config.model.levels=5"],
        ("config.model.levels = 5: training goes on from the model nuclei2d, which has 4",),
    ),
    "no run to evaluate": ([SMOKE, "--mode=evaluate"], ("no run to evaluate",)),
}


@pytest.mark.parametrize(("arguments", "parts"), WRONG.values(), ids=WRONG)
def test_a_wrong_flag_is_one_line_that_names_it(
    tmp_path: Path, run_module: Run, arguments: list[str], parts: tuple[str, ...]
) -> None:
    workdir = tmp_path / "run"
    status, out, errors = run_module("main", *arguments, f"--workdir={workdir}")
    assert status == 1
    assert out == ""
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    for part in parts:
        assert part in errors
    assert not workdir.exists()


def test_a_config_file_with_an_unknown_setting_is_an_error(tmp_path: Path, run_module: Run) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import smoke\n\n\ndef get_config():\n    config = smoke.get_config()\n"
        "    config.train.step = 3\n    return config\n"
    )
    status, _, errors = run_module("main", f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert status == 1 and errors.count("\n") == 1
    assert "config.train.step: no such setting; did you mean config.train.steps?" in errors
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_over_the_devices_is_an_error(
    tmp_path: Path, run_module: Run
) -> None:
    arguments = [SMOKE, "--config.train.batch_labelled=6", f"--workdir={tmp_path / 'run'}"]
    status, _, errors = run_module("main", *arguments, devices=4)
    assert status == 1
    assert errors == (
        "error: config.train.batch_labelled = 6: must be a multiple of the number of devices, 4\n"
    )
    assert not (tmp_path / "run").exists()


def test_killed_then_terminated_then_finished_is_the_undisturbed_run(
    tmp_path: Path, run_module: Run, run_2d: Path, config_file_2d: Path
) -> None:
    workdir = tmp_path / "run"
    command = ["main", f"--config={config_file_2d}", f"--workdir={workdir}"]

    # A checkpoint every 16 steps: it dies before it has its third.
    status, _, errors = run_module(*command, gets=(signal.SIGKILL, 48))
    assert status == -signal.SIGKILL, errors
    killed_at = run_folder.latest(workdir / "checkpoints")
    assert killed_at == 32

    status, out, errors = run_module(*command, gets=(signal.SIGTERM, 80))
    assert status == 0, errors
    assert f"resuming {workdir} after step {killed_at} of 160" in errors
    stopped_at = run_folder.latest(workdir / "checkpoints")
    assert stopped_at == 82  # after the two steps that one call takes
    assert f"stopped after step {stopped_at}; the same command goes on from there" in errors
    assert "F1" not in out

    status, out, errors = run_module(*command)
    assert status == 0, errors
    assert f"resuming {workdir} after step {stopped_at} of 160" in errors
    assert_same_files(workdir, run_2d)

    # What is printed at the end: the data and the table.
    assert out.startswith("\nImages from ")
    heading = next(line for line in out.splitlines() if line.startswith("set "))
    names = ["set", "rule", "threshold", "images", "true", "predicted"]
    assert heading.split() == [*names, "precision", "recall", "F1", "MAE", "RMSE"]
    assert str(workdir) in out.splitlines()[-1]

    # And once more, from the checkpoint alone.
    scores = (workdir / "evaluation" / "metrics.json").read_bytes()
    (workdir / "evaluation" / "metrics.json").unlink()
    status, again, errors = run_module(*command, "--mode=evaluate")
    assert status == 0, errors
    assert (workdir / "evaluation" / "metrics.json").read_bytes() == scores
    assert again.splitlines()[:-1] == out.splitlines()[:-1]


def assert_same_files(workdir: Path, other: Path) -> None:
    model, other_model = model_file.load_model(workdir), model_file.load_model(other)
    jax.tree.map(np.testing.assert_array_equal, model.variables, other_model.variables)
    lines, other_lines = (
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text]
        for text in (
            (folder / "metrics.jsonl").read_text().splitlines() for folder in (workdir, other)
        )
    )
    assert lines == other_lines
    for name in ("model.zip", "evaluation/metrics.json", "evaluation/per_image.csv"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()
