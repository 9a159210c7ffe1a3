"""The box in which a model is chosen: one that the package brings, or one of one's own."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QFileDialog

from cellcount_jax.inference.model_file import bundled_models

_RUN, _EXPORTED = "a model from the folder of a run ...", "a model from an exported file ..."


class ModelBox(QComboBox):
    """Models, and what asks for a model of one's own.

    Args:
      others: what can be chosen beside models, first.
    """

    def __init__(self, *others: str) -> None:
        super().__init__()
        self.addItems([*others, *bundled_models(), _RUN, _EXPORTED])
        cut_long_names(self)

    def offer(self, model: str) -> None:
        """Puts a model of one's own into the box, and chooses it."""
        if self.findText(model) < 0:
            self.insertItem(self.findText(_RUN), model)
        self.setCurrentText(model)

    def ask(self) -> None:
        """Asks for the file, where a model of one's own is chosen; without one takes the first."""
        path = None
        if self.currentText() == _RUN:
            path = QFileDialog.getExistingDirectory(self, _RUN)
        elif self.currentText() == _EXPORTED:
            path, _ = QFileDialog.getOpenFileName(self, _EXPORTED, "", "Models (*.zip)")
        if path:
            self.offer(path)
        elif path is not None:  # the dialog was cancelled
            self.setCurrentIndex(0)


def cut_long_names(box: QComboBox) -> None:
    """Makes a long name or path be cut, and not widen the panel of a box."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
