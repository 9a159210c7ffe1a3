"""A folder is written by one process at a time, and a process that died holds nothing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images import locks

# A line "hold KIND FOLDER" starts a process that holds a folder, and gives its number; it has a
# child of its own that lives on, "forked" from its memory as some ways of starting workers do it,
# or "started" as another program. "kill NUMBER" ends it. Forks save the time of importing.
HOLDERS = """
import os, signal, subprocess, sys
from pathlib import Path
from cellcount_jax.images import locks

def hold(kind, folder):
    with locks.locked_folder(Path(folder), busy="", remedy=""):
        if kind == "forked" and not os.fork():
            signal.pause()
        if kind == "started":
            subprocess.Popen(["sleep", "600"])
        print(os.getpid(), flush=True)
        signal.pause()

for line in sys.stdin:
    act, what, *folder = line.split()
    if act == "kill":
        os.kill(int(what), signal.SIGKILL)
        os.waitpid(int(what), 0)
        print("dead", flush=True)
    elif not os.fork():
        hold(what, *folder)
"""


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[..., str]]:
    """Has processes hold folders, or be killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(*words: str | Path) -> str:
            print(*words, file=process.stdin, flush=True)
            return process.stdout.readline().strip()  # type: ignore[union-attr]

        try:
            yield ask
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    return locks.locked_folder(folder, busy=f"{folder}: is taken", remedy="wait")


def test_a_folder_that_another_process_holds(tmp_path: Path, ask: Callable[..., str]) -> None:
    folder = tmp_path / "new" / "results"
    number = ask("hold", "alone", folder)
    who = rf"process {number} on {re.escape(platform.node())}, since \d{{4}}-\d\d-\d\d \d"
    with pytest.raises(InputError, match=rf"results: is taken \({who}.*\); wait$"), lock(folder):
        raise AssertionError
    (folder / "points.csv").touch()
    assert ask("kill", number) == "dead"
    with lock(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["points.csv"]


@pytest.mark.parametrize("kind", ["forked", "started"])
def test_the_child_of_a_process_that_was_killed_holds_nothing(
    tmp_path: Path, ask: Callable[..., str], kind: str
) -> None:
    number = ask("hold", kind, tmp_path)
    assert ask("kill", number) == "dead"
    assert len(list(tmp_path.iterdir())) == 1, "its lock file is left"
    with lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path / "a" / "b"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with lock(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_thread_may_lock_again_and_another_may_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    refused = []

    def other() -> None:
        try:
            with lock(tmp_path):
                pass
        except InputError as error:
            refused.append(str(error))

    with lock(tmp_path), lock(tmp_path / "link"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1 and f"process {os.getpid()} " in refused[0]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock(tmp_path):
        (held,) = tmp_path.iterdir()
        with (
            pytest.raises(InputError),
            locks.locked(tmp_path / ".cellcount.lock", busy="taken", remedy="wait"),
        ):
            raise AssertionError
    assert not list(tmp_path.iterdir())
    held.write_text("17\nelsewhere\n")
    left = r"process 17 on elsewhere; .*, remove .*\.soft\); wait$"
    with pytest.raises(InputError, match=left), lock(tmp_path):
        raise AssertionError
