"""Folders of images and volumes with their dots beside them: one's own, and the light-sheet sets.

`cells.tif` (or .tiff, .png) is an image, `cells.csv` its dots, `cells_labels.tif` its instance
labels, `cells_valid.tif` a mask of where its dots are complete.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from cellcount_jax.data.formats import (
    IMAGE_SUFFIXES,
    check_points_inside,
    read_image,
    read_labels,
    read_mask,
    read_points,
)
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.data.splits import permuted, take
from cellcount_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Entry:
    """The files of one image; None where there is no such file."""

    name: str
    image: Path
    points: Path | None = None
    labels: Path | None = None
    valid: Path | None = None


def load_folder(
    directory: Path, *, num_labelled: int, num_unlabelled: int, test_fraction: float, seed: int
) -> Dataset:
    """A folder of one's own: images with a CSV file are labelled, the others are not.

    The test set is the subfolder `test/` where there is one. Otherwise `test_fraction` of the
    labelled images, chosen by `seed`, are held out: the rounded number, but at least one, if
    there are three or more labelled images; none if there are fewer.

    Args:
      directory: the folder.
      num_labelled: training images whose dots are used, in sorted order; -1 = all.
      num_unlabelled: training images used without dots: those that have none, then the labelled
        ones that `num_labelled` leaves over; -1 = all.
      test_fraction: in [0, 1).
      seed: of the choice of held-out images.

    Returns:
      The data set, with the test set 'test' or none.

    Raises:
      InputError: dots, labels or a mask without image, no image with dots, two files of one
        name, a file that cannot be used, more images asked for than there are.
    """
    if not 0 <= test_fraction < 1:
        raise InputError(f"config.data.test_fraction = {test_fraction}: must be in [0, 1).")
    entries = scan(directory)
    with_dots = _with_dots(entries, directory)
    without = [entry for entry in entries if entry.points is None]
    if (directory / "test").is_dir():
        test = _labelled_part(directory / "test")
    else:
        held_out = 0
        if test_fraction > 0 and len(with_dots) >= 3:
            share = int(test_fraction * len(with_dots) + 0.5)
            held_out = min(max(1, share), len(with_dots) - 1)
        names = {entry.name for entry in permuted(with_dots, seed=seed)[:held_out]}
        test = [entry for entry in with_dots if entry.name in names]
        with_dots = [entry for entry in with_dots if entry.name not in names]
    return _dataset(
        f"Images from {directory}", with_dots, without, test, num_labelled, num_unlabelled
    )


def load_volumes(
    directory: Path,
    *,
    num_labelled: int,
    num_unlabelled: int,
    train_names: Sequence[str] = (),
    unlabelled_names: Sequence[str] = (),
) -> Dataset:
    """Volumes in `train/`, `test/` and `unlabeled/` (or `unlabelled/`), as the light-sheet sets.

    Args:
      directory: with the three folders; the last two may be missing.
      num_labelled: volumes of `train/` whose dots are used; -1 = all, or all of `train_names`.
      num_unlabelled: volumes used without dots: those of `unlabeled/`, sorted, then those of
        `train/` that are not labelled; -1 = all.
      train_names: which of `train/` may be labelled, in this order; () = all, sorted.
      unlabelled_names: which volumes may be used without dots, in this order; () = all.

    Returns:
      The data set, with the test set 'test' where there is such a folder.

    Raises:
      InputError: as `load_folder`; or an image that is not a volume, an unknown name.
    """
    if not (directory / "train").is_dir():
        raise InputError(f"{directory}: has no folder train/, where the labelled volumes are.")
    train = {entry.name: entry for entry in _labelled_part(directory / "train")}
    with_dots = _named(train.values(), train_names, key="config.data.train_names")
    left_over = [entry for entry in train.values() if entry not in with_dots]
    spellings = [directory / name for name in ("unlabeled", "unlabelled")]
    present = [folder for folder in spellings if folder.is_dir()]
    if len(present) > 1:
        raise InputError(f"{present[0]}: and {present[1]} are both there; one is needed.")
    without = [entry for folder in present for entry in scan(folder)] + left_over
    without = _named(without, unlabelled_names, key="config.data.unlabelled_names")
    test = _labelled_part(directory / "test") if (directory / "test").is_dir() else []
    dataset = _dataset(
        f"Volumes from {directory}",
        with_dots,
        without,
        test,
        num_labelled,
        num_unlabelled,
    )
    for sample in (*dataset.labelled, *dataset.unlabelled, *dataset.tests.get("test", ())):
        if len(sample.shape) != 3:
            raise InputError(
                f"{sample.source}: a volume with axes z, y, x is needed, this has the spatial"
                f" shape {'x'.join(map(str, sample.shape))}."
            )
    return dataset


def scan(directory: Path) -> list[Entry]:
    """The images of a folder, with the files that belong to each.

    Files that begin with a dot are ignored, and files of other kinds, which the log names.

    Args:
      directory: the folder; its subfolders are not looked at.

    Returns:
      One entry an image, sorted by name.

    Raises:
      InputError: two files of one name, or dots, labels or a mask without what they belong to.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        if path.name.startswith("."):
            continue
        role_and_name = _role_and_name(path)
        if role_and_name is None:
            logging.info("%s: not an image and not a CSV file, ignored.", path)
            continue
        role, name = role_and_name
        files = found.setdefault(name, {})
        if role in files:
            raise InputError(
                f"{path}: and {files[role].name} have the same name; one of them is needed."
            )
        files[role] = path
    for name, files in found.items():
        if "image" not in files:
            raise InputError(
                f"{next(iter(files.values()))}: there is no image {name}"
                f" ({', '.join(IMAGE_SUFFIXES)}) beside it that it belongs to."
            )
        for role in ("labels", "valid"):
            if role in files and "points" not in files:
                raise InputError(f"{files[role]}: goes with dots, but there is no {name}.csv.")
    return [Entry(name, **files) for name, files in sorted(found.items())]


def read_entry(entry: Entry, *, with_dots: bool) -> Sample:
    """Reads the files of one image.

    Args:
      entry: the files.
      with_dots: whether to read dots, labels and mask too.

    Returns:
      The sample.

    Raises:
      InputError: a file that cannot be used, or that does not fit the image.
    """
    image = read_image(entry.image)
    shape = image.pixels.shape[:-1]
    points = labels = valid = None
    if with_dots and entry.points is not None:
        points = read_points(entry.points, ndim=len(shape))
        check_points_inside(points, shape, entry.points)
        if entry.labels is not None:
            labels = read_labels(entry.labels)
            _check_shape(labels, shape, entry.labels, entry.image)
            if labels.max() > len(points):
                raise InputError(
                    f"{entry.labels}: labels up to {labels.max()}, but {entry.points} has"
                    f" {len(points)} rows; label i is row i."
                )
        if entry.valid is not None:
            valid = read_mask(entry.valid)
            _check_shape(valid, shape, entry.valid, entry.image)
    return Sample(
        entry.name,
        image.pixels,
        points,
        spacing=image.spacing or (1.0,) * len(shape),
        spacing_known=image.spacing is not None,
        valid=valid,
        labels=labels,
        source=str(entry.image),
    )


def _named(entries: Iterable[Entry], names: Sequence[str], *, key: str) -> list[Entry]:
    """The entries of these names, in this order; all of them if there are no names."""
    if not names:
        return list(entries)
    there = {entry.name: entry for entry in entries}
    for name in names:
        if name not in there:
            raise InputError(
                f"{key} = {tuple(names)}: there is no volume {name!r}; there are"
                f" {', '.join(there)}."
            )
    if len(set(names)) < len(names):
        raise InputError(f"{key} = {tuple(names)}: a name stands there twice.")
    return [there[name] for name in names]


def _dataset(
    description: str,
    with_dots: list[Entry],
    without: list[Entry],
    test: list[Entry],
    num_labelled: int,
    num_unlabelled: int,
) -> Dataset:
    labelled = take(with_dots, num_labelled, key="config.data.num_labelled", least=1)
    rest = [*without, *with_dots[len(labelled) :]]
    unlabelled = take(rest, num_unlabelled, key="config.data.num_unlabelled")
    tests = {"test": tuple(read_entry(entry, with_dots=True) for entry in test)} if test else {}
    return Dataset(
        description,
        labelled=tuple(read_entry(entry, with_dots=True) for entry in labelled),
        unlabelled=tuple(read_entry(entry, with_dots=False) for entry in unlabelled),
        tests=tests,
    )


def _with_dots(entries: list[Entry], directory: Path) -> list[Entry]:
    if not entries:
        raise InputError(f"{directory}: has no image ({', '.join(IMAGE_SUFFIXES)}).")
    with_dots = [entry for entry in entries if entry.points is not None]
    if not with_dots:
        raise InputError(
            f"{directory}: none of its {len(entries)} images has dots; {entries[0].name}.csv beside"
            f" {entries[0].image.name} would be its dots."
        )
    return with_dots


def _labelled_part(directory: Path) -> list[Entry]:
    """The images of a folder in which every one must have dots."""
    entries = scan(directory)
    _with_dots(entries, directory)
    for entry in entries:
        if entry.points is None:
            raise InputError(f"{entry.image}: an image here needs dots, and there is no CSV file.")
    return entries


def _role_and_name(path: Path) -> tuple[str, str] | None:
    suffix, name = path.suffix.lower(), path.stem
    if name.lower().endswith(".ome"):
        name = name[:-4]
    if suffix == ".csv":
        return "points", name
    if suffix not in IMAGE_SUFFIXES:
        return None
    for role in ("labels", "valid"):
        if name.endswith("_" + role):
            return role, name.removesuffix("_" + role)
    return "image", name


def _check_shape(array: np.ndarray, shape: tuple[int, ...], path: Path, image: Path) -> None:
    if array.shape != shape:
        raise InputError(
            f"{path}: is {'x'.join(map(str, array.shape))}, its image {image} is"
            f" {'x'.join(map(str, shape))}."
        )
