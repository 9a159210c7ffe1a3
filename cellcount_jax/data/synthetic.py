"""The built-in data set, made by the generator of `scene`: no download is needed."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from cellcount_jax.data import scene
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError


class _Default(NamedTuple):
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    spacing_known: bool
    count_range: tuple[int, int]
    numbers: tuple[int, int, int]  # labelled, unlabelled, test


_SETS = {
    2: _Default((256, 256), (1.0, 1.0), False, (74, 317), (8, 24, 20)),
    3: _Default((48, 96, 96), (3.0, 1.0, 1.0), True, (60, 160), (1, 4, 3)),
}


def synthetic_dataset(
    *,
    ndim: int,
    seed: int,
    num_labelled: int | None = None,
    num_unlabelled: int | None = None,
    num_test: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> Dataset:
    """Makes the built-in default set: what a run trains on when no folder is given.

    Args:
      ndim: 2 for images of 256x256 like VGG's, 3 for volumes of 48x96x96 with voxels of
        3 x 1 x 1 micrometres.
      seed: image i of a set depends on the seed, the set and i alone, so that the test
        images stay the same when the number of training images changes.
      num_labelled: training images with dots; 8 in 2D, 1 in 3D by default.
      num_unlabelled: training images without dots; 24 in 2D, 4 in 3D by default.
      num_test: images of the set "test"; 20 in 2D, 3 in 3D by default.
      shape: another spatial shape; the counts are scaled by its size.

    Returns:
      A `Dataset`; labelled and test images also carry instance labels.

    Raises:
      InputError: for a dimension, number or shape that is impossible.
    """
    if ndim not in _SETS:
        raise InputError(f"ndim is {ndim}; synthetic images are 2 or 3 dimensional.")
    default = _SETS[ndim]
    shape = default.shape if shape is None else tuple(shape)
    if len(shape) != ndim:
        raise InputError(f"shape is {shape}; {ndim}D images need {ndim} sizes.")
    given = {"num_labelled": num_labelled, "num_unlabelled": num_unlabelled, "num_test": num_test}
    counts = {
        name: usual if number is None else number
        for (name, number), usual in zip(given.items(), default.numbers, strict=True)
    }
    for (name, number), least in zip(counts.items(), (1, 0, 0), strict=True):
        if number < least:
            raise InputError(f"{name} is {number}; it must be at least {least}.")
    sets = [
        tuple(_sample(name.removeprefix("num_"), seed, part, i, shape) for i in range(number))
        for part, (name, number) in enumerate(counts.items())
    ]
    labelled, unlabelled, test = sets
    return Dataset(
        description="synthetic fluorescence images made by cellcount_jax (not real data): "
        f"{len(labelled)} labelled, {len(unlabelled)} unlabelled, {len(test)} test, "
        f"{'x'.join(map(str, shape))}",
        labelled=labelled,
        unlabelled=unlabelled,
        tests={"test": test} if test else {},
    )


def _sample(kind: str, seed: int, part: int, index: int, shape: tuple[int, ...]) -> Sample:
    default = _SETS[len(shape)]
    share = math.prod(shape) / math.prod(default.shape)
    lowest, highest = (round(share * n) for n in default.count_range)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), part), index)
    drawn = scene.generate(key, shape, spacing=default.spacing, count_range=(lowest, highest))
    image, points, mask, labels = (np.asarray(array) for array in drawn)
    known = kind != "unlabelled"
    return Sample(
        name=f"{kind}_{index:03d}",
        image=image,
        points=points[mask] if known else None,
        spacing=default.spacing,
        spacing_known=default.spacing_known,
        labels=labels if known else None,
        source=f"cellcount_jax.data.synthetic, seed {seed}",
    )
