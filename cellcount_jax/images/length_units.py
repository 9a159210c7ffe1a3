"""Lengths in metadata as micrometres: numbers and names of units as programs write them."""

from __future__ import annotations

import math
import re
from typing import Any

# Exponents of ten. Micro has one name more: the micro sign and the Greek mu are two characters.
_PREFIXES = {
    "yotta": ("Y", 24),
    "zetta": ("Z", 21),
    "exa": ("E", 18),
    "peta": ("P", 15),
    "tera": ("T", 12),
    "giga": ("G", 9),
    "mega": ("M", 6),
    "kilo": ("k", 3),
    "hecto": ("h", 2),
    "deca": ("da", 1),
    "": ("", 0),
    "deci": ("d", -1),
    "centi": ("c", -2),
    "milli": ("m", -3),
    "micro": ("u", -6),
    "nano": ("n", -9),
    "pico": ("p", -12),
    "femto": ("f", -15),
    "atto": ("a", -18),
    "zepto": ("z", -21),
    "yocto": ("y", -24),
}
# Micrometres, of what is no power of ten of a metre: OME's UnitsLength and the words of OME-Zarr.
# A typographic point has 72 to the inch, OME's `li` (line) 12.
_OTHERS = {
    "å": 1e-4,
    "angstrom": 1e-4,
    "micron": 1.0,
    "mikron": 1.0,
    "thou": 25.4,
    "pt": 25400 / 72,
    "point": 25400 / 72,
    "li": 25400 / 12,
    "line": 25400 / 12,
    "in": 25400.0,
    "inch": 25400.0,
    "ft": 304800.0,
    "foot": 304800.0,
    "yd": 914400.0,
    "yard": 914400.0,
    "mi": 1609344e3,
    "mile": 1609344e3,
    "ua": 149597870700e6,
    "ly": 9460730472580800e6,
    "pc": 30856775814913673e6,
    "parsec": 30856775814913673e6,
}
_PLURALS = {"inches": "inch", "feet": "foot"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_SYMBOLS = {f"{symbol}m": 10.0 ** (power + 6) for symbol, power in _PREFIXES.values()}
_WORDS = {
    f"{prefix}{metre}": 10.0 ** (power + 6)
    for prefix, (_, power) in _PREFIXES.items()
    for metre in ("meter", "metre")
}


def micrometres(unit: Any) -> float:
    """How many micrometres a unit is.

    Args:
      unit: its name in any spelling: a symbol (`um`, also with either mu, `Mm` and `mm` apart), a
        word (`micrometer`, `Microns`), all units of length of OME and OME-Zarr.

    Returns:
      Micrometres; NaN where the name is not that of a length, such as `pixel`.
    """
    # An escape of ImageJ, and UTF-8 that was read as Latin-1.
    name = str(unit).replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("Âµ", "µ").strip()
    name = name.replace("µ", "u").replace("μ", "u")
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    name = name.casefold()
    name = _PLURALS.get(name, name)
    for spelling in (name, name.removesuffix("s")):
        for known in (_OTHERS, _WORDS, _SYMBOLS):
            if spelling in known:
                return known[spelling]
    return math.nan


def length(text: Any) -> float:
    """A length in metadata, without its sign, which some programs give to spacings.

    Args:
      text: a number or its text; a decimal comma is one, where there is no point.

    Returns:
      The positive number; NaN where it is none, zero, infinite, or could be two.
    """
    written = str(text).strip()
    if written.count(",") == 1 and "." not in written:
        written = written.replace(",", ".")
    if _NUMBER.fullmatch(written) is None:
        return math.nan
    value = abs(float(written))
    return value if 0 < value < math.inf else math.nan
