"""The labels that training leaves out: which, how many, and that none is on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_jax.data.calibration_part import with_calibration
from cellcount_jax.data.sample import Dataset, Sample, voxels_inside


def labelled(name, count, *, shape=(40, 60), spacing=(1.0, 1.0), valid=None, seed=0):
    points = np.random.default_rng(seed).uniform(0, np.subtract(shape, 1), (count, len(shape)))
    image = np.zeros((*shape, 1), np.float32)
    return Sample(name, image, points.astype(np.float32), spacing, valid=valid)


def split(samples, share=0.2, seed=3):
    return with_calibration(Dataset("", tuple(samples), (), {}), share=share, seed=seed)


def dots(samples):
    return [len(voxels_inside(sample)) for sample in samples]


def test_of_many_images_whole_ones_are_left_out():
    samples = [labelled(f"a{i}", 30, seed=i) for i in range(20)]
    found = split(samples)
    assert len(found.calibration) == 4 and len(found.labelled) == 16
    assert {s.name for s in (*found.labelled, *found.calibration)} == {s.name for s in samples}
    assert all(s.valid is None for s in (*found.labelled, *found.calibration))
    again, other = split(samples), split(samples, seed=4)
    assert [s.name for s in again.calibration] == [s.name for s in found.calibration]
    assert [s.name for s in other.calibration] != [s.name for s in found.calibration]


@pytest.mark.parametrize("seed", range(4))
def test_of_few_images_the_end_of_each_along_its_longest_axis_is_left_out(seed):
    samples = [labelled(f"a{i}", 400 + i, seed=i) for i in range(3)]
    found = split(samples, seed=seed)
    assert len(found.labelled) == len(found.calibration) == 3
    for sample, train, held in zip(samples, found.labelled, found.calibration, strict=True):
        assert train.image is held.image is sample.image
        np.testing.assert_array_equal(train.valid, ~held.valid)
        columns = held.valid.any(0)
        np.testing.assert_array_equal(held.valid, np.broadcast_to(columns, held.valid.shape))
        assert columns[0] != columns[-1] and np.abs(np.diff(columns.astype(int))).sum() == 1
    wanted = [0.2 * len(s.points) for s in samples]
    np.testing.assert_allclose(dots(found.calibration), wanted, rtol=0.3)
    assert np.add(dots(found.labelled), dots(found.calibration)).tolist() == dots(samples)


def test_the_longest_axis_is_that_in_micrometres_of_what_is_labelled():
    valid = np.zeros((20, 40, 60), bool)
    valid[:, :, 50:] = True
    for spacing, axis in (((1.0, 1.0, 1.0), 1), ((5.0, 1.0, 1.0), 0)):
        sample = labelled("v", 9000, shape=(20, 40, 60), spacing=spacing, valid=valid)
        found = split([sample])
        (held,), (train,) = found.calibration, found.labelled
        assert not (held.valid & train.valid).any()
        np.testing.assert_array_equal(held.valid | train.valid, valid)
        ranges = [np.unique(where) for where in np.nonzero(held.valid)]
        assert [len(r) < n for r, n in zip(ranges, (20, 40, 10), strict=True)] == [
            a == axis for a in range(3)
        ]


def test_the_cut_lies_in_a_gap_between_cells():
    groups = np.repeat([5.0, 6.0, 7.0, 40.0, 41.0, 42.0, 43.0, 44.0], 50)
    points = np.stack([np.linspace(0, 39, 400), groups], 1).astype(np.float32)
    sample = Sample("a", np.zeros((40, 60, 1), np.float32), points, (1.0, 1.0))
    for seed in range(6):
        found = split([sample], share=0.35, seed=seed)
        assert dots(found.calibration)[0] == 150 or found.calibration[0].valid[0, -1]
        edge = int(np.flatnonzero(np.diff(found.calibration[0].valid[0].astype(int)))[0])
        assert not np.isin(np.floor(groups + 0.5), [edge, edge + 1]).all()


@pytest.mark.parametrize(
    ("samples", "share"),
    [
        ([labelled("a", 390)], 0.2),  # 78 dots, or as many as 97
        ([labelled("a", 1000)], 0.0),
        ([labelled(f"a{i}", 24, seed=i) for i in range(20)], 0.2),  # 96
        ([labelled("a", 0), labelled("b", 0)], 0.2),
        ([labelled("a", 2)], 0.5),
    ],
)
def test_with_too_few_dots_nothing_is_left_out(samples, share):
    given = Dataset("", tuple(samples), (), {})
    assert with_calibration(given, share=share, seed=0) is given


def test_dots_in_one_plane_cannot_be_cut():
    points = np.full((900, 2), 7.0, np.float32)
    sample = Sample("a", np.zeros((40, 60, 1), np.float32), points, (1.0, 1.0))
    assert split([sample]).calibration == ()


def test_why_nothing_is_left_out_stands_in_the_log(caplog):
    with caplog.at_level("INFO", logger="absl"):
        split([labelled("a", 50)])
    assert "dots would be left out" in caplog.text
