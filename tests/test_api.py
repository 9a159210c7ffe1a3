"""The rules of the house as tests: argument order, keyword-only options, docstrings, imports."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

import cellcount_jax

PACKAGE = Path(cellcount_jax.__file__).parent

# The rooms of the house from the ground up: a module imports from its own room and those below.
ROOMS = (
    "errors",
    "interrupts",
    "machine",
    "cache",
    "progress",
    "config",
    "overrides",
    "validation",
    "variants",
    "images",
    "data",
    "maps",
    "network",
    "report",
    "inference",
    "evaluation",
    "counting",
    "training",
    "label",
    "plugin",
    "completion",
    "cli",
    "main",
    "__main__",
)
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
)
# Not imported here: they need napari, which may be missing, and whose packages warn.
WINDOW = [
    name
    for name in MODULES
    if (name.startswith("label.window.") and name[13:] != "window")
    or name in ("plugin.cell_layers", "plugin.count_form", "plugin.count_panel")
]
IMPORTABLE = [name for name in MODULES if name not in WINDOW]
PURE = [
    *(name for name in MODULES if name.split(".")[0] in ("maps", "network")),
    *("data.scene", "evaluation.assignment", "evaluation.metrics"),
    *("inference.plan", "inference.tiles", "report.charts", "report.places"),
    *(f"training.{name}" for name in ("augment", "batches", "losses", "parallel", "stack", "step")),
]
# flax's order, as in its examples: state, batch, key.
KEY_COMES_LATER = {"training.step.train_step", "training.step.draw_and_step"}
# What the project's issues and documents promise.
PROMISED = (
    *("SAUNet", "Encoder", "Decoder", "SelfAttention"),
    *("distance_transform", "inverse_distance_map", "gaussian_density_map"),
    *("density_loss", "focal_weight", "focal_consistency_loss", "ramp_up"),
    *("create_train_state", "train_step", "train_and_evaluate"),
    *("find_peaks", "find_components", "match_points", "f1_score", "mean_absolute_error"),
    *("predict", "count"),
)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"cellcount_jax.{name}")


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports, or names of theirs."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: line {node.lineno}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    inner = {full.removeprefix("cellcount_jax.") for full in found if "cellcount_jax." in full}
    return {full if full in MODULES else full.rpartition(".")[0] for full in inner}


def public(name: str, kind: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """What a module defines itself, and not with a leading underscore."""
    module = load(name)
    for member, value in vars(module).items():
        if not member.startswith("_") and kind(value) and value.__module__ == module.__name__:
            yield f"{name}.{member}", value


def functions(name: str) -> list[tuple[str, Callable[..., Any]]]:
    """Public functions, and the public methods that the classes of a module define."""
    found = list(public(name, inspect.isfunction))
    for owner, cls in public(name, inspect.isclass):
        for member, value in vars(cls).items():
            called = member == "__call__" or not member.startswith("_")
            if called and inspect.isfunction(value) and value.__module__ == cls.__module__:
                found.append((f"{owner}.{member}", value))
    return found


def random_keys(signature: inspect.Signature) -> list[int]:
    """Positions of random keys; a `key: str` is the name of a setting."""
    return [
        position
        for position, parameter in enumerate(signature.parameters.values())
        if parameter.name in ("key", "keys") and parameter.annotation != "str"
    ]


def test_every_room_has_its_place() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_room_and_those_below_it(name: str) -> None:
    room = ROOMS.index(name.split(".")[0])
    for other in imports(name):
        assert ROOMS.index(other.split(".")[0]) <= room, f"{name} imports {other}, of a room above"


def test_no_imports_go_in_a_circle() -> None:
    graphlib.TopologicalSorter({name: imports(name) for name in MODULES}).prepare()


def test_the_picture_of_the_rooms_is_that_of_the_source() -> None:
    rooms = runpy.run_path(str(PACKAGE.parent / "docs" / "rooms.py"))
    picture = (PACKAGE.parent / "docs" / "rooms.svg").read_text()
    assert picture == rooms["drawing"](rooms["imports"]()), "run: python docs/rooms.py"


@pytest.mark.parametrize("name", PURE)
def test_random_keys_come_first(name: str) -> None:
    for label, function in functions(name):
        positions = random_keys(inspect.signature(function))
        if positions and label not in KEY_COMES_LATER:
            parameters = list(inspect.signature(function).parameters.values())
            option = parameters[positions[0]].kind is inspect.Parameter.KEYWORD_ONLY
            assert positions == [0] or option, f"{label}: the random key comes first"


def test_the_step_keeps_the_order_of_flax() -> None:
    names = list(inspect.signature(load("training.step").train_step).parameters)
    assert names[:3] == ["state", "batch", "key"]


@pytest.mark.parametrize("name", PURE)
def test_what_has_a_default_is_keyword_only(name: str) -> None:
    for label, function in functions(name):
        for parameter in inspect.signature(function).parameters.values():
            if parameter.default is not inspect.Parameter.empty:
                assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, (
                    f"{label}: {parameter.name} has a default and can be given by position"
                )


@pytest.mark.parametrize("name", WINDOW)
def test_what_is_public_in_the_window_is_documented(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text())
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            inner = any(node in ast.walk(f) and node is not f for f in functions_of(tree))
            assert inner or ast.get_docstring(node), f"{name}.{node.name}: has no docstring"


def functions_of(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("name", IMPORTABLE)
def test_what_is_public_is_documented(name: str) -> None:
    assert load(name).__doc__
    for label, value in [*public(name, inspect.isfunction), *public(name, inspect.isclass)]:
        documentation = value.__doc__
        assert documentation and documentation.strip(), f"{label}: has no docstring"
        # What a dataclass or NamedTuple without a docstring gets by itself.
        assert not documentation.startswith(f"{value.__name__}("), f"{label}: has no docstring"


@pytest.mark.parametrize("name", PURE)
def test_what_is_public_is_annotated(name: str) -> None:
    for label, function in functions(name):
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, label
        for parameter in signature.parameters.values():
            if parameter.name != "self":
                assert parameter.annotation is not inspect.Parameter.empty, label


def test_the_public_names_are_listed_sorted_and_importable() -> None:
    listed = cellcount_jax.__all__
    assert listed == sorted(set(listed)) == dir(cellcount_jax)
    for name in listed:
        found = getattr(cellcount_jax, name)
        assert callable(found) and found.__doc__, name
        assert "\nExamples:\n" in (inspect.getdoc(found) or ""), f"{name}: has no example"


def test_other_names_are_not_public() -> None:
    with pytest.raises(AttributeError, match="find_peeks"):
        cellcount_jax.find_peeks  # type: ignore[attr-defined]  # noqa: B018


def test_what_was_promised_is_public() -> None:
    assert set(PROMISED) <= set(cellcount_jax.__all__)


def test_the_fixed_signatures() -> None:
    signatures = {
        "distance_transform": (["seeds"], {"spacing": None, "max_distance": None}),
        "inverse_distance_map": (["points", "shape"], {}),
        "find_peaks": (["map"], {}),
        "match_points": (["predicted", "true"], {"spacing": None}),
    }
    for name, (positional, options) in signatures.items():
        parameters = inspect.signature(getattr(cellcount_jax, name)).parameters
        by_position = [
            p.name for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY
        ]
        assert by_position == positional, name
        for option, default in options.items():
            assert parameters[option].default is default, f"{name}: {option}"
    assert {"threshold_abs", "min_distance"} <= set(
        inspect.signature(cellcount_jax.find_peaks).parameters
    )


def test_pmap_is_in_one_place() -> None:
    assert hasattr(jax, "pmap")
    using = [path.stem for path in PACKAGE.rglob("*.py") if "jax.pmap" in path.read_text()]
    assert using == ["parallel"]
