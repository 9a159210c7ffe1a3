"""Pictures: what is drawn where, in which colour, and how it is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cellcount_jax.errors import InputError
from cellcount_jax.report import pictures
from cellcount_jax.report.pictures import (
    GREEN,
    ORANGE,
    VERMILION,
    YELLOW,
    colourise,
    mosaic,
    overlay,
)

BAND = 40
COLOURS = {"green": GREEN, "vermilion": VERMILION, "yellow": YELLOW, "orange": ORANGE}


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(100, 900, shape).astype(np.float32)


def near(picture: np.ndarray, dot: tuple[float, float], factor: int) -> set[str]:
    """The marker colours within 12 pixels of a dot given in image coordinates."""
    y, x = (round((v + 0.5) * factor - 0.5) for v in dot)
    inside = picture[BAND:-BAND][max(y - 12, 0) : y + 13, max(x - 12, 0) : x + 13]
    return {name for name, rgb in COLOURS.items() if (inside == rgb).all(axis=-1).any()}


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((64, 64), 17), ((256, 200), 4), ((200, 256), 4), ((600, 500), 1), ((1500, 40), 1)],
)
def test_the_longer_side_is_enlarged_by_a_whole_factor(shape: tuple[int, int], factor: int) -> None:
    picture = overlay(image_of(*shape, 1), predicted=np.zeros((0, 2)))
    assert picture.dtype == np.uint8
    assert picture.shape[0] == shape[0] * factor + 2 * BAND
    assert picture.shape[1] >= shape[1] * factor


def test_each_dot_has_the_colour_of_its_verdict() -> None:
    predicted = np.array([[10, 10], [10, 90], [60, 100.4]], np.float32)
    true = np.array([[11, 10], [90, 10], [60, 100]], np.float32)
    picture = overlay(
        image_of(110, 110, 1),
        predicted=predicted,
        true=true,
        matched_predicted=np.array([True, False, True]),
        matched_true=np.array([True, False, True]),
    )
    assert near(picture, (10, 10), 10) == {"green"}
    assert near(picture, (10, 90), 10) == {"vermilion"}
    assert near(picture, (90, 10), 10) == {"yellow"}
    assert near(picture, (60, 100), 10) == {"green"}
    assert near(picture, (40, 40), 10) == set()
    legend = picture[-BAND:]
    for colour in (GREEN, VERMILION, YELLOW):
        assert (legend == colour).all(axis=-1).any()


def test_a_ring_is_centred_on_its_voxel() -> None:
    picture = overlay(np.zeros((110, 110, 1), np.float32), predicted=np.array([[30.0, 70.0]]))
    rows, columns = np.nonzero((picture[BAND:-BAND] == ORANGE).all(axis=-1))
    assert abs(rows.mean() - (30.5 * 10 - 0.5)) <= 0.5
    assert abs(columns.mean() - (70.5 * 10 - 0.5)) <= 0.5


def test_predictions_alone_are_orange_and_counted_by_nothing_else() -> None:
    picture = overlay(image_of(110, 110, 1), predicted=np.array([[20.0, 30.0], [0.0, 109.0]]))
    assert near(picture, (20, 30), 10) == {"orange"}
    assert near(picture, (0, 109), 10) == {"orange"}
    assert not (picture == GREEN).all(axis=-1).any()


def test_a_volume_is_projected_and_shows_the_dots_of_all_planes() -> None:
    volume = np.zeros((7, 55, 55, 1), np.float32)
    volume[2, 10:20, 10:20] = 50
    volume[6, 30:40, 30:40] = 100
    dots = np.array([[0, 45.0, 5.0], [6, 5.0, 45.0]])
    picture = overlay(volume, predicted=dots, spacing=(5.0, 1.0, 1.0))
    assert picture.shape[0] == 1100 + 2 * BAND
    levels = picture[BAND:-BAND, :, 0].astype(int)
    assert levels[700, 700] == 255 and 100 < levels[300, 300] < 155 and levels[500, 100] == 0
    assert near(picture, (45, 5), 20) == {"orange"}
    assert near(picture, (5, 45), 20) == {"orange"}


def test_the_region_that_was_not_scored_is_dimmed() -> None:
    image = image_of(110, 110, 1)
    valid = np.ones((110, 110), bool)
    valid[:, 60:] = False
    none = np.zeros((0, 2))
    whole, part = overlay(image, predicted=none), overlay(image, predicted=none, valid=valid)
    np.testing.assert_array_equal(whole[BAND:-BAND, :600], part[BAND:-BAND, :600])
    ratio = part[BAND:-BAND, 600:1100].mean() / whole[BAND:-BAND, 600:1100].mean()
    assert ratio == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels(channels: int) -> None:
    image = np.zeros((110, 110, channels), np.float32)
    image[30:60, 30:60, -1] = 7
    pixel = overlay(image, predicted=np.zeros((0, 2)))[BAND + 450, 450]
    expected = [0, 0, 255] if channels == 3 else [255, 255, 255]
    np.testing.assert_array_equal(pixel, expected)


def test_no_dots_at_all_and_a_flat_image() -> None:
    none = np.zeros((0, 2), np.float32)
    no_flags = np.zeros(0, bool)
    picture = overlay(
        np.full((110, 110, 1), 5, np.float32),
        predicted=none,
        true=none,
        matched_predicted=no_flags,
        matched_true=no_flags,
    )
    assert not picture[BAND:-BAND, :1100].any()
    assert picture[-BAND:].max() > 200, "the legend is still there"


def test_the_scale_bar_has_the_length_that_it_states() -> None:
    # 110 voxels of 2 µm: a sixth is 36.7 µm, so the bar is 20 µm, 10 voxels, 100 pixels. It is in
    # the heading, where no cell is.
    dark = np.zeros((110, 110, 1), np.float32)
    picture = overlay(dark, predicted=np.zeros((0, 2)), spacing=(2.0, 2.0))
    assert (picture[BAND // 2, -112:] == 255).all(axis=-1).sum() == 100
    assert not picture[BAND:-BAND].any()
    assert not (overlay(dark, predicted=np.zeros((0, 2)))[:BAND] > 200).any()


def test_a_narrow_image_still_has_room_for_heading_and_legend() -> None:
    plain = overlay(image_of(100, 5, 1), predicted=np.zeros((0, 2)))
    named = overlay(image_of(100, 5, 1), predicted=np.zeros((0, 2)), title="a long name " * 9)
    assert named.shape[1] > plain.shape[1] > 55
    assert (named[:BAND, -40:] > 200).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.zeros((2, 3))}, r"predicted has shape \(2, 3\)"),
        ({"true": np.zeros((2, 3))}, r"true has shape \(2, 3\)"),
        ({"matched_true": None}, "matched_true and true"),
        ({"true": None}, "given together"),
        ({"matched_predicted": np.zeros(3, bool)}, r"matched_predicted has shape \(3,\) for 2"),
        ({"valid": np.ones((5, 5), bool)}, r"valid has shape \(5, 5\)"),
        ({"image": np.zeros((5, 5))}, "image has shape"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "image": image_of(60, 60, 1),
        "predicted": np.ones((2, 2)),
        "true": np.ones((1, 2)),
        "matched_predicted": np.array([True, False]),
        "matched_true": np.array([True]),
    } | change
    with pytest.raises(InputError, match=message):
        overlay(arguments.pop("image"), **arguments)


def test_saving_writes_the_same_picture_and_leaves_nothing_else(tmp_path: Path) -> None:
    image, dots = image_of(60, 60, 1), np.array([[5.0, 6.0]])
    path = tmp_path / "overlay.png"
    path.write_bytes(b"an older file")
    pictures.save_overlay(path, image, predicted=dots, title="name")
    np.testing.assert_array_equal(
        np.asarray(Image.open(path)), overlay(image, predicted=dots, title="name")
    )
    assert os.listdir(tmp_path) == ["overlay.png"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "overlay.png"
    path.write_bytes(b"an older file")

    def fill_the_disk(self: Image.Image, fp: Path, format: str, **_: Any) -> None:
        Path(fp).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        pictures.save_picture(path, np.zeros((4, 4, 3), np.uint8))
    assert path.read_bytes() == b"an older file"
    assert os.listdir(tmp_path) == ["overlay.png"]


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    pictures.save_picture(path, np.zeros((4, 5, 3), np.uint8))
    assert np.asarray(Image.open(path)).shape == (4, 5, 3)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_mosaic_keeps_every_panel_unchanged() -> None:
    rng = np.random.default_rng(0)
    panels = [rng.integers(0, 255, (h, w, 3), np.uint8) for h, w in ((30, 50), (60, 200))]
    plain = mosaic(panels)
    assert plain.shape == (60 + 2 * 16, 50 + 200 + 3 * 16, 3)
    np.testing.assert_array_equal(plain[16:46, 16:66], panels[0])
    np.testing.assert_array_equal(plain[16:76, 82:282], panels[1])
    assert (plain[50:, :66] == 255).all()
    titled = mosaic(panels, titles=["", "two\nlines"])
    np.testing.assert_array_equal(titled[80:140, 82:282], panels[1])
    assert titled[:80].min() < 50
    with pytest.raises(InputError, match="1 titles for 2 pictures"):
        mosaic(panels, titles=["one"])


def test_colours_rise_in_lightness_and_follow_the_table() -> None:
    ramp = colourise(np.linspace(-3, 5, 301))
    lightness = ramp @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all() and lightness[-1] - lightness[0] > 230
    np.testing.assert_array_equal(ramp[[0, -1]], [[0, 0, 4], [252, 253, 191]])
    np.testing.assert_array_equal(colourise(np.full((2, 3, 4), 7.0)).shape, (2, 3, 4, 3))
    clipped = colourise(np.array([-9.0, 0.0, 1.0, 9.0]), lowest=0, highest=1)
    np.testing.assert_array_equal(clipped[0], clipped[1])
    np.testing.assert_array_equal(clipped[2], clipped[3])
