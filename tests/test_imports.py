"""What is imported at a start, which is most of the time that a short command takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

OWN = {"cellcount_jax", "lazy_loader"}
HELP = "from cellcount_jax import cli; sys.argv = ['cellcount', '--help']; sys.exit(cli.main())"
TRAINING = (
    *("cellcount_jax.data", "cellcount_jax.evaluation", "cellcount_jax.label"),
    *("cellcount_jax.training", "dask", "distributed", "flax.training", "matplotlib", "napari"),
    *("optax", "orbax", "pandas", "qtpy", "scipy.optimize", "skimage", "tensorboardX", "torch"),
)


def imported(statements: str) -> set[str]:
    """The modules that statements import in a new Python, without those that it begins with."""
    script = (
        "import atexit, sys\n"
        "before = set(sys.modules)\n"
        "atexit.register(lambda: print(*sys.modules.keys() - before, file=sys.stderr))\n"
    )
    command = [sys.executable, "-c", script + statements]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("statements", ["import cellcount_jax", HELP])
def test_the_package_and_the_list_of_commands_need_python_alone(statements: str) -> None:
    packages = {name.partition(".")[0] for name in imported(statements)}
    assert packages - sys.stdlib_module_names == OWN


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("counting.command", TRAINING),
        # What napari's menu opens.
        ("plugin.menu", ("jax", "napari", "qtpy", "cellcount_jax.inference")),
        ("label.window.window", ("jax", "flax", "orbax", "optax", "cellcount_jax.training")),
    ],
)
def test_a_command_imports_only_what_it_needs(module: str, absent: tuple[str, ...]) -> None:
    found = imported(f"import cellcount_jax.{module}")
    assert f"cellcount_jax.{module}" in found
    assert not {name for name in found if f"{name}.".startswith(tuple(f"{a}." for a in absent))}
