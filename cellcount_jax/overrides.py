"""Settings changed by texts such as 'train.steps=500'."""

from __future__ import annotations

import ast
import difflib
from typing import Any

import ml_collections

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError


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
