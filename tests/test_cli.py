"""Whatever ends the command is one line, and says what to do."""

from __future__ import annotations

import errno
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cellcount_jax import cli
from cellcount_jax.errors import InputError, at_hand, fail, in_words
from cellcount_jax.inference import model_file

Capture = pytest.CaptureFixture[str]
COMMAND = ("export", "runs/mine", "mine.zip")


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Has the command end with an error."""

    def ends(error: BaseException) -> None:
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(model_file, "model_path", load)

    return ends


@pytest.mark.parametrize("place", ["before the command", "behind it", "nowhere"])
def test_an_error_that_nobody_foresaw(
    raising: Callable[[BaseException], None], capsys: Capture, place: str
) -> None:
    raising(KeyError("a\nkey"))
    debug = ["--debug"]
    given = {"before the command": [*debug, *COMMAND], "behind it": [*COMMAND, *debug]}
    assert cli.main(given.get(place, COMMAND)) == 3
    *earlier, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: runs/mine: an error that is none of yours (KeyError: 'a\\")
    assert "please report it" in line
    for package in ("cellcount_jax", "jax", "tifffile", "zarr"):
        assert f"{package} {importlib.metadata.version(package)}" in line
    assert (earlier[:1] == ["Traceback (most recent call last):"]) == (place != "nowhere")
    assert bool(earlier) == (place != "nowhere")


def test_the_file_that_was_worked_on_is_named(capsys: Capture) -> None:
    with pytest.raises(ZeroDivisionError) as caught, at_hand(Path("b.tif")):
        raise ZeroDivisionError("x" * 10_000)
    assert fail(caught.value, otherwise="a.tif") == 3
    line = capsys.readouterr().err
    assert line.startswith("error: b.tif: ") and len(line) < 1000 and line.count("\n") == 1
    with pytest.raises(InputError, match=r"^plain$"), at_hand(Path("b.tif")):
        raise InputError("plain")


def test_stopped_by_hand(raising: Callable[[BaseException], None], capsys: Capture) -> None:
    raising(KeyboardInterrupt())
    assert cli.main(COMMAND) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_errors_of_the_system_are_in_words(
    raising: Callable[[BaseException], None], capsys: Capture, number: int
) -> None:
    raising(OSError(number, os.strerror(number), "some file"))
    assert cli.main(COMMAND) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: some file: ") and "Errno" not in text and str(number) not in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("one\nline"), r"one\nline"),
        (MemoryError(), "the memory is too small"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "the device ran out of memory"),
    ],
)
def test_other_errors_of_the_machine(error: Exception, words: str, capsys: Capture) -> None:
    assert words in in_words(error)
    assert fail(error) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["count", "score", "label", "train", "calibrate", "export", "models", "doctor"]
)
def test_every_command_has_its_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert f"\n    {name}" in capsys.readouterr().out
    # Not taken for a command where it is an argument.
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--debug", name, "train", "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cellcount {name} ") and f"\n  cellcount {name}" in text


@pytest.mark.parametrize("words", [["conut", "count"], ["--debug"], []])
def test_without_a_command_the_commands_are_named(words: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert "COMMAND" in capsys.readouterr().err
