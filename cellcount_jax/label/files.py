"""Files beside a labelled image: their paths, digests and copies, and the CSV file of dots."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.data.blocks import SUFFIX, journal_path
from cellcount_jax.errors import InputError
from cellcount_jax.images.files import replacing
from cellcount_jax.images.image_points import check_image_points
from cellcount_jax.images.point_units import UNKNOWN_UNIT, DotUnit
from cellcount_jax.images.points import read_table
from cellcount_jax.label.dots import Dots, as_stored, make_dots


class Files:
    """The paths of an image's labels."""

    def __init__(self, image: Path, name: str) -> None:
        self.points = image.with_name(f"{name}.csv")
        self.label_file = image.with_name(name + SUFFIX)
        self.journal = journal_path(image, name)
        self.lock = image.with_name(f".{name}.label.lock")


def digest(path: Path) -> str | None:
    """The digest of a file; None where there is no file."""
    return digest_of(path.read_bytes()) if path.exists() else None


def digest_of(content: bytes) -> str:
    """The SHA-256 digest of a file's content."""
    return hashlib.sha256(content).hexdigest()


def as_csv(dots: Dots) -> bytes:
    """A CSV file that `points.read_points` reads, with the columns score and verified too."""
    axes = "zyx"[-dots.points.shape[1] :]
    lines = [",".join((*axes, "score", "verified"))]
    row = ",".join(["%.3f"] * len(axes)) + ",%s,%d"
    scores = ["" if np.isnan(score) else f"{score:.6g}" for score in dots.scores.tolist()]
    columns = (*dots.points.T.tolist(), scores, dots.verified.tolist())
    lines += [row % values for values in zip(*columns, strict=True)]
    return ("\n".join(lines) + "\n").encode()


def write(path: Path, content: bytes) -> None:
    """Writes a file, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def keep_copy(path: Path) -> Path:
    """Copies a file of another program before it is replaced.

    Returns:
      The copy, `cells.csv.bak`; where another file has this name `cells.csv.bak2`, and so on.
    """
    content = path.read_bytes()
    for number in itertools.count(1):
        copy = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        if not copy.exists():
            write(copy, content)
            return copy
        # A session that was killed after the copy and before saving has left this one.
        if copy.is_file() and copy.read_bytes() == content:
            return copy
    raise AssertionError


def read_dots(
    path: Path,
    shape: Sequence[int],
    spacing: Sequence[float] | None = None,
    known: DotUnit = UNKNOWN_UNIT,
) -> Dots:
    """Reads dots of an image from a CSV file; those without a mark are verified.

    Args:
      path: the CSV file.
      shape: `(D,)` of the image.
      spacing: `(D,)` its voxel edges in micrometres; None = unknown.
      known: what is known of their unit.

    Raises:
      InputError: see `read_image_points`; a mark other than 0 and 1.
    """
    of_unit: dict[str, Any] = {"unit": known.unit, "spacing": spacing}
    points, texts = read_table(path, ndim=len(shape), others=("verified", "score"), **of_unit)
    check_image_points(points, shape, path, spacing=spacing, known=known)
    points = as_stored(points, shape, path)

    def column(name: str, convert: Callable[[str], float], absent: float) -> np.ndarray:
        values = []
        for number, text in enumerate(texts.get(name, [""] * len(points)), 1):
            try:
                values.append(convert(text) if text else absent)
            except ValueError as error:
                raise InputError(
                    f"{path}: dot {number}, column {name}: {text!r} is not allowed."
                ) from error
        return np.array(values, np.float64)

    verified = column("verified", _mark, 1.0) != 0
    scores = column("score", _finite, np.nan)
    return make_dots(points, first_id=0, verified=verified, scores=scores)


def _mark(text: str) -> float:
    value = float(text)  # a program that reads whole numbers as floats writes 1.0
    if value not in (0.0, 1.0):
        raise ValueError(text)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
