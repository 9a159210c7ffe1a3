"""Every setting once: default, range or choices, unit and source of the default.

A file in `configs/` starts from `default_config()` and sets what differs. A comment in
brackets names the source: [eq. 2], [paper], [authors] (their TensorFlow code) or [ours].
`validation.validate` checks these ranges, and the rules between settings, which are there.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from cellcount_jax.errors import InputError

KINDS = ("vgg", "mbm", "volumes", "folder", "synthetic")
NORMALISATIONS = (
    *("dataset", "standardise", "robust_log", "levels"),
    *("signal_to_noise", "contrast"),
)
KERNELS = ("inverse_distance", "gaussian", "mask")
NORMS = ("batch", "instance")
SYMMETRIES = ("none", "mirror", "square")
COUNTERS = ("head", "branch")
ATTENTIONS = ("block", "global", "none")
IMAGE_PERTURBATIONS = ("noise", "contrast", "brightness", "sharpness")
FEATURE_PERTURBATIONS = ("feature_noise_last", "feature_noise_all")
PERTURBATIONS = (*FEATURE_PERTURBATIONS, *IMAGE_PERTURBATIONS, "none")
STATISTICS = ("running", "joint")
TEACHERS = ("same", "average")
LEARNED = ("map", "dots")
SCHEDULES = ("cosine", "restarts")
RULES = ("peaks", "components", "fidt")
DTYPES = ("auto", "float32", "bfloat16", "float64")


@dataclasses.dataclass(frozen=True)
class Setting:
    """The default of a setting, and the values that it may have; a tuple's numbers one by one."""

    default: Any
    choices: Collection[Any] = ()
    numeric: bool = False
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf


def one_of(choices: Collection[Any], default: Any) -> Setting:
    """A setting that has one of a few values."""
    return Setting(default, choices=choices)


def number(default: Any, **limits: Any) -> Setting:
    """A finite number, or a tuple of them, within limits: at_least or above, at_most or below."""
    return Setting(default, numeric=True, **limits)


# Section -> name -> setting; the section "" stands for the top. A plain value has no range.
SETTINGS: dict[str, dict[str, Any]] = {
    "": {
        "name": "default",  # names the default workdir, runs/<name>
        "seed": number(0, at_least=0, at_most=2**31 - 1),  # weights, batches, augmentation, noise
        "init_from": "",  # a model to go on from: bundled, a workdir, a file; '' = random weights
        "init_digest": "",  # of that model, which training fills in; another one is an error
    },
    "data": {
        "kind": one_of(KINDS, "vgg"),  # which reader
        "dir": "",  # folder with the images; empty = the built-in synthetic set
        "ndim": one_of((2, 3), 2),  # images or volumes
        "num_labelled": number(-1, at_least=-1),  # training images used with dots; -1 = all
        "num_unlabelled": number(-1, at_least=-1),  # and without; -1 = all that are left
        # Seed of the permutation that splits train and test [authors].
        "split_seed": number(5455, at_least=0, at_most=2**32 - 1),
        "train_names": (),  # volumes: which are labelled, in this order; () = sorted
        "unlabelled_names": (),  # volumes: which are used without dots; () = all
        "region": "",  # where the training labels count, e.g. 'y<120'; '' = everywhere
        "held_out_region": "",  # another region of the same volumes as a further test set
        # Folder without test/: share of labelled images held out.
        "test_fraction": number(0.2, at_least=0, at_most=0.9),
        # Share of the training labels that are not learned from but choose the threshold; 0 = the
        # training images choose it. See data/calibration_part.py.
        "calibration_share": number(0.2, at_least=0, at_most=0.5),
        "scene": "",  # folder, volumes: number or name of one image in files of several
        "channel": "",  # folder, volumes: number or name of the one to use; '' = all
        "time": number(-1, at_least=-1),  # and the time point; -1 = the labelled or only one
        "axes": "",  # letters of T, C, Z, Y, X for the axes of the files; '' = the files'
        # Of the dots in CSV files of other programs; '' = px, and what may be um is refused.
        "points_unit": one_of(("", "px", "um"), ""),
        "level": number(0, at_least=0),  # of a pyramid; 0 = the labelled one or the finest
        "spacing": number((), above=0),  # voxel edges, um, in place of the files'; () = from file
        "diameter": number(
            0.0, at_least=0, at_most=1e4
        ),  # of a cell, pixels, for cellcount count --diameter
        # Of one in the files, pixels: images are resampled at load, so that it becomes `diameter`.
        "from_diameter": number(
            0.0, at_least=-1, at_most=1e4
        ),  # -1 = as measured in each image; 0 = not
        "to_spacing": number((), above=0),  # voxel edges, um, to resample the files to; () = not
        "normalisation": one_of(NORMALISATIONS, "dataset"),  # see images/normalise.py
        # Extent of one local background, um (voxels if unknown): signal_to_noise, contrast [ours].
        "background": number(120.0, above=0, at_most=1e6),
    },
    "target": {
        "kernel": one_of(KERNELS, "inverse_distance"),  # 'mask': the full-annotation baseline
        "scale": number(
            100.0, at_least=1e-6, at_most=1e6
        ),  # the map is learned multiplied by this [authors, VGG]
        "gamma": number(
            (0.02, 0.75), at_least=0, at_most=100
        ),  # slope, constant of the exponent [eq. 2]
        "c": number(1.0, at_least=1e-6, at_most=1e6),  # [eq. 2]
        "unit": number(
            0.0, at_least=0, at_most=1e6
        ),  # um that count as 1 in the kernel; 0 = finest voxel edge
        "max_distance": number(
            32.0, above=0, at_most=1000
        ),  # units; the map (0.008 there) is 0 beyond [ours]
        # Squared error times 1 + this x target: sharper maps [ours].
        "dot_weight": number(4.0, at_least=0),
        "sigma": number(
            1.0, at_least=0.01, at_most=100
        ),  # of the Gaussian kernel, units [ours: 1 beats 2 on VGG]
        "count_head": False,  # a second map whose integral is the count [ours]
        "count_sigma": number(2.0, at_least=0.01, at_most=100),  # of its Gaussians, in units
        "count_weight": number(1.0, at_least=0),  # of its squared error
    },
    "model": {
        "features": number(
            16, at_least=1, at_most=1024
        ),  # of the first level, doubling per level; paper: 32
        "levels": number(4, at_least=2, at_most=8),  # [authors]
        "strides": (),  # per pooling, per axis; () = 2 everywhere [authors]
        # Of kernels: 'mirror', their own mirror images along each axis, so that maps of mirrored
        # images are mirrored maps; 'square', with y and x exchanged too.
        "symmetry": one_of(SYMMETRIES, "none"),
        "norm": one_of(NORMS, "batch"),  # instance [authors] cannot be tiled
        "norm_momentum": number(0.95, at_least=0, below=1),  # of the running statistics [ours]
        # Share of training, at its end, in which norms use their running statistics, as prediction
        # does. On VGG it halves the error of the integral; on volumes, where the noise of small
        # batches keeps one labelled volume from being learned by heart, it costs F1 0.794 to 0.773
        # on a part of the c-Fos training volume that was not trained on [ours].
        "norm_freeze": number(0.0, at_least=0, at_most=1),
        "attention": one_of(ATTENTIONS, "block"),  # block = fixed blocks of train.crop [ours]
        "dropout": number(0.3, at_least=0, below=1),  # on the attention weights [authors]
        # With target.count_head: its map from the last features, or from a branch on intermediate
        # ones, apart from what locates cells [after Zheng et al. 2025].
        "counter": one_of(COUNTERS, "head"),
        "head_bias": number(1.0),  # initial; a ReLU head that starts at 0 can stay dead [ours]
        "dtype": one_of(DTYPES, "auto"),  # of the computation: float32 on a CPU, else bfloat16
        "remat": False,  # compute a level's inside again for its gradient; no gain on a CPU
    },
    "consistency": {
        "weight": number(1.0, at_least=0),  # w of eq. 3 after the ramp; 0 = supervised only
        "perturbation": one_of(PERTURBATIONS, "feature_noise_last"),  # [paper: last]
        "strength": number(1.0, at_least=0),  # noise U(1 - s, 1 + s) [authors: U(0, 2)], or image's
        "focal": True,  # focal weight; False is alpha = 1
        "focal_sigma": number(1.0, above=0),  # of the focal weight's Gaussian, voxels [authors]
        "focal_radius": number(2, at_least=0, at_most=100),  # its reach in voxels: 5 taps [authors]
        "focal_floor": number(0.1, at_least=0),  # maxima of the map below: background [FIDT]
        "ramp_up": number(0.3, at_least=0, at_most=1),  # share of training until w [ours]
        # Statistics by which unlabelled images are normed: the running ones, or those of one batch
        # with the labelled images, from which the running ones come too.
        "norms": one_of(STATISTICS, "running"),
        "balance": False,  # kinds of unlabelled images, by how they look, equally often [ours]
        "begin": number(0.0, at_least=0, below=1),  # share of training before, on dots alone
        # The weights of the teacher, and of the trained model: the student's [paper], or their
        # moving average [Tarvainen and Valpola 2017].
        "teacher": one_of(TEACHERS, "same"),
        "average_decay": number(0.99, at_least=0, below=1),  # of the average, a step
        "teacher_flips": False,  # its map is the mean over mirror images [Radosavovic et al. 2018]
        # Strength of random gain, offset, noise, gamma, blur and slope of the student's image.
        "view": number(0.0, at_least=0, at_most=10),
        "scale": number(0.0, at_least=0, at_most=1),  # its size times exp(U(-s, s))
        "cut_out": number(0.0, at_least=0, at_most=1),  # box hidden in it, share of the edges
        # What the student learns: the teacher's map [paper], or the kernel around its sure cells.
        "target": one_of(LEARNED, "map"),
        "confident": number(0.5, above=0, below=1),  # a sure cell: share of a lone dot's value
    },
    "augment": {
        "flips": True,  # along every axis [authors]
        "transpose": True,  # y and x exchanged: with flips, all quarter turns [authors]
        "gain": number(0.0, at_least=0),  # image times exp(U(-g, g))
        "offset": number(0.0, at_least=0),  # plus U(-o, o), in normalised units
        "noise": number(0.0, at_least=0),  # plus Gaussian noise of deviation U(0, n), same units
        "scale": number(0.0, at_least=0, at_most=1),  # size times exp(U(-s, s)), pixels or voxels
        "gamma": number(0.0, at_least=0),  # normalised units to the power exp(U(-g, g))
        "blur": number(0.0, at_least=0),  # Gaussian of sigma U(0, b), pixels or voxels
        "gradient": number(0.0, at_least=0),  # plus a slope along a random direction, up to +-g
    },
    "optim": {
        "learning_rate": number(3e-3, above=0),  # at the schedule's start [ours; paper: 1e-3]
        "schedule": one_of(SCHEDULES, "cosine"),  # restarts: cycles doubling in length [authors]
        "first_cycle": number(50, at_least=1),  # steps of the first cycle with restarts [authors]
        # Decoupled [authors: 1.0; no difference seen at 16 features].
        "weight_decay": number(0.0, at_least=0),
    },
    "train": {
        "steps": number(500, at_least=1),
        "crop": number(
            (128, 128), at_least=1, at_most=4096
        ),  # voxels; [paper: 224 x 224; 3D: 56 x 200 x 200]
        # Above 0: cells that a crop cuts are not learned from, within so many units of its edges,
        # but those that the image itself cuts are, as often as others [ours].
        "cut_margin": number(0.0, at_least=0),
        "batch_labelled": number(4, at_least=1),  # crops a step, over all devices [authors: 8]
        "batch_unlabelled": number(4, at_least=0),  # [authors: 80]
        "scan_length": number(10, at_least=1),  # steps in one compiled call
        "checkpoint_every": number(100, at_least=1),  # steps, a multiple of scan_length
        "evaluate_every": number(0, at_least=0),  # steps between evaluations; 0 = at the end only
        "keep_checkpoints": number(2, at_least=1),
        "tensorboard": False,  # curves for TensorBoard too; needs the extra tensorboard
    },
    "detect": {
        "rule": one_of(RULES, "peaks"),  # the paper: components; the figures of all are kept
        "min_distance": number(
            (1, 1), at_least=0, at_most=1000
        ),  # voxels: no two peaks closer along every axis
        # On the map, in (0, 1); 0 = calibrated on training images.
        "threshold": number(0.0, at_least=0, at_most=1),
        # With count_head: from so many cells in its part of the density a peak stands for two; 0 =
        # never. F1 0.958 to 0.966 on 40 training images of VGG that were not trained on.
        "split_from": number(1.4, at_least=0),
    },
    "evaluation": {
        # Of a true detection: um if known, else pixels, resampled ones with data.from_diameter.
        "max_distance": number(5.0, above=0),
        "overlays": number(8, at_least=0),  # pictures written per test set
    },
    "predict": {
        # Measure the cells' diameter in each 2D image, and resample it to data.diameter.
        "estimate_diameter": False,
        "every_tile": False,  # also those in which nothing is bright enough for a cell
        "flips": False,  # mean over all mirror images: sharper, 4 (3D: 8) times the work
        # Larger images are predicted in tiles, with up to so many voxels at a time.
        "max_voxels": number(8_000_000, at_least=1),
    },
}


def default_config() -> ml_collections.ConfigDict:
    """The defaults: 2D, 2 cores, the paper's method."""
    config = ml_collections.ConfigDict()
    for section, settings in SETTINGS.items():
        if section:
            config[section] = ml_collections.ConfigDict()
        for name, entry in settings.items():
            default = entry.default if isinstance(entry, Setting) else entry
            (config[section] if section else config)[name] = default
    return config


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


# What a run did that was begun before there was a setting, where the default is another.
BEFORE_ITS_TIME = {"data.calibration_share": 0.0}


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as what a JSON file holds: dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(stored: Any, path: Path) -> ml_collections.ConfigDict:
    """The config that `to_json` gave; settings that an older version lacked as it would have them.

    Args:
      stored: content of a config.json.
      path: of that file, for errors.

    Raises:
      InputError: it has settings that this version lacks, or a value is of another type.
    """
    if not isinstance(stored, Mapping):
        raise InputError(f"{path}: the settings in it are no JSON object")
    config = default_config()
    known, given = flatten(config.to_dict()).keys(), flatten(stored).keys()
    if unknown := given - known:
        raise InputError(
            f"{path}: was written by another version, which differs in the settings"
            f" {', '.join(sorted(unknown))}"
        )
    for key, value in {**BEFORE_ITS_TIME, **flatten(stored)}.items():
        section, _, name = key.rpartition(".")
        try:
            if value is None:  # which a ConfigDict takes for anything
                raise TypeError
            (config[section] if section else config)[name] = _as_tuple(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}: the setting {key} = {value!r} is of a wrong type") from error
    return config


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary of dotted keys."""
    flat = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and len(value) > 0
        flat.update(flatten(value, f"{prefix}{key}.") if inner else {prefix + key: value})
    return flat


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
