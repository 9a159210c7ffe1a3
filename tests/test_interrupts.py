"""Ctrl-C at any moment of a command is one line, and status 130."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cellcount_jax import interrupts
from cellcount_jax.images.image_files import write_image
from cellcount_jax.inference import model_file

# What sends the signal, by the moment at which it does so.
MOMENTS = {
    # An import within a package's own import, where an exception would become another one.
    "at an import": """
class Importing:
    def find_spec(self, name, path=None, target=None):
        if name == {where!r}:
            stop()

sys.meta_path.insert(0, Importing())
""",
    "while compiling": """
import jax

def compiled(event, duration, **more):
    if "backend_compile" in event:
        stop()

jax.monitoring.register_event_duration_secs_listener(compiled)
""",
    # Whose exceptions Python prints, and goes on.
    "in a callback": """
import gc
import jax
import cellcount_jax.counting.count as counting

def collecting(phase, info):
    gc.callbacks.remove(collecting)
    stop()

def count_files(*_, **__):
    gc.callbacks.append(collecting)
    gc.collect()
    time.sleep(60)

counting.count_files = count_files
""",
}
PROGRAM = """
import os, runpy, signal, sys, time

def stop():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(10):
        pass  # a moment at which Python looks for signals

{moment}
sys.argv[0] = "cellcount"
runpy.run_module("cellcount_jax.{module}", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def count(
    tmp_path_factory: pytest.TempPathFactory, untrained_model: Callable[..., Any]
) -> list[str]:
    """The arguments of a count that takes a moment."""
    folder = tmp_path_factory.mktemp("count")
    model_file.export_model(untrained_model(2), folder / "model.zip", card="# Tiny\n")
    write_image(folder / "a.png", np.zeros((32, 32), np.uint8))
    given = ["count", folder / "a.png", "--model", folder / "model.zip", "--output", folder / "out"]
    return list(map(str, given))


@pytest.mark.parametrize(
    ("module", "moment", "where"),
    [
        ("__main__", "at an import", "argparse"),
        ("__main__", "at an import", "numpy._core._multiarray_umath"),
        ("__main__", "at an import", "jax._src.core"),
        ("main", "at an import", "absl.app"),
        ("main", "at an import", "cellcount_jax.training.train"),
        ("__main__", "while compiling", ""),
        ("__main__", "in a callback", ""),
    ],
)
def test_ctrl_c_is_one_line(count: list[str], module: str, moment: str, where: str) -> None:
    program = PROGRAM.format(module=module, moment=MOMENTS[moment].format(where=where))
    arguments = count if module == "__main__" else ["--config=configs/smoke.py", "--workdir=/none"]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_what_is_ignored_stays_ignored() -> None:
    """A shell has its commands in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.quit_at_once()
        interrupts.raise_interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = sys.__unraisablehook__


def test_other_threads_set_no_handler() -> None:
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupts.quit_at_once)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_a_callback_swallows_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = threading.Event()
    monkeypatch.delattr(signal, "pthread_kill", raising=False)  # as on Windows
    monkeypatch.setattr(_thread, "interrupt_main", again.set)
    interrupts._unraisable(types.SimpleNamespace(exc_type=KeyboardInterrupt))
    assert again.wait(10)
