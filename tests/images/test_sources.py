"""Images of any size region by region, against arrays that the libraries themselves wrote."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as PillowImage

from cellcount_jax.errors import InputError
from cellcount_jax.images import tiff as tiff_source
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.inputs import find_inputs
from cellcount_jax.images.openers import short_name
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import Source, open_source

REGION_2D = (slice(3, 11), slice(5, 6))
REGION_3D = (slice(1, 4), slice(3, 11), slice(5, 18))


def random(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def channels_last(array: np.ndarray, axes: str) -> np.ndarray:
    """The oracle: (z,) y, x, channel of an array without a time axis."""
    order = [axes.index(axis) for axis in "ZYXCS" if axis in axes]
    array = array.transpose(order)
    return array if {*axes} & {*"CS"} else array[..., None]


def check(source: Source, expected: np.ndarray) -> None:
    """Compares the whole, every voxel's neighbourhood at a corner and a region inside."""
    assert (source.shape, source.channels) == (expected.shape[:-1], expected.shape[-1])
    everything = tuple(slice(None) for _ in source.shape)
    corner = tuple(slice(size - 1, size) for size in source.shape)
    inside = REGION_2D if len(source.shape) == 2 else REGION_3D
    for region in (everything, corner, inside):
        pixels = source.read(region)
        assert pixels.dtype == np.float32 and pixels.flags["C_CONTIGUOUS"]
        assert pixels.flags["OWNDATA"] and pixels.flags["WRITEABLE"]
        np.testing.assert_array_equal(pixels, expected[region].astype(np.float32))


def assert_names_it(error: pytest.ExceptionInfo[InputError], path: Path) -> None:
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert "Traceback" not in message and message.endswith(".")


# --- TIFF


@pytest.mark.parametrize(
    ("options", "kind", "axes"),
    [
        ({"imagej": True, "metadata": {"axes": "ZYX"}}, "ImageJ TIFF", "ZYX"),
        (
            {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
            "ImageJ TIFF",
            "ZYX",
        ),
        ({"ome": True, "metadata": {"axes": "ZYX"}}, "OME-TIFF", "ZYX"),
        ({"ome": True, "metadata": {"axes": "ZYX"}, "tile": (16, 16)}, "OME-TIFF", "ZYX"),
        ({}, "TIFF", "QYX"),
        ({"metadata": None}, "TIFF", "IYX"),
        ({"metadata": None, "compression": "zlib", "rowsperstrip": 3}, "TIFF", "IYX"),
        ({"metadata": None, "compression": "zlib", "tile": (16, 16)}, "TIFF", "IYX"),
        ({"metadata": None, "compression": "zlib", "predictor": True}, "TIFF", "IYX"),
        ({"metadata": None, "byteorder": ">", "bigtiff": True}, "BigTIFF", "IYX"),
        ({"metadata": None, "byteorder": ">", "compression": "zlib"}, "TIFF", "IYX"),
    ],
)
@pytest.mark.parametrize("whole_page", [0, 2**26])
def test_volumes_of_every_kind_of_tiff(tmp_path, monkeypatch, options, kind, axes, whole_page):
    monkeypatch.setattr(tiff_source, "_WHOLE_PAGE_BYTES", whole_page)
    volume = random((5, 16, 20))
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, volume, **options)
    with open_source(path) as source:
        assert (source.kind, source.axes, source.name) == (kind, axes, "volume")
        assert (source.stored_shape, source.dtype) == (volume.shape, np.dtype("uint16"))
        mapped = "compression" not in options and "tile" not in options
        assert (source.chunks is None) == mapped
        check(source, volume[..., None])


@pytest.mark.parametrize("kind", ["imagej", "ome", "ome zlib"])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("YX", (12, 7)),
        ("CYX", (3, 12, 7)),
        ("ZYX", (4, 12, 19)),
        ("ZCYX", (4, 3, 12, 19)),
        ("CZYX", (2, 4, 12, 19)),
        ("YXS", (12, 7, 3)),
        ("ZYXS", (4, 12, 19, 3)),
    ],
)
def test_axes_of_microscope_files(tmp_path, kind, axes, shape):
    if kind == "imagej" and axes == "CZYX":
        kind = "ome"  # ImageJ stores ZCYX only
    array = random(shape, "uint8" if "S" in axes else "uint16")
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        array,
        photometric="rgb" if "S" in axes else "minisblack",
        metadata={"axes": axes},
        imagej=kind == "imagej",
        ome=kind != "imagej",
        compression="zlib" if "zlib" in kind else None,
    )
    expected = channels_last(array, axes)
    with open_source(path) as source:
        check(source, expected)
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    for channel in range(expected.shape[-1]):
        with open_source(path, Selection(channel=channel)) as source:
            check(source, expected[..., channel : channel + 1])


def test_pages_with_something_between_them_are_mapped(tmp_path):
    array = random((4, 2, 16, 20))
    path = tmp_path / "image.ome.tif"
    # Written one by one with metadata between them, and joined by their OME text.
    description = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="20" SizeY="16"'
        ' SizeC="2" SizeZ="4" SizeT="1"><Channel ID="Channel:0:0" Name="DAPI"/>'
        '<Channel ID="Channel:0:1" Name="GFP"/><TiffData/></Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(array.reshape(8, 16, 20)):
            text = description if number == 0 else "x" * (100 * number)
            writer.write(page, description=text, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].dataoffset is None  # or this would test nothing
    with open_source(path) as source:
        assert source.kind == "OME-TIFF" and source.chunks is None
        assert source.channel_names == ("DAPI", "GFP")
        check(source, np.moveaxis(array, 1, -1))
    with open_source(path, Selection(channel="GFP")) as source:
        check(source, array[:, 1][..., None])


def test_a_later_page_whose_strips_are_in_another_order(tmp_path):
    volume = random((4, 16, 20))
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, volume, ome=True, metadata={"axes": "ZYX"}, rowsperstrip=8)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page: Any = tiff.pages[2]
        page.aspage().tags["StripOffsets"].overwrite(page.dataoffsets[::-1])
    volume[2] = np.roll(volume[2], 8, axis=0)
    with open_source(path) as source:
        check(source, volume[..., None])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "float16", "float64"])
def test_types_of_pixels(tmp_path, dtype):
    array = (random((12, 11)) % 2).astype(dtype)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    with open_source(path) as source:
        check(source, array[..., None])


def test_a_small_region_does_not_hold_the_file(tmp_path):
    volume = random((40, 256, 256))
    size = volume.nbytes
    paths: dict[str, dict[str, Any]] = {
        "a.tif": {},
        "b.tif": {"compression": "zlib"},
        "c.tif": {"tile": (64, 64)},
    }
    for name, options in paths.items():
        tifffile.imwrite(tmp_path / name, volume, metadata=None, **options)
    np.save(tmp_path / "d.npy", volume)
    zarr.create_array(tmp_path / "e.zarr", data=volume, chunks=(4, 64, 64))
    region = (slice(7, 9), slice(100, 110), slice(30, 60))
    for name in (*paths, "d.npy", "e.zarr"):
        tracemalloc.start()
        with open_source(tmp_path / name) as source:
            pixels = source.read(region)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(pixels[..., 0], volume[region])
        assert peak < size / 3, name


def test_time_points_are_chosen(tmp_path):
    array = random((3, 5, 12, 18))
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match=r"3 time points; choose one with --time \(0 to 2\)") as e:
        open_source(path)
    assert_names_it(e, path)
    for wrong in (3, -1):
        with pytest.raises(InputError, match=rf"time point {wrong} is not there.*0 to 2"):
            open_source(path, Selection(time=wrong))
    for time in range(3):
        with open_source(path, Selection(time=time)) as source:
            assert source.axes == "TZYX"
            check(source, array[time][..., None])
    tifffile.imwrite(path, array[0])
    with open_source(path, Selection(time=0)) as source:
        check(source, array[0][..., None])
    with pytest.raises(InputError, match=r"it has 1, so 0 alone can be chosen"):
        open_source(path, Selection(time=1))


def test_channels_that_are_not_there(tmp_path):
    path = tmp_path / "image.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "GFP"]}}
    tifffile.imwrite(path, random((3, 12, 9)), photometric="minisblack", metadata=metadata)
    for wrong in (3, -1, "Cy5", "3"):
        with pytest.raises(InputError, match=r"3 channel\(s\): 0 \(DAPI\), 1 \(GFP\), 2") as error:
            open_source(path, Selection(channel=wrong))
        assert_names_it(error, path)
    with pytest.raises(InputError, match="several of this name"):
        open_source(path, Selection(channel="GFP"))
    by_text, by_number = (open_source(path, Selection(channel=number)) for number in ("2", 2))
    with by_text, by_number:
        assert by_text.channel_names == ("GFP",)
        everything = (slice(None), slice(None))
        np.testing.assert_array_equal(by_text.read(everything), by_number.read(everything))


def test_a_name_of_digits_comes_before_the_number(tmp_path):
    path = tmp_path / "image.ome.tif"
    array = random((2, 12, 9))
    metadata = {"axes": "CYX", "Channel": {"Name": ["1", "0"]}}
    tifffile.imwrite(path, array, photometric="minisblack", metadata=metadata)
    with open_source(path, Selection(channel="1")) as source:
        check(source, array[0][..., None])
    with open_source(path, Selection(channel=1)) as source:
        check(source, array[1][..., None])


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_an_alpha_channel_is_dropped_where_it_is_opaque(tmp_path, name):
    rgba = random((12, 14, 4), "uint8")
    rgba[..., 3] = 255
    path = tmp_path / name

    def write() -> None:
        if name == "image.png":
            PillowImage.fromarray(rgba).save(path)
        else:
            tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"])

    write()
    with open_source(path) as source:
        check(source, rgba[..., :3])
    with open_source(path, Selection(channel=2)) as source:
        check(source, rgba[..., 2:3])
    rgba[9, 9, 3] = 254
    write()
    for channel in (None, 0):
        with open_source(path, Selection(channel=channel)) as source:
            source.read((slice(0, 9), slice(None)))
            with pytest.raises(InputError, match="1 pixels are partly transparent") as error:
                source.read((slice(None), slice(None)))
            assert_names_it(error, path)


def test_levels_of_a_pyramid(tmp_path):
    path = tmp_path / "pyramid.ome.tif"
    full = random((3, 41, 64))
    half = random((3, 20, 32), seed=1)
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3, "PhysicalSizeZ": 2.0}
    with tifffile.TiffWriter(path) as writer:
        writer.write(full, subifds=1, metadata=metadata, tile=(16, 16), compression="zlib")
        writer.write(half, subfiletype=1, tile=(16, 16), compression="zlib")
    with open_source(path) as source:
        assert (source.levels, source.spacing) == (2, (2.0, 0.3, 0.3))
        assert source.chunks == (1, 16, 16)
        np.testing.assert_array_equal(source.read((slice(None),) * 3)[..., 0], full)
    with open_source(path, Selection(level=1)) as source:
        assert source.spacing == (2.0, 0.6, 0.6)
        np.testing.assert_array_equal(source.read((slice(None),) * 3)[..., 0], half)
    for wrong in (2, -1):
        with pytest.raises(InputError, match=r"level .* 2 resolution level\(s\), so 0 to 1"):
            open_source(path, Selection(level=wrong))


@pytest.mark.parametrize(
    ("options", "spacing", "source"),
    [
        (
            {
                "imagej": True,
                "resolution": (1 / 1.62, 1 / 3.24),
                "metadata": {"axes": "ZYX", "spacing": 6.0, "unit": "um"},
            },
            (6.0, 3.24, 1.62),
            "ImageJ metadata",
        ),
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.5}}, None, "unknown"),
        ({}, None, "unknown"),
    ],
)
def test_the_voxel_size_and_where_it_is_from(tmp_path, options, spacing, source):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, random((5, 12, 18)), **options)
    with open_source(path) as opened:
        assert (opened.spacing, opened.spacing_source) == (spacing, source)
    with open_source(path, Selection(spacing=(3, 1, 2))) as opened:
        assert (opened.spacing, opened.spacing_source) == ((3.0, 1.0, 2.0), "given")
    for wrong in ((1, 1), (1, 1, 0), (1, 1, float("nan"))):
        with pytest.raises(InputError, match="3 positive voxel edges in micrometres") as error:
            open_source(path, Selection(spacing=wrong))
        assert_names_it(error, path)


def test_resolution_tags_of_a_plain_tiff(tmp_path):
    path = tmp_path / "image.tif"
    resolution = (1e4 / 0.65, 1e4 / 0.65)
    tifffile.imwrite(path, random((12, 9)), resolution=resolution, resolutionunit="CENTIMETER")
    with open_source(path) as source:
        assert (source.spacing, source.spacing_source) == ((0.65, 0.65), "resolution tags")


# --- regions


def test_regions_that_are_not_inside(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, random((12, 9)))
    source = open_source(path)
    inside = slice(None)
    for region in (
        (inside,),
        (inside, slice(0, 10)),
        (inside, slice(-1, 9)),
        (inside, slice(4, 4)),
        (inside, slice(0, 9, 2)),
    ):
        with pytest.raises(ValueError, match=r"image\.npy: (the|a) region"):
            source.read(region)
    source.close()
    source.close()
    with pytest.raises(ValueError, match="was closed"):
        source.read((inside, inside))


@pytest.mark.parametrize("name", ["image.tif", "image.npy", "image.zarr"])
def test_pixels_that_are_not_finite_are_placed(tmp_path, name):
    array = np.ones((5, 12, 18))
    array[3, 7, 9], array[3, 8, 1], array[0, 0, 0] = np.nan, np.inf, 1e300
    path = tmp_path / name
    if name == "image.tif":
        tifffile.imwrite(path, array)
    elif name == "image.npy":
        np.save(path, array)
    else:
        zarr.create_array(path, data=array, chunks=(2, 8, 8))
    with open_source(path) as source:
        assert source.read((slice(1, 3), slice(None), slice(None))).max() == 1
        with pytest.raises(InputError, match=r"at \(z, y, x\) = \(3, 7, 9\); 2 such") as error:
            source.read((slice(1, 5), slice(2, 12), slice(1, 18)))
        assert_names_it(error, path)
        with pytest.raises(InputError, match=r"at \(z, y, x\) = \(0, 0, 0\)"):
            source.read((slice(0, 1), slice(0, 1), slice(0, 1)))


def test_the_channel_of_a_bad_pixel_is_named(tmp_path):
    array = np.ones((2, 12, 18), np.float32)
    array[1, 7, 9] = np.nan
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, array, imagej=True, metadata={"axes": "CYX"})
    with (
        open_source(path) as source,
        pytest.raises(InputError, match=r"\(y, x\) = \(7, 9\) of channel 1"),
    ):
        source.read((slice(2, 12), slice(None)))


# --- .npy and Zarr


@pytest.mark.parametrize("shape", [(12, 9), (5, 12, 18)])
@pytest.mark.parametrize("kind", ["npy", "fortran", "zarr 2", "zarr 3", "sharded"])
def test_plain_arrays(tmp_path, shape, kind):
    array = random(shape)
    path = tmp_path / "array.npy"
    if kind in ("npy", "fortran"):
        np.save(path, np.asfortranarray(array) if kind == "fortran" else array)
    else:
        path = tmp_path / "array.zarr"
        options: dict[str, Any] = {"zarr_format": int(kind[-1])} if kind != "sharded" else {}
        if kind == "sharded":
            options["shards"] = (4,) * array.ndim
        zarr.create_array(path, data=array, chunks=(2,) * array.ndim, **options)
    with open_source(path) as source:
        assert source.name == "array" and source.spacing is None
        assert source.axes == "ZYX"[-len(shape) :]
        assert source.chunks == (None if path.suffix == ".npy" else (2,) * len(shape))
        check(source, array[..., None])


def test_dimension_names_of_zarr_3(tmp_path):
    array = random((2, 5, 12, 18))
    zarr.create_array(tmp_path / "a.zarr", data=array, dimension_names=("c", "z", "y", "x"))
    with open_source(tmp_path / "a.zarr") as source:
        check(source, np.moveaxis(array, 0, -1))
    zarr.create_array(tmp_path / "b.zarr", data=array[0], dimension_names=("d0", "d1", "d2"))
    with open_source(tmp_path / "b.zarr") as source:
        check(source, array[0][..., None])


def write_ome_zarr(
    path: Path,
    array: np.ndarray,
    *,
    version: str = "0.4",
    axes: str = "czyx",
    unit: str | None = "micrometer",
    scale: tuple[float, ...] = (1, 2, 0.65, 0.325),
    **metadata: Any,
) -> dict[str, Any]:
    """Two levels, the second coarser in y and x; what it returns are the attributes."""
    types = {"t": "time", "c": "channel"}
    described: list[dict[str, str]] = [{"name": a, "type": types.get(a, "space")} for a in axes]
    for axis in described:
        if axis["type"] == "space" and unit is not None:
            axis["unit"] = unit
    coarser = tuple(2 * s if a in "yx" else s for s, a in zip(scale, axes, strict=True))
    multiscale = {
        "axes": described,
        "datasets": [
            {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": list(s)}]}
            for i, s in enumerate((scale, coarser))
        ],
    }
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for i, level in enumerate((array, array[..., ::2, ::2])):
        group.create_array(str(i), data=level, chunks=(1,) * (array.ndim - 2) + (8, 8))
    attributes = {"multiscales": [multiscale], **metadata}
    if version == "0.4":
        multiscale["version"] = version
    else:
        attributes = {"ome": {"version": version, **attributes}}
    group.attrs.update(attributes)
    return attributes


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("unit", "spacing"),
    [
        ("micrometer", (2.0, 0.65, 0.325)),
        ("nanometer", (0.002, 0.00065, 0.000325)),
        ("millimeter", (2000.0, 650.0, 325.0)),
        ("parsec", None),
        (None, None),
    ],
)
def test_ome_zarr(tmp_path, version, unit, spacing):
    array = random((2, 5, 16, 20))
    path = tmp_path / "brain.ome.zarr"
    names = {"channels": [{"label": "DAPI"}, {"label": "cFos"}]}
    write_ome_zarr(path, array, version=version, unit=unit, omero=names)
    with open_source(path) as source:
        assert (source.kind, source.name) == (f"OME-Zarr {version}", "brain")
        assert (source.axes, source.levels, source.chunks) == ("CZYX", 2, (1, 8, 8))
        assert source.spacing == spacing
        assert source.spacing_source == ("OME-Zarr metadata" if spacing else "unknown")
        check(source, np.moveaxis(array, 0, -1))
    with open_source(path, Selection(channel="cFos")) as source:
        check(source, array[1][..., None])
    with open_source(path, Selection(level=1)) as source:
        assert source.shape == (5, 8, 10)
        if spacing:
            assert source.spacing == pytest.approx((spacing[0], 2 * spacing[1], 2 * spacing[2]))
        np.testing.assert_array_equal(
            source.read((slice(None),) * 3), np.moveaxis(array[..., ::2, ::2], 0, -1)
        )
    with pytest.raises(InputError, match=r"2 resolution level\(s\), so 0 to 1") as error:
        open_source(path, Selection(level=2))
    assert_names_it(error, path)


def test_scales_of_dataset_and_multiscale_multiply(tmp_path):
    path = tmp_path / "a.zarr"
    array = random((3, 5, 16, 20))
    attributes = write_ome_zarr(path, array, axes="tzyx", scale=(10.0, 2.0, 1.0, 1.0))
    attributes["multiscales"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [0.5, 3.0, 0.1, 0.3]},
        {"type": "translation", "translation": [0.0, 7.0, 7.0, 7.0]},
    ]
    zarr.open_group(path, mode="r+").attrs.update(attributes)
    with pytest.raises(InputError, match="3 time points; choose one with --time"):
        open_source(path)
    with open_source(path, Selection(time=2, level=1)) as source:
        assert source.spacing == (6.0, 0.2, 0.6)
        np.testing.assert_array_equal(
            source.read((slice(None),) * 3)[..., 0], array[2, :, ::2, ::2]
        )


def test_a_chunk_that_is_not_stored_is_the_fill_value(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(8, 8), chunks=(4, 4), dtype="u2", fill_value=7)
    array[:4, :4] = 3
    with open_source(path) as source:
        pixels = source.read((slice(2, 6), slice(2, 6)))[..., 0]
    np.testing.assert_array_equal(pixels, np.pad(np.full((2, 2), 3), (0, 2), constant_values=7))


def test_what_bioformats2raw_wraps(tmp_path):
    array = random((2, 5, 16, 20))
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(path / "0", array)
    with open_source(path) as source:
        assert source.name == "a"
        check(source, np.moveaxis(array, 0, -1))
    write_ome_zarr(path / "1", array)
    with pytest.raises(InputError, match=r"holds 2 images: 0, 1; choose one with --scene"):
        open_source(path)
    with open_source(path, Selection(scene="1")) as source:
        assert source.kind == "OME-Zarr 0.4 (bioformats2raw, series 1 of 2)"


def change_metadata(path: Path, change: str) -> None:
    """Damages the .zattrs of an OME-Zarr 0.4 folder, or its first array."""
    group = zarr.open_group(path, mode="r+")
    attributes: Any = group.attrs.asdict()
    multiscale = attributes["multiscales"][0]
    if change == "an axis too few":
        del multiscale["axes"][0]
    elif change == "five spatial axes":
        for axis in multiscale["axes"]:
            axis["type"] = "space"
        multiscale["axes"][0]["name"] = "w"
    elif change == "the same axis twice":
        multiscale["axes"][0] = {"name": "z", "type": "space"}
    elif change == "a scale too short":
        multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] = [1.0]
    elif change == "a scale of text":
        multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] = ["1"] * 4
    elif change == "no such array":
        multiscale["datasets"][0]["path"] = "9"
    elif change == "no multiscales":
        attributes = {}
    elif change == "two images":
        attributes["multiscales"] *= 2
    elif change == "a plate":
        attributes = {"plate": {}}
    elif change == "no datasets":
        del multiscale["datasets"]
    elif change == "of another shape":
        attributes["multiscales"] = 5
    elif change == "broken JSON":
        (path / ".zattrs").write_text('{"multiscales": [')
        return
    else:
        (path / "0" / ".zarray").write_text('{"zarr_format": 2, "shape": [2,')
        return
    (path / ".zattrs").write_text(json.dumps(attributes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("an axis too few", r"name 3 axes \(ZYX\), its array '0' has 4 \(2 x 5 x 16 x 20\)"),
        ("five spatial axes", "an axis called 'w' of type 'space'; t, c, z, y and x are known"),
        ("the same axis twice", "axes Z of 2, Z of 5"),
        ("a scale too short", r"the scale \[1\.0\] does not fit 4 axes"),
        ("a scale of text", "the scale .* is not a number for each axis"),
        ("no such array", "name the array '9' for level 0, which is not there"),
        ("no multiscales", r"in it: 0, 1\. Give one image"),
        ("two images", "2 multiscale images"),
        ("a plate", "a plate of 0 well.s.; choose a field .* none that its metadata name is there"),
        ("no datasets", "cannot be read as Zarr .*datasets"),
        ("of another shape", "cannot be read as Zarr"),
        ("broken JSON", "cannot be read as Zarr"),
        ("broken array", "cannot be read as Zarr"),
    ],
)
def test_damaged_ome_zarr(tmp_path, change, message):
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, random((2, 5, 16, 20)))
    open_source(path).close()
    change_metadata(path, change)
    with pytest.raises(InputError, match=message) as error:
        open_source(path)
    assert_names_it(error, path)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_corrupt_chunk_is_an_error_where_it_lies(tmp_path, damage, zarr_format, compressed):
    path = tmp_path / "a.zarr"
    options: dict[str, Any] = {} if compressed else {"compressors": None}
    array = random((8, 8))
    zarr.create_array(path, data=array, chunks=(4, 4), zarr_format=zarr_format, **options)
    chunk = path / ("1.0" if zarr_format == 2 else "c/1/0")
    chunk.write_bytes(chunk.read_bytes()[:-3] if damage is None else damage)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read((slice(0, 4), slice(0, 8)))[..., 0], array[:4])
        with pytest.raises(InputError, match=r"cannot be read as Zarr .* at y 2:6, x 1:3") as e:
            source.read((slice(2, 6), slice(1, 3)))
        assert_names_it(e, path)


# --- slices


def write_slices(folder: Path, volume: np.ndarray, *, suffix: str = ".tif", **options: Any) -> None:
    folder.mkdir()
    for number, plane in enumerate(volume, start=1):
        if suffix == ".png":
            PillowImage.fromarray(plane).save(folder / f"s{number}{suffix}")
        else:
            options.setdefault("photometric", "minisblack")
            tifffile.imwrite(folder / f"s{number}{suffix}", plane, **options)


@pytest.mark.parametrize("kind", ["TIFF", "zlib", "RGB", "PNG", "PNG RGB"])
def test_a_folder_of_slices(tmp_path, kind):
    rgb = "RGB" in kind
    volume = random((12, 14, 20, 3)[: 4 if rgb else 3], "uint8")
    folder = tmp_path / "brain"
    if "PNG" in kind:
        write_slices(folder, volume, suffix=".png")
    else:
        compression = "zlib" if kind == "zlib" else None
        write_slices(
            folder, volume, photometric="rgb" if rgb else "minisblack", compression=compression
        )
    (folder / "notes.txt").write_text("not a slice")
    (folder / "._s1.tif").write_text("of another system")
    with open_source(folder, as_slices=True) as source:
        words = "PNG" if "PNG" in kind else "TIFF"
        end = ".png" if "PNG" in kind else ".tif"
        assert source.kind == f"folder of 12 {words} slices (s1{end} to s12{end})"
        assert (source.name, source.chunks) == ("brain", (1, 14, 20))
        check(source, volume if rgb else volume[..., None])
    if rgb:
        with open_source(folder, Selection(channel=1), as_slices=True) as source:
            check(source, volume[..., 1:2])


def test_slices_that_do_not_fit(tmp_path):
    folder = tmp_path / "brain"
    write_slices(folder, random((4, 12, 18)))
    odd = folder / "s3.tif"

    def message() -> str:
        with pytest.raises(InputError) as error:
            open_source(folder, as_slices=True)
        assert_names_it(error, odd)
        return str(error.value)

    tifffile.imwrite(odd, random((12, 17)))
    assert "not like the first slice s1.tif (Y of 12, X of 18, uint16): Y of 12, X of 17" in (
        message()
    )
    tifffile.imwrite(odd, random((12, 18), "uint8"))
    assert "uint8" in message()
    tifffile.imwrite(odd, random((5, 12, 18)))
    assert "a slice is a 2D image" in message()
    odd.write_bytes(odd.read_bytes()[:700])
    assert "truncated" in message() or "cannot be read as a TIFF" in message()
    odd.unlink()
    odd = folder / "s3.png"
    PillowImage.fromarray(random((12, 18), "uint8")).save(odd)
    assert "a PNG file among TIFF slices" in message()


def test_png_slices_that_do_not_fit(tmp_path):
    folder = tmp_path / "brain"
    write_slices(folder, random((4, 12, 18), "uint8"), suffix=".png")
    PillowImage.fromarray(random((12, 17), "uint8")).save(folder / "s4.png")
    with pytest.raises(InputError, match=r"s4\.png: is not like the first slice s1\.png"):
        open_source(folder, as_slices=True)


def test_a_slice_that_changes_while_it_is_open(tmp_path):
    folder = tmp_path / "brain"
    write_slices(folder, random((4, 12, 18)))
    with open_source(folder, as_slices=True) as source:
        tifffile.imwrite(folder / "s3.tif", random((12, 18), "uint8"))
        source.read((slice(0, 2), slice(None), slice(None)))
        with pytest.raises(InputError, match=r"s3\.tif: is not like the first slice"):
            source.read((slice(0, 3), slice(None), slice(None)))


def test_too_few_slices_and_a_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"0 TIFF or PNG file\(s\) in the folder"):
        open_source(tmp_path, as_slices=True)
    with pytest.raises(InputError, match="is a folder, and no Zarr"):
        open_source(tmp_path)


# --- damage


def test_every_truncation_of_a_tiff_is_an_error_or_complete(tmp_path):
    volume = random((4, 8, 9))
    kinds: dict[str, dict[str, Any]] = {
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}, "tile": (16, 16)},
        "plain": {"metadata": None},
        "zlib": {"compression": "zlib", "rowsperstrip": 3},
    }
    for name, options in kinds.items():
        whole, cut = tmp_path / f"{name}.tif", tmp_path / f"{name}_cut.tif"
        tifffile.imwrite(whole, volume, photometric="minisblack", **options)
        content = whole.read_bytes()
        refused = 0
        for length in range(0, len(content), 29):
            cut.write_bytes(content[:length])
            try:
                with open_source(cut) as source:
                    pixels = source.read(tuple(slice(None) for _ in source.shape))
            except InputError as error:
                assert str(error).startswith(str(cut)) and "\n" not in str(error)
                refused += 1
            else:
                np.testing.assert_array_equal(pixels, volume[..., None])
        assert refused > 0.9 * len(content) / 29, name


@pytest.mark.parametrize("rows", [3, 16])
def test_corrupt_pixels_of_a_compressed_tiff(tmp_path, rows):
    volume = random((3, 16, 20))
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        volume,
        metadata=None,
        photometric="minisblack",
        compression="zlib",
        rowsperstrip=rows,
    )
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[1]
        middle = page.dataoffsets[0] + page.databytecounts[0] // 2
    content = bytearray(path.read_bytes())
    content[middle : middle + 4] = b"\xff\x00\xff\x00"
    path.write_bytes(content)
    with open_source(path) as source:
        everything = slice(None)
        np.testing.assert_array_equal(
            source.read((slice(2, 3), everything, everything))[..., 0], volume[2:]
        )
        with pytest.raises(InputError, match=r"cannot be read as TIFF at z 0:2") as error:
            source.read((slice(0, 2), everything, everything))
        assert_names_it(error, path)


@pytest.mark.parametrize("tag", ["ImageLength", "ImageWidth"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_header_that_promises_too_much(tmp_path, tag, compression):
    path = tmp_path / "liar.tif"
    tifffile.imwrite(path, random((16, 20)), metadata=None, compression=compression)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags[tag].overwrite(5000)
    with pytest.raises(InputError) as error, open_source(path) as source:
        source.read((slice(0, 8), slice(0, 8)))
    assert_names_it(error, path)


def several_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3), b=np.ones(3))


def zero_size(path: Path) -> None:
    zarr.create_array(path, shape=(4, 0), chunks=(2, 2), dtype="u1")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.tif", lambda p: tifffile.imwrite(p, np.ones((6, 7), "c8")), "of type complex64"),
        ("a.npy", lambda p: np.save(p, np.ones((6, 7), "c16")), "of type complex128"),
        ("a.npy", lambda p: np.save(p, np.array([["x"]])), "of type <U1"),
        ("a.npy", lambda p: np.save(p, np.array([[{}]])), "cannot be read as a .npy file"),
        ("a.npy", lambda p: np.save(p, np.ones(5)), r"an array of 1 axes \(5\) .*; 2 "),
        ("a.npy", lambda p: np.save(p, np.ones((2,) * 4)), r"an array of 4 axes \(2 x 2 x 2 x 2\)"),
        ("a.npy", lambda p: np.save(p, np.ones((2, 0))), r"a\.npy: "),
        ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY"), "cannot be read as a .npy file"),
        ("a.npy", several_arrays, "holds several arrays"),
        ("a.npy", lambda p: p.touch(), "the file is empty"),
        ("a.zarr", zero_size, r"holds no pixels \(shape \(4, 0\)\)"),
        ("a.zarr", lambda p: zarr.create_array(p, data=np.ones((2, 2), "c8")), "type complex64"),
        ("a.zarr", lambda p: zarr.create_array(p, data=np.ones((2,) * 5)), "array of 5 axes"),
        ("a.zarr", lambda p: zarr.create_array(p, data=np.ones(5)), "array of 1 axes"),
        ("a.zarr", lambda p: zarr.open_group(p), "in it: nothing"),
        ("a.zarr", lambda p: p.mkdir(), "no Zarr array or group"),
        ("a.zarr", lambda p: p.write_text("x"), "must end in"),
        ("a.jpg", lambda p: p.write_text("x"), r"must end in \.tif, .* or be a \.zarr folder"),
        ("a.png", lambda p: p.write_text("x"), "is not a PNG file"),
        ("a.tif", lambda p: p.write_text("text " * 9), "cannot be read as a TIFF file"),
        ("a.tif", lambda p: p.symlink_to(p), "no such file|cannot be opened"),
        ("a.tif", lambda p: None, "no such file"),
        ("a" * 300 + ".tif", lambda p: None, "the name is too long"),
    ],
)
def test_damaged_and_wrong_files(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=message) as error:
        open_source(path)
    assert_names_it(error, path)


class Unwanted:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.npy").write_bytes(pickle.dumps(Unwanted()))
    with pytest.raises(InputError, match=r"a\.npy: cannot be read as a \.npy file"):
        open_source("a.npy")
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.png", "a.zarr"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.mkdir() if name == "a.zarr" else path.write_bytes(b"x" * 50)
    if name == "a.zarr":
        (path / "zarr.json").write_text("{}")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    readers = (tifffile, "TiffFile"), (np, "load"), (zarr, "open"), (PillowImage, "open")
    for owner, function in readers:
        monkeypatch.setattr(owner, function, refuse)
    with pytest.raises(
        InputError, match=r"cannot be opened.*no permission to read or write"
    ) as error:
        open_source(path)
    assert_names_it(error, path)


# --- which inputs


def inputs(*paths: Path, ndim: int) -> list[tuple[str, str, bool]]:
    return [(i.name, i.path.name, i.as_slices) for i in find_inputs(paths, ndim=ndim)]


def test_names_without_their_endings():
    for name in ("a.tif", "a.ome.tiff", "a.OME.TIF", "a.zarr", "a.ome.zarr", "a.czi", "a"):
        assert short_name(Path("x") / name) == "a"
    assert short_name(Path("x/brain.v2.tif")) == "brain.v2"
    # The files beside an image are called as it is, up to its ending.
    assert short_name(Path("x/a .tif")) == "a " and short_name(Path("x/Fig..tif")) == "Fig."
    assert short_name(Path(".")) == Path.cwd().name


def test_files_and_folders_of_2d_images(tmp_path):
    for name in ("s10.tif", "s2.tif"):
        tifffile.imwrite(tmp_path / name, random((12, 9)))
    PillowImage.fromarray(random((12, 9), "uint8")).save(tmp_path / "b.png")
    tifffile.imwrite(tmp_path / "s2_labels.tif", random((12, 9)))
    tifffile.imwrite(tmp_path / "s2_valid.tif", random((12, 9)))
    tifffile.imwrite(tmp_path / "more_labels.tif", random((12, 9)))  # nothing it belongs to
    zarr.create_array(tmp_path / "c.zarr", data=random((12, 9)))
    for name in ("s2.csv", ".hidden.tif", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    (tmp_path / "below").mkdir()
    assert inputs(tmp_path, ndim=2) == [
        ("b", "b.png", False),
        ("c", "c.zarr", False),
        ("more_labels", "more_labels.tif", False),
        ("s2", "s2.tif", False),
        ("s10", "s10.tif", False),
    ]
    # What is named is taken as named, in the order given.
    named = (tmp_path / "s10.tif", tmp_path / "s2_labels.tif", tmp_path / "c.zarr")
    assert [name for name, _, _ in inputs(*named, ndim=2)] == ["s10", "s2_labels", "c"]


def test_a_folder_for_a_model_of_volumes(tmp_path):
    slices, volumes = tmp_path / "slices", tmp_path / "volumes"
    write_slices(slices, random((3, 12, 9)))
    write_slices(volumes, random((2, 4, 12, 9)))
    array = random((2, 5, 16, 20))
    write_ome_zarr(tmp_path / "c.zarr", array)
    assert inputs(slices, volumes, tmp_path / "c.zarr", ndim=3) == [
        ("slices", "slices", True),
        ("s1", "s1.tif", False),
        ("s2", "s2.tif", False),
        ("c", "c.zarr", False),
    ]
    tifffile.imwrite(volumes / "s1.tif", random((12, 9)))
    with pytest.raises(InputError, match=r"2D images \(s1\.tif\) beside volumes \(s2\.tif\)") as e:
        inputs(volumes, ndim=3)
    assert_names_it(e, volumes)
    np.save(slices / "s4.npy", random((12, 9)))
    with pytest.raises(InputError, match=r"s4\.npy: is among the slices of a volume"):
        inputs(slices, ndim=3)


def test_names_of_outputs_are_unique(tmp_path):
    for folder, name in (("x", "a.tif"), ("x", "a.tiff"), ("x", "b.tif"), ("y", "b.tif")):
        (tmp_path / folder).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / folder / name, random((12, 9)))
    names = [name for name, _, _ in inputs(tmp_path / "x", tmp_path / "y", ndim=2)]
    assert names == ["a_tif", "a_tiff", "x_b", "y_b"]
    (tmp_path / "z" / "x").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "z" / "x" / "b.tif", random((12, 9)))
    with pytest.raises(InputError, match="would both write results called 'b'") as error:
        inputs(tmp_path / "x", tmp_path / "z" / "x", ndim=2)
    assert_names_it(error, tmp_path / "x" / "b.tif")


def test_inputs_that_are_not_there(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", random((12, 9)))
    (tmp_path / "a.csv").write_text("y,x\n")
    (tmp_path / "empty").mkdir()
    for paths, message in (
        ([tmp_path / "b.tif"], r"b\.tif: no such file or folder"),
        ([tmp_path / "a.csv"], r"a\.csv: the name of an image must end in"),
        ([tmp_path / "empty"], "empty: has no image"),
        ([tmp_path / "a.tif", tmp_path], r"a\.tif: is given 2 times"),
        ([], "no input: give image files"),
    ):
        with pytest.raises(InputError, match=message):
            find_inputs(paths, ndim=2)
