"""Many counts as one HTML file: a table with a thumbnail of each, its count, doubts and links.

As `page.py`: the file needs nothing else and fetches nothing. Its script sorts the table and
does nothing else; the page names it by its hash, and a browser runs no other.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from cellcount_jax.images.files import replacing
from cellcount_jax.report.charts import number
from cellcount_jax.report.templates import template
from cellcount_jax.report.views import data_url

# By which a page is known as one of these.
_MOST_NAMED = 5  # doubtful images at the head of the page
MARK = '<meta name="generator" content="cellcount_jax counts">'


class Row(NamedTuple):
    """A count of the page.

    Attributes:
      name: of the image.
      place: where it lies.
      cells: how many; None where it could not be counted.
      integral: the count by the density's integral, of a model that has one.
      density: cells per mm^D; None where the voxel size is not known.
      unit: of the density, "mm²" or "mm³".
      doubts: reasons not to trust the count.
      error: why it was not counted; "" if it was.
      picture: PNG file of a thumbnail; b"" = none.
      links: title to path of files, relative to the page.
    """

    name: str
    place: str
    cells: int | None
    integral: float | None = None
    density: float | None = None
    unit: str = ""
    doubts: Sequence[str] = ()
    error: str = ""
    picture: bytes = b""
    links: Sequence[tuple[str, str]] = ()

    @property
    def main_link(self) -> str:
        """The first link; "" without any."""
        return self.links[0][1] if self.links else ""


class _Script(NamedTuple):
    """A script, and what a page's policy calls it."""

    text: Markup
    hash: str


def write_batch_page(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: the file.
      rows: the counts, in the order in which they are shown.

    Raises:
      OSError: it cannot be written.
    """
    counted = [row for row in rows if row.cells is not None]
    text = template("batch.html").render(
        mark=Markup(MARK),
        script=_script(),
        total=f"{sum(row.cells or 0 for row in rows):,}",
        images=len(counted),
        doubtful=[row for row in counted if row.doubts],
        most_named=_MOST_NAMED,
        failed=len(rows) - len(counted),
        units=sorted({row.unit for row in rows if row.density is not None}),
        integrals=any(row.integral is not None for row in rows),
        rows=rows,
        url=lambda link: quote(link),
        data_url=data_url,
        short=_short,
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _script() -> _Script:
    text = Path(__file__).with_name("sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _Script(Markup(text), f"sha256-{digest}")


def _short(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else number(value)
