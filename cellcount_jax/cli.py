"""The command `cellcount`: its subcommands, and errors as one line."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from cellcount_jax.counting import command as count_command
from cellcount_jax.counting import doctor
from cellcount_jax.errors import STOPPED, fail
from cellcount_jax.evaluation import calibrate_command
from cellcount_jax.evaluation import command as score_command
from cellcount_jax.inference import command as model_command
from cellcount_jax.label import command as label_command
from cellcount_jax.training import command as training_command


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(given)
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        return fail(error, otherwise=_first_path(options))


def _first_path(options: argparse.Namespace) -> str:
    """The first file that the command was given; '' without one."""
    given = (path for value in vars(options).values() for path in _listed(value))
    return next((str(path) for path in given if isinstance(path, Path)), "")


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else [value]


def _parser() -> argparse.ArgumentParser:
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

    def add(
        name: str,
        text: str,
        run: Callable[[argparse.Namespace], int],
        examples: str,
        add_arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None,
    ) -> None:
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # Not to undo one that was given before the command.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)
        command.set_defaults(run=run)
        add_arguments(command)

    add(
        "count",
        "find the cells in images or volumes",
        count_command.run,
        count_command.EXAMPLES,
        count_command.add_arguments,
    )
    add(
        "score",
        "compare found cells with a person's dots: precision, recall, F1, count error",
        score_command.run,
        score_command.EXAMPLES,
        score_command.add_arguments,
    )
    add(
        "label",
        "place dots on the cells of an image, in napari",
        label_command.run,
        label_command.EXAMPLES,
        label_command.add_arguments,
    )
    add(
        "train",
        "train a model on labelled images",
        training_command.run,
        training_command.EXAMPLES,
        training_command.add_arguments,
    )
    add(
        "calibrate",
        "choose a model's threshold for your images, from some dots in them",
        calibrate_command.run,
        calibrate_command.EXAMPLES,
        calibrate_command.add_arguments,
    )
    add(
        "export",
        "write a trained model as one file",
        model_command.run_export,
        model_command.EXPORT_EXAMPLES,
        model_command.add_export_arguments,
    )
    add(
        "models",
        "list the bundled models, or show the card of one",
        model_command.run_models,
        model_command.MODELS_EXAMPLES,
        model_command.add_models_arguments,
    )
    add(
        "doctor",
        "say what this machine has, and count a small image as a check",
        doctor.run,
        "example:\n  cellcount doctor",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
