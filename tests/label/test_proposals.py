"""Proposals: where Otsu's threshold and a trained model see cells."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tifffile
from skimage import filters

from cellcount_jax.data import scene
from cellcount_jax.data.blocks import DONE
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.metrics import match_points
from cellcount_jax.images.selection import Selection
from cellcount_jax.inference import model_file
from cellcount_jax.label import blobs, calibrating, proposals
from cellcount_jax.label.blobs import BlobSettings, otsu
from cellcount_jax.label.session import Session


def plain(edges: Any, **changes: float) -> BlobSettings:
    """Settings of a search that does nothing but Otsu's threshold, with changes."""
    how = {"smooth": 0.0, "factor": 1.0, "opening": 0.0, "smallest": 0.0, **changes}
    return BlobSettings(np.array(edges, np.float64), **how)


def drawn(
    shape: tuple[int, ...], centres: np.ndarray, *, edges: Any, sigma: float, level: float = 100
) -> np.ndarray:
    """Gaussian cells of 1000 at places, on a background."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    values = np.full(shape, level, np.float64)
    for centre in centres:
        squared = np.square((grid - centre) * np.asarray(edges)).sum(-1)
        values += 1000 * np.exp(-squared / (2 * sigma**2))
    return values.astype(np.float32)


def spread(shape: tuple[int, ...], step: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Places in a grid, each moved a little."""
    axes = [np.arange(s, n - s / 2, s) for n, s in zip(shape, step, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    moved: np.ndarray = places + np.random.default_rng(seed).uniform(-1, 1, places.shape)
    return moved


def opened(tmp_path: Path, values: np.ndarray, edges: Any = None, **options: Any) -> Session:
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.rint(values).astype(np.uint16))
    return Session(path, Selection(spacing=edges), **options)


@pytest.mark.parametrize(
    ("shape", "step", "edges"),
    [((60, 80), (12, 14), (1.0, 1.0)), ((20, 48, 60), (5, 12, 14), (3.0, 1.0, 1.0))],
)
def test_blobs_are_found_at_their_centres(shape: Any, step: Any, edges: Any) -> None:
    centres = spread(shape, step)
    values = drawn(shape, centres, edges=edges, sigma=2.0)
    for more in ({}, {"split": 2.0}, {"background": 12.0}, {"opening": 1.5}):
        points, scores = otsu(values, plain(edges, **{"smooth": 0.5, **more}))
        found = match_points(points, centres, max_distance=1.0, spacing=edges)
        assert len(points) == found.tp == len(centres), more
        assert points.dtype == np.float64 and (np.diff(points[:, 0]) >= 0).all()
        assert ((scores > 0) & (scores < 1)).all()


def test_lengths_are_physical() -> None:
    """A ball is opened away or kept alike, whatever the voxels."""
    for edges in ((1.0, 1.0, 1.0), (2.0, 1.0, 0.5)):
        sizes = tuple(int(40 / e) for e in edges)
        grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1) * edges
        apart = np.sqrt(np.square(grid - 20).sum(-1))
        ball = np.where(apart <= 6, 500.0, 10.0)
        for opening, smallest, there in ((4.5, 0, 1), (8, 0, 0), (0, 800, 1), (0, 1000, 0)):
            points, _ = otsu(ball, plain(edges, opening=opening, smallest=smallest))
            assert len(points) == there, (edges, opening, smallest)
            if there:
                np.testing.assert_allclose(points[0] * edges, 20, atol=1e-6)


def test_opening_keeps_what_goes_on_beyond_the_border() -> None:
    values = np.zeros((20, 20), np.float32)
    values[:6] = 1
    values[12, 3] = 1
    points, _ = otsu(values, plain((1, 1), opening=3.0))
    np.testing.assert_allclose(points, [[2.5, 9.5]])


def test_scores_say_how_far_above() -> None:
    values = np.zeros((9, 30), np.float32)
    values[4, [4, 14, 24]] = 40, 60, 100
    points, scores = otsu(values, plain((1, 1)))
    assert points[:, 1].tolist() == [4, 14, 24]
    above = 20.0  # halfway to the next value that is there
    np.testing.assert_allclose(scores, 1 - above / np.array([40, 60, 100]), rtol=1e-3)
    brighter, same = otsu(300 * values, plain((1, 1)))
    np.testing.assert_array_equal(brighter, points)
    np.testing.assert_allclose(same, scores, rtol=1e-3)


def test_cells_that_touch_are_split() -> None:
    centres = np.array([[20.0, 20.0], [20.0, 26.0], [40.0, 40.0]])
    values = drawn((60, 60), centres, edges=(1, 1), sigma=2.2)
    assert len(otsu(values, plain((1, 1), factor=0.5))[0]) == 2
    points, _ = otsu(values, plain((1, 1), factor=0.5, split=2.0))
    assert match_points(points, centres, max_distance=1.0).tp == len(points) == 3


def test_a_larger_factor_never_gives_more() -> None:
    values = drawn((60, 80), spread((60, 80), (12, 14)), edges=(1, 1), sigma=2.0)
    values *= np.linspace(0.3, 1, 80, dtype=np.float32)
    counts = [
        len(otsu(values, plain((1, 1), factor=factor))[0])
        for factor in (0.8, 1.0, 1.5, 2.0, 3.0, 9.0)
    ]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1] == 0


@pytest.mark.parametrize("shape", [(12, 15), (4, 12, 15), (1, 1), (1, 1, 1)])
@pytest.mark.parametrize("level", [0.0, 7.5, -3.0])
def test_nothing_is_in_a_constant_image(shape: Any, level: float) -> None:
    how = plain(shape, smooth=1.0, background=4.0, opening=2.0, split=2.0)
    points, scores = otsu(np.full(shape, level, np.float32), how)
    assert points.shape == (0, len(shape)) and scores.shape == (0,)


def test_the_threshold_is_that_of_scikit_image() -> None:
    """In a histogram as fine as 16 bits need it; with negative values from the lowest on."""
    values = drawn((80, 80), spread((80, 80), (12, 12)), edges=(1, 1), sigma=2.5)
    for offset in (0.0, -5000.0):
        moved = (values + offset).astype(np.float32)
        found = blobs.threshold(blobs.histogram(moved), plain((1, 1)))
        assert found is not None
        assert found[0] == pytest.approx(filters.threshold_otsu(moved, nbins=4096), abs=5)
        assert found[1] == pytest.approx(min(0, moved.min()), rel=1e-3)
    parts = sum(blobs.histogram(part) for part in np.split(values, 8))
    np.testing.assert_array_equal(parts, blobs.histogram(values))
    assert blobs.histogram(values).sum() == values.size


@pytest.mark.parametrize(
    ("shape", "edges", "most"),
    [((150, 170), (1.0, 1.0), 5000), ((24, 70, 80), (3.0, 1.0, 1.0), 40_000)],
)
def test_tiled_is_as_in_one_piece(shape: Any, edges: Any, most: int, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    centres = random.uniform(0, np.array(shape) - 1, (150, len(shape)))
    values = drawn(shape, centres, edges=edges, sigma=1.5) + random.normal(0, 15, shape)
    with opened(tmp_path, values, edges, radius=4.0) as session:
        for more in ({}, {"background": 5.0}, {"opening": 1.2}, {"split": 0.0}):
            how = plain(edges, **{**proposals.defaults(session), "factor": 1.5, **more})
            tiles: list[str] = []
            seen = Seen(tiles)
            cut = proposals.otsu_image(session, how, max_voxels=most, progress=seen)
            assert tiles.count("proposing") > 3 and "measuring" in tiles
            assert seen.done == {"measuring": values.size, "proposing": values.size}
            whole = otsu(np.rint(values), how)
            assert len(whole[0]) > 40
            np.testing.assert_array_equal(cut[0], whole[0])
            np.testing.assert_array_equal(cut[1], whole[1])
            once = proposals.otsu_image(session, how)
            np.testing.assert_array_equal(once[0], whole[0])


class Seen:
    """Progress that is written down."""

    def __init__(self, titles: list[str]) -> None:
        self.titles, self.done = titles, dict[str, int]()

    def __call__(self, title: str, voxels: int) -> Any:
        self.title = title
        self.done.setdefault(title, 0)
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, done: int) -> None:
        self.titles.append(self.title)
        self.done[self.title] += done


def test_defaults_follow_the_radius(tmp_path: Path) -> None:
    shape, edges = (16, 60, 60), (2.0, 0.5, 0.5)
    centres = spread(shape, (4, 14, 14))
    values = drawn(shape, centres, edges=edges, sigma=1.0)
    with opened(tmp_path, values, edges, radius=2.5) as session:
        small = proposals.defaults(session)
        found, scores = proposals.otsu_image(session, plain(edges, **small))
        assert match_points(found, centres, max_distance=1, spacing=edges).tp == len(centres)
        assert session.propose(found, scores, by={"method": "otsu"}) == len(centres)
    with opened(tmp_path, values, edges, radius=5.0) as session:
        large = proposals.defaults(session)
    assert large["smooth"] == 2 * small["smooth"] and large["smallest"] == 8 * small["smallest"]
    with opened(tmp_path, values, edges, radius=1.0) as session:  # noise is no smaller
        assert proposals.defaults(session) == small


def test_what_is_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"smooth is -1; it must be 0 or more"):
        plain((1, 1), smooth=-1)
    monkeypatch.setattr(blobs, "filters", None)
    with pytest.raises(InputError, match=r'pip install "cellcount_jax\[label\]"'):
        plain((1, 1))


def test_a_model_proposes(tmp_path: Path, quick_compiling: None) -> None:
    """A bundled model on a generated volume of other voxels."""
    shape, edges = (8, 48, 48), (6.0, 1.62, 1.62)
    image, points, valid, *_ = scene.generate(
        jax.random.key(0), shape, spacing=edges, count_range=(10, 15)
    )
    true = np.asarray(points)[np.asarray(valid).astype(bool)]
    values = np.repeat(np.asarray(image)[..., 0], 2, axis=0)
    with opened(tmp_path, values, (3.0, 1.62, 1.62)) as session:
        found, scores, by = proposals.from_model(session, "nuclei3d")
        assert by["rescaled"] and by["model"] == "nuclei3d" and 0 < by["threshold"] < 1
        assert found.dtype == np.float64 and ((scores >= by["threshold"]) & (scores <= 1)).all()
        doubled = true * (2, 1, 1) + (0.5, 0, 0)
        near = match_points(found, doubled, max_distance=8, spacing=session.source.spacing)
        assert near.f1 > 0.7
        assert session.propose(found, scores, by=by) == len(found)
        fewer, certain, strict = proposals.from_model(session, "nuclei3d", threshold=0.9)
        assert len(fewer) < len(found) and (certain >= 0.9).all() and strict["threshold"] == 0.9
        with pytest.raises(InputError, match=r"threshold 0.001: must be at least 0.05"):
            proposals.from_model(session, "nuclei3d", threshold=0.001)
        with pytest.raises(InputError, match=r"cells.tif: the image is 3D with 1 channels"):
            proposals.from_model(session, "nuclei2d")
        with pytest.raises(InputError, match=r"nowhere: no such model"):
            proposals.from_model(session, "nowhere")


def test_a_model_is_calibrated_on_the_blocks_that_are_done(
    tmp_path: Path, untrained_model: Any
) -> None:
    model = untrained_model(2, target__scale=1.0, evaluation__max_distance=1.5)
    model = dataclasses.replace(model, thresholds={"peaks": 0.52})
    model_file.export_model(model, tmp_path / "old.zip", card="# old\n")
    values = np.random.default_rng(0).integers(0, 255, (96, 128)).astype(np.float32)
    with opened(tmp_path, values, block=(48, 64)) as session:
        old = str(tmp_path / "old.zip")
        points, scores, by = proposals.from_model(session, old, threshold=0.3)
        assert not calibrating.can_calibrate(session)
        session.propose(points, scores, by=by)
        assert not calibrating.can_calibrate(session)
        session.mark([(0, 0), (1, 0)], DONE)
        assert calibrating.can_calibrate(session)
        (tmp_path / "cells.model.zip").write_text("of the user")
        path, outcome = calibrating.calibrate(session, old)
        assert path == tmp_path / "cells.model2.zip"
        assert (tmp_path / "cells.model.zip").read_text() == "of the user"
        assert outcome.dots == int(session.dots.verified.sum()) < len(session.dots)
        assert model_file.load_model(path).thresholds["peaks"] == pytest.approx(0.3, abs=0.021)
        again, _, used = proposals.from_model(session, str(path))
        assert used["model"] == str(path) and abs(len(again) - len(points)) < 0.3 * len(points)
        assert f"F1 on {outcome.dots} dots" in calibrating.summary(outcome)
        assert calibrating.calibrate(session, old)[0].name == "cells.model3.zip"
