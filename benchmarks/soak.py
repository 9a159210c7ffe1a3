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
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import timing
from soak_jobs import ROOT, Job, environment, jobs, prepared

# Root may write anywhere; without this capability it obeys permissions.
OBEDIENT = ("setpriv", "--bounding-set", "-dac_override")
_TIMEOUT_S = 600
_MOST_KILLS = 3
_MOST_TRIES = 8  # until a command ends well, once nothing disturbs it
_DELAY_S = 0.02  # at most, after an operation


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


def children(pid: int) -> list[psutil.Process]:
    """The processes that a process has started, but Python's own, whose death Python tells."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(pid).children(recursive=True)
        return [c for c in started if "resource_tracker" not in " ".join(c.cmdline())]
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
