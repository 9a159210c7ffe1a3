"""A data set on a model's voxels: all of an image together, and regions where they were meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import config as settings
from cellcount_jax.data import datasets, resampling
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError


def of_data(**values: Any) -> Any:
    data = settings.default_config().data
    data.update(values)
    return data


def sample(shape: tuple[int, ...], points: Any, **options: Any) -> Sample:
    image = np.random.default_rng(0).uniform(1, 9, (*shape, 1)).astype(np.float32)
    spacing = options.pop("spacing", (1.0,) * len(shape))
    return Sample("a", image, np.asarray(points, np.float32), spacing, source="a.tif", **options)


def one(item: Sample, data: Any) -> Sample:
    (found,) = resampling.resample(Dataset("", (item,), (), {}), data).labelled
    return found


@pytest.mark.parametrize("diameter", [3.0, 7.5, 10.05, 40.0])
def test_dots_come_back_to_where_they_are_in_the_file(diameter: float) -> None:
    points = np.random.default_rng(1).uniform(0, 59, (30, 2)).astype(np.float32)
    known = sample((60, 90), points, spacing=(0.5, 0.5), spacing_known=True)
    found = one(known, of_data(diameter=10.0, from_diameter=diameter))
    assert found.points is not None
    np.testing.assert_allclose(found.in_file(found.points), points, atol=0.5)
    inside = ((points > 1) & (points < 57)).all(1)
    np.testing.assert_allclose(found.in_file(found.points)[inside], points[inside], atol=1e-4)
    # Cells are as wide as the model's, whatever the voxel size says.
    assert (found.spacing, found.spacing_known) == ((1.0, 1.0), False)
    factor = 1 if abs(diameter - 10) < 0.1 else 10 / diameter
    assert found.shape == (round(60 * factor), round(90 * factor))


def test_nothing_changes_unless_it_is_wanted() -> None:
    dataset = Dataset("", (sample((20, 20), [(3, 4)]),), (), {})
    assert resampling.resample(dataset, of_data(diameter=10.0)) is dataset
    volume = sample((8, 20, 20), [(3, 4, 5)], spacing=(2.0, 1.0, 1.0), spacing_known=True)
    near = one(volume, of_data(to_spacing=(2.01, 1.0, 1.005)))
    assert near.image is volume.image and near.spacing == volume.spacing and near.scale == ()


def test_each_image_by_its_own_voxels() -> None:
    coarse = sample((8, 20, 20), [(3, 4, 5)], spacing=(2.0, 1.0, 1.0), spacing_known=True)
    fine = sample((8, 40, 40), [(3, 8, 10)], spacing=(2.0, 0.5, 0.5), spacing_known=True)
    data = of_data(to_spacing=(2.0, 1.0, 1.0))
    found = resampling.resample(Dataset("", (coarse,), (fine,), {"test": (fine,)}), data)
    everything = (*found.labelled, *found.unlabelled, *found.tests["test"])
    assert {(s.shape, s.spacing) for s in everything} == {((8, 20, 20), (2.0, 1.0, 1.0))}
    # A held-out part of an image that is trained on too keeps it once.
    assert found.unlabelled[0].image is found.tests["test"][0].image


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"to_spacing": (1.0, 1.0)}, {}, "its voxel size is not known.*data.spacing=Y,X"),
        ({"to_spacing": (2.0, 1.0, 1.0)}, {}, "is 2D, the voxels of the model, .* are 3D"),
        (
            {"to_spacing": (1.0, 1.0)},
            {"spacing": (30.0, 30.0), "spacing_known": True},
            "20 x 24 voxels, voxels of 30 x 30 um to 1 x 1: would become 600 x 720; is the size",
        ),
        ({"diameter": 1.0, "from_diameter": 50.0}, {}, "would become 0 x 0; is the size right"),
    ],
)
def test_what_cannot_be(changes: Any, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=rf"^a\.tif: .*{words}"):
        one(sample((20, 24), [(3, 4)], **options), of_data(**changes))


def test_regions_are_in_voxels_of_the_files(cells_3d: Path) -> None:
    """Labels count where they did; `y < 20` of voxels of 1 um is `y < 10` of 2 um."""
    data = of_data(
        kind="volumes",
        dir=str(cells_3d),
        ndim=3,
        region="y<20",
        held_out_region="y>=28",
        to_spacing=(2.0, 2.0, 2.0),
    )
    plain = datasets.load(data, seed=0)
    (found,) = plain.labelled
    assert found.shape == (12, 20, 20) and found.valid is not None
    assert found.valid[:, :10].all() and not found.valid[:, 10:].any()
    held_out = plain.tests["held_out"][0]
    assert held_out.valid is not None and held_out.valid[:, 14:].all()
    assert not held_out.valid[:, :14].any() and held_out.image is found.image
    assert "12x20x20" in plain.description and "voxels of 2 x 2 x 2 um" in plain.description
    assert found.scale == (1.0, 0.5, 0.5)
