"""The image of a layer of napari as a model takes it, and where its cells lie in the layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellcount_jax.errors import InputError
from cellcount_jax.images.length_units import micrometres


@dataclasses.dataclass(frozen=True, eq=False)
class LayerImage:
    """The part of a layer's data that a model counts.

    Attributes:
      array: `(*spatial,)` or `(*spatial, channels)`, at full resolution.
      before: index of the part on the axes of the layer that the model has not, such as time.
    """

    array: Any
    before: tuple[int, ...]

    def in_layer(self, points: np.ndarray) -> np.ndarray:
        """Points `(N, D)` in all axes of the layer, the part's index first."""
        first = np.tile(np.asarray(self.before, np.float32), (len(points), 1))
        return np.concatenate([first.reshape(len(points), len(self.before)), points], axis=1)


def image_of_layer(layer: Any, *, ndim: int, step: Sequence[int]) -> LayerImage:
    """The part of an image layer for a model of 2 or 3 dimensions.

    Of the axes that come before, such as time or the planes of a stack, it is what the viewer
    shows.

    Args:
      layer: a `napari.layers.Image`.
      ndim: spatial dimensions of the model.
      step: index that the viewer shows, an axis; the layer's are the last ones.

    Raises:
      InputError: the layer has fewer axes.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.ndim < ndim:
        raise InputError(
            f"{layer.name}: is an image in {layer.ndim}D, and the model is one of volumes; choose"
            " another model"
        )
    lead = layer.ndim - ndim
    own = [int(i) for i in step][-layer.ndim :]
    before = tuple(min(at, n - 1) for at, n in zip(own[:lead], data.shape[:lead], strict=True))
    part = data[before] if before else data
    if layer.rgb:
        part = part[..., :3]  # without opacity
    return LayerImage(part, before)


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
