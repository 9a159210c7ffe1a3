"""What the labelling window tells: messages, counts, and what is missing where it cannot begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.data.blocks import DONE
from cellcount_jax.images.image_files import write_image
from cellcount_jax.label.session import Session

Drive = Callable[..., None]  # of conftest.py
CUT: dict[str, Any] = {"block": (6, 30, 40), "radius": 10.0}


def test_messages_are_whole_and_kept(drive: Drive, volume: Path) -> None:
    drive(
        """
        log = panel.findChild(Messages)
        assert not log.log.isVisible() and log.isVisible()
        click(15, 20); key("S", control)
        assert log.log.toPlainText().endswith("  Saved to cells.csv.")
        long = "A sentence that is longer than the one line that napari shows of it. " * 4
        canvas.notify(long)
        (toast,) = [
            w for w in QApplication.allWidgets()
            if type(w).__name__ == "NapariQtNotification" and w.message.text().startswith("A sent")
        ]
        until(lambda: toast.property("expanded"))
        until(lambda: toast.message.height() >= toast.message.sizeHint().height())
        lines = log.log.toPlainText().splitlines()
        assert len(lines) == 2 and lines[1].endswith(long)
        log.button.click(); wait()
        assert log.log.isVisible()
        """,
        volume,
        **CUT,
    )


def test_what_the_preview_and_the_progress_tell(drive: Drive, volume: Path) -> None:
    drive(
        """
        parts = panel.proposals
        assert panel.rate.text() == "the time left is told after the first block that is done"
        assert not parts.counted.isVisible()
        canvas.reach = 1
        show(3); parts.preview.setChecked(True); wait()
        canvas.view.go(np.array([3.0, 15, 20])); until(lambda: len(canvas.layers.preview.data) == 1)
        def told(here, near):
            text = f"2 found in this block: {here} in this slice, {near} in nearby ones (fainter)"
            assert parts.counted.text() == text
        told(1, 0)
        canvas.view.go(np.array([2.0, 15, 20])); wait()
        told(0, 1)
        canvas.view.go(np.array([2.0, 50, 20])); wait()
        assert parts.counted.text() == "searching in this block ..."
        canvas.view.go(np.array([2.0, 15, 20])); wait()
        until(lambda: "2 found" in parts.counted.text())
        canvas.view.go(np.array([0.0, 15, 20])); wait()
        told(0, 0)
        assert len(canvas.layers.preview.data) == 0
        parts.preview.setChecked(False); wait()
        assert not parts.counted.isVisible()
        """,
        volume,
        **CUT,
    )


def test_a_2d_image_has_no_nearby_slices(drive: Drive, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (90, 120), np.uint8)
    write_image(tmp_path / "flat.png", pixels)
    drive(
        """
        names = ["flat", "block", "preview", "dots", "selection"]
        assert [layer.name for layer in viewer.layers] == names
        click(50, 60); click(20, 20)
        assert len(canvas.layers.dots.data) == 2
        """,
        tmp_path / "flat.png",
    )


def test_the_plugin_without_an_image(drive: Drive, volume: Path) -> None:
    drive(
        f"""
        viewer = napari.Viewer()
        def opened():
            dock, widget = viewer.window.add_plugin_dock_widget("cellcount_jax", "Label cells")
            wait()
            return dock, widget
        dock, start = opened()
        assert isinstance(start, StartPanel) and start.problem.text().startswith("Choose the layer")
        viewer.add_image(np.zeros((3, 3)), name="of no file")
        start.again.click(); wait()
        assert start.problem.isVisible()
        viewer.open({str(volume)!r}, plugin="napari")
        start.again.click(); wait(0.2)
        (panel,) = start.findChildren(LabelPanel)
        assert panel.isVisible() and not start.problem.isVisible()
        names = [layer.name for layer in viewer.layers]
        assert names[:3] == ["of no file", "cells", "block"]
        dock.title.close_button.click(); wait()
        assert opened()[1] is start and panel.isVisible()
        """
    )


def test_what_was_not_saved_is_told_where_the_labels_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "labelled" / "a.tif"
    write_image(image, np.random.default_rng(0).integers(0, 99, (40, 50), np.uint8))
    with Session(image, block=(40, 50), radius=5.0) as session:
        for place in range(12):
            session.add((3 * place, 20))
        session.mark([(0, 0)], DONE)
    session = Session(image)
    session.add((9, 9))
    session.abandon()  # as a kill
    (tmp_path / "found.csv").write_text("y,x\n3,20\n")
    out = str(tmp_path / "out")
    commands = {
        "train": [str(image.parent), "--output", out, "--set", "train.steps=7"],
        "calibrate": [str(image), "--model", "nuclei3d", "--output", out + ".zip"],
        "score": [str(tmp_path / "found.csv"), str(image.with_suffix(".csv")), "--tolerance", "3"],
    }
    for command, arguments in commands.items():
        assert cli.main([command, *arguments]) == (0 if command == "score" else 1)
        told = "".join(capsys.readouterr())
        assert "open the image again with cellcount label" in told, command
    Session(image).close()  # opened and closed again, all is saved
    assert cli.main(["score", *commands["score"]]) == 0
    assert "open the image again" not in "".join(capsys.readouterr())
