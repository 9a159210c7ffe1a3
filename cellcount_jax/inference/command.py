"""`cellcount export` and `cellcount models`: trained models in files, from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file
from cellcount_jax.images.regions import size_text
from cellcount_jax.inference import model_file

EXPORT_EXAMPLES = """\
example:
  cellcount export runs/mine mine.zip --card about.md

The file holds settings, weights and the card. It is read without executing anything in it.
"""
MODELS_EXAMPLES = """\
examples:
  cellcount models
  cellcount models nuclei3d
  cellcount models mine.zip"""


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount export`."""
    parser.add_argument("workdir", type=Path, help="of a finished run")
    parser.add_argument("file", type=Path, help="to write, e.g. mine.zip")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of this name")
    parser.add_argument("--card", type=Path, help="Markdown text that says what the model is")


def run_export(options: argparse.Namespace) -> int:
    """Writes a model as one file; returns the exit status."""
    read = [model_file.model_path(options.workdir), *([options.card] if options.card else [])]
    model_file.check_output(options.file, overwrite=options.overwrite, read=read)
    model = model_file.load_model(options.workdir)
    card = "" if options.card is None else _card(options.card)
    card = card or f"# {options.file.stem}\n\nExported from {options.workdir}, step {model.step}.\n"
    # A card of the user's is told too: where weights come from decides under which terms they are.
    parent = model_file.about_parent(model.config)
    card += "" if model.config.init_digest in card else parent
    model_file.export_model(model, options.file, card=card)
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB")
    return 0


def _card(path: Path) -> str:
    try:
        return existing_file(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8, which a card is") from error


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount models`."""
    parser.add_argument("name", nargs="?", help="of a bundled model, or an exported file")


def run_models(options: argparse.Namespace) -> int:
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
