"""What matters most on an accelerator that is lent for a quarter of an hour, in 9 minutes.

    python benchmarks/quarter_hour.py
    python benchmarks/quarter_hour.py --tiny    # to try it on any machine, writes no results
    python benchmarks/quarter_hour.py --pack=runs/pack    # what it needs to travel

Run it from the repository's root. In this order, each a process of its own:

step      accelerator.py: a step of configs/vgg.py:paper against PyTorch on the same card
vgg       configs/vgg.py:paper shortened to the time there is, with and without consistency
nuclei2d  10 labelled images of nuclei2d and 200 unlabelled ones, with and without consistency
counting  megavoxels a second of the models that come with the program

A part may take its share of the time that is left, and is ended then; what one leaves goes to the
next ones. Each has its own file in --results, written as soon as it is over: with the rows that it
has measured, and why there are no more of them. With --pack the images and packages that a machine
without a network lacks are put into a folder, with a run.sh (`quarter_hour_pack.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import quarter_hour_images
import quarter_hour_pack
import timing
from ablation_run import ROOT, git_commit, machine

from cellcount_jax.errors import InputError
from cellcount_jax.images import files

# Of the time for all parts.
SHARES = {"step": 150, "vgg": 210, "nuclei2d": 120, "counting": 50}
# Of a part's time: starting, importing and writing are not what the part itself measures.
_SPARE = 10.0  # seconds
_LEAST = 5.0  # seconds, for a part to begin at all
_LINES_OF_AN_ERROR = 12
# Should this process be killed, a part still ends, and leaves the accelerator.
_ALARMED = (
    "import os, signal, sys; signal.alarm(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a part: 'done', 'skipped', 'failed' or 'out of time', and why."""

    state: str
    reason: str = ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts (%(default)s)")
    parser.add_argument("--only", default="", help=f"parts, with commas: {','.join(SHARES)}")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="images")
    parser.add_argument("--results", type=Path, help="folder (results/quarter_hour)")
    parser.add_argument("--tiny", action="store_true", help="to try it, also on a CPU")
    quarter_hour_pack.add_arguments(parser)
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 60:
        parser.error(f"--minutes {options.minutes:g}: must be above 0 and at most 60")
    parts = [part for part in options.only.split(",") if part] or list(SHARES)
    for part in parts:
        if part not in SHARES:
            parser.error(f"--only {part}: no such part; there are {', '.join(SHARES)}")
    if options.pack is not None:
        try:
            print(quarter_hour_pack.pack(options))
        except (InputError, OSError) as error:
            sys.exit(f"error: {error}")
        return
    own = (ROOT / "results").resolve()
    if options.results is None:
        # What a trial gives is not to be taken for a result.
        scratch = tempfile.mkdtemp(prefix="quarter_hour_") if options.tiny else ""
        options.results = Path(scratch) if scratch else own / "quarter_hour"
    elif options.tiny and own in (options.results.resolve(), *options.results.resolve().parents):
        parser.error(f"--results {options.results}: a trial writes nothing there")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    sys.exit(run([part for part in SHARES if part in parts], options))


def run(parts: Sequence[str], options: argparse.Namespace) -> int:
    """Runs parts one after the other; 1 if one did not do all of its work, else 0."""
    end = time.monotonic() + 60 * options.minutes
    found = machine()
    if found["device"].lower() == "cpu" and not options.tiny:
        sys.exit("error: JAX finds no GPU or TPU here, so there is nothing to measure (not run)")
    bad = False
    with tempfile.TemporaryDirectory(prefix="quarter_hour_") as scratch:
        for i, part in enumerate(parts):
            began = time.monotonic()
            limit = (end - began) * SHARES[part] / sum(SHARES[name] for name in parts[i:])
            output = Path(scratch) / f"{part}.json"
            outcome = run_part(part, limit, output, options)
            content = _content(output)
            bad |= outcome.state not in ("done", "skipped")
            path = options.results / f"{part}.json"
            files.write_json(
                path,
                {
                    "command": shlex.join(["python", *sys.argv]),
                    "commit": git_commit(),
                    "machine": content.get("machine", found),
                    "state": outcome.state,
                    "reason": outcome.reason,
                    "seconds": round(time.monotonic() - began, 1),
                    "limit": round(limit, 1),
                    "rows": content.get("rows", []),
                },
            )
            for row in content.get("rows", []):
                timing.tell(row)
            reason = f": {outcome.reason}" if outcome.reason else ""
            print(f"[{part}] {outcome.state}{reason}; written to {path}", flush=True)
    return int(bad)


def run_part(part: str, limit: float, output: Path, options: argparse.Namespace) -> Outcome:
    """Runs a part in a process that is ended at its limit, with all that it started.

    Args:
      part: of `SHARES`.
      limit: seconds.
      output: the JSON file that it writes, in a scratch folder.
      options: of the command line.
    """
    if limit < _LEAST:
        return Outcome("skipped", f"{max(limit, 0):.0f} s were left for it")
    missing = lacking(part, options.data, tiny=options.tiny)
    if missing:
        return Outcome("skipped", missing)
    print(f"[{part}] begins, at most {limit:.0f} s", flush=True)
    log = output.with_suffix(".log")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _ALARMED,
                str(math.ceil(limit + _SPARE)),
                *command(part, limit, output, options),
            ],
            cwd=ROOT,
            env=environment(output.parent, tiny=options.tiny),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return Outcome("out of time", f"ended after {limit:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it started may outlive it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        lines = log.read_text(errors="replace").splitlines()[-_LINES_OF_AN_ERROR:]
        return Outcome("failed", "\n".join([f"exit status {status}, after", *lines]))
    return Outcome("done")


def lacking(part: str, data: Path, *, tiny: bool) -> str:
    """Why a part cannot run here; '' if it can."""
    if part == "step" and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    folders = {"vgg": ("vgg",), "nuclei2d": (quarter_hour_images.PREPARED, "nuclei2d")}
    names = () if tiny else folders.get(part, ())
    if names and not any((data / name).is_dir() for name in names):
        return f"there is no folder {' or '.join(names)} in {data}"
    return ""


def command(part: str, limit: float, output: Path, options: argparse.Namespace) -> list[str]:
    """What computes a part."""
    if part == "step":
        tiny = ("--tiny", "--allow-cpu", "--no-compile") if options.tiny else ()
        return [sys.executable, "benchmarks/accelerator.py", *tiny, f"--output={output}"]
    return [
        *(sys.executable, "benchmarks/quarter_hour_parts.py", part),
        f"--data={options.data.resolve()}",
        f"--seconds={max(limit - _SPARE, limit / 2)}",
        f"--workdir={output.with_suffix('')}",
        f"--output={output}",
        *(["--tiny"] if options.tiny else []),
    ]


def environment(scratch: Path, *, tiny: bool) -> Mapping[str, str]:
    """Of all parts: what one has compiled, and found to be the fastest, serves the next."""
    return {
        # Compiling is nearly all that a trial does.
        **({"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if tiny else {}),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **os.environ,
    }


def _content(path: Path) -> dict[str, Any]:
    """Of a JSON file; nothing where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


if __name__ == "__main__":
    main()
