"""Stopping a run between two steps, as a scheduler or Ctrl-C asks for."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def requested() -> Iterator[Callable[[], bool]]:
    """Gives a function: whether SIGTERM or Ctrl-C was received. The second one kills."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may handle signals; a notebook or a plugin may use another.
        yield lambda: False
        return
    received: list[int] = []
    before: dict[int, Any] = {}

    def remember(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        before[number] = signal.signal(number, remember)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
