"""Kinds of images: rare ones are drawn as often as frequent ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.training import kinds


@pytest.mark.parametrize("ndim", [2, 3])
def test_kinds_are_drawn_equally_often(ndim: int) -> None:
    rng = np.random.default_rng(0)

    def image(level: float, sigma: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.normal(size=(20,) * ndim), sigma)
        return (level + noise / noise.std())[..., None].astype(np.float32)

    images = [image(0.0, 0.3) for _ in range(12)] + [image(8.0, 3.0) for _ in range(2)]

    found = kinds.shares(images)

    np.testing.assert_allclose(found.sum(), 1.0)
    # What looks alike may be more than one kind, but is not drawn more than its kinds.
    assert found[12:].min() > 2 * found[:12].mean()
    np.testing.assert_array_equal(found, kinds.shares(images))


def test_few_images_are_of_one_kind() -> None:
    images = [np.full((8, 8, 1), float(i)) for i in range(7)]
    np.testing.assert_allclose(kinds.shares(images), 1 / 7)
