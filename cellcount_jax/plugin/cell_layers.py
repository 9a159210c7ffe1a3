"""The layers of napari in which counted cells are drawn; read only, as the model's are saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cellcount_jax.label.window.layers import show

_RING = 1.4  # diameter of a ring, in cells


class CellLayers:
    """A ring a cell, from red for low scores to yellow for high ones.

    In volumes there are rings also in the other slices that a cell reaches.

    Attributes:
      cells: the layer of the cells, with their scores; None before there are any.
      near: of volumes, their rings in nearby slices, thinner and smaller with the distance.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.cells: Any = None
        self.near: Any = None

    def draw(
        self,
        points: np.ndarray,
        scores: np.ndarray,
        *,
        ndim: int,
        depth: int,
        width: float,
        highest: float,
        name: str,
        place: Mapping[str, Any],
    ) -> None:
        """Shows cells, in place of those that were shown before.

        Args:
          points: `(N, axes)` in voxels of the image's layer.
          scores: `(N,)`.
          ndim: spatial dimensions of the cells.
          depth: the axis of the layer that has the planes, where there are 3.
          width: of a cell, in voxels along the last axis.
          highest: score that is yellow.
          name: of the image's layer.
          place: where that lies: `scale`, `translate` and the like.
        """
        options: dict[str, Any] = {"highest": highest, "place": place}
        size = np.full(len(points), _RING * width)
        title = f"cells of {name}"
        self.cells = self._drawn(self.cells, points, scores, size, title, 0.12, **options)
        if ndim == 3:
            edges = np.abs(np.asarray(place["scale"], float))
            step = edges[depth] / edges[-1]
            rings = in_nearby_slices(points, width=_RING * width, step=step, depth=depth)
            title += ", nearby slices"
            self.near = self._drawn(
                self.near, rings[0], scores[rings[2]], rings[1], title, 0.06, **options
            )
        elif self.near is not None and self.near in self._viewer.layers:
            self._viewer.layers.remove(self.near)

    def _drawn(
        self,
        layer: Any,
        points: np.ndarray,
        scores: np.ndarray,
        size: np.ndarray,
        name: str,
        border: float,
        *,
        highest: float,
        place: Mapping[str, Any],
    ) -> Any:
        """The layer, or a new one where it was removed."""
        there = layer is not None and layer in self._viewer.layers
        if there and layer.ndim != points.shape[1]:
            self._viewer.layers.remove(layer)
            there = False
        if not there:
            chosen = list(self._viewer.layers.selection)
            layer = self._viewer.add_points(
                ndim=points.shape[1],
                features={"score": np.zeros(0)},
                face_color="transparent",
                border_width=border,
                **place,
            )
            self._viewer.layers.selection = chosen
        for key, value in place.items():
            if not np.array_equal(getattr(layer, key), value):
                setattr(layer, key, value)
        if layer.name != name:
            layer.name = name
        share = np.clip(scores / highest, 0, 1)
        colours = np.stack([np.ones_like(share), share, np.zeros_like(share)], axis=1)
        show(layer, points, features={"score": scores}, size=size, border_color=colours)
        return layer


def in_nearby_slices(
    points: np.ndarray, *, width: float, step: float, depth: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where balls around points cut the slices before and after the points' own.

    Args:
      points: `(N, axes)` voxels.
      width: of a ball, in voxels of the last axis.
      step: between two slices, in the same unit.
      depth: the axis of the slices.

    Returns:
      `(M, axes)` places, `(M,)` widths of the cuts, and `(M,)` which point each is of.
    """
    reach = int(np.ceil(width / 2 / step))
    own = np.rint(points[:, depth])
    places, widths, rows = [points[:0]], [np.zeros(0)], [np.zeros(0, int)]
    for offset in (*range(-reach, 0), *range(1, reach + 1)):
        distance = np.abs(own + offset - points[:, depth]) * step
        (cut,) = np.nonzero(2 * distance < width)
        placed = points[cut].copy()
        placed[:, depth] = own[cut] + offset
        places.append(placed)
        widths.append(np.sqrt(width**2 - (2 * distance[cut]) ** 2))
        rows.append(cut)
    return np.concatenate(places), np.concatenate(widths), np.concatenate(rows)
