"""What `benchmarks/soak.py` does to a process, and to those that it starts, at its n-th operation.

Python imports a module of this name at its start, from the first folder of PYTHONPATH. An
operation is one that changes the files in SOAK_FOLDER: opening to write, renaming, removing, making
a folder. What is written by other libraries' own code is none, which kills at any moment are for.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("SOAK_FOLDER", "")
LOG = os.environ.get("SOAK_LOG", "")  # a file that gets a byte an operation, of all processes
AT = int(os.environ.get("SOAK_AT", "0"))  # the operation, counted in each process; 0 is none
ACT = os.environ.get("SOAK_ACT", "kill")  # or forbid: no folder can be written to any more
DELAY_S = float(os.environ.get("SOAK_DELAY", "0"))  # how long after
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}

state = threading.local()
number = 0


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Counts the operations; called by the interpreter before each event."""
    global number
    if getattr(state, "acting", False) or not is_change(event, arguments):
        return
    state.acting = True
    try:
        number += 1
        if LOG:
            with open(LOG, "ab", buffering=0) as log:
                log.write(b".")
        if number == AT:
            act()
    finally:
        state.acting = False


def is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an event changes a file in the folder."""
    if event == "open":
        flags = arguments[2] or 0
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return False
    elif event not in CHANGES:
        return False
    path = arguments[0]
    return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(FOLDER)


def act() -> None:
    """Does what is asked for, in one process of all."""
    try:
        os.close(os.open(f"{FOLDER}.done", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if ACT == "forbid":
        folders = [Path(FOLDER), *(p for p in Path(FOLDER).rglob("*") if p.is_dir())]
        for folder in folders:
            folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    elif DELAY_S:
        timer = threading.Timer(DELAY_S, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


if FOLDER:
    sys.addaudithook(watch)
