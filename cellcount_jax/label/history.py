"""The history of a session: acts that were done and undone, and the content that they lead to."""

from __future__ import annotations

import dataclasses

from cellcount_jax.data.blocks import GIVEN
from cellcount_jax.label import acts
from cellcount_jax.label.acts import Act
from cellcount_jax.label.content import Content
from cellcount_jax.label.journal import Record


class History:
    """Acts since a session was opened, those before a kill included.

    Attributes:
      content: as it is after the last act.
      done: acts that can be taken back, the last one at the end.
      undone: acts that were taken back and can be done again, the next one at the end.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.done: list[Act] = []
        self.undone: list[Act] = []

    @property
    def can_undo(self) -> str | None:
        """The name of the act that an undo takes back; None where there is none."""
        return self.done[-1].what if self.done else None

    @property
    def can_redo(self) -> str | None:
        """The name of the act that a redo does again; None where there is none."""
        return self.undone[-1].what if self.undone else None

    def follow(self, record: Record) -> str:
        """Takes a step that a record of the journal describes: an act, an undo, a redo or a size.

        The size of a cell that is given is no act on the dots, and stays with an undo.

        Returns:
          The name of the act that is done or taken back.
        """
        before = self.content
        if "radius" in record:
            radius = float(record["radius"])
            self.content = dataclasses.replace(before, radius=radius, radius_from=GIVEN)
            return "size"
        if "undo" in record:
            act = self.done.pop()
            state = acts.revert(before.state, act)
            self.undone.append(act)
        else:
            if "act" in record:
                act = acts.act_from_json(record["act"], len(before.grid.shape))
                self.undone.clear()
            else:
                act = self.undone.pop()
            state = acts.apply(before.state, act)
            self.done.append(act)
        self.content = dataclasses.replace(
            before,
            state=state,
            work=before.work.after(record["time"], before.state, state),
            place=tuple(record["place"]),
            next_id=max(before.next_id, 1 + int(act.added.ids.max(initial=-1))),
        )
        return act.what
