"""Intensities to the network's range, the same way in training and prediction.

An image becomes `(f(image) - centre) / scale`, with centre and scale per channel: its own, those
of each place in it ('contrast', 'signal_to_noise'), or those of the training set ('dataset'),
which are stored with the model. What is an image's own is measured over all of it, a part in
memory at a time; any part can be normalised then, as within the whole.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images import background as local
from cellcount_jax.images import levels as global_levels
from cellcount_jax.images.background import ROUNDING, Blocks
from cellcount_jax.images.block_grid import BlockGrid
from cellcount_jax.images.logarithms import median_and_spread
from cellcount_jax.images.regions import (
    Array,
    Readable,
    Reader,
    Region,
    Resampled,
    all_of,
    original_of,
    placed,
)

# The measures of every place against its surroundings, by name, and what they are at most.
_LOCAL = {"signal_to_noise": local.signal_to_noise, "contrast": local.contrast}
_LOCAL_MOST = {"signal_to_noise": local.most_signal_to_noise, "contrast": local.most_contrast}
_SLAB_VOXELS = 2**24  # about what is in memory while an image is measured
_QUICK_VOXELS = 2**17
# 'levels' is linear up to a quarter of the cells' height, and logarithmic above.
_LINEAR = 0.25
_PER_CHANNEL = ("centre", "scale", "padding")  # arrays of `Measured`


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """A normalisation with what it takes of one image.

    Attributes:
      method: as of `Normalisation`.
      centre: `(channels,)`, not of the local ones.
      scale: `(channels,)`, not of the local ones.
      padding: `(channels,)` intensities that become the centre, NaN for none, of 'levels' only.
      blocks: one a channel, of the local ones only.
    """

    method: str
    centre: np.ndarray | None = None
    scale: np.ndarray | None = None
    padding: np.ndarray | None = None
    blocks: tuple[Blocks, ...] = ()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For a .npz file; `from_arrays` reads it back."""
        arrays = {"method": np.array(self.method)}
        for name in _PER_CHANNEL:
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        for i, blocks in enumerate(self.blocks):
            named = {f.name: getattr(blocks, f.name) for f in dataclasses.fields(blocks)}
            arrays |= {f"{name}_{i}": np.asarray(value) for name, value in named.items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Measured:
        """Reads what `to_arrays` gave."""
        blocks = []
        for i in itertools.takewhile(lambda i: f"median_{i}" in arrays, itertools.count()):
            shape = tuple(arrays[f"shape_{i}"].tolist())
            padding = float(arrays[f"padding_{i}"])
            blocks.append(Blocks(shape, arrays[f"median_{i}"], arrays[f"noise_{i}"], padding))
        per_channel = {name: arrays.get(name) for name in _PER_CHANNEL}
        return cls(str(arrays["method"]), **per_channel, blocks=tuple(blocks))

    def __call__(self, values: np.ndarray, region: Region | None = None) -> np.ndarray:
        """Normalises a part of the image.

        Args:
          values: `(*region, channels)` intensities.
          region: `(D,)` slices with start and stop; default the whole image.

        Returns:
          float32 of the same shape, equal to that part of the whole image's.
        """
        if self.blocks:
            function, found = _LOCAL[self.method], np.empty(values.shape, np.float32)
            shape = values.shape[:-1]
            outer = region or all_of(shape)
            # A part at a time, which stays in the processor's cache.
            for slab in _slabs(shape, _QUICK_VOXELS):
                place = placed(slab, outer)
                for channel, blocks in enumerate(self.blocks):
                    part: tuple[Any, ...] = (*slab, channel)
                    found[part] = function(values[part], blocks, place)
            return found
        if self.method == "robust_log":
            values = np.log1p(values)
        assert self.centre is not None
        if self.padding is not None:
            values = np.where(values == self.padding, self.centre, values)
        found = (values - self.centre) / self.scale
        if self.method == "levels":
            found = np.arcsinh(found / _LINEAR) / math.asinh(1 / _LINEAR)
        return found.astype(np.float32)

    def most(self, intensity: float, region: Region) -> float:
        """What voxels of up to an intensity become at most, where that is positive.

        Args:
          intensity: raw.
          region: `(D,)` slices with start and stop, of an image of one channel that is measured
            against its surroundings.
        """
        (blocks,) = self.blocks
        return _LOCAL_MOST[self.method](intensity, blocks, region)


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """How intensities are normalised; a part of a trained model.

    Attributes:
      method: 'dataset', mean and deviation over the training images [authors, VGG];
        'standardise', mean and deviation of each image; 'robust_log', median and MAD of
        log(1 + image) over the voxels that are not 0; 'levels', for 2D images of bright cells
        with any gain, offset and padding, asinh(4 x) / asinh(4) where x is 0 at the background
        and 1 at the cells, see `levels.py`; and two for volumes that differ in
        density, brightness and background: 'contrast', each place's distance to its own
        background relative to the tissue's brightness, and 'signal_to_noise', the same in
        units of its own noise, see `background.py`.
      centre: `(channels,)`, for 'dataset' only.
      scale: `(channels,)`, for 'dataset' only.
      block: `(D,)` voxels, over which the background is one, for the last two only.
    """

    method: str
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    block: tuple[float, ...] = ()

    def __call__(self, image: np.ndarray, *, original: np.ndarray | None = None) -> np.ndarray:
        """Normalises one image `(*spatial, channels)` to float32 of the same shape.

        Args:
          image: raw intensities.
          original: the same before it was resampled, if it was; see `measure_image`.

        Raises:
          InputError: see `measure`.
        """
        whole = Array(image if original is None else original, image.ndim - 1)
        return self.measure_image(Resampled(whole, image.shape[:-1]))(image)

    def measure_image(self, image: Readable) -> Measured:
        """Measures an image, of one that is resampled the original.

        Interpolation lowers noise, and makes many intensities of few: measured after it, a spread
        would depend on whether an image is resampled by 1 % or by 2 %.

        Raises:
          InputError: see `measure`.
        """
        original, grid = original_of(image), self.grid(image)
        if grid is None:
            return self.measure(original.read, original.shape, channels=image.channels)
        blocks = local.measure_blocks(original.read, grid, channels=image.channels)
        return self.of_blocks(blocks, image.shape)

    def grid(self, image: Readable) -> BlockGrid | None:
        """The blocks of an image that are measured, of one that is resampled those of the original;
        None where it is not measured by blocks."""
        if self.method not in _LOCAL:
            return None
        shape = original_of(image).shape
        sides = zip(self.block, shape, image.shape, strict=True)
        return BlockGrid.of(shape, [edge * old / new for edge, old, new in sides])

    def of_blocks(self, blocks: Sequence[Blocks], shape: Sequence[int]) -> Measured:
        """What normalises an image of a shape, from the blocks of its original."""
        own = (dataclasses.replace(one, shape=tuple(shape)) for one in blocks)
        return Measured(self.method, blocks=tuple(own))

    def measure(self, read: Reader, shape: Sequence[int], *, channels: int) -> Measured:
        """Measures an image, of which a part is in memory at a time.

        Args:
          read: gives a part of the image.
          shape: `(D,)` of the image.
          channels: of the image.

        Returns:
          What normalises any part of the image.

        Raises:
          InputError: negative intensities under a logarithm, another number of channels, or, with
            'robust_log', more different intensities than a histogram here holds.
        """
        if self.method in _LOCAL:
            grid = BlockGrid.of(shape, self.block)
            return self.of_blocks(local.measure_blocks(read, grid, channels=channels), shape)
        if self.method == "levels":
            found = global_levels.measure(read, shape, channels=channels)
            padding = [math.nan if level.padding is None else level.padding for level in found]
            return Measured(
                self.method,
                np.asarray([level.background for level in found]),
                np.asarray([level.scale for level in found]),
                np.asarray(padding),
            )
        if self.method == "dataset":
            if channels != len(self.centre):
                raise InputError(
                    f"the image has {channels} channels, the model was trained on"
                    f" {len(self.centre)}"
                )
            return Measured(self.method, np.asarray(self.centre), np.asarray(self.scale))
        slabs = (read(region) for region in _slabs(shape, _SLAB_VOXELS))
        if self.method == "standardise":
            return Measured(self.method, *_standard(slabs))
        centre, scale = median_and_spread(slabs)
        return Measured(self.method, centre, _usable(scale))

    @property
    def reads_all(self) -> bool:
        """Whether `measure` reads every part of an image once: others read none, or some."""
        return self.method not in ("dataset", "levels")

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Normalisation:
        """Reads what `to_dict` gave."""
        names = ("centre", "scale", "block")
        return cls(stored["method"], **{name: tuple(stored[name]) for name in names})


def fit(
    images: Iterable[np.ndarray],
    method: str,
    *,
    background: float = 120.0,
    spacing: Sequence[float] = (),
) -> Normalisation:
    """The normalisation of a training set.

    Args:
      images: all training images, labelled or not, each `(*spatial, channels)`.
      method: see `Normalisation`.
      background: length over which the background is one, in the units of `spacing`, for
        'contrast' and 'signal_to_noise'.
      spacing: `(D,)` voxel size of the images, for the same.
    """
    if method in _LOCAL:
        return Normalisation(method, block=background_block(background, spacing))
    if method != "dataset":
        return Normalisation(method)
    centre, scale = _moments(images)
    return Normalisation(method, tuple(map(float, centre)), tuple(map(float, scale)))


def background_block(background: float, spacing: Sequence[float]) -> tuple[int, ...]:
    """The voxels of a block over which the background is one.

    Args:
      background: its edge, in the units of `spacing`.
      spacing: `(D,)` voxel size.
    """
    return tuple(max(2, round(background / edge)) for edge in spacing)


def _slabs(shape: Sequence[int], voxels: int) -> Iterator[Region]:
    """Parts along the first axis of about some voxels, which depend on nothing but the shape."""
    depth = max(1, voxels // max(1, math.prod(shape[1:])))
    rest = all_of(shape[1:])
    for start in range(0, shape[0], depth):
        yield (slice(start, min(start + depth, shape[0])), *rest)


def _moments(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel over images, or parts of one, of any sizes."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for image in images:
        flat = image.reshape(-1, image.shape[-1]).astype(np.float64)
        count += len(flat)
        total = total + flat.sum(0)
        squares = squares + np.square(flat).sum(0)
    mean = total / count
    return mean, _usable(np.sqrt(np.maximum(squares / count - mean**2, 0)))


def _standard(slabs: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, at least that of rounding to grey levels."""
    steps: list[np.ndarray] = []

    def watched() -> Iterator[np.ndarray]:
        for slab in slabs:
            apart = np.abs(np.diff(slab.astype(np.float64), axis=-2))
            axes = tuple(range(slab.ndim - 1))
            steps.append(np.min(apart, axes, where=apart > 0, initial=math.inf))
            yield slab

    mean, deviation = _moments(watched())
    step = np.min(steps, 0)
    return mean, np.maximum(deviation, np.where(np.isfinite(step), ROUNDING * step, 0))


def _usable(scale: np.ndarray) -> np.ndarray:
    """A constant channel stays constant instead of being divided by zero."""
    return np.where(scale > 1e-6, scale, 1.0)
