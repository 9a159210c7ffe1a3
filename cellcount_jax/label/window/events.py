"""Events of the window: keys, wherever the focus is, closing, and clicks and drags of the mouse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QKeyCombination, QObject, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDockWidget,
    QLineEdit,
    QMainWindow,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.label.window.canvas import KEYS, REPEATED, Canvas
from cellcount_jax.label.window.panel import LabelPanel

_DOCK_PIXELS = 330  # width of the docks on the right
_CLICK_PIXELS = 4  # of the screen: a mouse that moved less did not drag
_WHEELED = (QAbstractSpinBox, QComboBox)  # whose value a wheel changes
_TYPING = (QLineEdit, QAbstractSpinBox, QComboBox, QPlainTextEdit, QTextEdit)


class WindowEvents(QObject):
    """The keys of a panel's window, before those of napari; the session ends with the window."""

    def __init__(self, panel: LabelPanel) -> None:
        super().__init__(panel)
        self._panel = panel
        self._window = panel.window()
        self._keys = {QKeySequence(key)[0].toCombined(): name for key, _, name in KEYS}
        QApplication.instance().installEventFilter(self)

    def arrange(self) -> None:
        """Leaves most of the window to the slices."""
        docks = [dock for dock in self._window.findChildren(QDockWidget) if self._is_ours(dock)]
        if isinstance(self._window, QMainWindow):
            self._window.resizeDocks(docks, [_DOCK_PIXELS] * len(docks), Qt.Orientation.Horizontal)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Qt's hook; whether an event was a key of the panel, or a wheel over one of its boxes."""
        kind = event.type()
        if kind == QEvent.Type.Wheel:
            return self._scrolls(watched, event)
        # Not at Close, where napari asks whether to close. The system's own hiding, minimising, is
        # spontaneous.
        if watched is self._window and kind == QEvent.Type.Hide and not event.spontaneous():
            self._end()
            return False
        if kind not in (QEvent.Type.KeyPress, QEvent.Type.ShortcutOverride):
            return False
        if not isinstance(watched, QWidget) or isinstance(watched, _TYPING):
            return False
        if watched.window() is not self._window or QApplication.activeModalWidget() is not None:
            return False
        modifiers = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        name = self._keys.get(QKeyCombination(modifiers, Qt.Key(event.key())).toCombined())
        if name is None:
            return False
        event.accept()  # else a menu of napari takes the shortcut
        if kind == QEvent.Type.KeyPress and (name in REPEATED or not event.isAutoRepeat()):
            getattr(self._panel.canvas, name)()
        return True

    def _scrolls(self, watched: Any, event: Any) -> bool:
        """Leaves a wheel over a box to the panel, which scrolls: else it would edit unnoticed."""
        if not isinstance(watched, _WHEELED) or not self._panel.isAncestorOf(watched):
            return False
        event.ignore()
        return True

    def _end(self) -> None:
        """Saves and closes the session."""
        self._panel.proposals.stop()
        try:
            self._panel.canvas.session.close()
        except (InputError, OSError) as error:
            kept = "every act is kept, and is there when the image is opened again"
            print(f"error: not saved ({in_words(error)}); {kept}", file=sys.stderr)
        QApplication.instance().removeEventFilter(self)

    def _is_ours(self, dock: QDockWidget) -> bool:
        return dock.isAncestorOf(self._panel) or dock.windowTitle() == "3D"


def drag(canvas: Canvas) -> Callable[[Any, Any], Iterator[None]]:
    """The canvas's entry in `mouse_drag_callbacks` of a viewer.

    A click places a dot, or removes the one under it; with dots selected it only ends the
    selection. A drag moves a dot, or the view; with Shift it selects. A double click is one click:
    its second press is another event, which has no callback.
    """

    def pressed(viewer: Any, event: Any) -> Iterator[None]:
        shown = canvas.view.shown
        if event.button != 1 or viewer.dims.ndisplay == 3 or len(shown) < 2:
            return
        start, point = np.asarray(event.pos, float), canvas.view.point_of(event)
        selects = "Shift" in event.modifiers
        dot = None if selects else canvas.at(point)
        # Only a drag that begins beside dots moves the view.
        canvas.view.camera.mouse_pan = dot is None and not selects
        moved = False
        try:
            yield
            while event.type == "mouse_move":
                moved |= bool(np.hypot(*(np.asarray(event.pos) - start)) > _CLICK_PIXELS)
                here = canvas.view.point_of(event)
                if moved and selects:
                    canvas.layers.draw_box((point, here), shown)
                elif moved and dot is not None:
                    canvas.refresh(dragged=(dot, here))
                yield
        finally:
            canvas.view.camera.mouse_pan = True
            canvas.layers.draw_box(None)
        here = canvas.view.point_of(event)
        if dot is not None and not canvas.has(dot):
            canvas.refresh()  # an undo or new proposals removed it meanwhile
        elif moved and selects:
            canvas.select(point, here)
        elif moved and dot is not None:
            canvas.move(dot, here)
        elif not moved and dot is not None:
            canvas.do(lambda: canvas.session.remove([dot]))
        elif not moved and canvas.selected:
            canvas.select_none()
        elif not moved and not selects and canvas.view.holds(point):
            canvas.add(point)

    return pressed
