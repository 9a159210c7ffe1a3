"""A session in a viewer of napari: what is shown and chosen, and what keys do. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from napari.components import ViewerModel
from psygnal import Signal

from cellcount_jax.data.blocks import DONE, IN_PROGRESS, TO_DO
from cellcount_jax.errors import InputError
from cellcount_jax.label import order
from cellcount_jax.label.session import Session
from cellcount_jax.label.window.layers import Layers
from cellcount_jax.label.window.view import View

_NEAR = 0.7  # radii of a cell, within which a click is on a dot

# Key as Qt writes it, what it does, and the method of the canvas. The window lists them.
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

# Methods that a key that is held down calls again and again; others are called once.
REPEATED = {"go_down", "go_up", "undo", "redo"}


class Canvas:
    """A session, the layers that show it, and acts of the mouse and keys.

    Attributes:
      session: what is labelled.
      view: where the viewer looks at it.
      reach: of how many planes before and after the dots are seen.
      snap_on_add: whether a dot is placed at the brightest place near the click.
      selected: ids of the dots that Delete removes.
      focus: id of the dot that was gone to, or None.
      layers: in which it is drawn.
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
        self.session, self._tell = session, tell
        self.view = View(viewer, session.grid, session.edges)
        self.reach = 3
        self.snap_on_add = False
        self.selected: set[int] = set()
        self.focus: int | None = None
        self._least: int | None = None  # the dot that U went to, until another is in focus
        self.layers = Layers(viewer, session)
        self._shown: tuple[int, ...] | None = None  # the block
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
        """Shows what is there; a dot that is dragged elsewhere."""
        focus = () if self.focus is None else (self.focus,)
        self.layers.draw(
            self.session.dots,
            self.view.plane,
            reach=self.reach,
            chosen=(*self.selected, *focus),
            dragged=dragged,
        )
        block = self.view.block
        region = self.session.grid.region(block)
        self.layers.draw_block(region, int(self.session.state.blocks[block]))
        self._shown = block
        self.session.place = tuple(self.view.place.tolist())
        self.changed.emit()

    def show_preview(self, points: np.ndarray) -> None:
        """Shows what would be proposed, `(N, D)` voxels."""
        self.layers.draw_preview(points, self.view.plane, reach=self.reach)

    def propose(self, points: np.ndarray, scores: np.ndarray, by: Mapping[str, Any]) -> int | None:
        """Proposes dots, see `Session.propose`; None where it fails, which is told."""
        found = self.do(lambda: self.session.propose(points, scores, by=by))
        return found if isinstance(found, int) else None

    # Acts of the keys

    def accept(self) -> None:
        """Verifies the dots that are selected, in focus or under the mouse; goes to the next."""
        dot = self._dot()
        chosen = list(self.selected) or ([] if dot is None else [dot])
        self.do(lambda: self.session.accept(chosen))
        self.go_next()

    def go_next(self) -> None:
        """Goes to the next unverified dot."""
        self._focus(order.next_unverified(self.session.dots, self.session.grid, self._here()))

    def go_least_certain(self) -> None:
        """Goes to the least certain proposal; asked again there, to the next after it."""
        # Where E or N went the next has another order: from there the least certain that is left.
        skipped = self._least if self._least == self.focus else None
        self._focus(order.least_certain(self.session.dots, skipped))
        self._least = self.focus

    def snap(self) -> None:
        """Moves the dot in focus, or under the mouse, to the brightest place near it."""
        dot = self._dot()
        if dot is not None:
            self.do(lambda: self.session.snap(dot))

    def remove_selected(self) -> None:
        """Removes the selected dots, or the one in focus."""
        chosen = list(self.selected) or [d for d in (self.focus,) if d is not None]
        self.do(lambda: self.session.remove(chosen))

    def mark(self) -> None:
        """Marks the block in the middle of what is seen done; one that is done as it was begun.

        The proposals in a block that is done are verified; their number is told.
        """
        session, block = self.session, self.view.block
        before = session.dots.verified
        state = DONE
        if session.state.blocks[block] == DONE:
            inside = (session.grid.index_of(session.dots.points) == block).all(1)
            state = IN_PROGRESS if (inside & before).any() else TO_DO
        self.do(lambda: session.mark([block], state))
        if count := int(session.dots.verified.sum() - before.sum()):
            self._tell(f"{count} proposal{'s' if count > 1 else ''} verified.")

    def go_next_block(self) -> None:
        """Goes to the middle of the next block that is to do or, if there is none, in progress."""
        states = self.session.state.blocks
        for state in (TO_DO, IN_PROGRESS):
            block = order.next_block(states, state, self.view.block)
            if block is not None:
                return self.go_to_block(block)
        self._tell("All blocks are done.")

    def go_to_block(self, block: tuple[int, ...]) -> None:
        """Goes to the middle of a block; nothing that is left behind is in focus or selected."""
        self.view.go_to_block(block)
        self.select_none()

    def go_down(self) -> None:
        """Shows the next plane."""
        self.view.turn(1)

    def go_up(self) -> None:
        """Shows the plane before."""
        self.view.turn(-1)

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

        def save() -> str:
            copy = self.session.save()
            if copy is None:
                return "Saved."
            return f"Saved. Another program had changed the CSV file; it is kept as {copy.name}."

        told = self.do(save)
        if isinstance(told, str):
            self._tell(told)

    # The mouse

    def at(self, point: np.ndarray) -> int | None:
        """The id of the dot that is drawn at a place in the plane, or None."""
        return self.session.nearest(
            point,
            within=_NEAR * self.session.radius,
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

    def do(self, act: Callable[[], object]) -> object:
        """An act; what fails is told, and nothing is changed then."""
        result = None
        try:
            result = act()
        except (InputError, OSError) as error:
            self._tell(str(error))
        self.selected = {dot for dot in self.selected if self.has(dot)}
        if self.focus is not None and not self.has(self.focus):
            self.focus = None
        self.refresh()
        return result

    def _panned(self, _: object = None) -> None:
        if self.view.block != self._shown:
            self.refresh()

    def _focus(self, dot: int | None) -> None:
        self.focus, self._least = dot, None
        self.selected.clear()
        if dot is None:
            self._tell("There is no unverified dot.")
        else:
            self.view.go(self._point(dot), cell=2 * self.session.radius)
        self.refresh()

    def _dot(self) -> int | None:
        """The id of the dot that a key is about: in focus, or under the mouse."""
        if self.focus is not None:
            return self.focus
        mouse = self.view.mouse
        return None if mouse is None else self.at(mouse)

    def _here(self) -> np.ndarray:
        """After which place the next dot is looked for."""
        if self.focus is None:
            return self.view.place
        return self._point(self.focus)

    def _point(self, dot: int) -> np.ndarray:
        found: np.ndarray = self.session.dots.points[self.session.dots.rows([dot])[0]]
        return found
