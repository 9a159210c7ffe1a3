"""The labelling window: napari with a session in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cellcount_jax.errors import InputError, how_to_install
from cellcount_jax.label.session import Session

# A test for an OpenGL context that Qt and vispy both see; a process of its own, as Qt aborts.
_PROBE = """
import sys
from OpenGL import platform
from qtpy.QtGui import QOffscreenSurface, QOpenGLContext
from qtpy.QtWidgets import QApplication

application, surface, context = QApplication([]), QOffscreenSurface(), QOpenGLContext()
surface.create()
drawn = context.create() and context.makeCurrent(surface) and platform.GetCurrentContext()
sys.exit(0 if drawn else 3)
"""
_NO_OPENGL_STATUS = 3


def check() -> None:
    """Makes sure that a window can be shown.

    Raises:
      InputError: napari is not installed, or there is no display or no OpenGL on it. Qt itself
        would end the process.
    """
    try:
        import napari  # noqa: F401
        import qtpy  # noqa: F401
    except ImportError as error:
        raise InputError(
            "Labelling needs napari and Qt, which are not installed:"
            f" {how_to_install('label')} ({error})"
        ) from error
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and not shown and platform not in ("offscreen", "minimal"):
        raise InputError(
            "Labelling needs a display, and there is none (DISPLAY and WAYLAND_DISPLAY are not"
            " set); run it on the machine you sit at, or through ssh -X, VNC or a remote desktop."
        )
    tried = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    if tried.returncode == _NO_OPENGL_STATUS:
        raise InputError(
            "Labelling needs OpenGL, and there is none on this display; install a driver (on Debian"
            " libgl1-mesa-dri draws without a graphics card), or run it on the machine you sit at."
        )
    if tried.returncode:
        lines = [line for line in tried.stderr.splitlines() if line.strip()]
        raise InputError(
            "Qt cannot open a window on this display"
            f" ({lines[0].strip() if lines else f'status {tried.returncode}'}); a library may be"
            " missing, on Debian libegl1, libgl1, libxcb-cursor0 or libxkbcommon-x11-0."
        )


def open_window(path: Path, *, model: str | None = None, **options: Any) -> Any:
    """Opens an image for labelling in a new viewer of napari.

    Args:
      path: the image.
      model: offered for proposals.
      options: of `Session`.

    Returns:
      The `napari.Viewer`; the session is saved and closed with its window.

    Raises:
      InputError: see `Session`, and `proposals.fitting_model`.
    """
    import napari

    from cellcount_jax.label import proposals

    session = Session(path, **options)
    try:
        if model is not None:  # an error now rather than later
            proposals.fitting_model(session, model)
        viewer = napari.Viewer(title=f"{session.source.name}: cellcount")
        panel = _panel(viewer, session, model)
        viewer.window.add_dock_widget(panel, name="Label cells", area="right")
        _settle(viewer, panel)
        window = panel.window()
        window.setGeometry(window.screen().availableGeometry())  # where no manager maximises
        window.showMaximized()
    except BaseException:
        session.close()
        raise
    return viewer


def run(path: Path, *, model: str | None = None, **options: Any) -> None:
    """Opens the window and returns when it is closed.

    Raises:
      InputError: see `check` and `open_window`.
    """
    check()
    import napari

    open_window(path, model=model, **options)
    napari.run()


def label_widget() -> Any:
    """The panel for the image of the active layer, for napari's menu.

    A viewer has one, shown again where its dock was closed: labelling ends with the window. Where
    labelling cannot begin it is a `StartPanel`, which says why.
    """
    import napari
    from qtpy.QtWidgets import QApplication

    from cellcount_jax.label.window.panel import LabelPanel
    from cellcount_jax.label.window.start_panel import StartPanel

    viewer = napari.current_viewer()
    for widget in QApplication.allWidgets():
        if isinstance(widget, LabelPanel) and widget.canvas.view.viewer is viewer:
            inside = widget.parentWidget()  # its dock was closed
            return inside if isinstance(inside, StartPanel) else widget
    try:
        return _begin(viewer)
    except InputError as error:
        return StartPanel(str(error), lambda: _begin(viewer))


def _begin(viewer: Any) -> Any:
    """The panel for the image of the active layer, or the only one from a file.

    Raises:
      InputError: there is no such layer; see `Session`.
    """
    from qtpy.QtCore import QTimer

    layers = [] if viewer is None else [viewer.layers.selection.active]
    if layers and (layers[0] is None or layers[0].source.path is None):
        layers = [layer for layer in viewer.layers if layer.source.path is not None]
    if len(layers) != 1:
        raise InputError(
            "Choose the layer of an image that was opened from a file: its dots are stored beside"
            " it."
        )
    (layer,) = layers
    path = layer.source.path
    session = Session(Path(path))
    lists = viewer.layers, viewer.mouse_drag_callbacks, viewer.mouse_double_click_callbacks
    before = [list(items) for items in lists]
    try:
        viewer.layers.remove(layer)  # the session adds its own, with the voxel size
        panel = _panel(viewer, session, None)
    except BaseException:
        for items, old in zip(lists, before, strict=True):
            items[:] = old
        session.close()
        raise
    QTimer.singleShot(0, lambda: _settle(viewer, panel))  # once napari has docked it
    return panel


def _panel(viewer: Any, session: Session, model: str | None) -> Any:
    from cellcount_jax.label.window.canvas import Canvas
    from cellcount_jax.label.window.events import drag
    from cellcount_jax.label.window.messages import Messages
    from cellcount_jax.label.window.panel import LabelPanel

    messages = Messages()
    canvas = Canvas(viewer, session, notify=messages.tell)
    viewer.mouse_drag_callbacks.append(drag(canvas))
    if session.recovered:
        messages.tell(f"{session.recovered} acts of a window that was killed were found again.")
    for note in session.notes:
        messages.tell(note)
    panel = LabelPanel(canvas, model=model)
    panel.add_fold(messages)
    return panel


def _settle(viewer: Any, panel: Any) -> None:
    """Adds what belongs beside a panel that is in its window: the 3D view, and events."""
    from cellcount_jax.label.window.events import WindowEvents

    if len(panel.canvas.session.edges) == 3:
        _add_volume(viewer, panel)
    WindowEvents(panel).arrange()


def _add_volume(viewer: Any, panel: Any) -> None:
    """Docks the 3D view under a panel, and its title in the panel, which folds it."""
    from qtpy.QtWidgets import QDockWidget

    from cellcount_jax.label.window.fold import FoldButton
    from cellcount_jax.label.window.volume_view import VolumeView

    view, button = VolumeView(panel.canvas), FoldButton("neighbourhood in 3D")

    def fold(shown: bool) -> None:
        if shown == view.isVisible():
            return
        docks = [d for d in panel.window().findChildren(QDockWidget) if d.isAncestorOf(view)]
        for dock in docks:
            dock.setVisible(shown)
        if shown and not docks:  # at first, or after its dock was closed
            viewer.window.add_dock_widget(view, name="3D", area="right")

    button.toggled.connect(fold)
    view.seen.connect(button.setChecked)
    panel.add_fold(button)
    button.setChecked(True)
