"""Runs the notebooks in docs/notebooks/ and stores them with small pictures, for the site.

Run it from the repository's root after a change, with the extra `test`:

    python docs/notebooks.py
"""

from __future__ import annotations

import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).with_name("notebooks")


def run(path: Path) -> Any:
    """A notebook with the outputs of its code, run in an empty folder; fails where a cell does."""
    notebook = nbformat.read(path, as_version=4)
    # Set here and not in a cell, which a reader would have to understand.
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=300, resources=place, record_timing=False).execute()
    return notebook


def store(path: Path, notebook: Any) -> None:
    """Writes a notebook that was run, without what differs between runs."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).pop("image/png", None):
                output.metadata = {}
                output.data["image/jpeg"] = as_jpeg(png)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def as_jpeg(png: str) -> str:
    """A picture in base64 as a smaller one."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    for each in sorted(FOLDER.glob("*.ipynb")):
        store(each, run(each))
        print(f"{each}: {each.stat().st_size / 1000:.0f} kB")
