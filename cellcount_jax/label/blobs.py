"""Bright cells in arrays: filter, Otsu's threshold from a histogram, cells above it, local maximum.

Pure functions, whose results for a part of an image are those for the whole, as far as the part
reaches. Threshold, opening, components and watershed are scikit-image's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from cellcount_jax.errors import InputError, how_to_install
from cellcount_jax.images.regions import Region, all_of, voxels_of

try:
    from skimage import filters, measure, morphology, segmentation
except ImportError:  # of the extra `label`
    filters = None  # type: ignore[assignment]

# Bits of a 32-bit float that a bin of the histogram ignores: bins are 0.01 % of their value wide,
# at any brightness, so that no range must be known before.
_IGNORED_BITS = 10
_BINS = 1 << (32 - _IGNORED_BITS)
_KERNEL_SIGMAS = 4.0  # half-width of a Gaussian kernel
_SNAP_SIGMA_VOXELS = 1.0  # of the Gaussian against noise


@dataclasses.dataclass(frozen=True, eq=False)
class BlobSettings:
    """Parameters of the search for bright cells; lengths are in the unit of `edges`.

    Attributes:
      edges: `(D,)` of a voxel, in um or px.
      smooth: sigma of a Gaussian; 0 = none.
      factor: by which Otsu's threshold is multiplied: larger ones give fewer cells.
      opening: radius of the ball that must fit into a cell; below the finest edge it has no effect.
      smallest: cells of a smaller volume (area), in unit^D, are left out.
      background: sigma of a wide Gaussian that is subtracted, where the background is uneven; some
        six radii of a cell. 0 = none.
      split: half-width of the box in which a cell's brightest place is the brightest; 0 = a
        component is one cell.

    Raises:
      InputError: scikit-image is not installed; a parameter is negative or not finite.
    """

    edges: np.ndarray
    smooth: float
    factor: float
    opening: float
    smallest: float
    background: float = 0.0
    split: float = 0.0

    def __post_init__(self) -> None:
        if filters is None:
            raise InputError(
                f"Proposals need scikit-image, which is not installed: {how_to_install('label')}"
            )
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise InputError(f"Proposals: {field.name} is {value}; it must be 0 or more.")

    @property
    def filter_reach(self) -> np.ndarray:
        """`(D,)` voxels around one that its filtered value depends on."""
        sigma = max(self.smooth, self.background) / self.edges
        return (_KERNEL_SIGMAS * sigma + 0.5).astype(int)

    @property
    def split_reach(self) -> np.ndarray:
        """`(D,)` voxels: half the box of `split`, at least 1."""
        return np.maximum(1, np.floor(self.split / self.edges)).astype(int)

    @property
    def margin(self) -> np.ndarray:
        """`(D,)` voxels of filtered values around one that decide if it is above, and a peak."""
        opening = np.ceil(2 * self.opening / self.edges).astype(int) + 1
        return np.maximum(opening, self.split_reach + 1)


def otsu(values: np.ndarray, settings: BlobSettings) -> tuple[np.ndarray, np.ndarray]:
    """Bright cells by Otsu's threshold, as the paper's labelling tool proposes them.

    Smoothing, Otsu's threshold, opening, connected components (voxels that share a face), and the
    centroid of each. With `split`, a component is cut by a watershed from its brightest places,
    as cells that touch are one component.

    Args:
      values: `(*spatial,)` intensities, cells bright.
      settings: the parameters.

    Returns:
      `(N, D)` float64 voxels, ordered by z, y, x, and `(N,)` scores: (peak - threshold) / peak, the
      peak the cell's largest value after smoothing. 0 at the threshold, 0.5 at twice the
      threshold, always below 1 but with a threshold of 0; gain does not change it.
    """
    found = filtered(values, settings)
    limits = threshold(histogram(found), settings)
    if limits is None:
        return np.zeros((0, found.ndim)), np.zeros(0)
    return cells(found, settings, above=limits[0], origin=limits[1])


def filtered(values: np.ndarray, settings: BlobSettings) -> np.ndarray:
    """`(*spatial,)` float32: values smoothed, and the background subtracted."""
    values = np.asarray(values, np.float32)
    smooth = _gaussian(values, settings.smooth / settings.edges)
    if settings.background:
        smooth = smooth - _gaussian(values, settings.background / settings.edges)
    return smooth


def histogram(values: np.ndarray) -> np.ndarray:
    """`(bins,)` int64 numbers of values, from negative ones to positive ones.

    Histograms of parts add up to that of the whole, exactly.
    """
    bits = np.ascontiguousarray(values, np.float32).ravel().view(np.int32)
    # Floats are ordered as their bits, negative ones the other way round.
    order = np.where(bits < 0, np.int32(-(2**31)) - bits - 1, bits) >> _IGNORED_BITS
    return np.bincount(order.astype(np.int64) + _BINS // 2, minlength=_BINS)


def threshold(counts: np.ndarray, settings: BlobSettings) -> tuple[float, float] | None:
    """Otsu's threshold of a histogram, multiplied by the factor.

    The factor counts from an origin: 0, or the lowest value where some are negative; with a
    background subtracted always 0.

    Returns:
      The threshold and its origin; None for an image of one intensity.
    """
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return None
    values = _bin_values(present)
    found = float(filters.threshold_otsu(hist=(counts[present], values)))
    last = int(np.searchsorted(values, found, "right")) - 1
    # Any value in the gap to the next one separates as well; the middle is the safest.
    found = 0.5 * float(values[last] + values[min(last + 1, len(values) - 1)])
    origin = 0.0 if settings.background else min(0.0, float(values[0]))
    return origin + settings.factor * max(found - origin, 0.0), origin


def cells(
    values: np.ndarray,
    settings: BlobSettings,
    *,
    above: float,
    origin: float = 0.0,
    region: Region | None = None,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The cells in a part of a filtered image.

    Args:
      values: `(*spatial,)` filtered.
      settings: the parameters.
      above: the threshold.
      origin: see `threshold`.
      region: of `values`, in which cells are looked for; a margin of `settings.margin` around it
        is needed for the opening and the peaks. Default all.
      start: `(D,)` of the region in the image.

    Returns:
      `(N, D)` centroids in the image's voxels, and `(N,)` scores, see `otsu`.
    """
    region = region or all_of(values.shape)
    start = np.zeros(values.ndim, int) if start is None else start
    mask = _opened(values > above, settings)
    values_in, mask_in = values[region], mask[region]
    if not mask_in.any():
        return np.zeros((0, values.ndim)), np.zeros(0)
    parts = measure.label(mask_in, connectivity=1)
    if settings.split:
        peaks = (_highest(values, settings.split_reach) == values)[region] & mask_in
        # A component whose highest place is not the highest of its box remains one.
        have = np.unique(parts[peaks])
        peaks |= mask_in & ~np.isin(parts, have)
        markers = measure.label(peaks, connectivity=values.ndim)
        parts = segmentation.watershed(-values_in, markers, mask=mask_in)
    members = np.nonzero(parts)
    numbers = parts[members]
    sizes = np.bincount(numbers)
    highest = np.full(len(sizes), -np.inf)
    np.maximum.at(highest, numbers, values_in[members])
    # Sums of whole numbers are exact, and so the same in any tile.
    sums = [np.bincount(numbers, at + s) for at, s in zip(members, start, strict=True)]
    kept = sizes * float(np.prod(settings.edges)) >= settings.smallest
    kept &= sizes > 0
    centroids = np.stack([total[kept] / sizes[kept] for total in sums], 1)
    peak = highest[kept]
    scores = (peak - above) / np.maximum(peak - origin, np.finfo(np.float32).tiny)
    order = np.lexsort(centroids.T[::-1])
    return centroids[order], np.clip(scores, 0.0, 1.0)[order]


def local_maximum(
    read: Callable[[Region], np.ndarray],
    shape: Sequence[int],
    point: np.ndarray,
    reach: np.ndarray,
) -> np.ndarray:
    """The maximum of the smoothed image near a point, sub-voxel.

    Args:
      read: the intensities of a region.
      shape: `(D,)` of the image.
      point: `(D,)` voxels.
      reach: `(D,)` voxels, how far it may be along each axis: an ellipsoid.

    Returns:
      `(D,)` voxels: the largest value, moved by the vertex of the parabola through it and its
      neighbours along each axis, at most half a voxel.
    """
    centre = voxels_of(point)
    margin = reach + 1 + int(_KERNEL_SIGMAS * _SNAP_SIGMA_VOXELS + 0.5)
    start = np.maximum(centre - margin, 0)
    stop = np.minimum(centre + margin + 1, shape)
    values = read(tuple(map(slice, start.tolist(), stop.tolist())))
    smooth = ndimage.gaussian_filter(values.astype(np.float64), _SNAP_SIGMA_VOXELS, mode="nearest")
    away = np.stack(np.meshgrid(*map(np.arange, start, stop), indexing="ij"), -1) - centre
    near = np.square(away / reach).sum(-1) <= 1
    top = np.unravel_index(int(np.argmax(np.where(near, smooth, -np.inf))), smooth.shape)
    found = start + np.asarray(top, np.float64)
    for axis in range(len(shape)):
        line = smooth[tuple(slice(None) if a == axis else i for a, i in enumerate(top))]
        at = top[axis]
        if 0 < at < len(line) - 1:
            low, middle, high = line[at - 1 : at + 2]
            bend = low - 2 * middle + high
            if bend < 0:
                found[axis] += np.clip(0.5 * (low - high) / bend, -0.5, 0.5)
    return np.round(np.clip(found, -0.499, np.asarray(shape) - 0.501), 3)


def _gaussian(values: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    smooth: np.ndarray = ndimage.gaussian_filter(
        values, sigma, mode="nearest", truncate=_KERNEL_SIGMAS
    )
    return smooth


def _highest(values: np.ndarray, reach: np.ndarray) -> np.ndarray:
    found: np.ndarray = ndimage.maximum_filter(values, (2 * reach + 1).tolist(), mode="nearest")
    return found


def _opened(mask: np.ndarray, settings: BlobSettings) -> np.ndarray:
    """The part of a mask that balls inside it cover; the image goes on beyond its borders."""
    if settings.opening < settings.edges.min() or mask.all() or not mask.any():
        return mask
    spacing = tuple(settings.edges.tolist())
    eroded = morphology.isotropic_erosion(mask, settings.opening, spacing=spacing)
    if not eroded.any():  # the dilation of an empty mask is not defined
        return np.zeros_like(mask)
    opened: np.ndarray = morphology.isotropic_dilation(eroded, settings.opening, spacing=spacing)
    return opened & mask


def _bin_values(bins: np.ndarray) -> np.ndarray:
    """The middle of each bin."""
    order = (bins - _BINS // 2 << _IGNORED_BITS) + (1 << _IGNORED_BITS - 1)
    bits = np.where(order < 0, -(2**31) - order - 1, order).astype(np.int32)
    return bits.view(np.float32).astype(np.float64)
