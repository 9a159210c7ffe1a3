"""The built-in data set: numbers, names, independence of the images, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cellcount_jax.data.synthetic import synthetic_dataset
from cellcount_jax.errors import InputError

# A smaller shape than the built-in one, and the range of counts that is scaled with it.
SETS: dict[int, tuple[tuple[int, ...], tuple[int, int]]] = {
    2: ((96, 112), (12, 52)),
    3: ((20, 48, 56), (7, 19)),
}


@pytest.mark.parametrize("ndim", [2, 3])
def test_dataset(ndim: int) -> None:
    shape, (lowest, highest) = SETS[ndim]
    make: dict[str, Any] = {
        "ndim": ndim,
        "seed": 7,
        "num_unlabelled": 2,
        "num_test": 2,
        "shape": shape,
    }
    dataset = synthetic_dataset(num_labelled=1, **make)
    assert "not real data" in dataset.description and "1 labelled" in dataset.description
    assert len(dataset.labelled) == 1 and len(dataset.unlabelled) == 2
    assert list(dataset.tests) == ["test"] and len(dataset.tests["test"]) == 2
    samples = (*dataset.labelled, *dataset.unlabelled, *dataset.tests["test"])
    assert len({sample.name for sample in samples}) == 5
    assert len({sample.image.tobytes() for sample in samples}) == 5
    for sample in samples:
        assert sample.shape == shape and len(sample.spacing) == ndim
        assert sample.spacing_known == (ndim == 3)
    assert all(sample.points is None and sample.labels is None for sample in dataset.unlabelled)
    for sample in (*dataset.labelled, *dataset.tests["test"]):
        assert sample.points is not None and sample.points.dtype == np.float32
        assert sample.labels is not None and sample.labels.max() <= len(sample.points)
        assert lowest <= len(sample.points) <= highest

    larger = synthetic_dataset(num_labelled=3, **make)
    for a, b in zip(dataset.tests["test"], larger.tests["test"], strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    other = synthetic_dataset(num_labelled=1, **(make | {"seed": 8}))
    assert not np.array_equal(other.labelled[0].image, dataset.labelled[0].image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ndim": 4}, "ndim is 4"),
        ({"ndim": 3, "shape": (64, 64)}, "3D images need 3 sizes"),
        ({"ndim": 2, "num_labelled": 0}, "num_labelled is 0"),
        ({"ndim": 2, "num_test": -1}, "num_test is -1"),
    ],
)
def test_impossible_datasets_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        synthetic_dataset(seed=0, **options)
