"""A trained model, and from an image or volume of any size to cell locations with it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from scipy import ndimage

from cellcount_jax import batches, detect, maps, merged
from cellcount_jax.data.normalise import Normalisation
from cellcount_jax.errors import InputError
from cellcount_jax.step import TrainState


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

    def predict(
        self, array: Any, *, spacing: Sequence[float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cell locations in an array.

        Args:
          array: NumPy, Zarr, dask or what else NumPy can read, `(*spatial,)` or `(*spatial,
            channels)`, raw intensities.
          spacing: `(D,)` its voxel size in micrometres; where it differs from the model's, the
            array is resampled. None: its voxels are like those of the training images.

        Returns:
          Points `(N, D)` float32 in voxels of the array, and their scores `(N,)`.

        Raises:
          InputError: see `predict_maps` and `rescaled`.
        """
        image = np.asarray(array)
        if image.ndim == self.config.data.ndim:
            image = image[..., None]
        scaled = rescaled(self, image, spacing)
        points, scores = predict(self, scaled.image)
        return scaled.back(points), scores


def inference_variables(state: TrainState) -> Any:
    """What the network needs of a training state."""
    return {"params": state.params, "batch_stats": state.batch_stats}


@dataclasses.dataclass(frozen=True, eq=False)
class Rescaled:
    """An image on the voxels that a model was trained on.

    Attributes:
      image: `(*spatial, channels)`.
      factors: `(D,)` its voxels for each voxel of the original.
      changed: whether it is another image than the original.
    """

    image: np.ndarray
    factors: tuple[float, ...]
    changed: bool

    def back(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, D)` in voxels of the original."""
        if not self.changed:
            return points
        return ((points + 0.5) / self.factors - 0.5).astype(np.float32)


def rescaled(model: TrainedModel, image: np.ndarray, spacing: Sequence[float] | None) -> Rescaled:
    """An image resampled, linearly, to the voxel size that a model was trained on.

    Args:
      model: a trained model.
      image: `(*spatial, channels)` raw intensities.
      spacing: `(D,)` its voxel size in micrometres; None leaves it as it is, and so does one
        within 1 % of the model's.

    Raises:
      InputError: the model does not know its voxel size, or the image would have no voxel left.
    """
    shape = image.shape[:-1]
    same = Rescaled(image, (1.0,) * len(shape), False)
    if spacing is None:
        return same
    if not len(spacing) == len(shape) == len(model.spacing):
        raise InputError(
            f"the voxel size {tuple(spacing)} is not that of a {len(model.spacing)}D image"
        )
    if not model.spacing_known:
        raise InputError("the model was trained on images without a voxel size: do not rescale")
    if np.allclose(spacing, model.spacing, rtol=0.01):
        return same
    wanted = [
        round(n * ours / theirs)
        for n, ours, theirs in zip(shape, spacing, model.spacing, strict=True)
    ]
    if min(wanted) < 1:
        raise InputError(
            f"voxels of {tuple(spacing)} um are too fine to be resampled to the model's"
            f" {model.spacing}: nothing of {shape} would be left"
        )
    factors = tuple(new / old for new, old in zip(wanted, shape, strict=True))
    channels = [
        ndimage.zoom(channel, factors, order=1, mode="nearest", grid_mode=True)
        for channel in np.moveaxis(image.astype(np.float32, copy=False), -1, 0)
    ]
    return Rescaled(np.stack(channels, -1), factors, True)


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
    if image.ndim - 1 != config.data.ndim or image.shape[-1] != model.channels:
        raise InputError(
            f"the image is {image.ndim - 1}D with {image.shape[-1]} channels, the model was trained"
            f" on {config.data.ndim}D images with {model.channels}"
        )
    values = model.normalisation(image)
    axes = range(config.data.ndim) if config.predict.flips else ()
    flips = [f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n)]
    mean = np.zeros((*values.shape[:-1], 1 + config.target.count_head), np.float32)
    for flip in flips:
        mean += np.flip(maps.compute(config, model.variables, np.flip(values, flip)), flip)
    mean /= len(flips)
    if config.target.kernel == "gaussian":
        return Maps(mean[..., 0], mean[..., 0])
    return Maps(mean[..., 0], mean[..., 1] if config.target.count_head else None)


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
    if not (split and config.target.count_head and config.detect.split_from):
        return points, scores
    assert found.density is not None
    unit = config.target.unit or min(model.spacing)
    return merged.split_merged(
        points,
        scores,
        model.count_factor * found.density,
        least=config.detect.split_from,
        reach=3 * config.target.count_sigma * unit,
        spacing=model.spacing,
    )


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
    return batches.peak_value(model.config, batches.target_geometry(model.config, model.spacing))


def count(model: TrainedModel, image: np.ndarray) -> int:
    """The number of cells in an image, see `predict`."""
    return len(predict(model, image)[0])
