"""Items that are read one after the other, while others are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cellcount_jax.machine import core_count

_MAX_THREADS = 4  # each has a part in memory, and one more waits

Item = TypeVar("Item")
Values = TypeVar("Values")
Result = TypeVar("Result")


def in_turn(
    items: Iterable[Item], read: Callable[[Item], Values], work: Callable[[Item, Values], Result]
) -> Iterator[Result]:
    """What is made of each of some items, in their order.

    Args:
      items: what is read.
      read: reads an item; called in this thread, so that progress is shown from here.
      work: makes something of an item and of what was read; called in other threads.

    Raises:
      Errors of both.
    """
    threads = min(core_count(), _MAX_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(work, item, read(item)))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
