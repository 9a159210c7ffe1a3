"""Dots in micrometres: converted where that is said, refused where it may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellcount_jax.errors import InputError
from cellcount_jax.images import exports
from cellcount_jax.images.image_points import read_image_points
from cellcount_jax.images.point_units import DotUnit
from cellcount_jax.images.points import read_points, table_ndim

TYPED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def table(folder: Path, header: str, rows: np.ndarray) -> Path:
    lines = [",".join(f"{value:.6f}" for value in row) for row in rows]
    path = folder / "points.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


# Headers with the order of y and x in them, and further columns of 1.
IN_MICROMETRES = [
    ("y_um,x_um", "yx"),
    ("X (µm),Y (µm)", "xy"),
    ("x [micron],y [microns]", "xy"),
    ("axis-0 (um),axis-1 (um)", "yx"),
    ("Y_MICROMETERS,X_MICROMETERS", "yx"),
    ("x,y,diameter_um", "xy1"),
    ("y,x,Area (μm^2)", "yx1"),
    ("X,Y,Area", "xy1"),
    ("Mean,X,Y", "1xy"),
    ("Position,y,x,Unit", "1yx1"),
]


@pytest.mark.parametrize(("header", "order"), IN_MICROMETRES)
def test_a_table_that_may_be_in_micrometres_is_refused_or_converted(tmp_path, header, order):
    points = np.array([[1.5, 2], [7, 30]])
    columns = {"y": points[:, 0] * 0.5, "x": points[:, 1] * 0.25, "1": np.ones(2)}
    path = table(tmp_path, header, np.stack([columns[name] for name in order], axis=1))
    with pytest.raises(InputError, match="may be micrometres.* --points-unit um if .* px") as error:
        read_points(path, ndim=2)
    assert "points.csv: " in str(error.value)
    found = read_points(path, ndim=2, unit="um", spacing=(0.5, 0.25))
    np.testing.assert_allclose(found, points, atol=1e-5)
    if {"x", "y"} <= set(header.lower().split(",")):
        same = read_points(path, ndim=2, unit="px")
        np.testing.assert_allclose(same, points * (0.5, 0.25), atol=1e-5)
    else:
        with pytest.raises(InputError, match="a header with the columns y,x is needed"):
            read_points(path, ndim=2, unit="px")
    with pytest.raises(InputError, match="voxel size of its image is not known.*--spacing"):
        read_points(path, ndim=2, unit="um")


@pytest.mark.parametrize(
    "header", ["y,x", "x,y,score", "index,axis-0,axis-1", "y,x,sum", "y,x,volume", "y,x,mean_gfp"]
)
def test_other_headers_are_of_voxels(tmp_path, header):
    path = table(tmp_path, header, np.ones((2, header.count(",") + 1)))
    assert (read_points(path, ndim=2) == 1).all()


@pytest.mark.parametrize("unit", [None, "px", "um"])
def test_the_points_of_a_count_are_known_in_both_units(tmp_path, unit):
    points, spacing = np.array([[1, 2, 3], [4, 5, 6.5]]), (6.0, 1.62, 1.62)
    exports.write_csv(tmp_path / "points.csv", points, np.ones(2), spacing=spacing)
    found = read_points(tmp_path / "points.csv", ndim=3, unit=unit, spacing=spacing)
    np.testing.assert_allclose(found, points, rtol=1e-6)


@TYPED
@given(
    st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=9),
    st.tuples(*[st.floats(0.01, 20)] * 3),
)
def test_conversion_is_division_by_the_voxel_size(tmp_path, shares, spacing):
    shape = (9, 40, 50)
    points = np.array(shares) * (np.array(shape) - 1)
    path = table(tmp_path, "z,y,x", points * spacing)
    found = read_image_points(path, shape=shape, spacing=spacing, known=DotUnit("um"))
    np.testing.assert_allclose(found, points, atol=1e-3)
    other = DotUnit("um", spacing)  # in place of the image's
    found = read_image_points(path, shape=shape, spacing=(3.0, 4.0, 5.0), known=other)
    np.testing.assert_allclose(found, points, atol=1e-3)


def spread(count: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, np.array(shape) - 1, (count, len(shape)))


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((200, 300), (0.3, 0.3)), ((200, 300), (0.65, 0.65)), ((9, 90, 90), (2.0, 0.2, 0.2))],
)
def test_micrometres_that_lie_in_a_corner_are_refused(tmp_path, shape, spacing):
    points = spread(50, shape)
    points[:, 0] = points[:, 0].clip(0, shape[0] / max(spacing[0], 1) - 1)
    header = ",".join("zyx"[-len(shape) :])
    path = table(tmp_path, header, points * spacing)
    with pytest.raises(InputError, match="50 points may be micrometres: the image is of .* voxels"):
        read_image_points(path, shape=shape, spacing=spacing)
    for known in (DotUnit("px"), DotUnit(everywhere=False)):
        found = read_image_points(path, shape=shape, spacing=spacing, known=known)
        np.testing.assert_allclose(found, points * spacing, atol=1e-4)
    found = read_image_points(path, shape=shape, spacing=spacing, known=DotUnit("um"))
    np.testing.assert_allclose(found, points, atol=1e-3)
    # In voxels, and without a voxel size, nothing is to be doubted.
    read_image_points(table(tmp_path, header, points), shape=shape, spacing=spacing)
    read_image_points(table(tmp_path, header, points * spacing), shape=shape, spacing=None)


@pytest.mark.parametrize("seed", range(200))
def test_dots_over_the_image_are_never_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    shape, spacing = (100, 120), tuple(rng.uniform(0.1, 2, 2))
    points = rng.uniform(0, np.array(shape) - 1, (rng.integers(1, 30), 2))
    read_image_points(table(tmp_path, "y,x", points), shape=shape, spacing=spacing)


def test_a_mask_says_where_dots_are_expected(tmp_path):
    shape, spacing = (200, 200), (0.5, 0.5)
    path = table(tmp_path, "y,x", spread(40, (90, 90)))
    valid = np.zeros(shape, bool)
    valid[:90, :90] = True
    read_image_points(path, shape=shape, spacing=spacing, valid=valid)
    with pytest.raises(InputError, match="may be micrometres"):
        read_image_points(path, shape=shape, spacing=spacing, valid=~valid)


def test_points_outside_of_which_micrometres_would_be_inside(tmp_path):
    path = table(tmp_path, "z,y,x", np.array([[6, 8, 8], [48, 40, 64.8]]))
    shape, spacing = (24, 96, 96), (6.0, 1.62, 1.62)
    remedy = "as micrometres all lie inside .voxels of 6 x 1.62 x 1.62 um.: give --points-unit um"
    with pytest.raises(InputError, match=remedy):
        read_image_points(path, shape=shape, spacing=spacing)
    with pytest.raises(InputError, match="counted from 0[.]"):
        read_image_points(path, shape=shape, spacing=None)


def test_columns_of_two_units_are_refused(tmp_path):
    path = table(tmp_path, "z,y_um,x_um", np.ones((1, 3)))
    with pytest.raises(InputError, match="some of the columns z,y_um,x_um say um and some do not"):
        read_points(path, ndim=3, unit="um", spacing=(1, 1, 1))


@pytest.mark.parametrize(("header", "ndim"), [("z_um,y_um,x_um", 3), ("Y (um),X (um)", 2)])
def test_the_dimensions_of_a_table_in_micrometres(tmp_path, header, ndim):
    assert table_ndim(table(tmp_path, header, np.ones((1, ndim)))) == ndim
