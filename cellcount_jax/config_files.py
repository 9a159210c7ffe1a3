"""Which file --config=configs/vgg.py:VARIANT is: the user's, or the one that comes with this."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from cellcount_jax.errors import InputError

_FOLDER = "configs"
_PACKAGE = Path(__file__).parent
_FLAG = re.compile(r"--?config(?:=(.*))?", re.DOTALL)


def with_config_found(arguments: Sequence[str]) -> list[str]:
    """The arguments of main with the place of the config file in them, see `config_file`."""
    found, is_next = [], False
    for argument in arguments:
        flag = _FLAG.fullmatch(argument)
        if flag and flag[1] is not None:
            argument = f"--config={config_file(flag[1])}"
        elif is_next:
            argument = config_file(argument)
        is_next = flag is not None and flag[1] is None
        found.append(argument)
    return found


def config_file(given: str) -> str:
    """Where a config file lies, with its variant.

    Args:
      given: FILE or FILE:VARIANT. A file that is there is taken; else configs/NAME.py is the one
        that comes with the package, from any folder.

    Raises:
      InputError: there is no such file.
    """
    name, colon, variant = given.rpartition(":")
    if not colon or "/" in variant or "\\" in variant:  # the colon of a drive
        name, colon, variant = given, "", ""
    path = Path(name)
    if not path.is_file():
        own = _own_folder()
        path = own / path.name if path == Path(_FOLDER, path.name) else path
        if not path.is_file():
            names = ", ".join(sorted(f"{_FOLDER}/{file.name}" for file in own.glob("[!_]*.py")))
            raise InputError(f"--config={name}: no such file; with this come {names}")
    return f"{_without_drive(path)}{colon}{variant}"


def _own_folder() -> Path:
    """The config files that come with the package: within it, or beside it in a clone."""
    inside = _PACKAGE / _FOLDER
    return inside if inside.is_dir() else _PACKAGE.parent / _FOLDER


def _without_drive(path: Path) -> Path:
    """The path as ml_collections takes it, for whom a variant begins behind the first colon."""
    if not path.drive:
        return path
    try:
        return Path(os.path.relpath(path))
    except ValueError as error:
        raise InputError(
            f"--config={path}: lies on another drive than the current folder; go to a folder there"
        ) from error
