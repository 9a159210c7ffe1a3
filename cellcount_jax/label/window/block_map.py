"""The map of blocks, to do, in progress and done, in which a click goes to a block."""

from __future__ import annotations

import dataclasses

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QToolTip, QWidget

from cellcount_jax.data.blocks import DONE, IN_PROGRESS, NAMES, TO_DO
from cellcount_jax.label.window.canvas import Canvas

_COLOURS = ("#3a3f47", "#c98a00", "#2f9e44")
_MARGIN_PIXELS = 2  # around the map
_COLUMN_PIXELS = 24  # width of the column of depths, and of the space beside it
_MIN_LINED_PIXELS = 5  # of a block: there are no lines between smaller ones


class BlockMap(QWidget):
    """The blocks of an image; of a volume those at the depth that is shown, and all depths."""

    chosen = Signal(tuple)

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self._canvas = canvas
        self.setMinimumHeight(90)
        self.setMouseTracking(True)
        column = " The column is of all depths." if len(canvas.session.edges) == 3 else ""
        self.setToolTip(
            f"Blocks: grey to do, orange in progress, green done. A click goes there.{column}"
        )

    def sizeHint(self) -> QSize:
        """Wide enough for a dock."""
        return QSize(240, 160)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draws the blocks, with a frame around the present one."""
        here = self._canvas.block
        painter = QPainter(self)
        self.plane().draw(painter, here[-2:])
        if len(here) == 3:
            self.depths().draw(painter, (here[0], 0))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Goes to the block that was clicked on."""
        if (found := self._at(event.position())) is not None:
            self.chosen.emit(found[0])

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Shows number and state of the block under the mouse."""
        if (found := self._at(event.position())) is not None:
            QToolTip.showText(event.globalPosition().toPoint(), found[1], self)

    def plane(self) -> Cells:
        """The blocks at the present depth, in the proportions of a block."""
        session, here = self._canvas.session, self._canvas.block
        states = session.state.blocks
        states = states[here[0]] if states.ndim == 3 else states
        width = self.width() - 2 * _MARGIN_PIXELS - (2 * _COLUMN_PIXELS if len(here) == 3 else 0)
        size = np.asarray(session.grid.block)[-2:] * session.edges[-2:]
        available = np.array([self.height() - 2 * _MARGIN_PIXELS, width])
        return Cells(_MARGIN_PIXELS, size * (available / (size * states.shape)).min(), states)

    def depths(self) -> Cells:
        """The depths of a volume, the first at the top, each in the state of all its blocks."""
        states = self._canvas.session.state.blocks
        states = states.reshape(len(states), -1)
        whole = np.where((states == DONE).all(1), DONE, IN_PROGRESS)
        whole[(states == TO_DO).all(1)] = TO_DO
        plane = self.plane()
        height = (self.height() - 2 * _MARGIN_PIXELS) / len(states)
        left = _MARGIN_PIXELS + plane.size[1] * plane.states.shape[1] + _COLUMN_PIXELS
        return Cells(left, np.array([height, _COLUMN_PIXELS]), whole[:, None])

    def _at(self, place: QPointF) -> tuple[tuple[int, ...], str] | None:
        """The block that a click goes to, and its description."""
        here, plane = self._canvas.block, self.plane()
        if (at := plane.at(place)) is not None:
            block = (*here[:-2], *at)
            name = ", ".join(str(i + 1) for i in block)
            return block, f"block {name}: {NAMES[plane.states[at]]}"
        if len(here) == 3 and (at := (depths := self.depths()).at(place)) is not None:
            name = f"depth {at[0] + 1} of {len(depths.states)}"
            return (at[0], *here[1:]), f"{name}: {NAMES[depths.states[at]]}"
        return None


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Rectangles of one size in rows and columns.

    Attributes:
      left: of the first, in pixels.
      size: `(2,)` pixels of each, height and width.
      states: `(rows, columns)`, TO_DO, IN_PROGRESS or DONE.
    """

    left: float
    size: np.ndarray
    states: np.ndarray

    def box(self, row: int, column: int, rows: int = 1, columns: int = 1) -> QRectF:
        """The rectangle of a cell, or of more."""
        height, width = self.size.tolist()
        return QRectF(
            self.left + column * width,
            _MARGIN_PIXELS + row * height,
            columns * width,
            rows * height,
        )

    def at(self, place: QPointF) -> tuple[int, int] | None:
        """The row and column of a place in the widget."""
        place_in = np.array([place.y() - _MARGIN_PIXELS, place.x() - self.left])
        row, column = np.floor(place_in / self.size).astype(int).tolist()
        rows, columns = self.states.shape
        return (row, column) if 0 <= row < rows and 0 <= column < columns else None

    def draw(self, painter: QPainter, here: tuple[int, ...]) -> None:
        """Draws them as one picture, which is quick for any number, and a frame around one."""
        rows, columns = self.states.shape
        colours = np.array([QColor(colour).rgb() for colour in _COLOURS], np.uint32)
        pixels = colours[self.states].tobytes()
        picture = QImage(pixels, columns, rows, 4 * columns, QImage.Format.Format_RGB32)
        painter.drawImage(self.box(0, 0, rows, columns), picture)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor(0, 0, 0, 120), 2))
        if self.size.min() >= _MIN_LINED_PIXELS:
            for row in range(1, rows):
                painter.drawLine(self.box(row, 0).topLeft(), self.box(row, columns).topLeft())
            for column in range(1, columns):
                painter.drawLine(self.box(0, column).topLeft(), self.box(rows, column).topLeft())
        painter.setPen(QPen(QColor("white"), 2))
        painter.drawRect(self.box(*here).adjusted(1, 1, -1, -1))
