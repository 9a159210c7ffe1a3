"""All of `cellcount count` but what it prints at the end: from paths to the rows of counts.csv."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cellcount_jax import cache
from cellcount_jax.counting import cluster, count, counts_page, counts_table, engines
from cellcount_jax.counting.options import Options
from cellcount_jax.images import inputs
from cellcount_jax.inference.job import Engine, Job
from cellcount_jax.inference.trained_model import TrainedModel


def count_paths(
    model: TrainedModel,
    paths: Sequence[str | os.PathLike[str]],
    output: Path,
    *,
    options: Options,
    max_voxels: int | None = None,
    thorough: bool | None = None,
    every_tile: bool = False,
    scheduler: str | None = None,
    show: Callable[[str], None] = lambda line: None,
    failed: Callable[[Exception, str], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Counts the cells in files and folders.

    Args:
      model: from `load_model`.
      paths: files and folders.
      output: see `count.count_files`.
      options: likewise; the scene is that of each file.
      max_voxels: that are computed at a time; None = as trained.
      thorough: whether to take the mean over mirror images; None = as the model says.
      every_tile: whether tiles too dark for a cell are computed, see `faint.py`.
      scheduler: see `cluster.engines_on`; None = this process.
      show: see `count.count_files`.
      failed: likewise.

    Returns:
      The rows of counts.csv.

    Raises:
      InputError: see `inputs.find_inputs` and `count.count_files`.
    """
    cache.keep_programs()
    if scheduler == cluster.LOCAL:
        # A worker has the GPU; this process leaves it the memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if max_voxels is not None:
        model = model.with_settings({"predict.max_voxels": max_voxels})
    if thorough is not None:
        model = model.with_settings({"predict.flips": thorough})
    if every_tile:
        model = model.with_settings({"predict.every_tile": True})
    selection = options.selection
    found = inputs.find_inputs(
        paths,
        ndim=model.config.data.ndim,
        scene=None if selection.scene is None else str(selection.scene),
        axes=selection.axes,
        reserved=(counts_table.NAME, counts_page.NAME),
        show=show,
    )
    # Each input has the scene by its one name.
    options = dataclasses.replace(options, selection=dataclasses.replace(selection, scene=None))
    with contextlib.ExitStack() as stack:
        engine: Callable[[Job], Engine] = engines.in_threads
        if scheduler is not None:
            engine = stack.enter_context(cluster.engines_on(scheduler))
        return count.count_files(
            model,
            found,
            output,
            options=options,
            name=model.name,
            show=show,
            failed=failed,
            engine=engine,
        )
