"""What the mouse does in the slices: place, remove, move and select dots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cellcount_jax.label.canvas import Canvas

_STILL = 4  # pixels of the screen; a mouse that moved less did not drag


def drag(canvas: Canvas) -> Callable[[Any, Any], Iterator[None]]:
    """For `mouse_drag_callbacks` of a viewer.

    A click places a dot, or removes the one under it; with dots selected it only ends that. A drag
    moves a dot, or the view; with Shift it selects. A double click is one click: its second
    press is another event, which nothing takes.
    """

    def pressed(viewer: Any, event: Any) -> Iterator[None]:
        shown = canvas.view.shown
        if event.button != 1 or viewer.dims.ndisplay == 3 or len(shown) < 2:
            return
        start, point = np.asarray(event.pos, float), canvas.view.point_of(event)
        selects = "Shift" in event.modifiers
        dot = None if selects else canvas.at(point)
        # The view stays where it is, but for a drag of nothing.
        canvas.view.camera.mouse_pan = dot is None and not selects
        moved = False
        try:
            yield
            while event.type == "mouse_move":
                moved |= bool(np.hypot(*(np.asarray(event.pos) - start)) > _STILL)
                here = canvas.view.point_of(event)
                if moved and selects:
                    canvas.layers.draw_box((point, here), shown)
                elif moved and dot is not None:
                    canvas.refresh(dragged=(dot, here))
                yield
        finally:
            canvas.view.camera.mouse_pan = True
            canvas.layers.draw_box(None)
        here = canvas.view.point_of(event)
        if dot is not None and not canvas.has(dot):
            canvas.refresh()  # an undo or new proposals took it away meanwhile
        elif moved and selects:
            canvas.select(point, here)
        elif moved and dot is not None:
            canvas.move(dot, here)
        elif not moved and dot is not None:
            canvas.do(lambda: canvas.session.remove([dot]))
        elif not moved and canvas.selected:
            canvas.select_none()
        elif not moved and not selects and canvas.view.holds(point):
            canvas.add(point)

    return pressed
