"""The map of blocks: to do, in progress, done; a click goes there."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QToolTip, QWidget

from cellcount_jax.data.progress import NAMES
from cellcount_jax.label.canvas import Canvas

_COLOURS = ("#3a3f47", "#c98a00", "#2f9e44")
_GAP = 2


class BlockMap(QWidget):
    """The blocks of an image, or of a volume those at the depth that is shown."""

    chosen = Signal(tuple)

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self._canvas = canvas
        self.setMinimumHeight(90)
        self.setMouseTracking(True)
        self.setToolTip("Blocks: grey to do, orange in progress, green done. A click goes there.")

    def sizeHint(self) -> QSize:
        """Wide enough for a dock."""
        return QSize(240, 160)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draws the blocks, with a frame around the present one."""
        states = self._states()
        here = self._canvas.block
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for (y, x), state in np.ndenumerate(states):
            box = self._box(y, x)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(_COLOURS[state]))
            painter.drawRect(box)
            if (y, x) == here[-2:]:
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.setPen(QPen(QColor("white"), 2))
                painter.drawRect(box.adjusted(1, 1, -1, -1))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Goes to the block that was clicked on."""
        if (index := self._index(event)) is not None:
            self.chosen.emit(index)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Says which block is under the mouse."""
        if (index := self._index(event)) is not None:
            state = NAMES[self._canvas.session.state.blocks[index]]
            name = ", ".join(str(i + 1) for i in index)
            QToolTip.showText(event.globalPosition().toPoint(), f"block {name}: {state}", self)

    def _states(self) -> np.ndarray:
        states = self._canvas.session.state.blocks
        return states[self._canvas.block[0]] if states.ndim == 3 else states

    def _box(self, y: int, x: int) -> QRectF:
        """Where a block is drawn: with the proportions of the image."""
        grid, edges = self._canvas.session.grid, self._canvas.session.edges
        extent = np.asarray(grid.shape)[-2:] * edges[-2:]
        scale = min((self.height() - 4) / extent[0], (self.width() - 4) / extent[1])
        region = grid.region((*(0,) * (len(grid.shape) - 2), y, x))[-2:]
        (top, left), (bottom, right) = (
            np.array([getattr(part, side) for part in region]) * edges[-2:] * scale
            for side in ("start", "stop")
        )
        return QRectF(2 + left, 2 + top, right - left - _GAP, bottom - top - _GAP)

    def _index(self, event: QMouseEvent) -> tuple[int, ...] | None:
        states = self._states()
        for y, x in np.ndindex(*states.shape):
            if self._box(y, x).contains(event.position()):
                block = self._canvas.block
                return (*block[:-2], y, x)
        return None
