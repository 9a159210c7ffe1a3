"""The command `score`: known hits in every format, units, regions, and what does not fit."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cellcount_jax import cli
from cellcount_jax.data.blocks import DONE, BlockStates, Grid, write_block_states
from cellcount_jax.evaluation.comparison import compare, labels_tolerance
from cellcount_jax.images import exports
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.labelled_cells import cells_of_labels
from cellcount_jax.images.points import write_points

Capture = pytest.CaptureFixture[str]
SHAPE = (60, 80)
# Far from each other and from their mirror images and multiples.
DOTS = np.array(
    [[3, 70], [8, 9], [9, 41], [17, 22], [21, 66], [28, 5], [33, 33], [40, 75], [47, 18], [55, 50]]
    + [[57, 2], [14, 55]],
    np.float32,
)
# 10 dots found 1 px away, 2 missed, 3 inventions.
FOUND = np.concatenate([DOTS[:10] + (1, 0), [[0, 0], [50, 70], [25, 50]]]).astype(np.float32)


class Scores:
    """Runs the command in a folder of its own, and reads what it wrote."""

    def __init__(self, folder: Path, capture: Capture) -> None:
        self.folder, self.capture = folder, capture
        self.printed = self.error = ""

    def run(self, *arguments: object) -> int:
        status = cli.main(["score", *map(str, arguments)])
        self.printed, self.error = self.capture.readouterr()
        return status

    def of(self, found: object, true: object, *options: object) -> dict[str, Any]:
        output = self.folder / "scored"
        assert self.run(found, true, "--output", output, *options) == 0, self.error
        content: dict[str, Any] = json.loads((output / "scores.json").read_text())
        with (output / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [r["image"] for r in rows] == [r["image"] for r in content["per_image"]]
        assert [int(r["tp"]) for r in rows] == [r["tp"] for r in content["per_image"]]
        return content

    def refused(self, *arguments: object) -> str:
        assert self.run(*arguments) == 1, self.printed
        assert self.error.startswith("error: ") and self.error.count("\n") == 1, self.error
        return self.error


@pytest.fixture
def scores(tmp_path: Path, capsys: Capture) -> Scores:
    return Scores(tmp_path, capsys)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Found points and dots in voxels, in two folders."""
    write_points(tmp_path / "found" / "a.csv", FOUND)
    write_points(tmp_path / "dots" / "a.csv", DOTS)
    return tmp_path / "found" / "a.csv", tmp_path / "dots" / "a.csv"


def counted(folder: Path, points: np.ndarray, **changes: Any) -> Path:
    """A results folder as `cellcount count` leaves it."""
    shape = (SHAPE, (9, *SHAPE))[points.shape[1] - 2]
    summary = {"input": "gone.tif", "shape": shape, "spacing_um": None, "level": 0, **changes}
    folder.mkdir(parents=True)
    exports.write_csv(
        folder / "points.csv", points, np.ones(len(points)), spacing=summary["spacing_um"]
    )
    (folder / "count.json").write_text("{}")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def discs(points: np.ndarray, radius: float, shape: Sequence[int] = SHAPE) -> np.ndarray:
    labels = np.zeros(shape, np.uint16)
    grid = np.moveaxis(np.indices(shape), 0, -1)
    for number, point in enumerate(points, 1):
        labels[np.square(grid - point).sum(-1) <= radius**2] = number
    return labels


def test_known_errors_are_counted(scores: Scores, pair: tuple[Path, Path]) -> None:
    content = scores.of(*pair, "--tolerance", 2)
    assert {k: content[k] for k in ("images", "true", "found", "tp", "fp", "fn")} == {
        **{"images": 1, "true": 12, "found": 13},
        **{"tp": 10, "fp": 3, "fn": 2},
    }
    assert content["precision"] == 10 / 13 and content["recall"] == 10 / 12
    assert content["f1"] == content["mean_f1"] == 20 / 25
    assert content["count_error"] == 1 and content["relative_count_error"] == 1 / 12
    assert content["median_relative_count_error"] == 1 / 12
    assert "2 px (the voxel size is not known), one to one" in scores.printed
    assert scores.printed.splitlines()[1].split() == [
        *["a", "12", "13", "10", "2", "3", "0.769", "0.833", "0.800", "+1", "(+8.3", "%)"]
    ]
    assert ",0.8333,0.8,1,0.0833,2.0,px," in (scores.folder / "scored/scores.csv").read_text()
    # A distance of exactly the tolerance is a hit; a little less is none.
    assert scores.of(*pair, "--tolerance", 1)["tp"] == 10
    assert scores.of(*pair, "--tolerance", 0.99)["tp"] == 0


@pytest.mark.parametrize("ndim", [2, 3])
def test_hits_are_those_of_an_assignment(ndim: int) -> None:
    rng = np.random.default_rng(ndim)
    found, true = (rng.uniform(0, 20, (n, ndim)) for n in (70, 60))
    spacing = (3.0, 1.0, 2.0)[-ndim:]
    distances = np.linalg.norm((found[:, None] - true) * spacing, axis=-1)
    cost = np.where(distances <= 4, distances, 1e6)
    rows, columns = linear_sum_assignment(cost)
    hits = int((cost[rows, columns] < 1e6).sum())
    assert 10 < hits < 60
    given: dict[str, Any] = {"tolerance": 4.0, "unit": "um", "spacing": spacing}
    there = compare(found, true, **given)
    assert there.matching.tp == hits and sum(there.hits[0]) == sum(there.hits[1]) == hits
    back = compare(true, found, **given).matching
    assert (back.precision, back.recall) == (there.matching.recall, there.matching.precision)
    order = rng.permutation(len(found))
    assert compare(found[order], true, **given).matching.tp == hits


def formats(folder: Path) -> dict[str, Callable[[np.ndarray], Path]]:
    def table(name: str, header: str, order: Sequence[int]) -> Callable[[np.ndarray], Path]:
        def write(points: np.ndarray) -> Path:
            rows = [",".join(f"{p[i]:g}" for i in order) + ",x" for p in points]
            (folder / f"{name}.csv").write_text("\n".join([header + ",note", *rows]) + "\n")
            return folder / f"{name}.csv"

        return write

    def xml(points: np.ndarray) -> Path:
        exports.write_cellfinder(folder / "cells.xml", points)
        return folder / "cells.xml"

    def napari(points: np.ndarray) -> Path:
        exports.write_napari(folder / "napari.csv", points)
        return folder / "napari.csv"

    def labels(points: np.ndarray) -> Path:
        write_image(folder / "masks.tif", discs(points, 1))
        return folder / "masks.tif"

    return {
        "y,x": table("yx", "y,x", (0, 1)),
        "X,Y": table("xy", "X,Y", (1, 0)),
        "napari": napari,
        "cellfinder": xml,
        "results folder": lambda points: counted(folder / "brain", points),
        "its table": lambda points: counted(folder / "brain2", points) / "points.csv",
        "labels": labels,
    }


@pytest.mark.parametrize("kind", ["y,x", "X,Y", "napari", "cellfinder", "results folder"])
@pytest.mark.parametrize("other", ["y,x", "napari", "cellfinder", "labels", "its table"])
def test_every_format_gives_the_same(scores: Scores, kind: str, other: str) -> None:
    (scores.folder / "f").mkdir()
    (scores.folder / "t").mkdir()
    found, true = (
        formats(scores.folder / "f")[kind](FOUND),
        formats(scores.folder / "t")[other](DOTS),
    )
    assert scores.run(found, true, "--tolerance", "2px") == 0, scores.error
    assert scores.printed.splitlines()[1].split()[1:6] == ["12", "13", "10", "2", "3"]


def test_the_tolerance_is_in_the_unit_that_is_said(scores: Scores, pair: tuple[Path, Path]) -> None:
    """Hits are 1 pixel down: 4 um with these voxels."""
    spaced = ("--spacing", "4,0.5")
    assert scores.of(*pair, *spaced, "--tolerance", 3.9)["tp"] == 0
    content = scores.of(*pair, *spaced, "--tolerance", 4)
    assert content["tp"] == 10 and content["tolerance"] == "4 um"
    assert scores.of(*pair, *spaced, "--tolerance", "4um")["tp"] == 10
    assert scores.of(*pair, *spaced, "--tolerance", "1px")["tp"] == 10
    assert scores.of(*pair, *spaced, "--tolerance", "0.9px")["tp"] == 0
    assert "the voxel size of a is not known" in scores.refused(*pair, "--tolerance", "4um")
    assert "a.csv has no instance labels" in scores.refused(*pair)
    for wrong in ("0", "-1", "nan", "many", "3 mm"):
        assert "a positive number is needed" in scores.refused(*pair, f"--tolerance={wrong}")
    for wrong in ("1,1,1", "0,1"):
        text = scores.refused(*pair, "--tolerance", 1, f"--spacing={wrong}")
        assert "--spacing" in text or "column" in text


def test_the_voxel_size_is_that_of_the_count_or_the_image(scores: Scores) -> None:
    write_points(scores.folder / "a.csv", DOTS)
    counted(scores.folder / "counted/a", FOUND, spacing_um=[4.0, 4.0])
    assert (
        scores.of(scores.folder / "counted", scores.folder / "a.csv", "--tolerance", 4)["tp"] == 10
    )
    assert "4 um" in scores.printed
    image = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.uint8)
    write_image(scores.folder / "there" / "b.tif", image, spacing=(2.0, 2.0))
    write_points(scores.folder / "b.csv", FOUND)
    given = [scores.folder / "b.csv", scores.folder / "a.csv", "--tolerance", 2]
    assert scores.of(*given, "--image", scores.folder / "there/b.tif")["tolerance"] == "2 um"
    assert (scores.folder / "scored/pictures/a.png").is_file()
    write_image(scores.folder / "c_labels.tif", discs(DOTS, 2), spacing=(1.0, 1.0))
    content = scores.of(scores.folder / "counted/a", scores.folder / "c_labels.tif")
    assert "of 4 x 4 um, but other files of the image say 1 x 1" in content["remarks"][0]
    # Micrometres for one image and pixels for the other are one number with two meanings.
    counted(scores.folder / "counted/b", FOUND)
    text = scores.refused(scores.folder / "counted", scores.folder, "--tolerance", 4)
    assert "micrometres for a and pixels for b" in text


@pytest.mark.parametrize(("radius", "expected"), [(2.0, 4.0), (7.0, 6.89)])
def test_labels_give_their_own_tolerance(scores: Scores, radius: float, expected: float) -> None:
    points = np.array([[10, 10], [10, 40], [30, 60], [45, 20]], np.float32)
    labels = discs(points, radius)
    write_image(scores.folder / "t" / "a_labels.tif", labels)
    area = np.median(np.bincount(labels.ravel())[1:])
    assert max(4, (area / np.pi) ** 0.5) == pytest.approx(expected, abs=0.01)
    assert labels_tolerance(labels, None) == pytest.approx(expected, abs=0.01)
    assert labels_tolerance(labels, (2.0, 2.0)) == pytest.approx(2 * expected, abs=0.02)
    np.testing.assert_allclose(cells_of_labels(labels, "labels"), points)
    # The first is in the cell for all radii, the second for 7, the third for none.
    write_points(scores.folder / "a.csv", points[:3] + [[0, 1], [0, 3.5], [0, radius + 1]])
    content = scores.of(scores.folder / "a.csv", scores.folder / "t")
    assert content["per_image"][0]["tolerance"] == pytest.approx(expected, abs=0.01)
    assert content["tp"] == (3 if radius == 2 else 2)
    assert content["inside_cell"]["tp"] == (1 if radius == 2 else 2)
    assert "half the median diameter" in scores.printed and "F1 inside" in scores.printed


def test_a_ball_has_the_tolerance_of_its_radius() -> None:
    labels = discs(np.array([[20, 20, 20]]), 12.0, (41, 41, 41))
    assert labels_tolerance(labels, None) == pytest.approx(12, rel=0.01)
    assert labels_tolerance(labels, (4.0, 2.0, 1.0)) == pytest.approx(24, rel=0.01)
    assert labels_tolerance(np.zeros((3, 3, 3), int), (4.0, 2.0, 1.0)) == 4


def test_what_is_no_instance_labels_is_refused(scores: Scores, pair: tuple[Path, Path]) -> None:
    write_image(scores.folder / "mask.tif", (discs(DOTS, 3) > 0).astype(np.uint8))
    assert "a mask, not instance labels" in scores.refused(pair[0], scores.folder / "mask.tif")
    noise = np.random.default_rng(0).integers(1, 250, SHAPE).astype(np.uint8)
    write_image(scores.folder / "image.tif", noise)
    assert "intensities, not instance labels" in scores.refused(
        pair[0], scores.folder / "image.tif"
    )


def test_folders_are_matched_by_name_and_the_rest_is_named(scores: Scores) -> None:
    for name in ("a", "b", "only_found"):
        counted(scores.folder / "counted" / name, FOUND)
    for name in ("a", "b", "only_dots"):
        write_points(scores.folder / "dots" / f"{name}.csv", DOTS if name == "a" else DOTS[:6])
    content = scores.of(scores.folder / "counted", scores.folder / "dots", "--tolerance", 2)
    assert [(r["image"], r["tp"]) for r in content["per_image"]] == [("a", 10), ("b", 6)]
    assert (content["tp"], content["fp"], content["fn"]) == (16, 10, 2)
    assert content["mean_f1"] == pytest.approx((20 / 25 + 12 / 19) / 2)
    assert content["median_relative_count_error"] == pytest.approx((1 / 12 + 7 / 6) / 2)
    assert len(content["without_partner"]) == 2
    for text in (scores.printed, (scores.folder / "scored/score.html").read_text()):
        assert "only_found: found in " in text and "only_dots: dots in " in text
    # One of several, and none at all.
    assert (
        scores.of(scores.folder / "counted", scores.folder / "dots/b.csv", "--tolerance", 2)["tp"]
        == 6
    )
    write_points(scores.folder / "x/c.csv", DOTS)
    text = scores.refused(scores.folder / "counted", scores.folder / "x", "--tolerance", 2)
    assert "no image of it (a, b, only_found) has its name among those of" in text


def test_images_without_cells(scores: Scores) -> None:
    nothing = np.zeros((0, 2), np.float32)
    cases = {
        "both": (nothing, nothing),
        "none_true": (FOUND, nothing),
        "none_found": (nothing, DOTS),
    }
    for name, (found, true) in {**cases, "some": (FOUND, DOTS)}.items():
        write_points(scores.folder / "found" / f"{name}.csv", found)
        write_points(scores.folder / "dots" / f"{name}.csv", true)
    content = scores.of(scores.folder / "found", scores.folder / "dots", "--tolerance", 2)
    rows = {row["image"]: row for row in content["per_image"]}
    assert [rows[n]["f1"] for n in ("both", "none_true", "none_found", "some")] == [1, 0, 0, 0.8]
    assert rows["both"]["relative_count_error"] is rows["none_true"]["relative_count_error"] is None
    assert rows["none_found"]["relative_count_error"] == -1
    assert content["images_without_cells"] == 2 and content["found_in_images_without_cells"] == 13
    assert content["median_relative_count_error"] == pytest.approx((1 + 1 / 12) / 2)
    assert "without 2 images that have no true cells, in which 13 were found" in scores.printed
    only = scores.of(
        scores.folder / "found/both.csv", scores.folder / "dots/both.csv", "--tolerance", 2
    )
    assert only["f1"] == 1 and only["median_relative_count_error"] is None
    exports.write_cellfinder(scores.folder / "none.xml", nothing)
    assert (
        scores.of(scores.folder / "none.xml", scores.folder / "dots/some.csv", "--tolerance", 2)[
            "fn"
        ]
        == 12
    )


def test_micrometres_and_exchanged_columns_are_no_silent_score(
    scores: Scores, pair: tuple[Path, Path]
) -> None:
    folder = scores.folder
    counted(folder / "a", FOUND, spacing_um=[3.0, 3.0])
    write_points(folder / "um.csv", DOTS * 3)
    text = scores.refused(folder / "a", folder / "um.csv", "--tolerance", 6)
    assert "of 12 points lie outside the image of 60 x 80" in text and "all lie inside" in text
    # In micrometres of small pixels all lie inside.
    counted(folder / "b", FOUND, spacing_um=[0.3, 0.3])
    write_points(folder / "um.csv", DOTS * 0.3)
    arguments = (folder / "b", folder / "um.csv", "--tolerance", 0.6)
    assert "may be micrometres" in scores.refused(*arguments)
    text = scores.refused(*arguments, "--points-unit", "px")
    assert "would if the dots were in micrometres (F1 0.800)" in text
    write_points(folder / "swapped.csv", DOTS[:, ::-1])
    text = scores.refused(folder / "swapped.csv", pair[1], "--tolerance", 2)
    assert "would if the columns of one were x, y" in text
    # Without an image and a voxel size a hint is all there can be.
    content = scores.of(folder / "um.csv", pair[1], "--tolerance", 2)
    assert any("in micrometres?" in text for text in content["remarks"])


def test_what_speaks_against_a_score_is_said(scores: Scores, pair: tuple[Path, Path]) -> None:
    def remarks(found: np.ndarray, true: np.ndarray, tolerance: float = 3) -> str:
        write_points(scores.folder / "f.csv", found)
        write_points(scores.folder / "t.csv", true)
        content = scores.of(
            scores.folder / "f.csv", scores.folder / "t.csv", "--tolerance", tolerance
        )
        for text in content["remarks"]:
            assert text in scores.printed and f"{text[3:20]}" in page()
        return " / ".join(content["remarks"])

    def page() -> str:
        return (scores.folder / "scored" / "score.html").read_text()

    noise = np.random.default_rng(0).normal(0, 0.5, DOTS.shape)
    assert remarks(DOTS + noise, DOTS) == ""
    assert "counted from 1?" in remarks(DOTS + noise + 1, DOTS)
    assert "1 of the dots stand where another one does" in remarks(DOTS, np.r_[DOTS, DOTS[:1]])
    assert "no found point is within 1 px" in remarks(DOTS[:4] + (0, 3), DOTS[:4], 1)
    (scores.folder / "p.csv").write_text("y,x,score,verified\n1,1,0.5,0\n9,9,,1\n30,9,0.1,0\n")
    scores.of(scores.folder / "t.csv", scores.folder / "p.csv", "--tolerance", 3)
    assert "2 of the dots are proposals that nobody has verified" in page()
    grid = np.stack(np.meshgrid(np.arange(0, 60, 4.0), np.arange(0, 80, 4.0)), -1).reshape(-1, 2)
    assert "are dots in a part of the image only" in remarks(grid, grid[grid.max(axis=1) < 20])


def test_only_the_region_with_complete_dots_is_scored(scores: Scores) -> None:
    folder = scores.folder
    left = DOTS[:, 1] < 40
    kept = [int((points[:, 1] < 40).sum()) for points in (DOTS, FOUND)]
    counted(folder / "counted/a", FOUND, scene=None, time=None)
    write_points(folder / "my/a.csv", DOTS[left])
    whole = scores.of(folder / "counted", folder / "my", "--tolerance", 2)
    assert whole["fp"] == 13 - sum(left[:10])
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :40] = 1
    write_image(folder / "my/a_valid.tif", mask)
    masked = scores.of(folder / "counted", folder / "my", "--tolerance", 2)
    assert (masked["true"], masked["found"], masked["fp"]) == (*kept, 1)
    assert "0.5 of the image" in masked["remarks"][0]
    (folder / "my/a_valid.tif").unlink()
    grid = Grid(SHAPE, (60, 40))
    for states, expected in (([[DONE, 0]], masked), ([[DONE, DONE]], whole)):
        write_block_states(folder / "my/a.label.json", BlockStates(grid, np.array(states), {}))
        there = scores.of(folder / "counted", folder / "my/a.csv", "--tolerance", 2)
        assert [there[k] for k in ("tp", "fp", "fn")] == [expected[k] for k in ("tp", "fp", "fn")]
    write_block_states(folder / "my/a.label.json", BlockStates(grid, np.array([[0, 1]]), {}))
    text = scores.refused(folder / "counted", folder / "my", "--tolerance", 2)
    assert "none of its blocks is done" in text
    for about in ({"time": 2, "level": 0}, {"scene": "2"}):
        blocks = BlockStates(grid, np.array([[DONE, 1]]), about)
        write_block_states(folder / "my/a.label.json", blocks)
        assert "of one time point, level and scene" in scores.refused(
            folder / "counted", folder / "my", "--tolerance", 2
        )


def test_cells_at_the_border_count(scores: Scores) -> None:
    corners = np.array([[-0.5, -0.5], [59.5, 79.5], [-1.4, 79.49], [60.4, 0]], np.float32)
    labels = np.zeros(SHAPE, np.uint16)
    labels[[0, -1, 0, -1], [0, -1, -1, 0]] = [1, 2, 3, 4]
    write_image(scores.folder / "t" / "a_labels.tif", labels)
    write_points(scores.folder / "a.csv", corners)
    content = scores.of(scores.folder / "a.csv", scores.folder / "t")
    assert content["tp"] == content["inside_cell"]["tp"] == 4
    write_points(scores.folder / "a.csv", np.r_[corners, [[30, 80.6]]])
    text = scores.refused(scores.folder / "a.csv", scores.folder / "t")
    assert "1 of 5 points lie outside" in text and "(y,x) = (30, 80.6)" in text


def test_files_that_do_not_fit_are_refused(scores: Scores, pair: tuple[Path, Path]) -> None:
    folder, (found, true) = scores.folder, pair
    within = ("--tolerance", 2)
    assert "no such file" in scores.refused(folder / "none.csv", true, *within)
    assert "is given for both" in scores.refused(true, folder / "found/../dots/a.csv", *within)
    (folder / "note.txt").write_text("y,x\n1,2\n")
    assert "note.txt: found points or dots are" in scores.refused(
        found, folder / "note.txt", *within
    )
    (folder / "empty").mkdir()
    assert "has no points" in scores.refused(found, folder / "empty", *within)
    write_points(folder / "three.csv", np.pad(DOTS, ((0, 0), (1, 0))))
    assert "three.csv" in scores.refused(folder / "three.csv", counted(folder / "c", DOTS), *within)
    exports.write_cellfinder(folder / "p.xml", np.c_[np.arange(12), DOTS])
    assert "in several planes" in scores.refused(folder / "p.xml", folder / "c", *within)
    write_image(folder / "small_labels.tif", discs(DOTS[:2], 1, (30, 70)))
    text = scores.refused(folder / "c", folder / "small_labels.tif")
    assert "30 x 70" in text and "60 x 80" in text
    assert "60 x 80" in scores.refused(folder / "small_labels.tif", folder / "c", *within)
    exports.write_cellfinder(folder / "found" / "a.xml", DOTS)
    assert "are both of the image a" in scores.refused(folder / "found", folder / "dots", *within)
    (counted(folder / "half", DOTS) / "summary.json").unlink()
    assert "not finished" in scores.refused(folder / "half", true, *within)
    (counted(folder / "bad", DOTS) / "summary.json").write_text('{"shape": 3}')
    assert "is damaged" in scores.refused(folder / "bad", true, *within)


def test_an_image_that_cannot_be_read_costs_the_picture_alone(scores: Scores) -> None:
    (scores.folder / "gone.tif").write_bytes(b"no image")
    counted(scores.folder / "c" / "a", FOUND, input=str(scores.folder / "gone.tif"))
    write_points(scores.folder / "a.csv", DOTS)
    content = scores.of(scores.folder / "c", scores.folder / "a.csv", "--tolerance", 2)
    assert content["tp"] == 10 and content["pictures"] == []
    assert "there is no picture" in content["remarks"][0]
    given = (scores.folder / "c", scores.folder / "a.csv", "--tolerance", 2, "--image")
    assert "gone.tif" in scores.refused(*given, scores.folder / "gone.tif")
    assert "no such file" in scores.refused(*given, scores.folder / "none")


def test_nothing_that_is_read_is_written_over(scores: Scores) -> None:
    folder = scores.folder
    write_image(folder / "images/a.tif", np.zeros(SHAPE, np.uint8))
    counted(folder / "counted/a", FOUND, input=str(folder / "images/a.tif"))
    write_points(folder / "dots/a.csv", DOTS)
    given = [folder / "counted", folder / "dots", "--tolerance", 2, "--output"]
    for place in ("counted", "counted/a", "counted/a/scores", "dots", "images", "."):
        text = scores.refused(*given, folder / place)
        assert "which is read; give another --output" in text
    (folder / "mine").mkdir()
    (folder / "mine/scores.csv").write_text("mine")
    assert "is not of a score" in scores.refused(*given, folder / "mine")
    assert (folder / "mine/scores.csv").read_text() == "mine"
    # Its own folder is written anew, without the pictures of images that are gone.
    counted(folder / "counted/b", FOUND, input=str(folder / "images/a.tif"))
    write_points(folder / "dots/b.csv", DOTS)
    output = folder / "counted/scores"
    assert scores.run(*given, output) == 0 and (output / "pictures/b.png").is_file()
    (output / "pictures/mine.png").write_text("mine")
    (folder / "dots/b.csv").unlink()
    assert scores.run(*given, output) == 0
    assert sorted(p.name for p in (output / "pictures").iterdir()) == ["a.png", "mine.png"]
