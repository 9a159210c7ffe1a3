"""The panel of the labelling window, under Xvfb: what is seen without scrolling, boxes, folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Drive = Callable[..., None]  # of conftest.py
CUT: dict[str, Any] = {"block": (6, 30, 40), "radius": 10.0}


def test_a_wheel_over_a_box_scrolls_the_panel(drive: Drive, volume: Path) -> None:
    drive(
        """
        from qtpy.QtGui import QWheelEvent
        from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QScrollArea
        panel.proposals.parameters.button.click(); panel.window().resize(1000, 600); wait(0.2)
        bar = panel.findChild(QScrollArea).verticalScrollBar()
        boxes = [*panel.findChildren(QAbstractSpinBox), *panel.findChildren(QComboBox)]
        assert len(boxes) > 6 and bar.maximum() > 0

        def state():
            names = [box.currentText() for box in boxes if isinstance(box, QComboBox)]
            return names, [box.text() for box in boxes if isinstance(box, QAbstractSpinBox)]

        def turn(box, delta):
            centre = QPointF(box.rect().center())
            QApplication.sendEvent(box, QWheelEvent(
                centre, QPointF(box.mapToGlobal(box.rect().center())), QPoint(0, 0),
                QPoint(0, delta), no, none, Qt.ScrollPhase.NoScrollPhase, False,
            ))
            wait()

        before = state()
        for box in [box for box in boxes if box.isVisible()]:
            box.setFocus()
            for delta in (-120, 120):
                start = bar.value()
                turn(box, delta)
                assert state() == before
                assert bar.value() != start or start in (0, bar.maximum()), box
        """,
        volume,
        **CUT,
    )


def test_what_is_needed_first_is_seen_on_a_small_screen(drive: Drive, volume: Path) -> None:
    drive(
        """
        available = panel.window().screen().availableGeometry()
        assert panel.window().size() == available.size()  # it opens large
        panel.window().showNormal(); panel.window().resize(1366, 768); wait(0.2)
        start = panel.proposals.start
        assert start.visibleRegion().boundingRect().size() == start.size()
        (view,) = panel.window().findChildren(VolumeView)
        height, centre = panel.height(), view.centre.tolist()
        (title,) = [b for b in panel.findChildren(FoldButton) if "3D" in b.text()]
        title.click(); wait(0.1)
        assert not view.isVisible() and panel.height() > height + 250
        canvas.view.go(np.array([9.0, 50, 70])); view.half = np.array([2, 8, 8]); canvas.refresh()
        wait(0.3)
        assert view.centre.tolist() == centre  # nothing is read for what is not seen
        title.click()
        until(lambda: view.isVisible() and view.centre.tolist() != centre)
        (dock,) = [d for d in panel.window().findChildren(QDockWidget) if d.isAncestorOf(view)]
        dock.title.close_button.click(); wait(0.1)
        assert not view.isVisible() and not title.isChecked()
        title.click(); wait(0.1)
        assert view.isVisible() and title.isChecked()
        """,
        volume,
        **CUT,
    )
