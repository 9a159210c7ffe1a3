"""A run's folder belongs to one config: the same command goes on there, another one may not."""

from __future__ import annotations

import json
from pathlib import Path

import ml_collections

from cellcount_jax import config as settings
from cellcount_jax import writers
from cellcount_jax.errors import InputError

# How an image is cut for prediction changes nothing in a run.
_MAY_DIFFER = ("predict.max_voxels",)


def claim(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Makes a folder this config's, or makes sure that it already is.

    Raises:
      InputError: it is another run's; names the settings that differ.
    """
    if (workdir / "config.json").exists():
        compare(workdir, config)
        return
    if (workdir / "checkpoints").exists():
        raise InputError(f"{workdir}: holds checkpoints without a config.json; use another workdir")
    writers.write_json(workdir / "config.json", settings.to_json(config))


def compare(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Makes sure that a folder is that of a run of this config.

    Raises:
      InputError: it is not; names the settings that differ.
    """
    path = workdir / "config.json"
    try:
        stored = settings.flatten(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so there is no run to evaluate") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error
    given = settings.flatten(settings.to_json(config))
    differing = [
        f"{key} (there {stored.get(key, 'missing')!r}, given {given.get(key, 'missing')!r})"
        for key in sorted(stored.keys() | given.keys())
        if stored.get(key, "missing") != given.get(key, "missing") and key not in _MAY_DIFFER
    ]
    if differing:
        raise InputError(
            f"{workdir}: holds a run of another config; use another workdir, or the same"
            f" settings. They differ in {', '.join(differing)}"
        )
