"""Messages to the user: shown whole over the slices for a while, and kept in a log."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDialog, QPlainTextEdit, QPushButton

from cellcount_jax.label.window.fold import Fold

_SLIDE_MS = 300  # napari slides a message in before it can be unfolded
_SHOWN_MS, _MS_PER_LETTER = 4000, 60  # for which one is shown
_LOG_PIXELS = 120


class Messages(Fold):
    """The log of a window's messages, folded at first.

    Attributes:
      log: the text, a message with its time a line.
    """

    def __init__(self) -> None:
        self.log = QPlainTextEdit(readOnly=True)
        self.log.setFixedHeight(_LOG_PIXELS)
        super().__init__("messages", self.log)

    def tell(self, message: str) -> None:
        """Shows a message, a sentence or some, and keeps it."""
        self.log.appendPlainText(f"{time.strftime('%H:%M:%S')}  {message}")
        show_info(message)
        for toast in _toasts():
            if not toast.property("seen"):
                toast.setProperty("seen", True)
                _later(toast, _SLIDE_MS, functools.partial(_unfold, toast, message))


def _toasts() -> list[QDialog]:
    """napari's messages that are shown; another version may show them otherwise."""
    widgets = QApplication.allWidgets()
    return [w for w in widgets if type(w).__name__ == "NapariQtNotification"]


def _unfold(toast: QDialog, message: str) -> None:
    """Shows all of a message, for as long as it takes to read."""
    button = toast.findChild(QPushButton, "expand_button")
    if button is None or toast.property("expanded"):
        return
    button.click()  # it stays until it is closed
    _later(toast, _SHOWN_MS + _MS_PER_LETTER * len(message), toast.close)


def _later(toast: QDialog, milliseconds: int, act: Callable[[], object]) -> None:
    """Acts after some time, where the message is still there then."""
    timer = QTimer(toast, singleShot=True, interval=milliseconds)
    timer.timeout.connect(act)
    timer.start()
