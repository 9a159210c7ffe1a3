"""Whose a folder of results is: the same count goes on there, another may not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellcount_jax import writers
from cellcount_jax.errors import InputError

FILE = "count.json"


def check(folder: Path, identity: Mapping[str, Any]) -> None:
    """Makes sure that a folder is not another count's.

    Args:
      folder: of the results of one input.
      identity: all that the result depends on but the threshold, for JSON.

    Raises:
      InputError: it is; names what differs.
    """
    if differing := _differing(folder, identity):
        raise InputError(
            f"{folder}: holds the results of another count, which differs in"
            f" {', '.join(differing)}; give another --output, or --overwrite to replace them"
        )


def take(folder: Path, identity: Mapping[str, Any]) -> None:
    """Makes a folder a count's; another's results in it are deleted."""
    if _differing(folder, identity):
        shutil.rmtree(folder)
    if not (folder / FILE).exists():
        writers.write_json(folder / FILE, identity)


def _differing(folder: Path, identity: Mapping[str, Any]) -> list[str]:
    """What differs, in words; nothing where there are no results."""
    path = folder / FILE
    if not path.exists() and not (folder / "summary.json").exists():
        return []
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):
        return [f"what it says of itself ({path.name} is missing or damaged)"]
    given = json.loads(json.dumps(identity))
    return [
        f"{key} (there {stored.get(key)!r}, given {given.get(key)!r})"
        for key in sorted(stored.keys() | given.keys())
        if stored.get(key) != given.get(key)
    ]
