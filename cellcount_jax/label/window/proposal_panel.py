"""The part of the panel that proposes dots, with a preview, and calibrates the model that does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.label import calibrating, proposals
from cellcount_jax.label.blobs import BlobSettings, otsu
from cellcount_jax.label.scene import in_plane, near_plane
from cellcount_jax.label.window.canvas import Canvas
from cellcount_jax.label.window.fold import Fold
from cellcount_jax.label.window.in_thread import WorkBar
from cellcount_jax.label.window.model_box import ModelBox
from cellcount_jax.label.window.otsu_parameters import OtsuParameters, leave_on_enter

_OTSU = "bright spots (Otsu)"
_PREVIEW_DELAY_MS = 300  # after a parameter was changed


class ProposalPanel(QWidget):
    """Parameters, a preview in the present block, and a button that proposes everywhere.

    Attributes:
      method: the box with Otsu's threshold and the models.
      threshold: the box with a model's threshold.
      preview: the check box of the preview.
      counted: a line on how many rings the preview has.
      start: the button that proposes, or stops it.
      parameters: those of Otsu's threshold, folded at first.
      calibrate: the button that calibrates the model, shown once blocks are done.
    """

    def __init__(self, canvas: Canvas, *, model: str | None) -> None:
        super().__init__()
        self._canvas = canvas
        self._timer = QTimer(self, singleShot=True, interval=_PREVIEW_DELAY_MS)
        self._timer.timeout.connect(self._show_preview)
        self.method = ModelBox(_OTSU)
        if model is not None:
            self.method.offer(model)
        self.method.activated.connect(self._chosen)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.method)
        self._otsu, self._of_model = OtsuParameters(canvas.session), QWidget()
        self._otsu.changed.connect(self._timer.start)
        form = QFormLayout(self._of_model)
        form.setContentsMargins(0, 0, 0, 0)
        self.threshold = QDoubleSpinBox(decimals=2, maximum=0.99, singleStep=0.05)
        self.threshold.setSpecialValueText("the model's own")
        self.threshold.setToolTip("lowest score of a proposal; 0: as the model was calibrated")
        leave_on_enter(self.threshold)
        form.addRow("threshold", self.threshold)
        row = QHBoxLayout()
        self.preview = QCheckBox("preview")
        self.preview.setToolTip("shows in blue what would be proposed in this block")
        self.preview.toggled.connect(self._show_preview)
        self.start = QPushButton("Propose")
        self.start.setToolTip(
            "Replaces the proposals that are there; what you placed or verified stays."
        )
        self.start.clicked.connect(self._propose)
        row.addWidget(self.preview)
        row.addWidget(self.start, 1)
        layout.addLayout(row)
        self.counted = QLabel(wordWrap=True)
        layout.addWidget(self.counted)
        self._work = WorkBar(stopped="Stopped: nothing was changed.")
        layout.addWidget(self._work)
        layout.addWidget(self._of_model)
        self.calibrate = QPushButton()
        self.calibrate.setToolTip(
            "chooses the threshold with the dots in the blocks that are done, and writes the model"
            " to a new file beside the image, which then proposes"
        )
        self.calibrate.clicked.connect(self._calibrate)
        layout.addWidget(self.calibrate)
        # Folded: what is above it is seen on a small screen.
        self.parameters = Fold("parameters", self._otsu)
        layout.addWidget(self.parameters)
        self._block: tuple[int, ...] | None = None
        self._found = np.zeros((0, len(canvas.session.edges)))
        self._part = "this block"
        self._work.ended.connect(self._ended)
        canvas.changed.connect(self._moved)
        canvas.changed.connect(self._offer_calibration)
        canvas.resized.connect(self._otsu.follow_size)
        self._chosen()

    @property
    def busy(self) -> bool:
        """Whether a search for proposals is running."""
        return self._work.busy

    def stop(self) -> None:
        """Ends a search that is running, without proposals."""
        self._work.stop()

    def _chosen(self, _: int = 0) -> None:
        self.method.ask()
        otsu = self._otsu_chosen
        self.parameters.setVisible(otsu)
        self._of_model.setVisible(not otsu)
        self.preview.setVisible(otsu)
        self.method.clearFocus()  # the keys are those of the slices again
        self._offer_calibration()
        self._show_preview()

    def _offer_calibration(self) -> None:
        """Shows the button where a model proposes and enough dots are in blocks that are done."""
        model = self.method.currentText()
        offered = model != _OTSU and calibrating.can_calibrate(self._canvas.session)
        self.calibrate.setVisible(offered)
        self.calibrate.setText(f"Calibrate {Path(model).name} with these dots")

    def _moved(self) -> None:
        if self.preview.isChecked():
            if self._canvas.block != self._block:
                self._found, self._block = self._found[:0], None  # it was of another one
                self._canvas.show_preview(self._found)
                self.counted.setText("searching in this block ...")
                self._timer.start()
            else:
                self._draw_preview()

    def _show_preview(self, _: object = None) -> None:
        """Shows Otsu's proposals in the present block, with a threshold of its own."""
        self._found = self._found[:0]
        if self.preview.isChecked() and self._otsu_chosen:
            session, self._block = self._canvas.session, self._canvas.block
            whole = session.grid.region(self._block)
            region = proposals.limited(whole, self._canvas.view.place)
            self._part = "this block" if region == whole else "the part of this block in view"
            start = np.array([part.start for part in region])
            try:
                settings = BlobSettings(session.edges, **self._otsu.values())
                points, _ = otsu(session.intensities(region), settings)
                self._found = points + start
            except (InputError, OSError) as error:
                self._canvas.notify(in_words(error))
        self._draw_preview()

    def _draw_preview(self) -> None:
        """Draws the rings, and says how many there are."""
        canvas, found = self._canvas, self._found
        canvas.show_preview(found)
        self.counted.setVisible(self.preview.isChecked() and self._otsu_chosen)
        text = f"{len(found)} found in {self._part}"
        if canvas.view.plane is not None:
            axis, index = canvas.view.plane
            here = len(in_plane(found, axis=axis, index=index))
            near = len(near_plane(found, axis=axis, index=index, reach=canvas.reach).rows)
            text += f": {here} in this slice, {near} in nearby ones (fainter)"
        self.counted.setText(text)

    @property
    def _otsu_chosen(self) -> bool:
        return bool(self.method.currentText() == _OTSU)

    # The whole image, in a thread: the window stays alive

    def _propose(self) -> None:
        if self.busy:
            self.stop()
            return
        session, method = self._canvas.session, self.method.currentText()
        if method == _OTSU:
            parameters = self._otsu.values()

            def make() -> Any:
                settings = BlobSettings(session.edges, **parameters)
                found = proposals.otsu_image(session, settings, progress=self._work.progress)
                return *found, {"method": "otsu", **parameters}
        else:
            threshold = self.threshold.value() or None

            def make() -> Any:
                return proposals.from_model(
                    session, method, threshold=threshold, progress=self._work.progress
                )

        self._begin(make, self._made)

    def _calibrate(self) -> None:
        session, model = self._canvas.session, self.method.currentText()
        if not self.busy:
            self._begin(
                lambda: calibrating.calibrate(session, model, progress=self._work.progress),
                self._calibrated,
            )

    def _begin(self, make: Callable[[], Any], made: Callable[[Any], None]) -> None:
        """Runs `make` in a thread, and then `made` with its result or error."""
        self.start.setText("Stop")
        self.calibrate.setEnabled(False)
        self._work.run(make, made)

    def _made(self, made: Any) -> None:
        if not self.busy or self._work.stopping:
            return
        if isinstance(made, Exception):
            self._canvas.notify(str(made))
            return
        points, scores, by = made
        self.preview.setChecked(False)
        count = self._canvas.propose(points, scores, by)
        if count is not None:
            self._canvas.notify(f"{count} proposals, from {len(points)} found.")

    def _calibrated(self, made: Any) -> None:
        if not self.busy or self._work.stopping:
            return
        if isinstance(made, Exception):
            self._canvas.notify(str(made))
            return
        path, outcome = made
        self.threshold.setValue(0)
        self.method.offer(str(path))
        self._offer_calibration()
        self._canvas.notify(f"{calibrating.summary(outcome)} {path.name} proposes from now on.")

    def _ended(self) -> None:
        self.calibrate.setEnabled(True)
        self.start.setText("Propose")
