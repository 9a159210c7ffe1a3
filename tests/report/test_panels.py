"""The parts of a page: pictures of regions, places of interest, charts, rings and texts."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cellcount_jax.report import charts, diagrams, overview, views
from cellcount_jax.report.counted import Counted, Marks, cells_text, draw, place_text, planes_text
from cellcount_jax.report.pictures import round_down
from cellcount_jax.report.places import (
    cell_radius,
    clipped,
    densest,
    fullest,
    in_region,
    nearest_voxels,
    overlooked,
    region_around,
    shortened,
)
from cellcount_jax.report.views import Volume, open_volume, project


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)


def volume_of(image: np.ndarray, spacing: Sequence[float] | None = None, **options: Any) -> Volume:
    options = {"chunks": None} | options
    return open_volume(image.__getitem__, image.shape[:-1], spacing=spacing, **options)


def region_of(*spans: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(*span) for span in spans)


def counted_of(image: np.ndarray, count: int, spacing: Sequence[float] | None) -> Counted:
    rng = np.random.default_rng(1)
    volume = volume_of(image, spacing)
    points = rng.uniform(-0.5, np.array(volume.shape) - 0.5, (count, 3))
    points[:, 0] *= volume.shape[0] > 1
    scores = rng.uniform(0.5, 1, count)
    unit = ("px", 1.0) if spacing is None else ("µm", min(spacing[-2:]))
    nothing = np.zeros((0, 3))
    return Counted(volume, points, scores, 0.5, nothing, np.zeros(0), 4.0, unit)


def block_means(planes: np.ndarray, down: int, right: int, kept: int) -> np.ndarray:
    """Of `kept` rows of each block of the last two axes; the blocks at the end are smaller."""
    height, width = planes.shape[-2:]
    found = np.zeros((len(planes), -(-height // down), -(-width // right)))
    for y, x in np.ndindex(found.shape[1:]):
        rows = slice(y * down, min((y + 1) * down, y * down + kept))
        found[:, y, x] = planes[:, rows, x * right : (x + 1) * right].mean(axis=(1, 2))
    return found


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("box", [(500, 500), (10, 12), (7, 500), (3, 3)])
@pytest.mark.parametrize("at_once", [10**9, 900, 1])
def test_projections_are_the_brightest_of_block_means(
    monkeypatch: pytest.MonkeyPatch, axis: int, box: tuple[int, int], at_once: int
) -> None:
    image = image_of(9, 22, 26, 1)
    region = region_of((1, 9), (2, 21), (0, 25))
    volume = volume_of(image)
    monkeypatch.setattr(views, "MAX_READ_VALUES", at_once)
    picture = project(volume, region, axis=axis, box=box)
    height, width = picture.pixels.shape[:2]
    assert width <= box[0] and height <= box[1]
    down, right = picture.covered[0] // height, picture.covered[1] // width
    part = np.moveaxis(image[region][..., 0].astype(np.float64), axis, 0)
    line = part[:, 0].size
    expected = block_means(part, down, right, max(1, at_once // line)).max(axis=0)
    np.testing.assert_allclose(picture.pixels[..., 0], expected, rtol=1e-5)


def test_the_first_row_of_a_block_stands_for_it_where_there_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = image_of(40, 30, 1)
    volume = volume_of(image)
    monkeypatch.setattr(views, "MAX_PICTURE_VOXELS", 300)
    picture = project(volume, region_of((0, 1), (0, 40), (0, 30)), axis=0, box=(10, 10))
    expected = block_means(image[None, ..., 0], 4, 4, 1)[0]
    np.testing.assert_allclose(picture.pixels[..., 0], expected, rtol=1e-5)


def test_planes_stored_whole_are_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(300, 20, 30, 1)
    monkeypatch.setattr(views, "MAX_READ_VALUES", 20_000)
    volume = volume_of(image, chunks=(1, 20, 30))
    assert not volume.deep and volume_of(image, chunks=(8, 20, 30)).deep
    region = region_of((0, 300), (5, 9), (0, 30))
    picture = project(volume, region, axis=1, box=(1000, 1000))
    np.testing.assert_array_equal(picture.pixels, image[::3, 5:9].max(axis=1))
    assert picture.covered == (300, 30)


def test_any_channels_and_an_image_as_a_volume() -> None:
    for channels, shown in ((1, 1), (2, 1), (3, 3), (4, 1)):
        image = image_of(12, 14, channels)
        volume = volume_of(image, (2.0, 3.0))
        np.testing.assert_allclose(volume.edges, (1, 1, 1.5))
        assert volume.shape == (1, 12, 14) and volume.channels == channels
        whole = region_of((0, 1), (0, 12), (0, 14))
        pixels = project(volume, whole, axis=0, box=(100, 100)).pixels
        expected = image if shown == 3 else image.max(axis=-1, keepdims=True)
        np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_allclose(volume_of(image_of(2, 3, 4, 1), (6, 2, 4)).edges, (3, 1, 2))


def test_contrast_runs_between_the_percentiles() -> None:
    pixels = np.arange(10_001, dtype=np.float32).reshape(1, -1, 1)
    shown = views.levels(pixels).ravel()
    assert shown[100] == 0 and shown[9980] == 255 and (np.diff(shown.astype(int)) >= 0).all()
    assert shown[(100 + 9980) // 2] in (127, 128)
    assert views.levels(pixels, highest=5000.0)[0, 5000] == 255
    assert not views.levels(np.full((3, 4, 3), 7.0)).any()
    one_bright = np.zeros((100, 100, 1))
    one_bright[5, 5] = 3
    assert views.levels(one_bright)[5, 5] == 255, "a lone spot is not lost"


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))))


def test_small_pictures_keep_every_pixel_and_large_ones_nearly() -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        small = rng.integers(0, 255, (30, 40, channels), np.uint8)
        url = views.encode(small)
        assert url.startswith("data:image/png;base64,")
        np.testing.assert_array_equal(decoded(url).reshape(small.shape), small)
        slope = np.linspace(0, 255, 500).astype(np.uint8)
        large = np.tile(slope[None, :, None], (500, 1, channels))
        url = views.encode(large)
        assert url.startswith("data:image/jpeg;base64,")
        differences = decoded(url).reshape(large.shape).astype(int) - large
        assert np.abs(differences).max() <= 4


def test_points_lie_in_the_nearest_voxel() -> None:
    shape = (4, 5, 6)
    points = np.array([[-0.5, -0.5, -0.5], [3.5, 4.5, 5.5], [1.49, 1.5, 2.0]])
    assert nearest_voxels(points, shape).tolist() == [[0, 0, 0], [3, 4, 5], [1, 2, 2]]
    assert in_region(points, region_of((0, 1), (0, 1), (0, 1)), shape).tolist() == [1, 0, 0]
    assert in_region(points, region_of((1, 4), (2, 5), (2, 6)), shape).tolist() == [0, 1, 1]
    assert in_region(points, region_of((0, 4), (0, 5), (0, 6)), shape).all()


def test_the_radius_is_half_the_distance_of_close_neighbours() -> None:
    grid = np.array(list(itertools.product(range(3), range(8), range(8))), np.float64)
    assert cell_radius(grid * (1, 10, 20), np.array([50.0, 1.0, 1.0])) == pytest.approx(5)
    assert cell_radius(grid * (1, 10, 20), np.array([50.0, 3.0, 1.0])) == pytest.approx(10)
    assert cell_radius(grid * 0.01, np.ones(3)) == 3 and cell_radius(grid * 1e4, np.ones(3)) == 30
    same = np.zeros((5, 3))
    assert cell_radius(same, np.ones(3)) == cell_radius(same[:0], np.ones(3)) > 0


def test_regions_round_a_place() -> None:
    assert region_around((5, 5, 5), (1, 3, 5)) == region_of((5, 6), (4, 7), (3, 8))
    assert region_around((0, 9.5, 5), (3, 4, 99), shape=(8, 10, 7)) == region_of(
        (0, 3), (6, 10), (0, 7)
    )
    beyond = region_around((0, 9, 5), (3, 3, 3))
    assert beyond == region_of((-1, 2), (8, 11), (4, 7))
    assert clipped(beyond, (8, 10, 7)) == region_of((0, 2), (8, 10), (4, 7))


def test_the_fullest_stretch_has_the_most_points() -> None:
    rng = np.random.default_rng(0)
    for length in (1, 3, 10, 50):
        positions = rng.integers(0, 30, 40)
        found = fullest(positions, 30, length)
        most = min(length, 30)
        assert found.stop - found.start == most and found.start >= 0 and found.stop <= 30
        inside = [((positions >= s) & (positions < s + most)).sum() for s in range(31 - most)]
        assert inside[found.start] == max(inside)
    assert fullest(np.zeros(0, np.int64), 30, 10) == slice(10, 20)


def test_the_densest_place_is_where_the_crowd_is() -> None:
    rng = np.random.default_rng(0)
    crowd = rng.normal((15, 45, 75), 1, (30, 3))
    points = np.concatenate([rng.uniform(0, 100, (50, 3)), crowd])
    assert np.abs(densest(points, (30, 30, 30)) - (15, 45, 75)).max() < 3


def test_a_long_image_is_cut_where_the_cells_are() -> None:
    whole = region_of((0, 1), (0, 10), (0, 3000))
    points = np.array([[0, 5.0, 2000.0], [0, 5.0, 2010.0], [0, 5.0, 30.0]])
    cut = shortened(whole, points, np.ones(3), 0)
    assert cut[:2] == whole[:2] and cut[2].stop - cut[2].start == 200
    assert cut[2].start <= 2000 and cut[2].stop > 2010
    assert shortened(whole, points, np.array([1, 20.0, 1]), 0) == whole
    deep = region_of((0, 900), (0, 10), (0, 10))
    cut = shortened(deep, np.array([[700.0, 1, 1]]), np.array([2.0, 1, 1]), 1)
    assert cut[0].stop - cut[0].start == 100 and cut[0].start <= 700 < cut[0].stop


@pytest.mark.parametrize("bright", [True, False])
def test_a_cell_that_was_missed_is_found(bright: bool) -> None:
    places = [(20, 20), (20, 80), (70, 30), (60, 90)]
    y, x = np.mgrid[:100, :120]
    image = np.zeros((100, 120), np.float32)
    for number, (a, b) in enumerate(places):
        image += (9 - number) * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 18)
    volume = volume_of((image if bright else -image)[..., None])
    whole = region_of((0, 1), (0, 100), (0, 120))
    picture = project(volume, whole, axis=0, box=(500, 500))
    points = np.array([(0, *p) for p in places], np.float64)
    missed = overlooked(picture, points[[0, 1, 3]], np.ones(3), 4.0)
    assert missed is not None and missed[2] == bright
    assert np.hypot(missed[0] - 70, missed[1] - 30) < 1.5
    flat = project(volume_of(np.ones((100, 120, 1), np.float32)), whole, axis=0, box=(500, 500))
    assert overlooked(flat, points[:1], np.ones(3), 4.0) is None


def test_a_ring_is_round_its_cell() -> None:
    image = np.zeros((8, 30, 40, 1), np.float32)
    image[3, 12, 33] = 1
    counted = counted_of(image, 0, (2.0, 1.0, 1.5))._replace(radius=2.0)
    for axis in (0, 1):
        region = region_of((1, 8), (4, 30), (5, 40))
        picture = project(counted.volume, region, axis=axis, box=(2000, 2000))
        marks = [Marks("counted", np.array([[3.0, 12.0, 33.0]]))]
        svg = draw(counted, picture, marks, box=(600, 600), label="x", bar=False)
        width, height = map(int, re.findall(r'<svg viewBox="0 0 (\d+) (\d+)"', svg)[0])
        assert max(width, height) == 600
        tall, wide = ((7 * 2, 26)[1 - axis], 35 * 1.5)
        assert height / width == pytest.approx(tall / wide, rel=0.01)
        rows, columns = picture.pixels.shape[:2]
        y, x = (float(v.mean()) for v in np.nonzero(picture.pixels[..., 0]))
        match = re.search(r'class="counted" d="M([\d.]+) ([\d.]+)a([\d.]+) ', svg)
        assert match is not None
        left, middle, radius = map(float, match.groups())
        assert left + radius == pytest.approx((x + 0.5) * width / columns, abs=0.2)
        assert middle == pytest.approx((y + 0.5) * height / rows, abs=0.2)
        assert radius == pytest.approx(2.0 * width / wide, abs=0.1)


def test_many_cells_are_dots_and_marks_have_their_classes() -> None:
    counted = counted_of(image_of(50, 50, 1), 0, None)
    whole = region_of((0, 1), (0, 50), (0, 50))
    picture = project(counted.volume, whole, axis=0, box=(50, 50))
    points = np.random.default_rng(0).uniform(0, 49, (30_000, 3))
    options: dict[str, Any] = {"box": (500, 500), "label": "x"}
    few = draw(counted, picture, [Marks("rejected", points[:3])], **options)
    assert few.count(" 0 1 0 ") == 2 * 3 * 2 and 'class="rejected"' in few
    many = draw(counted, picture, [Marks("counted", points)], **options)
    assert " 0 1 0 " not in many and len(many) < 600_000
    assert draw(counted, picture, [Marks("other", points[:1])], **options).count("h0") == 2


@pytest.mark.parametrize("length", [0.013, 0.7, 3.0, 90.0, 4000.0])
def test_the_scale_bar_has_the_length_that_it_states(length: float) -> None:
    whole = region_of((0, 1), (0, 50), (0, 50))
    counted = counted_of(image_of(50, 50, 1), 0, None)._replace(unit=("µm", length))
    picture = project(counted.volume, whole, axis=0, box=(50, 50))
    svg = draw(counted, picture, [], box=(400, 400), label="x")
    assert 'class="bar"' not in draw(counted, picture, [], box=(400, 400), label="x", bar=False)
    wide = float(re.findall(r'class="bar".* width="([\d.]+)"', svg)[0])
    value, unit = re.findall(r">([\d.]+) (µm|mm)<", svg)[0]
    stated = float(value) * (1000 if unit == "mm" else 1)
    assert wide * 50 * length / 400 == pytest.approx(stated, rel=0.01)
    assert 35 <= wide <= 100
    # Below the picture, so on no cell.
    assert int(re.findall(r'class="bar" [^>]*y="(\d+)"', svg)[0]) > 400


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0, 1), (0, 37), (0.21, 0.47), (0, 1e6), (-3, 2.5), (0, 3e-4)):
        found = charts.ticks(low, high)
        assert 2 <= len(found) <= 11 and low <= found[0] and found[-1] <= high + 1e-9
        steps = np.diff(found)
        np.testing.assert_allclose(steps, steps[0])
        assert f"{steps[0]:e}"[0] in "125"
    assert charts.ticks(1, 1) == []
    assert [round_down(v) for v in (1, 1.9, 0.05, 99, 1e-3)] == [1, 1, 0.05, 50, 1e-3]


@pytest.mark.parametrize("extent", [(9.0, 9.0), (9.0, 90.0), (90.0, 9.0)])
def test_no_word_of_a_map_is_cut(extent: tuple[float, float]) -> None:
    svg = charts.heat_map(np.ones((2, 2)), extent=extent, unit="µm", legend="cells", label="l")
    width = int(re.findall(r'viewBox="0 0 (\d+)', svg)[0])
    upright = [float(x) for x in re.findall(r"translate\(([\d.]+) ", svg)]
    assert len(upright) == 2 and all(10 < x < width - 4 for x in upright)


def heights(svg: str, colour: str) -> np.ndarray:
    return np.array([float(h) for h in re.findall(rf'height="([\d.]+)" fill="{colour}"', svg)])


def test_bars_are_as_tall_as_their_numbers() -> None:
    edges = np.arange(5.0)
    kinds = [
        charts.Bars("a", "#111", np.array([1, 0, 3, 4]), list("abcd")),
        charts.Bars("b<", "#222", np.array([0, 2, 0, 0]), list("abcd")),
    ]
    svg = charts.bars(edges, kinds, across="x", up="y", label="l", line=(2.0, "here"))
    first, second = heights(svg, "#111")[:-1], heights(svg, "#222")[:-1]  # without the legend's
    np.testing.assert_allclose(first / first[0], [1, 3, 4], rtol=0.01)
    np.testing.assert_allclose(second / first[0], [2], rtol=0.01)
    assert "b&lt;" in svg and ">here<" in svg
    cut = charts.bars(edges, kinds, across="x", up="y", label="l", highest=2.0)
    assert heights(cut, "#111")[:-1].max() == heights(cut, "#222")[0]


@pytest.mark.parametrize("count", [0, 1, 700])
@pytest.mark.parametrize(
    ("shape", "spacing", "unit"),
    [
        ((50, 70, 1), None, "cells per (100 px)²"),
        ((50, 70, 1), (2.0, 1.0), "cells per mm²"),
        ((9, 50, 70, 1), (6.0, 1.0, 2.0), "cells per mm³"),
        ((9, 50, 70, 1), None, "cells per (100 px)³"),
    ],
)
def test_densities_times_volumes_are_the_count(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    shape: tuple[int, ...],
    spacing: Sequence[float] | None,
    unit: str,
) -> None:
    counted = counted_of(image_of(*shape), count, spacing)
    drawn: dict[str, Any] = {}

    def heat_map(values: np.ndarray, **options: Any) -> str:
        drawn.update(options, values=values)
        return charts.heat_map(values, **options)

    monkeypatch.setattr(diagrams, "heat_map", heat_map)
    diagrams.density_map(counted)
    edges = (1.0,) * (len(shape) - 1) if spacing is None else spacing
    sizes = np.array(shape[:-1]) * edges
    assert drawn["legend"] == unit and drawn["extent"] == tuple(sizes[-2:])
    of_unit = (100.0 if spacing is None else 1000.0) ** len(sizes)
    mean = float(count / np.prod(sizes) * of_unit)
    assert drawn["values"].mean() == pytest.approx(mean)
    assert diagrams.mean_density(counted).startswith(f"{charts.number(mean)} {unit}")


def test_boxes_of_the_map_hold_the_cells_that_lie_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = counted_of(image_of(40, 80, 1), 0, None)
    points = np.array([[0, 5.0, 70.0]] * 30 + [[0, 30.0, 5.0]] * 18)
    counted = counted._replace(points=points, scores=np.ones(48))
    drawn: list[np.ndarray] = []

    def heat_map(values: np.ndarray, **_: Any) -> str:
        drawn.append(values)
        return ""

    monkeypatch.setattr(diagrams, "heat_map", heat_map)
    diagrams.density_map(counted)
    assert drawn[0].shape == (2, 4)
    expected = np.zeros((2, 4))
    expected[0, 3], expected[1, 0] = 30, 18
    np.testing.assert_allclose(drawn[0] * 20 * 20 / 100**2, expected)


class RightOf:
    """A mask that holds what lies right of a share of the width."""

    share_of_all = 0.505

    def share_of(self, borders: Sequence[np.ndarray]) -> np.ndarray:
        y, x = borders
        inside = np.diff(np.maximum(x, 1 - self.share_of_all)) / np.diff(x)
        return np.tile(inside, (len(y) - 1, 1))


def test_a_sliver_inside_a_mask_has_no_density(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = counted_of(image_of(100, 100, 1), 0, None)
    points = np.array([[0, 5.0, 49.0]] + [[0, 70.0, 80.0]] * 20)
    counted = counted._replace(points=points, scores=np.ones(21))
    drawn: list[np.ndarray] = []

    def heat_map(values: np.ndarray, **options: Any) -> str:
        drawn.append(values)
        return charts.heat_map(values, **options)

    monkeypatch.setattr(diagrams, "heat_map", heat_map)
    assert "Grey: hardly anything" in diagrams.density_map(counted._replace(inside=RightOf()))
    # One cell in a fiftieth of a box would make all others dark.
    np.testing.assert_allclose(drawn[0], [[np.nan, 0], [np.nan, 20 / 0.25]])
    assert "Grey" not in diagrams.density_map(counted)
    np.testing.assert_allclose(drawn[1], [[4, 0], [0, 80]])


@pytest.mark.parametrize("depth", [2, 60, 61, 333])
def test_the_depth_chart_counts_every_cell(depth: int) -> None:
    counted = counted_of(image_of(depth, 4, 4, 1), 500, (5.0, 1.0, 1.0))
    html = diagrams.depth_chart(counted)
    notes = re.findall(r"planes (\d+) to (\d+): ([\d,]+) cells", html)
    voxels = nearest_voxels(counted.points, counted.volume.shape)[:, 0]
    for first, last, number in notes:
        inside = (voxels >= int(first)) & (voxels <= int(last))
        assert int(number) == inside.sum() > 0
    assert sum(int(number) for _, _, number in notes) == 500
    assert len(notes) <= 60


def test_no_bin_of_the_scores_holds_both_kinds() -> None:
    counted = counted_of(image_of(20, 20, 1), 300, None)
    scores = np.random.default_rng(0).uniform(0.5, 1, 300)
    scores[:2] = 0.5, 1.0
    rejected = np.array([0.1, 0.3, np.nextafter(0.5, 0)])
    html = diagrams.score_chart(counted._replace(scores=scores), rejected)
    notes = re.findall(r"([\d.]+) to ([\d.]+): ([\d,]+) (counted|below)", html)
    totals = {"counted": 0, "below": 0}
    for low, high, number, kind in notes:
        totals[kind] += int(number)
        assert float(low) >= 0.5 if kind == "counted" else float(high) <= 0.5
    assert totals == {"counted": 300, "below": 3}
    assert diagrams.score_chart(counted_of(image_of(9, 9, 1), 0, None), np.zeros(0)) == ""
    same = counted._replace(scores=np.full(300, 0.5))
    assert "300 counted" in diagrams.score_chart(same, np.zeros(0))


def test_a_flood_of_noise_leaves_the_cells_to_be_seen() -> None:
    counted = counted_of(image_of(20, 20, 1), 100, None)
    noise = np.full(100_000, 0.1)
    html = diagrams.score_chart(counted, noise)
    assert "the tallest has 100,000" in html
    assert heights(html, charts.COUNTED).max() > 40


def test_a_crop_at_the_corner_keeps_its_cell_in_the_middle() -> None:
    counted = counted_of(image_of(9, 50, 70, 1), 0, (2.0, 1.0, 1.0))
    corner = np.array([[0.0, 0.0, 69.0]])
    html, rejected = overview.doubtful(counted._replace(points=corner, scores=np.array([0.6])))
    assert rejected == "" and html.count("<svg") == 2
    for svg in html.split("<svg")[1:]:
        width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
        match = re.search(r'class="counted" d="M([\d.]+) ([\d.]+)a([\d.]+) ', svg)
        assert match is not None and 'class="beyond"' in svg
        left, middle, radius = map(float, match.groups())
        assert left + radius == pytest.approx(width / 2, abs=0.5)
        assert middle == pytest.approx(height / 2, abs=0.5)


def test_words() -> None:
    known = counted_of(image_of(9, 50, 70, 1), 0, (6.0, 2.0, 1.0))
    unknown = counted_of(image_of(9, 50, 70, 1), 0, None)
    region = region_of((2, 5), (7, 8), (0, 70))
    assert [cells_text(n) for n in (0, 1, 1234)] == ["0 cells", "1 cell", "1,234 cells"]
    space = "\N{NO-BREAK SPACE}"
    assert place_text(known, np.array([1.2, 3.6, 4.0])) == f"z{space}1, y{space}4, x{space}4"
    assert place_text(known, np.full(3, -0.5)) == f"z{space}0, y{space}0, x{space}0"
    assert planes_text(known, region, 0) == f"planes 2 to 4 (18{space}µm)"
    assert planes_text(unknown, region, 0) == "planes 2 to 4"
    assert planes_text(known, region, 1) == "row 7"
    assert planes_text(known, region_of((2, 3), (0, 50), (0, 70)), 0) == f"plane 2 (z 12{space}µm)"
    assert (
        planes_text(known, region_of((0, 9), (0, 50), (0, 70)), 0) == f"all 9 planes (54{space}µm)"
    )
