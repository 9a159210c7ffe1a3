"""Cells on each other, found by the integral of their density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.metrics import match_points
from cellcount_jax.maps.split_merged import split_merged


def density_of(
    points: Sequence[Sequence[float]],
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
) -> np.ndarray:
    edges, dots = np.asarray(spacing or (1.0,) * len(shape)), np.zeros(shape)
    dots[tuple(np.transpose(points))] = 1
    return ndimage.gaussian_filter(dots, 2 * edges.min() / edges, mode="constant")


def test_two_cells_under_one_peak_become_two_points() -> None:
    cells = [[20, 18], [20, 22], [40, 50]]
    points = np.asarray([[20, 20], [40, 50]], np.float32)
    scores = np.asarray([0.9, 0.7], np.float32)
    density = density_of(cells, (60, 70))
    found, kept = split_merged(points, scores, density, least=1.5, reach=8)
    assert found.shape == (3, 2) and found.dtype == np.float32
    assert match_points(found, np.asarray(cells), max_distance=1.5).tp == 3
    np.testing.assert_array_equal(kept, np.asarray([0.9, 0.9, 0.7], np.float32))
    np.testing.assert_array_equal(found[2], [40, 50])


def test_three_cells_in_a_row_in_anisotropic_voxels() -> None:
    cells = [[6, 12, 20], [6, 20, 20], [6, 28, 20]]
    spacing = (6.0, 1.5, 1.5)
    density = density_of(cells, (12, 40, 40), spacing)
    options: dict[str, Any] = {"least": 1.5, "reach": 30.0, "spacing": spacing}
    found, _ = split_merged(np.asarray([[6, 20, 20]], np.float32), np.ones(1), density, **options)
    assert match_points(found, np.asarray(cells), max_distance=6, spacing=spacing).tp == 3
    assert len(found) == 3


@pytest.mark.parametrize(("least", "number"), [(1.9, 2), (2.1, 1), (1.1, 2), (np.inf, 1)])
def test_least_is_the_integral_that_makes_two(least: float, number: int) -> None:
    density = density_of([[20, 18], [20, 22]], (40, 40))
    point = np.asarray([[20, 20]], np.float32)
    assert len(split_merged(point, np.ones(1), density, least=least, reach=12)[0]) == number


def test_density_out_of_reach_and_negative_density_count_nothing() -> None:
    density = density_of([[10, 10], [10, 30], [11, 30]], (20, 40))
    density[0] = -1.0
    point = np.asarray([[10, 10]], np.float32)
    found, _ = split_merged(point, np.ones(1), density, least=1.5, reach=8)
    np.testing.assert_array_equal(found, point)


def test_without_points_there_are_none() -> None:
    none = np.zeros((0, 2), np.float32)
    found, scores = split_merged(none, np.zeros(0), np.ones((5, 5)), least=1.5, reach=3)
    assert found.shape == (0, 2) and scores.shape == (0,)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(2, 3), st.sampled_from([1.2, 1.5, 2]))
def test_numbers_are_those_of_the_integral(seed: int, count: int, ndim: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (14,) * ndim
    density = rng.uniform(-0.02, 0.1, shape)
    density *= 2 * count / density.sum()
    points = rng.permutation(np.argwhere(np.ones(shape)))[:count].astype(np.float32)
    found, scores = split_merged(points, np.arange(count), density, least=least, reach=100)
    distance = np.linalg.norm(np.argwhere(np.ones(shape))[:, None] - points[None], axis=-1)
    unique = (distance == distance.min(axis=1, keepdims=True)).sum(axis=1) == 1
    share = np.maximum(density, 0).ravel()
    sums = [share[unique & (distance.argmin(axis=1) == i)].sum() for i in range(count)]
    ties = share[~unique].sum()
    numbers = np.bincount(scores.astype(int), minlength=count)
    for got, low in zip(numbers, sums, strict=True):
        assert max(1, np.floor(low - least) + 2) <= got
        assert got <= max(1, np.floor(low + ties - least) + 2)
    assert ((found >= 0) & (found <= 13)).all()


def test_what_cannot_be_used() -> None:
    point, density = np.zeros((1, 2), np.float32), np.ones((4, 4))
    with pytest.raises(InputError, match=r"least is 1"):
        split_merged(point, np.ones(1), density, least=1.0, reach=3)
    with pytest.raises(InputError, match=r"reach is 0"):
        split_merged(point, np.ones(1), density, least=1.5, reach=0)
