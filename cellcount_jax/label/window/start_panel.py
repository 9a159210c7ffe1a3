"""What napari's menu opens where there is no image to label yet: it says what is missing."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from cellcount_jax.errors import InputError


class StartPanel(QWidget):
    """A problem, and a button that tries again and then makes place for the panel.

    Attributes:
      problem: the line that says what is missing.
      again: the button.
    """

    def __init__(self, problem: str, begin: Callable[[], QWidget]) -> None:
        super().__init__()
        self._begin = begin
        self.problem = QLabel(problem, wordWrap=True)
        self.again = QPushButton("Label the chosen image")
        self.again.clicked.connect(self._try)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.problem)
        layout.addWidget(self.again)
        layout.addStretch(1)

    def _try(self) -> None:
        try:
            panel = self._begin()
        except InputError as error:
            self.problem.setText(str(error))
            return
        layout = self.layout()
        while layout.count():
            item = layout.takeAt(0)
            if item.widget() is not None:
                item.widget().setVisible(False)
        layout.addWidget(panel)
