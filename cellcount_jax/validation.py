"""Impossible settings become errors that name the key, the value and what is allowed."""

from __future__ import annotations

import math
from typing import Any

import jax
import ml_collections

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError

_MAX_STRIDE = 64


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks a config as far as that is possible without its data.

    Args:
      config: as from `default_config`, with overrides.

    Raises:
      InputError: names the key, its value and what is allowed.
    """
    _ranges(config)
    _pairs(config)
    _lengths(config)
    _multiples(config)


def _fail(key: str, value: Any, allowed: str) -> None:
    raise InputError(f"config.{key} = {value!r}: {allowed}")


def _ranges(config: ml_collections.ConfigDict) -> None:
    """Choices and limits of single settings, as `config.SETTINGS` has them."""
    for section, entries in settings.SETTINGS.items():
        for name, entry in entries.items():
            if isinstance(entry, settings.Setting):
                key = f"{section}.{name}" if section else name
                _check(key, (config[section] if section else config)[name], entry)


def _check(key: str, value: Any, setting: settings.Setting) -> None:
    if setting.choices and value not in setting.choices:
        _fail(key, value, "must be one of " + ", ".join(map(str, setting.choices)))
    if not setting.numeric:
        return
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            _fail(key, value, "must hold numbers only")
        if not math.isfinite(number):
            _fail(key, value, "must be finite")
        limits = {
            f"above {setting.above}": number > setting.above,
            f"at least {setting.at_least}": number >= setting.at_least,
            f"below {setting.below}": number < setting.below,
            f"at most {setting.at_most}": number <= setting.at_most,
        }
        if not all(limits.values()):
            _fail(key, value, "must be " + " and ".join(t for t in limits if "inf" not in t))


def _pairs(config: ml_collections.ConfigDict) -> None:
    """Settings that allow or need a value of another one, or of the environment."""
    if config.target.count_head and config.target.kernel != "inverse_distance":
        _fail("target.count_head", True, "needs target.kernel = 'inverse_distance'")
    if config.consistency.target == "dots" and config.target.kernel == "mask":
        _fail("consistency.target", "dots", "needs another target.kernel than 'mask'")
    if 0 < config.detect.split_from <= 1:
        _fail("detect.split_from", config.detect.split_from, "must be 0, or above 1, a lone cell")
    if config.model.dtype == "float64" and not jax.config.read("jax_enable_x64"):
        _fail("model.dtype", "float64", "needs the environment variable JAX_ENABLE_X64=1")
    if config.data.normalisation == "levels" and config.data.ndim != 2:
        _fail("data.normalisation", "levels", "is for images, data.ndim = 2")
    measured = config.data.normalisation == "levels" and config.data.diameter > 0
    if config.predict.estimate_diameter and not measured:
        _fail(
            "predict.estimate_diameter",
            True,
            "needs data.normalisation = 'levels' and data.diameter above 0",
        )
    for key in ("scene", "channel", "time", "level", "axes", "points_unit"):
        value, default = config.data[key], settings.default_config().data[key]
        if value != default and config.data.kind not in ("folder", "volumes"):
            _fail(f"data.{key}", value, "is for data.kind = 'folder' and 'volumes'")
    if config.data.from_diameter and not (config.data.diameter and config.data.ndim == 2):
        allowed = "is for images (data.ndim = 2), with the data.diameter to resample to"
        _fail("data.from_diameter", config.data.from_diameter, allowed)
    if -1 < config.data.from_diameter < 0:
        _fail("data.from_diameter", config.data.from_diameter, "must be -1, 0 or above 0")
    if config.data.from_diameter and config.data.to_spacing:
        allowed = f"data.to_spacing = {config.data.to_spacing} resamples too; give one of them"
        _fail("data.from_diameter", config.data.from_diameter, allowed)
    for key in ("train_names", "unlabelled_names"):
        if not all(isinstance(name, str) for name in config.data[key]):
            _fail(
                f"data.{key}", config.data[key], """must hold names in quotes, e.g. "('969',)\""""
            )
    if config.data.kind == "synthetic" and config.data.dir:
        _fail(
            "data.dir", config.data.dir, "data.kind = 'synthetic' reads no folder; choose another"
        )


def _lengths(config: ml_collections.ConfigDict) -> None:
    ndim = config.data.ndim
    for key, value in (
        ("train.crop", config.train.crop),
        ("detect.min_distance", config.detect.min_distance),
        ("data.spacing", config.data.spacing or (1.0,) * ndim),
        ("data.to_spacing", config.data.to_spacing or (1.0,) * ndim),
    ):
        if len(value) != ndim:
            example = "'(" + ",".join(["32"] * ndim) + ")'"
            _fail(
                key,
                value,
                f"needs {ndim} numbers, one an axis, because data.ndim is {ndim}; e.g. {example}",
            )
    for key, value in (
        ("train.crop", config.train.crop),
        ("detect.min_distance", config.detect.min_distance),
    ):
        if not all(isinstance(number, int) for number in value):
            _fail(key, value, "needs whole numbers of voxels")
    if not any(config.detect.min_distance):
        _fail("detect.min_distance", config.detect.min_distance, "must not be 0 on all axes")
    if len(config.target.gamma) != 2 or config.target.gamma[1] == 0:
        _fail("target.gamma", config.target.gamma, "needs 2 numbers, slope and constant (above 0)")
    entries = config.model.levels - 1
    if config.model.strides and not (
        len(config.model.strides) == entries
        and all(isinstance(s, (tuple, list)) and len(s) == ndim for s in config.model.strides)
        and all(type(n) is int and 0 < n <= _MAX_STRIDE for s in config.model.strides for n in s)
    ):
        _fail(
            "model.strides",
            config.model.strides,
            f"needs model.levels - 1 = {entries} entries of {ndim} whole numbers from 1 to"
            f" {_MAX_STRIDE} each",
        )
    for axis, (size, stride) in enumerate(
        zip(config.train.crop, settings.total_stride(config), strict=True)
    ):
        if size % stride:
            _fail(
                "train.crop",
                config.train.crop,
                f"axis {axis} must be a multiple of {stride}, the model's total stride",
            )


def _multiples(config: ml_collections.ConfigDict) -> None:
    length = config.train.scan_length
    for key in ("steps", "checkpoint_every", "evaluate_every"):
        if config.train[key] % length:
            _fail(
                f"train.{key}",
                config.train[key],
                f"must be a multiple of train.scan_length = {length}",
            )
