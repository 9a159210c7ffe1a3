"""The page of a count: well-formed, alone, escaped, the same each time, and seen in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.report import depths, overview, views
from cellcount_jax.report.page import write_page
from cellcount_jax.report.places import cell_radius, with_depth

VOID = {"meta", "input", "br"}
EVIL = '<script>alert("x")</script> & <b onload=1>'


class Page(HTMLParser):
    """Elements, texts and links of a page; fails on tags that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag}: an attribute twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"{tag} is closed out of order"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str | None = None) -> str:
        inside = (text for name, text in self.texts if name == (tag or name) and name != "style")
        return "\n".join(inside).replace("\N{NO-BREAK SPACE}", " ")

    def captions(self) -> list[str]:
        return [text for name, text in self.texts if name == "figcaption"]


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)


def arguments(image: np.ndarray, count: int, **changes: Any) -> dict[str, Any]:
    """Cells anywhere, the first two at opposite corners of the image."""
    rng = np.random.default_rng(1)
    shape = image.shape[:-1]
    points = rng.uniform(0, np.array(shape) - 1, (count, len(shape))).astype(np.float32)
    points[:1] = -0.5
    points[1:2] = np.array(shape) - 0.5
    scores = rng.uniform(0.5, 1, count).astype(np.float32)
    rejected = rng.uniform(0.1, 0.499, 2 * count).astype(np.float32)
    return {
        "title": "an image",
        "facts": {"model": "mine", "threshold": "0.5"},
        "read": image.__getitem__,
        "shape": shape,
        "points": points,
        "scores": scores,
        "threshold": 0.5,
        "candidates": np.concatenate([scores, rejected]),
        "candidate_points": np.concatenate([points, points, points]),
    } | changes


def page_of(folder: Path, given: Mapping[str, Any]) -> Page:
    write_page(folder / "page.html", **given)
    return Page(folder / "page.html")


CASES: dict[str, tuple[tuple[int, ...], Sequence[float] | None]] = {
    "image": ((60, 90, 1), (0.5, 0.5)),
    "colours": ((50, 40, 3), None),
    "two channels": ((50, 40, 2), None),
    "tiny": ((3, 5, 1), None),
    "one voxel": ((1, 1, 1), (1.0, 1.0)),
    "volume": ((20, 40, 30, 1), (6.0, 1.5, 1.5)),
    "volume of unknown voxels": ((20, 40, 30, 1), None),
    "one plane": ((1, 40, 30, 1), (6.0, 1.5, 1.5)),
    "two planes": ((2, 40, 30, 3), None),
    "deep": ((700, 6, 5, 1), (2.0, 1.0, 1.0)),
    "wide": ((3, 4, 900, 1), (5.0, 1.0, 1.0)),
    "line": ((1, 2000, 1), None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_every_image_has_a_whole_page(tmp_path: Path, name: str, count: int) -> None:
    shape, spacing = CASES[name]
    page = page_of(tmp_path, arguments(image_of(*shape), count, spacing=spacing))
    assert page.source.startswith("<!DOCTYPE html>")
    assert f"{count} cell{'' if count == 1 else 's'}" in page.text().replace("\n", "")
    # Each drawing is described, for those who see it and those who do not.
    drawings = page.all("svg")
    assert len(drawings) >= 3
    assert all(d["role"] == "img" and len(d["aria-label"]) > 10 for d in drawings)
    assert len(page.captions()) == len(page.all("figure"))
    assert all(len(caption) > 10 for caption in page.captions())
    # Nothing is fetched, and no number is missing or without bounds.
    assert not page.all("script") and not page.all("link") and not page.all("img")
    assert all(i["href"].startswith("data:image/") for i in page.all("image"))
    without_pictures = re.sub(r'href="data:[^"]*"', "", page.source)
    assert not re.search(r"https?:|url\(|@import|src=", without_pictures)
    numbers = re.sub("(?s)<style>.*</style>|['\"]none['\"]", "", without_pictures)
    assert not re.search(r"(?i)\b(nan|inf|none)\b", numbers)
    volume = len(shape) == 4 and shape[0] > 1
    assert ("Single planes" in page.text("h3")) == volume
    assert any(c.startswith("Cells by depth") for c in page.captions()) == volume


def test_the_parts_come_in_order(tmp_path: Path) -> None:
    given = arguments(image_of(20, 40, 30, 1), 30, regions=[{"region": "CA1", "count": 3}])
    text = page_of(tmp_path, given).text()
    parts = [
        "an image",
        "What was counted",
        "mine",
        "All depths",
        "A: the densest",
        "Slabs",
        "From the side",
    ]
    parts += ["Single planes", "Around the threshold", "Counted, with scores", "Not counted, with"]
    parts += ["How many have which score", "Density of cells", "Cells by depth", "Regions", "CA1"]
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)


def test_the_only_cell_is_enlarged_once(tmp_path: Path) -> None:
    captions = page_of(tmp_path, arguments(image_of(60, 90, 1), 1)).captions()
    assert [c[:17] for c in captions if c.startswith(("A:", "B:"))] == [
        "A: the only cell,",
        "B: the brightest ",
    ]


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    row = {EVIL: EVIL, "count": 1}
    given = arguments(image_of(20, 20, 1), 3, title=EVIL, facts={EVIL: EVIL}, regions=[row])
    page = page_of(tmp_path, given)
    assert not page.all("script") and not page.all("b")[1:]
    for tag, times in (("h1", 1), ("th", 2), ("td", 2)):
        assert page.text(tag).count(EVIL) == times, tag
    assert page.text("title").startswith(EVIL)


def test_a_browser_runs_nothing_of_a_name(
    tmp_path: Path, browser: Callable[..., tuple[np.ndarray, str]]
) -> None:
    name = '"><img src=x onerror=console.log("ran")><script>console.log("ran")</script>'
    given = arguments(image_of(20, 20, 1), 3, title=name, facts={name: name})
    page_of(tmp_path, given | {"regions": [{name: name, "count": 1}]})
    _, log = browser(tmp_path / "page.html", 600, 600)
    assert "CONSOLE" not in log


def test_the_same_count_gives_the_same_bytes(tmp_path: Path) -> None:
    given = arguments(image_of(20, 40, 30, 1), 30)
    assert page_of(tmp_path, given).source == page_of(tmp_path, given).source
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_flat_image_is_black_and_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, arguments(np.full((30, 40, 1), 7, np.float32), 5))
    assert not any("without a cell" in caption for caption in page.captions())


def test_the_part_of_a_long_image_that_is_shown_is_stated(tmp_path: Path) -> None:
    seen = page_of(tmp_path, arguments(image_of(3, 4, 900, 1), 9)).captions()
    views = [caption for caption in seen if caption.startswith(("All depths", "From the side"))]
    assert len(views) == 2
    assert all(re.search(r"Only x \d+ to \d+ is shown", caption) for caption in views)
    seen = page_of(tmp_path, arguments(image_of(20, 40, 30, 1), 9)).captions()
    assert not any("Only" in caption for caption in seen)


@pytest.mark.parametrize("chunks", [None, (1, 150, 160), (8, 64, 64)])
def test_a_large_volume_is_read_in_small_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, ...] | None
) -> None:
    at_once, in_all = 20_000, 100_000
    monkeypatch.setattr(views, "MAX_READ_VALUES", at_once)
    monkeypatch.setattr(views, "MAX_PICTURE_VOXELS", in_all)
    monkeypatch.setattr(overview, "MAX_PICTURE_VOXELS", in_all)
    monkeypatch.setattr(depths, "MAX_READ_VALUES", at_once)
    shape = (300, 150, 160)
    image = np.broadcast_to(image_of(1, 150, 160, 1), (*shape, 1))
    sizes: list[int] = []
    planes: set[int] = set()

    def read(region: tuple[slice, ...]) -> np.ndarray:
        for part, size in zip(region, shape, strict=True):
            assert 0 <= part.start < part.stop <= size and part.step in (None, 1)
        planes.update(range(region[0].start, region[0].stop))
        values = image[region]
        sizes.append(values.size)
        return values

    page = page_of(tmp_path, arguments(image, 400, read=read, chunks=chunks, spacing=(4, 1, 1)))
    assert max(sizes) <= at_once
    assert sum(sizes) < 6 * in_all < image.size / 10
    if chunks == (1, 150, 160):
        # Where a plane is stored as a whole, few are touched, and none for a crop from the side.
        assert len(planes) < 220
        assert "from the side" not in page.source
    else:
        assert "from the side" in page.source


def test_the_least_certain_cells_are_shown_with_number_and_score(tmp_path: Path) -> None:
    given = arguments(image_of(60, 90, 1), 40)
    page = page_of(tmp_path, given)
    expected = np.sort(given["scores"])[:12]
    found = [re.match(r"no\. (\d+), score ([\d.]+)", caption) for caption in page.captions()]
    shown = [match for match in found if match]
    numbers = np.array([int(match[1]) for match in shown]) - 1
    scores = given["scores"][numbers]
    assert [float(match[2]) for match in shown] == pytest.approx(scores, abs=5e-4)
    np.testing.assert_allclose(np.sort(scores), expected)
    rejected = [float(c.split()[1].rstrip(",")) for c in page.captions() if c.startswith("score")]
    below = given["candidates"][given["candidates"] < 0.5]
    assert sorted(rejected) == pytest.approx(np.sort(np.sort(below)[::-1][:12]), abs=5e-4)
    # Whole cells first, those that the border cuts after; of each kind the nearest first.
    reach = cell_radius(with_depth(given["points"]), np.ones(3))
    to_border = np.minimum(given["points"], np.array([59, 89]) - given["points"]).min(axis=1)
    cut = (to_border[numbers] + 0.5 < reach).tolist()
    assert cut == sorted(cut)
    for kind in (False, True):
        of_kind = scores[np.array(cut) == kind]
        np.testing.assert_array_equal(of_kind, np.sort(of_kind))


def test_candidates_without_places_are_in_the_histogram_alone(tmp_path: Path) -> None:
    page = page_of(tmp_path, arguments(image_of(60, 90, 1), 40, candidate_points=None))
    assert "Not counted, with" not in page.text()
    assert "below the threshold" in page.text("text")
    page = page_of(
        tmp_path,
        arguments(image_of(60, 90, 1), 40, candidates=np.zeros(0)) | {"candidate_points": None},
    )
    assert "below the threshold" not in page.text("text")


def test_the_counts_of_other_thresholds_are_given(tmp_path: Path) -> None:
    given = arguments(image_of(60, 90, 1), 40)
    every = given["candidates"]
    lower, higher = int((every >= 0.45).sum()), int((every >= 0.55).sum())
    assert lower > 40 > higher
    text = f"The count is 40; with a threshold of 0.45 about {lower} and of 0.55 about {higher}."
    assert text in page_of(tmp_path, given).text("figcaption")


def test_regions_are_a_table(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "region": 5000,
            "name": "CA1",
            "count": 12345,
            "volume_mm3": 0.5,
            "cells_per_mm3": 24690.0,
        },
        {"region": 9, "name": "fibre tracts", "count": 0, "cells_per_mm3": None, "x": True},
    ]
    page = page_of(tmp_path, arguments(image_of(20, 20, 1), 1, regions=rows))
    table = page.source[page.source.index('<table class="regions">') :]
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", table)
    head = ["region", "name", "count", "volume (mm³)", "cells per mm³", "x"]
    first = ["5000", "CA1", "12,345", "0.5", "24,690", ""]
    assert cells == [*head, *first, "9", "fibre tracts", "0", "", "–", "True"]
    assert 'class="n">12,345' in table and 'class="n">CA1' not in table
    assert 'class="n">24,690' in table, "a density of nothing leaves the others numbers"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((3, 3))}, r"points has shape \(3, 3\)"),
        ({"scores": np.zeros(2)}, "for 2 scores"),
        ({"candidate_points": np.zeros((1, 2))}, "candidate_points has shape"),
        ({"spacing": (1.0, 1.0, 1.0)}, "spacing is"),
        ({"shape": (4,)}, "shape is"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_page(tmp_path / "page.html", **arguments(image_of(20, 20, 1), 3, **change))
    assert list(tmp_path.iterdir()) == []


def test_doubts_stand_in_a_box_before_all_else(tmp_path: Path) -> None:
    given = arguments(image_of(20, 20, 1), 3)
    write_page(tmp_path / "good.html", **given)
    assert 'class="doubts"' not in (tmp_path / "good.html").read_text()
    write_page(tmp_path / "page.html", **given, doubts=["cells < 5 px: --diameter", "few"])
    text = (tmp_path / "page.html").read_text()
    box = text.index('<section class="doubts">')
    doubt = text.index('<li>cells &lt; 5 px: <span class="option">--diameter</span></li>')
    assert box < doubt < text.index("What was counted")
    assert text.index("<li>few</li>") < text.index("</section>")


def test_a_browser_shows_it_without_complaint(
    tmp_path: Path,
    browser: Callable[..., tuple[np.ndarray, str]],
    width_in: Callable[[Path, int], int],
) -> None:
    spacing = (6.0, 1.5, 1.5)
    write_page(tmp_path / "page.html", **arguments(image_of(20, 40, 30, 1), 30, spacing=spacing))
    picture, log = browser(tmp_path / "page.html", 1200, 2500)
    assert "CONSOLE" not in log
    assert picture.shape == (2500, 1200, 3)
    orange = (np.abs(picture.astype(int) - (230, 159, 0)) < 12).all(axis=-1)
    assert orange.sum() > 1000, "rings and bars"
    # The picture from above, noise, is below the facts and on the left.
    assert picture[600:900, 100:400].std() > 20
    for width in (500, 1200):
        assert width_in(tmp_path / "page.html", width) == width


def test_the_browser_test_would_see_an_error(
    tmp_path: Path, browser: Callable[..., tuple[np.ndarray, str]]
) -> None:
    """A page that fetches or runs something is complained of; its own policy forbids both."""
    write_page(tmp_path / "page.html", **arguments(image_of(20, 20, 1), 3))
    source = (tmp_path / "page.html").read_text()
    (tmp_path / "bad.html").write_text(source.replace("</body>", "<script>1</script></body>"))
    assert "CONSOLE" in browser(tmp_path / "bad.html", 600, 400)[1]
