"""A trained model, and from an image or volume of any size to cell locations with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Readable, Resampled
from cellcount_jax.inference import tiled_maps
from cellcount_jax.maps import detect, targets
from cellcount_jax.maps import split_merged as merged

_MOST_RESAMPLED = 20  # times that an axis may get longer: more is a mistake in the voxel size


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """All that prediction needs.

    Attributes:
      config: of the run that trained it.
      step: the training step of the variables.
      variables: `params` and `batch_stats` of the network.
      normalisation: of intensities.
      channels: of the images.
      spacing: `(D,)` voxel size of the training images, in micrometres if `spacing_known`.
      spacing_known: whether their voxel size was known.
      thresholds: detection rule -> threshold, calibrated on the training images; empty
        before calibration.
      count_factor: what the density's integral is multiplied by, so that the counts of the
        training images add up.
    """

    config: ml_collections.ConfigDict
    step: int
    variables: Any
    normalisation: Normalisation
    channels: int
    spacing: tuple[float, ...]
    spacing_known: bool
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    count_factor: float = 1.0


def resampled(
    model: TrainedModel,
    image: Readable,
    spacing: Sequence[float] | None,
    *,
    diameter: float | None = None,
) -> Readable:
    """An image on the voxels that a model was trained on.

    Args:
      model: a trained model.
      image: raw intensities.
      spacing: `(D,)` its voxel size in micrometres; None leaves it as it is.
      diameter: about that of its cells in pixels, in place of the voxel size.

    Returns:
      The image itself, where the two differ by less than 1 %, or it as a `Resampled`.

    Raises:
      InputError: the model does not know its voxel size, or how large its cells are; or the image
        would have no voxel left, or far too many.
    """
    if diameter is not None:
        known = model.config.data.diameter
        if not known:
            raise InputError(
                "the model does not say how large its cells are, so that a diameter does not help;"
                " it is trained with config.data.diameter"
            )
        factors = (known / diameter,) * len(image.shape)
        what, theirs = f"cells of {diameter:g} pixels", f"{known:g}"
    elif spacing is None:
        return image
    else:
        if not len(spacing) == len(image.shape) == len(model.spacing):
            raise InputError(
                f"the voxel size {tuple(spacing)} is not that of a {len(model.spacing)}D image"
            )
        if not model.spacing_known:
            raise InputError("the model was trained on images without a voxel size: do not rescale")
        factors = tuple(ours / known for ours, known in zip(spacing, model.spacing, strict=True))
        what, theirs = f"voxels of {tuple(spacing)} um", str(model.spacing)
    if np.allclose(factors, 1, rtol=0.01):
        return image
    wanted = tuple(round(n * f) for n, f in zip(image.shape, factors, strict=True))
    if min(wanted) < 1:
        raise InputError(
            f"{what}, where the model knows {theirs}: nothing of {image.shape} would be left"
        )
    if max(factors) > _MOST_RESAMPLED:
        raise InputError(
            f"{what}, where the model knows {theirs}: the image would be over {_MOST_RESAMPLED}"
            " times as long; is the number right?"
        )
    return Resampled(image, wanted)


def check_fits(model: TrainedModel, ndim: int, channels: int) -> None:
    """Makes sure that a model can take an image.

    Raises:
      InputError: it was trained on others.
    """
    if (ndim, channels) != (model.config.data.ndim, model.channels):
        raise InputError(
            f"the image is {ndim}D with {channels} channels, the model was trained"
            f" on {model.config.data.ndim}D images with {model.channels}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """What the network says of an image.

    Attributes:
      location: `(*spatial,)` float32; at a dot that is certain about 1 with the inverse-distance
        kernel, the peak of the kernel with the Gaussian, a probability with the mask.
      density: `(*spatial,)` float32 cells per voxel, whose sum is the count, of a model with
        the Gaussian kernel or `config.target.count_head`; else None.
    """

    location: np.ndarray
    density: np.ndarray | None


def predict_maps(model: TrainedModel, image: np.ndarray) -> Maps:
    """The network's maps of an image, in tiles where the image is large.

    With `config.predict.flips` it is the mean over the image mirrored along every set of axes.

    Args:
      model: a trained model.
      image: `(*spatial, channels)` raw intensities.

    Returns:
      The maps.

    Raises:
      InputError: the image does not fit the model, or is too large for a model whose result
        would depend on the tiles.
    """
    config = model.config
    check_fits(model, image.ndim - 1, image.shape[-1])
    values = model.normalisation(image)
    found = tiled_maps.compute(config, model.variables, values)
    return Maps(found[..., 0], found[..., -1] if has_density(model) else None)


def predict(model: TrainedModel, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cell locations in an image.

    Args:
      model: a trained model.
      image: `(*spatial, channels)` raw intensities.

    Returns:
      Points `(N, D)` float32 in voxels and their scores `(N,)`, the map's largest value of each.

    Raises:
      InputError: see `predict_maps`.
    """
    return locate(model, predict_maps(model, image), rule=model.config.detect.rule)


def locate(
    model: TrainedModel,
    found: Maps,
    *,
    rule: str,
    threshold: float | None = None,
    split: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Locations and scores in maps of the model.

    Args:
      model: a trained model.
      found: its maps of an image.
      rule: see `detect.locate`.
      threshold: of the rule; default the model's.
      split: whether cells on each other are split, where the model and its config say so.

    Returns:
      As `predict`.
    """
    config = model.config
    points, scores = detect.locate(
        found.location,
        rule=rule,
        threshold=model.thresholds[rule] if threshold is None else threshold,
        min_distance=tuple(config.detect.min_distance),
        fidt_floor=0.1 * target_peak(model),
    )
    if split and splits(model):
        assert found.density is not None
        points, scores = split_merged(model, points, scores, found.density)
    return points, scores


def has_density(model: TrainedModel) -> bool:
    """Whether a model's last map is the cells' density."""
    return bool(model.config.target.count_head or model.config.target.kernel == "gaussian")


def splits(model: TrainedModel) -> bool:
    """Whether a model tells cells on each other apart, see `split_merged`."""
    return bool(model.config.target.count_head and model.config.detect.split_from)


def split_merged(
    model: TrainedModel,
    points: np.ndarray,
    scores: np.ndarray,
    density: np.ndarray,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`split_merged.split_merged` with the settings of a model."""
    return merged.split_merged(
        points,
        scores,
        model.count_factor * density,
        least=model.config.detect.split_from,
        reach=split_reach(model),
        spacing=model.spacing,
        own=own,
    )


def split_reach(model: TrainedModel) -> float:
    """How far from a point the density is that belongs to it, in the units of the spacing."""
    reach: float = 3 * model.config.target.count_sigma
    return reach * (model.config.target.unit or min(model.spacing))


def integral(model: TrainedModel, found: Maps, region: np.ndarray | None = None) -> float | None:
    """The number of cells by the integral of the density.

    Args:
      model: a trained model.
      found: its maps of an image.
      region: `(*spatial,)` bool, where to count; default everywhere.

    Returns:
      The number, not rounded; None of a model without a density.
    """
    if found.density is None:
        return None
    counted = found.density if region is None else found.density[region]
    return model.count_factor * float(counted.sum(dtype=np.float64))


def target_peak(model: TrainedModel) -> float:
    """The training target's value at a lone dot, to which thresholds are relative."""
    return targets.peak_value(model.config, targets.target_geometry(model.config, model.spacing))


def count(model: TrainedModel, image: np.ndarray) -> int:
    """The number of cells in an image, see `predict`."""
    return len(predict(model, image)[0])
