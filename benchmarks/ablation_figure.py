"""Figures of F1 against the number of labelled images."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellcount_jax.images.files import replacing

# Distinct for all eyes (Okabe and Ito 2008), each with its own marker.
_LOOKS = (
    *(("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "D")),
    *(("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X")),
)
_SHIFT = 0.06  # between the first and the last of the curves, so that bars are seen


@dataclasses.dataclass(frozen=True)
class Panel:
    """A diagram.

    Attributes:
      title: above it.
      labelled: what the numbers of labelled images are of, below it.
      curves: label -> labelled images -> F1 of each run; bars are standard deviations.
      level: label and F1 of a line across it; None = none.
    """

    title: str
    labelled: str
    curves: Mapping[str, Mapping[int, Sequence[float]]]
    level: tuple[str, float] | None = None

    @property
    def numbers(self) -> list[int]:
        """The numbers of labelled images with any run."""
        return sorted({n for curve in self.curves.values() for n, f1 in curve.items() if f1})


def of_vgg(found: Mapping[str, Mapping[int, Mapping[int, float]]]) -> list[Panel]:
    """The ablation's diagram from method -> labelled images -> seed -> F1."""
    labels = {
        "inverse_distance": "dots only",
        "focal_last": "dots + focal consistency on the unlabelled images",
    }
    curves = {
        labels[method]: {n: list(f1.values()) for n, f1 in by_number.items()}
        for method, by_number in found.items()
    }
    title = "VGG: mean and standard deviation over seeds"
    return [Panel(title, "labelled images of 100, the others unlabelled", curves)]


def draw(panels: Sequence[Panel], path: Path) -> bool:
    """Draws F1 against the number of labelled images.

    Args:
      panels: side by side.
      path: of the PNG file.

    Returns:
      False, and no file is written, while fewer than two numbers are run: that is no curve.
    """
    panels = [panel for panel in panels if len(panel.numbers) >= 2]
    if not panels:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(panels), 4.4), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        _draw_panel(panel, axes)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return True


def _draw_panel(panel: Panel, axes) -> None:
    for i, (label, curve) in enumerate(panel.curves.items()):
        runs = {n: f1 for n, f1 in sorted(curve.items()) if f1}
        colour, marker = _LOOKS[i % len(_LOOKS)]
        shift = 1 + _SHIFT * (i / max(len(panel.curves) - 1, 1) - 0.5)
        axes.errorbar(
            [n * shift for n in runs],
            [statistics.mean(f1) for f1 in runs.values()],
            [statistics.stdev(f1) if len(f1) > 1 else 0.0 for f1 in runs.values()],
            label=label,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.6,
            linestyle="-" if i < len(_LOOKS) else "--",
            capsize=3,
        )
    if panel.level is not None:
        label, f1 = panel.level
        axes.axhline(f1, color="0.45", linewidth=1.2, linestyle=":", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(panel.numbers, [str(n) for n in panel.numbers])
    axes.minorticks_off()
    axes.set_xlabel(panel.labelled)
    axes.set_ylabel("F1 on the test images")
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # Below, where it hides no bar.
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), edgecolor="none", borderaxespad=0)
