"""A title that a click folds and unfolds what is under it with."""

from __future__ import annotations

from qtpy.QtWidgets import QPushButton, QSizePolicy, QVBoxLayout, QWidget


class FoldButton(QPushButton):
    """A title with an arrow, checked where what belongs to it is shown."""

    def __init__(self, title: str) -> None:
        super().__init__(checkable=True, flat=True)
        self.setStyleSheet("text-align: left; padding: 2px; background: transparent;")
        self._title = title
        self.toggled.connect(self._draw)
        self._draw()

    def _draw(self, _: object = None) -> None:
        self.setText(f"{'▾' if self.isChecked() else '▸'} {self._title}")


class Fold(QWidget):
    """A widget under its title, folded at first.

    Attributes:
      button: the title.
      content: the widget.
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self.button, self.content = FoldButton(title), content
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.button)
        layout.addWidget(content)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        content.setVisible(False)
        self.button.toggled.connect(content.setVisible)
