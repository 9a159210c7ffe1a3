"""The neighbourhood of a place in 3D, beside the slices."""

from __future__ import annotations

import math

import numpy as np
from napari.components import ViewerModel
from napari.qt import QtViewer
from qtpy.QtCore import QTimer
from qtpy.QtCore import Signal as QtSignal

from cellcount_jax.images.regions import voxels_of
from cellcount_jax.label.dots import Dots
from cellcount_jax.label.window.canvas import Canvas
from cellcount_jax.label.window.layers import PROPOSED, VERIFIED, show
from cellcount_jax.label.window.view import camera_of

_EDGE_RADII = 16  # edge of the cube that is shown, in radii of a cell
_MAX_VOXELS = 2**21  # software renders so many in some tens of milliseconds
_DELAY_MS = 150  # after the cursor has moved


class VolumeView(QtViewer):
    """A second viewer, docked: a volume rendering with the same dots, which follows the cursor.

    Attributes:
      half: `(D,)` voxels from the centre to the faces of the box that is shown.
      centre: `(D,)` voxels.
      image: the layer of the volume.
      dots: the layer of its dots.
      seen: emitted with whether it is shown, where that changes.
    """

    seen = QtSignal(bool)

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._model = ViewerModel(title="3D", ndisplay=3)
        super().__init__(self._model)
        self.setMinimumSize(280, 280)
        session = canvas.session
        shape, edges = np.asarray(session.grid.shape), session.edges
        # A cube in micrometres, of few enough voxels to be drawn quickly.
        half = np.maximum(1, np.ceil(_EDGE_RADII / 2 * session.radius / edges))
        half *= min(1.0, (_MAX_VOXELS / math.prod((2 * half + 1).tolist())) ** (1 / 3))
        self.half = np.minimum(np.maximum(half.astype(int), 1), shape)
        self.centre: np.ndarray | None = None
        self._shown_dots: Dots | None = None
        self.image = self._model.add_image(
            np.zeros((2, 2, 2), np.float32),
            name="neighbourhood",
            scale=edges,
            colormap="gray",
            rendering="mip",
            contrast_limits=canvas.layers.image.contrast_limits,
        )
        self.dots = self._model.add_points(
            ndim=3, name="dots", scale=edges, border_width=0, shading="spherical"
        )
        self._here = self._model.add_points(
            np.zeros((1, 3)),
            name="place",
            scale=edges,
            size=0.5 * canvas.layers.dot_size,
            symbol="cross",
        )
        self._timer = QTimer(self, singleShot=True, interval=_DELAY_MS)
        self._timer.timeout.connect(self._follow)
        canvas.view.viewer.cursor.events.position.connect(self._moved)
        canvas.changed.connect(self._moved)
        self._show(canvas.view.place, turn=True)

    def _moved(self, _: object = None) -> None:
        if self.isVisible():
            self._timer.start()

    def _follow(self) -> None:
        self._show(self._canvas.view.pointed)
        if self._shown_dots is not self._canvas.session.dots:
            self._show_dots()

    def _show(self, place: np.ndarray, *, turn: bool = False) -> None:
        """Shows a place; another neighbourhood only where it is not well inside the present one."""
        session = self._canvas.session
        show(self._here, place[None])
        if self.centre is not None and (np.abs(place - self.centre) <= self.half / 2).all():
            return
        shape = np.asarray(session.grid.shape)
        self.centre = voxels_of(place)
        start = np.maximum(self.centre - self.half, 0)
        stop = np.minimum(self.centre + self.half + 1, shape)
        self.image.data = session.intensities(tuple(map(slice, start.tolist(), stop.tolist())))
        self.image.translate = start * session.edges
        self._show_dots()
        camera = camera_of(self._model)
        if turn:
            camera.angles = (0, -30, 60)
            extent = float((2 * self.half * session.edges).max())
            camera.zoom = self.minimumWidth() / (1.2 * extent)
        camera.center = tuple((0.5 * (start + stop - 1) * session.edges).tolist())

    def _show_dots(self) -> None:
        assert self.centre is not None
        dots = self._shown_dots = self._canvas.session.dots
        near = (np.abs(dots.points - self.centre) <= self.half).all(1)
        colours = np.where(dots.verified[near], VERIFIED, PROPOSED)
        size = 0.7 * self._canvas.layers.dot_size
        show(self.dots, dots.points[near], face_color=colours.tolist(), size=size)

    def showEvent(self, event: object) -> None:
        """Follows the canvas again."""
        super().showEvent(event)
        self._timer.start()
        self.seen.emit(True)

    def hideEvent(self, event: object) -> None:
        """Reads nothing while it is folded."""
        super().hideEvent(event)
        self._timer.stop()
        self.seen.emit(False)

    def closeEvent(self, event: object) -> None:
        """Ends following the canvas."""
        self._timer.stop()
        self._canvas.changed.disconnect(self._moved)
        self._canvas.view.viewer.cursor.events.position.disconnect(self._moved)
        super().closeEvent(event)
