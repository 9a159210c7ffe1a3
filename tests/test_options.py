"""What every entry point says of its version and of options that there are not; completion."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable

import pytest

from cellcount_jax import cli

Capture = pytest.CaptureFixture[str]
VERSION = f"cellcount_jax {importlib.metadata.version('cellcount_jax')}\n"


@pytest.mark.parametrize("words", [["--version"], ["count", "--version"], ["models", "--version"]])
def test_the_version(words: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(words)
    assert capsys.readouterr().out == VERSION


@pytest.mark.parametrize("module", ["main", "__main__"])
def test_the_version_of_the_modules(
    run_module: Callable[..., tuple[int, str, str]], module: str
) -> None:
    assert run_module(module, "--version") == (0, VERSION, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # Before it is said what is missing.
        (["count", "a.tif", "--modle", "b"], "--modle; did you mean --model?"),
        (["count", "--treshold=0.3"], "--treshold; did you mean --threshold?"),
        (["train", "a", "-o", "b"], "-o; cellcount train --help lists all"),
        (["--model", "b", "count", "a.tif"], "--model; options of count come behind its name"),
        (["--debugg", "count"], "--debugg; did you mean --debug?"),
        (["--zzz"], "--zzz; cellcount --help lists all"),
    ],
)
def test_an_option_that_there_is_not(words: list[str], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    error = capsys.readouterr().err
    assert f"error: no such option: {message}\n" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["count", "a.tif", "--thresh", "0.3"], "--model, --output"),
        (["count", "a.tif", "--threshold=-1", "--channel", "-1"], "--model, --output"),
        (["count", "--", "--modle"], "--model, --output"),
        (["count", "-h"], ""),
        (["--debug", "models", "--modle"], "no such option: --modle"),
        (["conut", "--zzz"], "invalid choice: 'conut'"),
    ],
)
def test_what_is_left_to_argparse(words: list[str], missing: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        cli.main(words)
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_of_a_shell_has_commands_and_their_options(shell: str, capsys: Capture) -> None:
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*cli._COMMANDS, "--threshold", "--regions", "--tolerance"):
        assert word in script, word


@pytest.mark.parametrize(
    ("words", "expected"),
    [("cellcount c", "count calibrate completion"), ("cellcount count --thr", "--threshold")],
)
def test_bash_completes(words: str, expected: str, capsys: Capture) -> None:
    pytest.importorskip("shtab")
    cli.main(["completion", "bash"])
    script = capsys.readouterr().out
    number = len(words.split()) - 1
    script += (
        f"\nCOMP_WORDS=({words}); COMP_CWORD={number}\n_shtab_cellcount; echo ${{COMPREPLY[*]}}\n"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == expected.split()


def test_completion_without_its_package(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 1
    error = capsys.readouterr().err
    assert 'pip install "cellcount_jax[completion]", or in a clone EXTRAS=completion bash' in error
