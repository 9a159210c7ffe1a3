"""An image as a model takes it: cells bright on dark and of the size that the model knows."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images import axes, levels
from cellcount_jax.images.regions import (
    MAX_RESAMPLING,
    SAME_SIZE,
    Inverted,
    Readable,
    Resampled,
    size_text,
)
from cellcount_jax.images.sources import Source
from cellcount_jax.inference import doubts
from cellcount_jax.inference.doubts import Doubt
from cellcount_jax.inference.job import Model

GIVEN, MEASURED, OF_TRAINING = "given", "measured", "as in training"
_READ_EDGE = 2048  # of the parts in which the highest intensity is looked for, in the last two axes


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """An image as a model takes it.

    Attributes:
      image: to be counted; the original itself, if nothing had to be changed.
      diameter: of the cells in pixels of the original, by which it was resampled; None if not.
      diameter_from: `GIVEN`, `MEASURED` in the image, or that `OF_TRAINING`, if its images
        were resampled by it; '' without a diameter.
      inverted_from: the highest intensity, from which all were subtracted; None if they were not.
    """

    image: Readable
    diameter: float | None = None
    diameter_from: str = ""
    inverted_from: float | None = None

    def back(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, D)` in voxels of the original."""
        return self.image.back(points) if isinstance(self.image, Resampled) else points


def fit(
    model: Model,
    image: Readable,
    *,
    spacing: Sequence[float] | None = None,
    diameter: float | None = None,
    invert: bool | None = None,
    inverted_from: float | None = None,
) -> Fitted:
    """Resamples, and inverts if that is wanted, an image for a model.

    Args:
      model: with `predict.estimate_diameter` it measures what is not given.
      image: raw intensities.
      spacing: `(D,)` its voxel size in micrometres; None leaves the voxels as they are, where no
        diameter is known.
      diameter: of its cells in pixels, about; replaces the voxel size.
      invert: whether cells are dark on bright; None: they are not, and if it seems so that is an
        error.
      inverted_from: the highest intensity of an image that is inverted, if it is known.

    Raises:
      InputError: the image does not fit the model, or seems to be inverted; the voxel size or the
        diameter of cells of the model is not known; or the image would have no voxel left, or far
        too many.
    """
    model.check_fits(len(image.shape), image.channels)
    if invert:
        inverted_from = _highest(image) if inverted_from is None else inverted_from
        image = Inverted(image, inverted_from)
    measured = None
    if model.config.predict.estimate_diameter and (diameter is None or invert is None):
        found = levels.measure(image.read, image.shape, channels=image.channels)[0]
        if invert is None and found.inverted:
            raise InputError(
                "the cells seem to be dark on a bright background, and the model knows bright ones"
                " on dark; --invert (invert=True) exchanges dark and bright, --no-invert"
                " (invert=False) counts the image as it is"
            )
        measured = found.diameter
    diameter_from = "" if diameter is None else GIVEN
    if diameter is None and measured is not None:
        diameter, diameter_from = measured, MEASURED
    elif diameter is None and spacing is None and model.usual_diameter is not None:
        diameter, diameter_from = model.usual_diameter, OF_TRAINING
    return Fitted(
        _resampled(model, image, spacing, diameter),
        diameter,
        diameter_from,
        inverted_from if invert else None,
    )


def check_sizes(model: Model, *, rescale: bool, diameter: float | None) -> None:
    """Makes sure that the options of a command by which images are resampled fit a model.

    Raises:
      InputError: they do not, or exclude each other.
    """
    ndim = model.config.data.ndim
    check_diameter(diameter, ndim=ndim, name="--diameter", of_volumes="with --rescale")
    if diameter is not None and rescale:
        raise InputError("--diameter and --rescale both resample the image; give one of them")
    if rescale and not model.spacing_known:
        raise InputError("--rescale: the model was trained on images without a voxel size")


def check_diameter(diameter: float | None, *, ndim: int, name: str, of_volumes: str) -> None:
    """Makes sure that a cell's diameter, if it is given, can be one in pixels of a plane.

    Args:
      diameter: of the cells, or None.
      ndim: spatial dimensions of the model.
      name: what the user calls it.
      of_volumes: how volumes are resampled.

    Raises:
      InputError: it cannot.
    """
    if diameter is not None and (ndim == 3 or not 0 < diameter < math.inf):
        raise InputError(
            f"{name} {diameter}: is a positive number of pixels, for models of 2D images; volumes"
            f" are resampled {of_volumes}"
        )


@contextlib.contextmanager
def naming(model: Model, source: Source) -> Iterator[None]:
    """Puts the file, and the remedy if it is a channel or axes, into errors of fitting it."""
    try:
        yield
    except InputError as error:
        several = source.selection.channel is None and source.channels > model.channels
        hint = "; choose one with --channel" if several else ""
        if several and source.path.is_dir() and source.files:  # slices
            each = axes.remedy(source.axes[1:], source.stored_shape[1:], ndim=3)
            hint += f", or, if each file is a volume, give {each}" if each else ""
        if len(source.shape) != (ndim := model.config.data.ndim):
            hint = axes.remedy(source.axes, source.stored_shape, ndim=ndim)
            hint = f"; give {hint}" if hint else ""
        text = str(error).removeprefix(f"{source.path}: ")  # which reading has named already
        raise InputError(f"{source.path}: {text}{hint}") from error


def voxel_size_warning(model: Model, source: Source, *, rescale: bool) -> str | None:
    """A warning where the voxel size is unknown or not that of the training images; or None."""
    if not model.spacing_known or len(source.shape) != len(model.spacing):
        return None
    known = size_text(model.spacing)
    if source.spacing is None:
        found = f" (it says {source.spacing_found})" if source.spacing_found else ""
        return (
            f"warning: {source.path}: the file does not give the voxel size{found}; it is taken to"
            f" be that of the training images, {known} um. If it is another, give it with"
            " --spacing, and --rescale"
        )
    doubt = voxel_size_doubt(model, source, rescale=rescale)
    return None if doubt is None else f"warning: {source.path}: {doubt.text}"


def voxel_size_doubt(model: Model, source: Source, *, rescale: bool) -> Doubt | None:
    """The doubt about voxels that are not those of the training images; or None."""
    if not model.spacing_known:
        return None
    return doubts.voxel_size(model.spacing, source.spacing, rescaled=rescale)


def _resampled(
    model: Model, image: Readable, spacing: Sequence[float] | None, diameter: float | None
) -> Readable:
    """The image itself, where its voxels differ by less than 1 % from the model's, or resampled."""
    if diameter is not None:
        known = model.config.data.diameter
        if not known:
            raise InputError(
                "the model does not say how large its cells are, so that a diameter does not"
                " help; cellcount train (with --diameter) stores it, main.py with"
                " config.data.diameter"
            )
        factors = (known / diameter,) * len(image.shape)
        given, trained = f"cells of {diameter:g} pixels", f"{known:g}"
    elif spacing is None:
        return image
    else:
        if not len(spacing) == len(image.shape) == len(model.spacing):
            raise InputError(
                f"the voxel size {tuple(spacing)} is not that of a {len(model.spacing)}D image"
            )
        if not model.spacing_known:
            raise InputError("the model was trained on images without a voxel size: do not rescale")
        factors = tuple(ours / known for ours, known in zip(spacing, model.spacing, strict=True))
        given, trained = f"voxels of {tuple(spacing)} um", str(model.spacing)
    if np.allclose(factors, 1, rtol=SAME_SIZE):
        return image
    shape = tuple(round(n * f) for n, f in zip(image.shape, factors, strict=True))
    if min(shape) < 1:
        raise InputError(
            f"{given}, where the model knows {trained}: nothing of {image.shape} would be left"
        )
    if max(factors) > MAX_RESAMPLING:
        raise InputError(
            f"{given}, where the model knows {trained}: the image would be over"
            f" {MAX_RESAMPLING} times as long; is the number right?"
        )
    return Resampled(image, shape)


def _highest(image: Readable) -> float:
    """The highest intensity of an image of any size."""
    edges = (*(1,) * (len(image.shape) - 2), _READ_EDGE, _READ_EDGE)
    starts = (range(0, n, edge) for n, edge in zip(image.shape, edges, strict=True))
    highest = -math.inf
    for corner in itertools.product(*starts):
        sides = zip(corner, edges, image.shape, strict=True)
        part = image.read(tuple(slice(at, min(at + edge, n)) for at, edge, n in sides))
        highest = max(highest, float(part.max()))
    return highest
