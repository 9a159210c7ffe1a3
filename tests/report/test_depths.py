"""The picture of all depths: whose place has which colour, and that no cell is left out."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cellcount_jax.report import depths
from cellcount_jax.report.counted import Counted
from cellcount_jax.report.views import open_volume, project

SHAPE = (40, 30, 50)


def counted_of(points: np.ndarray, image: np.ndarray) -> Counted:
    volume = open_volume(image.__getitem__, SHAPE, spacing=(6.0, 1.5, 1.5), chunks=None)
    nothing = np.zeros((0, 3)), np.zeros(0)
    return Counted(volume, points, np.ones(len(points)), 0.5, *nothing, 4.0, ("µm", 1.5))


def shown(counted: Counted) -> tuple[str, np.ndarray, np.ndarray | None]:
    """The figure, and its pixels and their colours."""
    region = (slice(8, 12), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    slab = project(counted.volume, region, axis=0, box=(520, 640))
    html, picture = depths.all_depths(counted, slab, box=(520, 640), frames=[], note=" The end.")
    return html, picture.pixels[..., 0], picture.tint


def colour_of(depth: int) -> tuple[int, ...]:
    """By definition: the colours are spread evenly over the layers of as many planes."""
    layer = int(np.searchsorted(depths.layer_borders(SHAPE[0]), depth, "right")) - 1
    return tuple(np.rint(depths.layer_colours(16)[layer]).astype(int).tolist())


def test_a_place_has_the_colour_of_the_depth_where_it_is_brightest() -> None:
    image = np.random.default_rng(0).normal(100, 10, (*SHAPE, 1)).astype(np.float32)
    html, pixels, tint = shown(counted_of(np.zeros((0, 3)), image))
    np.testing.assert_allclose(pixels, image[..., 0].max(axis=0))
    expected = [[colour_of(z) for z in row] for row in image[..., 0].argmax(axis=0)]
    assert tint is not None
    np.testing.assert_array_equal(np.rint(255 * tint), expected)
    assert "with 0 cells." in html and html.endswith("The end.</figcaption></figure>")
    assert len({colour_of(z) for z in range(SHAPE[0])}) == 16


@pytest.mark.parametrize("most", [10**9, 10])
def test_every_cell_has_a_ring_in_the_colour_of_its_depth(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(depths, "MAX_READ_VALUES", most)
    points = np.random.default_rng(1).uniform(-0.5, np.array(SHAPE) - 0.5, (90, 3))
    html, _, tint = shown(counted_of(points, np.ones((*SHAPE, 1), np.float32)))
    found: dict[str, int] = {}
    for colour, path in re.findall(r'class="counted" style="stroke:(#\w+)" d="([^"]*)"', html):
        found[colour] = path.count("M")
    expected: dict[str, int] = {}
    for z in np.clip(np.floor(points[:, 0] + 0.5), 0, SHAPE[0] - 1).astype(int):
        colour = "#{:02x}{:02x}{:02x}".format(*colour_of(z))
        expected[colour] = expected.get(colour, 0) + 1
    assert found == expected and "with 90 cells." in html
    # Of a volume that is too large a slab is behind them, which is said.
    assert (
        (tint is None) == (most == 10) == ("only planes 8 to 11 (24\N{NO-BREAK SPACE}µm)" in html)
    )


def test_where_there_are_very_many_the_upper_cells_are_seen() -> None:
    rng = np.random.default_rng(2)
    low = np.concatenate([np.full((30_000, 1), 39.0), rng.uniform(0, 29, (30_000, 2))], axis=1)
    html, *_ = shown(counted_of(np.concatenate([low, low - (39, 0, 0)]), np.ones((*SHAPE, 1))))
    paths = re.findall(r'class="dot counted" style="stroke:(#\w+)"', html)
    assert paths == ["#{:02x}{:02x}{:02x}".format(*colour_of(0))]
    assert "with 60,000 cells." in html


def test_the_depths_stand_below_their_colours() -> None:
    html, *_ = shown(counted_of(np.zeros((0, 3)), np.ones((*SHAPE, 1), np.float32)))
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", html.rpartition("<svg")[2])
    assert texts[0] == "depth 0 µm" and all(text.endswith(" µm") for text in texts)
    assert 100 < float(texts[-1].split()[0]) <= SHAPE[0] * 6.0
    assert depths.layer_borders(3).tolist() == [0, 1, 2, 3]
    assert depths.layer_colours(1).shape == (1, 3)
