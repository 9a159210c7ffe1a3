"""A process with labelling windows, which runs programs of tests on them, one after the other.

A line of stdin is a request in JSON: `image`, `program`, `options` of `open_window`. The program
uses a `Window`'s attributes and methods, and the names of this file, as its own. A line of stdout
is the answer: the traceback of a program that failed, or an empty text.
"""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock  # noqa: F401

import napari
import numpy as np
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget, QWidget  # noqa: F401

from cellcount_jax.label.window import window
from cellcount_jax.label.window.fold import FoldButton  # noqa: F401
from cellcount_jax.label.window.messages import Messages  # noqa: F401
from cellcount_jax.label.window.panel import LabelPanel
from cellcount_jax.label.window.start_panel import StartPanel  # noqa: F401
from cellcount_jax.label.window.volume_view import VolumeView  # noqa: F401

left, no = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
none = Qt.KeyboardModifier.NoModifier
control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
move, press, release = (
    QEvent.Type.MouseMove,
    QEvent.Type.MouseButtonPress,
    QEvent.Type.MouseButtonRelease,
)


def wait(seconds: float = 0.0) -> None:
    """Handles all events there are, and those of so many seconds."""
    end = time.monotonic() + seconds
    QApplication.processEvents()
    while time.monotonic() < end:
        time.sleep(0.005)
        QApplication.processEvents()


def until(condition: Callable[[], bool]) -> None:
    """Handles events until a condition holds, 30 seconds at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "the condition does not come true"
        wait(0.005)


def near(found: Any, wanted: Any, tolerance: float = 0.5) -> None:
    """Fails where places are not near to others, in voxels."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


class Window:
    """A labelling window, with the mouse at voxels of its slices and keys."""

    def __init__(self, image: Path, *, from_menu: bool = False, **options: Any) -> None:
        self.image = image
        if from_menu:
            self.viewer = napari.Viewer()
            self.viewer.open(image, plugin="napari")
            self.dock, _ = self.viewer.window.add_plugin_dock_widget("cellcount_jax", "Label cells")
        else:
            self.viewer = window.open_window(image, **options)
        widgets = QApplication.allWidgets()
        panels = [widget for widget in widgets if isinstance(widget, LabelPanel)]
        (self.panel,) = [p for p in panels if p.canvas.view.viewer is self.viewer]
        self.canvas, self.session = self.panel.canvas, self.panel.canvas.session
        drawn = self.panel.window().centralWidget().findChildren(QWidget)
        (self.native,) = [w for w in drawn if type(w).__name__ == "CanvasBackendDesktop"]
        until(lambda: self.native.isVisible() and self.native.width() > 300)
        wait(0.1)

    def at(self, y: float, x: float) -> QPoint:
        """A voxel of the plane as a place in the slices' widget."""
        view = self.canvas.view
        centre = np.asarray(view.camera.center[-2:])
        row, column = (
            np.array([y, x]) * self.session.edges[view.shown] - centre
        ) * view.camera.zoom
        size = self.native
        return QPoint(round(size.width() / 2 + column), round(size.height() / 2 + row))

    def send(
        self, kind: Any, point: QPoint, button: Any, buttons: Any, modifiers: Any = none
    ) -> None:
        """An event of the mouse."""
        places = QPointF(point), QPointF(self.native.mapToGlobal(point))
        event = QMouseEvent(kind, *places, button, buttons, modifiers)
        QApplication.sendEvent(self.native, event)
        if kind == move:
            wait(0.012)  # vispy leaves out moves that follow sooner

    def drag(self, start: Any, stop: Any, modifiers: Any = none) -> None:
        """A drag of the mouse between two voxels of the plane, or a click."""
        self.send(move, self.at(*start), no, no, modifiers)
        self.send(press, self.at(*start), left, left, modifiers)
        for share in (0.3, 0.6, 1.0) if start != stop else ():
            between = tuple(a + share * (b - a) for a, b in zip(start, stop, strict=True))
            self.send(move, self.at(*between), no, left, modifiers)
        self.send(release, self.at(*stop), left, no, modifiers)
        wait()

    def click(self, y: float, x: float) -> None:
        self.drag((y, x), (y, x))

    def key(self, name: str, modifiers: Any = none) -> None:
        self.native.setFocus()
        QTest.keyClick(self.native, getattr(Qt.Key, "Key_" + name), modifiers)
        wait()

    def hold(self, name: str, repeats: int = 4, modifiers: Any = none) -> None:
        """The events of a key that is held down."""
        code = getattr(Qt.Key, "Key_" + name)
        for again in range(1 + repeats):
            for kind in (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress):
                event = QKeyEvent(kind, code, modifiers, "", again > 0)
                QApplication.sendEvent(self.native, event)
        event = QKeyEvent(QEvent.Type.KeyRelease, code, modifiers)
        QApplication.sendEvent(self.native, event)
        wait()

    def show(self, z: float) -> None:
        """Shows a plane, with the middle of the image in the middle."""
        self.canvas.view.go(np.array([z, 30.0, 40.0]))
        wait()


def problem(request: dict[str, Any]) -> str:
    """The traceback of a program that fails; nothing where it does not."""
    notification_manager.records.clear()
    names = dict(globals())
    program = request["program"]
    linecache.cache["program"] = len(program), None, program.splitlines(keepends=True), "program"
    try:
        if request["image"] is not None:
            opened = Window(Path(request["image"]), **request["options"])
            public = [name for name in dir(opened) if not name.startswith("_")]
            names |= {name: getattr(opened, name) for name in public}
        exec(compile(program, "program", "exec"), names)
        return ""
    except BaseException:
        return traceback.format_exc()
    finally:
        with contextlib.suppress(RuntimeError):  # of windows that are closed
            napari.Viewer.close_all()
        wait()


if __name__ == "__main__":
    application = QApplication(sys.argv[:1])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # of what programs print
    for line in sys.stdin:
        print(json.dumps(problem(json.loads(line))), file=answers, flush=True)
