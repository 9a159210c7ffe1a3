"""The two public sets whose dots are drawn in images: VGG cells and MBM bone marrow."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from cellcount_jax.data.sample import Dataset, Sample, permuted, take
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import read_dots, read_image


class _Protocol(NamedTuple):
    title: str
    names: str  # how the files are called, for messages
    parse: Callable[[str], tuple[str, bool] | None]  # file name -> (image name, has dots)
    rule: Literal["red", "boolean"]
    images: int
    train: int  # the first of the permutation; the others are the test set


def load_vgg(
    directory: Path, *, num_labelled: int, num_unlabelled: int, split_seed: int
) -> Dataset:
    """VGG cells (Lempitsky and Zisserman 2010): 100 training and 100 test images.

    The images in sorted order are permuted by `RandomState(split_seed)`; the first 100 are for
    training, of which the first `num_labelled` have dots and the next `num_unlabelled` none.

    Args:
      directory: with `NNNcell.png` and `NNNdots.png`, 200 of each.
      num_labelled: training images whose dots are used; -1 = all 100.
      num_unlabelled: training images used without dots; -1 = all that are left.
      split_seed: 5455 in the authors' code.

    Returns:
      The data set, with the test set 'test'.

    Raises:
      InputError: an image without dots or dots without image, another number of images, a file
        that cannot be used, more images asked for than there are.
    """
    protocol = _Protocol("VGG cells", "NNNcell.png and NNNdots.png", _vgg_name, "red", 200, 100)
    return _load(directory, protocol, num_labelled, num_unlabelled, split_seed)


def load_mbm(
    directory: Path, *, num_labelled: int, num_unlabelled: int, split_seed: int
) -> Dataset:
    """MBM bone marrow (Kainz et al. 2015, Cohen et al. 2017): 15 training, 29 test images.

    As `load_vgg`, with 44 images `*_NN_KKK.png` and dots `*_NN_dots_KKK.png`.

    Args:
      directory: with the images and dots.
      num_labelled: training images whose dots are used; -1 = all 15.
      num_unlabelled: training images used without dots; -1 = all that are left.
      split_seed: of the permutation.

    Returns:
      The data set, with the test set 'test'.

    Raises:
      InputError: as `load_vgg`.
    """
    names = "*_NN_KKK.png and *_NN_dots_KKK.png"
    protocol = _Protocol("MBM bone marrow", names, _mbm_name, "boolean", 44, 15)
    return _load(directory, protocol, num_labelled, num_unlabelled, split_seed)


def _vgg_name(file: str) -> tuple[str, bool] | None:
    match = re.fullmatch(r"(\d+)(cell|dots)\.png", file)
    return (match[1], match[2] == "dots") if match else None


def _mbm_name(file: str) -> tuple[str, bool] | None:
    match = re.fullmatch(r"(.*_\d+)(_dots)?(_\d+)\.png", file)
    return (match[1] + match[3], match[2] is not None) if match else None


def _load(
    directory: Path, protocol: _Protocol, num_labelled: int, num_unlabelled: int, split_seed: int
) -> Dataset:
    pairs = _pairs(directory, protocol)
    order = permuted(sorted(pairs), seed=split_seed)
    train, test = order[: protocol.train], order[protocol.train :]
    labelled = take(train, num_labelled, key="config.data.num_labelled", least=1)
    rest = train[len(labelled) :]
    unlabelled = take(rest, num_unlabelled, key="config.data.num_unlabelled")

    def read(name: str, *, with_dots: bool) -> Sample:
        image, dots = pairs[name]
        pixels = read_image(image).pixels
        points = read_dots(dots, rule=protocol.rule, shape=pixels.shape[:-1]) if with_dots else None
        return Sample(name, pixels, points, spacing=(1.0, 1.0), source=str(image))

    return Dataset(
        description=f"{protocol.title} from {directory}",
        labelled=tuple(read(name, with_dots=True) for name in labelled),
        unlabelled=tuple(read(name, with_dots=False) for name in unlabelled),
        tests={"test": tuple(read(name, with_dots=True) for name in test)},
    )


def _pairs(directory: Path, protocol: _Protocol) -> dict[str, tuple[Path, Path]]:
    """Image and dots file by name; every one has both, and all of the set are there."""
    images: dict[str, Path] = {}
    dots: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        parsed = protocol.parse(path.name)
        if parsed is not None:
            name, has_dots = parsed
            (dots if has_dots else images)[name] = path
    for name, path in images.items():
        if name not in dots:
            raise InputError(f"{path}: has no image of its dots; files are {protocol.names}.")
    for name, path in dots.items():
        if name not in images:
            raise InputError(f"{path}: has no image beside it; files are {protocol.names}.")
    if len(images) != protocol.images:
        raise InputError(
            f"{directory}: {len(images)} images with dots ({protocol.names}), but the split of"
            f" {protocol.title} is defined on all {protocol.images}; for other images use"
            " data.kind=folder."
        )
    return {name: (images[name], dots[name]) for name in images}
