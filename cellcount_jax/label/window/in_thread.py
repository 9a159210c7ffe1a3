"""Work in another thread than its panel's: its progress, the way to stop it, and its result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import QProgressBar

from cellcount_jax.errors import InputError


class WorkBar(QProgressBar):
    """A thread, and the bar of its progress, shown while it runs.

    Args:
      stopped: the message of the exception that ends the thread where it is stopped.

    Attributes:
      ended: emitted when the thread is over, after its result was taken.
    """

    ended = QtSignal()
    _progressed = QtSignal(str, int, int)  # title, total, done

    def __init__(self, *, stopped: str) -> None:
        super().__init__(visible=False)
        self._stopped = stopped
        self._worker: Any = None
        self._progressed.connect(self._show_progress)

    @property
    def busy(self) -> bool:
        """Whether a thread is running."""
        return self._worker is not None

    @property
    def stopping(self) -> bool:
        """Whether a thread that is running is to end."""
        return self._worker is not None and bool(self._worker.abort_requested)

    def run(self, make: Callable[[], Any], made: Callable[[Any], None]) -> None:
        """Runs `make` in a thread, and then here `made` with its result or error."""
        self._worker = create_worker(result_of, make)
        self._worker.returned.connect(made)
        self._worker.finished.connect(self._end)
        self.setRange(0, 0)
        self.setVisible(True)
        self._worker.start()

    def stop(self) -> None:
        """Ends a thread that is running, at its next step."""
        if self._worker is not None:
            self._worker.quit()

    @contextlib.contextmanager
    def progress(self, title: str, total: int) -> Iterator[Any]:
        """Progress of what `run` runs, in its thread; see `job.Progress`."""
        yield _Steps(self, title, total)

    def step(self, title: str, total: int, done: int) -> None:
        """Shows what is done, from the thread; an exception where that is to end."""
        if self.stopping:
            raise InputError(self._stopped)
        self._progressed.emit(title, total, done)

    def _show_progress(self, title: str, total: int, done: int) -> None:
        self.setFormat(f"{title} %p %")
        self.setRange(0, 100)
        self.setValue(round(100 * done / max(total, 1)))

    def _end(self) -> None:
        self._worker = None
        self.setVisible(False)
        self.ended.emit()


class _Steps:
    """The steps of a task in a thread."""

    def __init__(self, bar: WorkBar, title: str, total: int) -> None:
        self._bar, self._title, self._total, self._done = bar, title, total, 0

    def update(self, done: int) -> None:
        """Adds to what is done; an exception where the thread is to end."""
        self._done += done
        self._bar.step(self._title, self._total, self._done)


def result_of(make: Callable[[], Any]) -> Any:
    """The result of a function, or an error that the user can act on."""
    try:
        return make()
    except (InputError, OSError, MemoryError) as error:
        return error
