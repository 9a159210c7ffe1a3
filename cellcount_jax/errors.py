"""The one error for what a user gave that cannot be used."""

from __future__ import annotations

import unicodedata

# Line breaks, what a terminal takes for a command, and halves of characters.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


class InputError(ValueError):
    """A file, a value or a setting that cannot be used as given.

    The message is one or two plain sentences: it names the file or the key, the
    value found, and what would be right. Commands print it without a traceback and
    exit with status 1. It is one line, whatever a file is called: characters that
    would break it, or that a terminal would obey, are escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(map(_printable, message)))


def _printable(character: str) -> str:
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    return character.encode("unicode_escape").decode()
