"""Ctrl-C at any moment of a command: one line, and exit status 130.

Python raises KeyboardInterrupt wherever it is. While packages are imported this makes an error of
an import, or is swallowed by a callback of compiled code, and ends in pages of tracebacks.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

STOPPED = 130  # exit status, that of a shell for a command that Ctrl-C ended
_AGAIN_S = 0.05


def quit_at_once() -> None:
    """From now on Ctrl-C ends the process; for moments in which nothing is to be cleaned up."""
    _handle(_quit)


def raise_interrupt() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, again where a callback swallows it."""
    _handle(signal.default_int_handler)
    sys.unraisablehook = _unraisable


def leave() -> NoReturn:
    """Ends the process with the one line, once all is cleaned up that has to be.

    What Python does at its own end would wait for threads, and crash in those of a window.
    """
    _quit()


def say_stopped() -> int:
    """Prints that the command was stopped; returns the exit status."""
    with contextlib.suppress(OSError, ValueError):
        print("stopped", file=sys.stderr)
    return STOPPED


def _handle(handler: Callable[..., Any]) -> None:
    # A shell has its commands in the background ignore Ctrl-C, which stays so.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if threading.current_thread() is threading.main_thread() and not ignored:
        signal.signal(signal.SIGINT, handler)


def _quit(*_: object) -> NoReturn:
    with contextlib.suppress(Exception):  # such as a print that was under way
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, b"stopped\n")
    os._exit(STOPPED)


def _unraisable(unraisable: Any) -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    # Not at once, which would still be within the callback.
    timer = threading.Timer(_AGAIN_S, _interrupt)
    timer.daemon = True
    timer.start()


def _interrupt() -> None:
    """As Ctrl-C; a signal also ends the main thread's waiting, where the system has them."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()
