"""The folders of images of `few_labels.py`: which are labelled, unlabelled, and scored on.

Of a set's training images a fixed part is `develop`: its labels choose between methods, and it is
in no draw of labelled images. A folder for `develop` has these images in test/ and the set's test
images nowhere; a folder for `test` has the test images there, and those of `develop` unlabelled.
All is links, but for the dots of VGG, which are images there.
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from few_labels_cells import ALL, Cell

from cellcount_jax.data.entries import Entry, scan
from cellcount_jax.data.public_sets import load_vgg
from cellcount_jax.data.sample import permuted
from cellcount_jax.images.files import replacing_folder
from cellcount_jax.images.points import write_points

# Path in a folder -> the file that it is a link to, or dots `(N, D)` that are written.
Layout = dict[str, Path | np.ndarray]

_SPLIT = 5455  # seed of the permutation that `develop` is the beginning of
_DEVELOP_NUCLEI = 60
_DEVELOP_VGG = 40
_DEVELOP_MICROGLIA = "6871"
_LABELLED_MICROGLIA = "1874"


def prepare(cell: Cell, data: Path, images: Path) -> None:
    """Makes the folder that a cell reads, where it needs one and there is none that is right.

    Args:
      cell: any.
      data: the folder of all data sets.
      images: the folder that the cell's folder is in.
    """
    if not cell.images:
        return
    images.mkdir(parents=True, exist_ok=True)
    with (images / f".{cell.images}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may need the same folder
        wanted, folder = layout(cell, data.resolve()), images / cell.images
        if not _is_there(folder, wanted):
            with replacing_folder(folder) as temporary:
                _make(temporary, wanted)


def layout(cell: Cell, data: Path) -> Layout:
    """What a cell's folder holds.

    Args:
      cell: one with `images`.
      data: the folder of all data sets, absolute.
    """
    if cell.dataset == "vgg":
        return _vgg(data / "vgg", cell.labelled)
    if cell.dataset == "microglia":
        return _microglia(data / "lightsheet_microglia")
    return _nuclei(data / "nuclei2d", cell)


def _nuclei(directory: Path, cell: Cell) -> Layout:
    train = scan(directory / "train")
    order = permuted(train, seed=_SPLIT)
    develop, others = order[:_DEVELOP_NUCLEI], order[_DEVELOP_NUCLEI:]
    if cell.part == "develop":
        train, test = others, develop
    else:
        test = scan(directory / "test")
    if cell.labelled == ALL:
        labelled = train
    else:
        # Sorted first: a draw does not hang on the split. Nested: the beginning of a permutation.
        drawn = permuted(sorted(others, key=lambda entry: entry.name), seed=cell.draw)
        labelled = drawn[: cell.labelled]
    names = {entry.name for entry in labelled}
    found: Layout = {}
    for entry in train:
        found |= _links(entry, "", with_dots=entry.name in names)
    for entry in test:
        found |= _links(entry, "test/", with_dots=True)
    return found


def _microglia(directory: Path) -> Layout:
    """One volume labelled, the other one of train/ scored on."""
    train = {entry.name: entry for entry in scan(directory / "train")}
    found = _links(train[_LABELLED_MICROGLIA], "train/", with_dots=True)
    found |= _links(train[_DEVELOP_MICROGLIA], "test/", with_dots=True)
    for entry in scan(directory / "unlabeled"):
        found |= _links(entry, "unlabeled/", with_dots=False)
    return found


def _vgg(directory: Path, labelled: int) -> Layout:
    """The first of the training images labelled, the last scored on."""
    loaded = load_vgg(directory, num_labelled=-1, num_unlabelled=0, split_seed=_SPLIT).labelled
    first_of_test = len(loaded) - _DEVELOP_VGG
    found: Layout = {}
    for i, sample in enumerate(loaded):
        place = "test/" if i >= first_of_test else ""
        found[f"{place}{sample.name}.png"] = Path(sample.source)
        if i < labelled or i >= first_of_test:
            assert sample.points is not None
            found[f"{place}{sample.name}.csv"] = sample.points
    return found


def _links(entry: Entry, place: str, *, with_dots: bool) -> Layout:
    files = entry.files if with_dots else [entry.image]
    return {f"{place}{path.name}": path for path in files}


def _is_there(folder: Path, wanted: Layout) -> bool:
    files = {
        str(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    return files.keys() == wanted.keys() and all(
        files[name].readlink() == target
        for name, target in wanted.items()
        if isinstance(target, Path)
    )


def _make(folder: Path, wanted: Mapping[str, Path | np.ndarray]) -> None:
    for name, content in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            write_points(path, content)
