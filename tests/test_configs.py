"""Every file of configs/: it loads, is valid, says what it is, and its network can be built."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from cellcount_jax import config as settings
from cellcount_jax import validation, variants
from cellcount_jax.errors import InputError
from cellcount_jax.training.step import create_train_state, learning_rate_schedule

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
ALL = ("", *variants.VARIANTS)
BUNDLED = ("microglia3d", "nuclei2d", "nuclei3d", "nuclei_he")
VARIANTS = {
    "smoke": ("",),
    "folder": (*ALL, "3d"),
    "vgg": (*ALL, "demo"),
    **dict.fromkeys(BUNDLED, ("",)),
}
PARTS = [(path, v) for path in FILES for v in VARIANTS.get(path.stem, ALL)]
NAMES = [f"{path.stem}:{variant}" for path, variant in PARTS]


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(path: Path, variant: str) -> ml_collections.ConfigDict:
    config: ml_collections.ConfigDict = module_of(path).get_config(variant)
    return config


def test_the_files_of_the_project_are_there() -> None:
    assert [path.stem for path in FILES] == [
        "folder",
        "lightsheet_cfos",
        "lightsheet_microglia",
        "mbm",
        *BUNDLED,
        "smoke",
        "vgg",
    ]


@pytest.mark.parametrize(("path", "variant"), PARTS, ids=NAMES)
def test_a_config_is_valid_and_named_after_its_file(path: Path, variant: str) -> None:
    config = load(path, variant)
    validation.validate(config)
    assert config.name == path.stem + (f"_{variant}" if variant else "")
    # It changes settings and adds none, so that a misspelt one cannot go unseen.
    known = settings.flatten(settings.default_config().to_dict())
    assert settings.flatten(config.to_dict()).keys() == known.keys()
    assert settings.from_json(settings.to_json(config), path) == config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_unknown_variant_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(InputError, match=rf"--config={path.stem}\.py:papre: no such variant"):
        load(path, "papre")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_tells_its_command(path: Path) -> None:
    documentation = ast.get_docstring(ast.parse(path.read_text()))
    assert documentation is not None
    command = f"python -m cellcount_jax.main --config=configs/{path.name}"
    if path.stem in BUNDLED:
        command = f"bash launch/models.sh {path.stem}"
        assert (path.parents[1] / "docs" / "models" / f"{path.stem}.md").exists()
    assert command in documentation
    assert inspect.getdoc(module_of(path).get_config)


@pytest.mark.parametrize("path", [p for p, v in PARTS if v == "paper"], ids=lambda p: p.stem)
def test_the_papers_recipe(path: Path) -> None:
    config = load(path, "paper")
    volumes = config.data.ndim == 3
    assert config.train.steps == 12_750
    assert config.model.features == 32 and config.model.levels == 4
    # The microglia volumes are 100 voxels wide.
    widest = 96 if path.stem == "lightsheet_microglia" else 200
    assert config.train.crop == ((56, widest, widest) if volumes else (224, 224))
    batches = (config.train.batch_labelled, config.train.batch_unlabelled)
    assert batches == ((1, 4) if volumes else (8, 80))


@pytest.mark.parametrize(("path", "variant"), PARTS, ids=NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_its_network_builds(path: Path, variant: str, channels: int) -> None:
    config = load(path, variant)

    def build() -> jax.Array:
        state = create_train_state(jax.random.key(0), config, channels=channels)
        image = jnp.zeros((2, *config.train.crop, channels))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        result: jax.Array = state.apply_fn(variables, image)
        return result

    built = jax.eval_shape(build)
    assert built.shape == (2, *config.train.crop, 1 + config.target.count_head)
    assert built.dtype == jnp.float32


@pytest.mark.parametrize(("path", "variant"), PARTS, ids=NAMES)
def test_its_learning_rate_starts_as_set_and_stays_finite(path: Path, variant: str) -> None:
    config = load(path, variant)
    schedule = learning_rate_schedule(config)
    rates = [float(schedule(step)) for step in (0, config.train.steps - 1)]
    assert all(math.isfinite(rate) and rate >= 0 for rate in rates)
    assert rates[0] == pytest.approx(config.optim.learning_rate)
