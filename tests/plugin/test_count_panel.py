"""The panel "Count cells" and the sample data, in napari under Xvfb."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cellcount_jax
from cellcount_jax import InputError, cli
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.points import read_points
from cellcount_jax.plugin.layer_image import image_of_layer, likely_depth, voxel_edges

# What each program begins with.
_START = """
import json, os, sys, time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock
import cellcount_jax
import napari
import numpy as np
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the condition does not come true"
        time.sleep(0.005)
        QApplication.processEvents()

viewer = napari.Viewer()
def docked():
    found = viewer.window.add_plugin_dock_widget("cellcount_jax", "Count cells")
    QApplication.processEvents()
    return found
"""


@pytest.fixture
def drive(display: Callable[[Path], dict[str, str]], tmp_path: Path) -> Callable[[str], None]:
    """Runs a program with a window."""

    def run(program: str) -> None:
        whole = _START + textwrap.dedent(program) + "\nviewer.close()\n"
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", whole],
            env={**display(tmp_path), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr

    return run


@pytest.mark.usefixtures("quick_compiling")
def test_counting_an_image_of_a_file(
    drive: Callable[[str], None], run_2d: Path, cells_2d: Path, tmp_path: Path
) -> None:
    image = tmp_path / "cells.png"
    shutil.copy(cells_2d / "test" / "t0.png", image)
    drive(
        f"""
        viewer.open({str(image)!r}, plugin="napari")
        dock, panel = docked()
        assert panel.form.image.currentText() == "cells" and not panel.threshold.isEnabled()
        assert panel.form.model.currentText() == "nuclei2d" and panel.form.voxels.text() == ""
        panel.form.offer({str(run_2d)!r})
        from cellcount_jax.inference import search
        with mock.patch.object(search, "_seen", wraps=search._seen) as computed:
            QTest.mouseClick(panel.start, Qt.MouseButton.LeftButton)
            assert panel.busy
            until(lambda: not panel.busy)
            assert "cells</b> (the model's own threshold)" in panel.result.text()
            panel.save_points(Path("own.csv"))
            layer = panel.layers.cells
            counts = []
            for value in (0.1, 0.5, 0.9):
                panel.threshold.setValue(value)
                until(lambda: panel.settled)
                assert f"<b>{{len(layer.data)}} cells</b>" in panel.result.text()
                counts.append(len(layer.data))
                panel.save_points(Path(f"{{value}}.csv"))
            assert computed.call_count == 1
        assert counts[0] > counts[1] >= counts[2] and panel.layers.cells is layer
        assert layer.name == "cells of cells" and not layer.editable
        assert layer.features["score"].min() > 0.9 if counts[2] else True
        panel.own.click()
        until(lambda: panel.settled)
        scores = layer.features["score"].to_numpy()
        assert len(scores) == len(layer.data) == len(layer.size) > 0
        assert list(layer.features) == ["score"]
        json.dump(layer.data.tolist(), open("layer.json", "w"))

        # A layer that was removed comes again; a wheel over a box is not for it.
        viewer.layers.remove(layer)
        panel.threshold.setValue(0.5)
        until(lambda: panel.layers.cells in viewer.layers)
        event = QWheelEvent(QPointF(5, 5), QPointF(5, 5), QPoint(0, 120), QPoint(0, 120),
            Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase, False)
        QApplication.sendEvent(panel.form.diameter, event)
        assert panel.form.diameter.value() == 0
        panel.save_points(Path("missing/folder/file.csv"))
        panel.form.diameter.setValue(4)
        assert "count again" in panel.notes.text()

        # The dock that was closed comes again with what it showed.
        dock.title.close_button.click()
        assert not panel.isVisible()
        dock, again = docked()
        assert again is panel and panel.isVisible()
        until(lambda: panel.settled)
        """
    )
    output = tmp_path / "out"
    given = ["count", str(image), "--model", str(run_2d), "--output", str(output)]
    for name, options in (("own", []), ("0.5", ["--threshold", "0.5"])):
        assert cli.main([*given, *options]) == 0
        ours = (tmp_path / f"{name}.csv").read_text()
        theirs = (output / "cells" / "points.csv").read_text()
        assert ours == theirs
    own = read_points(tmp_path / "own.csv", ndim=2)
    np.testing.assert_allclose(json.loads((tmp_path / "layer.json").read_text()), own, atol=1e-4)


@pytest.mark.usefixtures("quick_compiling")
def test_sample_data_and_a_volume_of_a_series(
    drive: Callable[[str], None], run_3d: Path, cells_3d: Path, tmp_path: Path
) -> None:
    volume = read_image(cells_3d / "test" / "test.tif")
    np.save(tmp_path / "volume.npy", volume.pixels[..., 0])
    drive(
        f"""
        dock, panel = docked()
        panel.start.click()
        assert "There is no image" in panel.notes.text() and not panel.busy
        for key, shape, model, voxels in (
            ("image", (256, 256), "nuclei2d", ""),
            ("volume", (24, 128, 128), "nuclei3d", "6, 1.62, 1.62"),
        ):
            (layer,) = viewer.open_sample("cellcount_jax", key)
            panel.form.image.setCurrentText(layer.name)
            assert layer.data.shape == shape and layer.data.dtype == np.uint16
            assert (panel.form.model.currentText(), panel.form.voxels.text()) == (model, voxels)
            assert panel.form.diameter.isVisible() == (key == "image")
        viewer.layers.clear()

        volume = np.load("volume.npy")
        series = viewer.add_image(np.stack([np.zeros_like(volume), volume]), scale=(1, 2, 1, 1))
        viewer.dims.set_current_step(0, 1)
        panel.form.offer({str(run_3d)!r})
        assert panel.form.voxels.text() == "2, 1, 1"
        panel.start.click()
        until(lambda: panel.settled)
        layer, near = panel.layers.cells, panel.layers.near
        assert len(layer.data) > 5 and (layer.data[:, 0] == 1).all()
        assert near.name == "cells of Image, nearby slices"
        slices = np.abs(near.data[:, None, 1] - layer.data[None, :, 1])
        same = (near.data[:, None, [0, 2, 3]] == layer.data[None, :, [0, 2, 3]]).all(-1)
        assert same.any(1).all() and (slices[same] > 0).all()
        assert near.size.max() < layer.size.min()
        panel.save_points(Path("series.csv"))
        panel.form.voxels.setText("2, 1")
        panel.start.click()
        assert "3 positive numbers of µm are needed (z, y, x)" in panel.notes.text()
        panel.form.voxels.setText("")
        panel.form.light.setCurrentText("dark on bright")
        panel.start.click()
        until(lambda: panel.settled)
        assert "cells</b>" in panel.result.text(), (panel.result.text(), panel.notes.text())
        """
    )
    expected = cellcount_jax.load_model(run_3d).predict(volume.pixels, spacing=(2.0, 1.0, 1.0))
    saved = read_points(tmp_path / "series.csv", ndim=3)
    np.testing.assert_allclose(saved, expected.points, atol=1e-4)


@pytest.mark.usefixtures("quick_compiling")
def test_a_part_that_is_painted_planes_between_channels_and_mirror_images(
    drive: Callable[[str], None], run_3d: Path, cells_3d: Path, tmp_path: Path
) -> None:
    volume = read_image(cells_3d / "test" / "test.tif").pixels[..., 0]
    np.save(tmp_path / "volume.npy", volume)
    drive(
        f"""
        _, panel = docked()
        form = panel.form
        volume = np.load("volume.npy")
        planes = np.stack([np.zeros_like(volume), volume], axis=1)  # z, channel, y, x
        layer = viewer.add_image(planes, scale=(2, 1, 1, 1), name="a & b")
        form.offer({str(run_3d)!r})
        viewer.dims.set_current_step(1, 1)
        shown = [form.depth.currentText(), form.voxels.text(), form.inside.currentText()]
        assert shown == [f"axis 0, {{len(volume)}} long", "2, 1, 1", "everywhere"], shown
        assert form.depth.isVisible() and not form.channel.isVisible()
        model = cellcount_jax.load_model(form.model.currentText())
        assert form.thorough.isChecked() == model.config.predict.flips

        viewer._new_labels()
        labels = viewer.layers[-1]
        assert form.image.currentText() == "a & b" and form.inside.count() == 2
        form.inside.setCurrentText(labels.name)
        panel.start.click()
        assert "nothing is painted in it here" in panel.notes.text() and not panel.busy
        half = volume.shape[2] // 2
        labels.data[:, 1, :, :half] = 3
        form.thorough.setChecked(True)
        panel.start.click()
        until(lambda: panel.settled)
        assert "cells</b> inside a &amp; b - Labels" in panel.result.text(), panel.notes.text()
        cells, near = panel.layers.cells, panel.layers.near
        assert (cells.data[:, 1] == 1).all() and (cells.data[:, 3] < half).all(), cells.data
        assert (near.data[:, 1] == 1).all() and len(near.data), len(near.data)
        panel.save_points(Path("inside.csv"))

        labels.translate = (0, 0, 1, 0)
        panel.start.click()
        assert "does not lie voxel on voxel on a & b" in panel.notes.text()
        viewer.layers.remove(labels)
        assert form.inside.currentText() == "everywhere"

        form.image.setCurrentText(viewer.add_image(np.zeros((9, 9, 3), np.uint8), rgb=True).name)
        assert form.channel.isVisible() and not form.depth.isVisible()
        form.model.setCurrentText("nuclei2d")
        form.model.activated.emit(0)
        form.channel.setCurrentText("green")
        assert form.asked().options["channel"] == 1
        """
    )
    mask = np.zeros(volume.shape, bool)
    mask[..., : volume.shape[2] // 2] = True
    expected = cellcount_jax.load_model(run_3d).predict(
        volume, spacing=(2.0, 1.0, 1.0), mask=mask, thorough=True
    )
    saved = read_points(tmp_path / "inside.csv", ndim=3)
    assert len(saved) > 3
    np.testing.assert_allclose(saved, expected.points, atol=1e-4)


def test_the_part_of_a_layer_that_is_counted() -> None:
    pixels = np.arange(2 * 3 * 4 * 5 * 4).reshape(2, 3, 4, 5, 4)
    plain = {"multiscale": False, "rgb": False, "name": "a", "scale": (1.0, 1.0)}
    rgb = types.SimpleNamespace(**plain | {"rgb": True}, data=pixels, ndim=4)
    part = image_of_layer(rgb, ndim=2, step=(9, 1, 2, 0, 0))
    np.testing.assert_array_equal(part.array, pixels[1, 2, ..., :3])
    placed = part.in_layer(np.array([[3.0, 4.0]], np.float32))
    assert placed.tolist() == [[1, 2, 3, 4]]
    # Channels between planes and rows, as in stacks of ImageJ.
    stack = types.SimpleNamespace(**plain, data=pixels[..., 0], ndim=4)
    part = image_of_layer(stack, ndim=3, step=(0, 2, 0, 0), depth=0)
    np.testing.assert_array_equal(part.array, pixels[:, 2, ..., 0])
    assert part.in_layer(np.array([[7.0, 8, 9]])).tolist() == [[7, 2, 8, 9]]
    shapes = [(30, 2, 99, 99), (2, 30, 99, 99), (9, 30, 3, 99, 99), (3, 4, 99, 99)]
    assert [likely_depth(shape) for shape in shapes] == [0, 1, 1, 1]
    levels = types.SimpleNamespace(
        **plain | {"multiscale": True}, data=[pixels[0, 0, 0], pixels[0, 0, 0, ::2]], ndim=2
    )
    assert image_of_layer(levels, ndim=2, step=(0, 0)).array.shape == (5, 4)
    with pytest.raises(InputError, match="a: is an image in 2D, and the model is one of volumes"):
        image_of_layer(levels, ndim=3, step=(0, 0))
    assert voxel_edges(levels) is None
    assert voxel_edges(types.SimpleNamespace(scale=(-6.0, 1.6))) == (6.0, 1.6)
