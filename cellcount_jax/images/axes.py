"""Axes of a file under other names than its own, and the names to give where its own do not fit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from cellcount_jax.errors import InputError
from cellcount_jax.images.stored import Stored

LETTERS = "TCZYX"
_OWN = {"S": "C", "Q": "Z", "I": "Z"}  # tifffile's letters of samples and of plain pages
_IN_WORDS = {"T": "time points", "C": "channels", "Z": "planes"}


def reinterpreted(stored: Stored, axes: str, path: Path) -> Stored:
    """A stored array with other axes than its file says; its pixels are the same.

    Voxel edges stay with the places of their axes; where the file has no z axis the z edge that
    it gives is that of the new one. What was an opacity is a channel.

    Args:
      stored: as it was opened.
      axes: a letter of T, C, Z, Y, X for each of its axes, each once, Y and X among them.
      path: its file, for errors.

    Returns:
      The array under the new names.

    Raises:
      InputError: other letters, or not as many as the array has axes.
    """
    wrong = sorted(set(axes) - set(LETTERS))
    twice = len(set(axes)) < len(axes)
    if wrong or twice or not {"Y", "X"} <= set(axes):
        problem = f"{', '.join(wrong)} not known" if wrong else "a letter stands twice"
        problem = problem if wrong or twice else "Y and X are needed"
        raise InputError(
            f"{path}: axes {axes!r}: {problem}; give letters of T, C, Z, Y and X, each once, Y and"
            " X among them, such as ZYX."
        )
    shape = tuple(map(int, stored.array.shape))
    if len(axes) != len(shape):
        raise InputError(
            f"{path}: axes {axes!r} are {len(axes)}, and the file has {len(shape)}"
            f" ({axes_text(stored.axes, shape)}); give a letter for each."
        )
    voxel = {
        new: stored.voxel[own]
        for new, own in zip(axes, _normal(stored.axes), strict=True)
        if new in "ZYX" and own in "ZYX" and own in stored.voxel
    }
    if "Z" not in _normal(stored.axes) and "Z" in axes and "Z" in stored.voxel:
        voxel.setdefault("Z", stored.voxel["Z"])
    kept = "C" in axes and _normal(stored.axes)[axes.index("C")] == "C"
    return dataclasses.replace(
        stored,
        axes=axes,
        voxel=voxel,
        alpha=False,
        channel_names=stored.channel_names if kept else (),
    )


def axes_text(axes: str, shape: Sequence[int]) -> str:
    """The axes of an array with their sizes, such as `T of 24, Y of 96, X of 96`."""
    names = axes if len(axes) == len(shape) else "?" * len(shape)
    return ", ".join(f"{axis} of {size}" for axis, size in zip(names, shape, strict=True))


def remedy(axes: str, shape: Sequence[int], *, ndim: int) -> str:
    """What to give where the axes of a file make it another image than it is.

    Args:
      axes: of the file.
      shape: the size of each.
      ndim: spatial axes that are wanted, 2 or 3.

    Returns:
      For example `--axes ZYX if its time points are planes`; '' where other names do not help.
    """
    own = _normal(axes)
    known = set(own) <= set(LETTERS) and {"Y", "X"} <= set(own)
    if not known or len(own) != len(shape) or len(set(own)) < len(own):
        return ""
    sizes = dict(zip(own, shape, strict=True))
    swaps = [("T", "Z"), ("C", "Z")] if ndim == 3 else [("Z", "T"), ("Z", "C")]
    told = []
    for old, new in swaps:
        # An axis of length 1 takes the name that becomes free.
        if sizes.get(old, 1) > 1 and sizes.get(new, 1) == 1:
            names = own.translate(str.maketrans(old + new, new + old))
            told.append(f"--axes {names} if its {_IN_WORDS[old]} are {_IN_WORDS[new]}")
    return ", ".join(told)


def example(axes: str, shape: Sequence[int]) -> str:
    """The names to give where those of a file are not known, such as `--axes CZYX`.

    Args:
      axes: of the file; what is none of T, C, Z, Y and X gets a letter that is free.
      shape: the size of each axis.

    Returns:
      The option; '' where there are not enough letters.
    """
    own = axes.replace("S", "C") if len(axes) == len(shape) else "?" * len(shape)
    if not {"Y", "X"} <= set(own):
        own = f"{'?' * (len(shape) - 2)}YX"
    kept = [name if name in LETTERS and own.index(name) == k else "?" for k, name in enumerate(own)]
    # The longest unknown axis is the depth most likely.
    free = [name for name in "ZCT" if name not in kept]
    unknown = sorted((k for k, name in enumerate(kept) if name == "?"), key=lambda k: -shape[k])
    if len(unknown) > len(free) or len(shape) < 2:
        return ""
    for place, name in zip(unknown, itertools.islice(free, len(unknown)), strict=True):
        kept[place] = name
    return f"--axes {''.join(kept)}"


def _normal(axes: str) -> str:
    """Axes with the letters that can be given."""
    return "".join(_OWN.get(axis, axis) for axis in axes)


def option_text(axes: str | None) -> str:
    """The axes that were given as the option that gives them again."""
    return "the axes of the file" if axes is None else f"--axes {axes}"
