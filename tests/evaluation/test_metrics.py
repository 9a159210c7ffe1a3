"""Matching against brute force, invariances, labels, and the scores' definitions."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.metrics import (
    Scores,
    f1_score,
    match_labels,
    match_points,
    mean_absolute_error,
    pooled,
    root_mean_squared_error,
)


def distance_matrix(predicted, true, spacing=1.0):
    return np.sqrt((((predicted[:, None] - true[None]) * spacing) ** 2).sum(axis=-1))


def best_by_enumeration(distances, max_distance):
    """(tp, total distance), over all ways to give each prediction a true point or none."""
    n, m = distances.shape
    best = (0, 0.0)
    for choice in itertools.product(range(-1, m), repeat=n):
        taken = [(i, j) for i, j in enumerate(choice) if j >= 0]
        if len({j for _, j in taken}) < len(taken):
            continue
        if all(distances[i, j] <= max_distance for i, j in taken):
            best = min(best, (-len(taken), sum(distances[i, j] for i, j in taken)))
    return -best[0], best[1]


def best_by_assignment(distances, max_distance):
    """(tp, total distance), by a dense assignment in which a pair too far costs a lot."""
    close = distances <= max_distance
    rows, columns = linear_sum_assignment(np.where(close, distances, 1e4))
    chosen = close[rows, columns]
    return chosen.sum(), distances[rows, columns][chosen].sum()


def check(matching, predicted, true, max_distance, spacing=1.0):
    """A legal matching, whose numbers agree with each other."""
    distances = distance_matrix(predicted, true, spacing)
    rows, columns = matching.pairs.T
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == matching.tp == len(rows)
    assert matching.pairs.dtype.kind == "i" and (np.diff(rows) > 0).all()
    assert matching.tp + matching.fp == len(predicted)
    assert matching.tp + matching.fn == len(true)
    np.testing.assert_allclose(matching.distances, distances[rows, columns], rtol=1e-12)
    assert (matching.distances <= max_distance).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("on_a_lattice", [False, True])
def test_matching_equals_enumeration_on_tiny_sets(rng, ndim, on_a_lattice):
    for _ in range(25):
        n, m = rng.integers(0, 5, 2)
        points = rng.random((n + m, ndim)) * 3
        if on_a_lattice:
            points = points.round()
        predicted, true = points[:n], points[n:]
        matching = match_points(predicted, true, max_distance=1)
        check(matching, predicted, true, 1)
        expected = best_by_enumeration(distance_matrix(predicted, true), 1)
        assert (matching.tp, matching.distances.sum()) == pytest.approx(expected)


@pytest.mark.parametrize("mean_neighbours", [0.3, 2, 5, 40])
@pytest.mark.parametrize("ndim", [2, 3])
def test_matching_equals_dense_assignment(rng, ndim, mean_neighbours):
    for n, m in ((150, 150), (90, 160), (160, 90), (1, 150)):
        predicted, true = rng.random((n, ndim)), rng.random((m, ndim))
        radius = np.sort(distance_matrix(predicted, true), axis=None)[int(mean_neighbours * n)]
        matching = match_points(predicted, true, max_distance=radius)
        check(matching, predicted, true, radius)
        expected = best_by_assignment(distance_matrix(predicted, true), radius)
        assert (matching.tp, matching.distances.sum()) == pytest.approx(expected)


def test_matching_of_components_beyond_one_batch_equals_dense_assignment(rng):
    predicted = rng.random((3000, 2))
    true = np.concatenate([rng.random((1500, 2)), predicted[:1200] + 0.001])
    matching = match_points(predicted, true, max_distance=0.022)
    check(matching, predicted, true, 0.022)
    expected = best_by_assignment(distance_matrix(predicted, true), 0.022)
    assert (matching.tp, matching.distances.sum()) == pytest.approx(expected)


def test_more_pairs_come_before_nearer_pairs():
    matching = match_points(np.array([[0.0], [1.0]]), np.array([[1.0], [2.9]]), max_distance=2)
    np.testing.assert_array_equal(matching.pairs, [[0, 0], [1, 1]])


def test_swapping_predicted_and_true_swaps_the_errors(rng):
    predicted, true = rng.random((200, 2)), rng.random((120, 2))
    there = match_points(predicted, true, max_distance=0.05)
    back = match_points(true, predicted, max_distance=0.05)
    assert (there.tp, there.fp, there.fn) == (back.tp, back.fn, back.fp)
    assert there.f1 == back.f1 and there.precision == back.recall
    assert there.tp > 20
    assert {tuple(p) for p in there.pairs} == {tuple(p[::-1]) for p in back.pairs}


def test_matching_moves_with_the_points_and_their_order(rng):
    predicted, true = rng.random((150, 3)), rng.random((150, 3))
    expected = match_points(predicted, true, max_distance=0.1)
    moved = match_points(predicted + 7, true + 7, max_distance=0.1)
    np.testing.assert_array_equal(moved.pairs, expected.pairs)
    order, other = rng.permutation(150), rng.permutation(150)
    shuffled = match_points(predicted[order], true[other], max_distance=0.1)
    pairs = np.stack([order[shuffled.pairs[:, 0]], other[shuffled.pairs[:, 1]]], axis=1)
    assert {tuple(p) for p in pairs} == {tuple(p) for p in expected.pairs}
    assert expected.tp > 20


def test_distances_are_in_the_units_of_the_spacing(rng):
    predicted, true = np.array([[0.0, 0, 0]]), np.array([[1.0, 0, 0]])
    spacing = (6.0, 1.62, 1.62)
    assert match_points(predicted, true, max_distance=5.9, spacing=spacing).tp == 0
    near = match_points(predicted, true, max_distance=6, spacing=spacing)
    assert near.tp == 1 and near.distances[0] == 6
    predicted, true = rng.random((100, 3)), rng.random((100, 3))
    scaled = match_points(predicted, true, max_distance=1, spacing=spacing)
    check(scaled, predicted, true, 1, np.array(spacing))
    plain = match_points(predicted * spacing, true * spacing, max_distance=1)
    np.testing.assert_array_equal(scaled.pairs, plain.pairs)
    assert scaled.tp > 20


def test_a_pair_at_exactly_the_distance_counts():
    three_four = np.array([[3.0, 4.0]], np.float32)
    assert match_points(np.zeros((1, 2)), three_four, max_distance=5).tp == 1
    assert match_points(np.zeros((1, 2)), three_four, max_distance=4.999).tp == 0
    tenths = match_points(np.array([[0.1]]), np.array([[0.4]]), max_distance=0.4 - 0.1)
    assert tenths.tp == 1


def test_exact_duplicates_match_once_each(rng):
    points = rng.random((50, 2))
    same = match_points(points, points[::-1], max_distance=0.5)
    assert same.tp == 50 and same.distances.sum() == 0
    stack = match_points(np.zeros((30, 3)), np.zeros((20, 3)), max_distance=1)
    assert (stack.tp, stack.fp, stack.fn) == (20, 10, 0)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_empty_sets(n, m):
    matching = match_points(np.zeros((n, 2)), np.zeros((m, 2)), max_distance=1)
    assert (matching.tp, matching.fp, matching.fn) == (0, n, m)
    assert matching.pairs.shape == (0, 2) and matching.distances.shape == (0,)
    expected = 1.0 if n == m else 0.0
    assert matching.precision == matching.recall == matching.f1 == expected


@pytest.mark.parametrize(("ndim", "mean_neighbours"), [(2, 0.1), (2, 1), (3, 3)])
def test_100000_points_take_seconds(rng, ndim, mean_neighbours):
    n = 100_000
    predicted, true = rng.random((n, ndim)), rng.random((n, ndim))
    ball = {2: np.pi, 3: 4 / 3 * np.pi}[ndim]
    radius = (mean_neighbours / n / ball) ** (1 / ndim)
    start = time.perf_counter()
    matching = match_points(predicted, true, max_distance=radius)
    assert time.perf_counter() - start < 10
    assert 0.05 * n < matching.tp < n
    assert (matching.distances <= radius).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predicted": np.zeros(3)}, r"predicted has shape \(3,\)"),
        ({"true": np.zeros((3, 3))}, r"\(2, 2\) and true \(3, 3\)"),
        ({"true": np.array([[0, np.nan]])}, "true has NaN"),
        ({"max_distance": 0}, "max_distance is 0"),
        ({"max_distance": -1}, "max_distance is -1"),
        ({"max_distance": float("nan")}, "max_distance is nan"),
        ({"spacing": (1, 1, 1)}, "2 positive numbers"),
        ({"spacing": (1, 0)}, "2 positive numbers"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(changed, message):
    given = {"predicted": np.zeros((2, 2)), "true": np.zeros((2, 2)), "max_distance": 1} | changed
    with pytest.raises(InputError, match=message):
        match_points(given.pop("predicted"), given.pop("true"), **given)


def test_a_point_inside_a_cell_is_right_and_only_one():
    labels = np.zeros((10, 12), np.int32)
    labels[1:4, 1:4] = 7
    labels[5:9, 5:11] = 3
    labels[0, 11] = 9
    predicted = np.array([[1.0, 1.0], [2.2, 2.4], [4.6, 4.5], [9.0, 0.0], [3.5, 3.4]], np.float32)
    matching = match_labels(predicted, labels)
    # Labels 3, 7, 9 have the ranks 0, 1, 2; (4.6, 4.5) lies in voxel (5, 5), (3.5, 3.4) in (4, 3).
    np.testing.assert_array_equal(matching.pairs, [[1, 1], [2, 0]])
    assert (matching.tp, matching.fp, matching.fn) == (2, 3, 1)
    np.testing.assert_allclose(
        matching.distances, [np.hypot(0.2, 0.4), np.hypot(6.5 - 4.6, 7.5 - 4.5)], rtol=1e-6
    )


def test_label_matching_equals_a_loop(rng):
    spacing = np.array([6, 1.62, 1.62])
    for _ in range(20):
        labels = rng.integers(0, 6, (4, 6, 5)).astype(np.uint16) * 11
        predicted = rng.random((12, 3)) * (np.array(labels.shape) - 1)
        matching = match_labels(predicted, labels, spacing=tuple(spacing))
        expected = set()
        present = [label for label in np.unique(labels).tolist() if label]
        for rank, label in enumerate(present):
            centroid = np.argwhere(labels == label).mean(axis=0)
            inside = [
                (np.linalg.norm((p - centroid) * spacing), k)
                for k, p in enumerate(predicted)
                if labels[tuple(np.floor(p + 0.5).astype(int))] == label
            ]
            if inside:
                expected.add((min(inside)[1], rank))
        assert {tuple(p) for p in matching.pairs.tolist()} == expected
        assert matching.fp == 12 - len(expected) and matching.fn == len(present) - len(expected)


def test_label_matching_of_nothing():
    empty = match_labels(np.zeros((0, 2)), np.zeros((4, 4), int))
    assert (empty.tp, empty.fp, empty.fn, empty.f1) == (0, 0, 0, 1.0)
    assert match_labels(np.zeros((2, 2)), np.zeros((4, 4), int)).fp == 2
    assert match_labels(np.zeros((0, 2)), np.ones((4, 4), int)).fn == 1


def test_label_matching_refuses_what_it_cannot_score():
    labels = np.ones((4, 4), int)
    with pytest.raises(InputError, match=r"\(2, 3\) and labels \(4, 4\)"):
        match_labels(np.zeros((2, 3)), labels)
    with pytest.raises(InputError, match="1 of 2 predicted points lie outside"):
        match_labels(np.array([[1.0, 1.0], [3.5, 0.0]]), labels)
    with pytest.raises(InputError, match="float64"):
        match_labels(np.zeros((2, 2)), labels.astype(float))
    with pytest.raises(InputError, match="least is -1"):
        match_labels(np.zeros((2, 2)), -labels)


def test_f1_is_the_harmonic_mean_of_precision_and_recall(rng):
    for tp, fp, fn in rng.integers(1, 50, (20, 3)).tolist():
        scores = Scores(tp, fp, fn)
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        assert (scores.precision, scores.recall) == pytest.approx((precision, recall))
        assert scores.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert f1_score(0, 0, 0) == 1 and f1_score(0, 3, 0) == 0 and f1_score(0, 0, 3) == 0


def test_pooling_sums_counts_and_does_not_average_scores():
    total = pooled(scores for scores in [Scores(90, 10, 10), Scores(0, 0, 10)])
    assert (total.tp, total.fp, total.fn) == (90, 10, 20)
    assert total.f1 == pytest.approx(180 / 210)
    matching = match_points(np.zeros((1, 2)), np.zeros((1, 2)), max_distance=1)
    assert pooled([matching]).f1 == 1
    with pytest.raises(InputError, match="no images"):
        pooled([])


def test_count_errors():
    assert mean_absolute_error([10, 20, 30], [12, 20, 26]) == pytest.approx(2)
    assert root_mean_squared_error([10, 20, 30], [12, 20, 26]) == pytest.approx(np.sqrt(20 / 3))
    for error in (mean_absolute_error, root_mean_squared_error):
        with pytest.raises(InputError, match=r"\(2,\), the true ones \(3,\)"):
            error([1, 2], [1, 2, 3])
        with pytest.raises(InputError, match="at least one"):
            error([], [])


@pytest.fixture
def rng():
    return np.random.default_rng(0)
