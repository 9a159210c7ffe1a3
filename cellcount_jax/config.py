"""Every setting once, with its unit, its default and where the default comes from.

A file in `configs/` starts from `default_config()` and sets what differs. A comment in
brackets names the source: [eq. 2], [paper], [authors] (their TensorFlow code) or [ours].
`validation.validate` turns an impossible value into an error that names the key.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from cellcount_jax.errors import InputError

KINDS = ("vgg", "mbm", "volumes", "folder", "synthetic")
NORMALISATIONS = ("dataset", "standardise", "robust_log", "signal_to_noise", "contrast")
KERNELS = ("inverse_distance", "gaussian", "mask")
NORMS = ("batch", "instance")
ATTENTIONS = ("block", "global", "none")
IMAGE_PERTURBATIONS = ("noise", "contrast", "brightness", "sharpness")
PERTURBATIONS = ("feature_noise_last", "feature_noise_all", *IMAGE_PERTURBATIONS)
SCHEDULES = ("cosine", "restarts")
RULES = ("peaks", "components", "fidt")
DTYPES = ("auto", "float32", "bfloat16", "float64")


def default_config() -> ml_collections.ConfigDict:
    """The defaults: 2D, 2 cores, the paper's method."""
    c = ml_collections.ConfigDict()
    c.name = "default"  # names the default workdir, runs/<name>
    c.seed = 0  # initial weights, batches, augmentation, noise

    c.data = ml_collections.ConfigDict()
    c.data.kind = "vgg"  # which reader: KINDS
    c.data.dir = ""  # folder with the images; empty = the built-in synthetic set
    c.data.ndim = 2  # 2 images or 3 volumes
    c.data.num_labelled = -1  # training images whose dots are used; -1 = all of the split
    c.data.num_unlabelled = -1  # training images used without dots; -1 = all that are left
    c.data.split_seed = 5455  # of the train/test permutation [authors]
    c.data.train_names = ()  # volumes: which are labelled, in this order; () = sorted
    c.data.unlabelled_names = ()  # volumes: which are used without dots; () = all
    c.data.region = ""  # where the training labels count, e.g. 'y<120'; '' = everywhere
    c.data.held_out_region = ""  # another region of the same volumes as a further test set
    c.data.test_fraction = 0.2  # folder without test/: share of labelled images held out
    c.data.channel = ""  # folder, volumes: number or name of the one to use; "" = all
    c.data.time = -1  # folder, volumes: the time point; -1 = the labelled or only one
    c.data.level = 0  # folder, volumes: of a pyramid; 0 = the labelled one or the finest
    c.data.spacing = ()  # voxel edges in micrometres, overrides the files'; () = from file
    c.data.diameter = 0.0  # of a cell, in pixels, about: what cellcount count --diameter is for
    c.data.normalisation = "dataset"  # NORMALISATIONS, see data/normalise.py
    # Extent of one local background, um (voxels if unknown): signal_to_noise, contrast [ours].
    c.data.background = 120.0

    c.target = ml_collections.ConfigDict()
    c.target.kernel = "inverse_distance"  # KERNELS; 'mask' is the full-annotation baseline
    c.target.scale = 100.0  # the map is learned multiplied by this [authors, VGG]
    c.target.gamma = (0.02, 0.75)  # slope and constant of the exponent [eq. 2]
    c.target.c = 1.0  # [eq. 2]
    c.target.unit = 0.0  # micrometres that count as 1 in the kernel; 0 = finest voxel edge
    c.target.max_distance = 32.0  # in units; the map (0.008 there) is 0 beyond [ours]
    c.target.dot_weight = 4.0  # squared error times 1 + this x target: sharper maps [ours]
    c.target.sigma = 1.0  # of the Gaussian kernel, in units [ours: 1 beats 2 on VGG]
    c.target.count_head = False  # a second map whose integral is the count [ours]
    c.target.count_sigma = 2.0  # of its Gaussians, in units
    c.target.count_weight = 1.0  # of its squared error

    c.model = ml_collections.ConfigDict()
    c.model.features = 16  # of the first level, doubling per level; paper: 32
    c.model.levels = 4  # [authors]
    c.model.strides = ()  # per pooling, per axis; () = 2 everywhere [authors]
    c.model.norm = "batch"  # NORMS; instance [authors] cannot be tiled
    c.model.norm_momentum = 0.95  # of the running statistics, per step [ours]
    # Share of training, at its end, in which norms use their running statistics, as prediction
    # does. On VGG it halves the error of the integral; on volumes, where the noise of small batches
    # keeps one labelled volume from being learned by heart, it costs F1 0.794 to 0.773 on a part
    # of the c-Fos training volume that was not trained on [ours].
    c.model.norm_freeze = 0.0
    c.model.attention = "block"  # ATTENTIONS; block = fixed blocks of train.crop [ours]
    c.model.dropout = 0.3  # on the attention weights [authors]
    c.model.head_bias = 1.0  # initial; a ReLU head that starts at 0 can stay dead [ours]
    c.model.dtype = "auto"  # of the computation: float32 on a CPU, else bfloat16; DTYPES
    c.model.remat = False  # compute a level's inside again for its gradient; no gain on a CPU

    c.consistency = ml_collections.ConfigDict()
    c.consistency.weight = 1.0  # w of eq. 3 at the end of the ramp; 0 = supervised only
    c.consistency.perturbation = "feature_noise_last"  # PERTURBATIONS [paper: last]
    c.consistency.strength = 1.0  # noise U(1 - s, 1 + s) [authors: U(0, 2)], or the image's
    c.consistency.focal = True  # focal weight; False is alpha = 1
    c.consistency.focal_sigma = 1.0  # of the focal weight's Gaussian, in voxels [authors]
    c.consistency.focal_radius = 2  # its reach in voxels: 5 taps [authors]
    c.consistency.focal_floor = 0.1  # maxima of the map below this are background [FIDT]
    c.consistency.ramp_up = 0.3  # share of training until w is reached [ours]

    c.augment = ml_collections.ConfigDict()
    c.augment.flips = True  # along every axis [authors]
    c.augment.transpose = True  # y and x exchanged: with flips, all quarter turns [authors]
    c.augment.gain = 0.0  # image times exp(U(-g, g))
    c.augment.offset = 0.0  # plus U(-o, o), in normalised units
    c.augment.noise = 0.0  # plus Gaussian noise of a deviation U(0, n), normalised units

    c.optim = ml_collections.ConfigDict()
    c.optim.learning_rate = 3e-3  # at the start of the schedule [ours; paper: 1e-3]
    c.optim.schedule = "cosine"  # SCHEDULES; restarts: cycles doubling in length [authors]
    c.optim.first_cycle = 50  # steps of the first cycle with restarts [authors]
    c.optim.weight_decay = 0.0  # decoupled [authors: 1.0; no difference seen at 16 features]

    c.train = ml_collections.ConfigDict()
    c.train.steps = 500
    c.train.crop = (128, 128)  # voxels; [paper: 224 x 224; 3D: 56 x 200 x 200]
    # Above 0: cells that a crop cuts are not learned from, within so many units of its edges, but
    # those that the image itself cuts are, as often as others [ours].
    c.train.cut_margin = 0.0
    c.train.batch_labelled = 4  # crops a step, over all devices [authors: 8]
    c.train.batch_unlabelled = 4  # [authors: 80]
    c.train.scan_length = 10  # steps in one compiled call
    c.train.checkpoint_every = 100  # steps, a multiple of scan_length
    c.train.evaluate_every = 0  # steps between evaluations in training; 0 = at the end only
    c.train.keep_checkpoints = 2
    c.train.tensorboard = False  # curves for TensorBoard too; needs the extra tensorboard

    c.detect = ml_collections.ConfigDict()
    c.detect.rule = "peaks"  # RULES; the paper: components; the figures of all are kept
    c.detect.min_distance = (1, 1)  # voxels: no two peaks closer along every axis
    c.detect.threshold = 0.0  # on the map, in (0, 1); 0 = calibrated on training images
    # With count_head: from so many cells in its part of the density a peak stands for two; 0 =
    # never. F1 0.958 to 0.966 on 40 training images of VGG that were not trained on.
    c.detect.split_from = 1.4

    c.evaluation = ml_collections.ConfigDict()
    c.evaluation.max_distance = 5.0  # a detection is true within this: pixels, um if known
    c.evaluation.overlays = 8  # pictures written per test set

    c.predict = ml_collections.ConfigDict()
    c.predict.flips = False  # mean over all mirror images: sharper, 4 (3D: 8) times the work
    c.predict.max_voxels = 8_000_000  # a larger image is predicted in tiles of this size
    return c


def strides(config: ml_collections.ConfigDict) -> tuple[tuple[int, ...], ...]:
    """The pooling of each level, per axis."""
    default = ((2,) * config.data.ndim,) * (config.model.levels - 1)
    return tuple(tuple(s) for s in config.model.strides) or default


def total_stride(config: ml_collections.ConfigDict) -> tuple[int, ...]:
    """Voxels of the image along each axis for one voxel of the bottleneck."""
    return tuple(math.prod(column) for column in zip(*strides(config), strict=True))


def freeze_step(config: ml_collections.ConfigDict) -> int:
    """The step, a multiple of the scan's length, from which on norms are frozen."""
    t = config.train
    return round(t.steps * (1 - config.model.norm_freeze) / t.scan_length) * t.scan_length


def count_scale(config: ml_collections.ConfigDict) -> float:
    """What the density map of `target.count_head` is learned multiplied by.

    A lone dot of either map is as high as `target.scale` then, if voxels are cubes of one unit.
    """
    t = config.target
    return t.scale * (2 * math.pi * t.count_sigma**2) ** (config.data.ndim / 2)


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as what a JSON file holds: dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(stored: Any, path: Path, *, older: bool = False) -> ml_collections.ConfigDict:
    """Reads what `to_json` gave.

    Args:
      stored: content of a config.json.
      path: of that file, for errors.
      older: whether it may be of an older version: what it lacks has its default.

    Raises:
      InputError: its keys are not those of this version, or a value is of another type.
    """
    if not isinstance(stored, Mapping):
        raise InputError(f"{path}: the settings in it are no JSON object")
    config = default_config()
    known, given = flatten(config.to_dict()).keys(), flatten(stored).keys()
    missing = given - known if older else known ^ given
    if missing:
        raise InputError(
            f"{path}: was written by another version, which differs in the settings"
            f" {', '.join(sorted(missing))}"
        )
    for key, value in flatten(stored).items():
        section, _, name = key.rpartition(".")
        try:
            (config[section] if section else config)[name] = _as_tuple(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: the setting {key} = {value!r} is of a wrong type") from error
    return config


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary of dotted keys."""
    flat = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        flat.update(flatten(value, f"{prefix}{key}.") if inner else {prefix + key: value})
    return flat


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def check_key(key: str) -> None:
    """Makes sure that there is a setting of this name, such as 'train.steps'.

    Raises:
      InputError: there is none; names the nearest and those beside it.
    """
    known = flatten(default_config().to_dict())
    if key not in known:
        section = key.rpartition(".")[0]
        near = difflib.get_close_matches(key, known, n=1)
        beside = sorted(k for k in known if k.rpartition(".")[0] == section)
        hint = f"; did you mean config.{near[0]}?" if near else ""
        there = f" There are {', '.join(beside)}." if beside else ""
        raise InputError(f"config.{key}: no such setting{hint}{there}")


def override(config: ml_collections.ConfigDict, text: str) -> str:
    """Changes a setting as a text says.

    Args:
      config: changed in place.
      text: for example 'train.steps=500' or 'data.spacing=4,1,1'; 'config.' before it is allowed.

    Returns:
      The key.

    Raises:
      InputError: not of this form, no such setting, or a value of another type.
    """
    key, equals, value = text.partition("=")
    key = key.strip().removeprefix("config.")
    if not equals:
        raise InputError(f"--set {text}: must be KEY=VALUE, such as train.steps=500")
    check_key(key)
    section, _, name = key.rpartition(".")
    part = config[section] if section else config
    try:
        part[name] = _value(value.strip(), part[name])
    except (SyntaxError, TypeError, ValueError) as error:
        kind = type(part[name]).__name__
        raise InputError(
            f"--set {text}: the value must be of the type {kind}, now {part[name]!r}"
        ) from error
    return key


def _value(text: str, now: Any) -> Any:
    """A text as a value of the type of the present one."""
    if isinstance(now, str):
        return text
    value = ast.literal_eval(text)
    if isinstance(now, tuple):
        return value if isinstance(value, tuple) else (value,)
    if isinstance(now, float) and type(value) is int:
        return float(value)
    if type(value) is not type(now):
        raise TypeError(f"{value!r} is no {type(now).__name__}")
    return value
