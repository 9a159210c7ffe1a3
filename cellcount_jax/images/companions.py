"""Files that belong to an image of the same folder, and are none: masks, labels, previews."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from cellcount_jax.errors import few
from cellcount_jax.images.openers import short_name

# Names that no image has, of Cellpose, ilastik and StarDist in Fiji.
_CERTAIN = re.compile(
    r".+_seg\.npy"
    r"|.+_cp_(?:masks|output|outlines)(?:[-_ .].*)?"
    r"|.+[-_ ](?:simple[_ ]segmentation|object[_ ](?:predictions|probabilities|identities))"
    r"|(?:.+[-_ ])?label[_ ]image",
    re.IGNORECASE,
)
# What follows the name of an image, of this project, of those programs and CellProfiler, and what
# people call masks. Alone, without that image, such a file may be one itself.
_OBJECT = "cells?|cyto|nucle(?:i|us)|objects?|instances?|cp|sd|cellprofiler"
_ROLE = re.compile(
    rf"(?:[-_ .]+(?:{_OBJECT}))*[-_ .]+(?:labels?|labell?ed|masks?|valid|seg|segmentation|segmented"
    r"|objects|instances|outlines?|overlay|annotations?|ground[-_ ]?truth|gt|stardist|cellpose"
    r"|ilastik|probabilities|uncertainty|flows?|dp|cellprob)(?:[-_ .]+(?:labels?|masks?))?"
    r"|overlay|outlines",
    re.IGNORECASE,
)
# What a count leaves in a folder, beside its claim, and is an image.
_CLAIM, _OF_A_COUNT = "count.json", ("overlay.png", "density.zarr")


def companions(paths: Collection[Path]) -> list[Path]:
    """Which of the image files of a folder belong to other images: masks, labels, outlines.

    Args:
      paths: all image files and Zarr folders of the folder.

    Returns:
      Those that are no images to work on, in the order given.
    """
    images = {short_name(path).casefold() for path in paths}
    return [path for path in paths if _is_companion(path, images)]


def describe(folder: Path, skipped: Sequence[Path]) -> str:
    """A line that tells which files of a folder were skipped.

    Args:
      folder: the folder.
      skipped: its `companions`, at least one.
    """
    names = few([path.name for path in skipped])
    return f"{folder}: skipped as masks, labels or pictures of other images, unless named: {names}"


def _is_companion(path: Path, images: Collection[str]) -> bool:
    name = short_name(path)
    if path.name in _OF_A_COUNT and (path.parent / _CLAIM).exists():
        return True
    if _CERTAIN.fullmatch(name) or _CERTAIN.fullmatch(path.name):
        return True
    ends = range(1, len(name))
    return any(name[:end].casefold() in images and _ROLE.fullmatch(name[end:]) for end in ends)
