"""The order of the slices of a volume by the numbers in their names, and their channels.

One number varies and counts the planes (`z001.tif`, `z_-72um.tif`, `z_1.5.tif`). What does not fit
in is an error, since a file that is no plane, or a plane that is missing, makes other cells.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from cellcount_jax.errors import InputError, few

# A sign stands after what parts words: `z_-72`, not `brain-072`; or anywhere, where names with and
# without it are there: `z-72`, `z72`. A point may be that of a decimal, or part words as well.
_PARTED, _ANYWHERE = r"(?:(?:(?<=[_ =(])|^)[+\-−])?", r"[+\-−]?"
_DECIMAL, _WHOLE = r"[0-9]+(?:[.,][0-9]+)?", r"[0-9]+"
_NUMBERS = [
    re.compile(f"({sign}{digits})")
    for sign in (_PARTED, _ANYWHERE)
    for digits in (_DECIMAL, _WHOLE)
]
_CHANNEL = re.compile(r"(?:^|[^a-z])((?:channel|chan|ch|c|wavelength|w)[ _=-]*)$", re.IGNORECASE)

# Of the ways to read the names, the one is told that came furthest.
_NO_STEPS, _SEVERAL, _TWICE, _UNLIKE = range(4)


class Ordered(NamedTuple):
    """The slices of a volume in their order.

    Attributes:
      planes: by z; of each a file a channel.
      channels: the name of each, such as 'C00'; empty where the names have no channels.
    """

    planes: tuple[tuple[Path, ...], ...]
    channels: tuple[str, ...]


class _Problem(NamedTuple):
    rank: int
    text: str


class _Name(NamedTuple):
    """A name in parts: texts, and the numbers between them, as written and their values."""

    path: Path
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    values: tuple[Fraction, ...]


def in_order(paths: Sequence[Path]) -> Ordered:
    """Puts the slices of a volume in order by the numbers in their names.

    Numbers may have signs and decimals. Where a second one is that of a channel (`C00`, `ch1`,
    `w2`), the volume has channels. Several numbers may count the planes together, as an index and
    a position do.

    Args:
      paths: files of one folder, two or more.

    Returns:
      The files in order.

    Raises:
      InputError: a name that is not like the others, two of one number, a second number that
        varies, or numbers that are not in equal steps (up to how decimals were rounded).
    """
    problems = []
    for pattern in _NUMBERS:
        found = _ordered([_split(path, pattern) for path in paths])
        if isinstance(found, Ordered):
            return found
        problems.append(found)
    raise InputError(min(problems, key=lambda problem: problem.rank).text)


def _split(path: Path, pattern: re.Pattern[str]) -> _Name:
    parts = pattern.split(path.stem)
    values = (Fraction(number.replace(",", ".").replace("−", "-")) for number in parts[1::2])
    return _Name(path, tuple(parts[::2]), tuple(parts[1::2]), tuple(values))


def _ordered(names: Sequence[_Name]) -> Ordered | _Problem:
    folder = names[0].path.parent
    if problem := _unlike(names):
        return problem
    varying = [i for i in range(len(names[0].numbers)) if len({n.values[i] for n in names}) > 1]
    channel = _channel_column(names, varying)
    planes = [i for i in varying if i != channel]
    if not planes:
        first, second = names[0].path, names[1].path.name
        return _Problem(_TWICE, f"{first}: and {second} have the same number; {_ONE_NUMBER}.")
    together = len({tuple(name.values[i] for i in planes) for name in names})
    if any(len({name.values[i] for name in names}) < together for i in planes):
        found = ", ".join(_about(names, i) for i in varying)
        return _Problem(
            _SEVERAL,
            f"{folder}: {len(varying)} numbers vary in the names of its slices, and it is not"
            f" clear which is z: {found}. One may vary, beside that of a channel (C0, ch0, w1): put"
            " the slices of each volume in a folder of their own.",
        )
    orders = [_by_number(names, i, channel) for i in planes]
    whole = [order for order in orders if isinstance(order, Ordered)]
    if not whole:
        problems = [order for order in orders if isinstance(order, _Problem)]
        return min(problems, key=lambda problem: problem.rank)
    if any(order.planes not in (whole[0].planes, whole[0].planes[::-1]) for order in whole):
        one, other = (_about(names, i) for i in planes[:2])
        return _Problem(
            _SEVERAL,
            f"{folder}: two numbers in the names of its slices put them in different orders"
            f" ({one}; {other}); {_ONE_NUMBER}.",
        )
    return whole[0]


_ONE_NUMBER = "slices are ordered by one number in their names, such as z001, z002; rename them"


def _unlike(names: Sequence[_Name]) -> _Problem | None:
    """What is wrong where the texts around the numbers are not all the same."""
    folder = names[0].path.parent
    groups: dict[tuple[str, ...], list[Path]] = {}
    for name in names:
        groups.setdefault(tuple(text.casefold() for text in name.texts), []).append(name.path)
    largest, *others = sorted(groups.values(), key=len, reverse=True)
    if not names[0].numbers and (not others or len(largest) == 1):
        listed = _few([name.path for name in names])
        return _Problem(_UNLIKE, f"{folder}: its slices have no number ({listed}); {_ONE_NUMBER}.")
    if not others:
        return None
    if len(largest) == 1:
        listed = _few([name.path for name in names])
        return _Problem(
            _UNLIKE, f"{folder}: its slices are not named alike ({listed}); {_ONE_NUMBER}."
        )
    if 2 * len(others[0]) > len(largest):
        listed = "; ".join(f"{len(group)} as {group[0].name}" for group in (largest, *others)[:4])
        return _Problem(
            _UNLIKE,
            f"{folder}: holds slices with several kinds of names ({listed}), which would be taken"
            " for one volume; put those of each channel or volume in a folder of their own.",
        )
    odd = [path for group in others for path in group]
    more = f" (others are {_few(odd[1:])})" if odd[1:] else ""
    return _Problem(
        _UNLIKE,
        f"{odd[0]}: is not named like the other {len(largest)} slices ({_few(largest)}){more}; if"
        " it is none, such as a projection or a preview, put it elsewhere, else rename it.",
    )


def _channel_column(names: Sequence[_Name], varying: Sequence[int]) -> int | None:
    """The number of a channel, where another one varies too."""
    found = [i for i in varying if _CHANNEL.search(names[0].texts[i])]
    return found[0] if len(found) == 1 and len(varying) > 1 else None


def _by_number(names: Sequence[_Name], column: int, channel: int | None) -> Ordered | _Problem:
    """The slices by one number, with channels by another."""
    folder = names[0].path.parent
    table: dict[Fraction, dict[Fraction, _Name]] = {}
    channels: dict[Fraction, str] = {}
    for name in names:
        key = Fraction(0) if channel is None else name.values[channel]
        plane = table.setdefault(name.values[column], {})
        if key in plane:
            first, second = plane[key].path, name.path.name
            return _Problem(_TWICE, f"{first}: and {second} have the same number; {_ONE_NUMBER}.")
        plane[key] = name
        if channel is not None:
            marker = _CHANNEL.search(name.texts[channel])
            channels[key] = (marker[1] if marker else "") + name.numbers[channel]
    keys = sorted(channels) or [Fraction(0)]
    order = sorted(table)
    for value in order:
        missing = [channels[key] for key in keys if key not in table[value]]
        if missing:
            beside = next(iter(table[value].values())).path.name
            return _Problem(
                _NO_STEPS,
                f"{folder}: channel {missing[0]} has no slice beside {beside}; the channels need"
                " the same slices. Put it there, or each channel in a folder of its own.",
            )
    paths = tuple(tuple(table[value][key].path for key in keys) for value in order)
    digits = max(len(re.split("[.,]", name.numbers[column] + ".")[1]) for name in names)
    if not _equal_steps(order, digits):
        return _Problem(_NO_STEPS, _gap(order, [plane[0] for plane in paths]))
    return Ordered(paths, tuple(channels[key] for key in keys) if channels else ())


def _equal_steps(values: Sequence[Fraction], digits: int) -> bool:
    """Whether sorted numbers are in equal steps, up to the rounding to so many decimals.

    Steps that were rounded differ by one in the last place at most. Where the last place itself is
    the step, that could be a gap as well.
    """
    steps = [after - before for before, after in itertools.pairwise(values)]
    if min(steps) == max(steps):
        return True
    unit = Fraction(1, 10**digits)
    mean = (values[-1] - values[0]) / len(steps)
    drift = max(abs(value - values[0] - number * mean) for number, value in enumerate(values))
    return bool(digits) and min(steps) >= 2 * unit and max(steps) - min(steps) <= unit >= drift


def _gap(values: Sequence[Fraction], paths: Sequence[Path]) -> str:
    """Where sorted numbers are not in equal steps, in words."""
    steps = [after - before for before, after in itertools.pairwise(values)]
    usual, _ = min(collections.Counter(steps).items(), key=lambda item: (-item[1], item[0]))
    place = max(range(len(steps)), key=lambda number: abs(steps[number] - usual))
    before, after = paths[place].name, paths[place + 1].name
    times = steps[place] / usual
    missing = round(times) - 1
    if missing and times.denominator == 1:
        first, last = _text(values[place] + usual), _text(values[place + 1] - usual)
        numbers = first if missing == 1 else f"{first} to {last}"
        what = f"{numbers} missing between {before} and {after}"
    else:
        what = f"{_text(steps[place])} from {before} to {after}, but {_text(usual)} elsewhere"
    return (
        f"{paths[0].parent}: its slices are not numbered in equal steps: {what}. Put what is"
        " missing there, or unbroken parts in folders of their own; if nothing is missing, rename"
        " the files."
    )


def _text(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.7g}"


def _about(names: Sequence[_Name], column: int) -> str:
    """A number that varies, in words."""
    values = sorted({name.values[column]: name.numbers[column] for name in names}.items())
    text = (re.findall(r"[^\W_]+", names[0].texts[column]) or [""])[-1]
    return f"{text}{values[0][1]} to {text}{values[-1][1]} ({len(values)})"


def _few(paths: Sequence[Path]) -> str:
    return few([path.name for path in paths])
