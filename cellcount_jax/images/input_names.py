"""Names for the results of inputs, each of its own, also where case does not count."""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence
from pathlib import Path

from cellcount_jax.errors import InputError
from cellcount_jax.images.openers import short_name


def unique_names(paths: Sequence[Path], reserved: Collection[str]) -> list[str]:
    """Names for output files: the shortest kind by which those of one name differ.

    Args:
      paths: of the inputs.
      reserved: names that none may have.

    Raises:
      InputError: two inputs have one name by every kind, or one has a reserved one.
    """
    names = [_folder_name(path) for path in paths]
    for longer in (_with_ending, _with_folder, _with_both):
        clashing = _repeated([*names, *reserved])
        again = [longer(path) for path in paths]
        for name in clashing:
            members = [i for i, other in enumerate(names) if other.casefold() == name]
            if not _repeated([again[i] for i in members]):
                for i in members:
                    names[i] = again[i]
    for name in _repeated([*names, *reserved]):
        first, *others = [p for n, p in zip(names, paths, strict=True) if n.casefold() == name]
        if not others:
            raise InputError(f"{first}: no results can be called {name!r}; rename the input.")
        raise InputError(
            f"{first}: and {others[0]} would both write results called {name!r}; rename one, or"
            " give them one at a time."
        )
    return names


def _folder_name(path: Path) -> str:
    """A name that a folder beside others can have: no dots at its ends, as in `..`."""
    return short_name(path).strip(". ") or path.name.strip(". ") or "image"


def _with_ending(path: Path) -> str:
    return "_".join([_folder_name(path), *path.suffix.split(".")[1:]])


def _with_folder(path: Path) -> str:
    return f"{path.resolve().parent.name}_{_folder_name(path)}"


def _with_both(path: Path) -> str:
    return f"{path.resolve().parent.name}_{_with_ending(path)}"


def _repeated(names: Sequence[str]) -> list[str]:
    counted = collections.Counter(name.casefold() for name in names)
    return [name for name, number in counted.items() if number > 1]
