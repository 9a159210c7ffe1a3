"""Links that lead nowhere in folders of images: told and skipped, and the rest is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellcount_jax.data.entries import scan
from cellcount_jax.evaluation.pairing import find_pairs
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.inputs import find_inputs

BROKEN = ("gone.png", "gone.csv", "round.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", np.ones((5, 7), np.uint8))
        (tmp_path / f"{name}.csv").write_text("y,x\n1,2\n")
    (tmp_path / "linked.png").symlink_to("a.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "no/where.csv")
    (tmp_path / "round.png").symlink_to("round.png")
    return tmp_path


def told(caplog: pytest.LogCaptureFixture) -> set[str]:
    text = ": is a link that leads nowhere, skipped."
    messages = [record.getMessage() for record in caplog.records]
    return {Path(m.removesuffix(text)).name for m in messages if m.endswith(text)}


def test_images_to_count(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [item.name for item in find_inputs([folder], ndim=2)] == ["a", "b", "linked"]
    assert told(caplog) == {"gone.png", "round.png"}


def test_images_to_train_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [entry.name for entry in scan(folder)] == ["a", "b", "linked"]
    assert told(caplog) == set(BROKEN)


def test_images_to_score(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = folder / "found"
    found.mkdir()
    for name in ("a", "b"):
        (found / f"{name}.csv").write_text("y,x\n1,2\n")
    (found / "c.csv").symlink_to("c.csv")
    pairs, alone = find_pairs(found, folder)
    assert [true.name for _, true in pairs] == ["a", "b"] and not alone
    assert told(caplog) == {*BROKEN, "c.csv"}
