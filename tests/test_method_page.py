"""docs/method.md: the settings, values and pictures that it names are those of the package."""

from __future__ import annotations

import re
from pathlib import Path

import jax.numpy as jnp

from cellcount_jax import config
from cellcount_jax.maps.targets import inverse_distance

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "method.md").read_text(encoding="utf-8")


def test_the_settings_exist_and_have_the_values_of_the_page() -> None:
    sections = "|".join(filter(None, config.SETTINGS))
    named = re.findall(rf"`((?:{sections})\.\w+)`", PAGE)
    default = config.flatten(config.to_json(config.default_config()))
    assert len(named) > 8 and set(named) <= default.keys()
    values = [default[name] for name in ("target.c", "target.dot_weight", "model.features")]
    assert values == [1.0, 4.0, 16] and default["target.gamma"] == [0.02, 0.75]
    assert default["consistency.ramp_up"] == 0.3 and default["consistency.focal_floor"] == 0.1
    assert default["optim.learning_rate"] == 0.003 and default["train.crop"] == [128, 128]
    assert round(float(inverse_distance(jnp.array(default["target.max_distance"]))), 3) == 0.008


def test_the_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"\]\((pictures/[^)]+)\)", PAGE)
    assert len(pictures) == 5
    assert all((DOCS / picture).stat().st_size < 150_000 for picture in pictures)
