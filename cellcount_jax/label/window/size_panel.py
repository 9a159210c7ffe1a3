"""The first part of the panel: how large a cell is, which all else follows."""

from __future__ import annotations

from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from cellcount_jax.data.blocks import ASSUMED, GIVEN, MEASURED
from cellcount_jax.label.window.canvas import Canvas
from cellcount_jax.label.window.otsu_parameters import leave_on_enter

_FROM = {
    GIVEN: "as you gave it",
    MEASURED: "measured in the image: compare it with the cells",
    ASSUMED: "no cells can be told from the background to measure: give their diameter",
}


class SizePanel(QWidget):
    """The diameter of a cell, and where it is from.

    Attributes:
      box: the diameter, in the session's unit.
      origin: a line on where it is from.
    """

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self._canvas = canvas
        session = canvas.session
        self.box = QDoubleSpinBox(decimals=2, maximum=1e6, keyboardTracking=False)
        self.box.setMinimum(0.01)
        self.box.setSingleStep(float(session.edges.min()) / 2)
        self.box.setToolTip(
            "Proposals, clicks, models and training follow it; the rings are drawn 0.7 times as"
            " large."
        )
        leave_on_enter(self.box)
        self.origin = QLabel(wordWrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        form.addRow(f"diameter ({session.unit.replace('um', 'µm')})", self.box)
        layout.addLayout(form)
        layout.addWidget(self.origin)
        self._show()
        self.box.valueChanged.connect(self._changed)
        canvas.resized.connect(self._show)

    def _changed(self, diameter: float) -> None:
        self._canvas.resize(diameter / 2)

    def _show(self) -> None:
        content = self._canvas.session.history.content
        self.box.blockSignals(True)
        self.box.setValue(2 * content.radius)
        self.box.blockSignals(False)
        self.origin.setText(_FROM[content.radius_from])
