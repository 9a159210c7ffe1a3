"""The command `cellcount`: its subcommands, and errors as one line."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cellcount_jax import interrupts
from cellcount_jax.errors import fail

_COMMANDS = {
    "count": "find the cells in images or volumes",
    "score": "compare found cells with a person's dots: precision, recall, F1, count error",
    "label": "place dots on the cells of an image, in napari",
    "train": "train a model on labelled images",
    "calibrate": "choose a model's threshold for your images, from some dots in them",
    "export": "write a trained model as one file",
    "models": "list the bundled models, or show the card of one",
    "doctor": "say what this machine has, and count a small image as a check",
}


class _Command(Protocol):
    """What the module of a command has."""

    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> int: ...


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns the exit status.

    Args:
      given: its arguments; None = those of the program, which Ctrl-C then ends with one line.
    """
    is_program = given is None
    words = sys.argv[1:] if given is None else given
    if is_program:
        interrupts.quit_at_once()  # while packages are imported
    options = _parser(words).parse_args(words)
    try:
        if is_program:
            interrupts.raise_interrupt()
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        return interrupts.say_stopped()
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        return fail(error, otherwise=_first_path(options))
    finally:
        if is_program:
            interrupts.quit_at_once()


def _first_path(options: argparse.Namespace) -> str:
    """The first file that the command was given; '' without one."""
    given = (path for value in vars(options).values() for path in _listed(value))
    return next((str(path) for path in given if isinstance(path, Path)), "")


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else [value]


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of some arguments: of the commands that they do not begin with names alone."""
    parser = argparse.ArgumentParser(
        prog="cellcount",
        description="Finds and counts the cells in images and volumes.",
        epilog="cellcount COMMAND --help has examples.",
    )
    version = importlib.metadata.version("cellcount_jax")
    debug = "show the traceback of an error"
    parser.add_argument("--debug", action="store_true", help=debug)
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    # No option before the command takes a value.
    chosen = next((word for word in words if word in _COMMANDS), None)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name != chosen:
            continue
        module = _module(name)
        command.description = text[0].upper() + text[1:] + "."
        command.epilog = module.EXAMPLES
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        # Not to undo one that was given before the command.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)
        command.set_defaults(run=module.run)
        module.add_arguments(command)
    return parser


def _module(name: str) -> _Command:
    """The module of a command, which is imported here: what a command needs takes seconds."""
    module: _Command
    match name:
        case "count":
            from cellcount_jax.counting import command as module
        case "score":
            from cellcount_jax.evaluation import command as module
        case "label":
            from cellcount_jax.label import command as module
        case "train":
            from cellcount_jax.training import command as module
        case "calibrate":
            from cellcount_jax.evaluation import calibrate_command as module
        case "export":
            from cellcount_jax.inference import export_command as module
        case "models":
            from cellcount_jax.inference import models_command as module
        case "doctor":
            from cellcount_jax.counting import doctor as module
    return module


if __name__ == "__main__":
    sys.exit(main())
