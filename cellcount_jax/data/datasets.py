"""A data set from its config: its reader, its labels, and the checks that all of it fits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.data.folder import load_folder, load_volumes
from cellcount_jax.data.labelled_area import parse_region
from cellcount_jax.data.public_sets import load_mbm, load_vgg
from cellcount_jax.data.resampling import resample
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError
from cellcount_jax.images.point_units import DotUnit
from cellcount_jax.images.points import check_points_inside
from cellcount_jax.images.regions import size_text, voxels_of
from cellcount_jax.images.selection import Selection

_SPACING_TOLERANCE = 0.01  # relative; above it the same cell has another size in voxels


def load(data: Any, *, seed: int) -> Dataset:
    """Reads the data set that a config describes, and checks it as a whole.

    Args:
      data: the `data` part of the config, of one of the kinds 'vgg', 'mbm', 'volumes', 'folder'.
        Counts of -1 mean all; `region` is where the labels of the training images count,
        `held_out_region` makes a test set 'held_out' of the same images; `spacing` replaces
        the voxel size of the files.
      seed: chooses the held-out images of a folder without `test/`; the public sets are split
        by `data.split_seed`.

    Returns:
      The data set; its description gives kind, numbers and place of the images.

    Raises:
      InputError: names the key or the file, what was found, and what would be right.
    """
    if data.kind not in _READERS:
        raise InputError(f"config.data.kind = {data.kind!r}: must be one of {', '.join(_READERS)}.")
    dataset = _READERS[data.kind](_existing_folder(data.dir), data, seed)
    if data.spacing:
        dataset = _with_spacing(dataset, tuple(data.spacing))
    for sample in _all_samples(dataset):
        check_sample(sample)
    dataset = _with_regions(dataset, data.region, data.held_out_region)
    dataset = resample(dataset, data)
    _check_agreement(dataset)
    if not any(_points_in_valid(sample) for sample in dataset.labelled):
        raise InputError(
            f"config.data.dir = {str(data.dir)!r}: none of the {len(dataset.labelled)} labelled"
            " training images has a dot"
            + (
                f" in config.data.region = {data.region!r}."
                if data.region
                else " where labels count."
            )
        )
    return dataclasses.replace(dataset, description=_describe(dataset))


def check_sample(sample: Sample) -> None:
    """Makes sure that a sample keeps the contract of `Sample`.

    Args:
      sample: from a reader or a generator.

    Raises:
      InputError: an array of the wrong shape or type, a dot outside, a spacing that is no size.
    """
    ndim = sample.image.ndim - 1
    who = sample.source or sample.name
    if ndim not in (2, 3) or sample.image.dtype != np.float32 or not sample.image.size:
        raise InputError(
            f"{who}: an image of shape {sample.image.shape} and type {sample.image.dtype};"
            " float32 of (y, x, channels) or (z, y, x, channels) is needed."
        )
    if len(sample.spacing) != ndim or not _are_sizes(sample.spacing):
        raise InputError(
            f"{who}: a voxel size of {sample.spacing}; {ndim} positive numbers are needed."
        )
    if sample.points is not None:
        if sample.points.ndim != 2 or sample.points.shape[1] != ndim:
            raise InputError(
                f"{who}: points of shape {sample.points.shape}; (N, {ndim}) is needed."
            )
        if sample.points.dtype != np.float32 or not np.isfinite(sample.points).all():
            raise InputError(
                f"{who}: points of type {sample.points.dtype}; finite float32 is needed."
            )
        check_points_inside(sample.points, sample.shape, who)
    for name, array, dtype in (("valid", sample.valid, np.bool_), ("labels", sample.labels, "i4")):
        if array is not None and (array.shape != sample.shape or array.dtype != dtype):
            raise InputError(
                f"{who}: {name} of shape {array.shape} and type {array.dtype};"
                f" {np.dtype(dtype)} of {sample.shape} is needed."
            )
    if sample.valid is not None and not sample.valid.any():
        raise InputError(f"{who}: its valid region is empty.")


_READERS: Mapping[str, Callable[[Path, Any, int], Dataset]] = {
    "vgg": lambda directory, data, seed: load_vgg(
        directory, **_counts(data), split_seed=data.split_seed
    ),
    "mbm": lambda directory, data, seed: load_mbm(
        directory, **_counts(data), split_seed=data.split_seed
    ),
    "volumes": lambda directory, data, seed: load_volumes(
        directory,
        **_counts(data),
        train_names=tuple(data.train_names),
        unlabelled_names=tuple(data.unlabelled_names),
        selection=selection_of(data),
        known=_unit_of_dots(data),
    ),
    "folder": lambda directory, data, seed: load_folder(
        directory,
        **_counts(data),
        test_fraction=data.test_fraction,
        seed=seed,
        selection=selection_of(data),
        known=_unit_of_dots(data),
    ),
}


def selection_of(data: Any) -> Selection:
    """The part of each image that is used, of the `data` part of a config."""
    time = None if data.time < 0 else data.time
    part = (data.channel or None, time, data.level)
    return Selection(*part, scene=data.scene or None, axes=data.axes.upper() or None)


def _unit_of_dots(data: Any) -> DotUnit:
    # Where labels count in a part alone, dots may well lie there alone.
    everywhere = not (data.region or data.held_out_region)
    return DotUnit(data.points_unit or None, tuple(data.spacing) or None, everywhere)


def _counts(data: Any) -> dict[str, int]:
    return {"num_labelled": data.num_labelled, "num_unlabelled": data.num_unlabelled}


def _existing_folder(text: str) -> Path:
    if not str(text):
        raise InputError("config.data.dir = '': the folder with the images is needed.")
    directory = Path(text)
    if not directory.is_dir():
        problem = "is a file" if directory.exists() else "does not exist"
        raise InputError(
            f"config.data.dir = {str(text)!r}: {problem}; a folder with images is needed."
        )
    if all(path.name.startswith(".") for path in directory.iterdir()):
        raise InputError(f"config.data.dir = {str(text)!r}: the folder is empty.")
    return directory


def _all_samples(dataset: Dataset) -> Iterator[Sample]:
    yield from dataset.labelled
    yield from dataset.unlabelled
    for samples in dataset.tests.values():
        yield from samples


def _with_spacing(dataset: Dataset, spacing: tuple[float, ...]) -> Dataset:
    def replaced(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        for sample in samples:
            if len(spacing) != len(sample.shape) or not all(
                0 < edge < math.inf for edge in spacing
            ):
                raise InputError(
                    f"config.data.spacing = {spacing}: {len(sample.shape)} positive numbers of"
                    f" micrometres are needed for {sample.source} of {size_text(sample.shape)}."
                )
        return tuple(
            dataclasses.replace(sample, spacing=spacing, spacing_known=True) for sample in samples
        )

    return dataclasses.replace(
        dataset,
        labelled=replaced(dataset.labelled),
        unlabelled=replaced(dataset.unlabelled),
        tests={name: replaced(samples) for name, samples in dataset.tests.items()},
    )


def _are_sizes(spacing: Sequence[float]) -> bool:
    return all(0 < edge < math.inf for edge in spacing)


def _check_agreement(dataset: Dataset) -> None:
    """All images of a set go through one model: same axes, channels and voxel size."""
    first = dataset.labelled[0]
    for sample in _all_samples(dataset):
        pair = f"{first.source} and {sample.source}"
        if len(sample.shape) != len(first.shape):
            raise InputError(
                f"{pair}: the one is {len(first.shape)}D, the other {len(sample.shape)}D; all"
                " images of a set must have the same dimensions."
            )
        if sample.image.shape[-1] != first.image.shape[-1]:
            raise InputError(
                f"{pair}: the one has {first.image.shape[-1]} channels, the other"
                f" {sample.image.shape[-1]}; all images of a set must have the same."
            )
        near = all(
            abs(a - b) <= _SPACING_TOLERANCE * max(a, b)
            for a, b in zip(first.spacing, sample.spacing, strict=True)
        )
        if sample.spacing_known != first.spacing_known or not near:
            raise InputError(
                f"{pair}: the one has voxels of {_voxel(first)}, the other of {_voxel(sample)};"
                " resample them to one size, or set data.spacing if the files are wrong."
            )


def _with_regions(dataset: Dataset, region: str, held_out_region: str) -> Dataset:
    def within(sample: Sample, text: str) -> Sample:
        mask = _mask(text, sample)
        valid = mask if sample.valid is None else mask & sample.valid
        if not valid.any():
            raise InputError(f"region {text!r}: holds no valid voxel of {sample.source}.")
        return dataclasses.replace(sample, valid=valid)

    tests = dict(dataset.tests)
    if held_out_region:
        for sample in dataset.labelled:
            if (_mask(region, sample) & _mask(held_out_region, sample)).any():
                raise InputError(
                    f"config.data.held_out_region = {held_out_region!r}: overlaps"
                    f" config.data.region = {region!r}, so that training labels would be tested on."
                )
        tests["held_out"] = tuple(within(sample, held_out_region) for sample in dataset.labelled)
    if not region:
        return dataclasses.replace(dataset, tests=tests)
    labelled = tuple(within(sample, region) for sample in dataset.labelled)
    return dataclasses.replace(dataset, labelled=labelled, tests=tests)


def _mask(region: str, sample: Sample) -> np.ndarray:
    """`(*shape)` bool: the voxels of a region, see `parse_region`."""
    mask = np.zeros(sample.shape, bool)
    mask[parse_region(region, sample.shape)] = True
    return mask


def _points_in_valid(sample: Sample) -> int:
    assert sample.points is not None  # of a labelled sample
    if sample.valid is None:
        return len(sample.points)
    voxels = voxels_of(sample.points)
    return int(sample.valid[tuple(voxels.T)].sum())


def _describe(dataset: Dataset) -> str:
    first = dataset.labelled[0]
    shapes = np.array(sorted({sample.shape for sample in _all_samples(dataset)}))
    smallest, largest = ("x".join(map(str, f(axis=0))) for f in (shapes.min, shapes.max))
    size = smallest if smallest == largest else f"{smallest} to {largest}"
    channels = first.image.shape[-1]
    tests = [f"{len(samples)} {name}" for name, samples in dataset.tests.items()] or ["0 test"]
    parts = [f"{len(dataset.labelled)} labelled", f"{len(dataset.unlabelled)} unlabelled", *tests]
    noun = "images" if len(first.shape) == 2 else "volumes"
    return (
        f"{dataset.description}: {', '.join(parts)} {noun} of {size},"
        f" {channels} channel{'s' if channels > 1 else ''}"
        + (f", voxels of {_voxel(first)}" if first.spacing_known else "")
    )


def _voxel(sample: Sample) -> str:
    if not sample.spacing_known:
        return "unknown size"
    return " x ".join(f"{edge:g}" for edge in sample.spacing) + " um"
