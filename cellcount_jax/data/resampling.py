"""The images of a data set on the pixels or voxels of a model that training goes on from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.data.scaled import scaled
from cellcount_jax.errors import InputError
from cellcount_jax.images import levels
from cellcount_jax.images.regions import (
    MAX_RESAMPLING,
    SAME_SIZE,
    Array,
    Readable,
    size_text,
)


def resample(dataset: Dataset, data: Any) -> Dataset:
    """A data set on other voxels, with its dots, labels and valid regions.

    Args:
      dataset: as read.
      data: the `data` part of the config, of which `from_diameter` (with `diameter`) or
        `to_spacing` says what to resample to; without them all stays.

    Returns:
      The data set. Where cells are made as wide as the model's the voxel size counts no more, and
      distances are in pixels.

    Raises:
      InputError: names the image: its voxel size is needed and not known, or nothing of it, or far
        too much, would be left.
    """
    if not data.from_diameter and not data.to_spacing:
        return dataset
    # A region that is held out is of the same image as the labels beside it, which is kept once.
    images: dict[int, np.ndarray] = {}

    def changed(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        found = []
        for sample in samples:
            image = Array(sample.image, len(sample.shape))
            known = sample.spacing if sample.spacing_known else None
            wanted = factors(data, image, known, sample.source or sample.name)
            new = sample
            if wanted is not None:
                new = scaled(sample, wanted)
                shared = images.setdefault(id(sample.image), new.image)
                scale = tuple(float(a / b) for a, b in zip(new.shape, sample.shape, strict=True))
                new = dataclasses.replace(new, image=shared, scale=scale, original=sample.image)
            if data.from_diameter:
                ones = (1.0,) * len(sample.shape)
                new = dataclasses.replace(new, spacing=ones, spacing_known=False)
            elif wanted is not None:
                new = dataclasses.replace(new, spacing=tuple(map(float, data.to_spacing)))
            found.append(new)
        return tuple(found)

    return dataclasses.replace(
        dataset,
        labelled=changed(dataset.labelled),
        unlabelled=changed(dataset.unlabelled),
        tests={name: changed(samples) for name, samples in dataset.tests.items()},
    )


def factors(
    data: Any, image: Readable, spacing: Sequence[float] | None, source: Any
) -> tuple[float, ...] | None:
    """How much longer each axis of an image becomes.

    Args:
      data: the `data` part of the config.
      image: raw intensities.
      spacing: `(D,)` its voxel edges in um; None where they are not known.
      source: the image's file, for errors.

    Returns:
      `(D,)` factors; None where the image stays as it is.

    Raises:
      InputError: see `resample`.
    """
    shape = image.shape
    if data.from_diameter:
        diameter = data.from_diameter if data.from_diameter > 0 else _measured(image, source)
        if diameter is None:
            logging.warning(
                "%s: no cells can be told from its background, so that it stays as it is; if there"
                " are some, give their diameter",
                source,
            )
            return None
        found = (data.diameter / diameter,) * len(shape)
        about = f"cells of {diameter:.3g} pixels to {data.diameter:.3g}"
    elif data.to_spacing:
        wanted = tuple(map(float, data.to_spacing))
        found = tuple(
            own / to for own, to in zip(_known(spacing, wanted, shape, source), wanted, strict=True)
        )
        about = f"voxels of {size_text(tuple(map(float, spacing or ())))} um to {size_text(wanted)}"
    else:
        return None
    if np.allclose(found, 1, rtol=SAME_SIZE):
        return None
    new = [round(n * f) for n, f in zip(shape, found, strict=True)]
    if max(found) > MAX_RESAMPLING or min(new) < 1:
        raise InputError(
            f"{source}: {size_text(shape)} voxels, {about}: would become {size_text(new)}; is the"
            " size right?"
        )
    return found


def resampled_shape(
    data: Any, image: Readable, spacing: Sequence[float] | None, source: Any
) -> tuple[int, ...]:
    """The shape `(D,)` that an image has after `resample`; arguments as of `factors`."""
    found = factors(data, image, spacing, source)
    if found is None:
        return tuple(image.shape)
    return tuple(round(n * f) for n, f in zip(image.shape, found, strict=True))


def _measured(image: Readable, source: Any) -> float | None:
    """The diameter of an image's cells in pixels, as a count measures it; None without cells.

    Raises:
      InputError: its cells seem to be dark, and what was measured is the background.
    """
    found = levels.measure(image.read, image.shape, channels=image.channels)[0]
    if found.inverted:
        raise InputError(
            f"{source}: the cells seem to be dark on a bright background, and the model knows, and"
            " measures, bright ones on dark; invert the image before, or give the diameter of the"
            " cells to train on it as it is."
        )
    return found.diameter


def _known(
    spacing: Sequence[float] | None, wanted: Sequence[float], shape: Sequence[int], source: Any
) -> Sequence[float]:
    """An image's voxel edges, to be made `wanted`.

    Raises:
      InputError: they are not known, or of other dimensions.
    """
    if len(wanted) != len(shape):
        raise InputError(
            f"{source}: is {len(shape)}D, the voxels of the model, {size_text(tuple(wanted))} um,"
            f" are {len(wanted)}D; take another model."
        )
    if spacing is None:
        axes = ",".join("ZYX"[-len(shape) :])
        raise InputError(
            f"{source}: its voxel size is not known, and it is to be resampled to that of the"
            f" model, {size_text(tuple(wanted))} um; give it with data.spacing={axes}."
        )
    return spacing
