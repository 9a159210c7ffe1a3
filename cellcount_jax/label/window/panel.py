"""The panel beside the slices: the size of a cell, proposals, progress, keys and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from cellcount_jax.data.blocks import DONE, IN_PROGRESS
from cellcount_jax.images import exports
from cellcount_jax.images.dot_files import SUFFIXES, is_foreign, read_foreign
from cellcount_jax.images.imagej_stack import stack_of
from cellcount_jax.images.openers import SOURCE_SUFFIXES
from cellcount_jax.images.points import read_points
from cellcount_jax.label.window.block_map import BlockMap
from cellcount_jax.label.window.canvas import KEYS, Canvas
from cellcount_jax.label.window.otsu_parameters import leave_on_enter
from cellcount_jax.label.window.proposal_panel import ProposalPanel
from cellcount_jax.label.window.size_panel import SizePanel
from cellcount_jax.progress import duration

MOUSE = (
    ("click", "add a dot; on a dot, remove it"),
    ("drag a dot", "move it"),
    ("Shift + drag", "select dots"),
)


class LabelPanel(QWidget):
    """The panel: size, proposals, progress and map of blocks, options of the view, keys, files.

    Attributes:
      canvas: the session that it shows.
      size_panel: the part with the size of a cell.
      proposals: the part that proposes.
      block_map: the map of blocks.
      blocks_status: a line with the numbers of blocks.
      rate: a line with the pace and the time left.
      place_status: a line on the present block and the dot in focus.
    """

    def __init__(self, canvas: Canvas, *, model: str | None) -> None:
        super().__init__()
        self.canvas = canvas
        self.size_panel = SizePanel(canvas)
        self.proposals = ProposalPanel(canvas, model=model)
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(6, 6, 6, 6)
        for title, part in (
            ("Cells", _row(self.size_panel)),
            ("Proposals", _row(self.proposals)),
            ("Progress", self._progress()),
            ("View", self._view()),
            ("Mouse and keys", _row(_keys())),
            ("Files", self._files()),
        ):
            group = QGroupBox(title)
            group.setLayout(part)
            part.setContentsMargins(6, 6, 6, 6)
            layout.addWidget(group)
        layout.addStretch(1)
        scroll = QScrollArea(widgetResizable=True)
        scroll.setWidget(inside)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._whole = QVBoxLayout(self)
        self._whole.setContentsMargins(0, 0, 0, 0)
        self._whole.addWidget(scroll)
        self.setMinimumWidth(310)
        canvas.changed.connect(self.refresh)
        self.refresh()

    def add_fold(self, part: QWidget) -> None:
        """Puts what folds, or its title, under all else, where it does not scroll."""
        self._whole.addWidget(part)

    def refresh(self) -> None:
        """Shows the progress of the session."""
        session = self.canvas.session
        blocks, dots, work = session.state.blocks, session.dots, session.work
        verified = int(dots.verified.sum())
        done = int((blocks == DONE).sum())
        self._counts.setText(f"<b>{verified}</b> cells verified, {len(dots) - verified} proposed")
        begun = int((blocks == IN_PROGRESS).sum())
        self.blocks_status.setText(f"{done} of {blocks.size} blocks done, {begun} in progress")
        self._bar.setValue(round(100 * done / blocks.size))
        rate, left = work.per_minute, work.seconds_left(blocks)
        pace = [] if rate is None else [f"{rate:.0f} cells a minute"]
        if left is None:
            pace.append("the time left is told after the first block that is done")
        elif done < blocks.size:
            pace.append(f"{duration(left)} left")
        self.rate.setText(", ".join(pace))
        self.place_status.setText(self._place())
        is_done = blocks[self.canvas.block] == DONE
        self._mark.setText("Not done yet (D)" if is_done else "Mark block done (D)")
        for button, verb, act in (
            (self._undo, "Undo", session.history.can_undo),
            (self._redo, "Redo", session.history.can_redo),
        ):
            button.setEnabled(act is not None)
            button.setText(f"{verb} {act}" if act else verb)
        self.block_map.update()

    def _progress(self) -> QLayout:
        layout = QVBoxLayout()
        self._counts, self.blocks_status = QLabel(), QLabel()
        self.rate, self.place_status = QLabel(), QLabel()
        self.place_status.setWordWrap(True)
        self.rate.setWordWrap(True)
        self.place_status.setToolTip("of the present block, and of the dot in focus")
        self._bar = QProgressBar(maximum=100)
        self.block_map = BlockMap(self.canvas)
        self.block_map.chosen.connect(self.canvas.go_to_block)
        self._mark = _button("", self.canvas.mark, "Its dots are complete: training uses it.")
        next_block = _button("Next block (B)", self.canvas.go_next_block, "that is to do")
        self._undo = _button("Undo", self.canvas.undo, "Ctrl+Z")
        self._redo = _button("Redo", self.canvas.redo, "Ctrl+Shift+Z")
        status = self._counts, self.blocks_status, self._bar, self.rate
        for widget in (*status, self.block_map, self.place_status):
            layout.addWidget(widget)
        layout.addLayout(_row(self._mark, next_block))
        layout.addLayout(_row(self._undo, self._redo))
        return layout

    def _place(self) -> str:
        """Slices of the present block, and the score of the dot in focus."""
        session, canvas = self.canvas.session, self.canvas
        parts = []
        if (plane := canvas.view.plane) is not None:
            slices = session.grid.region(canvas.block)[plane[0]]
            parts.append(f"slices {slices.start} to {slices.stop - 1}")
        if canvas.focus is not None:
            score = session.dots.scores[session.dots.rows([canvas.focus])[0]]
            if np.isfinite(score):
                parts.append(f"the dot's score {score:.2f}")
        return "; ".join(parts)

    def _view(self) -> QLayout:
        form = QFormLayout()
        reach = QSpinBox(maximum=20)
        reach.setValue(self.canvas.reach)
        reach.setToolTip(
            "Dots of so many slices before (up) and after (down) are seen as triangles."
        )
        reach.valueChanged.connect(self._set_reach)
        leave_on_enter(reach)
        snap = QCheckBox("place new dots on the brightest spot")
        snap.toggled.connect(lambda on: setattr(self.canvas, "snap_on_add", on))
        if len(self.canvas.session.edges) == 3:
            form.addRow("nearby slices", reach)
        form.addRow(snap)
        return form

    def _set_reach(self, planes: int) -> None:
        self.canvas.reach = planes
        self.canvas.refresh()

    def _files(self) -> QLayout:
        layout = QVBoxLayout()
        where = QLabel(f"Every act is kept at once; saved to {self.canvas.session.saved_to.name}")
        where.setWordWrap(True)
        layout.addWidget(where)
        layout.addLayout(
            _row(
                _button("Save", self.canvas.save, "Ctrl+S"),
                _button("Import ...", self._import, "dots of other programs, or labels"),
                _button("Export ...", self._export, "to napari's CSV or cellfinder's XML"),
            )
        )
        return layout

    def _import(self) -> None:
        known = {"Dots": SUFFIXES, "Instance labels": SOURCE_SUFFIXES}
        kinds = ";;".join(f"{n} ({' '.join(f'*{end}' for end in k)})" for n, k in known.items())
        chosen, _ = QFileDialog.getOpenFileName(self, "Import dots", "", kinds)
        if chosen:
            self.import_file(Path(chosen))

    def import_file(self, path: Path) -> None:
        """Adds the dots of a file, verified."""
        session = self.canvas.session
        ndim = len(session.edges)

        def act() -> int:
            if is_foreign(path):
                points = read_foreign(path, ndim=ndim, stack=stack_of(session.source))
            else:
                unit, spacing = session.points_unit, session.source.spacing
                points = read_points(path, ndim=ndim, unit=unit, spacing=spacing)
            return session.import_points(points, name=str(path))

        count = self.canvas.do(act)
        if count is not None:
            self.canvas.notify(f"{count} dots added from {path.name}.")

    def _export(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Export dots", "", "napari (*.csv);;cellfinder (*.xml)"
        )
        if chosen:
            self.export_file(Path(chosen))

    def export_file(self, path: Path) -> None:
        """Writes the verified dots to a file of another program."""
        dots = self.canvas.session.dots
        points = np.asarray(dots.points[dots.verified])
        xml = path.suffix.lower() == ".xml"
        write = exports.write_cellfinder if xml else exports.write_napari

        def act() -> bool:
            write(path, points)
            return True

        if self.canvas.do(act):
            self.canvas.notify(f"{len(points)} verified dots written to {path.name}.")


def _keys() -> QWidget:
    rows = [*MOUSE, *((key, what) for key, what, _ in KEYS)]
    text = "".join(f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{t}</td></tr>" for key, t in rows)
    label = QLabel(f"<table>{text}</table>")
    label.setWordWrap(True)
    return label


def _button(text: str, act: Callable[[], object], tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(lambda: act())
    return button


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, 1)
    return row
