"""A program of `peers.py` as a process that answers requests, with its memory seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psutil

_EVERY_S = 0.1
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Failed(Exception):
    """A program could not do what it was asked to; the message is its own."""


class Worker:
    """A process of `peer_loop.serve`.

    Attributes:
      first: seconds from its start to the end of its first answer; None before.
      peak: bytes, the largest memory of the process and its children while it was watched; shared
        pages count once (elsewhere than on Linux: in each process).
    """

    def __init__(
        self, python: str, script: Path, *, log: Path, cores: int | None = None, root: Path
    ) -> None:
        """Starts it.

        Args:
          python: of the program's environment.
          script: the program.
          log: file for what it says.
          cores: how many cores it may use; None for all.
          root: folder of cellcount_jax, for a program that imports it.
        """
        environment = {**os.environ, "PYTHONPATH": str(root)}
        if cores is not None:
            environment |= dict.fromkeys(_THREADS, str(cores))
        self.first: float | None = None
        self.peak = 0
        self._began = time.perf_counter()
        self._log = log.open("ab")
        self._path = log
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
        )
        self._watched = psutil.Process(self._process.pid)
        # Threads that count the cores find as many; not every system can do it.
        if cores is not None and hasattr(self._watched, "cpu_affinity"):
            self._watched.cpu_affinity(self._watched.cpu_affinity()[:cores])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def ask(self, request: Mapping[str, Any], *, watch: bool = False) -> dict[str, Any]:
        """An answer.

        Args:
          request: see `peer_loop.serve`.
          watch: look at the memory meanwhile, which slows a call that is timed.

        Raises:
          Failed: the program could not do it, or has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._watching() if watch else contextlib.nullcontext():
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except OSError:
                line = ""
        if not line:
            said = self._path.read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"ended, see {self._path}: {' '.join(said)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        if self.first is None:
            self.first = time.perf_counter() - self._began
        return answer

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_EVERY_S):
                self.peak = max(self.peak, tree_memory(self._watched))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def tree_memory(process: psutil.Process) -> int:
    """Bytes of memory of a process and its children; 0 if it has ended."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                used = each.memory_full_info()
                total += getattr(used, "pss", used.rss)
    return total
