from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from cellcount_jax.errors import InputError
from cellcount_jax.images import axes
from cellcount_jax.images.inputs import find_inputs
from cellcount_jax.images.regions import all_of
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source


def random(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def read(path, selection):
    with open_source(path, selection) as source:
        return source.read(all_of(source.shape)), source.spacing


@pytest.mark.parametrize("wrong", ["TYX", "CYX"])
def test_a_stack_saved_as_time_points_or_channels(tmp_path, wrong):
    volume = random((5, 8, 9))
    path = tmp_path / "a.tif"
    metadata = {"axes": wrong, "unit": "um", "spacing": 6.0}
    tifffile.imwrite(path, volume, imagej=True, resolution=(1 / 1.62,) * 2, metadata=metadata)
    pixels, spacing = read(path, Selection(axes="ZYX"))
    np.testing.assert_array_equal(pixels[..., 0], volume)
    assert spacing == (6.0, 1.62, 1.62)
    if wrong == "TYX":
        with pytest.raises(InputError, match="5 time points.*--axes ZYX if its time points are pl"):
            open_source(path)


def test_four_planes_that_were_taken_for_rgba(tmp_path):
    volume = random((4, 8, 9))
    # As tifffile stores four planes by itself.
    rgb: Any = {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", volume, **rgb)
    with open_source(tmp_path / "a.tif") as source:
        assert (source.axes, source.channels) == ("SYX", 3)
    np.testing.assert_array_equal(
        read(tmp_path / "a.tif", Selection(axes="ZYX"))[0][..., 0], volume
    )


def test_four_channels_that_were_taken_for_rgba(tmp_path):
    image = random((8, 9, 4))
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(InputError, match=r"partly transparent; .* or give --axes YXC if") as error:
        read(tmp_path / "a.tif", Selection(channel="0"))
    assert str(error.value).count("a.tif") == 1
    chosen = Selection(channel="3", axes="YXC")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", chosen)[0][..., 0], image[..., 3])


@pytest.mark.parametrize("names", [*map("".join, itertools.permutations("CZYX"))])
def test_every_order_of_four_axes(tmp_path, names):
    array = random((2, 3, 4, 5))
    np.save(tmp_path / "a.npy", array)
    expected = array.transpose([names.index(axis) for axis in "ZYXC"])
    np.testing.assert_array_equal(read(tmp_path / "a.npy", Selection(axes=names))[0], expected)


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_an_array_of_four_axes_says_what_to_give(tmp_path, kind):
    array, path = random((2, 6, 8, 9)), tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, array)
    else:
        zarr.create_array(path, data=array, zarr_format=2)
    with pytest.raises(InputError, match=r"4 axes \(2 x 6 x 8 x 9\).*for example --axes CZYX"):
        open_source(path)
    np.testing.assert_array_equal(read(path, Selection(axes="CZYX"))[0], np.moveaxis(array, 0, -1))


def test_voxel_edges_stay_with_the_places_of_their_axes(tmp_path):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 6.0}
    tifffile.imwrite(path, random((5, 8, 9)), imagej=True, resolution=(1, 0.5), metadata=metadata)
    assert read(path, Selection())[1] == (6.0, 2.0, 1.0)
    assert read(path, Selection(axes="YXZ"))[1] == (6.0, 2.0, 1.0)[2:] + (6.0, 2.0)
    assert read(path, Selection(axes="CYX"))[1] == (2.0, 1.0)
    assert read(path, Selection(axes="CYX", spacing=(3.0, 4.0)))[1] == (3.0, 4.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ZYQ", "Q not known; give letters of T, C, Z, Y and X"),
        ("ZZYX", "a letter stands twice"),
        ("ZCX", "Y and X are needed"),
        ("", "Y and X are needed"),
        ("YX", "are 2, and the file has 3 .Z of 5, Y of 8, X of 9.; give a letter for each"),
        ("TCZYX", "are 5, and the file has 3"),
    ],
)
def test_axes_that_do_not_fit(tmp_path, names, message):
    np.save(tmp_path / "a.npy", random((5, 8, 9)))
    with pytest.raises(InputError, match=message) as error:
        open_source(tmp_path / "a.npy", Selection(axes=names))
    assert "a.npy: axes " in str(error.value)


@pytest.mark.parametrize(
    ("names", "shape", "ndim", "told"),
    [
        ("TYX", (24, 8, 9), 3, "--axes ZYX if its time points are planes"),
        ("SYX", (4, 8, 9), 3, "--axes ZYX if its channels are planes"),
        ("YXS", (8, 9, 3), 3, "--axes YXZ if its channels are planes"),
        ("TCZYX", (24, 1, 1, 8, 9), 3, "--axes ZCTYX if its time points are planes"),
        ("QYX", (24, 8, 9), 2, "--axes TYX if its planes are time points, --axes CYX if its planes"
         " are channels"),
        ("CZYX", (2, 24, 8, 9), 2, "--axes CTYX if its planes are time points"),
        ("TCYX", (24, 2, 8, 9), 3, "--axes ZCYX if its time points are planes, --axes TZYX if its"
         " channels are planes"),
        ("YX", (8, 9), 3, ""),
        ("TZYX", (2, 24, 8, 9), 3, ""),
    ],
)  # fmt: skip
def test_what_is_proposed(names, shape, ndim, told):
    assert axes.remedy(names, shape, ndim=ndim) == told


@given(st.lists(st.sampled_from("TCZYXSQIRA?"), max_size=7), st.data())
def test_what_is_proposed_can_be_given(names, data):
    names = "".join(names)
    shape = data.draw(st.tuples(*[st.integers(1, 9) for _ in names]))
    told = [axes.example(names, shape), *(axes.remedy(names, shape, ndim=n) for n in (2, 3))]
    for text in told:
        for word in text.split("--axes ")[1:]:
            given_axes = word.split()[0]
            assert len(given_axes) == len(shape)
            assert len(set(given_axes)) == len(given_axes) and set(given_axes) <= set("TCZYX")


def test_a_folder_of_stacks_saved_as_time_points(tmp_path):
    for name in "ab":
        volume = random((5, 8, 9))
        tifffile.imwrite(tmp_path / f"{name}.tif", volume, imagej=True, metadata={"axes": "TYX"})
    found = find_inputs([tmp_path], ndim=3, axes="ZYX")
    assert [(item.name, item.as_slices) for item in found] == [("a", False), ("b", False)]


def test_axes_of_a_folder_of_slices(tmp_path):
    for number in range(3):
        tifffile.imwrite(tmp_path / f"{number}.tif", random((8, 9)))
    (item,) = find_inputs([tmp_path], ndim=3, axes="TYX")
    assert item.as_slices
    chosen = Selection(axes="TYX", time=2)
    with open_source(tmp_path, chosen, as_slices=True) as source:
        assert source.shape == (8, 9)
