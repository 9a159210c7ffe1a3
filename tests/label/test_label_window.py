"""The labelling window, under Xvfb with software OpenGL: real mouse, real keys, real pixels."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.images.exports import read_cellfinder
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import read_points
from cellcount_jax.label.session import Session

ROOT = Path(__file__).parents[2]


def missing() -> str:
    """Why a window cannot be shown; nothing where it can."""
    # Not imported here, where warnings are errors: the packages of napari have some.
    if not all(importlib.util.find_spec(name) for name in ("napari", "qtpy")):
        return "napari is not installed (the extra `label`)"
    return "" if shutil.which("Xvfb") else "Xvfb is not installed"


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A display of its own."""
    if reason := missing():
        pytest.skip(reason)
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1500x1000x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(writer)
        with os.fdopen(reader) as file:
            number = file.readline().strip()
        try:
            if not number:
                pytest.skip("Xvfb does not start")
            yield f":{number}"
        finally:
            server.terminate()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Bright balls at known places."""
    shape, edges = (12, 60, 80), np.array([4.0, 2.0, 2.0])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * edges
    pixels = np.random.default_rng(0).normal(200, 5, shape)
    for centre in np.array([(3, 15, 20), (3, 40, 60), (6, 30, 40), (9, 20, 70)]) * edges:
        pixels += 2000 * np.exp(-0.5 * np.square(grid - centre).sum(-1) / 5.0**2)
    path = tmp_path / "cells.tif"
    write_image(path, pixels.astype(np.uint16), spacing=tuple(edges))
    return path


# What the programs below share: a window, real events at voxels, and time for them.
_PRELUDE = """
    import json, os, sys, time
    from pathlib import Path
    from unittest import mock
    import napari
    import numpy as np
    from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
    from qtpy.QtGui import QKeyEvent, QMouseEvent
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication
    from cellcount_jax.label.window import window
    from cellcount_jax.label.window.panel import LabelPanel

    def wait(seconds=0.2):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            app.processEvents()
            time.sleep(0.005)

    image, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    if options.pop("from_menu", False):
        viewer = napari.Viewer()
        viewer.open(image, plugin="napari")
        dock, _ = viewer.window.add_plugin_dock_widget("cellcount_jax", "Label cells")
    else:
        viewer = window.open_window(image, **options)
    app = QApplication.instance()
    wait(1)
    panel = next(w for w in app.allWidgets() if isinstance(w, LabelPanel))
    canvas, session = panel.canvas, panel.canvas.session
    def parents(widget):
        while widget is not None:
            yield widget
            widget = widget.parentWidget()

    slices = [
        w for w in app.allWidgets() if type(w).__name__ == "CanvasBackendDesktop"
        and not any(type(p).__name__ == "VolumeView" for p in parents(w))
    ]
    native = max(slices, key=lambda w: w.width() * w.height())

    def at(y, x):
        "Where a voxel of the plane is in the canvas."
        edges = session.edges[canvas.view.shown]
        centre = np.asarray(canvas.view.camera.center[-2:])
        offset = (np.array([y, x]) * edges - centre) * canvas.view.camera.zoom
        return QPoint(round(native.width() / 2 + offset[1]), round(native.height() / 2 + offset[0]))

    none = Qt.KeyboardModifier.NoModifier

    def send(kind, point, button, buttons, modifiers=none):
        where = QPointF(point)
        event = QMouseEvent(
            kind, where, QPointF(native.mapToGlobal(point)), button, buttons, modifiers
        )
        app.sendEvent(native, event)
        wait(0.05)

    left, no = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton

    def drag(start, stop, modifiers=none):
        send(QEvent.Type.MouseMove, at(*start), no, no, modifiers)
        send(QEvent.Type.MouseButtonPress, at(*start), left, left, modifiers)
        for share in (0.3, 0.6, 1.0) if start != stop else ():
            between = tuple(a + share * (b - a) for a, b in zip(start, stop))
            send(QEvent.Type.MouseMove, at(*between), no, left, modifiers)
        send(QEvent.Type.MouseButtonRelease, at(*stop), left, no, modifiers)
        wait(0.1)

    def click(y, x):
        drag((y, x), (y, x))

    def key(name, modifiers=none):
        native.setFocus()
        QTest.keyClick(native, getattr(Qt.Key, "Key_" + name), modifiers)
        wait(0.1)

    def hold(name, repeats=4, modifiers=none):
        "The events of a key that is held down."
        code = getattr(Qt.Key, "Key_" + name)
        for again in range(1 + repeats):
            for kind in (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress):
                app.sendEvent(native, QKeyEvent(kind, code, modifiers, "", again > 0))
        app.sendEvent(native, QKeyEvent(QEvent.Type.KeyRelease, code, modifiers))
        wait(0.1)

    def show(z):
        canvas.view.go(np.array([z, 30.0, 40.0]))
        wait(0.1)

    control = Qt.KeyboardModifier.ControlModifier
    shift = Qt.KeyboardModifier.ShiftModifier
    told = {}
"""


def shown_on(display: str, folder: Path) -> dict[str, str]:
    """The environment of a process with a window, and settings in a folder."""
    return {
        **os.environ,
        "DISPLAY": display,
        "QT_QPA_PLATFORM": "xcb",
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "XDG_CONFIG_HOME": str(folder / "settings"),
        "NAPARI_CONFIG": str(folder / "settings" / "napari.yaml"),
        "PYTHONPATH": str(ROOT),
    }


def drive(display: str, image: Path, program: str, **options: Any) -> dict[str, Any]:
    """Runs a program in a process with the window; what it has put into `told`."""
    body = textwrap.dedent(_PRELUDE) + textwrap.dedent(program) + "\nprint(json.dumps(told))\n"
    process = subprocess.run(
        [sys.executable, "-c", body, str(image), json.dumps(options)],
        env=shown_on(display, image.parent),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def test_the_mouse(display: str, volume: Path) -> None:
    told = drive(
        display,
        volume,
        """
        show(3)
        click(15, 20); click(40, 60)
        told["added"] = session.dots.points.tolist()
        told["shown"] = len(canvas.layers.dots.data)
        drag((15, 20), (20, 30))
        told["moved"] = session.dots.points[0].tolist()
        click(40, 60)
        told["removed"] = len(session.dots)
        click(10, 10); click(12, 30); click(50, 70)
        drag((5, 5), (25, 35), shift)
        told["selected"] = len(canvas.selected)
        key("Delete")
        told["left"] = session.dots.points.tolist()
        drag((50, 10), (40, 20))
        told["after a drag of nothing"] = len(session.dots)
        handle, zoom = panel.window().windowHandle(), canvas.view.camera.zoom
        told["double click"] = []
        for _ in range(2):  # adds, and removes
            QTest.mouseDClick(handle, left, none, native.mapTo(panel.window(), at(20, 20))); wait()
            told["double click"].append((len(session.dots), canvas.view.camera.zoom / zoom))
        canvas.snap_on_add = True
        show(4)
        with mock.patch.object(canvas, "_tell") as tell:
            click(41, 61)
            told["snapped"] = session.dots.points[1:].tolist(), canvas.view.plane[1]
            show(4); click(41, 61)
            told["taken"] = len(session.dots), tell.call_args.args[0]
        canvas.snap_on_add = False
        show(3); click(40, 60)  # removes it
        told["gone meanwhile"] = []
        for stop in ((20, 20), (30, 30)):
            click(20, 20)
            send(QEvent.Type.MouseMove, at(20, 20), no, no)
            send(QEvent.Type.MouseButtonPress, at(20, 20), left, left)
            send(QEvent.Type.MouseMove, at(*stop), no, left)
            key("Z", control)
            send(QEvent.Type.MouseMove, at(*stop), no, left)
            send(QEvent.Type.MouseButtonRelease, at(*stop), left, no)
            told["gone meanwhile"].append((len(session.dots), len(canvas.layers.dots.data)))
        canvas.view.go(np.array([3.0, 15.0, 35.0]))
        seen, outline = canvas.view.block, canvas.layers.block.data.tolist()
        drag((5, 45), (5, 35))  # the view, to the right
        told["panned"] = seen, canvas.view.block
        told["outlines"] = outline, canvas.layers.block.data.tolist()
        show(3)
        session.add((4, 30, 40)); session.add((1, 31, 41)); canvas.refresh()
        told["ghosts"] = [str(s.value) for s in canvas.layers.ghosts.symbol]
        show(3)
        click(30, 40)  # of a ghost: it is not clickable, so a dot is added
        told["on a ghost"] = len(session.dots)
        viewer.dims.order = (1, 0, 2)  # slices along y
        canvas.view.go(np.array([6.0, 45.0, 40.0]))
        click(8, 30)
        told["across y"] = session.dots.points[-1].tolist(), list(canvas.view.plane)
        viewer.dims.order = (0, 1, 2)
        viewer.add_image(np.zeros((2, 3, 4, 5)), name="series")  # with an axis before the image's
        viewer.layers.selection.active = canvas.layers.image
        show(5)
        click(50, 10); drag((50, 10), (45, 15)); key("PageDown"); key("PageUp")
        told["beside a series"] = session.dots.points[-1].tolist(), list(canvas.view.plane)
        drag((40, 5), (55, 25), shift); told["selected there"] = len(canvas.selected)
        key("Delete")
        viewer.dims.order = (1, 2, 0, 3)  # of the image x only
        wait(); click(5, 5); key("PageDown"); key("B")
        told["not over the image"] = len(session.dots)
        viewer.dims.order = (0, 1, 2, 3)
        viewer.dims.ndisplay = 3
        wait()
        told["in 3D"] = len(canvas.layers.dots.data) == len(session.dots)
        viewer.close()
        """,
        block=(6, 30, 40),
        radius=10.0,
    )
    assert np.abs(np.array(told["added"]) - [(3, 15, 20), (3, 40, 60)]).max() < 0.5
    assert told["shown"] == 2
    assert np.abs(np.array(told["moved"]) - (3, 20, 30)).max() < 0.5
    assert told["removed"] == 1 and told["selected"] == 3
    assert np.abs(np.array(told["left"]) - [(3, 50, 70)]).max() < 0.5
    assert told["after a drag of nothing"] == 1
    assert told["double click"] == [[2, 1], [1, 1]]
    assert np.abs(np.array(told["snapped"][0]) - [(3, 40, 60)]).max() < 0.3
    assert told["snapped"][1] == 3
    assert told["taken"] == [2, "There is a dot at the brightest place already, voxel 3, 40, 60."]
    assert told["gone meanwhile"] == [[1, 1]] * 2
    assert told["panned"] == [[0, 0, 0], [0, 0, 1]]
    assert told["outlines"] == [[[0, 0, 0], [5, 29, 39]], [[0, 0, 40], [5, 29, 79]]]
    assert sorted(told["ghosts"]) == ["triangle_down", "triangle_up"]
    assert told["on a ghost"] == 4 and told["in 3D"]
    assert np.abs(np.array(told["beside a series"][0]) - (5, 45, 15)).max() < 0.5
    assert told["beside a series"][1] == [0, 5] and told["selected there"] == 1
    assert told["not over the image"] == 5
    assert np.abs(np.array(told["across y"][0]) - (8, 45, 30)).max() < 0.5
    assert told["across y"][1] == [1, 45]
    points = read_points(volume.with_suffix(".csv"), ndim=3)
    assert len(points) == 5, "closing the window saves"
    assert not volume.with_name(".cells.label.journal").exists()


def test_keys_and_proposals(display: str, volume: Path) -> None:
    told = drive(
        display,
        volume,
        """
        panel.proposals._preview.setChecked(True); wait(0.6)
        told["preview"] = len(canvas.layers.preview.data)
        panel.proposals._propose.click()
        end = time.monotonic() + 30
        while panel.proposals.busy and time.monotonic() < end:
            wait(0.05)
        wait()
        told["proposed"] = session.dots.points.tolist()
        told["verified"] = int(session.dots.verified.sum())
        show(0)
        key("U"); told["least"] = canvas.focus; told["by"] = session.dots.scores.tolist()
        told["here"] = panel._here.text()
        key("E"); told["accepted"] = int(session.dots.verified.sum())
        told["next"] = canvas.focus
        key("Z", control); told["undone"] = int(session.dots.verified.sum())
        key("Z", control | shift); told["redone"] = int(session.dots.verified.sum())
        show(3)
        key("Escape"); drag((15, 20), (13, 22)); told["dragged"] = session.dots.points[0].tolist()
        key("C"); told["snapped"] = session.dots.points[0].tolist()
        plane = canvas.view.plane
        key("PageDown"); told["down"] = canvas.view.plane[1] - plane[1]
        outline = canvas.layers.block.bounding_box
        told["before"] = [round(float(c), 2) for c in outline.line_color]
        parts, before = panel.proposals, canvas.view.plane[1]
        for part, name in ((parts._method, "Down"), (parts._threshold, "Return")):
            part.setFocus(); QTest.keyClick(part, getattr(Qt.Key, "Key_" + name)); wait()
            with mock.patch("cellcount_jax.label.window.proposal_panel.QFileDialog") as asked:
                asked.getOpenFileName.return_value = "", ""
                QTest.keyClick(panel.window().windowHandle(), Qt.Key.Key_PageDown); wait()
        told["slices, not boxes"] = canvas.view.plane[1] - before, parts._method.currentIndex()
        show(plane[1] + 1)
        key("D"); told["after"] = [round(float(c), 2) for c in outline.line_color]
        told["done"] = int((session.state.blocks == 2).sum())
        told["text"] = panel._blocks.text()
        block = canvas.view.block
        key("B"); told["another block"] = canvas.view.block != block
        told["unsaved"] = not session.saved_to.exists()
        key("S", control); told["saved"] = session.saved_to.exists()
        told["dialogs"] = [
            type(w).__name__ for w in app.topLevelWidgets()
            if w.isVisible() and w is not panel.window() and "Dialog" in type(w).__name__
        ]
        panel._map.resize(200, 120); wait()
        def choose(cells, *at):
            QTest.mouseClick(panel._map, left, none, cells.box(*at).center().toPoint()); wait()
            return list(canvas.view.block)
        told["map"] = choose(panel._map.plane(), 0, 0)[1:]
        told["depths"] = [choose(panel._map.depths(), at, 0)[0] for at in (1, 0)]
        told["blocks"] = session.state.blocks.tolist()
        told["states"] = [panel._map.plane().states.tolist(), panel._map.depths().states.tolist()]
        viewer.close()
        """,
        block=(6, 30, 40),
        radius=10.0,
    )
    places = np.array([(3, 15, 20), (3, 40, 60), (6, 30, 40), (9, 20, 70)])
    assert told["preview"] >= 1
    assert np.abs(np.array(told["proposed"]) - places).max() < 1
    assert told["verified"] == 0
    assert told["least"] == int(np.argmin(told["by"]))
    assert told["accepted"] == 1 and told["next"] not in (None, told["least"])
    assert (told["undone"], told["redone"]) == (0, 1)
    assert np.abs(np.array(told["dragged"])[1:] - (13, 22)).max() < 0.5
    assert np.abs(np.array(told["snapped"]) - places[0]).max() < 0.3
    assert told["down"] == 1 and told["done"] == 1 and told["another block"]
    assert told["text"].startswith("1 of 8 blocks done")
    assert told["slices, not boxes"] == [2, 1]
    assert told["unsaved"] and told["saved"] and told["dialogs"] == []
    assert told["map"] == [0, 0] and told["depths"] == [1, 0]
    assert told["states"][0] == np.array(told["blocks"])[0].tolist()
    of_depths = [{block for row in plane for block in row} for plane in told["blocks"]]
    assert told["states"][1] == [[s.pop() if len(s) == 1 else 1] for s in of_depths]
    score = min(told["by"])
    slices = "0 to 5" if told["proposed"][told["least"]][0] < 5.5 else "6 to 11"
    assert told["here"] == f"slices {slices}; the dot's score {score:.2f}"
    assert told["before"] != told["after"]


def test_keys_act_on_what_is_seen(display: str, volume: Path) -> None:
    told = drive(
        display,
        volume,
        """
        canvas.view.go(np.array([3.0, 15, 20])); wait()
        click(13, 22)
        key("B"); key("PageDown"); key("PageUp")
        told["seen"] = canvas.view.plane[1], list(canvas.view.block)
        told["mouse"] = canvas.view.mouse is not None
        told["pointed"] = canvas.view.pointed.tolist() == canvas.view.place.tolist()
        key("C"); told["left behind"] = session.dots.points.tolist()
        show(3)
        send(QEvent.Type.MouseMove, at(13, 22), no, no)
        key("C"); told["under the mouse"] = session.dots.points.tolist()
        other = session.add((3, 38, 58)); canvas.refresh()
        canvas._focus(other)
        send(QEvent.Type.MouseMove, at(15, 20), no, no)
        key("C"); told["in focus"] = session.dots.points.tolist()
        key("B"); told["focus"] = canvas.focus
        key("Z", control); key("Z", control); key("Z", control); key("Z", control)
        points = np.array([(3, 50, 20), (3, 10, 60), (9, 10, 10), (3, 55, 70), (9, 50, 50)])
        canvas.propose(points, np.array([0.5, 0.2, 0.1, 0.4, 0.3]), {})
        told["least"] = []
        def visit(names):
            for name in names:
                key(name)
                if name == "U":
                    (row,) = session.dots.rows([canvas.focus])
                    told["least"].append(round(float(session.dots.scores[row]), 2))
        visit("UEUE"); visit("UUU"); visit("NU")
        count = int(session.dots.verified.sum())
        hold("E"); told["held E"] = int(session.dots.verified.sum()) - count
        hold("Z", 1, control); told["held undo"] = int(session.dots.verified.sum()) - count
        canvas.view.go(np.array([2.0, 10, 10])); plane = canvas.view.plane[1]
        hold("PageDown"); told["held PgDown"] = canvas.view.plane[1] - plane
        states = session.state.blocks.copy()
        hold("D"); told["held D"] = np.argwhere(session.state.blocks != states).tolist()
        told["states"] = []
        with mock.patch.object(canvas, "_tell") as tell:
            for place in ((9, 10, 10), (9, 10, 60), (9, 50, 50)):
                canvas.view.go(np.array(place))
                for _ in range(2):
                    key("D"); told["states"].append(int(session.state.blocks[canvas.view.block]))
        told["verified"] = [call.args[0] for call in tell.call_args_list]
        viewer.close()
        """,
        block=(6, 30, 40),
        radius=10.0,
    )
    assert told["seen"] == [3, [0, 0, 1]] and not told["mouse"] and told["pointed"]
    assert np.abs(np.array(told["left behind"]) - [(3, 13, 22)]).max() < 0.5
    assert np.abs(np.array(told["under the mouse"]) - [(3, 15, 20)]).max() < 0.3
    assert np.abs(np.array(told["in focus"]) - [(3, 15, 20), (3, 40, 60)]).max() < 0.3
    assert told["focus"] is None
    assert told["least"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.3]
    assert (told["held E"], told["held undo"], told["held PgDown"]) == (1, -1, 5)
    assert told["held D"] == [[1, 0, 0]]
    # With verified dots, without dots, with a proposal.
    assert told["states"] == [1, 2, 2, 0, 2, 1]
    assert told["verified"] == ["1 proposal verified."]


def test_what_is_seen(display: str, volume: Path, tmp_path: Path) -> None:
    told = drive(
        display,
        volume,
        f"""
        show(6)
        session.add((6, 30, 40)); session.add((6, 10, 10)); canvas.refresh(); wait(0.5)
        picture = viewer.screenshot({str(tmp_path / "canvas.png")!r}, canvas_only=True, flash=False)
        told["green"] = int(((picture[..., 1] > 180) & (picture[..., 0] < 100)).sum())
        told["bright"] = int((picture[..., :3].min(-1) > 150).sum())
        from cellcount_jax.label.window.volume_view import VolumeView
        view = next(w for w in app.allWidgets() if isinstance(w, VolumeView))
        told["scale"] = [float(s) for s in view._image.scale]
        told["dots"] = view._dots.data.tolist()
        seen = view.screenshot(flash=False)
        told["seen"] = int((seen[..., :3].max(-1) > 120).sum())
        centre = view._centre.tolist()
        view._half = np.array([2, 8, 8])
        canvas.view.go(np.array([9.0, 50, 70])); canvas.refresh(); wait(0.5)
        told["follows"] = view._centre.tolist() != centre
        viewer.close()
        """,
        block=(6, 30, 40),
        radius=10.0,
    )
    assert told["green"] > 20 and told["bright"] > 20
    assert told["scale"] == [4.0, 2.0, 2.0]
    assert told["dots"] == [[6, 30, 40], [6, 10, 10]]
    assert told["seen"] > 200 and told["follows"]


def test_an_image_in_2d_and_files_of_others(display: str, tmp_path: Path) -> None:
    image = tmp_path / "flat.png"
    write_image(image, np.random.default_rng(0).integers(0, 99, (90, 120)).astype(np.uint8))
    (tmp_path / "other.csv").write_text("index,axis-0,axis-1\n0,10,20\n1,30,40\n")
    (tmp_path / "bad.xml").write_text("<a/>")
    told = drive(
        display,
        image,
        f"""
        told["plane"] = canvas.view.plane
        folder = Path({str(tmp_path)!r})
        panel.import_file(folder / "other.csv")
        told["imported"] = session.dots.points.tolist()
        panel.export_file(folder / "out.xml")
        panel.import_file(folder / "bad.xml")
        panel.import_file(folder / "none.csv")
        told["as before"] = len(session.dots)
        click(50, 60)
        told["added"] = session.dots.points[-1].tolist()
        viewer.close()
        """,
    )
    assert told["plane"] is None
    assert told["imported"] == [[10, 20], [30, 40]] and told["as before"] == 2
    assert np.abs(np.array(told["added"]) - (50, 60)).max() < 0.5
    assert read_cellfinder(tmp_path / "out.xml", ndim=2).tolist() == [[10, 20], [30, 40]]


def test_from_the_menu_of_napari(display: str, volume: Path) -> None:
    told = drive(
        display,
        volume,
        """
        told["layers"] = [layer.name for layer in viewer.layers]
        told["edges"] = session.edges.tolist()
        show(3)
        click(15, 20)
        dock.title.close_button.click(); wait()
        told["seen"] = [panel.isVisible()]
        _, again = viewer.window.add_plugin_dock_widget("cellcount_jax", "Label cells"); wait()
        told["seen"].append(panel.isVisible())
        told["the same"] = again is panel
        click(40, 60)
        viewer.close(); wait()
        told["errors"] = []
        other = napari.components.ViewerModel()
        def label():
            with mock.patch("napari.current_viewer", return_value=other):
                try:
                    return window.label_widget()
                except Exception as error:
                    told["errors"].append(str(error))
        label()
        other.add_image(np.zeros((2, 2, 2, 2)), name="series")
        (other.layers.selection.active,) = other.open(image, plugin="napari")
        def state():
            calls = other.mouse_drag_callbacks, other.mouse_double_click_callbacks
            return list(other.layers), list(map(list, calls))
        before = state()
        with mock.patch.object(LabelPanel, "__init__", side_effect=ValueError("no panel")):
            label()
        told["as before"] = state() == before
        (other.layers.selection.active,) = other.layers[1:]
        beside = label()
        told["beside"] = [layer.name for layer in other.layers]
        beside.canvas.session.close()
        """,
        from_menu=True,
    )
    assert told["layers"] == ["cells", "block", "preview", "nearby slices", "dots", "selection"]
    assert told["edges"] == [4, 2, 2]
    assert told["seen"] == [False, True] and told["the same"]
    assert "Choose the layer of an image" in told["errors"][0]
    assert told["errors"][1] == "no panel" and told["as before"]
    assert told["beside"] == ["series", *told["layers"]]
    assert len(read_points(volume.with_suffix(".csv"), ndim=3)) == 2


def test_a_full_disk_is_told_and_changes_nothing(display: str, volume: Path) -> None:
    told = drive(
        display,
        volume,
        """
        show(3)
        asked = mock.Mock(side_effect=lambda event: event.ignore())
        with mock.patch.object(type(panel.window()), "closeEvent", lambda self, e: asked(e)):
            panel.window().close(); wait()  # and the user says no
        told["asked"] = asked.call_count
        click(15, 20)
        with mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            click(40, 60)
            told["points"] = len(session.dots)
            told["shown"] = len(canvas.layers.dots.data)
            viewer.close()
        """,
        block=(6, 30, 40),
        radius=10.0,
    )
    assert told == {"asked": 1, "points": 1, "shown": 1}
    with Session(volume) as session:  # it could not be saved when the window was closed
        assert session.recovered == 1 and len(session.dots) == 1


def test_what_the_user_should_know_is_told_on_opening(display: str, volume: Path) -> None:
    with Session(volume, block=(6, 30, 40)) as session:
        session.add((1, 1, 1))
    told = drive(
        display,
        volume,
        """
        from napari.utils.notifications import notification_manager
        told["notes"] = session.notes
        told["shown"] = [record.message for record in notification_manager.records]
        viewer.close()
        """,
        block=(12, 60, 80),
    )
    assert "6x30x40" in told["notes"][0] and told["notes"][0] in told["shown"]


def test_the_benchmark_of_the_window(display: str, tmp_path: Path) -> None:
    output = tmp_path / "labelling.json"
    small = ["--size", "32", "--dots", "200", "--repeats", "3", "--output", str(output)]
    process = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "labelling.py"), *small],
        env=shown_on(display, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [row["what"] for row in rows] == ["slice change", "add"]
    assert rows[0]["dots"] < rows[1]["dots"] <= 200 + 5
    assert all(0 < row["median ms"] <= row["95 % ms"] for row in rows)


def test_without_a_display_or_opengl(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := missing():
        pytest.skip(reason)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert "needs a display" in refused(volume)
    monkeypatch.setenv("DISPLAY", ":987654")
    assert "Qt cannot open a window" in refused(volume)
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")  # which has none
    assert "needs OpenGL" in refused(volume)


def test_a_model_that_cannot_propose(
    display: str, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    assert "nope: no such model" in refused(volume, "--model", "nope")
    assert "the model was trained on 2D images" in refused(volume, "--model", "nuclei2d")


def refused(volume: Path, *arguments: str) -> str:
    """The one line of `cellcount label` where it cannot be."""
    command = [sys.executable, "-m", "cellcount_jax.cli", "label", str(volume), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert process.returncode == 1, process.stderr
    (line,) = process.stderr.splitlines()
    return line


def test_without_napari(
    volume: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    assert cli.main(["label", str(volume)]) == 1
    assert 'pip install "cellcount_jax[label]"' in capfd.readouterr().err
