"""`cellcount models`: the bundled models and their cards, from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellcount_jax.images.regions import size_text
from cellcount_jax.inference import model_file

EXAMPLES = """\
examples:
  cellcount models
  cellcount models nuclei3d
  cellcount models mine.zip"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount models`."""
    parser.add_argument("name", nargs="?", help="of a bundled model, or an exported file")


def run(options: argparse.Namespace) -> int:
    """Lists the bundled models, or prints the card of one; returns the exit status."""
    bundled = model_file.bundled_models()
    if options.name is not None:
        print(model_file.read_card(bundled.get(options.name, Path(options.name))))
        return 0
    lines = [["model", "size", "images", "cells"]]
    lines += [[name, *_facts(path)] for name, path in bundled.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
    print("\nWhat a model is for, how good it is and what it is not for: cellcount models NAME")
    return 0


def _facts(path: Path) -> tuple[str, str, str]:
    """A model's size on the disk, the images that it takes, and what its card begins with."""
    model = model_file.load_model(path)
    kind = "images" if model.config.data.ndim == 2 else "volumes"
    if model.spacing_known:
        voxels = f", voxels of {size_text(model.spacing)} um"
    elif model.config.predict.estimate_diameter:
        voxels = ", cells of any size"
    else:
        diameter = model.config.data.diameter
        voxels = f", cells of about {diameter:g} pixels" if diameter else ""
    channels = f"{model.channels} channel{'s' if model.channels > 1 else ''}"
    lines = model_file.read_card(path).splitlines()
    text = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return f"{path.stat().st_size / 1e6:.1f} MB", f"{kind}, {channels}{voxels}", text
