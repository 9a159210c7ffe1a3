"""Scores of images as rows of a file, and as text for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellcount_jax.evaluation.comparison import ratios, relative_error, summarise
from cellcount_jax.evaluation.scored import Scored


def row(one: Scored) -> dict[str, Any]:
    """One image's line of scores.csv."""
    c = one.comparison
    found, true = len(c.found), len(c.true)
    inside = {} if c.inside is None else ratios(c.inside)
    return {
        "image": one.name,
        "true": true,
        "found": found,
        **ratios(c.matching),
        "count_error": found - true,
        "relative_count_error": relative_error(found, true),
        "tolerance": c.tolerance,
        "unit": c.unit,
        **{f"inside_{name}": value for name, value in inside.items()},
        "found_file": str(one.found.path),
        "true_file": str(one.true.path),
    }


def cells(scored: Sequence[Scored]) -> tuple[list[str], list[list[str]], list[str]]:
    """The table for people: its header, a row an image, and that of all together, if several."""
    rows = [row(one) for one in scored]
    labelled = any("inside_f1" in each for each in rows)
    header = ["image", "true", "found", "hits", "missed", "false", "precision", "recall", "F1"]
    header += ["count error", *["F1 inside"] * labelled]
    summary = summarise([one.comparison for one in scored])
    inside = summary["inside_cell"]
    total = {"image": "all together", **summary, **({"inside_f1": inside["f1"]} if inside else {})}

    def text(each: dict[str, Any]) -> list[str]:
        relative = each["relative_count_error"]
        share = "" if relative is None else f" ({100 * relative:+.1f} %)"
        return [
            str(each["image"]),
            *(f"{each[name]}" for name in ("true", "found", "tp", "fn", "fp")),
            *(f"{each[name]:.3f}" for name in ("precision", "recall", "f1")),
            f"{each['count_error']:+d}{share}",
            *[f"{each['inside_f1']:.3f}" if "inside_f1" in each else ""] * labelled,
        ]

    return header, [text(each) for each in rows], text(total) if len(rows) > 1 else []


def means(scored: Sequence[Scored]) -> str:
    """The means over images as a sentence; empty for one image."""
    if len(scored) == 1:
        return ""
    summary = summarise([one.comparison for one in scored])
    median = summary["median_relative_count_error"]
    text = (
        f"Mean of the images' F1 {summary['mean_f1']:.3f}; median of |found - true| / true"
        f" {'not defined' if median is None else f'{100 * median:.1f} %'}"
    )
    empty = summary["images_without_cells"]
    if empty:
        verb = "image that has" if empty == 1 else "images that have"
        found = summary["found_in_images_without_cells"]
        text += f", without {empty} {verb} no true cells, in which {found} were found"
    return text + "."
