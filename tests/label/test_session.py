"""A session of labelling: acts and their undoing, the journal after a kill at any byte, files."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cellcount_jax.data.blocks import DONE, IN_PROGRESS, TO_DO, read_block_states
from cellcount_jax.data.entries import entry_of, scan
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import check_points_inside, read_points
from cellcount_jax.images.selection import Selection
from cellcount_jax.label import files, journal, order
from cellcount_jax.label.acts import State
from cellcount_jax.label.dots import as_stored, make_dots
from cellcount_jax.label.session import Session

SHAPE = (6, 20, 24)
SPACING = (6.0, 2.0, 2.0)
BLOCK = (3, 10, 12)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def write(folder: Path, shape: tuple[int, ...] = SHAPE) -> Path:
    pixels = np.random.default_rng(0).integers(0, 900, shape).astype(np.uint16)
    path = folder / "cells.tif"
    write_image(path, pixels, spacing=SPACING[-len(shape) :])
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.fixture
def labelled_image(image: Path) -> Path:
    """An image with one dot, saved."""
    with Session(image, block=BLOCK) as session:
        session.add((1, 1, 1))
    return image


def change_csv(image: Path, *rows: str) -> str:
    """Writes dots as another program does; the text."""
    text = "\n".join(("z,y,x", *rows, ""))
    image.with_suffix(".csv").write_text(text)
    return text


@pytest.fixture
def session(image: Path) -> Iterator[Session]:
    with Session(image, block=BLOCK, radius=4.0, now=Clock()) as opened:
        yield opened


def content(state: State) -> tuple[Any, ...]:
    dots = state.dots
    return (
        dots.ids.tolist(),
        dots.points.tolist(),
        dots.verified.tolist(),
        np.nan_to_num(dots.scores, nan=-1).tolist(),
        state.blocks.tolist(),
        [dict(by) for by in state.proposed],
    )


def without_ids(state: State) -> tuple[Any, ...]:
    return content(state)[1:]


# Acts


def test_a_dot_is_added_moved_and_removed(session: Session) -> None:
    dot = session.add((1, 2.5, 3.25))
    assert session.dots.points.tolist() == [[1, 2.5, 3.25]]
    assert session.dots.verified.all() and np.isnan(session.dots.scores).all()
    assert session.state.blocks[0, 0, 0] == IN_PROGRESS and session.state.blocks.sum() == 1
    session.move(dot, (4, 12, 13))
    assert session.dots.points.tolist() == [[4, 12, 13]] and session.dots.ids.tolist() == [dot]
    assert session.state.blocks[1, 1, 1] == IN_PROGRESS
    session.remove([dot])
    assert len(session.dots) == 0
    assert [session.undo() for _ in range(4)] == ["remove", "move", "add", None]
    assert len(session.dots) == 0 and not session.state.blocks.any()
    assert session.redo() == "add" and session.history.can_redo == "move"
    session.add((0, 0, 0))
    assert session.history.can_redo is None


@pytest.mark.parametrize("point", [(-0.6, 0, 0), (0, 0, 24), (0, np.nan, 0)])
def test_outside_is_an_error_and_changes_nothing(
    session: Session, point: tuple[float, ...]
) -> None:
    session.add((1, 1, 1))
    before = content(session.state)
    with pytest.raises(InputError, match=r"cells\.tif"):
        session.add(point)
    assert content(session.state) == before


def test_unknown_dots_are_an_error(session: Session) -> None:
    session.add((1, 1, 1))
    for ids in ([5], [0, 7], [-1]):
        with pytest.raises(KeyError):
            session.remove(ids)


def test_proposals_leave_alone_what_the_user_placed(session: Session) -> None:
    placed = session.add((1, 5, 5))
    session.mark([[1, 1, 1]], DONE)
    # In um the first is 2 * 1.9 from the dot, the second 2 * 2.1; the third is in a done block.
    points = np.array([(1, 5, 6.9), (1, 5, 7.1), (4, 15, 15), (0, 18, 3)])
    assert session.propose(points, np.array([0.1, 0.2, 0.3, 0.4]), by={"what": "test"}) == 2
    kept = session.dots.take(~session.dots.verified)
    assert kept.points.tolist() == [[1, 5, 7.1], [0, 18, 3]]
    assert kept.scores.tolist() == [0.2, 0.4]
    assert session.state.proposed == ({"what": "test"},)
    assert session.state.blocks[0, 1, 0] == TO_DO  # proposals are no work of the user's
    # Others replace them, in a region alone where there is one.
    first = int(kept.ids[0])
    session.accept([first])
    left = (slice(0, 6), slice(0, 20), slice(0, 12))
    assert session.propose(np.array([(2, 2, 2), (2, 2, 20)]), None, by={}, region=left) == 1
    assert session.dots.ids.tolist()[:2] == [placed, first]
    assert session.dots.points.tolist()[2:] == [[2, 2, 2]]
    for _ in range(3):
        session.undo()
    assert session.dots.points.tolist() == [[1, 5, 5]] and session.state.proposed == ()


def test_no_proposals_take_the_old_ones_away(session: Session) -> None:
    session.propose(np.array([(1, 1, 1)]), None, by={})
    assert session.propose(np.zeros((0, 3)), np.zeros(0), by={}) == 0
    assert len(session.dots) == 0


def test_done_blocks_verify_their_dots(session: Session) -> None:
    session.propose(np.array([(1, 1, 1), (1, 1, 13)]), np.array([0.5, 0.6]), by={})
    session.mark([[0, 0, 0], [0, 0, 0]], DONE)
    assert session.dots.verified.tolist() == [True, False]
    assert session.dots.scores.tolist() == [0.5, 0.6]
    session.mark([[0, 0, 0]], TO_DO)
    assert session.state.blocks.sum() == 0
    session.undo()
    session.undo()
    assert session.dots.verified.tolist() == [False, False] and not session.state.blocks.any()


def test_marking_what_is_marked_is_no_act(session: Session) -> None:
    session.mark([[0, 0, 0]], TO_DO)
    session.accept([])
    session.remove([])
    assert session.history.can_undo is None


def test_snap_finds_the_brightest_place(tmp_path: Path) -> None:
    shape = (12, 30, 30)
    centre = np.array([6.2, 14.7, 15.4])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    away = (grid - centre) * np.array([3.0, 1.0, 1.0])
    pixels = 100 + 4000 * np.exp(-np.square(away).sum(-1) / (2 * 3.0**2))
    write_image(tmp_path / "a.tif", pixels.astype(np.uint16), spacing=(3.0, 1.0, 1.0))
    with Session(tmp_path / "a.tif", radius=6.0) as session:
        dot = session.add((5, 12, 13), snap=True)
        assert np.abs(session.dots.points[0] - centre).max() < 0.15
        session.move(dot, (6, 17, 16))
        session.snap(dot)
        assert np.abs(session.dots.points[0] - centre).max() < 0.15
        # Where a dot is already none is added, and none is moved to it.
        with pytest.raises(InputError, match="already, voxel 6, 15, 15"):
            session.add((7, 13, 17), snap=True)
        other = session.add((7, 13, 17))
        with pytest.raises(InputError, match="There is a dot"):
            session.snap(other)
        assert session.dots.points[1].tolist() == [7, 13, 17]
        # Further than the radius it is not looked for; at the border neither.
        away_dot = session.add((0, 0, 29), snap=True)
        moved = session.dots.points[session.dots.rows([away_dot])[0]] - (0, 0, 29)
        assert (np.abs(moved * (3, 1, 1)) <= 6.9).all()


def test_nearest_is_in_micrometres(session: Session) -> None:
    first = session.add((2, 5, 5))  # 6 um from the click, in depth
    second = session.add((1, 7.5, 5))  # 5 um
    click = (1, 5, 5)
    nearest = functools.partial(session.dots.nearest, click, session.edges)
    assert nearest(max_distance=4) is None
    assert nearest(max_distance=5.5) == second
    assert nearest(max_distance=6, rows=session.dots.rows([first])) == first
    assert nearest(max_distance=6, rows=np.zeros(0, int)) is None
    assert nearest(max_distance=0.1, across=0) == first


def test_where_to_go_next(session: Session) -> None:
    assert order.next_unverified(session.dots, session.grid, np.zeros(3)) is None
    assert order.least_certain(session.dots) is None
    points = np.array([(0, 1, 20), (2, 9, 1), (1, 1, 1), (4, 1, 1)])
    session.propose(points, np.array([0.4, 0.9, 0.1, 0.4]), by={})
    a, b, c, d = session.dots.ids.tolist()
    # Block by block: c and b are in the first one.
    seen, place = [], np.zeros(3)
    for _ in range(5):
        found = order.next_unverified(session.dots, session.grid, place)
        assert found is not None
        seen.append(found)
        place = session.dots.points[session.dots.rows([found])[0]]
    assert seen == [c, b, a, d, c]
    least = [order.least_certain(session.dots)]
    for _ in range(4):
        least.append(order.least_certain(session.dots, least[-1]))
    assert least == [c, a, d, b, c]
    session.accept([c])
    assert order.least_certain(session.dots) == a
    assert order.next_block(session.state.blocks, IN_PROGRESS) == (0, 0, 0)
    assert order.next_block(session.state.blocks, TO_DO, (0, 0, 0)) == (0, 0, 1)
    assert order.next_block(session.state.blocks, TO_DO, (1, 1, 1)) == (0, 0, 1)
    assert order.next_block(session.state.blocks, DONE) is None


def test_time_and_what_is_left(image: Path) -> None:
    clock = Clock()
    with Session(image, block=BLOCK, now=clock) as session:
        assert session.work.per_minute is None
        assert session.work.seconds_left(session.state.blocks) is None
        for x in range(5):
            session.add((1, 1, x))
            clock.seconds += 3
        clock.seconds += 10_000  # a pause counts for a minute
        session.mark([[0, 0, 0]], DONE)
        assert session.work.seconds == 4 * 3 + 60 and session.work.cells == 5
        assert session.work.per_minute == pytest.approx(60 * 5 / 72)
        assert session.work.seconds_left(session.state.blocks) == pytest.approx(72 * 7)
        session.undo()
        assert session.work.blocks == 0
        session.mark(np.argwhere(session.state.blocks >= 0), DONE)
        assert session.work.seconds_left(session.state.blocks) == 0
    with Session(image, now=clock) as session:
        assert session.work.cells == 5 and session.work.blocks == 8


# Any sequence of acts

_POINTS = st.tuples(*(st.floats(-0.5, n - 0.5, exclude_max=True) for n in SHAPE))


class Labelling(RuleBasedStateMachine):
    """Acts, undoing and kills in any order, against a list of states."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        for path in self.folder.iterdir():
            if path.name != "cells.tif":
                path.unlink()
        self.session = Session(self.folder / "cells.tif", block=BLOCK, radius=4.0, now=Clock())
        self.past = [content(self.session.state)]
        self.future: list[Any] = []

    def acted(self, act: Callable[[], object]) -> None:
        """What an act makes is undone by `undo`, if it did anything."""
        done = len(self.session.history.done)
        with contextlib.suppress(InputError):  # where it would snap there is a dot
            act()
        if len(self.session.history.done) > done:
            self.past.append(content(self.session.state))
            self.future.clear()

    @rule(point=_POINTS, snap=st.booleans())
    def add(self, point: tuple[float, ...], snap: bool) -> None:
        self.acted(lambda: self.session.add(point, snap=snap))

    @rule(points=st.lists(_POINTS, max_size=4), scored=st.booleans(), part=st.booleans())
    def propose(self, points: list[tuple[float, ...]], scored: bool, part: bool) -> None:
        scores = np.linspace(0, 1 / 3, len(points)) if scored else None
        region = (slice(0, 3), slice(0, 20), slice(5, 24)) if part else None
        by = {"scored": scored}
        self.acted(lambda: self.session.propose(np.array(points), scores, by=by, region=region))

    @precondition(lambda self: len(self.session.dots) > 0)
    @rule(data=st.data(), what=st.sampled_from(["remove", "accept", "move", "snap"]))
    def change(self, data: st.DataObject, what: str) -> None:
        dot = data.draw(st.sampled_from(self.session.dots.ids.tolist()))
        if what == "move":
            point = data.draw(_POINTS)
            self.acted(lambda: self.session.move(dot, point))
        elif what == "snap":
            self.acted(lambda: self.session.snap(dot))
        else:
            self.acted(lambda: getattr(self.session, what)([dot]))

    @rule(block=st.tuples(*[st.integers(0, 1)] * 3), state=st.sampled_from([TO_DO, DONE]))
    def mark(self, block: tuple[int, ...], state: int) -> None:
        self.acted(lambda: self.session.mark([block], state))

    @rule()
    def undo(self) -> None:
        if self.session.undo() is not None:
            self.future.append(self.past.pop())

    @rule()
    def redo(self) -> None:
        if self.session.redo() is not None:
            self.past.append(self.future.pop())

    @rule()
    def save(self) -> None:
        self.session.save()

    @rule()
    def kill(self) -> None:
        self.session.abandon()
        self.session = Session(self.folder / "cells.tif", block=BLOCK, radius=4.0, now=Clock())

    @rule()
    def close(self) -> None:
        state = without_ids(self.session.state)
        self.session.close()
        self.session = Session(self.folder / "cells.tif", block=BLOCK, radius=4.0, now=Clock())
        assert without_ids(self.session.state) == state
        self.past, self.future = [content(self.session.state)], []

    @invariant()
    def is_as_it_was(self) -> None:
        assert content(self.session.state) == self.past[-1]
        assert (self.session.history.can_undo is None) == (len(self.past) == 1)
        assert (self.session.history.can_redo is None) == (not self.future)

    def teardown(self) -> None:
        self.session.abandon()


def test_any_sequence_of_acts_is_undone(tmp_path: Path) -> None:
    write(tmp_path)
    Labelling.folder = tmp_path

    run_state_machine_as_test(
        Labelling,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# Files


@pytest.mark.parametrize("kill", [False, True])
def test_a_voxel_size_that_was_given_is_kept_with_the_radius(tmp_path: Path, kill: bool) -> None:
    path = tmp_path / "cells.tif"
    write_image(path, np.zeros(SHAPE, np.uint8), ndim=3)

    def left(session: Session) -> None:
        session.add((1, 1, 1))
        session.abandon() if kill else session.close()

    left(Session(path, Selection(spacing=(0.5, 0.2, 0.2))))
    session = Session(path)
    assert session.unit == "um" and session.radius == pytest.approx(1.0)
    assert session.edges.tolist() == [0.5, 0.2, 0.2] == list(session.source.spacing or ())
    left(session)
    session = Session(path, Selection(spacing=(1, 0.4, 0.4)))  # one that is given goes before it
    assert session.edges.tolist() == [1, 0.4, 0.4] and session.radius == pytest.approx(1.0)
    left(session)


@pytest.mark.parametrize("kill", [False, True])
def test_a_radius_in_pixels_is_of_the_finest_edge(tmp_path: Path, kill: bool) -> None:
    path = tmp_path / "cells.tif"
    write_image(path, np.zeros(SHAPE, np.uint8), ndim=3)
    session = Session(path, radius=4.0)
    session.add((1, 1, 1))
    session.abandon() if kill else session.close()
    with Session(path, Selection(spacing=(0.5, 0.2, 0.2))) as session:
        assert session.unit == "um" and session.radius == pytest.approx(0.8)
        session.add((3, 3, 3))
    with Session(path) as session:
        assert session.unit == "um" and session.radius == pytest.approx(0.8)


def labelled(session: Session) -> list[tuple[Any, ...]]:
    """Some acts; the states after each, with the first one."""
    states = [content(session.state)]
    acts: list[Callable[[], object]] = [
        lambda: session.add((1, 1, 1)),
        lambda: session.propose(np.array([(4, 4, 4), (5, 5, 15)]), np.array([0.5, 1]), by={"a": 1}),
        lambda: session.move(0, (1, 2, 3)),
        session.undo,
        lambda: session.mark([[1, 0, 0]], DONE),
        lambda: session.remove([2]),
        session.undo,
        session.redo,
    ]
    for act in acts:
        act()
        states.append(content(session.state))
    return states


def test_a_kill_at_any_byte_loses_at_most_the_act_that_was_being_written(tmp_path: Path) -> None:
    image = tmp_path / "cells.npy"  # opened sooner than TIFF
    np.save(image, np.zeros(SHAPE, np.uint8))
    session = Session(image, block=BLOCK, now=Clock())
    states = labelled(session)
    session.abandon()
    path = image.with_name(".cells.label.journal")
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == len(states)  # the first line is what there was before
    for length in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:length])
        session = Session(image, now=Clock())
        complete = sum(end <= length for end in ends)
        assert content(session.state) == states[complete - 1], length
        assert session.recovered == complete - 1
        if length % 97 == 0:  # and it goes on from there
            session.add((0, 0, 0))
            after = content(session.state)
            session.abandon()
            session = Session(image, now=Clock())
            assert content(session.state) == after
        session.abandon()
    # The first line is written as a whole or not at all.
    path.write_bytes(whole[: ends[0] - 1])
    with pytest.raises(InputError, match="holds no record"):
        Session(image)


def test_a_killed_process_loses_nothing(image: Path) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from cellcount_jax.label.session import Session
        session = Session(Path({str(image)!r}))
        session.add((1, 2, 3))
        session.save()
        session.add((4, 5, 6))
        print("now", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False
    )
    assert process.returncode == -9 and process.stdout == b"now\n", process.stderr
    with Session(image) as session:
        assert session.recovered == 2
        assert session.dots.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert read_points(image.with_suffix(".csv"), ndim=3).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("stage", ["csv", "progress", "journal"])
def test_a_kill_while_saving_loses_nothing(
    image: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    change_csv(image, "2,2,2")
    session = Session(image, block=BLOCK)
    session.add((1, 1, 1))
    wanted = content(session.state)
    target = {
        "csv": "cellcount_jax.label.files.write",
        "progress": "cellcount_jax.label.store.write_block_states",
        "journal": "pathlib.Path.unlink",
    }[stage]
    with monkeypatch.context() as patch:
        if stage == "journal":
            session.save()
        else:
            patch.setattr(target, mock.Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                session.close()
    session.abandon()
    with Session(image) as session:
        assert content(session.state) == wanted
    assert image.with_name("cells.csv.bak").read_text() == "z,y,x\n2,2,2\n"


def test_what_is_saved_is_what_training_reads(image: Path) -> None:
    with Session(image, block=BLOCK) as session:
        session.add((1.25, 2.5, 3.125))
        session.propose(np.array([(4, 5, 6.0)]), np.array([1 / 3]), by={"what": "otsu"})
        session.mark([[0, 0, 0]], DONE)
        session.place = (1, 2, 3)
        session.add((0, 0, 23))
        radius = session.radius
    lines = image.with_suffix(".csv").read_text().splitlines()
    assert lines == [
        "z,y,x,score,verified",
        "1.250,2.500,3.125,,1",
        "4.000,5.000,6.000,0.333333,0",
        "0.000,0.000,23.000,,1",
    ]
    assert read_points(image.with_suffix(".csv"), ndim=3).shape == (3, 3)
    progress = read_block_states(image.with_name("cells.label.json"))
    assert progress.valid[:3, :10, :12].all() and progress.valid.sum() == 3 * 10 * 12
    assert progress.about["proposals"] == [{"what": "otsu"}]
    assert progress.about["image"] == "cells.tif" and progress.about["place"] == [1, 2, 3]
    with Session(image) as session:
        assert session.place == (1, 2, 3) and session.radius == radius
        assert session.grid.block == BLOCK
        assert session.recovered == 0
    assert sorted(path.name for path in image.parent.iterdir()) == [
        "cells.csv",
        "cells.label.json",
        "cells.tif",
    ]


@pytest.mark.parametrize("name", ["a .tif", "Fig..tif", " a.ome.tif", "a. .png"])
def test_an_image_whose_name_ends_in_a_space_or_dot(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_image(path, np.zeros((20, 24), np.uint8), ndim=2)
    with Session(path, block=(10, 12)) as session:
        session.add((3, 5))
        session.mark([(0, 0)], DONE)
    (entry,) = scan(tmp_path)
    assert entry == entry_of(path)
    assert entry.image == path and entry.points and entry.blocks
    assert read_points(entry.points, ndim=2).tolist() == [[3, 5]]
    with Session(path) as session:
        assert session.dots.points.tolist() == [[3, 5]] and session.state.blocks[0, 0] == DONE


def test_opening_and_closing_writes_nothing(image: Path) -> None:
    image.with_suffix(".csv").write_text("note,z,y,x\nmine,2,2,2\n")
    with Session(image) as session:
        # Training takes such dots as complete, so the blocks are done.
        assert (session.state.blocks == DONE).all() and session.dots.verified.all()
    assert image.with_suffix(".csv").read_text() == "note,z,y,x\nmine,2,2,2\n"
    with Session(image) as session:
        session.add((1, 1, 1))
    assert image.with_name("cells.csv.bak").read_text() == "note,z,y,x\nmine,2,2,2\n"


def test_a_csv_that_another_program_changed_is_not_overwritten(image: Path) -> None:
    session = Session(image)
    session.add((1, 1, 1))
    session.save()
    session.add((2, 2, 2))
    session.abandon()
    change_csv(image, "3,3,3")
    with pytest.raises(InputError, match=r"cells\.csv: was changed by another program"):
        Session(image)
    image.with_name(".cells.label.journal").unlink()
    with Session(image) as session:
        assert session.dots.points.tolist() == [[3, 3, 3]]


def test_done_blocks_without_their_dots_are_refused(labelled_image: Path) -> None:
    image = labelled_image
    with Session(image) as session:
        session.mark([[0, 0, 0]], DONE)
    image.with_suffix(".csv").unlink()
    with pytest.raises(InputError, match=r"cells\.label\.json: marks blocks as done, but"):
        Session(image)


def test_dots_that_are_gone_give_a_note(labelled_image: Path) -> None:
    labelled_image.with_suffix(".csv").unlink()
    with Session(labelled_image) as session:
        assert not len(session.dots)
        (note,) = session.notes
    assert note.startswith("cells.csv is gone")


def test_a_csv_that_was_changed_since_is_taken_and_kept_with_a_note(image: Path) -> None:
    with Session(image, block=BLOCK) as session:
        session.add((1, 1, 1))
        session.mark([[0, 0, 0]], DONE)
        assert session.notes == ()
    with Session(image) as session:
        assert session.notes == ()
    copies = []
    for z, name in ((2, "cells.csv.bak"), (3, "cells.csv.bak2")):
        changed = change_csv(image, f"{z},2,2")
        with Session(image) as session:
            (note,) = session.notes
            assert note.startswith("cells.csv was changed by another program")
            assert session.dots.points.tolist() == [[z, 2, 2]]
            assert session.state.blocks[0, 0, 0] == DONE
            session.add((4, 4, 4))
        copies.append((image.with_name(name), changed))
    assert [(path, path.read_text()) for path, _ in copies] == copies


@pytest.mark.parametrize("before", [True, False])
def test_a_csv_that_changes_or_appears_while_it_is_open_is_kept(image: Path, before: bool) -> None:
    with Session(image) as session:
        session.add((1, 1, 1))
        if before:
            assert session.save() is None
        change_csv(image, "3,3,3")
        copy = session.save()
        assert copy == image.with_name("cells.csv.bak")
        assert copy.read_text() == "z,y,x\n3,3,3\n"
        assert session.save() is None
        change_csv(image, "4,4,4")
        session.add((2, 2, 2))
    assert image.with_name("cells.csv.bak2").read_text() == "z,y,x\n4,4,4\n"
    with Session(image) as session:
        assert session.dots.points.tolist() == [[1, 1, 1], [2, 2, 2]] and session.notes == ()


def test_a_csv_that_changes_after_all_was_saved_is_not_replaced_on_closing(image: Path) -> None:
    path = image.with_suffix(".csv")
    with Session(image) as session:
        session.add((1, 1, 1))
        session.save()
        changed = change_csv(image, "3,3,3")
    assert path.read_text() == changed
    with Session(image) as session:
        assert session.dots.points.tolist() == [[3, 3, 3]] and len(session.notes) == 1
        session.add((1, 1, 1))
        session.save()
        path.unlink()  # what is gone is written again
    with Session(image) as session:
        assert session.dots.points.tolist() == [[3, 3, 3], [1, 1, 1]]


def test_what_was_saved_before_a_kill_goes_on_from_a_csv_that_was_changed(image: Path) -> None:
    session = Session(image)
    session.add((1, 1, 1))
    session.save()
    session.abandon()
    change_csv(image, "3,3,3")
    with Session(image) as session:
        assert session.dots.points.tolist() == [[3, 3, 3]]
        assert session.recovered == 0 and len(session.notes) == 1
    assert not image.with_name(".cells.label.journal").exists()


def test_what_was_not_saved_to_its_end_does_not_give_way(image: Path) -> None:
    session = Session(image, block=BLOCK)
    session.add((1, 1, 1))
    session.save()
    session.mark([[0, 0, 0]], DONE)  # the CSV file stays as it is
    failing = mock.patch(
        "cellcount_jax.label.store.write_block_states", side_effect=KeyboardInterrupt
    )
    with failing, pytest.raises(KeyboardInterrupt):
        session.save()
    session.abandon()
    change_csv(image, "3,3,3")
    with pytest.raises(InputError, match="acts that were not saved"):
        Session(image)


def test_damage_in_the_middle_is_an_error(image: Path) -> None:
    session = Session(image)
    session.add((1, 1, 1))
    session.add((2, 2, 2))
    session.abandon()
    path = image.with_name(".cells.label.journal")
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b'"add"', b'"odd"')
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match="line 2 is damaged"):
        Session(image)


def test_a_second_window_is_refused(image: Path) -> None:
    with Session(image), pytest.raises(InputError, match="another window"):
        Session(image)
    with Session(image):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written(
    image: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    opens = os.open

    def refused(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(".lock"):
            raise OSError(number, os.strerror(number), str(path))
        return opens(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refused)
    reason = {errno.EROFS: "lies on a .* only be read", errno.EACCES: "no permission .*"}[number]
    words = rf"cells\.tif: its folder cannot be written \({reason}\).* of your own"
    with pytest.raises(InputError, match=words):
        Session(image)


def test_a_full_disk_changes_nothing(image: Path) -> None:
    with Session(image) as session:
        session.add((1, 1, 1))
        before = content(session.state)
        full = mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device"))
        with full, pytest.raises(OSError, match="No space left"):
            session.add((2, 2, 2))
        assert content(session.state) == before
        session.add((3, 3, 3))
    with Session(image) as session:
        assert session.dots.points.tolist() == [[1, 1, 1], [3, 3, 3]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 2_000_000), min_size=2, max_size=3), st.data())
def test_what_is_stored_is_inside_the_image_to_every_reader(
    tmp_path_factory: Any, shape: list[int], data: st.DataObject
) -> None:
    near_the_end = [
        st.floats(-0.5, n - 0.5, exclude_max=True) | st.floats(n - 0.502, n - 0.5, exclude_max=True)
        for n in shape
    ]
    points = np.array(data.draw(st.lists(st.tuples(*near_the_end), min_size=1, max_size=5)))
    dots = make_dots(as_stored(points, shape, "points"), first_id=0, verified=True)
    assert np.abs(dots.points - points).max() < 0.002 + np.spacing(np.float32(max(shape)))
    path = tmp_path_factory.mktemp("dots") / "a.csv"
    files.write(path, files.as_csv(dots))
    assert files.read_dots(path, shape).points.tolist() == dots.points.tolist()
    check_points_inside(read_points(path, ndim=len(shape)), shape, path)
    shutil.rmtree(path.parent)


def test_points_at_the_end_of_the_image_are_read_again(image: Path) -> None:
    end = (5.4999, 19.4998, 23.4997)
    with Session(image) as session:
        assert session.import_points(np.array([end]), name="a.csv") == 1
        session.move(session.add((1, 1, 1)), (0, *end[1:]))
        session.propose(np.array([(3, 3, 23.4999)]), None, by={})
    with Session(image) as session:
        wanted = [[5.499, 19.499, 23.499], [0, 19.499, 23.499], [3, 3, 23.499]]
        assert session.dots.points.tolist() == wanted
    image.with_name("cells.label.json").unlink()
    change_csv(image, "1,1,23.4997")  # of another program
    for _ in range(2):
        with Session(image) as session:
            assert session.dots.points.tolist()[0] == [1, 1, 23.499]
            session.add((2, 2, 2))


def test_proposals_that_are_no_numbers_are_an_error(session: Session) -> None:
    with pytest.raises(InputError, match="proposals: 1 of 1 points lie outside"):
        session.propose(np.array([(1, np.nan, 1)]), None, by={})


def test_other_blocks_than_those_that_are_labelled_give_a_note(image: Path) -> None:
    with Session(image, block=BLOCK) as session:
        assert session.notes == ()
        session.add((1, 1, 1))
    with Session(image, block=list(BLOCK)) as session:
        assert session.notes == ()
    with Session(image, block=(1, 20, 24)) as session:
        assert session.grid.block == BLOCK
        assert session.notes == (
            "The image is labelled in blocks of 3 x 10 x 12 voxels, and they are kept: 1 x 20 x 24"
            " (--block) is not used.",
        )


@pytest.mark.parametrize("kill", [False, True])
def test_another_time_point_is_refused(tmp_path: Path, kill: bool) -> None:
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, np.zeros((3, 20, 24), np.uint8), metadata={"axes": "TYX"}, ome=True)
    session = Session(path, Selection(time=0), block=(10, 12))
    session.add((1, 1))
    session.abandon() if kill else session.close()
    with pytest.raises(InputError, match="is of time point 0, but the image was opened at time po"):
        Session(path, Selection(time=2))
    with Session(path, Selection(time=0)) as session:
        session.add((2, 2))
    # A file of before does not say it.
    progress = tmp_path / "cells.label.json"
    stored = json.loads(progress.read_text())
    assert (stored.pop("scene"), stored.pop("time"), stored.pop("level")) == ("0", 0, 0)
    progress.write_text(json.dumps(stored))
    with Session(path, Selection(time=2)) as session:
        assert len(session.dots) == 2


def test_another_level_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cells.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for name in "01":  # of one shape, as flawed pyramids have them
        group.create_array(name, data=np.ones(SHAPE, np.uint8))
    paths = [{"path": name} for name in "01"]
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": paths}]
    with Session(path, Selection(level=1)) as session:
        session.add((1, 1, 1))
    with pytest.raises(InputError, match=r"is of level 1, .* at level 0; open it with --level 1"):
        Session(path)


def test_another_image_of_this_name(labelled_image: Path) -> None:
    write(labelled_image.parent, (6, 20, 25))
    with pytest.raises(InputError, match=r"cells\.label\.json: is of an image of 6 x 20 x 24"):
        Session(labelled_image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "not a file of the labelling tool"),
        ('{"format": "cellcount_jax labels", "version": 2}', "install a newer one"),
        ('{"format": "cellcount_jax labels", "version": 1}', "is damaged"),
    ],
)
def test_a_damaged_progress(image: Path, text: str, message: str) -> None:
    image.with_name("cells.label.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Session(image)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("radius", None),
        ("radius", "5"),
        ("radius", True),
        ("radius", -1),
        ("radius", 1e400),
        ("radius", 10**400),
        ("unit", 3),
        ("spacing", [1, 2]),
        ("spacing", [1, 2, None]),
        ("spacing", "1,2,3"),
        ("work", None),
        ("work", {"seconds": "many"}),
        ("work", {"cells": None}),
        ("place", [0, "a", 0]),
        ("place", 3),
        ("proposals", None),
        ("proposals", 5),
        ("proposals", ["otsu"]),
        ("dots", None),
        ("dots", {"sha256": 3}),
        ("done", None),
        ("done", [[0, 0, 2]]),
        ("in_progress", 3),
        ("shape", None),
        ("shape", [1]),
        ("block", "abc"),
        ("block", [3, 0, 12]),
    ],
)
def test_a_value_of_the_label_file_that_cannot_be(
    labelled_image: Path, key: str, value: Any
) -> None:
    path = labelled_image.with_name("cells.label.json")
    text = json.dumps({**json.loads(path.read_text()), key: value})
    path.write_text(text.replace("Infinity", "1e400"))
    with pytest.raises(InputError, match=rf"cells\.label\.json: is damaged \({key}"):
        Session(labelled_image)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_radius_that_json_does_not_have(labelled_image: Path, text: str) -> None:
    path = labelled_image.with_name("cells.label.json")
    stored = {**json.loads(path.read_text()), "radius": float(text)}
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=rf"cells\.label\.json: is not JSON \({text} is no"):
        Session(labelled_image)


def test_marks_as_floats_are_read(image: Path) -> None:
    image.with_suffix(".csv").write_text("z,y,x,verified\n1,1,1,1.0\n2,2,2,0.0\n3,3,3,\n")
    with Session(image) as session:
        assert session.dots.verified.tolist() == [True, False, True]


def test_import_leaves_out_what_is_there(session: Session) -> None:
    session.add((1, 1, 1))
    assert session.import_points(np.array([(1, 1, 1.5), (1, 1, 3)]), name="a.csv") == 1
    assert session.dots.points.tolist() == [[1, 1, 1], [1, 1, 3]] and session.dots.verified.all()
    with pytest.raises(InputError, match=r"a\.csv"):
        session.import_points(np.array([(1, 1, 99)]), name="a.csv")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.floats(0, 1)), min_size=1, max_size=5))
def test_a_journal_gives_its_records_back(tmp_path_factory: Any, records: list[dict]) -> None:
    folder = tmp_path_factory.mktemp("journal")
    opened = journal.start(folder / "j", records[0])
    for record in records[1:]:
        opened.append(record)
    opened.close()
    assert journal.read(folder / "j") == (records, (folder / "j").stat().st_size)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,1,1,inf,1", "dot 1, column score: 'inf' is not allowed"),
        ("1,1,1,high,1", "dot 1, column score: 'high' is not allowed"),
        ("1,1,1,0.5,yes", "dot 1, column verified: 'yes' is not allowed"),
        ("1,1,1,0.5,0.5", "dot 1, column verified: '0.5' is not allowed"),
        ("1,1,1,0.5,nan", "dot 1, column verified: 'nan' is not allowed"),
        ("9,1,1,0.5,1", "1 of 1 points lie outside"),
    ],
)
def test_columns_that_cannot_be(image: Path, row: str, message: str) -> None:
    image.with_suffix(".csv").write_text(f"z,y,x,score,verified\n{row}\n")
    with pytest.raises(InputError, match=message):
        Session(image)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.inf, np.nan])
def test_a_radius_is_a_size(image: Path, radius: float) -> None:
    with pytest.raises(InputError, match="a positive number of um"):
        Session(image, radius=radius)
    with Session(image):
        pass
