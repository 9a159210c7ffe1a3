"""What runs in another thread than its panel's: progress that can be stopped, and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cellcount_jax.errors import InputError


class Panel(Protocol):
    """A panel that waits for a thread.

    Attributes:
      progressed: a signal with a title, all that there is to do, and what is done.
    """

    progressed: Any

    @property
    def stopping(self) -> bool:
        """Whether the thread is to end."""


class Steps:
    """A progress bar of a panel, for its thread; see `job.Progress`.

    Args:
      panel: whose bar it is.
      title: of what is done.
      total: how much there is to do.
      stopped: the message of the exception that ends the thread.
    """

    def __init__(self, panel: Panel, title: str, total: int, *, stopped: str) -> None:
        self._panel, self._title, self._total, self._done = panel, title, total, 0
        self._stopped = stopped

    def update(self, done: int) -> None:
        """Adds to what is done; an exception where the thread is to end."""
        if self._panel.stopping:
            raise InputError(self._stopped)
        self._done += done
        self._panel.progressed.emit(self._title, self._total, self._done)


def result_of(make: Callable[[], Any]) -> Any:
    """The result of a function, or an error that the user can act on."""
    try:
        return make()
    except (InputError, OSError, MemoryError) as error:
        return error
