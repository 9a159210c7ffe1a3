"""The share of boxes inside a mask, against sums over all pairs of boxes and voxels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_jax.images import label_volumes
from cellcount_jax.images.coverage import inside_share
from cellcount_jax.images.sources import open_source


def shared(box: tuple[float, float], voxel: tuple[float, float]) -> float:
    """How much of a box, of its own length, a voxel covers along an axis."""
    overlap = min(box[1], voxel[1]) - max(box[0], voxel[0])
    return max(overlap, 0.0) / (box[1] - box[0])


def by_pairs(mask: np.ndarray, borders: list[np.ndarray]) -> np.ndarray:
    found = np.zeros([len(b) - 1 for b in borders])
    for box, voxel in itertools.product(np.ndindex(found.shape), np.argwhere(mask)):
        parts = zip(box, voxel, borders, mask.shape, strict=True)
        found[box] += np.prod(
            [shared((b[i], b[i + 1]), (v / n, (v + 1) / n)) for i, v, b, n in parts]
        )
    return found


@settings(max_examples=80, deadline=None)
@given(
    shape=st.lists(st.integers(2, 6), min_size=2, max_size=3).map(tuple),
    seed=st.integers(0, 2**32 - 1),
    whole=st.booleans(),
)
def test_against_all_pairs(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], seed: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, shape) * rng.integers(1, 9)
    borders = []
    for n in shape:
        kinds = [np.arange(n + 1) / n, np.linspace(0, 1, rng.integers(2, 9))]
        kinds.append(np.unique(np.concatenate([[0.0, 1.0], rng.random(3)])))
        border = kinds[rng.integers(len(kinds))]
        borders.append(border if whole else border[: rng.integers(2, len(border) + 1)])
    path = tmp_path_factory.mktemp("a") / "mask.npy"
    np.save(path, mask)
    with pytest.MonkeyPatch.context() as patch, open_source(path) as labels:
        patch.setattr(label_volumes, "_BLOCK_VOXELS", int(rng.integers(1, 30)))
        found = inside_share(labels, borders)
    np.testing.assert_allclose(found, by_pairs(mask, borders), atol=1e-12)
