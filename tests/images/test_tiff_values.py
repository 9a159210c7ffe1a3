"""What the numbers of TIFF files mean, and compressions, against the arrays that were written."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import read_image, read_mask
from cellcount_jax.images.sources import open_source

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 30)).astype(np.uint8)
RAMP = np.arange(256, dtype=np.uint16) * 257


def read(path: Path) -> np.ndarray:
    return read_image(path).pixels


@pytest.mark.parametrize(
    ("dtype", "bits", "highest", "compression"),
    [
        ("uint8", 8, 255, None),
        ("uint8", 8, 255, "lzw"),
        ("uint16", 16, 65535, None),
        ("uint16", 16, 65535, "zlib"),
        ("uint16", 12, 4095, None),
    ],
)
def test_white_that_is_zero(
    tmp_path: Path, dtype: str, bits: int, highest: int, compression: str | None
) -> None:
    volume = RNG.integers(0, highest + 1, (3, 20, 30)).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        volume,
        photometric="miniswhite",
        compression=compression,
        bitspersample=bits,
        metadata={"axes": "ZYX"},
    )
    with open_source(path) as source:
        assert source.dtype == dtype and "white is zero" in source.kind
        region = (slice(1, 3), slice(4, 9), slice(0, 30))
        found = source.read(region)[..., 0]
    np.testing.assert_array_equal(found, highest - volume[region].astype(np.float32))


def test_white_that_is_zero_in_a_scanned_mask(tmp_path: Path) -> None:
    path, mask = tmp_path / "a.tif", GREY > 100
    tifffile.imwrite(path, ~mask, photometric="miniswhite", software="a scanner")
    np.testing.assert_array_equal(read_mask(path), mask)
    tifffile.imwrite(path, mask)  # its own default for masks is white that is zero
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages.first.photometric == 0
    np.testing.assert_array_equal(read_mask(path), mask)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_white_that_is_zero_without_a_black(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(dtype), photometric="miniswhite")
    with pytest.raises(InputError, match=r"a\.tif: white is zero .* BlackIsZero\."):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{"photometric": "miniswhite"}, {"colormap": None}])
def test_look_up_tables_of_imagej_are_for_display_alone(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    if "colormap" in options:
        options = {"photometric": "palette", "colormap": RNG.permuted(np.stack([RAMP] * 3), axis=1)}
    description = "ImageJ=1.54f\nmin=0.0\nmax=255.0\n"
    tifffile.imwrite(tmp_path / "a.tif", GREY, description=description, metadata=None, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_imagej and tiff.pages.first.photometric != 1
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[..., 0], GREY)


def test_palettes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"

    def written(*colours: np.ndarray) -> np.ndarray:
        tifffile.imwrite(path, GREY, photometric="palette", colormap=np.stack(colours))
        return read(path)

    grey, none = GREY[..., None], np.zeros_like(RAMP)
    np.testing.assert_array_equal(written(RAMP, RAMP, RAMP), grey)
    np.testing.assert_array_equal(written(none, RAMP, none), grey)  # a green tint
    np.testing.assert_array_equal(written(*[RAMP[::-1]] * 3), 255 - grey)
    colours = RNG.permuted(np.stack([RAMP] * 3), axis=1)
    np.testing.assert_array_equal(written(*colours), (colours[:, GREY] // 257).transpose(1, 2, 0))
    # And as in PNG.
    picture = PillowImage.fromarray(np.stack([GREY, GREY[::-1], GREY // 2], -1)).quantize(16)
    picture.save(path)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(path), read(tmp_path / "a.png"))


@pytest.mark.parametrize("page", [2**26, 0])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"compression": "lzw"}, 0),
        ({"compression": "lzw", "predictor": True, "rowsperstrip": 7}, 0),
        ({"compression": "lzw", "tile": (16, 16)}, 0),
        ({"compression": "zstd"}, 0),
        ({"compression": "lerc"}, 0),
        ({"compression": "jpegxl"}, 0),
        ({"compression": "jpeg2000"}, 0),
        ({"compression": "packbits"}, 0),
        ({"compression": "lzma"}, 0),
        ({"compression": "jpeg"}, 8),
        ({"compression": "jpeg", "tile": (16, 16)}, 8),
    ],
    ids=str,
)
def test_compressions(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    tolerance: int,
    page: int,
) -> None:
    monkeypatch.setattr("cellcount_jax.images.tiff._WHOLE_PAGE_BYTES", page)
    y, x = np.mgrid[:40, :30]
    volume = np.stack([y * x // 5, 2 * y + 3 * x, x * x // 9]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack", **options)
    np.testing.assert_allclose(read(tmp_path / "a.tif")[..., 0], volume, atol=tolerance)


def test_twelve_bits_and_floats_with_a_predictor(tmp_path: Path) -> None:
    deep, real = GREY.astype(np.uint16) * 16 + 3, GREY.astype(np.float32) / 3
    tifffile.imwrite(tmp_path / "a.tif", deep, bitspersample=12)
    tifffile.imwrite(tmp_path / "b.tif", real, compression="zlib", predictor=3)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[..., 0], deep)
    np.testing.assert_array_equal(read(tmp_path / "b.tif")[..., 0], real)


def test_without_imagecodecs_the_error_comes_when_a_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = {"lzw": "LZW", "jpeg": "JPEG", "lerc": "LERC", "jpegxl": "JPEGXL"}
    for compression in ("zlib", "packbits", *lacking):
        tifffile.imwrite(tmp_path / f"{compression}.tif", GREY, compression=compression)
    lacking |= {"bits": "12-bit numbers", "float": "predictor 3"}
    tifffile.imwrite(tmp_path / "bits.tif", GREY.astype(np.uint16), bitspersample=12)
    tifffile.imwrite(tmp_path / "float.tif", GREY / 3, compression="zlib", predictor=3)
    # As tifffile is where the package is not installed.
    library = tifffile.tifffile
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr(library, "imagecodecs", importlib.import_module("tifffile._imagecodecs"))
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", library.CompressionCodec(encode=False))
    monkeypatch.setattr(tifffile.TIFF, "UNPREDICTORS", library.PredictorCodec(encode=False))
    for name, words in lacking.items():
        with pytest.raises(
            InputError, match=rf"{words}, .* not installed: pip install imagecodecs"
        ):
            open_source(tmp_path / f"{name}.tif")
    for name in ("zlib", "packbits"):
        np.testing.assert_array_equal(read(tmp_path / f"{name}.tif")[..., 0], GREY)
