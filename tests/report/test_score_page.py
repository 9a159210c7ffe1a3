"""The page of a score: well-formed, escaped, the same each time, with every hit and error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from cellcount_jax.report.pictures import GREEN, VERMILION, YELLOW
from cellcount_jax.report.score_page import Shown, show, write_score_page

EVIL = '<script>alert("x")</script> & <b>'


def shown(shape: tuple[int, ...], name: str = "a", **changes: Any) -> Shown:
    """An image with 9 hits, 2 missed and 3 false cells, some in its corners."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (*shape, 1)).astype(np.float32)
    points = [rng.uniform(0, np.subtract(shape, 1), (n, len(shape))) for n in (9, 2, 3)]
    points[1][0], points[2][0] = -0.5, np.subtract(shape, 0.5)
    given = {"hits": points[0], "missed": points[1], "false": points[2], **changes}
    return show(name, read=image.__getitem__, shape=shape, **given)


def captions(html: str) -> list[str]:
    root = ElementTree.fromstring(f"<div>{html}</div>")
    return [str(element.text) for element in root.iter("figcaption")]


def write(path: Path, **changes: Any) -> str:
    given: dict[str, Any] = {
        "title": "title",
        "f1": 0.8,
        "sentence": "13 found of 12",
        "facts": {"Found": "points.csv"},
        "header": ["image", "F1"],
        "rows": [["a", "0.800"]],
        **changes,
    }
    write_score_page(path, **given)
    return path.read_text()


def test_an_image_has_its_marks_and_crops() -> None:
    html = shown((40, 60)).html
    assert captions(html)[0] == "9 hits, 2 missed, 3 false."
    assert html.count('class="crop"') == 2 + 3
    first = html[: html.index("</figure>")]
    # Rings have two arcs, squares one end, crosses two lines.
    drawn = {
        k: re.findall(rf'<path class="{k}" d="(.*?)"', first) for k in ("hit", "missed", "false")
    }
    assert [len(paths) for paths in drawn.values()] == [1, 1, 1]
    assert drawn["hit"][0].count("a") == 18
    assert drawn["missed"][0].count("z") == 2
    assert drawn["false"][0].count("l") == 6


def test_a_volume_is_shown_in_slabs_that_hold_every_cell() -> None:
    for spacing, slabs in ((None, 4), ((6.0, 2.0, 2.0), 6), ((1.0, 1.0, 1.0), 1)):
        texts = [c for c in captions(shown((60, 20, 30), spacing=spacing).html) if "hits" in c]
        assert len(texts) == slabs
        found = np.array([[int(n) for n in re.findall(r"(\d+) (?:h|m|f)", t)[-3:]] for t in texts])
        np.testing.assert_array_equal(found.sum(axis=0), [9, 2, 3])


def test_of_a_large_image_parts_are_enlarged() -> None:
    errors = np.array([[40, 100], [890, 700], [895, 690]], np.float64)
    texts = captions(shown((900, 1000), missed=errors, false=errors[:1]).html)
    assert texts[0].startswith("9 hits, 3 missed, 1 false. The frames")
    pattern = r"^(\w): y (\d+) to (\d+), x (\d+) to (\d+), .* (\d) missed, (\d) false"
    parts = [re.findall(pattern, text) for text in texts[1:3]]
    assert parts == [
        [("A", "0", "299", "0", "299", "1", "1")],
        [("B", "600", "899", "600", "899", "2", "0")],
    ]


def test_of_many_slabs_those_with_errors_are_shown() -> None:
    errors = np.array([[z, 5, 5] for z in (3, 90, 250, 251)], np.float64)
    html = shown((300, 20, 30), hits=np.zeros((0, 3)), missed=errors, false=errors[:0]).html
    texts = [c for c in captions(html) if "hits" in c]
    assert len(texts) == 12 and "7 slabs with 0 errors in all are not shown" in html
    assert sum(int(re.findall(r"(\d+) missed", text)[0]) for text in texts) == 4


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (1, 5, 7)])
def test_images_of_any_shape_and_no_cells(shape: tuple[int, ...]) -> None:
    none = np.zeros((0, len(shape)))
    html = shown(shape, hits=none, missed=none, false=none).html
    assert captions(html)[-1].endswith("0 hits, 0 missed, 0 false.")
    one = np.zeros((1, len(shape)))
    assert len(captions(shown(shape, hits=none, missed=one, false=none).html)) == 2


def test_whatever_is_given_is_escaped(tmp_path: Path) -> None:
    evil = {"title": EVIL, "sentence": EVIL, "facts": {EVIL: EVIL}, "header": [EVIL, "F1"]}
    text = write(
        tmp_path / "a.html",
        **evil,
        rows=[[EVIL, "1"]],
        total=[EVIL, "1"],
        means=EVIL,
        remarks=[EVIL],
        alone=[EVIL],
        shown=[shown((20, 20), EVIL)],
    )
    assert "<script" not in text and "<b>alert" not in text
    assert text.count("&lt;script&gt;") == 11
    assert '<a href="#image0">' in text and '<h3 id="image0">' in text
    assert "http" not in re.sub(r'<meta http-equiv=|xmlns="http://www.w3.org/2000/svg"', "", text)


def test_the_same_score_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = [write(tmp_path / f"{i}.html", shown=[shown((20, 20))]) for i in range(2)]
    assert texts[0] == texts[1] and "0.800" in texts[0]
    several = write(
        tmp_path / "c.html", rows=[["a", "1"], ["b", "0"]], shown=[shown((9, 9))], chosen=True
    )
    assert "1 of 2 images, those with the lowest F1" in several


def test_a_browser_shows_it_without_complaint(
    tmp_path: Path,
    browser: Callable[..., tuple[np.ndarray, str]],
    width_in: Callable[[Path, int], int],
) -> None:
    path, name = tmp_path / "page.html", "a_long_name_" * 12
    header = ["image", *(f"column {i}" for i in range(10))]
    rows = [[name, *["+1806 (+1327.9 %)"] * 10], ["b", *["0.5"] * 10]]
    images = [shown((30, 40, 50), name, spacing=(6.0, 2.0, 2.0)), shown((50, 90), "b")]
    write(path, header=header, rows=rows, total=rows[0], alone=[name], shown=images)
    picture, log = browser(path, 1200, 2500)
    assert "CONSOLE" not in log
    for colour in (GREEN, VERMILION, YELLOW):
        assert (np.abs(picture.astype(int) - colour) < 12).all(axis=-1).sum() > 100, "marks"
    assert width_in(path, 500) == 500
