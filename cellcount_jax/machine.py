"""What this machine has, on Linux, macOS and Windows."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil


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
