"""A session in a viewer of napari: its layers, the mouse, and what the keys do. No Qt.

Only what is near the plane that is shown is in the layers, so that a brain's dots take no more
time than a slice's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from napari.components import ViewerModel
from psygnal import Signal

from cellcount_jax.data.progress import DONE, TO_DO
from cellcount_jax.errors import InputError
from cellcount_jax.label import order
from cellcount_jax.label.ghosts import Ghosts, in_plane, near_plane
from cellcount_jax.label.pixels import contrast_limits, pixels
from cellcount_jax.label.session import Session

VERIFIED, PROPOSED, CHOSEN = "#39d353", "#ffb000", "#ff4fd8"
_PREVIEW = "#58c4ff"
_STILL = 4  # pixels of the screen; a mouse that moved less did not drag

# Key as Qt writes it, what it does, and the method of the canvas. The window lists them.
KEYS = (
    ("E", "accept the dot in focus, or under the mouse, and go to the next", "accept"),
    ("N", "go to the next unverified dot", "go_next"),
    ("U", "go to the least certain proposal", "go_least_certain"),
    ("C", "centre the dot under the mouse on the brightest place", "snap"),
    ("Del", "remove the selected dots", "remove_selected"),
    ("D", "mark the block done, or to do again", "mark"),
    ("B", "go to the next block that is to do", "go_next_block"),
    ("PgDown", "next slice", "go_down"),
    ("PgUp", "previous slice", "go_up"),
    ("Esc", "select nothing", "select_none"),
    ("Ctrl+Z", "undo", "undo"),
    ("Ctrl+Shift+Z", "redo", "redo"),
    ("Ctrl+S", "save", "save"),
)


class Canvas:
    """Layers of a viewer that show a session, and acts that the mouse and keys do on it.

    Attributes:
      viewer: of napari.
      session: what is labelled.
      reach: of how many planes before and after the dots are seen.
      snap_on_add: whether a dot is placed at the brightest place near the click.
      selected: ids of the dots that Delete removes.
      focus: id of the dot that was gone to, or None.
      dot_size: the diameter of a dot as it is drawn, in voxels.
      changed: emitted after every act and move of the view.
    """

    changed = Signal()

    def __init__(
        self, viewer: ViewerModel, session: Session, *, tell: Callable[[str], None]
    ) -> None:
        """Adds the layers, at the place where the session was left.

        Args:
          viewer: without layers.
          session: open.
          tell: gets what a user is to know, a sentence.
        """
        self.viewer, self.session, self._tell = viewer, session, tell
        self.camera = getattr(viewer, "scene", viewer).camera  # of napari from 0.9 on, or before
        self.reach = 3
        self.snap_on_add = False
        self.selected: set[int] = set()
        self.focus: int | None = None
        self._dragged: tuple[int, np.ndarray] | None = None
        self._shown = np.zeros(0, int)
        self._drawn: tuple[bytes, ...] | None = None
        edges = session.edges
        place: dict[str, Any] = {"scale": edges}
        if session.unit == "um":
            place["units"] = ("um",) * len(edges)
        viewer.add_image(
            pixels(session),
            name=session.source.name,
            **place,
            contrast_limits=contrast_limits(session),
            colormap="gray",
        )
        self.image = viewer.layers[-1]
        ndim = len(edges)
        width = 1.4 * session.radius / edges.min()
        self.dot_size = float(width)

        def points(name: str, **options: Any) -> Any:
            layer = viewer.add_points(ndim=ndim, name=name, **place, **options)
            layer.editable = False
            return layer

        self.preview = points(
            "preview", face_color="transparent", border_color=_PREVIEW, border_width=0.12
        )
        self.ghosts = points("nearby slices", border_width=0)
        self.dots = points("dots", face_color="transparent", border_width=0.14)
        self.box = viewer.add_shapes(ndim=ndim, name="selection", face_color="transparent", **place)
        self.box.editable = False
        # What is not visible is not sliced.
        self.preview.visible = self.box.visible = False
        viewer.layers.selection.active = self.image
        viewer.dims.axis_labels = tuple("zyx"[-ndim:])
        viewer.mouse_drag_callbacks.append(self._on_drag)
        for event in (viewer.dims.events.current_step, viewer.dims.events.ndisplay):
            event.connect(self.refresh)
        viewer.dims.events.order.connect(self.refresh)
        self.go(np.asarray(session.place), zoom=False)
        self.refresh()

    # What is shown

    @property
    def plane(self) -> tuple[int, int] | None:
        """Axis and index of the plane that is shown; None of an image, or a volume in 3D."""
        hidden = self.viewer.dims.not_displayed
        if len(self.session.edges) == 2 or not hidden:
            return None
        axis = hidden[0]
        # In the world, as a step counts from where the outermost layer begins.
        at = round(self.viewer.dims.point[axis] / self.session.edges[axis])
        return axis, min(max(at, 0), self.session.grid.shape[axis] - 1)

    @property
    def place(self) -> np.ndarray:
        """`(D,)` voxels: the middle of what is seen, in the plane that is shown."""
        place = np.zeros(len(self.session.edges))
        shown = list(self.viewer.dims.displayed)
        place[shown] = self.camera.center[-len(shown) :]
        place /= self.session.edges
        if self.plane is not None:
            place[self.plane[0]] = self.plane[1]
        return np.clip(place, 0, np.asarray(self.session.grid.shape) - 1)

    @property
    def block(self) -> tuple[int, ...]:
        """The index of the block in the middle of what is seen."""
        return tuple(self.session.grid.index_of(self.place[None])[0].tolist())

    @property
    def pointed(self) -> np.ndarray:
        """`(D,)` voxels: under the mouse, or the middle where the mouse is outside the image."""
        point = self._point(self.viewer.cursor)
        return point if self._inside(point) else self.place

    def refresh(self, _: object = None) -> None:
        """Shows what is there."""
        dots, plane = self.session.dots, self.plane
        points = dots.points
        if plane is None:
            self._shown, ghosts = np.arange(len(points)), None
        else:
            axis, index = plane
            self._shown = in_plane(points, axis=axis, index=index)
            ghosts = near_plane(points, axis=axis, index=index, reach=self.reach)
        shown = points[self._shown]
        if plane is not None:
            shown[:, plane[0]] = plane[1]
        ids = dots.ids[self._shown]
        if self._dragged is not None:
            shown[ids == self._dragged[0]] = self._dragged[1]
        colours = np.where(dots.verified[self._shown], VERIFIED, PROPOSED)
        colours[np.isin(ids, [*self.selected, -1 if self.focus is None else self.focus])] = CHOSEN
        show(self.dots, shown, border_color=colours.tolist(), size=self.dot_size)
        if ghosts is None:
            self._drawn = None
            show(self.ghosts, np.zeros((0, points.shape[1])))
        else:
            self._show_ghosts(ghosts, dots.verified[ghosts.rows])
        self.session.place = tuple(self.place.tolist())
        self.changed.emit()

    def _show_ghosts(self, ghosts: Ghosts, verified: np.ndarray) -> None:
        looks = {
            "symbol": np.where(ghosts.after, "triangle_down", "triangle_up").tolist(),
            "size": self.dot_size * (0.35 + 0.45 * ghosts.nearness),
            "face_color": np.concatenate(
                [
                    np.where(verified[:, None], _rgb(VERIFIED), _rgb(PROPOSED)),
                    0.85 * ghosts.nearness[:, None],
                ],
                axis=1,
            ),
        }
        # An act in this plane leaves them as they are.
        drawn = ghosts.points.tobytes(), looks["face_color"].tobytes()
        if drawn != self._drawn:
            self._drawn = drawn
            show(self.ghosts, ghosts.points, **looks)

    def go(self, point: np.ndarray, *, zoom: bool = True) -> None:
        """Brings a place `(D,)` (voxels) to the middle, at least so near that cells are seen."""
        edges = self.session.edges
        if self.plane is not None:
            self._show_plane(self.plane[0], int(np.floor(point[self.plane[0]] + 0.5)))
        shown = list(self.viewer.dims.displayed)
        self.camera.center = (*(0.0,) * (3 - len(shown)), *(point * edges)[shown].tolist())
        if zoom:
            # A cell is some 20 pixels wide then.
            self.camera.zoom = max(self.camera.zoom, 20 / (2 * self.session.radius))

    def show_preview(self, points: np.ndarray) -> None:
        """Shows what would be proposed, `(N, D)` voxels; the furthest planes are left out."""
        plane = self.plane
        if plane is not None:
            points = points[np.abs(np.floor(points[:, plane[0]] + 0.5) - plane[1]) <= self.reach]
            points = points.copy()
            points[:, plane[0]] = plane[1]
        self.preview.visible = bool(len(points))
        show(self.preview, points, size=self.dot_size)

    def propose(self, points: np.ndarray, scores: np.ndarray, by: Mapping[str, Any]) -> int | None:
        """Proposes dots, see `Session.propose`; None where it fails, which is told."""
        found = self.do(lambda: self.session.propose(points, scores, by=by))
        return found if isinstance(found, int) else None

    # Acts of the keys

    def accept(self) -> None:
        """Verifies the dots that are selected, in focus or under the mouse; goes to the next."""
        under = self._at(self._point(self.viewer.cursor))
        chosen = list(self.selected) or [d for d in (self.focus, under) if d is not None][:1]
        self.do(lambda: self.session.accept(chosen))
        self.go_next()

    def go_next(self) -> None:
        """Goes to the next unverified dot."""
        self._focus(order.next_unverified(self.session.dots, self.session.grid, self._here()))

    def go_least_certain(self) -> None:
        """Goes to the least certain proposal, or the next one after that in focus."""
        self._focus(order.least_certain(self.session.dots, self.focus))

    def snap(self) -> None:
        """Moves the dot under the mouse, or in focus, to the brightest place near it."""
        under = self._at(self._point(self.viewer.cursor))
        dot = self.focus if under is None else under
        if dot is not None:
            self.do(lambda: self.session.snap(dot))

    def remove_selected(self) -> None:
        """Removes the selected dots, or the one in focus."""
        chosen = list(self.selected) or [d for d in (self.focus,) if d is not None]
        self.do(lambda: self.session.remove(chosen))

    def mark(self) -> None:
        """Marks the block in the middle of what is seen done; one that is done to do."""
        done = self.session.state.blocks[self.block] == DONE
        block = self.block
        self.do(lambda: self.session.mark([block], TO_DO if done else DONE))

    def go_next_block(self) -> None:
        """Goes to the middle of the next block that is to do or, if there is none, in progress."""
        states = self.session.state.blocks
        for state in (TO_DO, 1):
            block = order.next_block(states, state, self.block)
            if block is not None:
                return self.go_to_block(block)
        self._tell("All blocks are done.")

    def go_to_block(self, block: tuple[int, ...]) -> None:
        """Goes to the middle of a block."""
        region = self.session.grid.region(block)
        middle = np.array([(part.start + part.stop - 1) / 2 for part in region])
        self.go(middle, zoom=False)
        self.refresh()

    def go_down(self) -> None:
        """Shows the next plane."""
        self._turn(1)

    def go_up(self) -> None:
        """Shows the plane before."""
        self._turn(-1)

    def select_none(self) -> None:
        """Nothing is selected or in focus any more."""
        self.selected.clear()
        self.focus = None
        self.refresh()

    def undo(self) -> None:
        """Takes the last act back."""
        self.do(self.session.undo)

    def redo(self) -> None:
        """Does again what was taken back last."""
        self.do(self.session.redo)

    def save(self) -> None:
        """Writes the CSV file and the progress."""

        def save() -> bool:
            self.session.save()
            return True

        if self.do(save):
            self._tell("Saved.")

    # The mouse

    def _on_drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """A click adds or removes; a drag moves a dot, or the view; with Shift it selects."""
        if event.button != 1 or viewer.dims.ndisplay == 3:
            return
        pressed, point = np.asarray(event.pos, float), self._point(event)
        selects = "Shift" in event.modifiers
        dot = None if selects else self._at(point)
        # The view stays where it is, but for a drag of nothing.
        self.camera.mouse_pan = dot is None and not selects
        moved = False
        try:
            yield
            while event.type == "mouse_move":
                moved |= bool(np.hypot(*(np.asarray(event.pos) - pressed)) > _STILL)
                if moved and selects:
                    self._draw_box(point, self._point(event))
                elif moved and dot is not None:
                    self._dragged = dot, self._point(event)
                    self.refresh()
                yield
        finally:
            self.camera.mouse_pan = True
            self._dragged = None
            self.box.data = []
            self.box.visible = False
        released = self._point(event)
        if moved and selects:
            self._select(point, released)
        elif moved and dot is not None:
            if self.plane is not None:  # across the plane it stays where it is
                axis = self.plane[0]
                released[axis] = self.session.dots.points[self.session.dots.rows([dot])[0], axis]
            self.do(lambda: self.session.move(dot, released))
        elif not moved and dot is not None:
            self.do(lambda: self.session.remove([dot]))
        elif not moved and self.selected:
            self.select_none()
        elif not moved and not selects and self._inside(point):
            self.do(lambda: self.session.add(point, snap=self.snap_on_add))

    def _point(self, event: Any) -> np.ndarray:
        """`(D,)` voxels of the mouse, in the plane that is shown."""
        point = np.asarray(self.image.world_to_data(event.position), float)
        if self.plane is not None:
            point[self.plane[0]] = self.plane[1]
        return point

    def _at(self, point: np.ndarray) -> int | None:
        """The dot of this plane under the mouse."""
        near = point.copy()
        if self.plane is None:
            return self.session.nearest(near, within=0.7 * self.session.radius)
        axis = self.plane[0]
        rows = self._shown
        if not len(rows):
            return None
        apart = (self.session.dots.points[rows] - near) * self.session.edges
        apart[:, axis] = 0
        squared = np.square(apart).sum(1)
        first = int(np.argmin(squared))
        within = 0.7 * self.session.radius
        return int(self.session.dots.ids[rows[first]]) if squared[first] <= within**2 else None

    def _select(self, corner: np.ndarray, other: np.ndarray) -> None:
        low, high = np.minimum(corner, other) - 1e-6, np.maximum(corner, other) + 1e-6
        points = self.session.dots.points[self._shown]
        inside = (points >= low) & (points <= high)
        if self.plane is not None:
            inside[:, self.plane[0]] = True
        self.selected = set(self.session.dots.ids[self._shown[inside.all(1)]].tolist())
        self.refresh()

    def _draw_box(self, corner: np.ndarray, other: np.ndarray) -> None:
        axes = list(self.viewer.dims.displayed)
        first, second = axes
        corners = np.stack([corner, other, other, corner])
        corners[1, second], corners[3, second] = corner[second], other[second]
        corners[1, first], corners[3, first] = other[first], corner[first]
        self.box.data = []
        self.box.visible = True
        self.box.add_rectangles(corners, edge_color=CHOSEN, edge_width=0.5)

    # Inside

    def do(self, act: Callable[[], object]) -> object:
        """An act; what fails is told, and nothing is changed then."""
        result = None
        try:
            result = act()
        except (InputError, OSError) as error:
            self._tell(str(error))
        self.selected = {dot for dot in self.selected if self._is_there(dot)}
        if self.focus is not None and not self._is_there(self.focus):
            self.focus = None
        self.refresh()
        return result

    def _focus(self, dot: int | None) -> None:
        self.focus = dot
        self.selected.clear()
        if dot is None:
            self._tell("There is no unverified dot.")
        else:
            self.go(self.session.dots.points[self.session.dots.rows([dot])[0]])
        self.refresh()

    def _here(self) -> np.ndarray:
        """After which place the next dot is looked for."""
        if self.focus is None:
            return self.place
        return np.asarray(self.session.dots.points[self.session.dots.rows([self.focus])[0]])

    def _turn(self, planes: int) -> None:
        if self.plane is not None:
            self._show_plane(self.plane[0], self.plane[1] + planes)

    def _show_plane(self, axis: int, index: int) -> None:
        index = min(max(index, 0), self.session.grid.shape[axis] - 1)
        self.viewer.dims.set_point(axis, index * self.session.edges[axis])

    def _is_there(self, dot: int) -> bool:
        return bool(np.isin(dot, self.session.dots.ids))

    def _inside(self, point: np.ndarray) -> bool:
        upper = np.asarray(self.session.grid.shape) - 0.5
        return bool(((point >= -0.5) & (point < upper)).all())


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


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
