"""Pictures of results: predictions drawn over an image, maps in colour, panels side by side.

Pictures are `(height, width, 3)` uint8 RGB arrays. Markers differ in shape as well as in colour,
and the colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing

GREEN = (0, 158, 115)
VERMILION = (213, 94, 0)
YELLOW = (240, 228, 66)
ORANGE = (230, 159, 0)

_MAX_SIDE_PIXELS = 1100
_BAND_PIXELS = 40  # height of the heading, of the legend and of one line of a panel's title
_MARKER_PIXELS = 23  # odd, so that a marker has a middle
_DARK = (24, 24, 24)
_DIMMED = 0.4

# Sixteen equally spaced colours of matplotlib's "magma" (CC0).
_MAGMA = np.array(
    [
        *[(0, 0, 4), (11, 9, 36), (32, 17, 75), (59, 15, 112)],
        *[(87, 21, 126), (114, 31, 129), (140, 41, 129), (168, 50, 125)],
        *[(196, 60, 117), (222, 73, 104), (241, 96, 93), (250, 127, 94)],
        *[(254, 159, 109), (254, 191, 132), (253, 222, 160), (252, 253, 191)],
    ],
    np.float64,
)


class _Group(NamedTuple):
    """Dots that are drawn alike, with their place in the legend."""

    word: str
    kind: str
    colour: tuple[int, int, int]
    points: np.ndarray


def overlay(
    image: np.ndarray,
    *,
    predicted: np.ndarray,
    true: np.ndarray | None = None,
    matched_predicted: np.ndarray | None = None,
    matched_true: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    spacing: Sequence[float] | None = None,
    title: str = "",
) -> np.ndarray:
    """Draws predictions over an image: green rings found, crosses wrong, squares missed.

    A volume is shown as its maximum projection along z, with all its dots. Contrast runs from
    the 1st to the 99.8th percentile.

    Args:
      image: `(*spatial, channels)` raw intensities; three channels are shown as RGB, of any
        other number the brightest channel.
      predicted: `(P, D)` predicted points in voxels.
      true: `(N, D)` true points; without them the predictions are only drawn and counted.
      matched_predicted: `(P,)` bool, which predictions have a true point; needed with `true`.
      matched_true: `(N,)` bool, which true points were found; needed with `true`.
      valid: `(*spatial,)` bool, the region that was scored; the rest is dimmed.
      spacing: `(D,)` voxel size in micrometres, for a scale bar; none without it.
      title: heading, such as the image's name.

    Returns:
      A picture: a heading, the image enlarged by the largest whole factor with which its
      longer side is at most 1100 pixels (1 for a larger image), and a legend with the counts.

    Raises:
      InputError: when the points, the flags or the region do not fit the image or each other.
    """
    ndim = image.ndim - 1
    if ndim not in (2, 3):
        raise InputError(f"image has shape {image.shape}; it must be (y, x, c) or (z, y, x, c).")
    if valid is not None and valid.shape != image.shape[:-1]:
        raise InputError(f"valid has shape {valid.shape}; the image has {image.shape[:-1]}.")
    groups, summary = _judge(ndim, predicted, true, matched_predicted, matched_true)

    plane = _grey_levels(image)
    if valid is not None:
        inside = np.asarray(valid if ndim == 2 else valid.any(axis=0))
        plane = np.where(inside[..., None], plane, plane * _DIMMED)
    height, width = plane.shape[:2]
    factor = max(1, _MAX_SIDE_PIXELS // max(height, width))
    picture = Image.fromarray(np.rint(plane).astype(np.uint8))
    picture = picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    for group in groups:
        stamp = _stamp(group.kind, group.colour)
        for y, x in group.points[:, -2:]:
            # Voxel centres are at integers, and a voxel has become `factor` pixels.
            left, top = (round((v + 0.5) * factor - 0.5) - _MARKER_PIXELS // 2 for v in (x, y))
            picture.paste(stamp, (left, top), stamp)
    edge = None if spacing is None else float(spacing[-1]) / factor
    return _frame(picture, title, groups, summary, edge)


def save_overlay(path: str | os.PathLike[str], image: np.ndarray, **options: Any) -> None:
    """Writes `overlay(image, **options)` to a PNG file, whole or not at all."""
    save_picture(path, overlay(image, **options))


def save_picture(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes a picture to a PNG file, whole or not at all.

    Args:
      path: the file; an existing one is replaced, a missing folder made.
      picture: `(height, width, 1 or 3)` uint8.
    """
    with replacing(path) as temporary:
        # Twice as fast as Pillow's default, for a tenth more bytes.
        as_image(picture).save(temporary, format="PNG", compress_level=1)


def as_image(picture: np.ndarray) -> Image.Image:
    """A picture `(height, width, 1 or 3)` uint8 for Pillow."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def mosaic(pictures: Sequence[np.ndarray], *, titles: Sequence[str] | None = None) -> np.ndarray:
    """Puts pictures side by side on white, with their tops aligned, each below its title.

    Args:
      pictures: `(height, width, 3)` uint8 arrays, sizes may differ.
      titles: one for each picture; a title may have several lines.

    Returns:
      One picture.

    Raises:
      InputError: for no pictures, or another number of titles.
    """
    titles = [""] * len(pictures) if titles is None else titles
    if not pictures or len(titles) != len(pictures):
        raise InputError(f"{len(titles)} titles for {len(pictures)} pictures; give one for each.")
    gap = 16
    top = _BAND_PIXELS * max(title.count("\n") + 1 for title in titles) if any(titles) else gap
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) + 1)
    height = top + max(picture.shape[0] for picture in pictures) + gap
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    left = gap
    for picture, title in zip(pictures, titles, strict=True):
        middle = (left + picture.shape[1] / 2, top / 2)
        draw.multiline_text(middle, title, "black", _font(), anchor="mm", align="center")
        canvas.paste(Image.fromarray(picture), (left, top))
        left += picture.shape[1] + gap
    return np.asarray(canvas)


def colourise(
    map: np.ndarray, *, lowest: float | None = None, highest: float | None = None
) -> np.ndarray:
    """Shows a map in colours of evenly rising lightness, from black over purple to yellow.

    Args:
      map: any shape, finite.
      lowest: the value shown darkest; the map's minimum by default.
      highest: the value shown brightest; the map's maximum by default. Values outside the
        two are shown as the nearer one.

    Returns:
      `(*map.shape, 3)` uint8.
    """
    lowest = float(np.min(map)) if lowest is None else lowest
    highest = float(np.max(map)) if highest is None else highest
    level = rescaled(np.asarray(map), lowest, highest)
    anchors = np.linspace(0, 1, len(_MAGMA))
    colours = [np.interp(level, anchors, channel) for channel in _MAGMA.T]
    return np.rint(np.stack(colours, axis=-1)).astype(np.uint8)


def rescaled(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Values from 0 (`lowest` and below) to 1, float64; all 0 where the two are equal."""
    if highest <= lowest:
        return np.zeros(values.shape)
    return np.clip((values.astype(np.float64) - lowest) / (highest - lowest), 0, 1)


def displayed_channels(values: np.ndarray) -> np.ndarray:
    """Three channels, as RGB, or the brightest of any other number, `(..., 3 or 1)`."""
    return values if values.shape[-1] == 3 else values.max(axis=-1, keepdims=True)


def round_down(value: float) -> float:
    """The highest of 1, 2 or 5 times a power of ten that is not above a value."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    step = max(s for s in (1, 2, 5) if s * power <= value * (1 + 1e-9))
    return float(f"{step * power:.10g}")


def _judge(
    ndim: int,
    predicted: np.ndarray,
    true: np.ndarray | None,
    matched_predicted: np.ndarray | None,
    matched_true: np.ndarray | None,
) -> tuple[list[_Group], str]:
    """The dots in groups, and the second half of the legend."""
    for name, points, matched in (
        ("predicted", predicted, matched_predicted),
        ("true", true, matched_true),
    ):
        if points is not None and (points.ndim != 2 or points.shape[1] != ndim):
            raise InputError(f"{name} has shape {points.shape}; it must be (N, {ndim}).")
        if (matched is None) != (true is None):
            raise InputError(f"matched_{name} and true must be given together or not at all.")
        if points is not None and matched is not None and matched.shape != (len(points),):
            raise InputError(f"matched_{name} has shape {matched.shape} for {len(points)} points.")
    if true is None or matched_predicted is None or matched_true is None:
        return [_Group("predicted", "ring", ORANGE, predicted)], ""
    return [
        _Group("found", "ring", GREEN, predicted[matched_predicted]),
        _Group("wrong", "cross", VERMILION, predicted[~matched_predicted]),
        _Group("missed", "square", YELLOW, true[~matched_true]),
    ], f"|   true {len(true)}, predicted {len(predicted)}"


def _grey_levels(image: np.ndarray) -> np.ndarray:
    """`(y, x, 3)` levels from 0 to 255 of an image, or of a volume's maximum projection."""
    plane = displayed_channels(image.max(axis=0) if image.ndim == 4 else image)
    plane = np.repeat(plane, 3 // plane.shape[-1], axis=-1)
    lowest, highest = np.percentile(plane, (1, 99.8))
    return 255 * rescaled(plane, lowest, highest)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(20)


@functools.cache
def _stamp(kind: str, colour: tuple[int, int, int]) -> Image.Image:
    """A marker with a dark rim, so that it shows on bright images too; smooth by shrinking."""
    finer = 4
    size = _MARKER_PIXELS * finer
    stamp = Image.new("RGBA", (size, size), (*colour, 0))
    draw = ImageDraw.Draw(stamp)
    box = (4 * finer, 4 * finer, size - 4 * finer, size - 4 * finer)
    left, top, right, bottom = box
    for ink, pen, grown in ((_DARK, 5 * finer, finer), (colour, 3 * finer, 0)):
        grown_box = (left - grown, top - grown, right + grown, bottom + grown)
        if kind == "ring":
            draw.ellipse(grown_box, outline=(*ink, 255), width=pen)
        elif kind == "square":
            draw.rectangle(grown_box, outline=(*ink, 255), width=pen)
        else:
            draw.line((left, top, right, bottom), (*ink, 255), pen)
            draw.line((left, bottom, right, top), (*ink, 255), pen)
    return stamp.resize((_MARKER_PIXELS, _MARKER_PIXELS), Image.Resampling.BOX)


def _frame(
    picture: Image.Image, title: str, groups: list[_Group], summary: str, edge: float | None
) -> np.ndarray:
    """Adds the heading with a scale bar above, where no cell is, and the legend below.

    Args:
      picture: the image with its marks.
      title: the heading.
      groups: in the legend.
      summary: its end.
      edge: of a pixel in micrometres; None = no scale bar.
    """
    font = _font()
    entries = [f"{group.word} {len(group.points)}" for group in groups]
    steps = [_MARKER_PIXELS + 8 + round(font.getlength(entry)) + 24 for entry in entries]
    legend = 12 + sum(steps) + round(font.getlength(summary)) + 12
    heading = round(font.getlength(title)) + 24
    length = 0.0 if edge is None else round_down(picture.width * edge / 6)
    text, bar = f"{length:g} µm", 0 if edge is None else round(length / edge)
    if bar:
        heading += round(font.getlength(text)) + 8 + bar + 24
    width = max(picture.width, legend, heading)
    canvas = Image.new("RGB", (width, picture.height + 2 * _BAND_PIXELS), _DARK)
    canvas.paste(picture, (0, _BAND_PIXELS))
    draw = ImageDraw.Draw(canvas)
    middle = _BAND_PIXELS // 2
    draw.text((12, middle), title, "white", font, anchor="lm")
    if bar:
        left = width - 12 - bar
        draw.rectangle((left, middle - 3, left + bar - 1, middle + 2), "white")
        draw.text((left - 8, middle), text, "white", font, anchor="rm")
    left, middle = 12, picture.height + _BAND_PIXELS + _BAND_PIXELS // 2
    for group, entry, step in zip(groups, entries, steps, strict=True):
        stamp = _stamp(group.kind, group.colour)
        canvas.paste(stamp, (left, middle - _MARKER_PIXELS // 2), stamp)
        draw.text((left + _MARKER_PIXELS + 8, middle), entry, "white", font, anchor="lm")
        left += step
    draw.text((left, middle), summary, "white", font, anchor="lm")
    return np.asarray(canvas)
