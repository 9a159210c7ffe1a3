"""`cellcount export`: a trained model as one file, from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file
from cellcount_jax.inference import model_file

EXAMPLES = """\
example:
  cellcount export runs/mine mine.zip --card about.md

The file holds settings, weights and the card. It is read without executing anything in it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount export`."""
    parser.add_argument("workdir", type=Path, help="of a finished run")
    parser.add_argument("file", type=Path, help="to write, e.g. mine.zip")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of this name")
    parser.add_argument("--card", type=Path, help="Markdown text that says what the model is")


def run(options: argparse.Namespace) -> int:
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
