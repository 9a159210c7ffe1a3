"""The folder of a count's results: apart from what the user brought, of which nothing is lost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellcount_jax.counting import claim
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import read_image, write_image

Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("quick_compiling")


def digests(folder: Path) -> dict[Path, str]:
    """A digest of every file and link below a folder."""
    return {
        path: hashlib.sha256(
            os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def write_slices(folder: Path, cells_3d: Path) -> None:
    volume = read_image(cells_3d / "train" / "train.tif").pixels[..., 0].astype(np.uint8)
    for number, plane in enumerate(volume):
        write_image(folder / f"z{number:02}.tif", plane, ndim=2)


def results_are_the_slices(study: Path) -> tuple[list[str], str]:
    return ["brain", "--output", "."], "is brain"


def results_hold_the_slices(study: Path) -> tuple[list[str], str]:
    (study / "out/planes").mkdir(parents=True)
    (study / "brain").rename(study / "out/planes/planes")
    return ["out/planes/planes", "--output", "out"], "holds out/planes/planes"


def results_lie_among_the_slices(study: Path) -> tuple[list[str], str]:
    return ["brain", "--output", "brain/counted"], "lies in brain"


def two_dots_lead_to_the_slices(study: Path) -> tuple[list[str], str]:
    (study / "brain/results").mkdir()
    return ["brain/results/..", "--output", "brain/results/../.."], "is brain/results/.."


def a_link_leads_to_the_slices(study: Path) -> tuple[list[str], str]:
    (study / "out").mkdir()
    (study / "out/brain").symlink_to(study / "brain")
    return ["brain", "--output", "out"], "is brain"


def the_results_hold_a_link_to_the_slices(study: Path) -> tuple[list[str], str]:
    (study / "out/linked").mkdir(parents=True)
    (study / "out/linked/linked").symlink_to(study / "brain")
    return ["out/linked/linked", "--output", "out"], "holds out/linked/linked"


def the_mask_is_beside_the_image(study: Path) -> tuple[list[str], str]:
    (study / "out/brain").mkdir(parents=True)
    np.save(study / "out/brain/mask.npy", np.ones((12, 40, 40), np.uint8))
    mask = "out/brain/mask.npy"
    return ["brain", "--output", "out", "--mask", mask], f"holds {mask}"


def the_regions_are_in_a_folder_of_the_results(study: Path) -> tuple[list[str], str]:
    (study / "out/brain").mkdir(parents=True)
    np.save(study / "out/brain/atlas.npy", np.ones((12, 40, 40), np.uint8))
    regions = "out/brain/atlas.npy"
    return ["brain", "--output", "out", "--regions", regions], f"holds {regions}"


LAYOUTS: tuple[Callable[[Path], tuple[list[str], str]], ...] = (
    results_are_the_slices,
    results_hold_the_slices,
    results_lie_among_the_slices,
    two_dots_lead_to_the_slices,
    a_link_leads_to_the_slices,
    the_results_hold_a_link_to_the_slices,
    the_mask_is_beside_the_image,
    the_regions_are_in_a_folder_of_the_results,
)


@pytest.mark.usefixtures("models_stay_loaded")
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_results_that_meet_what_is_read_are_refused_and_nothing_is_lost(
    tmp_path: Path,
    run_3d: Path,
    cells_3d: Path,
    call: Call,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    layout: Callable[[Path], tuple[list[str], str]],
) -> None:
    write_slices(tmp_path / "brain", cells_3d)
    arguments, words = layout(tmp_path)
    before = digests(tmp_path)
    monkeypatch.chdir(tmp_path)
    for further in ([], ["--overwrite"], ["--dry-run"]):
        assert call("count", *arguments, "--model", run_3d, "--spacing", "2,1,1", *further) == 1
        assert f"the folder for the results {words}" in capsys.readouterr().err
    assert digests(tmp_path) == before


def test_overwrite_deletes_the_results_and_nothing_of_the_users(
    tmp_path: Path, run_2d: Path, cells_2d: Path, call: Call
) -> None:
    image, output = tmp_path / "t0.png", tmp_path / "out"
    pixels = read_image(cells_2d / "test" / "t0.png").pixels[..., 0].astype(np.uint8)
    write_image(image, np.tile(pixels, (2, 2)))
    command = ("count", image, "--model", run_2d, "--output", output)
    assert call(*command, "--density", "10", "--napari", "--max-voxels", "3000") == 0
    folder = output / "t0"
    assert (folder / "work" / "peaks").is_dir(), "in tiles"
    (folder / "thesis.txt").write_text("precious")
    (folder / "figures").mkdir()
    (folder / "figures" / "one.png").write_bytes(b"picture")
    (folder / "work" / "mine.txt").write_text("precious too")
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text("y,x\n")
    (folder / "points_napari.csv").unlink()
    (folder / "points_napari.csv").symlink_to(elsewhere)
    assert call(*command, "--spacing", "1,1", "--overwrite") == 0
    assert (folder / "thesis.txt").read_text() == "precious"
    assert (folder / "figures" / "one.png").read_bytes() == b"picture"
    assert {path.name for path in (folder / "work").iterdir()} == {"mine.txt", "whole.npz"}
    assert elsewhere.read_text() == "y,x\n"
    assert not (folder / "density.zarr").exists() and not (folder / "points_napari.csv").exists()


def test_files_that_are_of_no_count_are_not_replaced(
    tmp_path: Path, run_2d: Path, cells_2d: Path, call: Call, capsys: Capture
) -> None:
    image, output = cells_2d / "test" / "t0.png", tmp_path / "out"
    command = ("count", image, "--model", run_2d, "--output", output, "--overwrite")
    (output / "t0").mkdir(parents=True)
    for file in (output / "t0" / "points.csv", output / "counts.csv"):
        file.write_text("name,size\n")
        assert call(*command) == 1
        assert f"error: {file}: is " in capsys.readouterr().err
        assert file.read_text() == "name,size\n"
        file.unlink()
    assert call(*command) == 0
    assert call(*command) == 0


def test_a_name_of_dots_leads_nowhere_else(
    tmp_path: Path, run_2d: Path, cells_2d: Path, call: Call
) -> None:
    study = tmp_path / "study"
    (study / "precious").mkdir(parents=True)
    (study / "precious" / "notes.txt").write_text("data")
    image = tmp_path / "...png"
    image.write_bytes((cells_2d / "test" / "t0.png").read_bytes())
    command = ("count", image, "--model", run_2d, "--output", study / "counted")
    assert call(*command) == 0
    assert call(*command, "--spacing", "1,1", "--overwrite") == 0
    assert sorted(path.name for path in study.iterdir()) == ["counted", "precious"]
    assert (study / "counted" / "png" / "summary.json").exists()
    assert (study / "precious" / "notes.txt").read_text() == "data"


IDENTITY = {"input": "a", "model": "m", "version": "1"}


def test_a_results_folder_is_known_though_some_of_its_files_are_gone(tmp_path: Path) -> None:
    other = {**IDENTITY, "input": "b"}
    claim.take(tmp_path, IDENTITY)
    claim.check(tmp_path, IDENTITY)
    with pytest.raises(InputError, match="differs in input"):
        claim.check(tmp_path, other)
    (tmp_path / claim.FILE).write_text("{")
    with pytest.raises(InputError, match="is not of a count"):
        claim.check(tmp_path, IDENTITY, overwrite=True)
    (tmp_path / "summary.json").write_text('{"versions": {"cellcount_jax": "1"}}')
    with pytest.raises(InputError, match="missing or damaged"):
        claim.check(tmp_path, IDENTITY)
    claim.take(tmp_path, other, overwrite=True)
    claim.check(tmp_path, other)
    assert [path.name for path in tmp_path.iterdir()] == [claim.FILE]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_summary_of_something_else_is_no_count(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "summary.json").write_text('{"versions": {"pandas": "2"}}')
    (tmp_path / "work" / "peaks").mkdir(parents=True)
    (tmp_path / "work" / "peaks" / "mine.txt").write_text("data")
    before = digests(tmp_path)
    with pytest.raises(InputError, match=r"summary\.json: is not of a count"):
        claim.take(tmp_path, IDENTITY, overwrite=overwrite)
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("points.xml/mine.txt", "points.xml: is a folder"),
        ("work/job.json/mine.txt", "job.json: is a folder"),
        ("density.zarr", "density.zarr: is a file"),
        ("work/peaks", "peaks: is a file"),
        ("work", "work: is a file"),
    ],
)
def test_a_folder_with_the_name_of_a_file_stays_or_the_other_way_round(
    tmp_path: Path, name: str, words: str
) -> None:
    claim.take(tmp_path, IDENTITY)
    (tmp_path / "points.csv").write_text("y,x\n")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("data")
    before = digests(tmp_path)
    for refuse in (claim.check, claim.take):
        with pytest.raises(InputError, match=f"{words}, which no count makes of this name"):
            refuse(tmp_path, {**IDENTITY, "input": "b"}, overwrite=True)
    assert digests(tmp_path) == before


def test_a_count_json_of_something_else_is_no_count(tmp_path: Path) -> None:
    """Not even beside the summary of a count; only a damaged one may have been a count's."""
    (tmp_path / "summary.json").write_text('{"versions": {"cellcount_jax": "1"}}')
    for text in ('{"cells": 12}', "[1, 2]", "12"):
        (tmp_path / claim.FILE).write_text(text)
        before = digests(tmp_path)
        with pytest.raises(InputError, match="is not of a count"):
            claim.take(tmp_path, IDENTITY, overwrite=True)
        assert digests(tmp_path) == before
    (tmp_path / claim.FILE).write_text("[" * 100_000)
    claim.take(tmp_path, IDENTITY, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [claim.FILE]


def test_a_count_that_was_faster_is_not_deleted(tmp_path: Path) -> None:
    claim.check(tmp_path, IDENTITY)
    claim.take(tmp_path, {**IDENTITY, "input": "faster"})
    before = digests(tmp_path)
    with pytest.raises(InputError, match="holds the results of another count"):
        claim.take(tmp_path, IDENTITY)
    assert digests(tmp_path) == before


def test_what_was_counted_of_an_image_that_may_have_changed_unseen(tmp_path: Path) -> None:
    """It is removed for the same count, only where that is asked for."""
    claim.take(tmp_path, IDENTITY)
    (tmp_path / "points.csv").write_text("id")
    claim.take(tmp_path, IDENTITY, overwrite=True)
    assert (tmp_path / "points.csv").exists()
    claim.take(tmp_path, IDENTITY, overwrite=True, anew=True)
    assert [path.name for path in tmp_path.iterdir()] == [claim.FILE]
