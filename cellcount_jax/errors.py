"""The one error for what a user gave that cannot be used, and all other errors in words."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import platform
import sys
import unicodedata
from collections.abc import Iterator, Sequence

# Line breaks, what a terminal takes for a command, and halves of characters.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
# Exit statuses; 2 is argparse's, for arguments that there are not.
FAILED, UNEXPECTED = 1, 3
_FULL = "RESOURCE_EXHAUSTED"  # JAX's word for a device without memory
_MAX_CHARACTERS = 300  # of an error that nobody foresaw
_REPORTED = ("cellcount_jax", "jax", "tifffile", "zarr")  # packages whose versions matter then
_WORDS = {
    errno.EACCES: "no permission to read or write it",
    errno.EPERM: "no permission to read or write it",
    errno.EROFS: "lies on a file system that can only be read",
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the quota of disk space is used up",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "is there already, and is a file where a folder is needed or the other way round",
    errno.ENOTDIR: "a file lies where a folder is needed",
    errno.EISDIR: "is a folder, a file is needed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "is a link that leads in a circle",
    errno.EIO: "the disk cannot be read or written, it may be failing",
    errno.EPIPE: "whoever read what is written there is gone, as in `cellcount ... | head`",
    errno.EMFILE: "too many files are open at once",
}


class InputError(ValueError):
    """A file, a value or a setting that cannot be used as given.

    The message is one or two plain sentences: it names the file or the key, the
    value found, and what would be right. Commands print it without a traceback and
    exit with status 1. It is one line, whatever a file is called: characters that
    would break it, or that a terminal would obey, are escaped.

    Examples:
      >>> from cellcount_jax import InputError, load_model
      >>> try:
      ...     load_model("nuclei4d")
      ... except InputError as error:
      ...     print(str(error).split(";")[0])
      nuclei4d: no such model
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


def in_words(error: BaseException) -> str:
    """An error as one line for the user, with the file and without the system's numbers."""
    if _FULL in str(error):
        return (
            "the device ran out of memory; a smaller --max-voxels of cellcount count, or a smaller"
            " train.crop of a training, needs less"
        )
    if isinstance(error, MemoryError):
        return _one_line(f"the memory is too small ({error}); a smaller --max-voxels needs less")
    if not isinstance(error, OSError) or error.errno is None:
        return _one_line(str(error)) or type(error).__name__
    if error.filename is None:
        return reason(error)
    return _one_line(f"{os.fsdecode(error.filename)}: {reason(error)}")


def reason(error: OSError) -> str:
    """Why the system could not do something, in words, for an error that names the file itself."""
    known = _WORDS.get(error.errno or 0) or error.strerror
    return _one_line(known or str(error)) or type(error).__name__


def few(texts: Sequence[str], *, most: int = 3) -> str:
    """Texts for a message, such as names of files, the first of them where there are many."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def how_to_install(extra: str) -> str:
    """The commands that install an extra of setup.cfg, for the error where it is missing."""
    return (
        f'pip install "cellcount_jax[{extra}]", or in a clone EXTRAS={extra} bash'
        " launch/setup_venv.sh"
    )


@contextlib.contextmanager
def at_hand(what: object) -> Iterator[None]:
    """Remembers in an error which file was worked on, for `unexpected`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, InputError | OSError):
            error.add_note(str(what))
        raise


def unexpected(error: Exception, *, otherwise: str = "") -> str:
    """An error that nobody foresaw as one line: what was worked on, and how to report it.

    Args:
      error: not an `InputError`.
      otherwise: what was worked on, where `at_hand` does not say it.
    """
    what = next(iter(getattr(error, "__notes__", ())), otherwise)
    text = _one_line(f"{type(error).__name__}: {error}".strip(": "))[:_MAX_CHARACTERS]
    versions = [f"python {platform.python_version()}"]
    for package in _REPORTED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return (
        f"{_one_line(what)}{': ' if what else ''}an error that is none of yours ({text}); please"
        f" report it with the file and these versions: {', '.join(versions)}; --debug shows more"
    )


def fail(error: Exception, *, otherwise: str = "") -> int:
    """Prints an error as one line.

    Args:
      error: that ended a command.
      otherwise: what was worked on, where the error does not say it.

    Returns:
      The exit status: 1 for what the user can mend, 3 for what nobody foresaw.
    """
    print(f"error: {one_line(error, otherwise=otherwise)}", file=sys.stderr)
    if isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError, ValueError):  # Python would try once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED if _is_expected(error) else UNEXPECTED


def one_line(error: Exception, *, otherwise: str = "") -> str:
    """An error as one line, whatever it is: `in_words` or `unexpected`."""
    if not _is_expected(error):
        return unexpected(error, otherwise=otherwise)
    named = isinstance(error, InputError) or getattr(error, "filename", None) or not otherwise
    return in_words(error) if named else f"{_one_line(otherwise)}: {in_words(error)}"


def _is_expected(error: Exception) -> bool:
    return isinstance(error, InputError | OSError | MemoryError) or _FULL in str(error)


def _one_line(text: str) -> str:
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    return character.encode("unicode_escape").decode()
