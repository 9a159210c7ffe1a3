"""The files of a score: tables, a picture an image, and the page."""

from __future__ import annotations

import importlib.metadata
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import score_table
from cellcount_jax.evaluation.comparison import summarise
from cellcount_jax.evaluation.frame import open_image
from cellcount_jax.evaluation.scored import Scored
from cellcount_jax.images import files
from cellcount_jax.images.regions import Region, all_of, size_text
from cellcount_jax.images.sources import Source
from cellcount_jax.report import pictures, score_page

_FORMAT = "cellcount_jax score"
_FILES = ("scores.json", "scores.csv", "score.html", "pictures")
# A larger image has no PNG picture; the page shows it smaller.
_MAX_PICTURE_VOXELS = 64_000_000
_MAX_SHOWN = 40  # images on the page
_DIMMED = 0.4  # of what is not scored


def check_output(folder: Path, scored: Sequence[Scored]) -> None:
    """Makes sure that files of a score may be written into a folder.

    Args:
      folder: for the files.
      scored: what is compared.

    Raises:
      InputError: it is, holds or lies in what is read; or it has other files of these names.
    """
    read = [path for one in scored for side in (one.found, one.true) for path in side.files]
    read += [one.image for one in scored if one.image is not None]
    # Also where the folder of pictures is a link to another one.
    files.check_apart([folder.resolve(), Path(os.path.realpath(folder / "pictures"))], read)
    taken = [folder / name for name in _FILES if os.path.lexists(folder / name)]
    if taken and _before(folder) is None:
        raise InputError(
            f"{taken[0]}: is not of a score, and would be replaced; move it, or give another"
            " --output"
        )


def write(
    folder: Path,
    scored: Sequence[Scored],
    *,
    tolerance: str,
    alone: Sequence[str],
) -> list[Path]:
    """Writes scores.csv, pictures/NAME.png, score.html, and last scores.json.

    Args:
      folder: that `check_output` allowed.
      scored: what was compared, at least one.
      tolerance: in words.
      alone: the images without a partner, a sentence each.

    Returns:
      The pictures.

    Raises:
      InputError: an image cannot be read.
    """
    _remove_pictures(folder)
    rows = [score_table.row(one) for one in scored]
    columns = list(dict.fromkeys(name for each in rows for name in each))
    lines = [[_rounded(each.get(name)) for name in columns] for each in rows]
    files.write_table(folder / "scores.csv", columns, lines)
    worst = sorted(scored, key=lambda one: one.comparison.matching.f1)
    on_page = {one.name for one in [o for o in worst if o.image is not None][:_MAX_SHOWN]}
    written, shown = [], []
    for one in scored:
        if one.image is None:
            continue
        with open_image(one.image, one.selection) as source:
            if math.prod(source.shape) <= _MAX_PICTURE_VOXELS:
                written.append(folder / "pictures" / f"{one.name}.png")
                _write_picture(written[-1], source, one)
            if one.name in on_page:
                shown.append(_shown(source, one))
    summary = summarise([one.comparison for one in scored])
    remarks = [f"{one.name}: {text}" for one in scored for text in one.comparison.remarks]
    header, texts, total = score_table.cells(scored)
    score_page.write_score_page(
        folder / "score.html",
        title="Found cells against dots" if len(scored) > 1 else scored[0].name,
        f1=summary["f1"],
        sentence=_sentence(summary),
        facts=_facts(scored, tolerance),
        header=header,
        rows=texts,
        total=total,
        means=score_table.means(scored),
        remarks=remarks,
        alone=alone,
        shown=shown,
        chosen=len(on_page) == _MAX_SHOWN,
    )
    content = {
        "format": _FORMAT,
        "version": importlib.metadata.version("cellcount_jax"),
        "tolerance": tolerance,
        **summary,
        "remarks": remarks,
        "without_partner": list(alone),
        "per_image": rows,
        "pictures": [path.name for path in written],
    }
    files.write_json(folder / "scores.json", content)
    return written


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _before(folder: Path) -> dict[str, Any] | None:
    """The scores that a folder holds."""
    stored = files.json_or_none(folder / "scores.json")
    return stored if isinstance(stored, dict) and stored.get("format") == _FORMAT else None


def _remove_pictures(folder: Path) -> None:
    """Removes the pictures of an earlier score, which may be of images that are not in this one."""
    for name in (_before(folder) or {}).get("pictures", ()):
        path = folder / "pictures" / Path(str(name)).name
        if path.suffix == ".png":
            path.unlink(missing_ok=True)


def _write_picture(path: Path, source: Source, one: Scored) -> None:
    c = one.comparison
    found_hit, true_hit = c.hits
    pictures.save_overlay(
        path,
        source.read(all_of(source.shape)),
        predicted=c.found,
        true=c.true,
        matched_predicted=found_hit,
        matched_true=true_hit,
        valid=one.valid,
        spacing=one.spacing,
        title=f"{one.name}: F1 {c.matching.f1:.3f}",
    )


def _shown(source: Source, one: Scored) -> score_page.Shown:
    c = one.comparison
    found_hit, true_hit = c.hits
    read = source.read
    if one.valid is not None:
        valid = one.valid

        def read(region: Region) -> np.ndarray:
            inside = valid[region][..., None]
            return np.where(inside, source.read(region), _DIMMED * source.read(region))

    return score_page.show(
        one.name,
        read=read,
        shape=source.shape,
        hits=c.found[found_hit],
        false=c.found[~found_hit],
        missed=c.true[~true_hit],
        spacing=one.spacing,
        chunks=source.chunks,
    )


def _sentence(summary: dict[str, Any]) -> str:
    relative = summary["relative_count_error"]
    share = "" if relative is None else f", {100 * relative:+.1f} %"
    return (
        f"precision {summary['precision']:.3f}, recall {summary['recall']:.3f};"
        f" {summary['found']:,} found of {summary['true']:,} ({summary['count_error']:+,d}{share})"
    )


def _facts(scored: Sequence[Scored], tolerance: str) -> dict[str, str]:
    """What was compared, and how, for the page."""
    one = scored[0]
    several = f"{len(scored)} images, the first " if len(scored) > 1 else ""
    facts = {
        "Found": f"{several}{one.found.path}",
        "True": f"{several}{one.true.path}",
        "A hit": (
            f"a found cell and a dot within {tolerance.replace('um', 'µm')}, one to one, as many as"
            " possible"
        ),
    }
    if any(o.comparison.inside is not None for o in scored):
        facts["F1 inside"] = "by labels: a hit is a point in a labelled cell, one a cell"
    models = {
        f"{summary.get('model')}, threshold {summary.get('threshold')}"
        for summary in (o.found.summary for o in scored)
        if summary is not None
    }
    if len(models) == 1:
        facts["Model"] = models.pop()
    if one.spacing is not None and {o.spacing for o in scored} == {one.spacing}:
        facts["Voxel size"] = f"{size_text(one.spacing).replace(' x ', ' × ')} µm"
    return facts
