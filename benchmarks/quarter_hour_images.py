"""The images of `quarter_hour.py`: 10 labelled ones of nuclei2d beside unlabelled ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import few_labels_images
from few_labels_cells import REFERENCE, Cell

from cellcount_jax.data.sample import permuted
from cellcount_jax.data.synthetic import synthetic_dataset
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points

PREPARED = "nuclei2d_few"  # folder of a pack, as `layout` says
# Whose images these are; the method says nothing of them.
CELL = Cell("nuclei2d", REFERENCE, labelled=10, draw=0, seed=0)
# Of the 411 that are left; more do not fit into a pack.
UNLABELLED = 200


def layout(data: Path, *, unlabelled: int = UNLABELLED) -> dict[str, Path]:
    """What a folder for training with few labels holds.

    Args:
      data: of all data sets, with nuclei2d.
      unlabelled: how many training images are taken without their dots, at most.

    Returns:
      Path in the folder -> the file there. Instance labels are left out: the config has the
      tolerance.

    Raises:
      InputError: the images are not there.
    """
    for folder in ("nuclei2d/train", "nuclei2d/test"):
        if not (data / folder).is_dir():
            raise InputError(f"{data / folder}: no such folder.")
    found = {
        name: path
        for name, path in few_labels_images.layout(CELL, data.resolve()).items()
        if isinstance(path, Path) and not path.stem.endswith("_labels")
    }
    alone = sorted(
        n for n in found if "/" not in n and str(Path(n).with_suffix(".csv")) not in found
    )
    left_out = set(permuted(alone, seed=CELL.draw)[unlabelled:])
    return {name: path for name, path in found.items() if name not in left_out}


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
