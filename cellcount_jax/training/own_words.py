"""Settings in messages as `cellcount train` is given them, by its options."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

from cellcount_jax.errors import InputError

_OPTIONS = {
    "init_from": "--from",
    "train.steps": "--steps",
    "data.dir": "FOLDER",
    "data.diameter": "--diameter",
    "data.from_diameter": "--diameter",
    "data.points_unit": "--points-unit",
}
_SETTING = re.compile(
    r"(?<![\w./])(?:--)?config\.(?!py\b|json\b)([a-z_]+(?:\.[a-z_0-9]+)?)\b( = )?"
)


def own_words(message: str) -> str:
    """A message with `--steps 7` for `config.train.steps = 7`, and `--set a.b=1` for others."""

    def option(found: re.Match[str]) -> str:
        key, assigned = found.groups()
        if key in _OPTIONS:
            return _OPTIONS[key] + (" " if assigned else "")
        return f"--set {key}" + ("=" if assigned else "")

    return _SETTING.sub(option, message)


@contextlib.contextmanager
def in_own_words() -> Iterator[None]:
    """Puts the errors of what is done inside into the command's words."""
    try:
        yield
    except InputError as error:
        message = own_words(str(error))
        if message == str(error):
            raise
        raise InputError(message) from error


class OwnWords(logging.Formatter):
    """A log in the command's words."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return own_words(super().format(record))
