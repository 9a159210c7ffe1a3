"""The labelling window, under Xvfb with software OpenGL: real mouse, real keys, real pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.images.exports import read_cellfinder
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.imagej_rois import write_rois
from cellcount_jax.images.points import read_points
from cellcount_jax.inference import model_file
from cellcount_jax.label.session import Session

ROOT = Path(__file__).parents[2]
Drive = Callable[..., None]  # of conftest.py
CUT: dict[str, Any] = {"block": (6, 30, 40), "radius": 10.0}  # of the volume below


def test_the_mouse(drive: Drive, volume: Path) -> None:
    drive(
        """
        def dots():
            return session.dots.points
        show(3)
        click(15, 20); click(40, 60)
        near(dots(), [(3, 15, 20), (3, 40, 60)])
        assert len(canvas.layers.dots.data) == 2
        drag((15, 20), (20, 30))
        near(dots()[0], (3, 20, 30))
        click(40, 60)
        assert len(dots()) == 1
        click(10, 10); click(12, 30); click(50, 70)
        drag((5, 5), (25, 35), shift)
        assert len(canvas.selected) == 3
        key("Delete")
        near(dots(), [(3, 50, 70)])
        drag((50, 10), (40, 20))  # of nothing
        assert len(dots()) == 1
        handle, zoom = panel.window().windowHandle(), canvas.view.camera.zoom
        for count in (2, 1):  # a double click adds, and removes
            QTest.mouseDClick(handle, left, none, native.mapTo(panel.window(), at(20, 20))); wait()
            assert (len(dots()), canvas.view.camera.zoom) == (count, zoom)
        canvas.snap_on_add = True
        show(4)
        with mock.patch.object(canvas, "notify") as notify:
            click(41, 61)
            near(dots()[1:], [(3, 40, 60)], 0.3)
            assert canvas.view.plane[1] == 3
            show(4); click(41, 61)
            assert len(dots()) == 2
        notify.assert_called_with("There is a dot at the brightest place already, voxel 3, 40, 60.")
        canvas.snap_on_add = False
        show(3); click(40, 60)  # removes it
        for stop in ((20, 20), (30, 30)):  # a dot that is undone while it is clicked or dragged
            click(20, 20)
            send(move, at(20, 20), no, no)
            send(press, at(20, 20), left, left)
            send(move, at(*stop), no, left)
            key("Z", control)
            send(move, at(*stop), no, left)
            send(release, at(*stop), left, no)
            assert len(dots()) == len(canvas.layers.dots.data) == 1
        canvas.view.go(np.array([3.0, 15.0, 35.0]))
        assert canvas.view.block == (0, 0, 0)
        assert canvas.layers.block.data.tolist() == [[0, 0, 0], [5, 29, 39]]
        drag((5, 45), (5, 35))  # the view, to the right
        assert canvas.view.block == (0, 0, 1)
        assert canvas.layers.block.data.tolist() == [[0, 0, 40], [5, 29, 79]]
        show(3)
        session.add((4, 30, 40)); session.add((1, 31, 41)); canvas.refresh()
        symbols = sorted(str(symbol.value) for symbol in canvas.layers.ghosts.symbol)
        assert symbols == ["triangle_down", "triangle_up"]
        show(3)
        click(30, 40)  # of a ghost: it is not clickable, so a dot is added
        assert len(dots()) == 4
        viewer.dims.order = (1, 0, 2)  # slices along y
        canvas.view.go(np.array([6.0, 45.0, 40.0]))
        click(8, 30)
        near(dots()[-1], (8, 45, 30))
        assert canvas.view.plane == (1, 45)
        viewer.dims.order = (0, 1, 2)
        viewer.add_image(np.zeros((2, 3, 4, 5)), name="series")  # with an axis before the image's
        viewer.layers.selection.active = canvas.layers.image
        show(5)
        click(50, 10); drag((50, 10), (45, 15)); key("PageDown"); key("PageUp")
        near(dots()[-1], (5, 45, 15))
        assert canvas.view.plane == (0, 5)
        drag((40, 5), (55, 25), shift)
        assert len(canvas.selected) == 1
        key("Delete")
        viewer.dims.order = (1, 2, 0, 3)  # of the image x only
        wait(); click(5, 5); key("PageDown"); key("B")
        assert len(dots()) == 5
        viewer.dims.order = (0, 1, 2, 3)
        viewer.dims.ndisplay = 3
        wait()
        assert len(canvas.layers.dots.data) == 5
        """,
        volume,
        **CUT,
    )
    points = read_points(volume.with_suffix(".csv"), ndim=3)
    assert len(points) == 5, "closing the window saves"
    assert not volume.with_name(".cells.label.journal").exists()


def test_keys_and_proposals(drive: Drive, volume: Path) -> None:
    drive(
        """
        def verified():
            return int(session.dots.verified.sum())
        places = [(3, 15, 20), (3, 40, 60), (6, 30, 40), (9, 20, 70)]
        panel.proposals.preview.setChecked(True)
        until(lambda: len(canvas.layers.preview.data))
        panel.proposals.start.click()
        until(lambda: not panel.proposals.busy)
        near(session.dots.points, places, 1)
        assert verified() == 0
        show(0)
        key("U")
        scores, least = session.dots.scores, canvas.focus
        assert least == int(np.argmin(scores))
        slices = "0 to 5" if session.dots.points[least][0] < 5.5 else "6 to 11"
        text = f"slices {slices}; the dot's score {scores[least]:.2f}"
        assert panel.place_status.text() == text
        key("E")
        assert verified() == 1 and canvas.focus not in (None, least)
        key("Z", control)
        assert verified() == 0
        key("Z", control | shift)
        assert verified() == 1
        show(3)
        key("Escape"); drag((15, 20), (13, 22))
        near(session.dots.points[0][1:], (13, 22))
        key("C")
        near(session.dots.points[0], places[0], 0.3)
        plane = canvas.view.plane[1]
        key("PageDown")
        assert canvas.view.plane[1] == plane + 1
        parts = panel.proposals
        for part, name in ((parts.method, "Down"), (parts.threshold, "Return")):
            part.setFocus(); QTest.keyClick(part, getattr(Qt.Key, "Key_" + name)); wait()
            with mock.patch("cellcount_jax.label.window.model_box.QFileDialog") as asked:
                asked.getOpenFileName.return_value = "", ""
                QTest.keyClick(panel.window().windowHandle(), Qt.Key.Key_PageDown); wait()
        # The keys went to the slices, and not to the boxes.
        assert canvas.view.plane[1] == plane + 3 and parts.method.currentIndex() == 1
        show(plane + 1)
        outline, block = canvas.layers.block.bounding_box, canvas.view.block
        before = np.array(outline.line_color)
        key("D")
        assert not np.allclose(outline.line_color, before)
        assert (session.state.blocks == 2).sum() == 1
        assert panel.blocks_status.text().startswith("1 of 8 blocks done")
        key("B")
        assert canvas.view.block != block
        assert not session.saved_to.exists()
        key("S", control)
        assert session.saved_to.exists()
        assert not [
            widget for widget in QApplication.topLevelWidgets()
            if widget.isVisible() and "Dialog" in type(widget).__name__
        ]
        shown = panel.block_map
        shown.resize(200, 120); wait()
        def choose(cells, *at):
            QTest.mouseClick(shown, left, none, cells.box(*at).center().toPoint()); wait()
            return canvas.view.block
        assert choose(shown.plane(), 0, 0)[1:] == (0, 0)
        assert [choose(shown.depths(), depth, 0)[0] for depth in (1, 0)] == [1, 0]
        blocks = session.state.blocks
        assert np.array_equal(shown.plane().states, blocks[0])
        depths = [set(plane.ravel().tolist()) for plane in blocks]
        assert shown.depths().states.tolist() == [[s.pop() if len(s) == 1 else 1] for s in depths]
        """,
        volume,
        **CUT,
    )


def test_keys_act_on_what_is_seen(drive: Drive, volume: Path) -> None:
    drive(
        """
        def verified():
            return int(session.dots.verified.sum())
        canvas.view.go(np.array([3.0, 15, 20])); wait()
        click(13, 22)
        key("B"); key("PageDown"); key("PageUp")
        assert (canvas.view.plane[1], canvas.view.block) == (3, (0, 0, 1))
        assert canvas.view.mouse is None  # after a jump, until it moves
        assert canvas.view.pointed.tolist() == canvas.view.place.tolist()
        key("C")
        near(session.dots.points, [(3, 13, 22)])  # left behind
        show(3)
        send(move, at(13, 22), no, no)
        key("C")
        near(session.dots.points, [(3, 15, 20)], 0.3)  # under the mouse
        canvas.go_to_dot(session.add((3, 38, 58)))
        send(move, at(15, 20), no, no)
        key("C")
        near(session.dots.points, [(3, 15, 20), (3, 40, 60)], 0.3)  # in focus
        key("B")
        assert canvas.focus is None
        key("Z", control); key("Z", control); key("Z", control); key("Z", control)
        points = np.array([(3, 50, 20), (3, 10, 60), (9, 10, 10), (3, 55, 70), (9, 50, 50)])
        canvas.propose(points, np.array([0.5, 0.2, 0.1, 0.4, 0.3]), {})
        visited = []
        for name in "UEUE" "UUU" "NU":
            key(name)
            if name == "U":
                (row,) = session.dots.rows([canvas.focus])
                visited.append(round(float(session.dots.scores[row]), 2))
        assert visited == [0.1, 0.2, 0.3, 0.4, 0.5, 0.3]
        count = verified()
        hold("E")
        assert verified() == count + 1
        hold("Z", 1, control)
        assert verified() == count - 1
        canvas.view.go(np.array([2.0, 10, 10])); plane = canvas.view.plane[1]
        hold("PageDown")
        assert canvas.view.plane[1] == plane + 5
        before = session.state.blocks
        hold("D")
        assert np.argwhere(session.state.blocks != before).tolist() == [[1, 0, 0]]
        states = []
        with mock.patch.object(canvas, "notify") as notify:
            # In blocks with verified dots, without dots, with a proposal.
            for place in ((9, 10, 10), (9, 10, 60), (9, 50, 50)):
                canvas.view.go(np.array(place))
                for _ in range(2):
                    key("D"); states.append(int(session.state.blocks[canvas.view.block]))
        assert states == [1, 2, 2, 0, 2, 1]
        notify.assert_called_once_with("1 proposal verified.")
        """,
        volume,
        **CUT,
    )


def test_a_model_is_calibrated(drive: Drive, volume: Path, untrained_model: Any) -> None:
    model = untrained_model(
        3, target__scale=1.0, evaluation__max_distance=3.0, predict__flips=False
    )
    model_file.export_model(model, volume.with_name("old.zip"), card="# old")
    drive(
        """
        parts = panel.proposals
        assert not parts.calibrate.isVisible()
        parts.threshold.setValue(0.3)
        parts.start.click()
        until(lambda: not parts.busy)
        assert len(session.dots) > 20
        show(3)
        assert not parts.calibrate.isVisible()
        session.mark(np.argwhere(session.state.blocks == 0)[:4], 2); canvas.refresh(); wait()
        assert parts.calibrate.isVisible()
        assert parts.calibrate.text() == "Calibrate old.zip with these dots"
        with mock.patch.object(canvas, "notify") as notify:
            parts.calibrate.click()
            assert not parts.calibrate.isEnabled()
            until(lambda: not parts.busy)
        (message,), _ = notify.call_args
        assert "cells.model.zip proposes from now on." in message, message
        made = image.with_name("cells.model.zip")
        assert made.exists() and parts.method.currentText() == str(made)
        assert parts.threshold.value() == 0 and parts.calibrate.isEnabled()
        parts.method.setCurrentIndex(0); parts.method.activated.emit(0); wait()
        assert not parts.calibrate.isVisible()  # Otsu's threshold has nothing to calibrate
        """,
        volume,
        model=str(volume.with_name("old.zip")),
        **CUT,
    )


def test_what_is_seen(drive: Drive, volume: Path) -> None:
    drive(
        """
        (view,) = panel.window().findChildren(VolumeView)
        show(6)
        session.add((6, 30, 40)); session.add((6, 10, 10)); canvas.refresh()
        until(lambda: len(view.dots.data))
        picture = viewer.screenshot(canvas_only=True, flash=False)
        assert ((picture[..., 1] > 180) & (picture[..., 0] < 100)).sum() > 20  # green
        assert (picture[..., :3].min(-1) > 150).sum() > 20  # bright
        assert view.image.scale.tolist() == [4, 2, 2]
        assert view.dots.data.tolist() == [[6, 30, 40], [6, 10, 10]]
        assert (view.screenshot(flash=False)[..., :3].max(-1) > 120).sum() > 200
        centre = view.centre.tolist()
        view.half = np.array([2, 8, 8])
        canvas.view.go(np.array([9.0, 50, 70])); canvas.refresh()
        until(lambda: view.centre.tolist() != centre)
        """,
        volume,
        **CUT,
    )


def test_an_image_in_2d_and_files_of_others(drive: Drive, tmp_path: Path) -> None:
    path = tmp_path / "flat.png"
    write_image(path, np.random.default_rng(0).integers(0, 99, (90, 120)).astype(np.uint8))
    (tmp_path / "other.csv").write_text("index,axis-0,axis-1\n0,10,20\n1,30,40\n")
    (tmp_path / "bad.xml").write_text("<a/>")
    write_rois(tmp_path / "other.zip", np.array([[10, 20], [60, 70]]))
    drive(
        """
        assert canvas.view.plane is None
        panel.import_file(image.with_name("other.csv"))
        assert session.dots.points.tolist() == [[10, 20], [30, 40]]
        panel.export_file(image.with_name("out.xml"))
        panel.import_file(image.with_name("bad.xml"))
        panel.import_file(image.with_name("none.csv"))
        assert len(session.dots) == 2
        panel.import_file(image.with_name("other.zip"))  # one of its two is there
        assert session.dots.points.tolist()[2:] == [[60, 70]]
        session.undo(); canvas.refresh()
        click(50, 60)
        near(session.dots.points[-1], (50, 60))
        """,
        path,
    )
    assert read_cellfinder(tmp_path / "out.xml", ndim=2).tolist() == [[10, 20], [30, 40]]


def test_from_the_menu_of_napari(drive: Drive, volume: Path) -> None:
    drive(
        """
        names = ["cells", "block", "preview", "nearby slices", "dots", "selection"]
        assert [layer.name for layer in viewer.layers] == names
        assert session.edges.tolist() == [4, 2, 2]
        show(3)
        click(15, 20)
        dock.title.close_button.click(); wait()
        assert not panel.isVisible()
        _, again = viewer.window.add_plugin_dock_widget("cellcount_jax", "Label cells"); wait()
        assert panel.isVisible() and again is panel
        click(40, 60)
        viewer.close(); wait()
        other = napari.components.ViewerModel()
        def label():
            with mock.patch("napari.current_viewer", return_value=other):
                return window.label_widget()
        start = label()
        assert start.problem.text().startswith("Choose the layer of an image")
        other.add_image(np.zeros((2, 2, 2, 2)), name="series")
        (other.layers.selection.active,) = other.open(image, plugin="napari")
        def state():
            calls = other.mouse_drag_callbacks, other.mouse_double_click_callbacks
            return list(other.layers), list(map(list, calls))
        before = state()
        with mock.patch.object(LabelPanel, "__init__", side_effect=ValueError("no panel")):
            try:
                label()
            except ValueError as error:
                assert "no panel" in str(error)
            else:
                raise AssertionError("no error")
        assert state() == before
        (other.layers.selection.active,) = other.layers[1:]
        with mock.patch("qtpy.QtCore.QTimer.singleShot"):  # a model alone has no window for docks
            beside = label()
        assert [layer.name for layer in other.layers] == ["series", *names]
        beside.canvas.session.close()
        """,
        volume,
        from_menu=True,
    )
    assert len(read_points(volume.with_suffix(".csv"), ndim=3)) == 2


def test_notes_on_opening_and_a_full_disk(drive: Drive, volume: Path) -> None:
    with Session(volume, block=(6, 30, 40), radius=10.0) as session:
        session.add((1, 1, 1))
    drive(
        """
        (note,) = session.notes
        assert "6 x 30 x 40" in note
        assert note in [record.message for record in notification_manager.records]
        show(3)
        asked = mock.Mock(side_effect=lambda event: event.ignore())
        with mock.patch.object(type(panel.window()), "closeEvent", lambda self, e: asked(e)):
            panel.window().close(); wait()  # and the user says no
        asked.assert_called_once()
        click(15, 20)
        with mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            click(40, 60)
            assert (len(session.dots), len(canvas.layers.dots.data)) == (2, 1)
            viewer.close()
        """,
        volume,
        block=(12, 60, 80),
    )
    with Session(volume) as session:  # it could not be saved when the window was closed
        assert session.recovered == 1 and len(session.dots) == 2


def test_the_benchmark_of_the_window(drive: Drive, tmp_path: Path) -> None:
    output = tmp_path / "labelling.json"
    small = ["--size", "32", "--dots", "200", "--repeats", "3", "--output", str(output)]
    script = ROOT / "benchmarks" / "labelling.py"
    drive(
        f"""
        import runpy
        paths, arguments = [*sys.path, {str(script.parent)!r}], {["labelling.py", *small]}
        with mock.patch.object(sys, "path", paths), mock.patch.object(sys, "argv", arguments):
            runpy.run_path({str(script)!r}, run_name="__main__")
        """
    )
    rows = json.loads(output.read_text())["rows"]
    assert [row["what"] for row in rows] == ["slice change", "add"]
    assert rows[0]["dots"] < rows[1]["dots"] <= 200 + 5
    assert all(0 < row["median ms"] <= row["95 % ms"] for row in rows)


@pytest.mark.usefixtures("display")
def test_without_a_display(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-m", "cellcount_jax.cli", "label", str(volume)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert "needs a display" in line


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"DISPLAY": ":987654"}, [], "Qt cannot open a window"),
        ({"DISPLAY": ":987654", "QT_QPA_PLATFORM": "offscreen"}, [], "needs OpenGL"),
        ({}, ["--model", "nope"], "nope: no such model"),
        ({}, ["--model", "nuclei2d"], "the model was trained on 2D images"),
    ],
)
def test_a_window_that_cannot_be(
    drive: Drive,
    volume: Path,
    environment: dict[str, str],
    arguments: list[str],
    message: str,
) -> None:
    drive(
        f"""
        import io
        from cellcount_jax import cli
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), mock.patch.dict(os.environ, {environment}):
            assert cli.main({["label", str(volume), *arguments]}) == 1
        (line,) = errors.getvalue().splitlines()
        assert {message!r} in line
        """
    )


def test_without_napari(
    volume: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    assert cli.main(["label", str(volume)]) == 1
    assert 'pip install "cellcount_jax[label]"' in capfd.readouterr().err
