"""Which counts are doubted: made-up statistics, pictures with found cells, and trained models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import spatial

import cellcount_jax
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import appearance, doubts, model_file, reference
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.trained_model import TrainedModel

Changes = dict[str, float]

GOOD = {
    **{"cells": 100.0, "sampled": 100.0, "score": 0.6, "threshold": 0.1, "crowded": 0.05},
    **{"dark": 0.0, "merged": 0.2, "outside": 0.05, "missed": 0.02, "relief": 2.0, "padding": 0.0},
    **{"plain": 90.0, "plain_most": 95.0, "ratio": 1.05, "size": 0.9},
}
BAD: dict[str, tuple[Changes, str]] = {
    "crowded": ({"crowded": 0.6}, "--diameter"),
    "merged": ({"merged": 0.9}, "--diameter"),
    "dark": ({"dark": 0.5}, "--invert"),
    "outside": ({"outside": 0.7}, "cellcount train --from"),
    "missed": ({"missed": 0.8}, "cellcount calibrate"),
    "threshold": ({"threshold": 0.8}, "--threshold"),
    "count": ({"plain": 20.0, "plain_most": 25.0, "ratio": 4.0}, "another model"),
    "size": ({"size": 3.0}, "(30 pixels): give the width of a cell"),
    "inverted": ({"relief": -2.0}, "--invert"),
}


def kinds(statistics: Changes, **options: Any) -> list[str]:
    given = {"reference": {}, "ndim": 2, "known": 10.0, **options}
    return [doubt.kind for doubt in doubts.judge({**GOOD, **statistics}, **given)]


def spots(
    centres: np.ndarray, shape: tuple[int, ...], sigma: float, *, height: float = 100.0
) -> np.ndarray:
    """Gaussian spots on a background of 20 with noise, `(*shape, 1)`."""
    grid = np.moveaxis(np.indices(shape), 0, -1)
    image = np.random.default_rng(1).normal(20, 2, shape)
    for centre in centres:
        image += height * np.exp(-np.square(grid - centre).sum(-1) / (2 * sigma**2))
    return image[..., None].astype(np.float32)


def lattice(size: int, step: int) -> np.ndarray:
    axis = np.arange(step // 2, size, step)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)


def found_at(points: np.ndarray, *, below: int = 0) -> Found:
    """Cells with scores of 0.6 above a threshold of 0.3, and candidates of 0.25 below it."""
    scores = np.full(len(points), 0.6, np.float32)
    candidates = np.concatenate([scores, np.full(below, 0.25, np.float32)])
    places = np.concatenate([points, np.zeros((below, points.shape[1]), np.float32)])
    return Found(points, scores, 0.3, places, candidates, None)


def measure(image: np.ndarray, found: Found, **options: Any) -> appearance.Statistics:
    ndim = image.ndim - 1
    given = {"diameter": 10.0, "spacing": (1.0,) * ndim, **options}
    return appearance.measure(Array(image, ndim), found, **given)


@pytest.mark.parametrize("kind", BAD)
def test_a_statistic_beyond_its_limit_is_a_doubt_with_a_remedy(kind: str) -> None:
    assert kinds({}) == []
    changes, remedy = BAD[kind]
    (doubt,) = doubts.judge({**GOOD, **changes}, reference={}, ndim=2, known=10.0)
    assert doubt.kind == kind and remedy in doubt.text and "\n" not in doubt.text
    low, high = doubt.expected
    assert (low is not None and doubt.value < low) or (high is not None and doubt.value > high)
    # What could not be measured is not doubted.
    assert kinds({name: math.nan for name in changes}) == []


def test_few_cells_leave_room_for_chance() -> None:
    assert kinds({"crowded": 0.25}) == []
    assert kinds({"crowded": 0.25, "cells": 10_000.0}) == ["crowded"]
    assert kinds({"sampled": 4.0, "plain": 1.0, "plain_most": 1.0}) == []
    assert kinds({"sampled": 0.0, "plain": 40.0, "plain_most": 40.0}) == ["count"]
    # Structures of tissue are no cells: in volumes only a greater difference counts.
    assert kinds({"plain": 30.0, "plain_most": 35.0}) == ["count"]
    assert kinds({"plain": 30.0, "plain_most": 35.0}, ndim=3) == []


def test_a_reference_moves_the_limits_but_not_without_end() -> None:
    crowded = [{**GOOD, "crowded": 0.25}] * 3
    assert kinds({"crowded": 0.3}) == ["crowded"]
    assert kinds({"crowded": 0.3}, reference=reference.of_statistics(crowded)) == []
    hopeless = [{**GOOD, "threshold": 3.0}] * 3
    assert kinds({"threshold": 3.0}, reference=reference.of_statistics(hopeless)) == ["threshold"]
    # A size is doubted where one is known, and scores where others are.
    assert kinds({"size": 3.0}, known=0.0) == []
    usual = reference.of_statistics([GOOD])
    assert kinds({"size": 3.0}, known=0.0, reference=usual) == ["size"]
    assert kinds({"score": 0.3}) == [] and kinds({"score": 0.3}, reference=usual) == ["score"]
    assert usual["score"] == (0.6, 0.6) and reference.is_bright(usual)
    few = {**GOOD, "cells": 2.0, "score": 0.1}
    assert reference.of_statistics([GOOD, few]) == usual
    assert reference.of_statistics([]) == {} and kinds({}, reference=usual) == []


def test_padding_is_told_where_it_may_explain_a_doubt() -> None:
    assert kinds({"padding": 0.5}) == []
    assert kinds({"padding": 0.5, "threshold": 0.9}) == ["padding", "threshold"]


def test_a_diameter_that_no_cell_has_is_doubted() -> None:
    assert kinds({}, pixel=0.4) == ["diameter"] and kinds({}, pixel=10.0) == ["diameter"]
    assert kinds({}, pixel=2.0) == []


def test_voxels_of_another_size_are_doubted() -> None:
    known = (6.0, 1.62, 1.62)
    doubt = doubts.voxel_size(known, (6.0, 3.24, 3.24), rescaled=False)
    assert doubt is not None and "--rescale" in doubt.text and doubt.value == pytest.approx(2)
    assert doubts.voxel_size(known, (6.0, 3.24, 3.24), rescaled=True) is None
    assert doubts.voxel_size(known, (6.3, 1.6, 1.6), rescaled=False) is None
    assert doubts.voxel_size(known, None, rescaled=False) is None
    assert json.loads(json.dumps(doubt.to_json())).keys() == {"kind", "text", "value", "expected"}


def test_cells_at_bright_spots_are_not_doubted() -> None:
    centres = lattice(120, 20)
    statistics = measure(spots(centres, (120, 120), 3.5), found_at(centres))
    assert statistics["cells"] == statistics["sampled"] == statistics["plain"] == len(centres)
    assert statistics["ratio"] == 1 and 0.7 < statistics["size"] < 1.3
    for name in ("threshold", "crowded", "dark", "merged", "outside", "missed", "padding"):
        assert statistics[name] == 0, name
    assert statistics["relief"] > 1 and statistics["score"] == pytest.approx(0.6)
    assert doubts.judge(statistics, reference={}, ndim=2, known=10.0) == ()


def test_statistics_do_not_depend_on_gain_offset_and_padding() -> None:
    centres = lattice(120, 20)
    image = spots(centres, (120, 120), 3.5)
    expected = measure(image, found_at(centres))
    for changed in (image * 16 + 32768, image / 255):
        again = measure(changed.astype(np.float32), found_at(centres))
        assert again == pytest.approx(expected, rel=0.02, abs=0.02)
    padded = measure(np.pad(image, ((0, 120), (0, 120), (0, 0))), found_at(centres))
    assert padded["padding"] == pytest.approx(0.75, abs=0.01)
    assert padded["plain"] == len(centres) and padded["missed"] == 0
    assert doubts.judge(padded, reference={}, ndim=2, known=10.0) == ()


@pytest.mark.parametrize(
    ("step", "sigma", "cells", "expected"),
    [
        (40, 9.0, lattice(120, 4), {"crowded", "merged", "count", "size"}),
        (20, 3.5, lattice(120, 20)[::6], {"missed", "count"}),
        (20, 3.5, lattice(120, 20) + 10, {"outside", "dark"}),
    ],
    ids=["many in a large cell", "few of many", "between the cells"],
)
def test_wrong_cells_are_doubted(
    step: int, sigma: float, cells: np.ndarray, expected: set[str]
) -> None:
    image = spots(lattice(120, step), (120, 120), sigma)
    reasons = doubts.judge(measure(image, found_at(cells)), reference={}, ndim=2, known=10.0)
    assert expected <= {doubt.kind for doubt in reasons}


def test_dark_cells_are_told_from_bright_ones() -> None:
    centres = lattice(120, 20)
    image = 255 - spots(centres, (120, 120), 3.5)
    statistics = measure(image, found_at(centres))
    assert statistics["dark"] == 1
    reasons = doubts.judge(statistics, reference={}, ndim=2, known=10.0)
    assert [doubt.kind for doubt in reasons] == ["inverted", "dark"]
    # Of a model for dark cells it is what it should be.
    statistics = measure(image, found_at(centres), bright=False)
    usual = reference.of_statistics([statistics], bright=False)
    assert not reference.is_bright(usual)
    assert doubts.judge(statistics, reference=usual, ndim=2, known=10.0) == ()


def test_the_share_at_the_threshold_is_that_of_the_candidates_around_it() -> None:
    statistics = measure(np.zeros((20, 20, 1), np.float32), found_at(lattice(20, 10), below=6))
    assert statistics["threshold"] == 6 / 4  # 0.25 is above 3/4 of 0.3, 0.6 above 5/4 of it
    points = np.random.default_rng(0).uniform(0, 200, (300, 2)).astype(np.float32)
    near = spatial.distance.cdist(points, points) + np.diag(np.full(300, np.inf))
    crowded = measure(np.zeros((200, 200, 1), np.float32), found_at(points))["crowded"]
    assert crowded == (near.min(0) < 5).mean()


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_an_empty_image_without_cells_is_not_doubted(noise: float) -> None:
    image = np.random.default_rng(0).normal(100, noise, (100, 100, 1)).astype(np.float32)
    statistics = measure(image, found_at(np.zeros((0, 2), np.float32)))
    assert doubts.judge(statistics, reference={}, ndim=2, known=10.0) == ()


def test_a_large_image_is_looked_at_in_windows_around_what_was_found() -> None:
    shape, spacing = (50, 3000, 4000), (4.0, 1.0, 1.0)
    places = np.random.default_rng(0).uniform(0, 1, (500, 3)) * (50, 200, 4000)
    regions = list(appearance.windows(shape, places, spacing=spacing))
    assert 1 < len(regions) <= 8
    for region in regions:
        sizes = [part.stop - part.start for part in region]
        assert np.prod(sizes) == pytest.approx(2**18, rel=0.1)
        assert sizes[1] == sizes[2] == pytest.approx(4 * sizes[0], rel=0.1)
        assert all(0 <= part.start < part.stop <= n for part, n in zip(region, shape, strict=True))
        assert region[1].start < 250
    nowhere = list(appearance.windows(shape, places[:0], spacing=spacing))
    assert len(nowhere) == 8

    class Left:
        def touches(self, region: Any, shape: Any, /) -> bool:
            return bool(region[2].start < 1000)

        def holds(self, points: np.ndarray, shape: Any, /) -> np.ndarray:
            return points[:, 2] < 1000

    masked = list(appearance.windows(shape, places[:0], spacing=spacing, mask=Left()))
    assert 0 < len(masked) < 8 and all(region[2].start < 1000 for region in masked)
    small = list(appearance.windows((40, 50), places[:, 1:], spacing=(1.0, 1.0)))
    assert small == [(slice(0, 40), slice(0, 50))]


def test_statistics_of_a_volume_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = (np.arange(4, 16, 8), np.arange(6, 96, 12), np.arange(6, 96, 12))
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    grid = np.moveaxis(np.indices((16, 96, 96)), 0, -1)
    image = np.random.default_rng(0).normal(20, 2, (16, 96, 96))
    for centre in centres:
        image += 100 * np.exp(-np.square((grid - centre) * (2, 1, 1)).sum(-1) / 18)
    given = {"diameter": 8.0, "spacing": (2.0, 1.0, 1.0)}
    whole = measure(image[..., None].astype(np.float32), found_at(centres), **given)
    monkeypatch.setattr(appearance, "_WHOLE_VOXELS", 2**14)
    monkeypatch.setattr(appearance, "_WINDOW_VOXELS", 2**14)
    parts = measure(image[..., None].astype(np.float32), found_at(centres), **given)
    assert 10 < parts["sampled"] < 2 * whole["sampled"] and parts["cells"] == whole["cells"]
    for statistics in (whole, parts):
        assert doubts.judge(statistics, reference={}, ndim=3) == ()
        assert statistics["ratio"] == pytest.approx(1, abs=0.3)


@pytest.mark.usefixtures("quick_compiling")
def test_a_run_has_a_reference_that_its_file_keeps(run_2d: Path, tmp_path: Path) -> None:
    model = model_file.load_model(run_2d)
    assert model.reference["sign"] == (1.0, 1.0)
    for name in ("threshold", "crowded", "ratio", "size", "score"):
        low, high = model.reference[name]
        assert low <= high, name
    model_file.export_model(model, tmp_path / "mine.zip", card="# Mine\n")
    assert model_file.load_model(tmp_path / "mine.zip").reference == model.reference


@pytest.mark.usefixtures("quick_compiling")
def test_python_warns_of_a_doubtful_count(run_2d: Path, cells_2d: Path) -> None:
    model = model_file.load_model(run_2d)
    image = read_image(cells_2d / "test" / "t0.png").pixels
    model.predict(image)  # a warning would be an error
    with pytest.warns(cellcount_jax.DoubtfulCountWarning, match="doubtful count: .*--invert"):
        model.predict(255 - image)


def test_a_colour_image_is_not_taken_for_one_of_bright_cells(
    untrained_model: Callable[..., TrainedModel],
) -> None:
    centres = lattice(120, 20)
    image = 255 - spots(centres, (120, 120), 3.5)
    model = untrained_model(2, data__diameter=10.0)
    assert doubts.find(model, Array(image, 2), found_at(centres))
    colour = Array(np.repeat(image, 3, -1), 2)
    assert doubts.find(model, colour, found_at(centres)) == ()
