"""Files to arrays and back, against arrays written by the libraries themselves."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import (
    read_dots,
    read_image,
    read_instance_labels,
    read_mask,
    write_image,
)
from cellcount_jax.images.points import check_points_inside, read_points

DATA = Path(__file__).parents[3] / "shared" / "data"


def real_data(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real data {path} are not here")
    return path


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60000, (5, 16, 20)).astype(np.uint16)


@pytest.fixture
def colour() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (12, 14, 3)).astype(np.uint8)


# --- TIFF: axes


def test_channels_before_z_and_time_of_length_one(tmp_path):
    array = np.random.default_rng(3).integers(0, 999, (1, 2, 4, 6, 7)).astype(np.uint16)
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": "TCZYX"})
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, np.moveaxis(array[0], 0, -1))


def test_rgb_tiff_in_2d_and_3d(tmp_path, colour):
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, colour, photometric="rgb")
    np.testing.assert_array_equal(read_image(path).pixels, colour)
    stack = np.stack([colour, colour[::-1]])
    tifffile.imwrite(path, stack, photometric="rgb", imagej=True, metadata={"axes": "ZYXS"})
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, stack)


def test_axes_that_are_neither_depth_nor_channels_are_an_error(tmp_path):
    path = tmp_path / "two_depths.tif"
    tifffile.imwrite(path, np.zeros((2, 3, 6, 7), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"two_depths\.tif: axes Q of 2, Q of 3"):
        read_image(path)


# --- TIFF: voxel size


@pytest.mark.parametrize("edge", [1.62, 3.24, 0.325, 0.1083, 6.5, 1.0, 0.65])
@pytest.mark.parametrize(
    ("unit", "scale"), [("um", 1), ("micron", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3)]
)
def test_imagej_spacing_is_exact(tmp_path, volume, edge, unit, scale):
    path = tmp_path / "image.tif"
    metadata = {"axes": "ZYX", "spacing": 6.0 / scale, "unit": unit}
    resolution = (scale / edge, scale / (2 * edge))
    tifffile.imwrite(path, volume, imagej=True, resolution=resolution, metadata=metadata)
    assert read_image(path).spacing == (6.0, 2 * edge, edge)


def test_imagej_resolution_written_in_millionths(tmp_path, volume):
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        volume[0],
        imagej=True,
        resolution=((617284, 1000000), (166667, 1000000)),
        metadata={"unit": "um"},
    )
    assert read_image(path).spacing == (6.0, 1.62)


@pytest.mark.parametrize(
    ("resolution_unit", "per_micrometre"), [("CENTIMETER", 1e-4), ("INCH", 1 / 25400), ("INCH", 1)]
)
def test_imagej_text_and_resolution_unit_that_disagree(
    tmp_path, volume, resolution_unit, per_micrometre
):
    # The tag says per centimetre or inch, the text um: only one gives a microscope's pixel.
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path,
        volume[0],
        imagej=True,
        resolution=(1 / 1.62 / per_micrometre, 1 / 1.62 / per_micrometre),
        resolutionunit=resolution_unit,
        metadata={"unit": "um"},
    )
    assert read_image(path).spacing == (1.62, 1.62)


def test_ome_spacing_in_several_units(tmp_path, volume):
    path = tmp_path / "image.ome.tif"
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 650.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 0.002,
        "PhysicalSizeZUnit": "mm",
    }
    tifffile.imwrite(path, volume, metadata=metadata)
    assert read_image(path).spacing == (2.0, 0.65, 0.5)


def test_ome_without_unit_is_micrometres_and_without_z_unknown(tmp_path, volume):
    path = tmp_path / "image.ome.tif"
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.75}
    tifffile.imwrite(path, volume[0], metadata={"axes": "YX", **sizes})
    assert read_image(path).spacing == (0.75, 0.5)
    tifffile.imwrite(path, volume, metadata={"axes": "ZYX", **sizes})
    assert read_image(path).spacing is None


@pytest.mark.parametrize(
    ("options", "spacing"),
    [
        ({"resolution": (1e4 / 0.65, 1e4 / 0.65), "resolutionunit": "CENTIMETER"}, (0.65, 0.65)),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),  # a printer's
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, None),
        ({}, None),
        ({"imagej": True}, None),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}}, (0.5, 0.5)),
    ],
)
def test_when_a_2d_tiff_has_a_pixel_size(tmp_path, volume, options, spacing):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, volume[0], **options)
    assert read_image(path).spacing == spacing


# --- TIFF: damage


def test_a_truncated_tiff_says_so(tmp_path, volume):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, volume[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.tif: the file is truncated: .* byte 896, .* 796"):
        read_image(path)


def test_a_missing_plane_of_an_ome_tiff_is_an_error(tmp_path, volume):
    path = tmp_path / "gap.ome.tif"
    tifffile.imwrite(path, volume, metadata={"axes": "ZYX"})
    content = path.read_bytes()
    changed = content.replace(b'PlaneCount="5"', b'PlaneCount="3"')
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(InputError, match=r"gap\.ome\.tif"):
        read_image(path)


def test_pixels_that_are_not_finite_are_counted(tmp_path):
    array = np.ones((6, 7))
    array[0, 0], array[1, 2:4] = np.nan, np.inf
    path = tmp_path / "holes.tif"
    tifffile.imwrite(path, array)
    with pytest.raises(InputError, match=r"holes\.tif: NaN, infinite .* = \(0, 0\); 3 such"):
        read_image(path)
    tifffile.imwrite(path, np.full((6, 7), 1e300))
    with pytest.raises(InputError, match="42 such values"):
        read_image(path)


def test_the_logger_of_tifffile_is_left_as_it_was(tmp_path, volume, caplog):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, volume, metadata=None)
    path.write_bytes(path.read_bytes()[:2000])
    logger = logging.getLogger("tifffile")
    before = logger.level, list(logger.filters), logger.disabled
    with pytest.raises(InputError):
        read_image(path)
    assert (logger.level, logger.filters, logger.disabled) == before
    assert not caplog.records


# --- PNG


def test_png_of_every_kind(tmp_path, colour):
    path = tmp_path / "image.png"
    grey = colour[..., 0]
    for array in (colour, grey, grey.astype(np.uint16) * 257, grey > 100):
        PillowImage.fromarray(array).save(path)
        image = read_image(path)
        expected = array if array.ndim == 3 else array[..., None]
        np.testing.assert_array_equal(image.pixels, expected.astype(np.float32))
        assert image.spacing is None


def test_a_palette_becomes_its_colours(tmp_path, colour):
    few = colour // 128 * 255
    path = tmp_path / "image.png"
    PillowImage.fromarray(few).quantize(8).save(path)
    np.testing.assert_array_equal(read_image(path).pixels, few)


def test_a_transparent_colour_is_an_error(tmp_path, colour):
    path = tmp_path / "image.png"
    PillowImage.fromarray(colour[..., 0]).save(path, transparency=int(colour[0, 0, 0]))
    with pytest.raises(InputError, match="partly transparent"):
        read_image(path)


def test_every_truncation_of_a_png_is_an_error_or_complete(tmp_path, colour):
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    PillowImage.fromarray(colour).save(whole)
    content = whole.read_bytes()
    refused = 0
    for length in range(0, len(content), 7):
        cut.write_bytes(content[:length])
        try:
            pixels = read_image(cut).pixels
        except InputError as error:
            assert str(cut) in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, colour)
    assert refused > 0.9 * len(content) / 7


def test_png_with_16_bit_colour_and_animations_are_errors(tmp_path, colour):
    path = tmp_path / "image.png"
    PillowImage.fromarray(colour).save(path)
    content = bytearray(path.read_bytes())
    content[24] = 16  # the bit depth
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"image\.png: 16 bits a colour channel"):
        read_image(path)
    frames = [PillowImage.fromarray(array) for array in (colour, colour[::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"image\.png: an animation of 2"):
        read_image(path)


# --- labels, masks, dots


def test_labels_are_exact_integers(tmp_path):
    labels = np.array([[0, 1, 2], [2**24 + 1, 2**31 - 1, 5]], np.uint32)
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, labels)
    read = read_instance_labels(path)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 5), np.float32), "type float32; instance labels are one channel of integers"),
        (np.ones((4, 5, 3), np.uint8), "3 channel"),
        (np.full((4, 5), -1, np.int16), "labels from -1 to -1"),
        (np.full((4, 5), 2**31, np.uint32), "labels from 2147483648"),
    ],
)
def test_labels_that_are_none(tmp_path, array, message):
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    with pytest.raises(InputError, match=rf"labels\.tif: .*{message}"):
        read_instance_labels(path)


def test_a_mask_is_what_is_not_zero(tmp_path, colour):
    mask = colour[..., 0] > 128
    for name, array in {
        "a.png": mask,
        "b.png": mask.astype(np.uint8) * 255,
        "c.png": mask[..., None] * np.array([0, 7, 0], np.uint8),
    }.items():
        PillowImage.fromarray(array).save(tmp_path / name)
    tifffile.imwrite(tmp_path / "d.tif", mask.astype(np.float32) * 0.1)
    for path in tmp_path.iterdir():
        read = read_mask(path)
        assert read.dtype == np.bool_
        np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize("value", [1e30, -1e35, 1e300, 1e-300, np.nextafter(0, 1)])
def test_a_mask_may_hold_any_number(tmp_path, value):
    mask = np.random.default_rng(0).random((6, 7)) < 0.5
    tifffile.imwrite(tmp_path / "a.tif", np.where(mask, value, 0.0))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), mask)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mask_that_is_neither_in_nor_out(tmp_path, value):
    array = np.zeros((6, 7), np.float32)
    array[2, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", array)
    with pytest.raises(InputError, match=r"a\.tif: NaN or infinite at \(y, x\) = \(2, 3\); 1 such"):
        read_mask(tmp_path / "a.tif")


def test_touching_dots_are_different_cells(tmp_path):
    dots = np.zeros((6, 8), bool)
    where = np.array([[0, 0], [2, 3], [2, 4], [3, 4], [5, 7]])
    dots[tuple(where.T)] = True
    PillowImage.fromarray(dots).save(tmp_path / "boolean.png")
    red = dots[..., None] * np.array([255, 0, 0], np.uint8)
    PillowImage.fromarray(red).save(tmp_path / "red.png")
    for rule in ("boolean", "red"):
        points = read_dots(tmp_path / f"{rule}.png", rule=rule, shape=(6, 8))
        assert points.dtype == np.float32
        np.testing.assert_array_equal(points, where)
    with pytest.raises(InputError, match=r"red\.png: .* 2D with 1 channel"):
        read_dots(tmp_path / "red.png", rule="boolean")
    with pytest.raises(InputError, match=r"red\.png: the dot image is 6 x 8, its image 8 x 6"):
        read_dots(tmp_path / "red.png", rule="red", shape=(8, 6))


def test_an_image_is_not_taken_for_its_dots(tmp_path, colour):
    path = tmp_path / "cell.png"
    PillowImage.fromarray(colour).save(path)
    with pytest.raises(InputError, match=r"cell\.png: \d+ different grey levels"):
        read_dots(path, rule="red")


def test_no_dots_at_all(tmp_path):
    path = tmp_path / "dots.png"
    PillowImage.fromarray(np.zeros((4, 5), bool)).save(path)
    assert read_dots(path, rule="boolean").shape == (0, 2)


# --- writing images


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool", "int64"])
@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,)])
@pytest.mark.parametrize("spatial", [(9, 11), (4, 9, 11)])
def test_tiff_comes_back(tmp_path, dtype, channels, spatial):
    array = np.random.default_rng(6).uniform(0, 200, spatial + channels).astype(dtype)
    path = tmp_path / "new" / "image.tif"
    spacing = (6.0, 1.62, 3.24)[-len(spatial) :]
    write_image(path, array, spacing=spacing)
    image = read_image(path)
    expected = array if channels else array[..., None]
    np.testing.assert_array_equal(image.pixels, expected.astype(np.float32))
    assert image.spacing == spacing
    assert list(path.parent.iterdir()) == [path]


def test_tiff_without_spacing_and_with_ndim(tmp_path):
    array = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    path = tmp_path / "image.tiff"
    write_image(path, array, ndim=3)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, array[..., None])
    assert image.spacing is None
    write_image(path, array, ndim=2)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, array)
    assert image.spacing is None


def test_png_comes_back(tmp_path, colour):
    path = tmp_path / "image.png"
    for array in (colour, colour[..., 0], colour[..., :1], colour[..., 0] > 9):
        write_image(path, array)
        expected = array if array.ndim == 3 else array[..., None]
        np.testing.assert_array_equal(read_image(path).pixels, expected)


@pytest.mark.parametrize(
    ("name", "array", "options", "message"),
    [
        ("a.jpg", np.zeros((4, 5), np.uint8), {}, "must end in"),
        ("a.tif", np.zeros((4, 5, 3), np.uint8), {}, "ndim where it could be either"),
        ("a.tif", np.zeros((4, 5), np.uint8), {"spacing": (1, 1, 1)}, "cannot be written"),
        ("a.tif", np.zeros((4, 5), np.uint8), {"spacing": (1, 1), "ndim": 3}, "cannot be"),
        ("a.tif", np.zeros((0, 5), np.uint8), {}, "cannot be written"),
        ("a.tif", np.zeros((4, 5), np.uint8), {"spacing": (0, 1)}, "positive micrometres"),
        ("a.tif", np.zeros((1, 4, 5), np.uint8), {"ndim": 3}, "a volume of one plane"),
        ("a.tif", np.zeros((4, 5)), {}, "cannot hold float64"),
        ("a.tif", np.full((4, 5), 70000), {}, "cannot hold int64"),
        ("a.png", np.zeros((4, 5), np.float32), {}, "cannot hold .* of float32; use .tif"),
        ("a.png", np.zeros((4, 5, 2), np.uint8), {}, "cannot hold"),
        ("a.png", np.zeros((4, 5), np.uint8), {"spacing": (1, 1)}, "holds no voxel size"),
    ],
)
def test_images_that_a_file_cannot_hold(tmp_path, name, array, options, message):
    with pytest.raises(InputError, match=message):
        write_image(tmp_path / name, array, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["image.tif", "image.png"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_text("old")

    def half(target: Any, *_: Any, **__: Any) -> None:
        Path(target).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(tifffile, "imwrite", half)
    monkeypatch.setattr(PillowImage.Image, "save", lambda _, target, **__: half(target))
    with pytest.raises(OSError, match="disk full"):
        write_image(path, np.zeros((4, 5), np.uint8))
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


# --- real files


@pytest.mark.parametrize(
    ("name", "shape", "spacing"),
    [
        ("lightsheet_cfos/train/969", (64, 200, 200), (6.0, 1.62, 1.62)),
        ("lightsheet_microglia/test/2248", (200, 100, 100), (6.0, 3.24, 3.24)),
    ],
)
def test_real_volumes(name, shape, spacing):
    path = real_data(name + ".tif")
    image = read_image(path)
    assert image.spacing == spacing
    np.testing.assert_array_equal(image.pixels[..., 0], tifffile.imread(path))
    points = read_points(real_data(name + ".csv"), ndim=3)
    check_points_inside(points, shape, name)
    labels = read_instance_labels(real_data(name + "_labels.tif"))
    assert labels.shape == shape
    np.testing.assert_array_equal(np.unique(labels), np.arange(len(points) + 1))


def test_real_dot_images():
    vgg = sorted(real_data("vgg").glob("*dots.png"))
    counts = [len(read_dots(path, rule="red", shape=(256, 256))) for path in vgg]
    assert len(counts) == 200
    assert (min(counts), max(counts)) == (74, 317)
    assert np.mean(counts) == pytest.approx(176, abs=0.5)
    mbm = sorted(real_data("mbm").glob("*_dots_*.png"))
    counts = [len(read_dots(path, rule="boolean", shape=(600, 600))) for path in mbm]
    assert len(counts) == 44
    assert np.mean(counts) == pytest.approx(126, abs=0.5)
