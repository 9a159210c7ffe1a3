"""The view of a napari viewer: place, plane and block in voxels of the image, and moves. No Qt."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel

from cellcount_jax.data.blocks import Grid
from cellcount_jax.images.regions import voxels_of

_MIN_CELL_PIXELS = 20  # diameter of a cell that can be worked on


class View:
    """The place that a viewer shows, and moves to another.

    The viewer has more axes than the image where a layer of the user has: as napari aligns layers,
    the image's are the last ones.

    Attributes:
      viewer: of napari, with layers in the world's units.
      grid: the blocks of the image.
      edges: `(D,)` of a voxel.
      camera: of the viewer.
    """

    def __init__(self, viewer: ViewerModel, grid: Grid, edges: np.ndarray) -> None:
        self.viewer, self.grid, self.edges = viewer, grid, edges
        self.camera = camera_of(viewer)
        self._left: tuple[float, ...] | None = None
        viewer.cursor.events.position.connect(self._mouse_moved)

    @property
    def plane(self) -> tuple[int, int] | None:
        """Axis and index of the plane that is shown; None for a 2D image, or a volume in 3D."""
        hidden = [axis for axis in range(len(self.edges)) if axis not in self.shown]
        if len(self.edges) == 2 or not hidden:
            return None
        axis = hidden[0]
        # From world coordinates, as napari's steps count from the outermost layer.
        at = round(self.viewer.dims.point[self._extra + axis] / self.edges[axis])
        return axis, min(max(at, 0), self.grid.shape[axis] - 1)

    @property
    def place(self) -> np.ndarray:
        """`(D,)` voxels: the middle of what is seen, in the plane that is shown."""
        place = self._centre()[self._extra :] / self.edges
        if self.plane is not None:
            place[self.plane[0]] = self.plane[1]
        return np.clip(place, 0, np.asarray(self.grid.shape) - 1)

    @property
    def shown(self) -> list[int]:
        """Axes of the image that are displayed, as the viewer orders them."""
        axes = (axis - self._extra for axis in self.viewer.dims.displayed)
        return [axis for axis in axes if axis >= 0]

    @property
    def block(self) -> tuple[int, ...]:
        """The index of the block in the middle of the view."""
        return tuple(self.grid.index_of(self.place[None])[0].tolist())

    @property
    def mouse(self) -> np.ndarray | None:
        """`(D,)` voxels under the mouse; None after a jump, until the mouse moves."""
        return None if self._left is not None else self.point_of(self.viewer.cursor)

    @property
    def pointed(self) -> np.ndarray:
        """`(D,)` voxels: under the mouse, or the middle where that is unknown or outside."""
        point = self.mouse
        return point if point is not None and self.holds(point) else self.place

    def point_of(self, event: Any) -> np.ndarray:
        """`(D,)` voxels of an event of the mouse, or its cursor, in the plane that is shown."""
        point = np.asarray(event.position, float)[self._extra :] / self.edges
        if self.plane is not None:
            point[self.plane[0]] = self.plane[1]
        return point

    def holds(self, point: np.ndarray) -> bool:
        """Whether a place `(D,)` (voxels) is in the image."""
        upper = np.asarray(self.grid.shape) - 0.5
        return bool(((point >= -0.5) & (point < upper)).all())

    def go(self, point: np.ndarray, *, cell: float | None = None) -> None:
        """Brings a place `(D,)` (voxels) to the middle.

        Args:
          point: the place.
          cell: the diameter of a cell, which is seen well then; None leaves the zoom as it is.
        """
        self.show_plane_of(point)
        centre, shown = self._centre(), list(self.viewer.dims.displayed)
        centre[self._extra :] = point * self.edges
        self.camera.center = (*(0.0,) * (3 - len(shown)), *centre[shown].tolist())
        if cell is not None:
            self.camera.zoom = max(self.camera.zoom, _MIN_CELL_PIXELS / cell)
        self._left = self._cursor()

    def show_plane_of(self, point: np.ndarray) -> None:
        """Shows the plane that a place `(D,)` (voxels) is in."""
        if self.plane is not None:
            self._show_plane(self.plane[0], int(voxels_of(point)[self.plane[0]]))

    def go_to_block(self, block: tuple[int, ...]) -> None:
        """Brings the middle of a block to the middle."""
        region = self.grid.region(block)
        self.go(np.array([(part.start + part.stop - 1) / 2 for part in region]))

    def turn(self, planes: int) -> None:
        """Shows the plane so many planes further."""
        if self.plane is not None:
            self._show_plane(self.plane[0], self.plane[1] + planes)

    @property
    def _extra(self) -> int:
        """Number of axes that the viewer has before those of the image."""
        return int(self.viewer.dims.ndim) - len(self.edges)

    def _centre(self) -> np.ndarray:
        """The middle of the view, along all axes of the viewer, in world coordinates."""
        centre = np.array(self.viewer.dims.point, float)
        shown = list(self.viewer.dims.displayed)
        centre[shown] = self.camera.center[-len(shown) :]
        return centre

    def _cursor(self) -> tuple[float, ...]:
        """napari's position of the mouse along the axes that are shown."""
        position = self.viewer.cursor.position
        return tuple(position[axis] for axis in self.viewer.dims.displayed)

    def _mouse_moved(self, _: object = None) -> None:
        # napari keeps the last place of the mouse, and emits it again at another plane.
        if self._left is not None and self._cursor() != self._left:
            self._left = None

    def _show_plane(self, axis: int, index: int) -> None:
        index = min(max(index, 0), self.grid.shape[axis] - 1)
        self.viewer.dims.set_point(self._extra + axis, index * self.edges[axis])


def camera_of(viewer: ViewerModel) -> Any:
    """The camera of a viewer, of napari from 0.9 on or before."""
    return getattr(viewer, "scene", viewer).camera
