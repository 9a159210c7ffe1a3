"""counts.html beside counts.csv: all counts of a folder, also failed and earlier ones."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from cellcount_jax.counting import counts_page, counts_table
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.inference import model_file

Call = Callable[..., int]


@pytest.fixture
def model(tmp_path: Path, untrained_model: Callable[..., object]) -> Path:
    path = tmp_path / "model.zip"
    model_file.export_model(untrained_model(2), path, card="")  # type: ignore[arg-type]
    return path


def images(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        values = np.random.default_rng(seed).normal(100, 20, (40, 50)).astype(np.float32)
        write_image(folder / name, values)
    return folder


def cells(page: str) -> dict[str, str]:
    """Image to count, in the order of the page."""
    pairs = re.findall(r'class="name" data-value="(.*?)".*?data-value="(.*?)"', page, re.DOTALL)
    return {html.unescape(name): count for name, count in pairs}


@pytest.mark.usefixtures("quick_compiling")
def test_a_folder_gets_one_page(
    tmp_path: Path, model: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "=a #1 50% <i>.tif"
    folder, output = images(tmp_path / "images", odd, "b.tif"), tmp_path / "out"
    (folder / "c.tif").write_bytes(b"II*\0")
    command = ("count", "--model", model, "--output", output)
    assert call(*command, folder, "--dry-run") == 1
    assert not output.exists()
    assert call(*command, folder, "--spacing", "0.5,0.5") == 1
    page = (output / "counts.html").read_text()
    counts = {
        name: json.loads((output / name / "summary.json").read_text())["count"]
        for name in (odd.removesuffix(".tif"), "b")
    }
    assert cells(page) == {**{name: str(n) for name, n in counts.items()}, "c": ""}
    assert f"<b>{sum(counts.values()):,}</b>" in page and page.count("data:image/png") == 2
    assert "Not counted:" in page and "Per mm²" in page
    links = [unquote(html.unescape(link)) for link in re.findall(r'href="(.*?)"', page)]
    # Report and points by their names and thumbnails, those of doubtful ones at the head too.
    assert len(links) == 11 and all((output / link).is_file() for link in links)
    # A count into the same folder adds to it, and one that is repeated changes nothing.
    images(tmp_path / "more", "d.tif")
    assert call(*command, tmp_path / "more") == 0
    page = (output / "counts.html").read_text()
    assert list(cells(page)) == [*counts, "c", "d"]
    assert call(*command, tmp_path / "more") == 0
    assert (output / "counts.html").read_text() == page
    # An input of its name is another folder.
    images(tmp_path / "named", "counts.html.tif")
    assert call(*command, tmp_path / "named") == 0
    assert (output / "counts.html").is_file()
    capsys.readouterr()


@pytest.mark.usefixtures("quick_compiling")
def test_one_image_has_its_report_alone(tmp_path: Path, model: Path, call: Call) -> None:
    folder = images(tmp_path / "images", "a.tif")
    assert call("count", folder, "--model", model, "--output", tmp_path / "out") == 0
    assert not (tmp_path / "out" / "counts.html").exists()


def test_a_page_of_somebody_else_stays(tmp_path: Path, model: Path, call: Call) -> None:
    folder, output = images(tmp_path / "images", "a.tif", "b.tif"), tmp_path / "out"
    output.mkdir()
    (output / "counts.html").write_text("<p>mine")
    assert call("count", folder, "--model", model, "--output", output) == 1
    assert [path.name for path in output.iterdir()] == ["counts.html"]
    assert (output / "counts.html").read_text() == "<p>mine"
    (output / "counts.html").unlink()
    (output / "counts.html").mkdir()
    with pytest.raises(InputError, match=r"counts\.html: is no page of counts"):
        counts_page.check(output)


def test_results_that_are_gone_or_damaged(tmp_path: Path) -> None:
    """A page is made of what is there; the table has the counts."""
    table = tmp_path / counts_table.NAME
    assert counts_page.write(tmp_path) is None
    for name in ("a", "b", "=c"):
        row = {"input": f"/x/{name}.tif", "count": 3, "voxels": 9, "folder": name, "error": ""}
        counts_table.merge(table, row)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "summary.json").write_text('{"doubts": [')
    (tmp_path / "b" / "report.html").write_text("")
    assert counts_page.write(tmp_path) == tmp_path / "counts.html"
    page = (tmp_path / "counts.html").read_text()
    assert cells(page) == {"a": "3", "b": "3", "=c": "3"}
    assert re.findall(r'href="(.*?)"', page) == ["counts.csv", "b/report.html", "b/report.html"]
