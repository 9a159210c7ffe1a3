"""Bar charts and heat maps as SVG text, and the SVG elements that they are made of.

They are written by hand, since a library for charts would be a large dependency, with pictures that
neither take the colours of a light or dark page nor have the same bytes in each of its versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from cellcount_jax.report.pictures import ORANGE, colourise, round_down
from cellcount_jax.report.views import encode, fit

COUNTED = "#{:02x}{:02x}{:02x}".format(*ORANGE)
REJECTED = "#56b4e9"  # sky blue, of the same palette

_UNKNOWN = 122  # grey
_WIDTH, _HEIGHT = 520, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 30, 54, 52


class Bars(NamedTuple):
    """Bars of one kind.

    Attributes:
      name: in the legend; empty = no legend.
      colour: as in CSS.
      heights: `(B,)`.
      notes: one a bin, shown where the mouse rests.
    """

    name: str
    colour: str
    heights: np.ndarray
    notes: Sequence[str]


def number(value: float) -> str:
    """A number with three digits, or with all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """About so many round numbers between two others, rising; none where the two are equal."""
    if not high > low:
        return []
    step = round_down((high - low) / about * 1.5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def bars(
    edges: np.ndarray,
    kinds: Sequence[Bars],
    *,
    across: str,
    up: str,
    label: str,
    line: tuple[float, str] | None = None,
    highest: float | None = None,
) -> str:
    """A bar chart.

    Args:
      edges: `(B + 1,)` of the bins, rising.
      kinds: stacked.
      across: name of the horizontal axis, with its unit.
      up: name of the vertical axis.
      label: description of the chart, for screen readers.
      line: a value to mark, and its name.
      highest: end of the vertical axis; taller bars are cut.
    """
    low, high = float(edges[0]), float(edges[-1])
    total = np.sum([kind.heights for kind in kinds], axis=0)
    highest = max(float(total.max(initial=0)), 1e-9) * 1.05 if highest is None else highest
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    named = any(kind.name for kind in kinds)
    ceiling = _TOP if named or line is not None else 16

    def x_of(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (right - _LEFT)

    def y_of(value: float) -> float:
        return bottom - min(value / highest, 1) * (bottom - ceiling)

    parts = [open_svg(_WIDTH, _HEIGHT, label)]
    for value in ticks(0, highest, about=4):
        parts.append(f'<path class="grid" d="M{_LEFT} {y_of(value):.1f}H{right}"/>')
        parts.append(word(_LEFT - 8, y_of(value) + 4, _short(value), "end"))
    base = np.zeros(len(edges) - 1)
    for kind in kinds:
        for i in map(int, np.flatnonzero(kind.heights)):
            left, width = x_of(edges[i]), x_of(edges[i + 1]) - x_of(edges[i])
            gap = 1 if width > 4 else 0
            top, foot = y_of(base[i] + kind.heights[i]), y_of(base[i])
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{width - gap:.1f}"'
                f' height="{max(foot - top, 0.5):.1f}" fill="{kind.colour}">'
                f"<title>{escape(kind.notes[i])}</title></rect>"
            )
        base = base + kind.heights
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    for value in ticks(low, high, about=6):
        parts.append(f'<path class="axis" d="M{x_of(value):.1f} {bottom}v5"/>')
        parts.append(word(x_of(value), bottom + 20, f"{value:,.10g}", "middle"))
    parts.append(word((_LEFT + right) / 2, _HEIGHT - 8, across, "middle"))
    parts.append(_upright(12, (ceiling + bottom) / 2, up))
    place = _LEFT
    for kind in kinds:
        if kind.name:
            parts.append(
                f'<rect x="{place}" y="6" width="13" height="13" fill="{kind.colour}"/>'
                + word(place + 19, 17, kind.name, "start")
            )
            place += 44 + 8 * len(kind.name)
    if line is not None and low <= line[0] <= high:
        x = x_of(line[0])
        side = "start" if x < (_LEFT + right) / 2 else "end"
        parts.append(f'<path class="line" d="M{x:.1f} {_TOP - 12}V{bottom}"/>')
        parts.append(word(x + (6 if side == "start" else -6), _TOP - 6, line[1], side))
    return "".join(parts) + "</svg>"


def heat_map(
    values: np.ndarray, *, extent: tuple[float, float], unit: str, legend: str, label: str
) -> str:
    """A map in colours, with axes and a colour bar from 0.

    Args:
      values: `(rows, columns)`, not negative; NaN = unknown, shown in grey.
      extent: height and width of the map, in `unit`.
      unit: of the axes.
      legend: of the colour bar, with its unit.
      label: description of the map, for screen readers.
    """
    width, height = (max(side, 40) for side in fit(*extent, (320, 350)))
    top, left = 12, _LEFT
    right, bottom = left + width, top + height
    highest = float(np.nanmax(values, initial=0.0)) or 1.0
    colours = colourise(np.nan_to_num(values), lowest=0.0, highest=highest)
    url = encode(np.where(np.isnan(values)[..., None], _UNKNOWN, colours).astype(np.uint8))
    bar = encode(colourise(np.linspace(1, 0, 64)[:, None]))
    tall = max(height, 120)
    parts = [open_svg(_WIDTH, top + tall + _BOTTOM, label)]
    parts.append(pixels(url, left, top, width, height))
    parts.append(f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>')
    for value in ticks(0, extent[1], about=max(1, width // 70)):
        x = left + value / extent[1] * width
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v5"/>')
        parts.append(word(x, bottom + 20, f"{value:,.10g}", "middle"))
    for value in ticks(0, extent[0], about=max(1, height // 60)):
        y = top + value / extent[0] * height
        parts.append(f'<path class="axis" d="M{left} {y:.1f}h-5"/>')
        parts.append(word(left - 8, y + 4, f"{value:,.10g}", "end"))
    parts.append(word(left + width / 2, bottom + 42, f"x ({unit})", "middle"))
    parts.append(_upright(12, top + height / 2, f"y ({unit})"))
    scale = right + 24
    parts.append(pixels(bar, scale, top, 14, tall))
    for value in ticks(0, highest):
        y = top + (1 - value / highest) * tall
        parts.append(f'<path class="axis" d="M{scale + 14} {y:.1f}h4"/>')
        parts.append(word(scale + 22, y + 4, number(value), "start"))
    parts.append(_upright(scale + 80, top + tall / 2, legend))
    return "".join(parts) + "</svg>"


def open_svg(width: int, height: int, label: str) -> str:
    """The opening tag of a drawing, with its description for screen readers."""
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escape(label)}">'
    )


def pixels(url: str, x: float, y: float, width: float, height: float) -> str:
    """A picture, given by its data URL, stretched to a box."""
    return (
        f'<image class="pixels" href="{url}" x="{x:g}" y="{y:g}" width="{width:g}"'
        f' height="{height:g}" preserveAspectRatio="none"/>'
    )


def word(x: float, y: float, text: str, anchor: str) -> str:
    """A line of text, which is escaped here; `anchor` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _upright(x: float, y: float, text: str) -> str:
    """Text that runs upwards."""
    return (
        f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(text)}</text>"
    )


def _short(value: float) -> str:
    """A number at an axis, in millions where it has any."""
    return f"{value / 1e6:.10g} M" if value >= 1e6 else number(value)
