"""The size of a cell in labelling: measured, given, kept, and what follows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.data.blocks import ASSUMED, GIVEN, MEASURED, read_block_states
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.inference import model_file
from cellcount_jax.label import proposals
from cellcount_jax.label.session import Session

Drive = Callable[..., None]  # of conftest.py
NUCLEI = Path(__file__).parents[3] / "shared/data/nuclei2d"


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """Nine bright discs of a diameter of 20 pixels."""
    y, x = np.indices((120, 120))
    away = np.hypot(y % 40 - 20, x % 40 - 20)
    noise = np.random.default_rng(0).normal(20, 2, away.shape)
    write_image(tmp_path / "cells.tif", np.where(away <= 10, 130 + noise, noise).astype(np.uint8))
    return tmp_path / "cells.tif"


def size(session: Session) -> tuple[float, str]:
    content = session.history.content
    return content.radius, content.radius_from


def test_the_size_is_measured_unless_it_is_given(discs: Path, tmp_path: Path) -> None:
    with Session(discs) as session:
        assert size(session) == (pytest.approx(10, rel=0.05), MEASURED)
    assert not discs.with_name("cells.label.json").exists()
    with Session(discs, radius=7.0) as session:
        assert size(session) == (7.0, GIVEN)
        session.add((1, 1))
    with Session(discs) as session:
        assert size(session) == (7.0, GIVEN)
    write_image(tmp_path / "empty.tif", np.ones((30, 30), np.uint8))
    with Session(tmp_path / "empty.tif") as session:
        assert size(session) == (5.0, ASSUMED)


@pytest.mark.parametrize("kill", [False, True])
def test_a_size_that_is_changed_is_kept(discs: Path, kill: bool) -> None:
    session = Session(discs)
    session.add((30, 30))
    session.resize(6.5)
    session.undo()
    assert len(session.dots) == 0 and size(session) == (6.5, GIVEN)  # it is no act on dots
    session.redo()
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="positive number of px"):
            session.resize(wrong)
    session.abandon() if kill else session.close()
    with Session(discs) as session:
        assert len(session.dots) == 1 and size(session) == (6.5, GIVEN)
        assert session.recovered == (4 if kill else 0)


def test_a_size_alone_is_kept(discs: Path) -> None:
    with Session(discs) as session:
        session.resize(8.0)
    about = read_block_states(discs.with_name("cells.label.json")).about
    assert (about["radius"], about["radius_from"]) == (8.0, GIVEN)


@pytest.mark.parametrize(("stored", "origin"), [(5, MEASURED), (6, GIVEN)])
def test_what_earlier_versions_assumed_is_measured(discs: Path, stored: float, origin: str) -> None:
    with Session(discs) as session:
        session.add((1, 1))
    path = discs.with_name("cells.label.json")
    content = json.loads(path.read_text())
    del content["radius_from"]
    path.write_text(json.dumps({**content, "radius": stored}))
    with Session(discs) as session:
        assert size(session)[1] == origin
    path.write_text(json.dumps({**content, "radius_from": "guessed"}))
    with pytest.raises(InputError, match='radius_from is "guessed", given, measured or assumed'):
        Session(discs)


@pytest.mark.parametrize("measures", [False, True])
def test_models_take_the_size(discs: Path, untrained_model: Any, measures: bool) -> None:
    changes = {"predict__estimate_diameter": True} if measures else {}
    model = untrained_model(2, data__diameter=10.0, data__normalisation="levels", **changes)
    model_file.export_model(model, discs.with_name("m.zip"), card="# m")
    file = str(discs.with_name("m.zip"))
    with Session(discs) as session:
        _, fitted = proposals.fitting_model(session, file)
        # A guess goes to models that would guess themselves.
        assert fitted.diameter == (2 * session.radius if measures else None)
        session.resize(8.0)
        _, fitted = proposals.fitting_model(session, file)
        assert fitted.diameter == 16.0 and fitted.image.shape == (75, 75)
        assert proposals.from_model(session, file)[2]["diameter"] == 16.0


def test_as_many_proposals_as_nuclei(tmp_path: Path) -> None:
    image = NUCLEI / "train" / "02903040e1.tif"
    if not image.exists():
        pytest.skip("needs ../shared/data/nuclei2d")
    (tmp_path / "a.tif").write_bytes(image.read_bytes())
    with Session(tmp_path / "a.tif") as session:  # 22 nuclei of about 44 pixels
        assert session.radius == pytest.approx(22, rel=0.1)
        settings = proposals.BlobSettings(session.edges, **proposals.defaults(session))
        found, _ = proposals.otsu_image(session, settings)
    assert 20 <= len(found) <= 24


def test_the_option_of_the_command(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["label", str(discs), "--diameter", "-3"]) == 1
    assert "--diameter -3: must be a positive number" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["label", str(discs), "--diameter", "3", "--radius", "3"])


def test_the_first_box_of_the_window(drive: Drive, discs: Path) -> None:
    drive(
        """
        from qtpy.QtWidgets import QAbstractSpinBox
        boxes = [box for box in panel.findChildren(QAbstractSpinBox) if box.isVisible()]
        first = min(boxes, key=lambda box: box.mapTo(panel, QPoint(0, 0)).y())
        assert first is panel.size_panel.box and abs(first.value() - 20) < 1
        assert panel.size_panel.origin.text().startswith("measured in the image")
        session.add((20, 20)); canvas.refresh()
        before, parameters = canvas.layers.dot_size, panel.proposals.parameters.content.values()
        first.setFocus(); first.selectAll()
        QTest.keyClicks(first, "40"); assert session.radius < 11  # not with every digit
        QTest.keyClick(first, Qt.Key.Key_Return); wait()
        assert session.radius == 20 and panel.size_panel.origin.text() == "as you gave it"
        assert canvas.layers.dots.size[0] == canvas.layers.dot_size == 28 > 1.8 * before
        after = panel.proposals.parameters.content.values()
        assert abs(after["split"] / parameters["split"] - 2) < 0.1
        with mock.patch.object(canvas, "notify") as notify:
            canvas.resize(-1)
        notify.assert_called_once()
        assert session.radius == 20 and first.value() == 40
        """,
        discs,
    )
