"""A sample at another size, against Pillow and by going there and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from cellcount_jax.data.datasets import check_sample
from cellcount_jax.data.sample import Sample
from cellcount_jax.data.scaled import scaled
from cellcount_jax.errors import InputError


def sample(shape: tuple[int, ...] = (40, 30)) -> Sample:
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.int32)
    labels[tuple(slice(4, 10) for _ in shape)] = 3
    valid = np.ones(shape, bool)
    valid[:3] = False
    return Sample(
        name="a",
        image=rng.random((*shape, 1), np.float32),
        points=np.stack([rng.uniform(-0.49, n - 0.51, 7) for n in shape], -1).astype(np.float32),
        spacing=(1.0,) * len(shape),
        valid=valid,
        labels=labels,
    )


@pytest.mark.parametrize("factors", [(2.0, 2.0), (0.5, 0.5), (0.3, 0.4), (1.25, 0.6)])
def test_pixels_are_those_of_pillow(factors: tuple[float, float]) -> None:
    before = sample()
    after = scaled(before, factors)
    check_sample(after)
    shape = tuple(round(n * f) for n, f in zip(before.shape, factors, strict=True))
    assert after.shape == shape
    plane = Image.fromarray(before.image[..., 0])
    expected = np.asarray(plane.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(after.image[..., 0], expected, atol=1e-5)


def test_dots_and_labels_move_with_the_pixels() -> None:
    before = sample((20, 24, 16))
    after = scaled(before, (2.0, 2.0, 2.0))
    assert after.points is not None and before.points is not None
    np.testing.assert_allclose((after.points + 0.5) / 2 - 0.5, before.points, atol=0.26)
    for name in ("labels", "valid"):
        fine, coarse = getattr(after, name), getattr(before, name)
        expected = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
        np.testing.assert_array_equal(fine, expected)
        np.testing.assert_array_equal(getattr(scaled(after, (0.5,) * 3), name), coarse)


def test_the_voxel_size() -> None:
    known = dataclasses.replace(sample(), spacing=(2.0, 1.0), spacing_known=True)
    assert scaled(known, (0.5, 2.0)).spacing == (4.0, 0.5)
    assert scaled(sample(), (0.5, 2.0)).spacing == (1.0, 1.0)
    assert scaled(known, (1.0, 1.001)) is known


def test_nothing_is_left() -> None:
    with pytest.raises(InputError, match="nothing of 40 x 30 voxels"):
        scaled(sample(), (0.01, 1.0))
