"""Arrays as they are stored in files, not read yet, and checks that all formats share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellcount_jax.errors import InputError, few, reason
from cellcount_jax.images.regions import first_wrong

_MAX_CHARACTERS = 300  # of a library; some messages repeat the file
_LISTED = 24  # channels or images that a message names


class LazyArray(Protocol):
    """An array that reads what its index asks for: a memory map, a Zarr array, slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        ...

    @property
    def dtype(self) -> Any:
        """The stored type."""
        ...

    def __getitem__(self, index: tuple[int | slice, ...], /) -> Any:
        """What lies at `index`, which has an entry per axis; an integer drops its axis."""
        ...


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a file, with its metadata.

    Attributes:
      array: reads from the file when it is indexed.
      axes: a letter per axis of `array`, as tifffile names them; "?" where it is not known.
      kind: the format, in words for a banner.
      voxel: edges in micrometres by axis ("Z", "Y", "X"), those that the file gives.
      voxel_source: where `voxel` is from, in words.
      voxel_unread: what the file says of the voxel size that is not understood; '' where nothing.
      alpha: whether the last channel is an opacity.
      channel_names: one a channel; empty where the file has none.
      chunks: per axis, what is cheap to read at once; None where any region is.
      levels: how many resolutions the file holds.
      scene: the number of the image in a file of several; None where it is the only one.
      files: all files that are read, where these are more than the one that was opened; of an
        address see `remote_state.remote_files`.
      close: frees the file; `array` is not to be used after it.
    """

    array: LazyArray
    axes: str
    kind: str
    voxel: Mapping[str, float] = dataclasses.field(default_factory=dict)
    voxel_source: str = "unknown"
    voxel_unread: str = ""
    alpha: bool = False
    channel_names: tuple[str, ...] = ()
    chunks: tuple[int, ...] | None = None
    levels: int = 1
    scene: int | None = None
    files: tuple[Path, ...] = ()
    close: Callable[[], None] = lambda: None


@contextlib.contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turns whatever the block raises into an `InputError` of one line that names the file.

    Damaged files make their libraries raise anything, from struct.error to KeyError.

    Args:
      path: the file.
      what: what it was read as, with an article: "a TIFF file".

    Raises:
      InputError: in the place of any other error.
    """
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened or read as {what} ({one_line(error)})."
        ) from error
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as {what} ({one_line(error)}); copy it again or save it anew."
        ) from error


def one_line(error: Exception) -> str:
    """A library's message on one line, without a full stop, and not longer than it helps.

    Args:
      error: what the library raised.

    Returns:
      The message; where there is none, the error's name.
    """
    text = reason(error) if isinstance(error, OSError) else str(error)
    message = " ".join(text.split()).rstrip(".") or repr(error)
    return message if len(message) <= _MAX_CHARACTERS else f"{message[:_MAX_CHARACTERS]}..."


def check_level(level: int, levels: int, path: Path) -> None:
    """Checks that a resolution level is there.

    Args:
      level: the one asked for; 0 is the finest.
      levels: how many the file has.
      path: the file, for the message.

    Raises:
      InputError: there is no such level.
    """
    if not 0 <= level < levels:
        allowed = "0 alone" if levels == 1 else f"0 to {levels - 1}"
        raise InputError(
            f"{path}: level {level} is not there; it has {levels} resolution level(s), so"
            f" {allowed} can be chosen."
        )


def number_of(wanted: int | str, names: Sequence[str], what: str, path: Path) -> int:
    """The number of a channel or of an image in a file, by its number or its name.

    Args:
      wanted: a number, or a name; a text of digits is a number unless it is a name.
      names: one a channel or image; empty texts where they have none.
      what: "channel" or "scene", for the message.
      path: the file, for the message.

    Raises:
      InputError: it is not there, or there are several of the name.
    """
    numbers = [number for number, name in enumerate(names) if name and name == wanted]
    if not numbers and (isinstance(wanted, int) or wanted.isdecimal()):
        numbers = [int(wanted)] if 0 <= int(wanted) < len(names) else []
    if len(numbers) == 1:
        return numbers[0]
    problem = "there are several of this name" if numbers else "is not there"
    raise InputError(
        f"{path}: {what} {wanted!r}: {problem}; it has {len(names)} {what}(s): {_listed(names)}."
    )


def choose_scene(scene: int | str | None, names: Sequence[str], path: Path) -> int:
    """The number of the image to use in a file that may hold several.

    Args:
      scene: its number or name; None = the only one.
      names: of all images in the file; empty texts where they have none.
      path: the file, for the messages.

    Raises:
      InputError: it is not there, none is chosen of several, or there is none.
    """
    if not names:
        raise InputError(f"{path}: holds no image.")
    if scene is not None:
        return number_of(scene, names, "scene", path)
    if len(names) == 1:
        return 0
    raise InputError(
        f"{path}: holds {len(names)} images: {_listed(names)}; choose one with --scene, by number"
        " or name, for training with --set data.scene=."
    )


def _listed(names: Sequence[str]) -> str:
    """Numbers with names, the first of them where there are many."""
    listed = [str(k) if name in ("", str(k)) else f"{k} ({name})" for k, name in enumerate(names)]
    return few(listed, most=_LISTED)


def exact_labels(values: np.ndarray, path: Path, start: Sequence[int]) -> np.ndarray:
    """Stored numbers as labels, none of them rounded.

    Args:
      values: `(*region,)` of a stored type.
      path: their file, for the message.
      start: `(D,)` the region's first voxel, for the message.

    Returns:
      `(*region,)` int64, a copy.

    Raises:
      InputError: a number is not whole, or too large to be exact: from 2^24 in 32-bit floats.
    """
    if values.dtype.kind == "f":
        limit = min(2.0 ** (np.finfo(values.dtype).nmant + 1), 2.0**63)
        with np.errstate(invalid="ignore"):
            good = (np.floor(values) == values) & (np.abs(values) < limit)
        problem = "labels are whole numbers"
    elif values.dtype.kind == "u" and values.dtype.itemsize == 8:
        good, problem = values < 2**63, "labels are below 2^63"
    else:
        return np.array(values, dtype=np.int64, order="C")
    if not good.all():
        index, place = first_wrong(good, start)
        wrong = values[index]
        if abs(wrong) < np.inf and wrong == np.floor(wrong) and values.dtype.kind == "f":
            problem = f"from {limit:.0f} on, labels are rounded in {values.dtype} numbers"
        raise InputError(f"{path}: {wrong:.10g} at {place}; {problem}. Save them anew as integers.")
    return np.array(values, dtype=np.int64, order="C")


def spatial_axes(stored: Stored, path: Path, *, remedy: str = "") -> str:
    """The spatial axes of a stored array that are left when those of length 1 are dropped.

    Args:
      stored: the array.
      path: its file, for the messages.
      remedy: names of its axes that would do, for the messages.

    Returns:
      "YX" or "ZYX", with the file's own letter (Z, Q or I) for the depth.

    Raises:
      InputError: a zero-size axis, numbers that are not real, or other axes than time, depth,
        y, x and one for the channels.
    """
    shape, axes = tuple(stored.array.shape), stored.axes
    hint = f"; give their names, for example {remedy}" if remedy else ""
    if "?" in axes or len(shape) < 2:
        raise InputError(
            f"{path}: an array of {len(shape)} axes ({' x '.join(map(str, shape))}) that does not"
            f" say which they are; 2 (y, x) or 3 (z, y, x) are known without their names{hint}."
        )
    if not all(shape):
        raise InputError(f"{path}: holds no pixels (shape {shape}).")
    dtype = np.dtype(stored.array.dtype)
    if dtype.kind not in "buif":
        raise InputError(f"{path}: pixels of type {dtype}; real numbers are needed.")
    if len(axes) != len(shape):
        sizes = " x ".join(map(str, shape))
        raise InputError(
            f"{path}: {len(shape)} axes ({sizes}) of which {len(axes)} are named ({axes}){hint}."
        )
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"]
    letters = "".join(axis for axis, _ in kept if axis != "T")
    depth = [axis for axis in letters if axis in "ZQI"]  # tifffile calls plain pages Q or I
    channel = [axis for axis in letters if axis in "CS"]
    once = len(depth) <= 1 and len(channel) <= 1 and len(set(axes)) == len(axes)
    if not once or sorted([*depth, "Y", "X", *channel]) != sorted(letters):
        found = ", ".join(f"{axis} of {size}" for axis, size in kept)
        raise InputError(
            f"{path}: axes {found}; y, x and at most z, time and one for channels allowed{hint}."
        )
    return "".join(depth) + "YX"


def without_alpha(pixels: np.ndarray, path: Path, axes: str) -> np.ndarray:
    """Channels without the last one, which is an opacity.

    Args:
      pixels: `(*spatial, channels)` of the stored type.
      path: of the file, for errors.
      axes: of the file, for errors.

    Raises:
      InputError: some pixels are partly transparent.
    """
    opaque = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    transparent = int(np.count_nonzero(pixels[..., -1] != opaque))
    if transparent:
        raise InputError(
            f"{path}: {transparent} pixels are partly transparent; save it without an alpha"
            f" channel, or give --axes {axes.replace('S', 'C')} if it is a channel like the others."
        )
    return pixels[..., :-1]
