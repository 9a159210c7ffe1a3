"""The labelling window, under Xvfb with software OpenGL: real mouse, real keys, real pixels."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.images import whole
from cellcount_jax.images.exports import read_cellfinder
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
    whole.write_image(path, pixels.astype(np.uint16), spacing=tuple(edges))
    return path


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


class WindowProcess:
    """A process with windows, see `window_process.py`; started again after a test that failed."""

    def __init__(self, display: str, folder: Path) -> None:
        self._environment, self._log = shown_on(display, folder), folder / "log.txt"
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, program: str, image: Path | None = None, **options: Any) -> dict[str, Any]:
        """Runs a program on a window with an image, or on none; what it put into `seen`."""
        if self._process is None:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("window_process.py"))],
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        request = {
            "program": textwrap.dedent(program),
            "image": None if image is None else str(image),
            "options": options,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        begin = self._log.stat().st_size
        timer = threading.Timer(120, self._process.kill)
        timer.start()
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        timer.cancel()
        errors = self._log.read_bytes()[begin:].decode()
        answer: Any = json.loads(line) if line else {"error": errors}
        if "seen" not in answer or "Traceback" in errors:
            self.close()
            pytest.fail(answer.get("error", errors))
        seen: dict[str, Any] = answer["seen"]
        return seen

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def drive(display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowProcess]:
    """One process for the windows of all tests."""
    process = WindowProcess(display, tmp_path_factory.mktemp("window"))
    yield process
    process.close()


def test_the_mouse(drive: WindowProcess, volume: Path) -> None:
    seen = drive(
        """
        show(3)
        click(15, 20); click(40, 60)
        seen["added"] = session.dots.points.tolist()
        seen["shown"] = len(canvas.layers.dots.data)
        drag((15, 20), (20, 30))
        seen["moved"] = session.dots.points[0].tolist()
        click(40, 60)
        seen["removed"] = len(session.dots)
        click(10, 10); click(12, 30); click(50, 70)
        drag((5, 5), (25, 35), shift)
        seen["selected"] = len(canvas.selected)
        key("Delete")
        seen["left"] = session.dots.points.tolist()
        drag((50, 10), (40, 20))
        seen["after a drag of nothing"] = len(session.dots)
        handle, zoom = panel.window().windowHandle(), canvas.view.camera.zoom
        seen["double click"] = []
        for _ in range(2):  # adds, and removes
            QTest.mouseDClick(handle, left, none, native.mapTo(panel.window(), at(20, 20))); wait()
            seen["double click"].append((len(session.dots), canvas.view.camera.zoom / zoom))
        canvas.snap_on_add = True
        show(4)
        with mock.patch.object(canvas, "notify") as notify:
            click(41, 61)
            seen["snapped"] = session.dots.points[1:].tolist(), canvas.view.plane[1]
            show(4); click(41, 61)
            seen["taken"] = len(session.dots), notify.call_args.args[0]
        canvas.snap_on_add = False
        show(3); click(40, 60)  # removes it
        seen["gone meanwhile"] = []
        for stop in ((20, 20), (30, 30)):
            click(20, 20)
            send(move, at(20, 20), no, no)
            send(press, at(20, 20), left, left)
            send(move, at(*stop), no, left)
            key("Z", control)
            send(move, at(*stop), no, left)
            send(release, at(*stop), left, no)
            seen["gone meanwhile"].append((len(session.dots), len(canvas.layers.dots.data)))
        canvas.view.go(np.array([3.0, 15.0, 35.0]))
        before, outline = canvas.view.block, canvas.layers.block.data.tolist()
        drag((5, 45), (5, 35))  # the view, to the right
        seen["panned"] = before, canvas.view.block
        seen["outlines"] = outline, canvas.layers.block.data.tolist()
        show(3)
        session.add((4, 30, 40)); session.add((1, 31, 41)); canvas.refresh()
        seen["ghosts"] = [str(s.value) for s in canvas.layers.ghosts.symbol]
        show(3)
        click(30, 40)  # of a ghost: it is not clickable, so a dot is added
        seen["on a ghost"] = len(session.dots)
        viewer.dims.order = (1, 0, 2)  # slices along y
        canvas.view.go(np.array([6.0, 45.0, 40.0]))
        click(8, 30)
        seen["across y"] = session.dots.points[-1].tolist(), list(canvas.view.plane)
        viewer.dims.order = (0, 1, 2)
        viewer.add_image(np.zeros((2, 3, 4, 5)), name="series")  # with an axis before the image's
        viewer.layers.selection.active = canvas.layers.image
        show(5)
        click(50, 10); drag((50, 10), (45, 15)); key("PageDown"); key("PageUp")
        seen["beside a series"] = session.dots.points[-1].tolist(), list(canvas.view.plane)
        drag((40, 5), (55, 25), shift); seen["selected there"] = len(canvas.selected)
        key("Delete")
        viewer.dims.order = (1, 2, 0, 3)  # of the image x only
        wait(); click(5, 5); key("PageDown"); key("B")
        seen["not over the image"] = len(session.dots)
        viewer.dims.order = (0, 1, 2, 3)
        viewer.dims.ndisplay = 3
        wait()
        seen["in 3D"] = len(canvas.layers.dots.data) == len(session.dots)
        """,
        volume,
        block=(6, 30, 40),
        radius=10.0,
    )
    assert np.abs(np.array(seen["added"]) - [(3, 15, 20), (3, 40, 60)]).max() < 0.5
    assert seen["shown"] == 2
    assert np.abs(np.array(seen["moved"]) - (3, 20, 30)).max() < 0.5
    assert seen["removed"] == 1 and seen["selected"] == 3
    assert np.abs(np.array(seen["left"]) - [(3, 50, 70)]).max() < 0.5
    assert seen["after a drag of nothing"] == 1
    assert seen["double click"] == [[2, 1], [1, 1]]
    assert np.abs(np.array(seen["snapped"][0]) - [(3, 40, 60)]).max() < 0.3
    assert seen["snapped"][1] == 3
    assert seen["taken"] == [2, "There is a dot at the brightest place already, voxel 3, 40, 60."]
    assert seen["gone meanwhile"] == [[1, 1]] * 2
    assert seen["panned"] == [[0, 0, 0], [0, 0, 1]]
    assert seen["outlines"] == [[[0, 0, 0], [5, 29, 39]], [[0, 0, 40], [5, 29, 79]]]
    assert sorted(seen["ghosts"]) == ["triangle_down", "triangle_up"]
    assert seen["on a ghost"] == 4 and seen["in 3D"]
    assert np.abs(np.array(seen["beside a series"][0]) - (5, 45, 15)).max() < 0.5
    assert seen["beside a series"][1] == [0, 5] and seen["selected there"] == 1
    assert seen["not over the image"] == 5
    assert np.abs(np.array(seen["across y"][0]) - (8, 45, 30)).max() < 0.5
    assert seen["across y"][1] == [1, 45]
    points = whole.read_points(volume.with_suffix(".csv"), ndim=3)
    assert len(points) == 5, "closing the window saves"
    assert not volume.with_name(".cells.label.journal").exists()


def test_keys_and_proposals(drive: WindowProcess, volume: Path) -> None:
    seen = drive(
        """
        panel.proposals.preview.setChecked(True)
        until(lambda: len(canvas.layers.preview.data))
        panel.proposals.start.click()
        until(lambda: not panel.proposals.busy)
        seen["proposed"] = session.dots.points.tolist()
        seen["verified"] = int(session.dots.verified.sum())
        show(0)
        key("U"); seen["least"] = canvas.focus; seen["by"] = session.dots.scores.tolist()
        seen["here"] = panel.place_status.text()
        key("E"); seen["accepted"] = int(session.dots.verified.sum())
        seen["next"] = canvas.focus
        key("Z", control); seen["undone"] = int(session.dots.verified.sum())
        key("Z", control | shift); seen["redone"] = int(session.dots.verified.sum())
        show(3)
        key("Escape"); drag((15, 20), (13, 22)); seen["dragged"] = session.dots.points[0].tolist()
        key("C"); seen["snapped"] = session.dots.points[0].tolist()
        plane = canvas.view.plane
        key("PageDown"); seen["down"] = canvas.view.plane[1] - plane[1]
        outline = canvas.layers.block.bounding_box
        seen["before"] = [round(float(c), 2) for c in outline.line_color]
        parts, before = panel.proposals, canvas.view.plane[1]
        for part, name in ((parts.method, "Down"), (parts.threshold, "Return")):
            part.setFocus(); QTest.keyClick(part, getattr(Qt.Key, "Key_" + name)); wait()
            with mock.patch("cellcount_jax.label.window.proposal_panel.QFileDialog") as asked:
                asked.getOpenFileName.return_value = "", ""
                QTest.keyClick(panel.window().windowHandle(), Qt.Key.Key_PageDown); wait()
        seen["slices, not boxes"] = canvas.view.plane[1] - before, parts.method.currentIndex()
        show(plane[1] + 1)
        key("D"); seen["after"] = [round(float(c), 2) for c in outline.line_color]
        seen["done"] = int((session.state.blocks == 2).sum())
        seen["text"] = panel.blocks_status.text()
        block = canvas.view.block
        key("B"); seen["another block"] = canvas.view.block != block
        seen["unsaved"] = not session.saved_to.exists()
        key("S", control); seen["saved"] = session.saved_to.exists()
        seen["dialogs"] = [
            type(w).__name__ for w in QApplication.topLevelWidgets()
            if w.isVisible() and w is not panel.window() and "Dialog" in type(w).__name__
        ]
        panel.block_map.resize(200, 120); wait()
        def choose(cells, *at):
            QTest.mouseClick(panel.block_map, left, none, cells.box(*at).center().toPoint()); wait()
            return list(canvas.view.block)
        seen["map"] = choose(panel.block_map.plane(), 0, 0)[1:]
        seen["depths"] = [choose(panel.block_map.depths(), at, 0)[0] for at in (1, 0)]
        seen["blocks"] = session.state.blocks.tolist()
        maps = panel.block_map.plane(), panel.block_map.depths()
        seen["states"] = [cells.states.tolist() for cells in maps]
        """,
        volume,
        block=(6, 30, 40),
        radius=10.0,
    )
    places = np.array([(3, 15, 20), (3, 40, 60), (6, 30, 40), (9, 20, 70)])
    assert np.abs(np.array(seen["proposed"]) - places).max() < 1
    assert seen["verified"] == 0
    assert seen["least"] == int(np.argmin(seen["by"]))
    assert seen["accepted"] == 1 and seen["next"] not in (None, seen["least"])
    assert (seen["undone"], seen["redone"]) == (0, 1)
    assert np.abs(np.array(seen["dragged"])[1:] - (13, 22)).max() < 0.5
    assert np.abs(np.array(seen["snapped"]) - places[0]).max() < 0.3
    assert seen["down"] == 1 and seen["done"] == 1 and seen["another block"]
    assert seen["text"].startswith("1 of 8 blocks done")
    assert seen["slices, not boxes"] == [2, 1]
    assert seen["unsaved"] and seen["saved"] and seen["dialogs"] == []
    assert seen["map"] == [0, 0] and seen["depths"] == [1, 0]
    assert seen["states"][0] == np.array(seen["blocks"])[0].tolist()
    of_depths = [{block for row in plane for block in row} for plane in seen["blocks"]]
    assert seen["states"][1] == [[s.pop() if len(s) == 1 else 1] for s in of_depths]
    score = min(seen["by"])
    slices = "0 to 5" if seen["proposed"][seen["least"]][0] < 5.5 else "6 to 11"
    assert seen["here"] == f"slices {slices}; the dot's score {score:.2f}"
    assert seen["before"] != seen["after"]


def test_keys_act_on_what_is_seen(drive: WindowProcess, volume: Path) -> None:
    seen = drive(
        """
        canvas.view.go(np.array([3.0, 15, 20])); wait()
        click(13, 22)
        key("B"); key("PageDown"); key("PageUp")
        seen["seen"] = canvas.view.plane[1], list(canvas.view.block)
        seen["mouse"] = canvas.view.mouse is not None
        seen["pointed"] = canvas.view.pointed.tolist() == canvas.view.place.tolist()
        key("C"); seen["left behind"] = session.dots.points.tolist()
        show(3)
        send(move, at(13, 22), no, no)
        key("C"); seen["under the mouse"] = session.dots.points.tolist()
        other = session.add((3, 38, 58)); canvas.refresh()
        canvas.go_to_dot(other)
        send(move, at(15, 20), no, no)
        key("C"); seen["in focus"] = session.dots.points.tolist()
        key("B"); seen["focus"] = canvas.focus
        key("Z", control); key("Z", control); key("Z", control); key("Z", control)
        points = np.array([(3, 50, 20), (3, 10, 60), (9, 10, 10), (3, 55, 70), (9, 50, 50)])
        canvas.propose(points, np.array([0.5, 0.2, 0.1, 0.4, 0.3]), {})
        seen["least"] = []
        def visit(names):
            for name in names:
                key(name)
                if name == "U":
                    (row,) = session.dots.rows([canvas.focus])
                    seen["least"].append(round(float(session.dots.scores[row]), 2))
        visit("UEUE"); visit("UUU"); visit("NU")
        count = int(session.dots.verified.sum())
        hold("E"); seen["held E"] = int(session.dots.verified.sum()) - count
        hold("Z", 1, control); seen["held undo"] = int(session.dots.verified.sum()) - count
        canvas.view.go(np.array([2.0, 10, 10])); plane = canvas.view.plane[1]
        hold("PageDown"); seen["held PgDown"] = canvas.view.plane[1] - plane
        states = session.state.blocks.copy()
        hold("D"); seen["held D"] = np.argwhere(session.state.blocks != states).tolist()
        seen["states"] = []
        with mock.patch.object(canvas, "notify") as notify:
            for place in ((9, 10, 10), (9, 10, 60), (9, 50, 50)):
                canvas.view.go(np.array(place))
                for _ in range(2):
                    key("D"); seen["states"].append(int(session.state.blocks[canvas.view.block]))
        seen["verified"] = [call.args[0] for call in notify.call_args_list]
        """,
        volume,
        block=(6, 30, 40),
        radius=10.0,
    )
    assert seen["seen"] == [3, [0, 0, 1]] and not seen["mouse"] and seen["pointed"]
    assert np.abs(np.array(seen["left behind"]) - [(3, 13, 22)]).max() < 0.5
    assert np.abs(np.array(seen["under the mouse"]) - [(3, 15, 20)]).max() < 0.3
    assert np.abs(np.array(seen["in focus"]) - [(3, 15, 20), (3, 40, 60)]).max() < 0.3
    assert seen["focus"] is None
    assert seen["least"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.3]
    assert (seen["held E"], seen["held undo"], seen["held PgDown"]) == (1, -1, 5)
    assert seen["held D"] == [[1, 0, 0]]
    # With verified dots, without dots, with a proposal.
    assert seen["states"] == [1, 2, 2, 0, 2, 1]
    assert seen["verified"] == ["1 proposal verified."]


def test_what_is_seen(drive: WindowProcess, volume: Path, tmp_path: Path) -> None:
    seen = drive(
        f"""
        (view,) = panel.window().findChildren(VolumeView)
        show(6)
        session.add((6, 30, 40)); session.add((6, 10, 10)); canvas.refresh()
        until(lambda: len(view.dots.data))
        picture = viewer.screenshot({str(tmp_path / "canvas.png")!r}, canvas_only=True, flash=False)
        seen["green"] = int(((picture[..., 1] > 180) & (picture[..., 0] < 100)).sum())
        seen["bright"] = int((picture[..., :3].min(-1) > 150).sum())
        seen["scale"] = [float(s) for s in view.image.scale]
        seen["dots"] = view.dots.data.tolist()
        picture = view.screenshot(flash=False)
        seen["volume"] = int((picture[..., :3].max(-1) > 120).sum())
        centre = view.centre.tolist()
        view.half = np.array([2, 8, 8])
        canvas.view.go(np.array([9.0, 50, 70])); canvas.refresh()
        until(lambda: view.centre.tolist() != centre)
        """,
        volume,
        block=(6, 30, 40),
        radius=10.0,
    )
    assert seen["green"] > 20 and seen["bright"] > 20
    assert seen["scale"] == [4.0, 2.0, 2.0]
    assert seen["dots"] == [[6, 30, 40], [6, 10, 10]]
    assert seen["volume"] > 200


def test_an_image_in_2d_and_files_of_others(drive: WindowProcess, tmp_path: Path) -> None:
    image = tmp_path / "flat.png"
    whole.write_image(image, np.random.default_rng(0).integers(0, 99, (90, 120)).astype(np.uint8))
    (tmp_path / "other.csv").write_text("index,axis-0,axis-1\n0,10,20\n1,30,40\n")
    (tmp_path / "bad.xml").write_text("<a/>")
    seen = drive(
        f"""
        seen["plane"] = canvas.view.plane
        folder = Path({str(tmp_path)!r})
        panel.import_file(folder / "other.csv")
        seen["imported"] = session.dots.points.tolist()
        panel.export_file(folder / "out.xml")
        panel.import_file(folder / "bad.xml")
        panel.import_file(folder / "none.csv")
        seen["as before"] = len(session.dots)
        click(50, 60)
        seen["added"] = session.dots.points[-1].tolist()
        """,
        image,
    )
    assert seen["plane"] is None
    assert seen["imported"] == [[10, 20], [30, 40]] and seen["as before"] == 2
    assert np.abs(np.array(seen["added"]) - (50, 60)).max() < 0.5
    assert read_cellfinder(tmp_path / "out.xml", ndim=2).tolist() == [[10, 20], [30, 40]]


def test_from_the_menu_of_napari(drive: WindowProcess, volume: Path) -> None:
    seen = drive(
        """
        seen["layers"] = [layer.name for layer in viewer.layers]
        seen["edges"] = session.edges.tolist()
        show(3)
        click(15, 20)
        dock.title.close_button.click(); wait()
        seen["seen"] = [panel.isVisible()]
        _, again = viewer.window.add_plugin_dock_widget("cellcount_jax", "Label cells"); wait()
        seen["seen"].append(panel.isVisible())
        seen["the same"] = again is panel
        click(40, 60)
        viewer.close(); wait()
        seen["errors"] = []
        other = napari.components.ViewerModel()
        def label():
            with mock.patch("napari.current_viewer", return_value=other):
                try:
                    return window.label_widget()
                except Exception as error:
                    seen["errors"].append(str(error))
        label()
        other.add_image(np.zeros((2, 2, 2, 2)), name="series")
        (other.layers.selection.active,) = other.open(image, plugin="napari")
        def state():
            calls = other.mouse_drag_callbacks, other.mouse_double_click_callbacks
            return list(other.layers), list(map(list, calls))
        before = state()
        with mock.patch.object(LabelPanel, "__init__", side_effect=ValueError("no panel")):
            label()
        seen["as before"] = state() == before
        (other.layers.selection.active,) = other.layers[1:]
        with mock.patch("qtpy.QtCore.QTimer.singleShot"):  # a model alone has no window for docks
            beside = label()
        seen["beside"] = [layer.name for layer in other.layers]
        beside.canvas.session.close()
        """,
        volume,
        from_menu=True,
    )
    assert seen["layers"] == ["cells", "block", "preview", "nearby slices", "dots", "selection"]
    assert seen["edges"] == [4, 2, 2]
    assert seen["seen"] == [False, True] and seen["the same"]
    assert "Choose the layer of an image" in seen["errors"][0]
    assert seen["errors"][1] == "no panel" and seen["as before"]
    assert seen["beside"] == ["series", *seen["layers"]]
    assert len(whole.read_points(volume.with_suffix(".csv"), ndim=3)) == 2


def test_notes_on_opening_and_a_full_disk(drive: WindowProcess, volume: Path) -> None:
    with Session(volume, block=(6, 30, 40), radius=10.0) as session:
        session.add((1, 1, 1))
    seen = drive(
        """
        seen["notes"] = session.notes
        seen["messages"] = [record.message for record in notification_manager.records]
        show(3)
        asked = mock.Mock(side_effect=lambda event: event.ignore())
        with mock.patch.object(type(panel.window()), "closeEvent", lambda self, e: asked(e)):
            panel.window().close(); wait()  # and the user says no
        seen["asked"] = asked.call_count
        click(15, 20)
        with mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            click(40, 60)
            seen["dots"] = len(session.dots), len(canvas.layers.dots.data)
            viewer.close()
        """,
        volume,
        block=(12, 60, 80),
    )
    (note,) = seen["notes"]
    assert "6 x 30 x 40" in note and note in seen["messages"]
    assert seen["asked"] == 1 and seen["dots"] == [2, 1]
    with Session(volume) as session:  # it could not be saved when the window was closed
        assert session.recovered == 1 and len(session.dots) == 2


def test_the_benchmark_of_the_window(drive: WindowProcess, tmp_path: Path) -> None:
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


def test_without_a_display(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := missing():
        pytest.skip(reason)
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
    drive: WindowProcess,
    volume: Path,
    environment: dict[str, str],
    arguments: list[str],
    message: str,
) -> None:
    seen = drive(
        f"""
        import io
        from cellcount_jax import cli
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), mock.patch.dict(os.environ, {environment}):
            seen["status"] = cli.main({["label", str(volume), *arguments]})
        seen["lines"] = errors.getvalue().splitlines()
        """
    )
    (line,) = seen["lines"]
    assert seen["status"] == 1 and message in line


def test_without_napari(
    volume: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    assert cli.main(["label", str(volume)]) == 1
    assert 'pip install "cellcount_jax[label]"' in capfd.readouterr().err
