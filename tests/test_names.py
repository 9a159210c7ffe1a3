"""Names of inputs that are dots: what a command makes of them lies where it was told to write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_jax import cli
from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.label.session import Session

pytestmark = pytest.mark.usefixtures("quick_compiling")

NAMES = ("..", ".", ".. ", "...", ". .")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images and dots, notes beside them, and an empty folder for results."""
    pixels = np.random.default_rng(0).integers(0, 99, (24, 24)).astype(np.uint8)
    for folder in ("found", "true", "counted/results"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "notes.txt").write_text("precious")
    for name in NAMES:
        tifffile.imwrite(tmp_path / "true" / f"{name}.tif", pixels)
        for folder in ("found", "true"):
            (tmp_path / folder / f"{name}.csv").write_text("y,x\n3,4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def others(study: Path, output: Path) -> dict[str, str]:
    """A digest of every file that does not lie in a folder."""
    return {
        str(path.relative_to(study)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in study.rglob("*")
        if path.is_file() and output not in path.parents
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_count(
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    untrained_model: Callable[..., TrainedModel],
    name: str,
) -> None:
    model = untrained_model(2, zero=True)
    monkeypatch.setattr(model_file, "load_model", lambda _: model)
    output = study / "counted/results"
    before = others(study, output)
    command = ["count", f"true/{name}.tif", "--model", "m", "--output", "counted/results"]
    for further in ([], ["--overwrite", "--spacing", "2,2", "--max-voxels", "400"]):
        assert cli.main([*command, *further]) == 0
        assert others(study, output) == before
        assert [path.parent.name for path in output.rglob("summary.json")] == ["tif"]
    assert (output / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("name", NAMES)
def test_a_score(study: Path, name: str) -> None:
    output = study / "counted/results"
    before = others(study, output)
    command = ["score", f"found/{name}.csv", f"true/{name}.csv", "--output", "counted/results"]
    for _ in range(2):
        assert cli.main([*command, "--tolerance", "3px"]) == 0
        assert others(study, output) == before
    assert (output / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("name", NAMES)
def test_labels_lie_beside_their_image(study: Path, name: str) -> None:
    folder = study / "true"
    elsewhere = others(study, folder)
    images = {path: path.read_bytes() for path in folder.glob("*.tif")}
    with Session(folder / f"{name}.tif") as session:
        session.add((5, 6))
        session.save()
    assert (folder / f"{name}.csv").read_text().count("\n") == 3
    assert others(study, folder) == elsewhere
    assert {path: path.read_bytes() for path in folder.glob("*.tif")} == images


def test_an_exported_model_replaces_no_folder(
    study: Path, untrained_model: Callable[..., TrainedModel], capsys: pytest.CaptureFixture[str]
) -> None:
    model_file.export_model(untrained_model(2), study / "mine.zip", card="# None\n")
    before = others(study, study / "nowhere")
    for target in ("..", ".", "counted", "counted/results/.."):
        assert cli.main(["export", "mine.zip", target]) == 1
        assert "is a folder, the name of a file is needed" in capsys.readouterr().err
    assert others(study, study / "nowhere") == before
