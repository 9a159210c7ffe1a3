"""The folder of a run: its config.json, whose run it is, and its checkpoints (orbax).

A checkpoint is a folder `checkpoints/<step>`, written under another name and renamed when
whole. Arrays are stored without their placement, so that a run restores on any number of
devices. With several processes only the first calls these functions.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError
from cellcount_jax.images import files, locks
from cellcount_jax.inference import model_file
from cellcount_jax.training import parallel
from cellcount_jax.training.step import create_train_state

Tree = TypeVar("Tree")

# What a run writes beside its config.json.
WRITTEN = (model_file.MODEL_FILE, "checkpoints", "evaluation", "metrics.jsonl")
# A run is the same whatever tiles an image is cut into for prediction.
_MAY_DIFFER = ("predict.max_voxels",)
# What must be free on the disk: times the arrays of a checkpoint, and bytes for their description.
_SPARE, _SPARE_BYTES = 1.5, 4 * 2**20
_FULL = "RESOURCE_EXHAUSTED"  # TensorStore's word for a full disk


def is_run(folder: Path) -> bool:
    """Whether a folder has the config.json of a run, of this version or another."""
    try:
        stored = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    sections = ("data", "target", "model", "train")
    return isinstance(stored, dict) and all(isinstance(stored.get(s), dict) for s in sections)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Locks a workdir for the training that writes it, however many processes train.

    Raises:
      InputError: another training does, the error says which process; or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        lock = locks.locked_folder(
            workdir,
            busy=f"{workdir}: another training is writing there",
            remedy="wait until it has ended, or use another workdir",
        )
        parallel.on_first(lambda: stack.enter_context(lock))
        yield


def claim(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Makes a folder this config's, or makes sure that it already is.

    Raises:
      InputError: it is another run's; names the settings that differ. Or it has files or folders
        of the names that a run writes.
    """
    if (workdir / "config.json").exists():
        compare(workdir, config)
        return
    if (workdir / "checkpoints").exists():
        raise InputError(f"{workdir}: holds checkpoints without a config.json; use another workdir")
    for name in WRITTEN:
        if os.path.lexists(workdir / name):
            raise InputError(
                f"{workdir / name}: is not of a run, and would be replaced; move it, or use another"
                " workdir"
            )
    files.write_json(workdir / "config.json", settings.to_json(config))


def compare(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Makes sure that a folder is that of a run of this config.

    Raises:
      InputError: it is not; names the settings that differ.
    """
    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise InputError(f"{path}: is not of a run; use another workdir")
        stored = settings.flatten(content)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so there is no run to evaluate") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error
    given = settings.flatten(settings.to_json(config))
    # A setting that is newer than the run has the value there that changes nothing.
    defaults = settings.flatten(settings.to_json(settings.default_config()))
    stored = {**defaults, **settings.BEFORE_ITS_TIME, **stored}
    differing = [
        f"{key} (there {stored.get(key, 'missing')!r}, given {given.get(key, 'missing')!r})"
        for key in sorted(stored.keys() | given.keys())
        if stored.get(key, "missing") != given.get(key, "missing") and key not in _MAY_DIFFER
    ]
    if len(differing) == 1 and differing[0].startswith("init_digest "):
        raise InputError(
            f"{workdir}: its run began with another model than {config.init_from} is now; put that"
            f" one back, or use another workdir ({differing[0]})"
        )
    if differing:
        raise InputError(
            f"{workdir}: holds a run of another config; use another workdir, or the same"
            f" settings. They differ in {', '.join(differing)}"
        )


def save(folder: Path, step: int, tree: Any, *, keep: int) -> None:
    """Writes a checkpoint, whole or not at all, and removes all but the newest `keep`.

    Args:
      folder: the workdir's `checkpoints`.
      step: number of the finished step.
      tree: arrays, on any devices.
      keep: how many checkpoints stay.

    Raises:
      OSError: the disk is full, or cannot be written.
    """
    path = folder.absolute() / str(step)
    values = jax.device_get(tree)
    needed = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(values))
    folder.mkdir(parents=True, exist_ok=True)
    # Where a disk fills up, TensorStore's threads print tracebacks.
    if shutil.disk_usage(folder).free < _SPARE * needed + _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with _quiet():
        try:
            _checkpointer().save(path, args=ocp.args.StandardSave(values), force=True)
        except (OSError, ValueError) as error:  # the latter of its storage layers
            known = errno.ENOSPC if _FULL in str(error) else errno.EIO
            number = getattr(error, "errno", None) or known
            raise OSError(number, os.strerror(number), str(path)) from error
    # A later step than the one just finished is a damaged one that was passed over.
    kept = [s for s in steps(folder) if s <= step][-keep:]
    for other in set(steps(folder)) - set(kept):
        shutil.rmtree(folder / str(other))


def steps(folder: Path) -> list[int]:
    """The steps that there are checkpoints of, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def latest(folder: Path) -> int | None:
    """The step of the newest checkpoint, whole or damaged; None if there is none."""
    return max(steps(folder), default=None)


def restore(folder: Path, like: Tree) -> tuple[int, Tree] | None:
    """Reads the newest checkpoint that is whole; the log names those that were passed over.

    Args:
      folder: the workdir's `checkpoints`.
      like: a tree of the same structure, shapes and types.

    Returns:
      Step and tree (NumPy arrays), or None if there is no checkpoint at all.

    Raises:
      InputError: there are checkpoints, and none of them can be read, or the newest that can is
        of arrays of other shapes.
    """
    available = steps(folder)
    template = ocp.args.StandardRestore(jax.device_get(like))
    for step in reversed(available):
        path = folder.absolute() / str(step)
        try:
            with _quiet():
                tree = _checkpointer().restore(path, args=template)
        except (PermissionError, MemoryError):
            raise
        # Orbax passes on the errors of its storage layers; any of them means a damaged checkpoint.
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            logging.warning("%s: damaged, passed over (%s)", path, reason[0][:200])
            continue
        # Orbax gives arrays as they were stored, of other shapes than asked for too.
        if _shapes(tree) != _shapes(like):
            raise InputError(
                f"{path}: is of another network than this config and data make, for example for"
                " images with another number of channels; use another workdir"
            )
        return step, tree
    if available:
        raise InputError(
            f"{folder}: none of the checkpoints of steps {available} can be read; remove the folder"
            " to train from the start"
        )
    return None


def restore_variables(
    workdir: Path, config: ml_collections.ConfigDict, *, channels: int
) -> tuple[int, Any]:
    """Step and network variables of a run's latest whole checkpoint.

    Raises:
      InputError: there is none.
    """
    shapes = jax.eval_shape(
        lambda: create_train_state(jax.random.key(0), config, channels=channels)
    )
    like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    restored = restore(workdir / "checkpoints", like)
    if restored is None:
        raise InputError(f"{workdir / 'checkpoints'}: holds no checkpoint; train first")
    return restored[0], restored[1].variables


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [np.shape(leaf) for leaf in jax.tree.leaves(tree)]


@functools.cache
def _checkpointer() -> ocp.Checkpointer:
    # Orbax would otherwise wait for the other processes.
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax reports each of its steps, and the traceback of an error, which it raises as well.

    Python prints an error in one of its threads too.
    """
    before, hook = logging.get_verbosity(), threading.excepthook
    logging.set_verbosity(logging.FATAL)
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.set_verbosity(before)
