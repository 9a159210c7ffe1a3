"""`cellcount completion`: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellcount_jax.errors import InputError, how_to_install

EXAMPLES = """\
examples:
  cellcount completion bash > ~/.local/share/bash-completion/completions/cellcount
  cellcount completion zsh > ~/.zfunc/_cellcount      # a folder of $fpath

It is written once: nothing is started when Tab is pressed. Write it again after an update."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `cellcount completion`."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell it is for")


def run(options: argparse.Namespace) -> int:
    """Prints the script; returns the exit status.

    Args:
      options: with `whole_parser`, a function that makes the parser with all commands in it.

    Raises:
      InputError: the extra is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise InputError(
            f"Completion needs shtab, which is not installed: {how_to_install('completion')}"
        ) from error
    parser = options.whole_parser()
    for each in (parser, *_subparsers(parser)):
        for action in each._actions:
            if action.type is Path or "--model" in action.option_strings:
                action.complete = shtab.FILE
    print(shtab.complete(parser, shell=options.shell))
    return 0


def _subparsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    choices = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    return [command for commands in choices for command in commands.values()]
