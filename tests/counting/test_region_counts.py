"""Counts per region, against a loop over the points and the whole label volume at once."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_jax.counting import region_counts
from cellcount_jax.errors import InputError
from cellcount_jax.images import label_volumes
from cellcount_jax.images.sources import open_source

ALLEN = 614454277


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def label_at(array: np.ndarray, point: np.ndarray, shape: tuple[int, ...]) -> int:
    """The oracle, for points that are not on a border of voxels."""
    voxel = [
        min(int((float(v) + 0.5) / n * m), m - 1)
        for v, n, m in zip(point, shape, array.shape, strict=True)
    ]
    return int(array[tuple(voxel)])


@pytest.mark.parametrize("number", [0, 1, 400])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("shape", "theirs"),
    [
        ((30, 40), (30, 40)),
        ((8, 30, 40), (8, 30, 40)),
        ((30, 40), (7, 11)),
        ((8, 30, 40), (11, 6, 5)),
    ],
)
def test_against_the_whole_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_points: Callable[..., np.ndarray],
    shape: tuple[int, ...],
    theirs: tuple[int, ...],
    known: bool,
    number: int,
) -> None:
    monkeypatch.setattr(label_volumes, "_BLOCK_VOXELS", 50)
    ids = np.array([0, 3, ALLEN, ALLEN + 1, 2**40, 7])
    array = ids[np.random.default_rng(1).integers(0, len(ids), theirs)]
    points = random_points(shape, number)
    spacing = (6.0, 2.0, 1.5)[-len(shape) :] if known else None
    names = {3: "three", ALLEN: "Allen's", 99: "not there"}
    with open_source(save(tmp_path / "a.npy", array)) as source:
        options: dict[str, Any] = {"shape": shape, "spacing": spacing}
        rows = region_counts.count_regions(points, source, names=names, **options)
        nameless = region_counts.count_regions(points, source, **options)
        found = region_counts.inside(points, source, shape=shape)
    at = [label_at(array, point, shape) for point in points]
    assert [row["region"] for row in rows] == [*sorted(set(array.ravel()) - {0}), "outside"]
    if not known:
        measure, per, whole = "volume_voxels", "density_per_voxel", float(np.prod(shape))
    elif len(shape) == 2:
        measure, per, whole = "area_mm2", "density_per_mm2", 30 * 40 * 2.0 * 1.5 / 1e6
    else:
        measure, per, whole = "volume_mm3", "density_per_mm3", 8 * 30 * 40 * 6.0 * 2.0 * 1.5 / 1e9
    for row in rows:
        label = 0 if row["region"] == "outside" else row["region"]
        share = np.count_nonzero(array == label) / array.size
        assert list(row) == ["region", "name", "count", measure, per]
        assert row["count"] == at.count(label)
        assert row[measure] == pytest.approx(share * whole)
        assert row[per] == pytest.approx(at.count(label) / (share * whole))
    assert [row["name"] for row in rows] == ["three", "", "Allen's", "", "", "outside"]
    assert nameless == [{k: v for k, v in row.items() if k != "name"} for row in rows]
    assert sum(row["count"] for row in rows) == number
    assert sum(row[measure] for row in rows) == pytest.approx(whole)
    assert found.dtype == bool and found.tolist() == [label != 0 for label in at]


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.sampled_from([0, 1, 2, ALLEN]), min_size=1, max_size=40))
def test_voxels_of_a_label_are_counted_in_runs_of_any_length(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    shape = (len(values), 1)
    path = save(tmp_path_factory.mktemp("a") / "a.npy", np.reshape(values, shape))
    with open_source(path) as source:
        rows = region_counts.count_regions(np.zeros((0, 2)), source, shape=shape, spacing=None)
    for row in rows:
        label = 0 if row["region"] == "outside" else row["region"]
        assert row["volume_voxels"] == values.count(label)
    assert {row["region"] for row in rows} == {*values, "outside"} - {0}


def test_a_volume_that_is_one_region_has_nothing_outside(tmp_path: Path) -> None:
    with open_source(save(tmp_path / "a.npy", np.full((1, 1), 4))) as source:
        rows = region_counts.count_regions(
            np.zeros((3, 2), np.float32), source, shape=(1, 1), spacing=None, names={}
        )
    nothing = {"region": "outside", "name": "outside", "count": 0, "volume_voxels": 0.0}
    assert rows == [
        {"region": 4, "name": "", "count": 3, "volume_voxels": 1.0, "density_per_voxel": 3.0},
        {**nothing, "density_per_voxel": None},
    ]
    region_counts.write_regions(tmp_path / "new" / "regions.csv", rows)
    assert (tmp_path / "new" / "regions.csv").read_bytes() == (
        b"region,name,count,volume_voxels,density_per_voxel\r\n4,,3,1,3\r\noutside,outside,0,0,\r\n"
    )


def test_a_table_in_words_and_digits(tmp_path: Path) -> None:
    rows = [
        {"region": ALLEN, "name": 'Layer "1", ü', "count": 12345678, "volume_mm3": 1 / 3},
        {"region": "outside", "name": "outside", "count": 0, "volume_mm3": 1e-9},
    ]
    path = tmp_path / "regions.csv"
    region_counts.write_regions(path, rows)
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["region", "name", "count", "volume_mm3"],
            [str(ALLEN), 'Layer "1", ü', "12345678", "0.3333333"],
            ["outside", "outside", "0", "1e-09"],
        ]


def test_points_outside_of_the_image(tmp_path: Path) -> None:
    with open_source(save(tmp_path / "a.npy", np.ones((4, 4), int))) as source:
        far = np.array([[0, 0], [3, 9]], np.float32)
        with pytest.raises(InputError, match=r"1 of 2 points lie outside the image of 8 x 8.*3, 9"):
            region_counts.inside(far, source, shape=(8, 8))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_tiles_that_are_outside_of_a_mask(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Where the answer is no, no point within half a voxel of the tile is inside."""
    shape = tuple(data.draw(st.lists(st.integers(1, 20), min_size=2, max_size=3)))
    # A first axis of one voxel is dropped when a volume is opened.
    theirs = (
        data.draw(st.integers(len(shape) - 1, 12)),
        *(data.draw(st.integers(1, 12)) for _ in shape[1:]),
    )
    mask = np.zeros(theirs, np.uint8)
    for _ in range(data.draw(st.integers(0, 2))):
        mask[tuple(data.draw(st.integers(0, n - 1)) for n in theirs)] = 255
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    tile = tuple(
        slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True)
    )
    # A grid of points over the tile and half a voxel around, borders and corners with them.
    axes = [np.arange(part.start - 1.0, part.stop + 0.26, 0.25) for part in tile]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    points = points[((points >= -0.5) & (points <= np.subtract(shape, 0.5))).all(1)]
    path = save(tmp_path_factory.mktemp("a") / "a.npy", mask)
    with pytest.MonkeyPatch.context() as patch, open_source(path) as source:
        patch.setattr(label_volumes, "_BLOCK_VOXELS", data.draw(st.integers(1, 60)))
        found = region_counts.any_inside(source, tile, shape)
        within = region_counts.inside(points.astype(np.float32), source, shape=shape).any()
    assert found or not within
    # Nor is a tile looked at for nothing, but for one voxel around it.
    rim = [slice(max(p.start - 1, 0), min(p.stop + 1, n)) for p, n in zip(tile, shape, strict=True)]
    covered = tuple(
        slice(int(np.floor(p.start * m / n + 1e-9)), int(np.ceil(p.stop * m / n - 1e-9)))
        for p, m, n in zip(rim, theirs, shape, strict=True)
    )
    assert found == bool(mask[covered].any())


def test_a_mask_is_read_only_where_the_tile_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[40:, 40:] = 1
    np.save(tmp_path / "a.npy", mask)
    with open_source(tmp_path / "a.npy") as source:
        read: list[Any] = []
        once = source.read_labels

        def noted(_: object, region: tuple[slice, ...]) -> np.ndarray:
            read.append(region)
            return once(region)

        monkeypatch.setattr(type(source), "read_labels", noted)
        assert not region_counts.any_inside(source, (slice(0, 370), slice(0, 1000)), (1000, 1000))
        assert region_counts.any_inside(source, (slice(410, 500), slice(410, 500)), (1000, 1000))
    assert read == [(slice(0, 38), slice(0, 100)), (slice(40, 51), slice(40, 51))]
