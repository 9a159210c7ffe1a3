"""The command `cellcount`: its subcommands, and errors as one line."""

from __future__ import annotations

import argparse
import difflib
import functools
import importlib.metadata
import itertools
import re
import sys
import traceback
from collections.abc import Collection, Sequence
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
    "completion": "write what completes commands and options in a shell",
}


_OPTION = re.compile("--?[A-Za-z]")  # a number is none
_ALIKE = 0.7  # of difflib, 0 to 1


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
    # No option before the command takes a value.
    chosen = next((word for word in words if word in _COMMANDS), None)
    parser = _parser([chosen] if chosen else [], words)
    options = parser.parse_args(words)
    try:
        if is_program:
            interrupts.raise_interrupt()
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        if is_program:
            interrupts.leave()
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


def _parser(chosen: Collection[str], words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser, of all but the chosen commands with names alone.

    Args:
      chosen: the commands whose arguments it has.
      words: what is to be parsed; an option that there is not ends the program, before argparse
        names all that is missing.
    """
    parser = argparse.ArgumentParser(
        prog="cellcount",
        description="Finds and counts the cells in images and volumes.",
        epilog="cellcount COMMAND --help has examples.",
    )
    version = f"cellcount_jax {importlib.metadata.version('cellcount_jax')}"
    debug = "show the traceback of an error"
    parser.add_argument("--debug", action="store_true", help=debug)
    parser.add_argument("--version", action="version", version=version)
    before = list(itertools.takewhile(lambda word: word.startswith("-"), words))
    behind = " and ".join(f"options of {name} come behind its name" for name in chosen)
    _refuse_unknown(parser, before, hint=behind)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name not in chosen:
            continue
        module = _module(name)
        command.description = text[0].upper() + text[1:] + "."
        command.epilog = module.EXAMPLES
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        # Not to undo one that was given before the command.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)
        command.add_argument("--version", action="version", version=version)
        command.set_defaults(run=module.run, whole_parser=functools.partial(_parser, _COMMANDS))
        module.add_arguments(command)
        _refuse_unknown(command, words[words.index(name) + 1 :] if words else ())
    return parser


def _refuse_unknown(
    parser: argparse.ArgumentParser, words: Sequence[str], *, hint: str = ""
) -> None:
    """Ends the program with one line at the first option that a parser does not know.

    Args:
      parser: of which the options are.
      words: what is to be parsed by it.
      hint: what to do, where no known option is like the unknown one.
    """
    known = parser._option_string_actions
    for word in itertools.takewhile(lambda word: word != "--", words):
        option = word.partition("=")[0]
        if not _OPTION.match(option) or any(_may_be(option, each) for each in known):
            continue
        near = difflib.get_close_matches(option, known, 1, _ALIKE)
        meant = f"did you mean {near[0]}?" if near else hint
        lists = f"{parser.prog} --help lists all"
        parser.exit(2, f"{parser.prog}: error: no such option: {option}; {meant or lists}\n")


def _may_be(option: str, known: str) -> bool:
    """Whether argparse may take an option for a known one: its beginning is enough."""
    return known.startswith(option) if option.startswith("--") else option.startswith(known)


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
        case "completion":
            from cellcount_jax import completion as module
    return module


if __name__ == "__main__":
    sys.exit(main())
