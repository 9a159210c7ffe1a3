"""Impossible settings become errors that name the key, the value and what is allowed."""

from __future__ import annotations

import math
from typing import Any

import jax
import ml_collections

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks a config as far as that is possible without its data.

    Args:
      config: as from `default_config`, with overrides.

    Raises:
      InputError: names the key, its value and what is allowed.
    """
    _choices(config)
    _numbers(config)
    _selection(config)
    _lengths(config)
    _multiples(config)


def _fail(key: str, value: Any, allowed: str) -> None:
    raise InputError(f"config.{key} = {value!r}: {allowed}")


def _choices(config: ml_collections.ConfigDict) -> None:
    for key, value, allowed in (
        ("data.kind", config.data.kind, settings.KINDS),
        ("data.ndim", config.data.ndim, (2, 3)),
        ("data.normalisation", config.data.normalisation, settings.NORMALISATIONS),
        ("target.kernel", config.target.kernel, settings.KERNELS),
        ("model.norm", config.model.norm, settings.NORMS),
        ("model.attention", config.model.attention, settings.ATTENTIONS),
        ("model.dtype", config.model.dtype, settings.DTYPES),
        ("consistency.perturbation", config.consistency.perturbation, settings.PERTURBATIONS),
        ("optim.schedule", config.optim.schedule, settings.SCHEDULES),
        ("detect.rule", config.detect.rule, settings.RULES),
    ):
        if value not in allowed:
            _fail(key, value, "must be one of " + ", ".join(map(str, allowed)))
    if config.target.count_head and config.target.kernel != "inverse_distance":
        _fail("target.count_head", True, "needs target.kernel = 'inverse_distance'")
    if 0 < config.detect.split_from <= 1:
        _fail("detect.split_from", config.detect.split_from, "must be 0, or above 1, a lone cell")
    if config.model.dtype == "float64" and not jax.config.read("jax_enable_x64"):
        _fail("model.dtype", "float64", "needs the environment variable JAX_ENABLE_X64=1")
    for key in ("train_names", "unlabelled_names"):
        if not all(isinstance(name, str) for name in config.data[key]):
            _fail(
                f"data.{key}", config.data[key], """must hold names in quotes, e.g. "('969',)\""""
            )
    if config.data.kind == "synthetic" and config.data.dir:
        _fail(
            "data.dir", config.data.dir, "data.kind = 'synthetic' reads no folder; choose another"
        )


def _selection(config: ml_collections.ConfigDict) -> None:
    for key, default in (("channel", ""), ("time", -1), ("level", 0)):
        if config.data[key] != default and config.data.kind not in ("folder", "volumes"):
            _fail(f"data.{key}", config.data[key], "is for data.kind = 'folder' and 'volumes'")


def _numbers(config: ml_collections.ConfigDict) -> None:
    """Ranges: key, lowest, highest; a tuple is checked element by element."""
    inf = math.inf
    tiny = 1e-12
    below_one = 1 - tiny
    for key, low, high in (
        ("seed", 0, 2**31 - 1),
        ("data.num_labelled", -1, inf),
        ("data.num_unlabelled", -1, inf),
        ("data.split_seed", 0, 2**32 - 1),
        ("data.test_fraction", 0, 0.9),
        ("data.time", -1, inf),
        ("data.level", 0, inf),
        ("data.spacing", tiny, inf),
        ("data.diameter", 0, inf),
        ("data.background", tiny, inf),
        ("target.scale", tiny, inf),
        ("target.gamma", 0, inf),
        ("target.c", tiny, inf),
        ("target.unit", 0, inf),
        ("target.max_distance", tiny, inf),
        ("target.dot_weight", 0, inf),
        ("target.sigma", tiny, inf),
        ("target.count_sigma", tiny, inf),
        ("target.count_weight", 0, inf),
        ("model.features", 1, inf),
        ("model.levels", 2, 8),
        ("model.norm_momentum", 0, below_one),
        ("model.norm_freeze", 0, 1),
        ("model.dropout", 0, below_one),
        ("model.head_bias", -inf, inf),
        ("consistency.weight", 0, inf),
        ("consistency.strength", 0, inf),
        ("consistency.focal_sigma", tiny, inf),
        ("consistency.focal_radius", 0, inf),
        ("consistency.focal_floor", 0, inf),
        ("consistency.ramp_up", 0, 1),
        ("augment.gain", 0, inf),
        ("augment.offset", 0, inf),
        ("augment.noise", 0, inf),
        ("optim.learning_rate", tiny, inf),
        ("optim.first_cycle", 1, inf),
        ("optim.weight_decay", 0, inf),
        ("train.steps", 1, inf),
        ("train.crop", 1, inf),
        ("train.cut_margin", 0, inf),
        ("train.batch_labelled", 1, inf),
        ("train.batch_unlabelled", 0, inf),
        ("train.scan_length", 1, inf),
        ("train.checkpoint_every", 1, inf),
        ("train.evaluate_every", 0, inf),
        ("train.keep_checkpoints", 1, inf),
        ("detect.min_distance", 0, inf),
        ("detect.threshold", 0, 1),
        ("detect.split_from", 0, inf),
        ("evaluation.max_distance", tiny, inf),
        ("evaluation.overlays", 0, inf),
        ("predict.max_voxels", 1, inf),
    ):
        section, _, name = key.rpartition(".")
        value = (config[section] if section else config)[name]
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                _fail(key, value, "must hold numbers only")
            if not math.isfinite(number):
                _fail(key, value, "must be finite")
            if not low <= number <= high:
                lowest = "above 0" if low == tiny else f"at least {low}"
                highest = {inf: "", below_one: " and below 1"}.get(high, f" and at most {high}")
                _fail(key, value, f"must be {lowest}{highest}")


def _lengths(config: ml_collections.ConfigDict) -> None:
    ndim = config.data.ndim
    for key, value in (
        ("train.crop", config.train.crop),
        ("detect.min_distance", config.detect.min_distance),
        ("data.spacing", config.data.spacing or (1.0,) * ndim),
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
        and all(isinstance(n, int) and n > 0 for s in config.model.strides for n in s)
    ):
        _fail(
            "model.strides",
            config.model.strides,
            f"needs model.levels - 1 = {entries} entries of {ndim} whole numbers above 0 each",
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
