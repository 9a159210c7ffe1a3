"""Folders of training images for the bundled models, from the public sets in ../shared/data.

    python launch/model_images.py nuclei2d data/nuclei2d

The folder is as `cellcount train` and `configs/` read it: images with their dots beside them, and
`test/` with images that are not learned from, which are whole, and of their own size, in
`validation/`. The test images of the sets are never looked at, but for `mbm_test`, which are them.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cellcount_jax.data.entries import Entry
from cellcount_jax.data.entry_content import read_entry
from cellcount_jax.data.folder import load_folder
from cellcount_jax.data.public_sets import load_mbm, load_vgg
from cellcount_jax.data.sample import Sample
from cellcount_jax.data.scaled import scaled
from cellcount_jax.data.synthetic import synthetic_dataset
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points

DIAMETER = 16.0  # pixels of a cell in all images, config.data.diameter of the models
_EDGE = 320  # pixels of a piece, at most
_LEAST = 100  # and at least, which a crop of the training fits in
_HELD_OUT = 10  # one of so many images is held out
_EMPTY = 4  # one of so many pieces without a cell is kept
_VGG_DIAMETER = 10.2  # pixels; VGG has no labels to measure it in
_WHOLE = 0.5  # of a cell's largest section: what a slice shows less of is neither cell nor not


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An image with its dots.

    Attributes:
      sample: the image.
      diameter: of its cells in pixels; None = the model learns it at its own size.
    """

    sample: Sample
    diameter: float | None = None

    def resized(self) -> Sample:
        """The image with cells of about `DIAMETER`, and not too small for a crop."""
        if self.diameter is None:
            return self.sample
        factor = max(DIAMETER / max(self.diameter, 4.0), _LEAST / min(self.sample.shape))
        return scaled(self.sample, (factor, factor))


def nuclei2d(data: Path) -> Iterator[Drawn]:
    """Fluorescence: real nuclei, VGG, the generator, and slices of light-sheet volumes."""
    for sample in _folder(data / "nuclei2d" / "train"):
        yield Drawn(sample, diameter_of(sample.labels))
    vgg = load_vgg(data / "vgg", num_labelled=25, num_unlabelled=0, split_seed=5455)
    for sample in vgg.labelled:
        grey = dataclasses.replace(sample, image=sample.image.max(-1, keepdims=True))
        yield Drawn(grey, _VGG_DIAMETER)
    generated = synthetic_dataset(ndim=2, seed=1, num_labelled=15, num_unlabelled=0, num_test=0)
    for sample in generated.labelled:
        yield Drawn(sample, diameter_of(sample.labels))
    microglia = data / "lightsheet_microglia"
    for sample in _folder(microglia / "train"):
        yield from slices(sample, step=20)
    for sample in _folder(microglia / "more"):
        yield from slices(sample, step=20)
    for sample in _folder(data / "lightsheet_cfos" / "train"):
        yield from slices(sample, step=16)


def nuclei_he(data: Path) -> Iterator[Drawn]:
    """Haematoxylin and eosin, as they are: nuclei of many sizes, and MBM's training images."""
    yield from map(Drawn, _folder(data / "nuclei_he" / "train"))
    mbm = load_mbm(data / "mbm", num_labelled=15, num_unlabelled=0, split_seed=5455)
    yield from map(Drawn, mbm.labelled)


def mbm_test(data: Path) -> Iterator[Drawn]:
    """MBM's test images, as a folder with dots."""
    mbm = load_mbm(data / "mbm", num_labelled=15, num_unlabelled=0, split_seed=5455)
    yield from map(Drawn, mbm.tests["test"])


def microglia3d(data: Path) -> Iterator[Drawn]:
    """All labelled volumes of microglia but the test ones, and those without labels."""
    microglia = data / "lightsheet_microglia"
    labelled = [*_folder(microglia / "train"), *_folder(microglia / "more")]
    yield from map(Drawn, labelled)
    known = {sample.name for sample in labelled}
    for path in sorted((microglia / "unlabeled").glob("*.tif")):
        if path.stem not in known:
            yield Drawn(read_entry(Entry(path.stem, path), with_dots=False))


SETS: dict[str, Callable[[Path], Iterator[Drawn]]] = {
    "nuclei2d": nuclei2d,
    "nuclei_he": nuclei_he,
    "mbm_test": mbm_test,
    "microglia3d": microglia3d,
}
# Of which pieces are made, and some images held out.
_PIECES = ("nuclei2d", "nuclei_he")


def _folder(path: Path) -> tuple[Sample, ...]:
    found = load_folder(path, num_labelled=-1, num_unlabelled=0, test_fraction=0, seed=0)
    return found.labelled


def diameter_of(labels: np.ndarray | None) -> float:
    """The diameter of the circle of the median area of some cells; `DIAMETER` if there are none."""
    assert labels is not None
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    return 2 * math.sqrt(float(np.median(areas)) / math.pi) if areas.size else DIAMETER


def slices(volume: Sample, *, step: int) -> Iterator[Drawn]:
    """Every so many slices of a labelled volume as images.

    A dot is where a cell's section is at least half as large as its largest; smaller sections lie
    outside the valid region.
    """
    assert volume.labels is not None
    labels = volume.labels
    areas = np.stack([np.bincount(plane.ravel(), minlength=labels.max() + 1) for plane in labels])
    whole = areas >= _WHOLE * areas.max(0)
    for z in range(step // 2, len(labels), step):
        plane = labels[z]
        present = np.unique(plane[plane > 0])
        cells = present[whole[z, present]]
        dots = [np.argwhere(plane == cell).mean(0) for cell in cells]
        if not dots:
            continue
        kept = np.where(np.isin(plane, cells), plane, 0)
        image = Sample(
            name=f"{volume.name}_z{z}",
            image=volume.image[z],
            points=np.asarray(dots, np.float32),
            spacing=(1.0, 1.0),
            valid=(plane == 0) | (kept > 0),
            labels=kept,
            source=f"{volume.source}, z {z}",
        )
        yield Drawn(image, diameter_of(kept))


def pieces(sample: Sample) -> Iterator[Sample]:
    """An image in pieces of at most `_EDGE`, without those that are too small for a crop."""
    assert sample.points is not None
    counts = [math.ceil(n / _EDGE) for n in sample.shape]
    edges = [
        np.linspace(0, n, c + 1).round().astype(int)
        for n, c in zip(sample.shape, counts, strict=True)
    ]
    for i, j in np.ndindex(*counts):
        low = np.array([edges[0][i], edges[1][j]])
        high = np.array([edges[0][i + 1], edges[1][j + 1]])
        part = tuple(map(slice, low, high))
        inside = ((sample.points >= low - 0.5) & (sample.points < high - 0.5)).all(1)
        yield dataclasses.replace(
            sample,
            name=f"{sample.name}_{i}{j}",
            image=sample.image[part],
            points=sample.points[inside] - low.astype(np.float32),
            valid=None if sample.valid is None else sample.valid[part],
            labels=None,
        )


def write(sample: Sample, folder: Path) -> None:
    """Writes an image, its dots if it has any, and where they are complete."""
    path = folder / f"{sample.name}.tif"
    values = sample.image if sample.image.shape[-1] > 1 else sample.image[..., 0]
    spacing = sample.spacing if sample.spacing_known else None
    write_image(path, values, spacing=spacing, ndim=len(sample.shape))
    if sample.points is not None:
        write_points(path.with_suffix(".csv"), sample.points)
    if sample.valid is not None and not sample.valid.all():
        write_image(folder / f"{sample.name}_valid.tif", sample.valid)


def main() -> None:
    """Writes the folder of one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=SETS)
    parser.add_argument("folder", type=Path, help="to make; must not exist")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    samples = SETS[options.model](options.data)
    options.folder.mkdir(parents=True)
    if options.model in _PIECES:
        write_pieces(samples, options.folder)
    else:
        for drawn in samples:
            write(drawn.sample, options.folder)
    number = len([p for p in options.folder.rglob("*.tif") if not p.stem.endswith("_valid")])
    print(f"{options.folder}: {number} images")


def write_pieces(images: Iterator[Drawn], folder: Path) -> None:
    """Writes images in pieces, and few pieces without a cell.

    Every tenth image goes into `test/`, and as it is into `validation/`, where it is found as a
    user would have it.
    """
    test, validation, empty = folder / "test", folder / "validation", 0
    for i, drawn in enumerate(images):
        held_out = i % _HELD_OUT == _HELD_OUT - 1
        if held_out and drawn.sample.points is not None and len(drawn.sample.points):
            write(drawn.sample, validation)
        for piece in pieces(drawn.resized()):
            assert piece.points is not None
            empty += not len(piece.points)
            if len(piece.points) or empty % _EMPTY == 0:
                write(piece, test if held_out else folder)


if __name__ == "__main__":
    main()
