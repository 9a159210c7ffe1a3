"""An environment of its own for each program of `peers.py`, with pinned versions."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peers_cells import Method

_LINES_OF_AN_ERROR = 3
_VERSIONS = """
import json, platform, sys
from importlib import metadata
found = {name: metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version(), **found}))
"""

Run = Callable[..., Any]


class NotInstalled(Exception):
    """A program cannot be had here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """A Python that has a program, and the versions of what matters there."""

    python: str
    versions: Mapping[str, str]


def prepare(name: str, method: Method, folder: Path, *, run: Run = subprocess.run) -> Environment:
    """The environment of a program; it is made where it is missing, which can take minutes.

    Args:
      name: of its folder; programs with the same requirements can share one.
      method: the program.
      folder: of all environments.
      run: `subprocess.run`, or for a test what takes its place.

    Raises:
      NotInstalled: the packages cannot be installed, or not be used.
    """
    if not method.requirements:
        return Environment(sys.executable, _versions(sys.executable, method.packages, run))
    place = folder / name
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if python.exists():
        try:
            return Environment(str(python), _checked(str(python), method, run))
        except NotInstalled:
            pass  # not finished, or of other versions
    _call([sys.executable, "-m", "venv", str(place)], run)
    _call([str(python), "-m", "pip", "install", "--quiet", *method.requirements], run)
    return Environment(str(python), _checked(str(python), method, run))


def _checked(python: str, method: Method, run: Run) -> Mapping[str, str]:
    """The versions, which must be those that are wanted."""
    versions = _versions(python, method.packages, run)
    for requirement in method.requirements:
        package, _, wanted = requirement.partition("==")
        # Wheels of torch for processors alone end with '+cpu'.
        if package in versions and versions[package].partition("+")[0] != wanted:
            raise NotInstalled(f"{package} {versions[package]} is there instead of {wanted}")
    return versions


def _versions(python: str, packages: Sequence[str], run: Run) -> Mapping[str, str]:
    found: dict[str, str] = json.loads(_call([python, "-c", _VERSIONS, *packages], run))
    return found


def _call(command: Sequence[str], run: Run) -> str:
    done = run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotInstalled(" / ".join(lines[-_LINES_OF_AN_ERROR:]) or f"status {done.returncode}")
    return str(done.stdout)
