"""Training that goes on from a trained model: its settings, its normalisation, its weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from cellcount_jax import config as settings
from cellcount_jax.data.sample import Dataset
from cellcount_jax.errors import InputError
from cellcount_jax.images import levels
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps import targets
from cellcount_jax.training.step import TrainState

# Of training as it is here, not of the network: those of the run, or the default.
_OF_TRAINING = (
    *("model.dropout", "model.norm_freeze", "model.norm_momentum"),
    *("model.remat", "model.dtype"),
)
# What weights and maps depend on; a model that goes on with other values is no longer that model.
_FIXED_SECTIONS = ("model", "target")
_FIXED = ("data.ndim", "data.normalisation", "data.background", "data.diameter")
# These may be changed: they are the model's unless they are given.
_FOLLOWING_SECTIONS = ("augment", "detect", "predict")
_FOLLOWING = (
    "model.head_bias",
    *("target.dot_weight", "target.count_weight", "target.unit"),
    *("train.crop", "train.cut_margin"),
)
# In place of the defaults, which are for random weights: norms adapt to the images, then keep still
# as in prediction. RESULTS.md has what was compared; a lower learning rate was not better.
_IN_PLACE_OF_DEFAULTS = {"model.norm_freeze": 0.3}
# Beyond these a channel's mean and deviation, in units of the model's training set, are a warning.
_FAR, _OTHER_SPREAD = 3.0, 4.0


def follow(
    config: ml_collections.ConfigDict, model: TrainedModel, *, given: Collection[str] = ()
) -> None:
    """Settings for going on from a model, those of training as they suit it.

    Args:
      config: changed in place; its `init_from` is the name of the model.
      model: to go on from.
      given: the settings that the user has given, such as 'train.crop': they stay.

    Raises:
      InputError: one of them is another than the model's and cannot be changed.
    """
    own, known = _flat(model.config), _flat(config)
    defaults = _flat(settings.default_config())
    fixed = _fixed(config)
    for key in fixed:
        if key in given:
            _check(key, known[key], own[key], config)
    for key in fixed:
        if known[key] not in (own[key], defaults[key]):
            message = "config.%s = %r gives way to %r of the model %s"
            logging.info(message, key, known[key], own[key], config.init_from)
        _set(config, key, own[key])
    following = [key for key in known if key.partition(".")[0] in _FOLLOWING_SECTIONS]
    for key in (*following, *_FOLLOWING):
        if key not in given:
            _set(config, key, own[key])
    for key, value in _IN_PLACE_OF_DEFAULTS.items():
        if key not in given and known[key] == defaults[key]:
            _set(config, key, value)
    by_hand = bool({"data.from_diameter", "data.to_spacing"} & set(given))
    if config.data.from_diameter > 0 and "predict.estimate_diameter" not in given:
        config.predict.estimate_diameter = False  # the user knows better
    elif config.predict.estimate_diameter and not by_hand:
        config.data.from_diameter = -1.0
    elif model.spacing_known and not config.data.from_diameter and not by_hand:
        config.data.to_spacing = model.spacing
    # In pixels of the model then, which the config does not know.
    if config.data.from_diameter and "evaluation.max_distance" not in given:
        distance = model.config.evaluation.max_distance / model.spacing[-1]
        config.evaluation.max_distance = float(distance)
    if config.data.from_diameter and not config.data.diameter:
        raise InputError(
            f"config.data.from_diameter = {config.data.from_diameter:g}: the model"
            f" {config.init_from} does not say how large its cells are, so that images cannot be"
            " resampled to it; it is trained with a diameter"
        )


def use_voxels(
    config: ml_collections.ConfigDict, model: TrainedModel, edges: Sequence[float]
) -> None:
    """Lengths of a model in the unit of the images, so that they are as many voxels as there.

    Args:
      config: changed in place, after `follow`.
      model: that training goes on from.
      edges: `(D,)` of the files' voxels in um; ones where they are unknown.
    """
    factor = 1.0
    if not config.data.to_spacing:
        factor = float((1.0 if config.data.from_diameter else edges[-1]) / model.spacing[-1])
    config.evaluation.max_distance = factor * model.config.evaluation.max_distance
    config.target.unit = factor * model.config.target.unit


def parent_of(
    config: ml_collections.ConfigDict,
) -> tuple[ml_collections.ConfigDict, TrainedModel | None]:
    """The model that a run goes on from.

    Args:
      config: of the run.

    Returns:
      The config, with the digest of the model in it, and the model; None without one.

    Raises:
      InputError: there is no such model, it is another than that of the digest, or a setting that
        must be the model's is not.
    """
    if not config.init_from:
        if config.init_digest:
            raise InputError(f"config.init_digest = {config.init_digest!r}: needs init_from")
        return config, None
    model = model_file.load_model(config.init_from)
    found = model_file.digest(model)
    if config.init_digest not in ("", found):
        raise InputError(
            f"config.init_digest = {config.init_digest!r}: {config.init_from} is another model, of"
            f" the digest {found!r}"
        )
    own, known = _flat(model.config), _flat(config)
    for key in _fixed(config):
        _check(key, known[key], own[key], config)
    config = config.copy_and_resolve_references()
    config.init_digest = found
    return config, model


def check_images(dataset: Dataset, config: ml_collections.ConfigDict, model: TrainedModel) -> None:
    """Makes sure that a model that training goes on from can take the images.

    Raises:
      InputError: names an image of other channels or of voxels of another shape, and the remedy.
    """
    first = dataset.labelled[0]
    who, channels, name = first.source or first.name, first.image.shape[-1], config.init_from
    check_ndim(who, len(first.shape), config, model)
    if channels > model.channels == 1:
        raise InputError(
            f"{who}: has {channels} channels, the model {name} is for 1; choose one of 0 to"
            f" {channels - 1} with data.channel (cellcount train: --set data.channel=0)"
        )
    if channels != model.channels:
        raise InputError(
            f"{who}: has {channels} channel(s), the model {name} is for {model.channels}; take"
            " another model, or train without one"
        )
    ours = targets.target_geometry(config, first.spacing).edges
    edges = targets.target_geometry(model.config, model.spacing).edges
    if not np.allclose(ours, edges, rtol=0.02):
        raise InputError(
            f"{who}: a voxel has edges of {_numbers(ours)} in the unit of"
            f" target.unit = {config.target.unit:g}, to the model {name} those of"
            f" {_numbers(edges)}; give the voxel size of the files with data.spacing, or leave"
            " target.unit out"
        )


def check_ndim(who: Any, ndim: int, config: ml_collections.ConfigDict, model: TrainedModel) -> None:
    """Makes sure that a model is for images of so many dimensions.

    Args:
      who: the image's file, for the error.
      ndim: number of its axes.
      config: of the run, with the name of the model.
      model: that training goes on from.

    Raises:
      InputError: it is not.
    """
    own = model.config.data.ndim
    if ndim != own:
        raise InputError(
            f"{who}: is {ndim}D, the model {config.init_from} is for {own}D images; take another"
        )


def warn_of_intensities(dataset: Dataset, model: TrainedModel, name: str) -> None:
    """Warns where images are of other intensities than those that the model was trained on.

    Of a model that has the training set's mean and deviation, which stay as they were, and of one
    that measures what is background and what cells.
    """
    for sample in dataset.labelled if model.normalisation.method == "levels" else ():
        read = Array(sample.image, len(sample.shape)).read
        if levels.measure(read, sample.shape, channels=model.channels)[0].inverted:
            logging.warning(
                "%s: the cells seem to be dark on a bright background, and the model %s knows"
                " bright ones on dark; invert the images before, or it learns them anew and counts"
                " with --no-invert",
                sample.source or sample.name,
                name,
            )
            break
    if model.normalisation.method != "dataset":
        return
    for sample in dataset.labelled:
        values = model.normalisation(sample.image).reshape(-1, model.channels)
        mean, spread = np.abs(values.mean(0)).max(), values.std(0)
        if mean > _FAR or not ((spread < _OTHER_SPREAD) & (spread > 1 / _OTHER_SPREAD)).all():
            logging.warning(
                "%s: its intensities are far from those that the model %s was trained on (mean %s,"
                " deviation %s, in units of theirs); scale the images to the same range, or train"
                " without the model",
                sample.source or sample.name,
                name,
                _numbers(values.mean(0)),
                _numbers(spread),
            )
            return


def with_weights(state: TrainState, model: TrainedModel) -> TrainState:
    """A state at step 0 with a model's weights and the norms' statistics, the optimiser fresh."""

    def taken(value: Any, like: Any) -> np.ndarray:
        return np.asarray(value, like.dtype)

    params = jax.tree.map(taken, model.variables["params"], state.params)
    stats = jax.tree.map(taken, model.variables["batch_stats"], state.batch_stats)
    average = None if state.average is None else {"params": params, "batch_stats": stats}
    return state.replace(params=params, batch_stats=stats, average=average)


def _fixed(config: ml_collections.ConfigDict) -> list[str]:
    """The settings that must be the model's."""
    inner = [key for key in _flat(config) if key.partition(".")[0] in _FIXED_SECTIONS]
    free = (*_OF_TRAINING, *_FOLLOWING)
    return [*_FIXED, *(key for key in inner if key not in free)]


def _check(key: str, value: Any, own: Any, config: ml_collections.ConfigDict) -> None:
    if value != own:
        raise InputError(
            f"config.{key} = {value!r}: training goes on from the model {config.init_from}, which"
            f" has {own!r}; leave this setting out, or train without the model"
        )


def _flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return settings.flatten(config.to_dict())


def _set(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
