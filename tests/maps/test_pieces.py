"""Locations in a map that is read part by part are those of the whole map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellcount_jax.errors import InputError
from cellcount_jax.maps import pieces
from cellcount_jax.maps.detect import find_components, find_peaks
from cellcount_jax.maps.maxima import first_of_equal, window_reach

pytestmark = pytest.mark.usefixtures("both_searches")


def cores_of(shape: tuple[int, ...], core: tuple[int, ...]) -> list[tuple[slice, ...]]:
    axes = [
        [slice(a, min(a + c, n)) for a in range(0, n, c)] for n, c in zip(shape, core, strict=True)
    ]
    return list(itertools.product(*axes))


def peaks_in_parts(
    values: np.ndarray, core: tuple[int, ...], **options: object
) -> tuple[np.ndarray, np.ndarray]:
    found = [
        pieces.peaks(values.__getitem__, values.shape, c, **options)  # type: ignore[arg-type]
        for c in cores_of(values.shape, core)
    ]
    places = np.concatenate([p for p, _ in found])
    scores = np.concatenate([s for _, s in found])
    order = np.lexsort(places.T[::-1])
    places, scores = places[order], scores[order]
    reach = window_reach(options["min_distance"], values.ndim)  # type: ignore[arg-type]
    stays = first_of_equal(places, reach)
    return places[stays].astype(np.float32), scores[stays]


# Few different values make plateaus, shoulders and ties of all kinds.
maps_ = st.tuples(
    st.integers(2, 3), st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0.0, 2.0)
)


def a_map(ndim: int, seed: int, levels: int, blur: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, {2: 30, 3: 13}[ndim], ndim)
    smooth = ndimage.gaussian_filter(rng.uniform(size=shape), blur)
    spread = float(np.ptp(smooth)) or 1.0
    return np.floor((smooth - smooth.min()) / spread * levels).astype(np.float32)


@settings(deadline=None, max_examples=200)
@given(maps_, st.integers(2, 9), st.sampled_from([0.5, 1.5]), st.integers(1, 3))
# The part of a plateau that a tile sees may have another middle, which is no peak.
@example((2, 9985, 3, 0.0), 2, 0.5, 2)
def test_peaks_of_parts_are_those_of_the_map(
    drawn: tuple[int, int, int, float], core: int, threshold: float, reach: int
) -> None:
    values = a_map(*drawn)
    options = {"threshold_abs": threshold, "min_distance": (reach, 1, 2)[: values.ndim]}
    expected, scores = find_peaks(values, return_scores=True, **options)  # type: ignore[call-overload]
    size = (core, core + 1, 2 * core)[: values.ndim]
    found, found_scores = peaks_in_parts(values, size, **options)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_scores, scores)


@settings(deadline=None)
@given(maps_, st.integers(2, 9), st.sampled_from([0.5, 1.5]))
def test_components_of_parts_are_those_of_the_map(
    drawn: tuple[int, int, int, float], core: int, threshold: float
) -> None:
    values = a_map(*drawn)
    size = (core, core + 1, 2 * core)[: values.ndim]
    expected, scores = find_components(values, threshold_abs=threshold, return_scores=True)
    cores = cores_of(values.shape, size)
    found = (pieces.pieces(values[c], values.shape, c, threshold_abs=threshold) for c in cores)
    points, highest = pieces.joined(found, values.ndim)
    np.testing.assert_array_equal(points, expected)
    np.testing.assert_array_equal(highest, scores)


def test_a_plateau_that_is_longer_than_a_part_is_one_peak() -> None:
    values = np.zeros((5, 400), np.float32)
    values[2, 10:390] = 1
    found, _ = peaks_in_parts(values, (5, 16), threshold_abs=0.5, min_distance=1)
    np.testing.assert_array_equal(found, [[2, 199]])


def test_a_snake_through_all_parts_is_one_component() -> None:
    values = np.zeros((41, 41), np.float32)
    values[::2] = 1
    values[1::4, -1] = values[3::4, 0] = 1
    cores = cores_of(values.shape, (7, 5))
    found = (pieces.pieces(values[c], values.shape, c, threshold_abs=0.5) for c in cores)
    points, _ = pieces.joined(found, 2)
    assert len(points) == 1
    np.testing.assert_allclose(points[0], np.argwhere(values).mean(0), rtol=1e-6)


def test_a_map_that_is_flat_everywhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_MAX_PLATEAU_VOXELS", 1000)
    values = np.ones((200, 200), np.float32)
    with pytest.raises(InputError, match="flat, and above the threshold"):
        pieces.peaks(
            values.__getitem__,
            values.shape,
            (slice(0, 20), slice(0, 20)),
            threshold_abs=0.5,
            min_distance=1,
        )
