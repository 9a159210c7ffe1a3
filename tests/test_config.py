"""Settings: valid defaults, errors that name the key, and derived strides."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cellcount_jax import config as settings
from cellcount_jax import validation, variants
from cellcount_jax.errors import InputError

# A value of each kind that no one of the choices has.
NO_CHOICE: dict[str, Any] = {
    "data.kind": "vggg",
    "data.ndim": 4,
    "data.normalisation": "",
    "data.points_unit": "voxel",
    "target.kernel": "distance",
    "model.norm": "layer",
    "model.attention": "Block",
    "model.dtype": "float16",
    "model.symmetry": "rotation",
    "model.counter": "decoder",
    "consistency.perturbation": "feature_noise",
    "consistency.teacher": "mean",
    "consistency.norms": "batch",
    "consistency.target": "points",
    "optim.schedule": "linear",
    "detect.rule": "peak",
}
# The values just outside the range of each number.
OUT_OF_RANGE: dict[str, tuple[Any, ...]] = {
    "seed": (-1, 2**31),
    "data.num_labelled": (-2,),
    "data.num_unlabelled": (-2,),
    "data.split_seed": (-1, 2**32),
    "data.test_fraction": (-0.1, 0.91),
    "data.calibration_share": (-0.1, 0.51),
    "data.time": (-2,),
    "data.level": (-1,),
    "data.spacing": ((0.0, 1.0), (1.0, -2.0)),
    "data.background": (0.0, -60.0, 1e30),
    "data.diameter": (-1.0, 1e30),
    "data.from_diameter": (-1.5, 1e30),
    "data.to_spacing": ((0.0, 1.0), (1.0, -2.0)),
    "target.scale": (0.0, 1e30),
    "target.gamma": ((-0.1, 0.75), (0.02, -1.0), (101.0, 0.75)),
    "target.c": (0.0, 1e30),
    "target.unit": (-1.0, 1e30),
    "target.max_distance": (0.0, 1001.0),
    "target.sigma": (0.0, -1.0, 101.0),
    "target.dot_weight": (-1.0,),
    "target.count_sigma": (0.0, 101.0),
    "target.count_weight": (-1.0,),
    "model.features": (0, 1025),
    "model.levels": (1, 9),
    "model.norm_momentum": (-0.1, 1.0),
    "model.norm_freeze": (-0.1, 1.1),
    "model.dropout": (-0.1, 1.0),
    "model.head_bias": (),
    "consistency.weight": (-1.0,),
    "consistency.strength": (-0.5,),
    "consistency.focal_sigma": (0.0,),
    "consistency.focal_radius": (-1, 101),
    "consistency.focal_floor": (-0.1,),
    "consistency.ramp_up": (-0.1, 1.1),
    "consistency.begin": (-0.1, 1.0),
    "consistency.average_decay": (-0.1, 1.0),
    "consistency.view": (-0.1, 11.0),
    "consistency.scale": (-0.1, 1.1),
    "consistency.cut_out": (-0.1, 1.1),
    "consistency.confident": (0.0, 1.0),
    "augment.gain": (-0.1,),
    "augment.offset": (-0.1,),
    "augment.noise": (-0.1,),
    "augment.scale": (-0.1, 1.1),
    "augment.gamma": (-0.1,),
    "augment.blur": (-1.0,),
    "augment.gradient": (-0.1,),
    "optim.learning_rate": (0.0, -1e-3),
    "optim.first_cycle": (0,),
    "optim.weight_decay": (-1.0,),
    "train.steps": (0, -10),
    "train.crop": ((0, 128), (128, -8), (128, 4097)),
    "train.cut_margin": (-1.0,),
    "train.batch_labelled": (0,),
    "train.batch_unlabelled": (-1,),
    "train.scan_length": (0,),
    "train.checkpoint_every": (0,),
    "train.evaluate_every": (-10,),
    "train.keep_checkpoints": (0,),
    "detect.min_distance": ((-1, 1), (1, 1001)),
    "detect.threshold": (-0.1,),
    "detect.split_from": (-1.0, 0.5, 1.0),
    "evaluation.max_distance": (0.0,),
    "evaluation.overlays": (-1,),
    "predict.max_voxels": (0,),
}
# What has no range: names, switches, and settings with tests of their own.
OTHERS = {
    "name",
    "init_from",
    "init_digest",
    "data.dir",
    "data.scene",
    "data.axes",
    "data.channel",
    "data.train_names",
    "data.unlabelled_names",
    "data.region",
    "data.held_out_region",
    "target.count_head",
    "model.remat",
    "model.strides",
    "consistency.focal",
    "consistency.teacher_flips",
    "consistency.balance",
    "augment.flips",
    "augment.transpose",
    "train.tensorboard",
    "predict.flips",
    "predict.every_tile",
    "predict.estimate_diameter",
}


def with_values(**values: Any) -> Any:
    """The defaults with `section__name` set."""
    config = settings.default_config()
    for key, value in values.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return config


def assert_refused(key: str, value: Any, allowed: str, **others: Any) -> None:
    """The message names the key, the value and what is allowed."""
    with pytest.raises(InputError) as error:
        validation.validate(with_values(**others | {key.replace(".", "__"): value}))
    message = str(error.value)
    assert message.startswith(f"config.{key} = {value!r}: ")
    assert allowed in message


def test_defaults_are_valid() -> None:
    validation.validate(settings.default_config())


def test_what_levels_need() -> None:
    refused = "is for images, data.ndim = 2"
    assert_refused("data.normalisation", "levels", refused, data__ndim=3, train__crop=(8, 8, 8))
    needed = "needs data.normalisation = 'levels' and data.diameter above 0"
    assert_refused("predict.estimate_diameter", True, needed)
    measured = {"data__normalisation": "levels", "predict__estimate_diameter": True}
    validation.validate(with_values(**measured, data__diameter=16.0))


def test_every_setting_is_tested() -> None:
    keys = settings.flatten(settings.default_config().to_dict()).keys()
    assert keys == NO_CHOICE.keys() | OUT_OF_RANGE.keys() | OTHERS


@pytest.mark.parametrize("key", NO_CHOICE)
def test_choices(key: str) -> None:
    assert_refused(key, NO_CHOICE[key], "must be one of ")


@pytest.mark.parametrize("kernel", ["gaussian", "mask"])
def test_a_count_head_needs_a_map_of_locations(kernel: str) -> None:
    needed = "needs target.kernel = 'inverse_distance'"
    assert_refused("target.count_head", True, needed, target__kernel=kernel)


def test_sure_cells_are_learned_as_dots_alone() -> None:
    needed = "needs another target.kernel than 'mask'"
    assert_refused("consistency.target", "dots", needed, target__kernel="mask")


def test_a_refused_choice_shows_the_choices() -> None:
    assert_refused("detect.rule", "fidth", "must be one of peaks, components, fidt")


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in OUT_OF_RANGE.items() for value in values]
)
def test_ranges(key: str, value: Any) -> None:
    assert_refused(key, value, "must be ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "key",
    [
        k
        for k, v in settings.flatten(settings.default_config().to_dict()).items()
        if isinstance(v, float)
    ],
)
def test_numbers_are_finite(key: str, value: float) -> None:
    assert_refused(key, value, "must be finite")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("data.test_fraction", 1.0, "must be at least 0 and at most 0.9"),
        ("optim.learning_rate", 0.0, "must be above 0"),
        ("model.dropout", 1.0, "must be at least 0 and below 1"),
        ("model.levels", 12, "must be at least 2 and at most 8"),
        ("seed", 2**31, "at most 2147483647"),
        ("train.crop", ("a", "b"), "must hold numbers only"),
        ("train.crop", (True, True), "must hold numbers only"),
        ("train.crop", (128.0, 128.0), "needs whole numbers"),
        (
            "train.crop",
            (128,),
            "needs 2 numbers, one an axis",
        ),
        ("train.crop", (128, 100), "axis 1 must be a multiple of 8"),
        ("detect.min_distance", (1, 1, 1), "needs 2 numbers"),
        ("detect.min_distance", (1.5, 1), "needs whole numbers"),
        ("detect.min_distance", (0, 0), "must not be 0 on all axes"),
        ("data.channel", "1", "is for data.kind = 'folder' and 'volumes'"),
        ("data.spacing", (1.0, 1.0, 1.0), "needs 2 numbers"),
        ("data.spacing", (math.inf, 1.0), "must be finite"),
        ("target.gamma", (0.02,), "needs 2 numbers"),
        ("target.gamma", (0.02, 0.0), "constant (above 0)"),
        ("train.steps", 105, "must be a multiple of train.scan_length = 10"),
        ("train.checkpoint_every", 15, "must be a multiple of train.scan_length = 10"),
        ("train.evaluate_every", 1, "must be a multiple of train.scan_length = 10"),
    ],
)
def test_messages(key: str, value: Any, allowed: str) -> None:
    assert_refused(key, value, allowed, model__levels=4, train__scan_length=10)


@pytest.mark.parametrize(
    "strides",
    [
        (2, 2, 2),
        ((2, 2), (2, 2)),
        ((2, 2), (2, 2), (2, 2, 2)),
        ((2, 2), (2, 2), (2, 0)),
        ((2, 2), (2, 2), (2, -2)),
        ((2, 2), (2, 2), (2, 2.0)),
        ((2, 2), (2, 2), "22"),
    ],
)
def test_strides_refused(strides: tuple[Any, ...]) -> None:
    assert_refused(
        "model.strides",
        strides,
        "needs model.levels - 1 = 3 entries of 2 whole numbers from 1 to 64",
    )


def test_three_dimensions() -> None:
    volume = with_values(
        data__ndim=3,
        data__spacing=(6.0, 1.62, 1.62),
        model__strides=((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        train__crop=(28, 64, 72),
        detect__min_distance=(0, 1, 1),
    )
    validation.validate(volume)
    assert settings.strides(volume) == ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert settings.total_stride(volume) == (4, 8, 8)
    volume.train.crop = (30, 64, 64)
    with pytest.raises(InputError, match="axis 0 must be a multiple of 4"):
        validation.validate(volume)


@pytest.mark.parametrize(("ndim", "levels", "total"), [(2, 4, (8, 8)), (3, 3, (4, 4, 4))])
def test_default_strides(ndim: int, levels: int, total: tuple[int, ...]) -> None:
    config = with_values(data__ndim=ndim, model__levels=levels)
    assert settings.strides(config) == ((2,) * ndim,) * (levels - 1)
    assert settings.total_stride(config) == total


def halve_the_rate(config: Any) -> None:
    config.optim.learning_rate /= 2


def test_variants() -> None:
    config = with_values(name="mine", optim__learning_rate=0.5)
    variants.use_variant(config, "", {"slow": halve_the_rate})
    assert (config.name, config.optim.learning_rate) == ("mine", 0.5)
    variants.use_variant(config, "slow", {"slow": halve_the_rate})
    assert (config.name, config.optim.learning_rate) == ("mine_slow", 0.25)
    known = {"slow": halve_the_rate, "paper": variants.use_paper_recipe}
    with pytest.raises(InputError, match=r"mine_slow\.py:fast: .* there are paper, slow, or none"):
        variants.use_variant(config, "fast", known)


def test_recipes_are_valid() -> None:
    for volumes, crop in ((False, (224, 224)), (True, (56, 200, 200))):
        config = settings.default_config()
        if volumes:
            variants.use_volumes(config)
            validation.validate(config)
            assert config.data.ndim == 3
        variants.use_paper_recipe(config)
        validation.validate(config)
        assert (config.train.crop, config.model.features, config.train.steps) == (crop, 32, 12_750)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data__num_labelled", -1),
        ("data__test_fraction", 0.9),
        ("model__levels", 2),
        ("model__dropout", 0.0),
        ("model__head_bias", -3.0),
        ("consistency__weight", 0.0),
        ("consistency__ramp_up", 1.0),
        ("train__batch_unlabelled", 0),
        ("target__gamma", (0.0, 2.0)),
    ],
)
def test_the_ends_of_ranges_are_valid(key: str, value: Any) -> None:
    validation.validate(with_values(**{key: value}))


def test_json_round_trip() -> None:
    config = with_values(
        name="mine",
        data__train_names=("969", "1874"),
        model__strides=((1, 2), (2, 2), (2, 2)),
        train__crop=(64, 32),
    )
    stored = json.loads(json.dumps(settings.to_json(config)))
    assert settings.from_json(stored, Path("run/config.json")).to_dict() == config.to_dict()


def test_settings_of_a_later_version_are_refused() -> None:
    stored = settings.to_json(settings.default_config())
    stored["train"]["croop"] = [128, 128]
    with pytest.raises(InputError, match=r"run/config\.json: .* train\.croop$"):
        settings.from_json(stored, Path("run/config.json"))
