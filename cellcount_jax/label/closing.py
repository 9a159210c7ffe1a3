"""What Qt must tell of the window: that it closes, and keys that napari's menus have as well."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow, QWidget

from cellcount_jax.label.widget import LabelPanel

_WIDTH = 330  # pixels of the docks on the right
_OURS = ("Ctrl+S", "Ctrl+Z", "Ctrl+Shift+Z")


class Closing(QObject):
    """Saves and closes the session with its window, and keeps keys from the menus."""

    def __init__(self, panel: LabelPanel) -> None:
        super().__init__(panel)
        self._panel = panel
        application = QApplication.instance()
        assert application is not None
        self._window: QWidget = panel.window()
        application.installEventFilter(self)

    def arrange(self) -> None:
        """Leaves most of the window to the slices."""
        docks = [dock for dock in self._window.findChildren(QDockWidget) if self._is_ours(dock)]
        if isinstance(self._window, QMainWindow):
            self._window.resizeDocks(docks, [_WIDTH] * len(docks), Qt.Orientation.Horizontal)

    def _is_ours(self, dock: QDockWidget) -> bool:
        return dock.isAncestorOf(self._panel) or dock.windowTitle() == "3D"

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Looks at what goes to the window."""
        if watched is None or event is None:
            return False
        if watched is self._window and event.type() == QEvent.Type.Close:
            self._panel.proposals.stop()
            self._panel.canvas.session.close()
            QApplication.instance().removeEventFilter(self)
        elif isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride:
            keys = QKeySequence(event.keyCombination()).toString()
            if keys in _OURS and QApplication.activeWindow() is self._window:
                event.accept()  # then it is a key of the canvas, and no menu's
        return False
