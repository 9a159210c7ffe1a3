"""One cell of a benchmark: a process that trains and evaluates, and the file of its scores."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol

from cellcount_jax.images import files

ROOT = Path(__file__).parents[1]

# Of evaluation/metrics.json; the last two are those of the difference of Gaussians.
_KEPT = (
    *("step", "set", "rule", "max_distance", "max_distance_unit"),
    *("f1_on_training_images", "thresholds", "sets", "chosen", "each_kind"),
)
# What a result hangs on beside the package and the configs: the baseline, the choice of images.
_SCRIPTS = ("benchmarks/difference_of_gaussians.py", "benchmarks/few_labels_images.py")
_LINES_OF_AN_ERROR = 12


class Cell(Protocol):
    """One run of a benchmark: a dataclass, whose fields stand in its result."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def dataset(self) -> str:
        """Cells of one data set and method take about as long."""

    @property
    def method(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def name(self) -> str:
        """Of its result and its workdir."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings that differ from the config file's, key -> value."""

    def arguments(self, data: Path, workdir: Path) -> list[str]:
        """What follows `python`, from the repository's root."""


class CellFailed(Exception):
    """The process ended without scores; the message has the last lines of its log."""


class Stopped(Exception):
    """The process was asked to stop, and did."""


class Busy(Exception):
    """Another runner has this cell."""


@dataclasses.dataclass(frozen=True)
class Folders:
    """Of images, results and workdirs, relative to the repository's root."""

    data: Path
    results: Path
    runs: Path


def run_cell(
    cell: Cell, folders: Folders, stop: threading.Event, *, again: bool = False
) -> dict[str, Any]:
    """Runs a cell, or goes on with it, and writes its result.

    Args:
      cell: what to run.
      folders: where.
      stop: set it to end the process; the cell goes on from its last checkpoint another time.
      again: from the start, though there is a result.

    Returns:
      The content of its file.

    Raises:
      CellFailed, Stopped, Busy: there is no result.
    """
    workdir, path = folders.runs / cell.name, ROOT / folders.results / f"{cell.name}.json"
    log_path = ROOT / folders.runs / f"{cell.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        # The process inherits the log, and so holds the lock even if this one is killed.
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("is being run by another process") from None
        if path.exists() and not again:
            raise Busy("was finished by another process")
        arguments = cell.arguments(folders.data, workdir)
        commit = git_commit()
        identity = {"arguments": arguments, "code": _code()}
        before = _prepare(ROOT / workdir, log, identity, again=again)
        metrics_path = ROOT / workdir / "evaluation" / "metrics.json"
        metrics_path.unlink(missing_ok=True)
        started = time.perf_counter()
        status = _wait([sys.executable, *arguments], log, stop)
        seconds = before + time.perf_counter() - started
        _remember(ROOT / workdir, identity, seconds)
        if status or not metrics_path.exists():
            if stop.is_set():
                raise Stopped
            lines = log_path.read_text(errors="replace").splitlines()[-_LINES_OF_AN_ERROR:]
            tail = "\n  ".join(lines)
            raise CellFailed(f"exit status {status}; the end of {log_path}:\n  {tail}")
        scores = json.loads(metrics_path.read_text())
        content = {
            **dataclasses.asdict(cell),
            "command": shlex.join(["python", *arguments]),
            "overrides": cell.overrides,
            "commit": commit,
            "machine": machine(),
            "seconds": round(seconds, 1),
            "data": scores["dataset"],
            **{key: scores[key] for key in _KEPT if key in scores},
        }
        files.write_json(path, content)
        return content


def git_commit() -> str:
    """The short name of the commit, with '+' if what results hang on differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        paths = ("cellcount_jax", "configs", *_SCRIPTS)
        changed = git("status", "--porcelain", "--", *paths)
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@functools.cache
def machine() -> dict[str, Any]:
    """`timing.machine` in a process of its own: JAX in this one would occupy an accelerator."""
    program = "import json, timing; print(json.dumps(timing.machine()))"
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=True,
    )
    content: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return content


def _prepare(workdir: Path, log: IO[bytes], identity: dict[str, Any], *, again: bool) -> float:
    """Empties the workdir, unless it can go on; the seconds that its run has taken so far."""
    state: dict[str, Any] = {}
    with contextlib.suppress(OSError, json.JSONDecodeError):
        state = json.loads(_state_path(workdir).read_text())
    # A run that began with other code or settings would be reported as one of these.
    same = {key: state.get(key) for key in identity} == identity
    if same and not again:
        return float(state["seconds"])
    if workdir.exists():
        shutil.rmtree(workdir)
    log.truncate(0)
    _remember(workdir, identity, 0.0)
    return 0.0


def _remember(workdir: Path, identity: dict[str, Any], seconds: float) -> None:
    files.write_json(_state_path(workdir), {**identity, "seconds": seconds})


def _state_path(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}.state.json")


def _code() -> str:
    """A fingerprint of the package and the configs."""
    digest = hashlib.sha256()
    for folder in ("cellcount_jax", "configs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cc"):
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _wait(command: list[str], log: IO[bytes], stop: threading.Event) -> int:
    """Runs a process to its end, or to its checkpoint if it is to stop; its exit status."""
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    # In a session of its own: Ctrl-C is passed on once, and not by the terminal as well.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    asked = False
    while True:
        try:
            return process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if stop.is_set() and not asked:
                # The training loop writes a checkpoint then; a second signal would kill it.
                process.terminate()
                asked = True
