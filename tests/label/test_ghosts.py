"""What is seen in a plane: its dots, those of nearby planes, and the image's own pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcount_jax.errors import InputError
from cellcount_jax.images import exports
from cellcount_jax.images.exports import read_cellfinder
from cellcount_jax.images.image_files import write_image
from cellcount_jax.label.scene import Pixels, contrast_limits, in_plane, near_plane
from cellcount_jax.label.session import Session

_POINTS = st.lists(st.tuples(*[st.floats(-0.4, 9.4)] * 3), max_size=20)


@given(_POINTS, st.integers(0, 2), st.integers(0, 9), st.integers(0, 4))
def test_every_dot_near_a_plane_is_in_it_or_a_ghost(
    points: list[tuple[float, ...]], axis: int, index: int, reach: int
) -> None:
    dots = np.array(points).reshape(-1, 3)
    inside = in_plane(dots, axis=axis, index=index).tolist()
    ghosts = near_plane(dots, axis=axis, index=index, reach=reach)
    for row, point in enumerate(points):
        apart = int(np.floor(point[axis] + 0.5)) - index
        assert (row in inside) == (apart == 0)
        assert (row in ghosts.rows) == (0 < abs(apart) <= reach)
    assert (ghosts.points[:, axis] == index).all()
    others = [a for a in range(3) if a != axis]
    assert np.array_equal(ghosts.points[:, others], dots[ghosts.rows][:, others])
    assert np.array_equal(ghosts.after, np.floor(dots[ghosts.rows, axis] + 0.5) > index)
    # Further ones are fainter and drawn first.
    assert (np.diff(ghosts.nearness) >= 0).all()
    assert ((ghosts.nearness > 0) & (ghosts.nearness < 1)).all()


def test_pixels_are_those_of_the_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 999, (5, 7, 9, 2)).astype(np.uint16)
    write_image(tmp_path / "a.tif", pixels, spacing=(2.0, 1.0, 1.0))
    mean = pixels.astype(np.float32).mean(-1)
    with Session(tmp_path / "a.tif") as session:
        lazy = Pixels(session)
        assert lazy.shape == (5, 7, 9) and lazy.ndim == 3 and lazy.size == mean.size
        for key in (
            (2,),
            (slice(None), 3),
            (-1, slice(1, 4), slice(None, None, 2)),
            (slice(1, 3), slice(None), np.int64(4)),
            slice(0, 2),
        ):
            assert np.array_equal(lazy[key], mean[key])
        assert np.array_equal(np.asarray(lazy), mean)
        low, high = contrast_limits(session)
        assert mean[2].min() <= low < high <= mean[2].max()


def test_contrast_of_a_constant_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((9, 9), 7, np.uint8))
    with Session(tmp_path / "a.png") as session:
        assert contrast_limits(session) == (7, 8)


@pytest.mark.parametrize("ndim", [2, 3])
def test_cellfinder_and_back(tmp_path: Path, ndim: int) -> None:
    points = np.random.default_rng(0).integers(0, 99, (12, ndim)).astype(np.float32)
    exports.write_cellfinder(tmp_path / "a.xml", points)
    assert np.array_equal(read_cellfinder(tmp_path / "a.xml", ndim=ndim), points)
    exports.write_cellfinder(tmp_path / "b.xml", points[:0])
    assert read_cellfinder(tmp_path / "b.xml", ndim=ndim).shape == (0, ndim)


def _xml(*groups: tuple[str, str]) -> str:
    kinds = "".join(
        f"<Marker_Type><Type>{kind}</Type><Marker><MarkerX>{x}</MarkerX><MarkerY>2</MarkerY>"
        "<MarkerZ>3</MarkerZ></Marker></Marker_Type>"
        for kind, x in groups
    )
    return f"<CellCounter_Marker_File><Marker_Data>{kinds}</Marker_Data></CellCounter_Marker_File>"


def test_what_cellfinder_calls_no_cell_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(_xml(("1", "5"), ("2", "6")))
    assert read_cellfinder(path, ndim=3).tolist() == [[3, 2, 6]]
    path.write_text(_xml(("1", "5"), ("3", "7")))  # of ImageJ's counter
    assert read_cellfinder(path, ndim=3).tolist() == [[3, 2, 5], [3, 2, 7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<a", "is not XML"),
        ("<a/>", "begins with <a>"),
        (_xml(("2", "many")), "no number for one"),
        (_xml(("2", "nan")), "NaN or infinite"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "has a DOCTYPE"),
        ("", "empty"),
    ],
)
def test_other_xml_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_cellfinder(path, ndim=3)
    assert "a.xml" in str(error.value)
