"""Settings as text take the type of their default; wrong ones are named."""

from __future__ import annotations

import pytest

from cellcount_jax import variants
from cellcount_jax.errors import InputError
from cellcount_jax.overrides import check_key, override


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.steps=20", "train.steps", 20),
        ("config.train.crop=16,32", "train.crop", (16, 32)),
        ("optim.learning_rate=1", "optim.learning_rate", 1.0),
        ("augment.flips=False", "augment.flips", False),
        ("detect.rule=fidt", "detect.rule", "fidt"),
        ("data.train_names='a',", "data.train_names", ("a",)),
    ],
)
def test_a_setting_as_text(text: str, key: str, value: object) -> None:
    config = variants.folder_config()
    assert override(config, text) == key
    section, name = key.split(".")
    assert config[section][name] == value and type(config[section][name]) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.steps", "--set train.steps: must be KEY=VALUE"),
        ("train.crop=(8,", "--set train.crop=.*must be of the type tuple"),
        ("train.steps=2.5", "--set train.steps=2.5: the value must be of the type int, now 500"),
        ("augment.flips=1", "--set augment.flips=1: the value must be of the type bool"),
    ],
)
def test_a_text_that_is_no_value(text: str, words: str) -> None:
    config = variants.folder_config()
    before = config.to_dict()
    with pytest.raises(InputError, match=words):
        override(config, text)
    assert config.to_dict() == before


def test_a_name_that_is_no_setting() -> None:
    check_key("train.steps")
    with pytest.raises(InputError, match=r"did you mean config\.train\.steps\? There are train\."):
        check_key("train.step")
