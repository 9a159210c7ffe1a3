"""The figure of the ablation: F1 on VGG against the number of labelled images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from cellcount_jax.images.files import replacing


def draw(found: Mapping[str, Mapping[int, Mapping[int, float]]], path: Path) -> bool:
    """Draws F1 against the number of labelled images.

    Args:
      found: method -> labelled images -> seed -> F1.
      path: of the PNG file.

    Returns:
      False, and no file is written, while fewer than two numbers are run: that is no curve.
    """
    curves = {
        method: {n: list(f1.values()) for n, f1 in sorted(by_number.items()) if f1}
        for method, by_number in found.items()
    }
    numbers = sorted({n for curve in curves.values() for n in curve})
    if len(numbers) < 2:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    looks = {
        "inverse_distance": ("dots only", "#D55E00", "o", 0.97),
        "focal_last": ("dots + focal consistency on the unlabelled images", "#0072B2", "s", 1.03),
    }
    for method, curve in curves.items():
        label, colour, marker, shift = looks[method]
        x = [n * shift for n in curve]
        axes.errorbar(
            x,
            [statistics.mean(f1) for f1 in curve.values()],
            [statistics.stdev(f1) if len(f1) > 1 else 0.0 for f1 in curve.values()],
            label=label,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.6,
            capsize=3,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.set_xlabel("labelled images of 100, the others unlabelled")
    axes.set_ylabel("F1 on the test images")
    axes.set_title("VGG: mean and standard deviation over seeds", fontsize=10, loc="left")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return True
