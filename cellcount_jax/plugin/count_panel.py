"""The panel "Count cells": a count of an image layer, and a threshold that is moved live."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.images import exports
from cellcount_jax.inference.seen import Seen, look
from cellcount_jax.inference.threshold import LOWEST_THRESHOLD
from cellcount_jax.label.window.in_thread import WorkBar, result_of
from cellcount_jax.plugin.cell_layers import CellLayers
from cellcount_jax.plugin.count_form import Asked, CountForm, leave_wheels

_REDRAW_MS = 30  # after the slider was moved
_JUDGE_MS = 500


class CountPanel(QWidget):
    """Counts what its form asks for, and shows and saves the cells of any threshold.

    The network computes once: the slider chooses among the peaks of its map.

    Attributes:
      viewer: of napari.
      form: image, model, and what is known of the cells.
      start: the button that counts, or stops it.
      threshold: the slider.
      own: the button that takes the model's own threshold.
      result: the line with the count.
      notes: what there is to say about it: doubts, errors.
      save: the button that writes points.csv.
      layers: of the cells.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer, self.layers, self.form = viewer, CellLayers(viewer), CountForm(viewer)
        self._judging: Any = None
        self._seen: Seen | None = None
        self._asked: Asked | None = None
        self._found: Any = None
        self._at_own = True
        self._redraw = QTimer(self, singleShot=True, interval=_REDRAW_MS)
        self._redraw.timeout.connect(self._choose)
        self._judge_soon = QTimer(self, singleShot=True, interval=_JUDGE_MS)
        self._judge_soon.timeout.connect(self._judge)
        self.start, self.own = QPushButton("Count cells"), QPushButton("Model's threshold")
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.threshold.setDecimals(2)
        self.threshold.setRange(LOWEST_THRESHOLD, 0.99)
        self.threshold.setSingleStep(0.01)
        self.threshold.setToolTip("higher ones keep only the cells that the model is sure of")
        leave_wheels(self, self.threshold)
        self.result, self.notes = QLabel(), QLabel()
        self.save = QPushButton("Save points ...")
        self.save.setToolTip("points.csv, as cellcount count writes it")
        self._work = WorkBar(stopped="Stopped.")
        layout = QVBoxLayout(self)
        for widget in (self.form, self.start, self._work):
            layout.addWidget(widget)
        layout.addLayout(_row(QLabel("threshold"), self.threshold))
        for label in (self.result, self.notes):
            label.setWordWrap(True)
            layout.addWidget(label)
        layout.addLayout(_row(self.own, self.save))
        layout.addStretch(1)
        self.setMinimumWidth(300)
        self._enable(False)
        self.form.changed.connect(self._outdated)
        self.form.failed.connect(self.notes.setText)
        self.start.clicked.connect(self.count)
        self.threshold.valueChanged.connect(self._moved)
        self.own.clicked.connect(self._take_own)
        self.save.clicked.connect(self._ask_and_save)
        self._work.ended.connect(self._ended)

    @property
    def busy(self) -> bool:
        """Whether it is counting."""
        return self._work.busy

    @property
    def settled(self) -> bool:
        """Whether what is shown is that of the slider, and judged."""
        active = self._redraw.isActive() or self._judge_soon.isActive()
        return not active and self._judging is None and not self.busy

    def _enable(self, on: bool) -> None:
        for widget in (self.threshold, self.own, self.save):
            widget.setEnabled(on)

    def _outdated(self) -> None:
        if self._seen is not None and not self.busy:
            self.notes.setText("The settings were changed: count again.")

    # Counting, in a thread: the window stays alive

    def count(self) -> None:
        """Computes what the model sees in the image, and shows its cells; or stops it."""
        if self.busy:
            self._work.stop()
            self.start.setText("Stopping ...")
            return
        try:
            asked = self.form.asked()
        except (InputError, OSError) as error:
            self.notes.setText(in_words(error))
            return
        self._forget()
        self._asked = asked
        self.start.setText("Stop")
        self.result.setText("")
        self.notes.setText("computing; the first time it is compiled too")
        array, options = asked.part.array, asked.options
        self._work.run(
            lambda: look(asked.model, array, **options, progress=self._work.progress),
            self._looked,
        )

    def _looked(self, made: Any) -> None:
        stopped = self._work.stopping
        if isinstance(made, Exception) or stopped:
            self.notes.setText("Stopped." if stopped else in_words(made))
            if isinstance(made, Seen):
                made.close()
            return
        self.notes.setText("")
        self._seen = made
        self._take_own()
        self._enable(True)

    def _ended(self) -> None:
        self.start.setText("Count cells")

    def _forget(self) -> None:
        """Lets go of an earlier count, and of what it keeps on the disk."""
        self._redraw.stop()
        self._judge_soon.stop()
        self._enable(False)
        if self._seen is not None:
            self._seen.close()
        self._seen = self._found = None

    # The threshold, live

    def _moved(self, _: object = None) -> None:
        self._at_own = False
        self._redraw.start()

    def _take_own(self) -> None:
        if self._seen is None:
            return
        own = self._seen.own_threshold
        self.threshold.blockSignals(True)
        self.threshold.setMinimum(min(LOWEST_THRESHOLD, own))
        self.threshold.setValue(own)
        self.threshold.blockSignals(False)
        self._at_own = True
        self._choose()

    def _choose(self) -> None:
        """Shows the cells of the threshold that the slider has."""
        seen, asked = self._seen, self._asked
        if seen is None or asked is None:
            return
        value = round(max(self.threshold.value(), LOWEST_THRESHOLD), 2)
        self._found = seen.found(None if self._at_own else value)
        points, scores = seen.cells(self._found)
        own = " (the model's own threshold)" if self._at_own else ""
        width, origin = seen.fitted.diameter, seen.fitted.diameter_from
        size = "" if width is None else f"<br>of about {width:.3g} pixels ({origin})"
        cells = f"{len(points)} cell{'' if len(points) == 1 else 's'}"
        inside = f" inside {html.escape(asked.inside)}" if asked.inside else ""
        self.result.setText(f"<b>{cells}</b>{inside}{own}{size}")
        self.layers.draw(
            asked.part.in_layer(points),
            scores,
            ndim=points.shape[1],
            depth=asked.part.axes[0],
            width=seen.width,
            highest=float(asked.model.target_peak),
            name=asked.name,
            place=asked.place,
        )
        self._judge_soon.start()

    def _judge(self) -> None:
        """Says, once the slider rests, why the count should not be trusted."""
        seen, found = self._seen, self._found
        if seen is None:
            return
        if self._judging is not None:  # of an earlier threshold
            self._judge_soon.start()
            return
        self._judging = create_worker(result_of, lambda: seen.doubts(found))
        self._judging.returned.connect(lambda doubts: self._judged(doubts, found))
        self._judging.start()

    def _judged(self, doubts: Any, found: Any) -> None:
        self._judging = None
        if isinstance(doubts, Exception):
            self.notes.setText(in_words(doubts))
        elif found is self._found:
            self.notes.setText("\n".join(f"Doubtful: {doubt.reason}." for doubt in doubts))

    # Saving

    def _ask_and_save(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, "Save points", "points.csv", "CSV (*.csv)")
        if chosen:
            self.save_points(Path(chosen))

    def save_points(self, path: Path) -> None:
        """Writes the cells of the slider's threshold, as `cellcount count` writes points.csv."""
        if self._redraw.isActive():
            self._redraw.stop()
            self._choose()
        if self._seen is None or self._asked is None:
            return
        points, scores = self._seen.cells(self._found)
        try:
            exports.write_csv(path, points, scores, spacing=self._asked.spacing)
        except (InputError, OSError) as error:
            self.notes.setText(in_words(error))
            return
        self.notes.setText(f"{len(points)} cells saved to {path}")


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row
