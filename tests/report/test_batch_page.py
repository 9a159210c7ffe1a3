"""The page of many counts: whole, escaped, with links that lead somewhere, and one script."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image

from cellcount_jax.report.batch_page import MARK, Row, write_batch_page
from cellcount_jax.report.views import open_volume, project, thumbnail

NASTY = "a <b onclick=x>\"#1\" 100% & 'é'?.tif"


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(file, format="PNG")
    return file.getvalue()


class Parsed(html.parser.HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


ROWS = [
    Row(
        NASTY,
        f"/x/{NASTY}",
        1200,
        1190.5,
        61.26,
        "mm²",
        picture=png(),
        links=[("report", f"{NASTY}/report.html")],
    ),
    Row(
        "b",
        "/x/b.tif",
        0,
        doubts=["cells < 5 px: --diameter", "few"],
        links=[("report", "b/report.html")],
    ),
    Row("c", "/x/c.tif", None, error="it is <broken>"),
]


def test_what_it_holds(tmp_path: Path) -> None:
    write_batch_page(tmp_path / "new" / "counts.html", ROWS)
    page = Parsed(tmp_path / "new" / "counts.html")
    text = " ".join(" ".join(page.texts).split())
    assert "1,200 cells" in text
    assert "in 2 images; 1 of them is doubtful: b ; 1 more could not be counted." in text
    for wanted in (NASTY, "cells < 5 px: --diameter", "few", "it is <broken>", "61.3", "1,190"):
        assert wanted in text
    assert not page.all("b onclick=x") and len(page.all("img")) == 1
    assert page.all("img")[0]["src"] == f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    links = [unquote(link["href"] or "") for link in page.all("a")]
    assert set(links) == {"counts.csv", f"{NASTY}/report.html", "b/report.html"}
    assert MARK in page.source[:2000]
    # By what a click sorts.
    columns = ["name", "count", "integral", "density", "doubts"]
    values = [cell["data-value"] for cell in page.all("td") if "data-value" in cell]
    table = [dict(zip(columns, values[i : i + 5], strict=True)) for i in range(0, len(values), 5)]
    assert [row["name"] for row in table] == [NASTY, "b", "c"]
    assert [row["count"] for row in table] == ["1200", "0", ""]
    assert [row["integral"] for row in table] == ["1190.5", "", ""]
    assert [row["density"] for row in table] == ["61.26", "", ""]
    assert table[0]["doubts"] == "0" and table[1]["doubts"] == "2"
    assert int(table[2]["doubts"] or 0) > 2, "what was not counted comes first"


def test_the_doubtful_images_are_named_at_its_head(tmp_path: Path) -> None:
    rows = [Row(f"a{i}", f"/a{i}", 1, doubts=["few"]) for i in range(7)]
    write_batch_page(tmp_path / "a.html", rows)
    text = " ".join(" ".join(Parsed(tmp_path / "a.html").texts).split())
    assert "7 of them are doubtful: a0, a1, a2, a3, a4 and 2 more. A click" in text


def test_it_runs_one_script_and_fetches_nothing(tmp_path: Path) -> None:
    write_batch_page(tmp_path / "a.html", ROWS)
    page = Parsed(tmp_path / "a.html")
    policy = page.all("meta")[1]["content"] or ""
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "://" not in page.source and not page.all("link")
    assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
    first = (tmp_path / "a.html").read_bytes()
    write_batch_page(tmp_path / "a.html", ROWS)
    assert (tmp_path / "a.html").read_bytes() == first


def test_columns_that_nothing_is_in_are_left_out(tmp_path: Path) -> None:
    write_batch_page(tmp_path / "a.html", [Row("a", "/a", 1), Row("b", "/b", 1)])
    page = Parsed(tmp_path / "a.html")
    assert len(page.all("th")) == 4
    text = " ".join(" ".join(page.texts).split())
    assert "2 cells in 2 images. A click" in text


def test_a_thumbnail_is_the_picture_in_small() -> None:
    for shape, channels, expected in (
        ((300, 600), 1, (80, 160)),
        ((20, 30), 3, (20, 30)),
        ((9, 900, 300), 1, (120, 40)),
    ):
        image = np.zeros((*shape, channels), np.float32)
        image[..., -shape[-1] // 2 :, :] = 7
        volume = open_volume(image.__getitem__, shape, spacing=None, chunks=None)
        region = tuple(slice(0, n) for n in volume.shape)
        small = thumbnail(project(volume, region, axis=0, box=(900, 900)))
        assert small.shape[:2] == expected and small.dtype == np.uint8
        assert small[:, : expected[1] // 3].max() == 0 and small[:, -3:].min() == 255
