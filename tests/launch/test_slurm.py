"""launch/slurm.sh under a real SLURM: two nodes on this machine, which tests/slurm.sh starts."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellcount_jax.training import run_folder

ROOT = Path(__file__).parents[2]
CANNOT_START = 77

# Gives the job's number, and the file of its standard output and error.
Submit = Callable[..., tuple[str, Path]]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which sbatch finds the cluster."""
    if not (ROOT / ".venv" / "bin" / "activate").exists():
        pytest.skip("launch/slurm.sh needs a .venv in the checkout (launch/setup_venv.sh)")
    # It runs until its standard input is closed, as it also is when the tests are killed.
    command = ["bash", "tests/slurm.sh", "sh", "-c", 'echo "$SLURM_CONF"; cat']
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as cluster:
        assert cluster.stdout is not None
        configuration = cluster.stdout.readline().strip()
        if not configuration:
            _, errors = cluster.communicate()
            if cluster.returncode == CANNOT_START:
                pytest.skip(errors.strip())
            pytest.fail(errors)
        yield {
            # A job started from within a job of another cluster would take over its settings.
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": configuration,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        cluster.communicate()


@pytest.fixture
def submit(slurm: dict[str, str], tmp_path: Path) -> Submit:
    """Submits launch/slurm.sh: `options` to sbatch, `arguments` to the program."""

    def call(
        *arguments: str, options: tuple[str, ...] = (), folder: Path = ROOT
    ) -> tuple[str, Path]:
        output = tmp_path / "slurm-%j.out"
        script = str(ROOT / "launch" / "slurm.sh")
        command = ["sbatch", "--parsable", f"--output={output}", *options, script, *arguments]
        done = subprocess.run(command, cwd=folder, env=slurm, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        return job, tmp_path / f"slurm-{job}.out"

    return call


def state(slurm: dict[str, str], job: str) -> tuple[str, str]:
    """A job's state and its exit status, `status:signal`."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    shown = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True).stdout
    found = re.search(r"JobState=(\w+) .*ExitCode=(\d+:\d+)", shown)
    assert found is not None, shown
    return found[1], found[2]


def wait(slurm: dict[str, str], job: str, log: Path, *, until: Callable[[], bool]) -> None:
    """Waits for something that a job does."""
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end, f"{state(slurm, job)}\n{text(log)}"
        time.sleep(0.1)


def finish(slurm: dict[str, str], job: str, log: Path) -> tuple[str, str]:
    """Waits for a job's end."""
    over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    wait(slurm, job, log, until=lambda: state(slurm, job)[0] in over)
    return state(slurm, job)


def text(log: Path) -> str:
    return log.read_text() if log.exists() else "no log"


def last_step(workdir: Path) -> int:
    """The last step that is in metrics.jsonl; its last line may be half-written."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines()[:-1] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def test_stopped_before_the_time_limit_and_submitted_again(
    slurm: dict[str, str], submit: Submit, config_file_2d: Path, tmp_path: Path
) -> None:
    workdir, steps = tmp_path / "run", 600
    arguments = [
        f"--config={config_file_2d}",
        f"--workdir={workdir}",
        f"--config.train.steps={steps}",
        f"--config.train.checkpoint_every={steps}",
        "--config.train.evaluate_every=0",
        "--config.train.batch_labelled=2",
        "--config.train.batch_unlabelled=2",
    ]

    def stopped(nodes: int, told: str, after: int) -> int:
        """Submits, and sends SIGTERM as before a time limit: the step of the checkpoint."""
        job, log = submit(*arguments, options=() if nodes == 1 else (f"--nodes={nodes}",))
        trained = functools.partial(last_step, workdir)
        wait(slurm, job, log, until=lambda: trained() >= after + 4 or "FAILED" in state(slurm, job))
        subprocess.run(["scancel", "--signal=TERM", job], env=slurm, check=True)
        assert finish(slurm, job, log) == ("COMPLETED", "0:0"), text(log)
        step = run_folder.latest(workdir / "checkpoints")
        assert step is not None and after < step < steps
        assert f"stopped after step {step}; the same command goes on from there" in text(log)
        assert f" {told}, results in {workdir}" in text(log)
        assert text(log).count("results in") == 1, "more than one process told of the run"
        assert f"resuming {workdir} after step {after} of {steps}" in text(log) or not after
        assert not (workdir / "evaluation").exists()
        return step

    first = stopped(1, "1 cpu device(s)", after=0)
    second = stopped(2, "2 processes, 2 cpu device(s)", after=first)

    job, log = submit(*arguments)
    assert finish(slurm, job, log) == ("COMPLETED", "0:0"), text(log)
    assert f"resuming {workdir} after step {second} of {steps}" in text(log)
    assert f" 1 cpu device(s), results in {workdir}" in text(log)
    assert run_folder.latest(workdir / "checkpoints") == steps
    recorded = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in recorded] == list(range(2, steps + 1, 2))
    assert (workdir / "evaluation" / "metrics.json").exists()
    assert "F1" in text(log) and str(workdir) in text(log).splitlines()[-1]


@pytest.mark.parametrize(
    ("nodes", "setting", "message"),
    [
        (1, "steps=3", "config.train.steps = 3: must be a multiple of train.scan_length"),
        (
            2,
            "batch_labelled=3",
            "batch_labelled = 3: must be a multiple of the number of devices, 2",
        ),
    ],
)
def test_a_run_that_fails_is_a_job_that_fails(
    slurm: dict[str, str], submit: Submit, tmp_path: Path, nodes: int, setting: str, message: str
) -> None:
    job, log = submit(
        "--config=configs/smoke.py",
        f"--config.train.{setting}",
        f"--workdir={tmp_path / 'run'}",
        options=(f"--nodes={nodes}",),
    )
    assert finish(slurm, job, log) == ("FAILED", "1:0"), text(log)
    assert message in text(log)
    assert not (tmp_path / "run").exists()


def test_submitted_from_elsewhere(slurm: dict[str, str], submit: Submit, tmp_path: Path) -> None:
    job, log = submit("--config=configs/smoke.py", folder=tmp_path)
    assert finish(slurm, job, log) == ("FAILED", "1:0")
    assert text(log).startswith(f"slurm.sh: {tmp_path} is not a checkout with a .venv; run ")


def test_the_cluster_ends_with_its_command() -> None:
    done = subprocess.run(
        ["bash", "tests/slurm.sh", "sh", "-c", 'echo "$SLURM_CONF"; exit 3'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode == CANNOT_START:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 3
    folder = Path(done.stdout.strip()).parent
    assert folder.name.startswith("slurm.") and not folder.exists()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert str(folder) not in process.read_text(), process


def test_where_there_can_be_no_cluster_the_script_says_why() -> None:
    done = subprocess.run(
        ["bash", "-s", "true"],
        input=(ROOT / "tests" / "slurm.sh").read_text(),
        cwd="/",
        user="nobody" if os.geteuid() == 0 else None,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (CANNOT_START, "")
    assert done.stderr.startswith(
        "slurm.sh: installing and starting SLURM takes root, and this is "
    )
    assert done.stderr.count("\n") == 1
