"""The density of cells: whole in sum, right in place, over the part of a bin that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_jax.counting.density import density_map, write_density
from cellcount_jax.errors import InputError
from cellcount_jax.images.sources import open_source

Points = Callable[..., np.ndarray]


def voxel_counts(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The oracle: how many points each voxel of the image holds."""
    counts = np.zeros(shape, int)
    for point in points.astype(float):
        counts[
            tuple(min(int(np.floor(v + 0.5)), n - 1) for v, n in zip(point, shape, strict=True))
        ] += 1
    return counts


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple),
    spacing=st.one_of(st.none(), st.lists(st.floats(0.5, 60), min_size=3, max_size=3)),
    number=st.integers(0, 30),
)
def test_every_bin_is_its_count_over_its_own_volume(
    random_points: Points, shape: tuple[int, ...], spacing: list[float] | None, number: int
) -> None:
    edges = None if spacing is None else spacing[: len(shape)]
    points = random_points(shape, number)
    found = density_map(points, shape=shape, spacing=edges, bin_um=100, bin_voxels=3)
    counts = voxel_counts(points, shape)
    assert found.values.dtype == np.float32
    total = 0.0
    for index in np.ndindex(found.values.shape):
        part = tuple(
            slice(max(i * b - b // 2, 0), (i + 1) * b - b // 2)
            for i, b in zip(index, found.block, strict=True)
        )
        voxels = counts[part]
        assert voxels.size > 0
        volume = voxels.size * (1 if edges is None else float(np.prod(np.array(edges) / 1000)))
        assert found.values[index] == pytest.approx(voxels.sum() / volume, rel=1e-6)
        total += float(found.values[index]) * volume
    assert total == pytest.approx(number, rel=1e-6)
    # Bins are as near to the wanted edge as whole voxels allow.
    for b, v in zip(found.block, edges or (1,) * len(shape), strict=True):
        wanted = (3 if edges is None else 100) / v
        assert abs(b - wanted) <= 0.5 or (b == 1 and wanted < 1)


def test_units() -> None:
    points = np.array([[10.0, 10.0]], np.float32)
    known = density_map(points, shape=(100, 100), spacing=(10.0, 10.0), bin_um=2000)
    assert known.unit == "mm2" and known.values.tolist() == [[pytest.approx(1.0)]]
    unknown = density_map(points, shape=(64, 64), spacing=None)
    assert unknown.unit == "voxel" and unknown.block == (32, 32)
    assert unknown.values.tolist() == [[1 / 256, 0, 0], [0, 0, 0], [0, 0, 0]]
    volume = density_map(np.ones((2, 3), np.float32), shape=(10, 10, 10), spacing=(100.0,) * 3)
    assert volume.unit == "mm3" and volume.values[1, 1, 1] == pytest.approx(2000)


@pytest.mark.parametrize("shape", [(61, 47), (21, 47, 61), (1, 1), (2, 1, 1)])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("number", [0, 1, 500])
def test_the_file_lies_over_the_image(
    tmp_path: Path, random_points: Points, shape: tuple[int, ...], known: bool, number: int
) -> None:
    ndim = len(shape)
    spacing = (6.0, 1.62, 1.5)[-ndim:] if known else None
    path = tmp_path / "new" / "density.zarr"
    points = random_points(shape, number)
    write_density(path, points, shape=shape, spacing=spacing, bin_um=24, bin_voxels=7)
    expected = density_map(points, shape=shape, spacing=spacing, bin_um=24, bin_voxels=7)
    attributes = json.loads((path / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    assert multiscale["version"] == "0.4"
    units = ["micrometer" if known else None] * ndim
    assert [axis.get("unit") for axis in multiscale["axes"]] == units
    assert "".join(axis["name"] for axis in multiscale["axes"]) == "zyx"[-ndim:]
    (dataset,) = multiscale["datasets"]
    scale, translation = dataset["coordinateTransformations"]
    assert (scale["type"], translation["type"]) == ("scale", "translation")
    # The place of every bin's centre is the mean of its voxels' centres; the first and the last
    # bin of an axis go on beyond the image.
    for axis, edge in enumerate(spacing or (1.0,) * ndim):
        for index in range(expected.values.shape[axis]):
            block = expected.block[axis]
            voxels = np.arange(index * block, (index + 1) * block) - block // 2
            place = index * scale["scale"][axis] + translation["translation"][axis]
            assert place == pytest.approx(edge * voxels.mean())
        # A reader that leaves the translation out is not far off.
        assert abs(translation["translation"][axis]) <= edge / 2
    if min(expected.values.shape) > 1:
        with open_source(path) as source:
            assert source.kind == "OME-Zarr 0.4" and source.dtype == np.float32
            edges = tuple(pytest.approx(s, rel=1e-5) for s in scale["scale"])
            assert source.spacing == (edges if known else None)
            values = source.read(tuple(slice(0, n) for n in source.shape))[..., 0]
        np.testing.assert_array_equal(values, expected.values)


def test_an_older_file_is_replaced_and_another_folder_is_not(
    tmp_path: Path, random_points: Points
) -> None:
    path = tmp_path / "density.zarr"
    points = random_points((300, 300), 100)
    write_density(path, points, shape=(300, 300), spacing=None, bin_voxels=1)
    write_density(path, points, shape=(300, 300), spacing=None)
    with open_source(path) as source:
        assert source.shape == (10, 10) and source.levels == 1
    assert [p.name for p in tmp_path.iterdir()] == ["density.zarr"]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    with pytest.raises(InputError, match=r"mine: is a folder of something else than Zarr"):
        write_density(other, points, shape=(300, 300), spacing=None)
    assert (other / "thesis.txt").exists()


def test_a_grid_of_several_chunks(tmp_path: Path, random_points: Points) -> None:
    points = random_points((70, 66, 3), 300)
    write_density(tmp_path / "a.zarr", points, shape=(70, 66, 3), spacing=None, bin_voxels=1)
    with open_source(tmp_path / "a.zarr") as source:
        assert source.chunks == (64, 64, 3)
        values = source.read((slice(0, 70), slice(0, 66), slice(0, 3)))[..., 0]
    np.testing.assert_array_equal(values, voxel_counts(points, (70, 66, 3)))


def test_the_border_and_beyond() -> None:
    inside = np.array([[-0.5, -1.4], [9.5, 3.0], [9.49, 10.4]], np.float32)
    found = density_map(inside, shape=(10, 10), spacing=None, bin_voxels=9)
    assert (found.values * 25).tolist() == [[1, 0], [1, 1]]
    for wrong in ([[-1.6, 0]], [[0, 11]], [[np.nan, 1]], [[0, 0, 0]]):
        with pytest.raises(InputError, match="points"):
            density_map(np.array(wrong, np.float32), shape=(10, 10), spacing=None)


def test_edges_that_cannot_be() -> None:
    nothing = np.zeros((0, 2), np.float32)
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"bin_um is"):
            density_map(nothing, shape=(10, 10), spacing=(1.0, 1.0), bin_um=wrong)
    with pytest.raises(InputError, match=r"bin_voxels is 1, which makes 20000 x 20000 bins"):
        density_map(nothing, shape=(20000, 20000), spacing=None, bin_voxels=1)
