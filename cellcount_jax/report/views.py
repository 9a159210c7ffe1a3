"""Pictures of parts of an image of any size: a projected slab, a plane, a crop.

A 2D image is a volume of one plane here. A large part is read in bands, and where that would take
too long, as single rows or planes apart from each other.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cellcount_jax.images.regions import Region, all_of
from cellcount_jax.report.pictures import as_image, displayed_channels, rescaled

MAX_PICTURE_VOXELS = 512_000_000  # only some rows of a larger region are read
MAX_READ_VALUES = 64_000_000  # at once
_MAX_SIDE_PLANES = 128  # of a side view, where every plane is stored as a whole
_THUMBNAIL = (160, 120)  # greatest width and height in pixels
_MAX_PNG_PIXELS = 150_000  # larger pictures are JPEG


class Volume(NamedTuple):
    """An image as `(z, y, x, channels)`, read in parts.

    Attributes:
      read: gives `(*region, channels)` float32.
      shape: z, y, x.
      edges: `(3,)` of a voxel, the shorter of y and x is 1.
      channels: how many `read` gives.
      deep: whether it is cheap to read a few voxels of many planes.
    """

    read: Callable[[Region], np.ndarray]
    shape: tuple[int, ...]
    edges: np.ndarray
    channels: int
    deep: bool


class Picture(NamedTuple):
    """A region of an image as pixels.

    Attributes:
      pixels: `(height, width, 1 or 3)` float32.
      region: z, y, x, in voxels.
      axis: the one that is looked along: 0 (z) or 1 (y).
      covered: `(2,)` voxels, down and to the right, that the pixels stand for; the last ones
        may reach beyond the region.
      tint: `(height, width, 3)`, the colours, 0 to 1, that the pixels are shown in; None = none.
    """

    pixels: np.ndarray
    region: Region
    axis: int
    covered: tuple[int, int]
    tint: np.ndarray | None = None


def open_volume(
    read: Callable[[Region], np.ndarray],
    shape: Sequence[int],
    *,
    spacing: Sequence[float] | None,
    chunks: Sequence[int] | None,
) -> Volume:
    """A volume that is read in parts, see `page.write_page`; a small one is read at once."""
    flat = len(shape) == 2
    sizes = (1,) * flat + tuple(map(int, shape))
    edges = np.ones(3) if spacing is None else np.array([1.0] * flat + list(spacing), np.float64)
    edges[int(flat) :] /= edges[-2:].min()

    def part(region: Region) -> np.ndarray:
        return read(region[1:])[None] if flat else read(region)

    channels = int(part((slice(0, 1),) * 3).shape[-1])
    deep = flat or chunks is None or int(chunks[0]) > 1
    if math.prod(sizes) * channels > MAX_READ_VALUES:
        return Volume(part, sizes, edges, channels, deep)
    whole = part(all_of(sizes))
    return Volume(whole.__getitem__, sizes, edges, channels, True)


def project(volume: Volume, region: Region, *, axis: int, box: tuple[int, int]) -> Picture:
    """The maximum along an axis, of voxels averaged to about the size of a pixel.

    Averages come first, so that noise does not win where many voxels share a pixel.

    Args:
      volume: the image.
      region: z, y, x.
      axis: to look along: 0 gives y down and x to the right, 1 gives z down and x to the right.
      box: width and height in pixels that the picture fits in; fewer voxels give fewer pixels.
    """
    down = 1 - axis
    size = [part.stop - part.start for part in region]
    width, height = fit(size[down] * volume.edges[down], size[2] * volume.edges[2], box)
    across = math.ceil(size[2] / width)
    step = math.ceil(size[down] / height)
    line = size[axis] * size[2] * volume.channels
    keep = min(step, max(1, MAX_READ_VALUES // line))
    if down == 0 and not volume.deep:
        step = max(step, math.ceil(size[0] / _MAX_SIDE_PLANES))
        keep = 1
    elif math.prod(size) > MAX_PICTURE_VOXELS:
        keep = min(keep, max(1, step * MAX_PICTURE_VOXELS // math.prod(size)))
    together = max(1, MAX_READ_VALUES // (line * step)) if keep == step else 1

    rows = []
    for first in range(region[down].start, region[down].stop, step * together):
        last = min(first + (step * together if keep == step else keep), region[down].stop)
        part = list(region)
        part[down] = slice(first, last)
        values = displayed_channels(volume.read(tuple(part)))
        values = _averaged(_averaged(values, across, 2), step, down)
        rows.append(values.max(axis=axis))
    pixels = np.concatenate(rows)
    return Picture(pixels, region, axis, (len(pixels) * step, pixels.shape[1] * across))


def fit(down: float, right: float, box: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels, at least 1, of an area that fills a box in one direction."""
    scale = min(box[0] / right, box[1] / down)
    return max(1, round(right * scale)), max(1, round(down * scale))


def levels(pixels: np.ndarray, *, highest: float | None = None) -> np.ndarray:
    """Stretches the contrast of a picture, the same for all its channels.

    Args:
      pixels: `(height, width, channels)`.
      highest: what is shown brightest; None = the 99.8th percentile of the brightest channel.
        The darkest is the 1st percentile of the darkest channel.

    Returns:
      The same shape, uint8; all 0 where everything is of one value.
    """
    lowest = float(np.percentile(pixels.min(axis=-1), 1))
    highest = float(np.percentile(pixels.max(axis=-1), 99.8)) if highest is None else highest
    if highest <= lowest:
        lowest, highest = float(pixels.min()), float(pixels.max())
    return np.rint(255 * rescaled(pixels, lowest, highest)).astype(np.uint8)


def thumbnail(picture: Picture) -> np.ndarray:
    """A picture in small, `(height, width, 1 or 3)` uint8."""
    image = as_image(levels(picture.pixels))
    image.thumbnail(_THUMBNAIL)
    small = np.asarray(image)
    return small[..., None] if small.ndim == 2 else small


def encode(picture: np.ndarray) -> str:
    """A picture `(height, width, 1 or 3)` uint8 as a data URL, without loss where it is small."""
    image = as_image(picture)
    file = io.BytesIO()
    if picture.shape[0] * picture.shape[1] <= _MAX_PNG_PIXELS:
        image.save(file, format="PNG", compress_level=3)
        kind = "png"
    else:
        image.save(file, format="JPEG", quality=88, subsampling=0)
        kind = "jpeg"
    return data_url(file.getvalue(), kind)


def data_url(content: bytes, kind: str) -> str:
    """An image file, "png" or "jpeg", as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _averaged(values: np.ndarray, step: int, axis: int) -> np.ndarray:
    """Means of `step` neighbours along an axis, of fewer at its end."""
    length = values.shape[axis]
    if step == 1 or length == 1:
        return values
    starts = np.arange(0, length, step)
    counts = np.diff(np.append(starts, length)).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = len(starts)
    return np.asarray(np.add.reduceat(values, starts, axis=axis) / counts.reshape(shape))
