"""The layers of a viewer in which a session is drawn, read only: acts are the session's.

They hold only dots near the plane that is shown, so that all dots of a brain take no more time than
those of a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.components import ViewerModel

from cellcount_jax.images.regions import Region, voxels_of
from cellcount_jax.label.dots import Dots
from cellcount_jax.label.scene import Ghosts, contrast_limits, in_plane, near_plane, pixels
from cellcount_jax.label.session import Session

VERIFIED, PROPOSED, CHOSEN = "#39d353", "#ffb000", "#ff4fd8"
_PREVIEW = "#58c4ff"
_PREVIEW_SIZE = 1.35  # of a dot: a ring around one that is there already
_BLOCK = ("#8a919c", PROPOSED, VERIFIED)  # to do, in progress, done

Plane = tuple[int, int]  # the axis at right angles to it, and its index


class Layers:
    """The image, its dots in the plane that is shown, and those of nearby planes.

    Attributes:
      image: the layer of the image.
      dots: of the dots in the plane.
      ghosts: of the dots in nearby slices; None in a 2D image, which has none.
      preview: of proposals that a preview shows.
      block: of the outline of the present block.
      box: of the rectangle that selects.
      dot_size: the diameter of a dot as it is drawn, in voxels.
      rows: of the session's dots that are in the plane.
    """

    def __init__(self, viewer: ViewerModel, session: Session) -> None:
        """Adds them to a viewer."""
        edges = session.edges
        ndim = len(edges)
        place: dict[str, Any] = {"scale": edges}
        if session.unit == "um":
            place["units"] = ("um",) * ndim
        self.image = viewer.add_image(
            pixels(session),
            name=session.source.name,
            contrast_limits=contrast_limits(session),
            colormap="gray",
            **place,
        )
        self._edge = float(edges.min())
        self.resize(session.radius)
        self.rows = np.zeros(0, int)
        self._outlined: tuple[Region, int] | None = None

        def points(name: str, **options: Any) -> Any:
            layer = viewer.add_points(ndim=ndim, name=name, **place, **options)
            layer.editable = False
            return layer

        self.block = points("block", face_color="transparent", border_width=0)
        outline = self.block.bounding_box
        outline.points, outline.line_thickness, outline.visible = False, 1.5, True
        ring = {"face_color": "transparent", "border_width": 0.13}
        self.preview = points("preview", **ring)
        self.ghosts = points("nearby slices", border_width=0) if ndim == 3 else None
        self.dots = points("dots", **ring)
        self.box = viewer.add_shapes(ndim=ndim, name="selection", face_color="transparent", **place)
        self.box.editable = False
        # napari does not slice layers that are not visible.
        self.preview.visible = self.box.visible = False
        viewer.layers.selection.active = self.image
        viewer.dims.axis_labels = tuple("zyx"[-ndim:])

    def resize(self, radius: float) -> None:
        """Draws dots for cells of a radius, in the unit of the edges, from now on."""
        self.dot_size = 1.4 * radius / self._edge
        self._drawn: tuple[bytes, ...] | None = None

    def draw(
        self,
        dots: Dots,
        plane: Plane | None,
        *,
        reach: int,
        chosen: Sequence[int],
        dragged: tuple[int, np.ndarray] | None = None,
    ) -> None:
        """Shows the dots as they are.

        Args:
          dots: all of them.
          plane: that is shown; None for all of a 2D image, or of a volume in 3D.
          reach: of how many planes before and after the dots are seen.
          chosen: ids of those that are selected or in focus.
          dragged: one that is drawn elsewhere, `(D,)` voxels.
        """
        points = dots.points
        self.rows = np.arange(len(points))
        if plane is None:
            self._drawn = None
            if self.ghosts is not None:
                show(self.ghosts, points[:0])
        else:
            self.rows = in_plane(points, axis=plane[0], index=plane[1])
            ghosts = near_plane(points, axis=plane[0], index=plane[1], reach=reach)
            self._draw_ghosts(ghosts, dots.verified[ghosts.rows])
        ids, shown = dots.ids[self.rows], _moved(points[self.rows], plane)
        if dragged is not None:
            shown[ids == dragged[0]] = dragged[1]
        colours = np.where(dots.verified[self.rows], VERIFIED, PROPOSED)
        colours[np.isin(ids, chosen)] = CHOSEN
        show(self.dots, shown, border_color=colours.tolist(), size=self.dot_size)

    def draw_block(self, region: Region, state: int) -> None:
        """Shows the outline of a block, in the colour of its state."""
        if (region, state) == self._outlined:
            return
        self._outlined = region, state
        self.block.bounding_box.line_color = _BLOCK[state]
        # Two voxels at opposite corners: the frame of the layer encloses them, in every plane.
        corners = [(part.start, part.stop - 1) for part in region]
        show(self.block, np.array(corners, float).T, size=1)

    def draw_preview(self, points: np.ndarray, plane: Plane | None, *, reach: int) -> None:
        """Shows points `(N, D)` (voxels) of a preview, in the plane and, fainter, nearby."""
        opacity = np.ones((len(points), 1))
        if plane is not None:
            apart = np.abs(voxels_of(points[:, [plane[0]]]) - plane[1])
            opacity = np.where(apart == 0, 1.0, 0.5)[apart[:, 0] <= reach]
            points = points[apart[:, 0] <= reach]
        self.preview.visible = bool(len(points))
        rgb = np.broadcast_to(_rgb(_PREVIEW), (len(points), 3))
        colours = np.concatenate([rgb, opacity], axis=1)
        size = _PREVIEW_SIZE * self.dot_size
        show(self.preview, _moved(points, plane), size=size, border_color=colours)

    def draw_box(
        self, corners: tuple[np.ndarray, np.ndarray] | None, axes: Sequence[int] = ()
    ) -> None:
        """Shows a rectangle between two corners along two axes, or none."""
        if corners is None:
            if self.box.visible:
                self.box.data = []
                self.box.visible = False
            return
        corner, other = corners
        outline = np.stack([corner, corner, other, other])
        outline[1, axes[0]], outline[3, axes[0]] = other[axes[0]], corner[axes[0]]
        self.box.data = []
        self.box.visible = True
        self.box.add_rectangles(outline, edge_color=CHOSEN, edge_width=0.5)

    def _draw_ghosts(self, ghosts: Ghosts, verified: np.ndarray) -> None:
        rgb = np.where(verified[:, None], _rgb(VERIFIED), _rgb(PROPOSED))
        colours = np.concatenate([rgb, 0.85 * ghosts.nearness[:, None]], axis=1)
        # An act in this plane leaves them as they are.
        drawn = ghosts.points.tobytes(), colours.tobytes()
        if drawn != self._drawn:
            self._drawn = drawn
            show(
                self.ghosts,
                ghosts.points,
                symbol=np.where(ghosts.after, "triangle_down", "triangle_up").tolist(),
                size=self.dot_size * (0.35 + 0.45 * ghosts.nearness),
                face_color=colours,
            )


def show(layer: Any, points: np.ndarray, **looks: Any) -> None:
    """Shows points `(N, D)` in a layer in place of those that are there, at once.

    Args:
      layer: of points.
      points: voxels.
      looks: attributes of the layer, one for all or one for each.
    """
    if not len(points) and not len(layer.data):
        return
    # Each attribute would draw the layer, and measure all layers, anew.
    with layer.events.blocker_all():
        layer.data = points
        layer.editable = False  # napari allows it again with new data
        layer.selected_data = set()
        if len(points):
            for name, value in looks.items():
                setattr(layer, name, value)
    layer.refresh()


def _moved(points: np.ndarray, plane: Plane | None) -> np.ndarray:
    """Points moved into a plane."""
    points = points.copy()
    if plane is not None:
        points[:, plane[0]] = plane[1]
    return points


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
