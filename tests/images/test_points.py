"""Dots in CSV files."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.points import check_points_inside, read_points, table_ndim, write_points


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z,y,x\n1,2,3\n4,5.5,-0.25\n", [[1, 2, 3], [4, 5.5, -0.25]]),
        ("x,y,z\n3,2,1\n", [[1, 2, 3]]),
        ("\ufeffX, Score ,Y,Z\r\n3,0.9, 2 ,1e0\r\n\r\n", [[1, 2, 3]]),
        ("index,axis-0,axis-1,axis-2\n0,1,2,3\n", [[1, 2, 3]]),
        ('name,z,y,x\n"a, b",1,2,3\n,4,5,6\n', [[1, 2, 3], [4, 5, 6]]),
        ("z,y,x\n", np.zeros((0, 3))),
    ],
)
def test_points_in_3d(tmp_path, text, expected):
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8", newline="")
    points = read_points(path, ndim=3)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, np.asarray(expected, np.float32))


@pytest.mark.parametrize("text", ["x,y\n3,2\n", "axis-0,axis-1\n2,3\n", "label,y,x\nq,2,3\n"])
def test_points_in_2d(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text)
    np.testing.assert_array_equal(read_points(path, ndim=2), [[2, 3]])


@pytest.mark.parametrize(
    ("text", "ndim", "message"),
    [
        ("", 2, r"the file is empty \(0 bytes\)"),
        ("\n , \n", 2, r"the file is empty; a header with the columns y,x is needed"),
        ("row,col\n1,2\n", 2, r"found the columns 'row', 'col'; a header with the columns y,x"),
        ("y,x\n1,2\n", 3, r"found the columns 'y', 'x'; a header with the columns z,y,x"),
        ("y;x\n1;2\n", 2, r"found the columns 'y;x'.* separated by commas"),
        ("1.5,2.5\n", 2, r"found the columns '1\.5', '2\.5'"),
        ("z,y,x\n1,2,3\n", 2, r"has points in 3D \(columns z, y, x\), but the image is 2D"),
        ("axis-0,axis-1,axis-2\n1,2,3\n", 2, "has points in 3D"),
        ("axis-0,axis-1,axis-2,axis-3\n1,2,3,4\n", 3, "has points in 4D .* but the image is 3D"),
        ("y,x,X\n1,2,3\n", 2, "a column stands twice in the header y,x,X"),
        ("y,x\n1,2\n3,four\n", 2, "line 3, column x: 'four' is not a finite number"),
        ("y,x\n1,2\n,\n5,\n", 2, "line 4, column x: '' is not"),
        ("y,x\n1,nan\n", 2, "line 2, column x: 'nan' is not"),
        ("y,x\n-inf,1\n", 2, "line 2, column y: '-inf' is not"),
        ("y,x\n1e39,1\n", 2, "line 2, column y: '1e39' is not"),
        ("y,x\n1_0,1\n", 2, "line 2, column y: '1_0' is not"),
        ("y,x\n1\n", 2, "line 2 has 1 values, the header has 2 columns"),
        ("y,x\n1,5,2,5\n", 2, "line 2 has 4 values, the header has 2 columns"),
    ],
)
def test_points_that_cannot_be_used(tmp_path, text, ndim, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"points\.csv: .*{message}"):
        read_points(path, ndim=ndim)


def test_points_that_are_no_text(tmp_path):
    path = tmp_path / "points.csv"
    path.write_bytes(b"y,x\n\xff\xfe,1\n")
    with pytest.raises(InputError, match=r"points\.csv: is not a CSV text file"):
        read_points(path, ndim=2)
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_points(tmp_path / "none.csv", ndim=2)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("count", [0, 1, 57])
def test_points_come_back(tmp_path, ndim, count):
    points = np.random.default_rng(5).uniform(-0.5, 3000, (count, ndim)).astype(np.float32)
    path = tmp_path / "new" / "folder" / "points.csv"
    write_points(path, points, scores=np.linspace(0, 1e-3, count))
    np.testing.assert_allclose(read_points(path, ndim=ndim), points, atol=6e-4)
    assert list(path.parent.iterdir()) == [path]


def test_what_a_points_file_looks_like(tmp_path):
    path = tmp_path / "points.csv"
    points = np.array([[1, 2.34567], [-0.0001, 1e5]])
    write_points(path, points, scores=np.array([0.5, 1 / 3]))
    assert path.read_text() == "y,x,score\n1.000,2.346,0.5\n0.000,100000.000,0.333333\n"
    write_points(path, np.zeros((0, 3)))
    assert path.read_text() == "z,y,x\n"


@pytest.mark.parametrize(
    ("points", "scores"),
    [
        (np.zeros((2, 4)), None),
        (np.zeros(3), None),
        (np.array([[0, np.nan]]), None),
        (np.zeros((2, 2)), np.zeros(3)),
        (np.zeros((1, 2)), np.array([np.inf])),
    ],
)
def test_points_that_are_not_written_leave_the_old_file(tmp_path, points, scores):
    path = tmp_path / "points.csv"
    path.write_text("old")
    with pytest.raises(InputError, match=r"points\.csv"):
        write_points(path, points, scores=scores)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_points_inside_are_those_that_round_into_the_image():
    shape = (4, 6)
    edge = np.array([[-0.5, 5.4999], [3.4999, -0.5]], np.float32)
    check_points_inside(edge, shape, "dots.csv")
    check_points_inside(np.zeros((0, 2)), shape, "dots.csv")
    for outside in ([3.5, 0], [0, 5.5], [-0.51, 0], [300, 0]):
        points = np.array([[1, 1], outside, [9, 9]], np.float32)
        message = rf"dots\.csv: 2 of 3 points .* 4 x 6, the first at \(y,x\) = \({outside[0]:g}, "
        with pytest.raises(InputError, match=message):
            check_points_inside(points, shape, "dots.csv")


@pytest.mark.parametrize(
    ("header", "ndim"),
    [("y,x", 2), (" X , Y,score", 2), ("z,y,x", 3), ("id,x,y,Z", 3), ("index,axis-0,axis-1", 2)]
    + [("index,axis-0,axis-1,axis-2", 3), ("z_um,y,x", 2)],
)
def test_the_header_tells_the_dimensions(tmp_path, header, ndim):
    (tmp_path / "points.csv").write_text(f"\n{header}\n")
    assert table_ndim(tmp_path / "points.csv") == ndim
