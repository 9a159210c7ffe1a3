"""Makes docs/label.png, label_preview.png and label_model.png: labelling a volume of microglia.

    xvfb-run -s "-screen 0 1600x1000x24" python docs/label_pictures.py

The volume is copied first: nothing is written beside the original.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
from pathlib import Path

from qtpy.QtGui import QGuiApplication
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from cellcount_jax.data.blocks import DONE, IN_PROGRESS
from cellcount_jax.label import proposals
from cellcount_jax.label.blobs import BlobSettings
from cellcount_jax.label.window.panel import LabelPanel
from cellcount_jax.label.window.window import open_window


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).parents[2] / "shared/data/lightsheet_microglia/train/1874.tif"
    parser.add_argument("--image", type=Path, default=default)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / options.image.name
        shutil.copyfile(options.image, path)
        # 20 seconds an act, as a script takes no time.
        clock = itertools.count(0, 20)
        viewer = open_window(path, block=(50, 50, 50), now=lambda: float(next(clock)))
        widgets = QApplication.instance().allWidgets()
        panel = next(widget for widget in widgets if isinstance(widget, LabelPanel))
        canvas, session = panel.canvas, panel.canvas.session
        window = panel.window()
        window.showNormal()
        window.resize(1500, 940)
        QTest.qWait(500)
        middle = session.grid.counts[0] // 2

        def take(name: str) -> None:
            canvas.refresh()
            QTest.qWait(1500)
            screen = QGuiApplication.primaryScreen()
            assert screen is not None
            at = window.mapToGlobal(window.rect().topLeft())
            # From the screen: a picture of a widget alone lacks what OpenGL drew.
            picture = screen.grabWindow(0, at.x(), at.y(), window.width(), window.height())
            assert picture.save(str(options.output / name)), name

        viewer.reset_view()
        canvas.go_to_block((middle, 0, 1))
        preview = panel.proposals.preview
        preview.setChecked(True)
        panel.proposals.parameters.button.setChecked(True)
        QTest.qWait(800)
        take("label_preview.png")
        preview.setChecked(False)
        panel.proposals.parameters.button.setChecked(False)
        given = proposals.defaults(session)
        settings = BlobSettings(session.edges, **given)
        points, scores = proposals.otsu_image(session, settings)
        session.propose(points, scores, by={"method": "otsu", **given})
        session.mark([(middle, 0, 0)], DONE)
        session.mark([(middle, 0, 1)], DONE)
        session.mark([(middle, 1, 0)], IN_PROGRESS)
        canvas.go_to_block((middle, 1, 1))
        canvas.go_next()
        viewer.reset_view()
        take("label.png")
        points, scores, by = proposals.from_model(session, "microglia3d")
        session.propose(points, scores, by=by)
        canvas.go_least_certain()
        methods = panel.proposals.method
        methods.setCurrentText("microglia3d")
        methods.activated.emit(methods.currentIndex())
        take("label_model.png")
        viewer.close()
        QTest.qWait(200)


if __name__ == "__main__":
    main()
