"""`cellcount score`: found cells against a person's, from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellcount_jax.errors import InputError, at_hand
from cellcount_jax.evaluation import pairing, score_files, score_table
from cellcount_jax.evaluation.scored import Scored, score_pair
from cellcount_jax.evaluation.tolerance import Tolerance, tolerance_text
from cellcount_jax.images import inputs
from cellcount_jax.images.files import check_folder
from cellcount_jax.images.point_units import add_points_unit
from cellcount_jax.images.selection import Selection

EXAMPLES = """\
examples:
  cellcount score counted/brain brain.csv --tolerance 12 --output scored/
  cellcount score counted/ my_dots/ --tolerance 12um --output scored/
  cellcount score counted/ my_images/ --output scored/          # NAME_labels.tif tell the tolerance
  cellcount score cells.xml dots.csv --tolerance 5px --image brain.tif --output scored/

Cells are true dots and found points that are matched one to one within the tolerance. Points and
dots are CSV files (header y,x or z,y,x, in voxels from 0; or napari's), cellfinder's XML, instance
labels, or results folders of cellcount count; of two folders those of one name. Where a mask
NAME_valid.tif or the done blocks of cellcount label (NAME.label.json) lie beside the dots, only
what is inside is scored.
"""

_NAMED = 20  # images without a partner that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount score`."""
    parser.add_argument(
        "found", type=Path, help="points that were found: a file, a results folder, or a folder"
    )
    parser.add_argument("true", type=Path, help="a person's dots or labels: a file, or a folder")
    parser.add_argument(
        "--tolerance",
        help="how far a found cell may be from its dot: 12um, 5px, or a number of um where the"
        " voxel size is known, else of pixels (default, with instance labels: half their median"
        " diameter, at least 4 px; needed otherwise)",
    )
    parser.add_argument(
        "--image",
        type=Path,
        help="the image, or a folder of images (default: the one that was counted, or that lies"
        " beside the points)",
    )
    inputs.add_source(parser)
    add_points_unit(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for score.html, scores.csv, scores.json and a picture an image",
    )


def run(options: argparse.Namespace) -> int:
    """Scores; returns the exit status."""
    tolerance = None if options.tolerance is None else Tolerance.from_text(options.tolerance)
    if options.output is not None:
        check_folder(options.output)
    pairs, alone = pairing.find_pairs(options.found, options.true)
    images = {} if options.image is None else pairing.images_in(options.image)
    if "" in images and len(pairs) > 1:
        raise InputError(
            f"{options.image}: is one image, {len(pairs)} are scored; give their folder."
        )
    if images and "" not in images:
        for _, true in pairs:
            if true.name not in images:
                raise InputError(f"--image {options.image}: has no image {true.name}.")
    scored = []
    for found, true in pairs:
        with at_hand(true.path):
            one = score_pair(
                found,
                true,
                tolerance=tolerance,
                selection=Selection.from_arguments(options),
                points_unit=options.points_unit,
                image=images.get("", images.get(true.name)),
            )
        scored.append(one)
    within = tolerance_text({one.name: one.comparison for one in scored}, tolerance)
    if options.output is not None:
        score_files.check_output(options.output, scored)
    print("\n".join(_table(scored)))
    print(f"A hit is within {within}, one to one.")
    for one in scored:
        for remark in one.comparison.remarks:
            print(f"note: {one.name}: {remark}")
    for text in alone[:_NAMED]:
        print(f"not scored: {text}")
    if len(alone) > _NAMED:
        print(f"not scored: {len(alone) - _NAMED} more")
    if options.output is not None:
        written = score_files.write(options.output, scored, tolerance=within, alone=alone)
        pictured = f"{len(written)} picture{'' if len(written) == 1 else 's'}"
        print(f"score.html, scores.csv, scores.json and {pictured} written to {options.output}")
    return 0


def _table(scored: Sequence[Scored]) -> list[str]:
    """The scores as lines: a row an image, one of all together, and the means over images."""
    header, rows, total = score_table.cells(scored)
    lines = [header, *rows, *([total] if total else [])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for name, *values in lines:
        numbers = (v.rjust(width) for v, width in zip(values, widths[1:], strict=True))
        text.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return [*text, *filter(None, [score_table.means(scored)])]
