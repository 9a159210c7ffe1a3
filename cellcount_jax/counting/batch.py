"""The inputs of a count, one after the other: a row each in counts.csv, also of those that fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from cellcount_jax.counting import counts_table
from cellcount_jax.errors import InputError, one_line
from cellcount_jax.images.inputs import Input
from cellcount_jax.images.zarr_stores import Remote
from cellcount_jax.progress import images

# Writes the results of an input; gives values for its row of the table.
Finish = Callable[[], Mapping[str, Any]]


class TakenError(InputError):
    """The folder for the results of an input may not be written to."""


@contextlib.contextmanager
def claiming() -> Iterator[None]:
    """Makes a `TakenError` of an input error: of what claims the folder for the results."""
    try:
        yield
    except InputError as error:
        raise TakenError(str(error)) from error


def count_each(
    inputs: Sequence[Input],
    table: Path | None,
    count: Callable[[Input], Finish],
    *,
    failed: Callable[[Exception, str], None],
) -> list[dict[str, Any]]:
    """Counts inputs, and keeps the row of each as soon as it is known.

    While the cells of an input are looked for, a thread finishes the one before it: it writes its
    results and its row. One input at most waits for that.

    Args:
      inputs: the inputs.
      table: counts.csv; None = not written.
      count: looks for the cells of an input; gives what writes the results, is called in the
        thread, and gives values for the input's row.
      failed: called with the error of an input that could not be counted, and its text, if it is
        not the only one.

    Returns:
      A row an input, with an 'error' where it could not be counted.

    Raises:
      InputError: the table cannot be written. Of the only input any error is raised.
    """
    rows: list[dict[str, Any]] = []

    def settle(item: Input, finish: Finish | None, error: Exception | None) -> None:
        row: dict[str, Any] = dict.fromkeys(("input", "count", "voxels", "doubts", "folder"))
        remote = isinstance(item.path, Remote)
        place = str(item.path) if remote else os.path.abspath(item.path)
        row |= {"input": place, "folder": item.name, "error": ""}
        row |= {} if item.scene is None else {"scene": item.scene}
        try:
            row |= finish() if finish is not None else {}
        except Exception as caught:
            error = caught
        if error is not None:
            row["error"] = one_line(error, otherwise=str(item.path))
        rows.append(row)
        if table is not None:
            # Results that are not touched keep their row.
            counts_table.merge(table, row, replace=not isinstance(error, TakenError))
        if error is not None:
            if len(inputs) == 1:
                raise error
            failed(error, row["error"])
        bar.update()

    with images(len(inputs)) as bar, futures.ThreadPoolExecutor(1) as thread:
        before: futures.Future[None] | None = None
        for item in inputs:
            finish, error = None, None
            try:
                finish = count(item)
            except Exception as caught:
                error = caught
            if before is not None:
                before.result()
            before = thread.submit(settle, item, finish, error)
        if before is not None:
            before.result()
    return rows
