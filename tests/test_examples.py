"""The examples in the docstrings of what is public: each runs, and prints what it says."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import jax
import pytest

import cellcount_jax

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
# What a class has that is a task of its own.
METHODS = ("Cells.to_pandas", "TrainedModel.count", "TrainedModel.predict")
NAMES = (*cellcount_jax.__all__, *METHODS)


def examples(name: str) -> list[doctest.Example]:
    found: Any = cellcount_jax
    for part in name.split("."):
        found = getattr(found, part)
    return doctest.DocTestParser().get_examples(inspect.getdoc(found) or "")


@pytest.fixture
def as_a_user_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_compiling: None
) -> Iterator[None]:
    """An empty folder, and JAX as it comes; conftest.py makes it stricter than that."""
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("as_a_user_has_it")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_prints_what_it_says(name: str) -> None:
    if name.endswith("to_pandas") and importlib.util.find_spec("pandas") is None:
        pytest.skip("pandas is not installed (the extra `pandas`)")
    test = doctest.DocTest(examples(name), {}, name, None, None, None)
    printed: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert tried and not failed, "".join(printed)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_an_example_that_shows_a_result(name: str) -> None:
    found = examples(name)
    assert found, f"{name}: has no example; add a section `Examples:` to its docstring"
    assert found[-1].want, f"{name}: the last line of its example shows nothing"


def test_the_page_has_every_public_name_once() -> None:
    assert sorted(re.findall(r"^::: cellcount_jax\.(\w+)$", PAGE.read_text(), re.M)) == [
        *cellcount_jax.__all__
    ]


@pytest.mark.usefixtures("as_a_user_has_it")
def test_the_examples_of_the_page_print_what_it_says() -> None:
    known: dict[str, Any] = {}
    blocks = re.findall(r"^```(python|text)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert printed == text
            continue
        with redirect_stdout(io.StringIO()) as out:
            exec(compile(text, PAGE.name, "exec"), known)
        printed = out.getvalue()
    assert len(blocks) > 8
