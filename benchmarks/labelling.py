"""How long the labelling window takes to show another slice, and to add a dot, with many dots.

    xvfb-run -s "-screen 0 1600x1000x24" python benchmarks/labelling.py

A volume of random numbers, dots at random places, half of them proposals. A slice change counts
until the slice, its dots and the ghosts of three slices to each side are painted; adding a dot
until it is in the journal on the disk and painted. The view in 3D is beside it, and follows a
little later. About 2 minutes on 2 cores, drawn by software.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")

import numpy as np
import timing
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QOpenGLWidget

from cellcount_jax.label.window.panel import LabelPanel
from cellcount_jax.label.window.window import open_window

GOALS = {"slice change": 100.0, "add": 50.0}  # ms


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="voxels along each axis")
    parser.add_argument("--dots", type=int, default=112_000, help="some are too near to others")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("results/labelling.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        path = Path(folder) / "volume.npy"
        shape = (options.size,) * 3
        np.save(path, rng.integers(0, 255, shape, np.uint8))
        viewer = open_window(path)
        widgets = QApplication.instance().allWidgets()
        panel = next(widget for widget in widgets if isinstance(widget, LabelPanel))
        points = rng.uniform(0, options.size - 1, (options.dots, 3))
        half = options.dots // 2
        panel.canvas.session.import_points(points[:half], name="dots")
        panel.canvas.session.propose(points[half:], rng.uniform(size=options.dots - half), by={})
        panel.window().resize(1400, 900)
        panel.canvas.refresh()
        QTest.qWait(1000)
        rows = measure(panel, rng, repeats=options.repeats)
        viewer.close()
        QTest.qWait(100)
    verdict = ", ".join(f"{row['what']} {row['median ms']:.0f} ms" for row in rows)
    timing.publish(rows, options.output, packages=("napari", "PyQt6", "vispy"), verdict=verdict)


def measure(
    panel: LabelPanel, rng: np.random.Generator, *, repeats: int
) -> list[dict[str, str | float]]:
    """Median and 95th percentile of each act, in a window with its dots."""
    canvas, session = panel.canvas, panel.canvas.session
    drawn = panel.window().centralWidget().findChildren(QOpenGLWidget)[0]
    size = session.grid.shape[0]

    frames: list[None] = []
    drawn.frameSwapped.connect(lambda: frames.append(None))

    def painted(act: Callable[[], object]) -> float:
        started = time.perf_counter()
        before = len(frames)
        act()
        # Not repaint(): what the act asked for is painted with it, once.
        while len(frames) == before:
            QApplication.processEvents()
        return 1000 * (time.perf_counter() - started)

    def add() -> None:
        assert canvas.view.plane is not None
        place = (canvas.view.plane[1], *rng.uniform(0, size - 1, 2))
        canvas.do(lambda: session.add(place))

    acts = {"slice change": canvas.go_down, "add": add}
    rows: list[dict[str, str | float]] = []
    for what, act in acts.items():
        times = []
        for _ in range(repeats + 2):
            QTest.qWait(50)
            times.append(painted(act))
        median, slow = np.percentile(times[2:], (50, 95))
        rows.append(
            {
                "what": what,
                "dots": len(session.dots),
                "volume": f"{size}^3",
                "median ms": float(median),
                "95 % ms": float(slow),
                "goal ms": GOALS[what],
            }
        )
        timing.tell(rows[-1])
    return rows


if __name__ == "__main__":
    main()
