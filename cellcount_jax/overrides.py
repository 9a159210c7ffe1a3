"""Settings from a command line: the config file, and texts such as 'train.steps=500'."""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from cellcount_jax import config as settings
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


def check_key(key: str) -> None:
    """Makes sure that there is a setting of this name, such as 'train.steps'.

    Raises:
      InputError: there is none; names the nearest and those beside it.
    """
    known = settings.flatten(settings.default_config().to_dict())
    if key not in known:
        section = key.rpartition(".")[0]
        near = difflib.get_close_matches(key, known, n=1)
        beside = sorted(k for k in known if k.rpartition(".")[0] == section)
        hint = f"; did you mean config.{near[0]}?" if near else ""
        there = f" There are {', '.join(beside)}." if beside else ""
        raise InputError(f"config.{key}: no such setting{hint}{there}")


def override(config: ml_collections.ConfigDict, text: str) -> str:
    """Changes a setting by a text `key=value`.

    Args:
      config: changed in place.
      text: for example 'train.steps=500' or 'data.spacing=4,1,1'; 'config.' before it is allowed.

    Returns:
      The key.

    Raises:
      InputError: not of this form, no such setting, or a value of another type.
    """
    key, equals, value = text.partition("=")
    key = key.strip().removeprefix("config.")
    if not equals:
        raise InputError(f"--set {text}: must be KEY=VALUE, such as train.steps=500")
    check_key(key)
    section, _, name = key.rpartition(".")
    part = config[section] if section else config
    try:
        part[name] = _value(value.strip(), part[name])
    except (SyntaxError, TypeError, ValueError) as error:
        kind = type(part[name]).__name__
        raise InputError(
            f"--set {text}: the value must be of the type {kind}, now {part[name]!r}"
        ) from error
    return key


def _value(text: str, now: Any) -> Any:
    """A text as a value of the type of the present one."""
    if isinstance(now, str):
        return text
    value = ast.literal_eval(text)
    if isinstance(now, tuple):
        return value if isinstance(value, tuple) else (value,)
    if isinstance(now, float) and type(value) is int:
        return float(value)
    if type(value) is not type(now):
        raise TypeError(f"{value!r} is no {type(now).__name__}")
    return value
