"""What this machine has, on Linux, macOS and Windows."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

import psutil

_ARENA_MAX = -8  # M_ARENA_MAX in glibc's malloc.h


def memory_bytes() -> int:
    """The memory of the machine in bytes, whatever of it is in use."""
    return int(psutil.virtual_memory().total)


def core_count() -> int:
    """How many processor cores this process may use; all where the system cannot say it."""
    try:
        return len(psutil.Process().cpu_affinity())
    except (AttributeError, psutil.Error):  # macOS has no such thing
        return os.cpu_count() or 1


def processor_facts() -> list[str]:
    """What the system says of its processors, on Linux lines "name : value"; else a name alone."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return [platform.processor()]


def share_heap() -> None:
    """Makes all threads of this process share one heap from now on, where the C library has such
    an option (glibc).

    Else each has one of its own, which keeps what was freed there: 0.6 GB while a large volume is
    counted. What a user has set in the environment takes precedence.
    """
    settings = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ or "arena_max" in settings:
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_ARENA_MAX, 1)
