"""What tifffile logs of a TIFF file is an error.

tifffile logs the damage that it finds and fills the gaps with zeros, which would be counted as
background.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellcount_jax.errors import InputError


@contextlib.contextmanager
def no_complaints(path: Path) -> Iterator[None]:
    """Makes an error of what tifffile logs, from warnings up, while the block reads a file.

    Args:
      path: of the file.

    Raises:
      InputError: at the end of the block, with the first complaint.
    """
    messages: list[str] = []
    with _collecting(messages):
        yield
    if messages:
        raise InputError(
            f"{path}: damaged or not a regular TIFF file ({_plain(messages[0])}); save it again,"
            " for example with ImageJ."
        )


# What the blocks collect that read now, by their threads, those around others first.
_collected: dict[int, list[list[str]]] = {}
_before: dict[str, Any] = {}  # of the logger, while there are blocks
_lock = threading.Lock()


@contextlib.contextmanager
def _collecting(messages: list[str]) -> Iterator[None]:
    """Adds to a list what tifffile logs, which is not shown.

    What tifffile logs in threads of its own, for whichever block, all blocks that read now collect.
    """
    logger, thread = logging.getLogger("tifffile"), threading.get_ident()
    with _lock:
        if not _collected:
            _before.update(level=logger.level, disabled=logger.disabled)
            logger.filters.insert(0, _collect)
            logger.setLevel(logging.WARNING)
            logger.disabled = False
        _collected.setdefault(thread, []).append(messages)
    try:
        yield
    finally:
        with _lock:
            _collected[thread].pop()
            if not _collected[thread]:
                del _collected[thread]
            if not _collected:
                logger.removeFilter(_collect)
                logger.setLevel(_before["level"])
                logger.disabled = _before["disabled"]


def _collect(record: logging.LogRecord) -> bool:
    """A filter that lets nothing through."""
    if record.levelno >= logging.WARNING:
        with _lock:
            own = _collected.get(record.thread or 0)
            for blocks in [own] if own else _collected.values():
                blocks[-1].append(record.getMessage())
    return False


def _plain(message: str) -> str:
    """A library's message without the object that it begins with, and without a full stop."""
    return re.sub(r"^<.*?>\s+", "", message.strip()).rstrip(".")
