"""Peaks against a brute-force window, plateaus, components, thresholds, calibration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.maps.detect import choose, find_candidates, find_components, find_peaks

pytestmark = pytest.mark.usefixtures("both_searches")


def brute_force_peaks(values, threshold, reach):
    """Voxels that no other voxel of their window reaches: for maps without ties."""
    found = []
    for index in np.ndindex(values.shape):
        window = tuple(slice(max(i - r, 0), i + r + 1) for i, r in zip(index, reach, strict=True))
        rivals = (values[window] >= values[index]).sum()
        if values[index] > threshold and rivals == 1:
            found.append(index)
    return np.array(found, np.float32).reshape(-1, values.ndim)


@pytest.mark.parametrize(
    ("shape", "min_distance"),
    [
        ((17,), 2),
        ((13, 17), 1),
        ((13, 17), 3),
        ((13, 17), (1, 4)),
        ((13, 17), (0, 2)),
        ((6, 9, 8), 1),
        ((6, 9, 8), (1, 2, 3)),
        ((6, 9, 8), (0, 1, 1)),
    ],
)
def test_peaks_equal_brute_force_on_maps_without_ties(rng, shape, min_distance):
    reach = np.broadcast_to(min_distance, len(shape))
    for _ in range(10):
        values = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32)
        threshold = 0.3 * values.size
        points, scores = find_peaks(
            values, threshold_abs=threshold, min_distance=min_distance, return_scores=True
        )
        expected = brute_force_peaks(values, threshold, reach)
        np.testing.assert_array_equal(points, expected)
        assert points.dtype == np.float32 and len(points) > 0
        np.testing.assert_array_equal(scores, values[tuple(points.astype(int).T)])


@pytest.mark.parametrize("min_distance", [1, 2, (2, 1)])
def test_with_many_ties_no_two_peaks_share_a_window_and_none_is_lost(rng, min_distance):
    reach = np.broadcast_to(min_distance, 2)
    for _ in range(50):
        values = rng.integers(0, 4, (12, 14)).astype(np.float32)
        points = find_peaks(values, threshold_abs=0.5, min_distance=min_distance)
        assert sorted(points.tolist()) == points.tolist()
        for a, b in itertools.combinations(points, 2):
            assert (np.abs(a - b) > reach).any()
        index = tuple(points.astype(int).T)
        windows = ndimage.maximum_filter(values, size=tuple(2 * reach + 1), mode="nearest")
        assert (values[index] == windows[index]).all()
        # A plateau of the highest value is no shoulder: it has a peak, or a peak near one of
        # its members that came first.
        plateaus, count = ndimage.label(values == 3, structure=np.ones((3, 3)))
        for number in range(1, count + 1):
            members = np.argwhere(plateaus == number)
            apart = np.abs(members[:, None] - points[None])
            assert (apart <= reach).all(axis=-1).any()


PLATEAUS = {
    "pair": ["..##.."],
    "square": [".....", ".###.", ".###.", ".###.", "....."],
    "long": ["." * 41, "." + "#" * 39 + ".", "." * 41],
    "U": ["#...#", "#...#", "#...#", "#####"],
    "diagonal": ["#....", ".#...", "..#..", "...#.", "....#"],
    "ring": ["#####", "#...#", "#...#", "#...#", "#####"],
}


@pytest.mark.parametrize("name", PLATEAUS)
@pytest.mark.parametrize("min_distance", [1, 2])
def test_a_plateau_has_one_peak_its_member_nearest_to_its_mean(name, min_distance):
    mask = np.array([[c == "#" for c in row] for row in PLATEAUS[name]])
    values = np.where(mask, 0.9, 0.2).astype(np.float32)
    members = np.argwhere(mask)
    distance = ((members - members.mean(axis=0)) ** 2).sum(axis=1)
    nearest = members[np.argmin(distance)]
    points = find_peaks(values, threshold_abs=0.5, min_distance=min_distance)
    np.testing.assert_array_equal(points, [nearest])


def test_a_shoulder_is_no_peak():
    values = np.array([0, 1, 1, 1, 2, 1, 1, 0], np.float32)
    np.testing.assert_array_equal(find_peaks(values, threshold_abs=0.5), [[4]])


def test_of_equal_peaks_within_a_window_the_first_stays():
    values = np.zeros(12, np.float32)
    values[[1, 3, 5, 9]] = 1
    points = find_peaks(values, threshold_abs=0.5, min_distance=2)
    np.testing.assert_array_equal(points, [[1], [5], [9]])


@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7)])
def test_constant_maps_have_one_peak_above_the_threshold_and_none_at_it(shape):
    values = np.full(shape, 0.5, np.float32)
    centre = [[(n - 1) // 2 for n in shape]]
    np.testing.assert_array_equal(find_peaks(values, threshold_abs=0.4), centre)
    for threshold in (0.5, 0.6, np.inf):
        points, scores = find_peaks(values, threshold_abs=threshold, return_scores=True)
        assert points.shape == (0, len(shape)) and scores.shape == (0,)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_peaks_in_the_corners_are_found_also_below_zero(ndim):
    values = np.full((6,) * ndim, -9.0, np.float32)
    corners = sorted(itertools.product((0, 5), repeat=ndim))
    for corner in corners:
        values[corner] = -1
    np.testing.assert_array_equal(find_peaks(values, threshold_abs=-2, min_distance=2), corners)


def test_peaks_and_components_of_an_image_equal_those_of_a_volume_of_one_slice(rng):
    values = ndimage.gaussian_filter(rng.random((30, 40)), 1.5)
    threshold = float(np.median(values))
    for find in (find_peaks, find_components):
        flat = find(values, threshold_abs=threshold)
        deep = find(values[None], threshold_abs=threshold)
        np.testing.assert_array_equal(deep[:, 1:], flat)
        assert len(flat) > 3 and (deep[:, 0] == 0).all()


def test_peaks_turn_with_the_map(rng):
    values = rng.random((20, 20)).astype(np.float32)
    points = find_peaks(values, threshold_abs=0.5, min_distance=2)
    flipped = find_peaks(values[:, ::-1].T, threshold_abs=0.5, min_distance=2)
    back = np.stack([flipped[:, 1], 19 - flipped[:, 0]], axis=1)
    assert sorted(back.tolist()) == points.tolist()


def test_other_number_types_give_the_same_peaks(rng):
    values = rng.permutation(150).reshape(10, 15)
    expected = find_peaks(values.astype(np.float64), threshold_abs=70)
    for dtype in (np.uint8, np.int32, np.float16, np.float32):
        np.testing.assert_array_equal(find_peaks(values.astype(dtype), threshold_abs=70), expected)


@pytest.mark.parametrize("find", [find_peaks, find_components])
def test_nan_is_an_error_that_says_where(find):
    values = np.zeros((4, 5), np.float32)
    values[2, 3] = np.nan
    with pytest.raises(InputError, match=r"1 NaN of 20 values, the first at \(2, 3\)"):
        find(values, threshold_abs=0.5)


@pytest.mark.parametrize("min_distance", [0, -1, 1.5, (1,), (1, 2, 3), (0, 0), (1, -1)])
def test_a_wrong_min_distance_is_an_error(min_distance):
    with pytest.raises(InputError, match="min_distance"):
        find_peaks(np.zeros((4, 5)), threshold_abs=0.5, min_distance=min_distance)


def test_a_nan_threshold_and_a_map_without_axes_are_errors():
    with pytest.raises(InputError, match="threshold_abs is NaN"):
        find_peaks(np.zeros((4, 5)), threshold_abs=float("nan"))
    with pytest.raises(InputError, match="single number"):
        find_components(np.array(1.0, np.float32), threshold_abs=0.5)


@pytest.mark.parametrize("shape", [(25,), (15, 17), (7, 8, 9)])
def test_components_equal_a_flood_fill(rng, shape):
    values = rng.random(shape)
    points, scores = find_components(values, threshold_abs=0.6, return_scores=True)
    left = {tuple(i) for i in np.argwhere(values > 0.6).tolist()}
    expected = []
    while left:
        grown, edge = set(), [min(left)]
        while edge:
            voxel = edge.pop()
            if voxel in left:
                left.remove(voxel)
                grown.add(voxel)
                for axis, step in itertools.product(range(len(shape)), (-1, 1)):
                    edge.append(tuple(v + step * (a == axis) for a, v in enumerate(voxel)))
        members = np.array(sorted(grown))
        expected.append([*members.mean(axis=0), values[tuple(members.T)].max()])
    np.testing.assert_allclose(np.column_stack([points, scores]), expected, rtol=1e-6)
    assert points.dtype == np.float32 and len(points) > 1


def test_connectivity_decides_about_corners():
    values = np.eye(3)
    assert len(find_components(values, threshold_abs=0.5)) == 3
    centre = find_components(values, threshold_abs=0.5, connectivity=2)
    np.testing.assert_array_equal(centre, [[1, 1]])
    for wrong in (0, 3):
        with pytest.raises(InputError, match="connectivity"):
            find_components(values, threshold_abs=0.5, connectivity=wrong)


def test_no_component_above_the_threshold():
    points, scores = find_components(np.ones((3, 4)), threshold_abs=1, return_scores=True)
    assert points.shape == (0, 2) and scores.shape == (0,)


def peaks_of(heights, floor=0.0):
    """The candidates in a map with single voxels of some heights."""
    values = np.zeros((3, 4 * len(heights)), np.float32)
    values[1, 1::4] = heights
    return find_candidates(values, floor=floor, min_distance=1)


def test_the_rules_choose_from_the_candidates():
    found = peaks_of([0.9, 0.2, 0.4])
    for rule in ("peaks", "components"):
        chosen = choose(found, rule=rule, threshold=0.3)
        np.testing.assert_array_equal(chosen.points, [[1, 1], [1, 9]])
        np.testing.assert_allclose(chosen.scores, [0.9, 0.4])
        assert chosen.threshold == 0.3
    with pytest.raises(InputError, match="'otsu'; it must be peaks, components or fidt"):
        choose(found, rule="otsu", threshold=0.3)


@pytest.mark.parametrize(
    ("heights", "options", "threshold", "number"),
    [
        ([0.51, 0.1, 0.3], {"threshold": 0.4}, 0.204, 2),
        ([0.51, 0.1, 0.3], {"threshold": 0.1, "floor": 0.08}, 0.08, 3),
        ([0.051, 0.03], {"threshold": 0.4}, 0.1, 0),
        ([0.051, 0.03], {"threshold": 0.4, "target_peak": 0.5}, 0.0204, 2),
        ([], {"threshold": 0.4}, 0.1, 0),
    ],
    ids=["of the maximum", "at least the floor", "faint", "of a lower target", "nothing"],
)
def test_the_threshold_of_fidt_is_relative_to_the_maximum(heights, options, threshold, number):
    others = {name: value for name, value in options.items() if name != "floor"}
    found = peaks_of(heights, options.get("floor", 0.0)) if heights else peaks_of([0.0])
    chosen = choose(found, rule="fidt", **others)
    assert chosen.threshold == pytest.approx(threshold)
    assert len(chosen.points) == len(chosen.scores) == number


@pytest.fixture
def rng():
    return np.random.default_rng(0)
