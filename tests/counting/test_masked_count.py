"""Densities, volumes and integrals with a mask: of the part inside it, whatever its resolution."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax.counting import region_counts
from cellcount_jax.counting.density import density_map
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.sources import open_source
from cellcount_jax.inference import model_file

SHAPE, SPACING = (60, 80), (2.0, 1.5)
# The right half, and a line of voxels of the mask within the left one: at another resolution.
MASK = np.zeros((12, 10), np.uint8)
MASK[:, 5:] = 3
MASK[3, :] = 1


def at_image(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask on the voxels of the image, whose number is a multiple of its own."""
    return np.kron(mask != 0, np.ones(np.floor_divide(shape, mask.shape), int)).astype(bool)


def inside(mask: np.ndarray, tmp_path: Path) -> region_counts.Mask:
    np.save(tmp_path / "mask.npy", mask)
    return region_counts.Mask(open_source(tmp_path / "mask.npy"))


def test_density_of_the_part_inside(
    tmp_path: Path, random_points: Callable[..., np.ndarray]
) -> None:
    mask, fine = inside(MASK, tmp_path), at_image(MASK, SHAPE)
    points = random_points(SHAPE, 500)
    points = points[mask.holds(points, SHAPE)]
    found = density_map(points, shape=SHAPE, spacing=SPACING, bin_um=15, inside=mask.share_of)
    counts = np.zeros(SHAPE, int)
    np.add.at(counts, tuple(np.floor(points + 0.5).astype(int).T), 1)
    for index in np.ndindex(found.values.shape):
        part = tuple(
            slice(max(i * b - b // 2, 0), (i + 1) * b - b // 2)
            for i, b in zip(index, found.block, strict=True)
        )
        area = fine[part].sum() * np.prod(SPACING) / 1e6
        expected = counts[part].sum() / area if area else 0
        assert found.values[index] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("theirs", [(60, 80), (12, 10), (6, 40), (120, 160)])
def test_volumes_of_regions_are_of_the_part_inside(tmp_path: Path, theirs: tuple[int, int]) -> None:
    mask, fine = inside(MASK, tmp_path), at_image(MASK, (120, 160))
    labels = np.zeros(theirs, int)
    labels[:, : theirs[1] // 5] = 7  # in the left half
    labels[theirs[0] // 2 :, theirs[1] * 4 // 5 :] = 9
    points = np.array([[17.0, 2.0], [50.0, 70.0], [50.0, 71.0], [3.0, 50.0]], np.float32)
    np.save(tmp_path / "labels.npy", labels)
    with open_source(tmp_path / "labels.npy") as source:
        rows = region_counts.count_regions(points, source, shape=SHAPE, spacing=SPACING, mask=mask)
    on_fine = np.kron(labels, np.ones(np.floor_divide((120, 160), theirs), int))
    assert [row["region"] for row in rows] == [7, 9, "outside"]
    for row, label, count in zip(rows, (7, 9, 0), (1, 2, 1), strict=True):
        area = (fine & (on_fine == label)).sum() / 4 * np.prod(SPACING) / 1e6
        assert row["count"] == count and row["area_mm2"] == pytest.approx(area)
        assert row["density_per_mm2"] == pytest.approx(count / area)
    # A region in which nothing was counted has no density.
    nothing = inside(np.array([[0, 1]]), tmp_path)
    with open_source(tmp_path / "labels.npy") as source:
        rows = region_counts.count_regions(
            points[1:], source, shape=SHAPE, spacing=None, mask=nothing
        )
    assert rows[0] == {"region": 7, "count": 0, "volume_voxels": 0.0, "density_per_voxel": None}


@pytest.mark.usefixtures("quick_compiling")
def test_half_of_the_tissue_has_the_same_density(
    tmp_path: Path, run_2d: Path, cells_2d: Path, call: Callable[..., int]
) -> None:
    """Of an image that is repeated, what is counted of one half is as dense as the whole."""
    file, output = tmp_path / "image.tif", tmp_path / "out"
    with open_source(cells_2d / "test" / "t0.png") as source:
        pixels = source.read((slice(0, 40), slice(0, 40)))[..., 0].astype(np.uint8)
    write_image(file, np.tile(pixels, (2, 4)))
    write_image(tmp_path / "mask.png", np.array([[0, 0, 255, 255]], np.uint8).repeat(4, 0))
    command: tuple[Any, ...] = ("count", file, "--model", run_2d, "--spacing", "1,1")
    densities = []
    for name, options in {"all": (), "half": ("--mask", tmp_path / "mask.png")}.items():
        more = ("--density", "5", "--output", output / name, *options)
        assert call(*command, *more, "--regions", file.with_name("mask.png")) == 0
        folder = output / name / "image"
        summary = json.loads((folder / "summary.json").read_text())
        with (output / name / "counts.csv").open() as table:
            (row,) = csv.DictReader(table)
        assert int(row["voxels"]) == summary["voxels_counted"]
        # The cells that the mask leaves out are not missed.
        assert not {doubt["kind"] for doubt in summary["doubts"]} & {"missed", "count"}
        densities.append(summary["count"] / summary["voxels_counted"])
        report = (folder / "report.html").read_text()
        with (folder / "regions.csv").open() as table:
            regions = {row["region"]: row for row in csv.DictReader(table)}
    assert summary["voxels_counted"] == 80 * 80
    assert densities[1] == pytest.approx(densities[0], rel=0.15)
    assert float(regions["255"]["area_mm2"]) == pytest.approx(80 * 80 / 1e6)
    assert float(regions["outside"]["area_mm2"]) == 0
    per_mm2 = round(summary["count"] / (80 * 80 / 1e6), -1)
    assert f"{per_mm2:,.0f} cells per mm²" in report or f"{per_mm2:.3g}" in report
    assert "0.0064 mm² inside the mask, 50 % of 80 × 160 µm" in report


@pytest.mark.usefixtures("quick_compiling")
@pytest.mark.parametrize("kernel", ["gaussian", "fidt"])
def test_an_integral_is_of_the_part_inside(
    tmp_path: Path,
    untrained_model: Callable[..., Any],
    call: Callable[..., int],
    kernel: str,
) -> None:
    changes = {"target__count_head": True} if kernel == "fidt" else {"target__kernel": kernel}
    model = untrained_model(2, detect__split_from=0.0, **changes)
    model_file.export_model(model, tmp_path / "model.zip", card="")
    image = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    write_image(tmp_path / "image.tif", image)
    write_image(tmp_path / "mask.tif", MASK)
    model = model_file.load_model(tmp_path / "model.zip")
    maps = model.predict_maps(image[..., None])
    assert maps.density is not None
    expected = model.integral(maps.density, region=at_image(MASK, SHAPE))
    for voxels in (10000, 1500):
        output = tmp_path / str(voxels)
        command = ("count", tmp_path / "image.tif", "--model", tmp_path / "model.zip")
        options = ("--output", output, "--mask", tmp_path / "mask.tif", "--max-voxels", voxels)
        assert call(*command, *options) == 0
        summary = json.loads((output / "image" / "summary.json").read_text())
        assert (summary["tiles"] > 1) == (voxels < 4800)
        assert summary["integral"] == pytest.approx(expected, rel=1e-3, abs=0.01)
