"""The images of `quarter_hour.py`: 10 labelled ones of nuclei2d beside unlabelled ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cellcount_jax.data.entries import Entry, scan
from cellcount_jax.data.sample import permuted
from cellcount_jax.data.synthetic import synthetic_dataset
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points

PREPARED = "nuclei2d_few"  # folder of a pack, as `layout` says
LABELLED = 10
# Of the 411 that are left; more do not fit into a pack.
UNLABELLED = 200

_SPLIT = 5455  # seed of the permutation of the training images
_NEVER_LABELLED = 60  # the first of it: other experiments choose their methods on these
_DRAW = 0  # seed of the permutation of the others, whose first ones are labelled


def layout(directory: Path, *, unlabelled: int = UNLABELLED) -> dict[str, Path]:
    """What a folder for training with few labels holds.

    Args:
      directory: nuclei2d, with train/ and test/.
      unlabelled: how many training images are taken without their dots, at most.

    Returns:
      Path in the folder -> the file there. Instance labels are left out: the config has the
      tolerance.

    Raises:
      InputError: the images are not there.
    """
    for part in ("train", "test"):
        if not (directory / part).is_dir():
            raise InputError(f"{directory / part}: no such folder.")
    order = permuted(scan(directory / "train"), seed=_SPLIT)
    others = sorted(order[_NEVER_LABELLED:], key=lambda entry: entry.name)
    drawn = permuted(others, seed=_DRAW)
    rest = drawn[LABELLED:] + order[:_NEVER_LABELLED]
    found: dict[str, Path] = {}
    for entry in drawn[:LABELLED]:
        found |= _files(entry, "", with_dots=True)
    for entry in permuted(rest, seed=_DRAW)[:unlabelled]:
        found |= _files(entry, "", with_dots=False)
    for entry in scan(directory / "test"):
        found |= _files(entry, "test/", with_dots=True)
    return found


def link(files: Mapping[str, Path], folder: Path) -> None:
    """Makes a new folder of links to files."""
    for name, path in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.resolve())


def make_up(folder: Path) -> None:
    """A folder of generated images in place of the real ones, for a trial."""
    made = synthetic_dataset(
        ndim=2, seed=0, num_labelled=2, num_unlabelled=2, num_test=1, shape=(64, 64)
    )
    for place, samples in (("", (*made.labelled, *made.unlabelled)), ("test", made.tests["test"])):
        for i, sample in enumerate(samples):
            path = folder / place / f"image{i}.tif"
            write_image(path, sample.image[..., 0], ndim=2)
            if sample.points is not None:
                write_points(path.with_suffix(".csv"), sample.points)


def _files(entry: Entry, place: str, *, with_dots: bool) -> dict[str, Path]:
    paths = [entry.image, entry.points if with_dots else None]
    return {f"{place}{path.name}": path for path in paths if path is not None}
