"""Folders of images and volumes with their dots beside them: one's own, and the light-sheet sets.

Which files belong to an image is in `entries.py`, what they hold in `entry_content.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from absl import logging

from cellcount_jax.data.entries import (
    SCANNED,
    Entry,
    labelled_share,
    none_is_labelled,
    scan,
)
from cellcount_jax.data.entry_content import read_entry, without_dots
from cellcount_jax.data.sample import Dataset, Sample, permuted, take
from cellcount_jax.errors import InputError
from cellcount_jax.images.point_units import UNKNOWN_UNIT, DotUnit
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.selection import WHOLE_FILE, Selection


def load_folder(
    directory: Path,
    *,
    num_labelled: int,
    num_unlabelled: int,
    test_fraction: float,
    seed: int,
    selection: Selection = WHOLE_FILE,
    known: DotUnit = UNKNOWN_UNIT,
) -> Dataset:
    """A folder of one's own: images with a CSV file are labelled, the others are not.

    Of an image with a `.label.json` the dots count where blocks are done. If none are it is
    unlabelled; if not all are it is used without dots as well, unless it is held out.

    The test set is the subfolder `test/` where there is one. Otherwise `test_fraction` of the
    labelled images, chosen by `seed`, are held out: the rounded number, but at least one, if
    there are three or more labelled images; none if there are fewer.

    Args:
      directory: the folder.
      num_labelled: training images whose dots are used, in sorted order; -1 = all.
      num_unlabelled: training images used without dots: those that have none, then the labelled
        ones that `num_labelled` leaves over, then those labelled in a part; -1 = all.
      test_fraction: in [0, 1).
      seed: of the choice of held-out images.
      selection: the part of each image that is used, see `entries.selected`.
      known: what is known of the unit of the dots.

    Returns:
      The data set, with the test set 'test' or none.

    Raises:
      InputError: dots, labels, a mask or blocks without image, no image with dots or none
        with a block that is done, two files of one name, a file that cannot be used, more images
        asked for than there are.
    """
    if not 0 <= test_fraction < 1:
        raise InputError(f"config.data.test_fraction = {test_fraction}: must be in [0, 1).")
    entries = scan(directory)
    with_dots = _with_dots(entries, directory)
    without = [entry for entry in entries if entry not in with_dots]
    for entry in without:
        if entry.blocks is not None:
            logging.info("%s: none of its blocks is done, used without dots.", entry.blocks)
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
        f"Images from {directory}",
        with_dots,
        without,
        test,
        num_labelled,
        num_unlabelled,
        functools.partial(read_entry, selection=selection, known=known),
    )


def load_volumes(
    directory: Path,
    *,
    num_labelled: int,
    num_unlabelled: int,
    train_names: Sequence[str] = (),
    unlabelled_names: Sequence[str] = (),
    selection: Selection = WHOLE_FILE,
    known: DotUnit = UNKNOWN_UNIT,
) -> Dataset:
    """Volumes in `train/`, `test/` and `unlabeled/` (or `unlabelled/`), as the light-sheet sets.

    Args:
      directory: with the three folders; the last two may be missing.
      num_labelled: volumes of `train/` whose dots are used; -1 = all, or all of `train_names`.
      num_unlabelled: volumes used without dots: those of `unlabeled/`, sorted, then those of
        `train/` that are not labelled, then, without `unlabelled_names`, those that are in a
        part; -1 = all.
      train_names: which of `train/` may be labelled, in this order; () = all, sorted.
      unlabelled_names: which volumes may be used without dots, in this order; () = all.
      selection: the part of each volume that is used, see `entries.selected`.
      known: what is known of the unit of the dots.

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
        functools.partial(read_entry, selection=selection, known=known),
        partly=not unlabelled_names,
    )
    for sample in (*dataset.labelled, *dataset.unlabelled, *dataset.tests.get("test", ())):
        if len(sample.shape) != 3:
            raise InputError(
                f"{sample.source}: a volume with axes z, y, x is needed, this has the spatial"
                f" shape {size_text(sample.shape)}."
            )
    return dataset


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
    read: Callable[..., Sample],
    *,
    partly: bool = True,
) -> Dataset:
    chosen = take(with_dots, num_labelled, key="config.data.num_labelled", least=1)
    rest = [*without, *with_dots[len(chosen) :]]
    rest += [entry for entry in chosen if partly and labelled_share(entry) < 1]
    unlabelled = take(rest, num_unlabelled, key="config.data.num_unlabelled")
    labelled = {entry: read(entry, with_dots=True) for entry in chosen}
    tests = {"test": tuple(read(entry, with_dots=True) for entry in test)} if test else {}
    return Dataset(
        description,
        labelled=tuple(labelled.values()),
        unlabelled=tuple(
            without_dots(labelled[entry]) if entry in labelled else read(entry, with_dots=False)
            for entry in unlabelled
        ),
        tests=tests,
    )


def _with_dots(entries: list[Entry], directory: Path) -> list[Entry]:
    if not entries:
        raise InputError(f"{directory}: has no image ({SCANNED}).")
    with_dots = [entry for entry in entries if labelled_share(entry) > 0]
    begun = [entry for entry in entries if entry.blocks is not None]
    if not with_dots and begun:
        raise InputError(
            f"{directory}: no block of any image is done, so that nothing can be learned; mark"
            " blocks done where all cells have dots, for example in"
            f" `cellcount label {begun[0].image}`."
        )
    if not with_dots:
        raise InputError(
            f"{directory}: none of its {len(entries)} images has dots; {entries[0].name}.csv beside"
            f" {entries[0].image.name} would be its dots."
        )
    return with_dots


def _labelled_part(directory: Path) -> list[Entry]:
    """The images of a folder in which every one must have dots."""
    entries = scan(directory)
    with_dots = _with_dots(entries, directory)
    for entry in entries:
        if entry.points is None:
            raise InputError(f"{entry.image}: an image here needs dots, and there is no CSV file.")
        if entry not in with_dots:
            raise InputError(none_is_labelled(entry))
    return entries
