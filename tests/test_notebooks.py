"""The notebooks in docs/notebooks/ run in an empty folder, and are stored as they should be."""

from __future__ import annotations

import importlib.util
import re
import runpy
import warnings
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
if not all(importlib.util.find_spec(name) for name in ("ipykernel", "nbclient")):
    pytest.skip(
        "ipykernel or nbclient is not installed (the extra `test`)", allow_module_level=True
    )


def texts(notebook: Any) -> list[str]:
    """What the cells print and give, without pictures."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" not in data and "image/jpeg" not in data:
                found.append(output.get("text") or data["text/plain"])
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_prints_what_is_stored_but_for_numbers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Jupyter's packages
        stored = runpy.run_path(str(DOCS / "notebooks.py"))
        kept = texts(stored["nbformat"].read(path, as_version=4))
        found = texts(stored["run"](path))
    # Numbers of cells may differ by rounding errors on other processors.
    assert [re.sub(r" *\d+", "0", t) for t in found] == [re.sub(r" *\d+", "0", t) for t in kept]
    assert kept


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_small_and_of_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 300_000
    assert '"image/jpeg"' in text and '"image/png"' not in text
    assert not re.search(r"/(tmp|home|root|work|Users)/|Traceback|WARNING", text)


def test_both_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["images", "light_sheet_regions"]
