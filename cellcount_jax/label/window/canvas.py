"""A session in a viewer of napari: layers, selection, and the acts of mouse and keys. No Qt."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from napari.components import ViewerModel
from psygnal import Signal

from cellcount_jax.data.blocks import DONE, IN_PROGRESS, TO_DO
from cellcount_jax.errors import InputError, in_words
from cellcount_jax.label import order
from cellcount_jax.label.session import Session
from cellcount_jax.label.window.layers import Layers
from cellcount_jax.label.window.view import View

_CLICK_RADII = 0.7  # of a cell: a click that is nearer to a dot is on it

# Key as Qt writes it, its effect for the list in the window, and the method of the canvas.
KEYS = (
    ("E", "accept the dot in focus, or under the mouse, and go to the next", "accept"),
    ("N", "go to the next unverified dot", "go_next"),
    ("U", "go to the least certain proposal, again to the next", "go_least_certain"),
    ("C", "centre the dot in focus, or under the mouse, on the brightest place", "snap"),
    ("Del", "remove the selected dots", "remove_selected"),
    ("D", "mark the block done, or not done yet", "mark"),
    ("B", "go to the next block that is to do", "go_next_block"),
    ("PgDown", "next slice", "go_down"),
    ("PgUp", "previous slice", "go_up"),
    ("Esc", "select nothing", "select_none"),
    ("Ctrl+Z", "undo", "undo"),
    ("Ctrl+Shift+Z", "redo", "redo"),
    ("Ctrl+S", "save", "save"),
)

# Methods that a key calls repeatedly while it is held down; other keys act once.
REPEATED = {"go_down", "go_up", "undo", "redo"}

_T = TypeVar("_T")


class Canvas:
    """A session, the layers that show it, and acts of the mouse and keys.

    Attributes:
      session: the labelled image.
      notify: shows a message to the user.
      view: the part of the image that the viewer shows.
      block: index of the present block, the one in the middle of the view.
      reach: number of planes before and after whose dots are seen.
      snap_on_add: whether a dot is placed at the brightest place near the click.
      selected: ids of the dots that Delete removes.
      focus: id of the dot that the view went to, or None.
      layers: those that the session is drawn in.
      changed: emitted after every act and move of the view.
      resized: emitted after the size of a cell was changed.
    """

    changed, resized = Signal(), Signal()

    def __init__(
        self, viewer: ViewerModel, session: Session, *, notify: Callable[[str], None]
    ) -> None:
        """Adds the layers, at the place where the session was left.

        Args:
          viewer: without layers.
          session: open.
          notify: shows a message, a sentence, to the user.
        """
        self.session, self.notify = session, notify
        self.view = View(viewer, session.grid, session.edges)
        self.reach = 3
        self.snap_on_add = False
        self.selected: set[int] = set()
        self.focus: int | None = None
        self._least: int | None = None  # the dot that U went to, until another is in focus
        self.layers = Layers(viewer, session)
        self.block = self.view.block
        for event in (viewer.dims.events.current_step, viewer.dims.events.ndisplay):
            event.connect(self.refresh)
        viewer.dims.events.order.connect(self.refresh)
        self.view.camera.events.center.connect(self._panned)
        # A double click is a click, and no zoom: where dots are placed quickly some are double.
        calls = viewer.mouse_double_click_callbacks
        calls[:] = [
            call for call in calls if getattr(call, "__name__", "") != "double_click_to_zoom"
        ]
        self.view.go(np.asarray(session.place))
        self.refresh()

    # What is shown

    def refresh(self, _: object = None, *, dragged: tuple[int, np.ndarray] | None = None) -> None:
        """Draws dots and block as they are; `dragged` draws one dot, by id, at another place."""
        self.layers.draw(
            self.session.dots,
            self.view.plane,
            reach=self.reach,
            chosen=(*self.selected, *self._in_focus),
            dragged=dragged,
        )
        self.block = self.view.block
        region = self.session.grid.region(self.block)
        self.layers.draw_block(region, int(self.session.state.blocks[self.block]))
        self.session.place = tuple(self.view.place.tolist())
        self.changed.emit()

    def show_preview(self, points: np.ndarray) -> None:
        """Shows points `(N, D)` (voxels) that would be proposed."""
        self.layers.draw_preview(points, self.view.plane, reach=self.reach)

    def propose(self, points: np.ndarray, scores: np.ndarray, by: Mapping[str, Any]) -> int | None:
        """Proposes dots, see `Session.propose`; None after a failure."""
        return self.do(lambda: self.session.propose(points, scores, by=by))

    def resize(self, radius: float) -> None:
        """Says how large a cell is, see `Session.resize`, and draws the dots so."""

        def resize() -> None:
            self.session.resize(radius)
            self.layers.resize(self.session.radius)

        self.do(resize)
        self.resized.emit()

    # Acts of the keys

    def accept(self) -> None:
        """Verifies the dots that are selected, in focus or under the mouse; goes to the next."""
        chosen = list(self.selected) or self._dots()
        self.do(lambda: self.session.accept(chosen))
        self.go_next()

    def go_next(self) -> None:
        """Goes to the next unverified dot."""
        here = self.view.place if self.focus is None else self._point(self.focus)
        self.go_to_dot(order.next_unverified(self.session.dots, self.session.grid, here))

    def go_to_dot(self, dot: int | None) -> None:
        """Brings a dot into focus; without one, gives a message that none is left."""
        self.focus, self._least = dot, None
        self.selected.clear()
        if dot is None:
            self.notify("There is no unverified dot.")
        else:
            self.view.go(self._point(dot), cell=2 * self.session.radius)
        self.refresh()

    def go_least_certain(self) -> None:
        """Goes to the least certain proposal; asked again there, to the next after it."""
        # After E or N, which go in another order, it is the least certain of those that are left.
        skipped = self._least if self._least == self.focus else None
        self.go_to_dot(order.least_certain(self.session.dots, skipped))
        self._least = self.focus

    def snap(self) -> None:
        """Moves the dot in focus, or under the mouse, to the brightest place near it."""
        for dot in self._dots():
            self.do(functools.partial(self.session.snap, dot))

    def remove_selected(self) -> None:
        """Removes the selected dots, or the one in focus."""
        chosen = list(self.selected) or self._in_focus
        self.do(lambda: self.session.remove(chosen))

    def mark(self) -> None:
        """Marks the present block done, or one that is done in progress or to do.

        The proposals in a block that is done are verified, and a message gives their number.
        """
        session, block = self.session, self.view.block
        before = session.dots.verified
        state = DONE
        if session.state.blocks[block] == DONE:
            inside = (session.grid.index_of(session.dots.points) == block).all(1)
            state = IN_PROGRESS if (inside & before).any() else TO_DO
        self.do(lambda: session.mark([block], state))
        if count := int(session.dots.verified.sum() - before.sum()):
            self.notify(f"{count} proposal{'s' if count > 1 else ''} verified.")

    def go_next_block(self) -> None:
        """Goes to the middle of the next block that is to do or, if there is none, in progress."""
        states = self.session.state.blocks
        for state in (TO_DO, IN_PROGRESS):
            block = order.next_block(states, state, self.view.block)
            if block is not None:
                return self.go_to_block(block)
        self.notify("All blocks are done.")

    def go_to_block(self, block: tuple[int, ...]) -> None:
        """Goes to the middle of a block, and selects nothing."""
        self.view.go_to_block(block)
        self.select_none()

    def go_down(self) -> None:
        """Shows the next plane."""
        self.view.turn(1)

    def go_up(self) -> None:
        """Shows the plane before."""
        self.view.turn(-1)

    def select_none(self) -> None:
        """Ends selection and focus."""
        self.selected.clear()
        self.focus = None
        self.refresh()

    def undo(self) -> None:
        """Takes the last act back."""
        self.do(self.session.undo)

    def redo(self) -> None:
        """Does the act again that was taken back last."""
        self.do(self.session.redo)

    def save(self) -> None:
        """Writes the CSV file and the label file."""

        def save() -> str:
            name = self.session.saved_to.name
            copy = self.session.save()
            if copy is None:
                return f"Saved to {name}."
            return f"Saved to {name}. Another program had changed it; that is kept as {copy.name}."

        if (message := self.do(save)) is not None:
            self.notify(message)

    # The mouse

    def at(self, point: np.ndarray) -> int | None:
        """The id of the dot that is drawn at a place `(D,)` (voxels) of the plane, or None."""
        return self.session.dots.nearest(
            point,
            self.session.edges,
            max_distance=_CLICK_RADII * self.session.radius,
            rows=self.layers.rows,
            across=None if self.view.plane is None else self.view.plane[0],
        )

    def has(self, dot: int) -> bool:
        """Whether there is a dot with an id."""
        return bool(np.isin(dot, self.session.dots.ids))

    def select(self, corner: np.ndarray, other: np.ndarray) -> None:
        """Selects the dots of the plane between two corners."""
        rows = self.layers.rows
        points = self.session.dots.points[rows]
        inside = (points >= np.minimum(corner, other)) & (points <= np.maximum(corner, other))
        if self.view.plane is not None:
            inside[:, self.view.plane[0]] = True
        self.selected = set(self.session.dots.ids[rows[inside.all(1)]].tolist())
        self.refresh()

    def add(self, point: np.ndarray) -> None:
        """Places a dot; where it is placed on the brightest spot its plane is shown."""

        def add() -> None:
            dot = self.session.add(point, snap=self.snap_on_add)
            if self.snap_on_add:
                self.view.show_plane_of(self._point(dot))

        self.do(add)

    def move(self, dot: int, point: np.ndarray) -> None:
        """Puts a dot elsewhere; across the plane it stays where it is."""
        point = point.copy()
        if self.view.plane is not None:
            axis = self.view.plane[0]
            point[axis] = self._point(dot)[axis]
        self.do(lambda: self.session.move(dot, point))

    # Inside

    def do(self, act: Callable[[], _T]) -> _T | None:
        """The result of an act; after a failure, with a message to the user, None."""
        result = None
        try:
            result = act()
        except (InputError, OSError) as error:
            self.notify(in_words(error))
        self.selected = {dot for dot in self.selected if self.has(dot)}
        if self.focus is not None and not self.has(self.focus):
            self.focus = None
        self.refresh()
        return result

    def _panned(self, _: object = None) -> None:
        if self.view.block != self.block:
            self.refresh()

    @property
    def _in_focus(self) -> list[int]:
        """The id of the dot in focus, if there is one."""
        return [] if self.focus is None else [self.focus]

    def _dots(self) -> list[int]:
        """The id of the dot that a key acts on, if there is one: in focus, or under the mouse."""
        if self.focus is not None or self.view.mouse is None:
            return self._in_focus
        found = self.at(self.view.mouse)
        return [] if found is None else [found]

    def _point(self, dot: int) -> np.ndarray:
        found: np.ndarray = self.session.dots.points[self.session.dots.rows([dot])[0]]
        return found
