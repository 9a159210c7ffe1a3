"""Kills, full disks and races: whatever happens, the same command ends with the same bytes.

Run it from the repository's root; what is done is kept in --runs, so that it goes on where it was
stopped:

    python benchmarks/soak.py --times 100 --output=results/soak.json
    python benchmarks/soak.py --jobs train --faults full --times 5

Jobs are a training (`train`), a count in tiles (`count`), the same on dask's local workers
(`workers`), a session of labelling (`label`) and an export (`export`). Each is run undisturbed
first. Faults: `kill` ends a process at a random operation on a file (see `soak_hook`), up to some
milliseconds after one, or at any moment, one of its child processes included, one to three times
in a row; `full` gives a disk of a random size (a tmpfs, which needs root), `forbidden` takes away
the permission to write (setpriv, where root runs it), `race` starts the command twice at once.
Then the command runs again until it ends well, and its results are compared with the undisturbed
ones. A traceback on the way is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import timing

from cellcount_jax.data.synthetic import synthetic_dataset
from cellcount_jax.images.image_files import write_image

ROOT = Path(__file__).parents[1]
# Root may write anywhere; without this capability it obeys permissions.
OBEDIENT = ("setpriv", "--bounding-set", "-dac_override")
_TIMEOUT_S = 600
_MOST_KILLS = 3
_MOST_TRIES = 8  # until a command ends well, once nothing disturbs it
_DELAY_S = 0.02  # at most, after an operation
_MB = 2**20
_TRAINING = """
from configs import smoke

def get_config():
    config = smoke.get_config()
    config.data.num_labelled = config.data.num_unlabelled = 2
    config.train.steps, config.train.checkpoint_every, config.train.scan_length = 24, 4, 4
    config.train.crop = (32, 32)
    config.model.levels = 2
    config.evaluation.overlays = 1
    return config
"""
# Acts that go on from what is there; the clock is the number of the act.
_LABELLING = """
import sys
from pathlib import Path
from cellcount_jax.label.session import Session

image = Path(sys.argv[1])
with Session(image, now=lambda: 1.0) as session:
    for i in range(len(session.dots.points), 400):
        session.add((i // 20 * 9, i % 20 * 9))
"""


class Job(NamedTuple):
    """A command that works in a folder.

    Attributes:
      command: its words, for the folder.
      results: of the files below the folder, those that are compared, by a pattern of their paths.
      prepare: makes what must be in the folder before.
    """

    command: Callable[[Path], list[str]]
    results: str
    prepare: Callable[[Path], object] = lambda folder: None


def jobs(shared: Path) -> dict[str, Job]:
    """The jobs, on inputs in a folder that they share."""
    python, cellcount = sys.executable, [sys.executable, "-m", "cellcount_jax.cli"]
    config, image, model = (shared / name for name in ("config.py", "large.tif", "run"))

    def train(folder: Path) -> list[str]:
        words = [python, "-m", "cellcount_jax.main", f"--config={config}"]
        return [*words, f"--workdir={folder / 'run'}"]

    def count(folder: Path) -> list[str]:
        words = ["count", str(image), "--model", str(model), "--max-voxels", "20000"]
        return [*cellcount, *words, "--output", str(folder / "counted")]

    def workers(folder: Path) -> list[str]:
        return [*count(folder), "--scheduler", "local"]

    def label(folder: Path) -> list[str]:
        return [python, "-c", _LABELLING, str(folder / "a.tif")]

    def export(folder: Path) -> list[str]:
        return [*cellcount, "export", str(model), str(folder / "a.zip")]

    counted = r"points\.csv|summary\.json|counts\.csv"
    return {
        "train": Job(train, r"model\.zip|metrics\.json"),
        "count": Job(count, counted),
        "workers": Job(workers, counted),
        "label": Job(label, r"a\.csv", lambda folder: shutil.copy(image, folder / "a.tif")),
        "export": Job(export, r"a\.zip"),
    }


def main() -> None:
    """Runs what the command line says, or goes on with it."""
    names = list(jobs(Path()))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", nargs="+", choices=names, default=names)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument(
        "--times", type=int, default=100, help="of each; of the others than kill a tenth"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/soak")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    options.runs = options.runs.resolve()
    shared = prepared(options.runs / "shared")
    rows = []
    for name in options.jobs:
        job = jobs(shared)[name]
        for fault in options.faults:
            times = options.times if fault == "kill" else max(1, options.times // 10)
            found = [tried(name, job, fault, i, options.runs) for i in range(times)]
            row = {"job": name, "fault": fault, "times": times}
            row |= {key: sum(outcome[key] for outcome in found) for key in found[0]}
            timing.tell(row)
            rows.append(row)
    wrong = sum(row["times"] - row["same"] for row in rows)
    verdict = f"{sum(row['times'] for row in rows) - wrong} ended with the same bytes, {wrong} not"
    timing.publish(rows, options.output, verdict=verdict)


def prepared(shared: Path) -> Path:
    """What all jobs read: an image, and a model of the training that one of them is."""
    if (shared / "run" / "model.zip").exists():
        return shared
    shared.mkdir(parents=True, exist_ok=True)
    (shared / "config.py").write_text(_TRAINING)
    made = synthetic_dataset(ndim=2, seed=3, num_labelled=1, num_unlabelled=0, num_test=0)
    pixels = np.tile(made.labelled[0].image[..., 0], (3, 3))
    write_image(shared / "large.tif", pixels.astype(np.uint16), ndim=2)
    subprocess.run(jobs(shared)["train"].command(shared), check=True, env=environment(shared))
    return shared


def tried(name: str, job: Job, fault: str, number: int, runs: Path) -> dict[str, int]:
    """The outcome of a job with a fault, which is kept.

    Returns:
      1 or 0 each: 'same' whether the results are those of the undisturbed job, 'tracebacks'; and
      how often it was disturbed.
    """
    kept = runs / "outcomes" / f"{name}_{fault}_{number}.json"
    if kept.exists():
        outcome: dict[str, int] = json.loads(kept.read_text())
        return outcome
    expected, operations, seconds, size = undisturbed(name, job, runs)
    rng = random.Random(f"{name} {fault} {number}")
    folder = runs / "work"
    with emptied(folder, fault):
        job.prepare(folder)
        texts: list[str] = []
        times = FAULTS[fault](job, folder, rng, (operations, seconds, size), texts)
        for _ in range(_MOST_TRIES):
            code, text = finished(job, folder, fault)
            texts.append(text)
            if code == 0:
                break
        outcome = {
            "disturbed": times,
            "same": int(digests(job, folder) == expected),
            "tracebacks": int(any("Traceback" in text for text in texts)),
        }
        if not outcome["same"] or outcome["tracebacks"]:
            (runs / f"{name}_{fault}_{number}.txt").write_text("\n=====\n".join(texts))
            shutil.copytree(folder, runs / f"{name}_{fault}_{number}", dirs_exist_ok=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(outcome))
    return outcome


def undisturbed(name: str, job: Job, runs: Path) -> tuple[dict[str, str], int, float, int]:
    """Digests of the results, the number of operations, seconds and bytes of a job."""
    kept = runs / "undisturbed" / f"{name}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        folder, log = runs / "work", runs / "operations"
        for _ in range(2):  # the second has all programs compiled
            with emptied(folder, ""):
                job.prepare(folder)
                log.write_bytes(b"")
                started = time.monotonic()
                code, text = finished(job, folder, "", SOAK_FOLDER=folder, SOAK_LOG=log)
                if code:
                    raise SystemExit(f"{name}, undisturbed: {text}")
                size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                found = digests(job, folder), log.stat().st_size, time.monotonic() - started, size
        kept.write_text(json.dumps(found))
    expected, operations, seconds, size = json.loads(kept.read_text())
    return expected, operations, seconds, size


Undisturbed = tuple[int, float, int]


def kill(job: Job, folder: Path, rng: random.Random, known: Undisturbed, texts: list[str]) -> int:
    """Kills the command once to thrice; how often it was hit."""
    operations, seconds, _ = known
    hits = 0
    for _ in range(rng.randint(1, _MOST_KILLS)):
        moment = rng.choice(("at", "after", "any"))
        hook = {}
        if moment != "any":
            hook = {"SOAK_FOLDER": folder, "SOAK_AT": rng.randint(1, max(1, operations))}
            hook["SOAK_DELAY"] = rng.uniform(0, _DELAY_S) if moment == "after" else 0
        Path(f"{folder}.done").unlink(missing_ok=True)
        process = start(job, folder, "", **hook)
        if moment == "any":
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, seconds))
            victims = [process.pid, *(c.pid for c in children(process.pid))]
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(victims), signal.SIGKILL)
        text, _ = process.communicate(timeout=_TIMEOUT_S)
        texts.append(text)
        hits += process.returncode != 0 or Path(f"{folder}.done").exists()
    return hits


def full(job: Job, folder: Path, rng: random.Random, known: Undisturbed, texts: list[str]) -> int:
    """Runs the command on a small disk, which is then made large; whether it was too small."""
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    size = used + 64 * 2**10 + int((known[2] - used) * rng.uniform(0.0, 0.95))
    mount("-o", f"remount,size={size}", str(folder))
    code, text = finished(job, folder, "full")
    texts.append(text)
    mount("-o", "remount,size=1g", str(folder))
    return int(code != 0)


def forbidden(
    job: Job, folder: Path, rng: random.Random, known: Undisturbed, texts: list[str]
) -> int:
    """Takes away the permission to write at an operation, and gives it again."""
    at = rng.randint(1, max(1, known[0]))
    Path(f"{folder}.done").unlink(missing_ok=True)
    hook = {"SOAK_FOLDER": folder, "SOAK_AT": at, "SOAK_ACT": "forbid"}
    code, text = finished(job, folder, "forbidden", **hook)
    texts.append(text)
    for place in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        place.chmod(0o755)
    return int(code != 0)


def race(job: Job, folder: Path, rng: random.Random, known: Undisturbed, texts: list[str]) -> int:
    """Starts the command twice, within its own time."""
    processes = [start(job, folder, "")]
    time.sleep(rng.uniform(0, known[1]))
    processes.append(start(job, folder, ""))
    for process in processes:
        texts.append(process.communicate(timeout=_TIMEOUT_S)[0])
    return int(any(process.returncode for process in processes))


FAULTS = {"kill": kill, "full": full, "forbidden": forbidden, "race": race}


def start(job: Job, folder: Path, fault: str, **hook: object) -> subprocess.Popen[str]:
    """Starts the command of a job."""
    return subprocess.Popen(
        [*(OBEDIENT if fault == "forbidden" else ()), *job.command(folder)],
        cwd=ROOT,
        env=environment(folder) | {name: str(value) for name, value in hook.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(job: Job, folder: Path, fault: str, **hook: object) -> tuple[int, str]:
    """The exit status of the command, and what it wrote."""
    process = start(job, folder, fault, **hook)
    text, _ = process.communicate(timeout=_TIMEOUT_S)
    return process.returncode, text


def environment(folder: Path) -> dict[str, str]:
    """Variables for a process: its own cache of programs, and the hook's folder."""
    path = [str(ROOT / "benchmarks" / "soak_hook"), str(ROOT)]
    kept = {k: v for k, v in os.environ.items() if k != "XDG_CACHE_HOME"}
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
    }


def children(pid: int) -> list[psutil.Process]:
    """The processes that a process has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


@contextlib.contextmanager
def emptied(folder: Path, fault: str) -> Iterator[None]:
    """A new folder for a job, removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if fault == "full":
        mount("-t", "tmpfs", "-o", "size=1g", "none", str(folder))
    try:
        yield
    finally:
        if fault == "full":
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)


def mount(*words: str) -> None:
    """Calls mount."""
    subprocess.run(["mount", *words], check=True)


def digests(job: Job, folder: Path) -> dict[str, str]:
    """The digest of each result by its path; times are no result."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and re.fullmatch(job.results, path.name):
            content = path.read_bytes()
            if path.suffix == ".json":
                content = re.sub(rb'"[a-z_]*seconds[a-z_]*": [\d.]+', b"", content)
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


if __name__ == "__main__":
    main()
