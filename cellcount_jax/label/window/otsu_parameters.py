"""The boxes with the parameters of proposals by Otsu's threshold."""

from __future__ import annotations

from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import QAbstractSpinBox, QDoubleSpinBox, QFormLayout, QWidget

from cellcount_jax.label import proposals
from cellcount_jax.label.session import Session

_TIPS = {
    "smooth": "sigma of the Gaussian that smooths the image",
    "factor": "times Otsu's threshold: higher ones propose fewer cells",
    "opening": "radius of the ball that must fit into a cell; 0: any",
    "background": "sigma of a wide Gaussian that is subtracted; for cells on an uneven background"
    " some six radii; 0: none",
    "smallest": "the least volume (area) of a cell",
    "split": "touching cells are cut at brightest places that are further apart; 0: never",
}


class OtsuParameters(QWidget):
    """A box for each parameter of `BlobSettings`, at first as they follow from the cell's size.

    Attributes:
      changed: emitted when one was changed.
    """

    changed = QtSignal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._boxes: dict[str, QDoubleSpinBox] = {}
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        for name in proposals.defaults(session):
            box = QDoubleSpinBox(decimals=2, maximum=1e6)
            box.setToolTip(_TIPS[name])
            leave_on_enter(box)
            box.valueChanged.connect(lambda _: self.changed.emit())
            self._boxes[name] = box
            power = "²³"[len(session.edges) - 2] if name == "smallest" else ""
            unit = session.unit.replace("um", "µm") + power
            form.addRow(name if name == "factor" else f"{name} ({unit})", box)
        self.follow_size()

    def follow_size(self) -> None:
        """Sets all as they follow from the cell's size."""
        for name, value in proposals.defaults(self._session).items():
            self._boxes[name].setSingleStep(max(0.1, (value or self._session.radius) / 10))
            self._boxes[name].setValue(value)

    def values(self) -> dict[str, float]:
        """The parameters of `BlobSettings`."""
        return {name: round(box.value(), 6) for name, box in self._boxes.items()}


def leave_on_enter(box: QAbstractSpinBox) -> None:
    """Makes Enter leave a box, so that the keys are those of the slices again."""
    box.lineEdit().returnPressed.connect(box.clearFocus)
