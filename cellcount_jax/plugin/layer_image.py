"""The image of a layer of napari as a model takes it, and where its cells lie in the layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.length_units import micrometres

_MOST_CHANNELS = 5  # a longer axis of a layer is more likely one of planes


@dataclasses.dataclass(frozen=True, eq=False)
class LayerImage:
    """The part of a layer's data that a model counts.

    Attributes:
      array: `(*spatial,)` or `(*spatial, channels)`, at full resolution.
      axes: `(D,)` of the layer, that the model has.
      at: index of the part on all axes of the layer; on `axes` it means nothing.
    """

    array: Any
    axes: tuple[int, ...]
    at: tuple[int, ...]

    def in_layer(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, D)` in all axes of the layer."""
        placed = np.tile(np.asarray(self.at, np.float32), (len(points), 1))
        placed[:, self.axes] = points
        return placed


def image_of_layer(
    layer: Any, *, ndim: int, step: Sequence[int], depth: int | None = None
) -> LayerImage:
    """The part of an image layer for a model of 2 or 3 dimensions.

    Of the other axes, such as time, channels or the planes of a stack, it is what the viewer shows.

    Args:
      layer: a `napari.layers.Image`.
      ndim: spatial dimensions of the model.
      step: index that the viewer shows, an axis; the layer's are the last ones.
      depth: the axis of the planes, for a model of volumes; None = the last one before y and x.

    Raises:
      InputError: the layer has fewer axes.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.ndim < ndim:
        raise InputError(
            f"{layer.name}: is an image in {layer.ndim}D, and the model is one of volumes; choose"
            " another model"
        )
    axes = spatial_axes(layer, ndim=ndim, depth=depth)
    own = [int(i) for i in step][-layer.ndim :]
    at = tuple(min(i, n - 1) for i, n in zip(own, data.shape, strict=False))
    part = data
    if len(axes) < layer.ndim:
        part = data[tuple(slice(None) if k in axes else i for k, i in enumerate(at))]
    if layer.rgb:
        part = part[..., :3]  # without opacity
    return LayerImage(part, axes, at)


def spatial_axes(layer: Any, *, ndim: int, depth: int | None = None) -> tuple[int, ...]:
    """The axes of a layer that a model of 2 or 3 dimensions has, see `image_of_layer`."""
    first = layer.ndim - ndim if depth is None else depth
    return (*(first,) * (ndim - 2), layer.ndim - 2, layer.ndim - 1)


def likely_depth(shape: Sequence[int]) -> int:
    """The axis of a layer of more than three that most likely has the planes of a volume.

    Args:
      shape: of the layer, y and x last: z, channels, y, x of ImageJ or channels, z, y, x.
    """
    planes = [k for k, size in enumerate(shape[:-2]) if size > _MOST_CHANNELS]
    return planes[-1] if planes else len(shape) - 3


def mask_of_layer(labels: Any, layer: Any, part: LayerImage) -> np.ndarray:
    """Where labels that were painted over an image are not 0.

    Args:
      labels: a `napari.layers.Labels`.
      layer: the image's layer.
      part: of that.

    Returns:
      `(*spatial,)` bool, of the shape of the part.

    Raises:
      InputError: the labels do not lie on the voxels of the image, or none is painted.
    """
    data = labels.data[0] if labels.multiscale else labels.data
    image = layer.data[0] if layer.multiscale else layer.data
    missing = layer.ndim - labels.ndim
    shape = tuple(image.shape[: layer.ndim])
    same = missing >= 0 and min(part.axes) >= missing and tuple(data.shape) == shape[missing:]
    if not same or not np.allclose(labels.extent.world, layer.extent.world[:, missing:]):
        raise InputError(
            f"{labels.name}: is {_size(data.shape)} and does not lie voxel on voxel on"
            f" {layer.name}, {_size(shape)}; paint in a Labels layer of the same shape, scale and"
            " place"
        )
    own = enumerate(part.at[missing:], missing)
    inside = np.asarray(data[tuple(slice(None) if k in part.axes else i for k, i in own)]) != 0
    if not inside.any():
        raise InputError(
            f"{labels.name}: nothing is painted in it here; paint where cells are to be counted"
        )
    return inside


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def voxel_edges(layer: Any) -> tuple[float, ...] | None:
    """`(axes,)` voxel edges of a layer in micrometres; None where they are not known.

    A scale without a unit is taken to be in micrometres, unless it is that of a layer without any.
    """
    scale = [float(edge) for edge in layer.scale]
    units = getattr(layer, "units", ()) or ("pixel",) * len(scale)
    factors = [micrometres(unit) for unit in units]
    if np.isnan(factors).any() and np.allclose(scale, 1):
        return None
    edges = zip(scale, np.nan_to_num(factors, nan=1.0).tolist(), strict=True)
    return tuple(abs(edge * factor) for edge, factor in edges)
