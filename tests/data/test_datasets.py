"""Data sets: the published splits, folders of one's own, and what must not be accepted."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
import pytest
from PIL import Image as PillowImage

from cellcount_jax.config import default_config
from cellcount_jax.data import datasets
from cellcount_jax.data.labelled_area import parse_region
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points

DATA = Path(__file__).parents[3] / "shared" / "data"
SPACING = (6.0, 1.62, 1.62)


def real_data(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real data {path} are not here")
    return path


def load(kind: str, directory: Path | str, *, seed: int = 0, **options: Any) -> Dataset:
    data: ml_collections.ConfigDict = default_config().data
    data.update({"kind": kind, "dir": str(directory), "test_fraction": 0.0, **options})
    return datasets.load(data, seed=seed)


def given(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    return array


def names(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.name for sample in samples]


def write(path: Path, *, shape: tuple[int, ...] = (8, 9), fill: int = 1, **options: Any) -> None:
    options = {"ndim": len(shape)} | options if path.suffix != ".png" else options
    write_image(path, np.full(shape, fill, np.uint8), **options)


def write_dots(path: Path, *points: tuple[float, ...], ndim: int = 2) -> None:
    write_points(path, np.asarray(points, np.float32).reshape(-1, ndim))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five labelled 2D images, a to e, and two without dots."""
    for index, name in enumerate("abcde"):
        write(tmp_path / f"{name}.tif", fill=index)
        write_dots(tmp_path / f"{name}.csv", (index, 2), (3, 4))
    write(tmp_path / "u.tif")
    write(tmp_path / "v.png")
    return tmp_path


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Volumes of 4x10x6: three for training, one for test, two unlabelled."""
    for name in ("train/t1", "train/t2", "train/t3", "test/s1"):
        write(tmp_path / f"{name}.tif", shape=(4, 10, 6), spacing=SPACING)
        write_dots(tmp_path / f"{name}.csv", (1, 2, 3), (2, 8.4, 1), ndim=3)
    for name in ("unlabeled/u1", "unlabeled/u2"):
        write(tmp_path / f"{name}.tif", shape=(4, 12, 6), spacing=SPACING)
    return tmp_path


@pytest.fixture(scope="module")
def small_vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 tiny images; image NNN has all pixels NNN and a dot in its corner."""
    directory = tmp_path_factory.mktemp("vgg")
    dots = np.zeros((5, 6, 3), np.uint8)
    dots[0, 0, 0] = 255
    for index in range(1, 201):
        image = np.full((5, 6, 3), index, np.uint8)
        PillowImage.fromarray(image).save(directory / f"{index:03d}cell.png")
        PillowImage.fromarray(dots).save(directory / f"{index:03d}dots.png")
    return directory


# --- VGG and MBM


def test_the_split_of_vgg(small_vgg):
    dataset = load("vgg", small_vgg, num_labelled=8, num_unlabelled=20)
    order = np.random.RandomState(5455).permutation(200) + 1
    assert order[:5].tolist() == [127, 139, 113, 90, 155]  # the authors' split
    assert names(dataset.labelled) == [f"{i:03d}" for i in order[:8]]
    assert names(dataset.unlabelled) == [f"{i:03d}" for i in order[8:28]]
    assert names(dataset.tests["test"]) == [f"{i:03d}" for i in order[100:]]
    for sample in (*dataset.labelled, *dataset.unlabelled, *dataset.tests["test"]):
        assert (sample.image == int(sample.name)).all()
        assert not sample.spacing_known
    assert all(sample.points is None for sample in dataset.unlabelled)
    assert all(given(sample.points).tolist() == [[0, 0]] for sample in dataset.tests["test"])
    assert dataset.description == (
        f"VGG cells from {small_vgg}: 8 labelled, 20 unlabelled, 100 test images of 5x6, 3 channels"
    )


def test_all_of_vgg_may_be_labelled(small_vgg):
    dataset = load("vgg", small_vgg)
    assert (len(dataset.labelled), len(dataset.unlabelled)) == (100, 0)
    assert load("vgg", small_vgg, split_seed=1, num_labelled=1).labelled[0].name != "127"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labelled": 101}, r"data\.num_labelled = 101: there are 100"),
        ({"num_labelled": 0}, r"data\.num_labelled = 0: .* at least 1"),
        ({"num_labelled": -2}, r"data\.num_labelled = -2"),
        ({"num_labelled": 8, "num_unlabelled": 93}, r"data\.num_unlabelled = 93: there are 92"),
    ],
)
def test_more_images_than_there_are(small_vgg, options, message):
    with pytest.raises(InputError, match=message):
        load("vgg", small_vgg, **options)


def test_vgg_files_that_do_not_fit_together(tmp_path):
    for name in ("001cell", "001dots", "002cell"):
        PillowImage.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"002cell\.png: has no image of its dots"):
        load("vgg", tmp_path)
    (tmp_path / "002cell.png").rename(tmp_path / "003dots.png")
    with pytest.raises(InputError, match=r"003dots\.png: has no image beside it"):
        load("vgg", tmp_path)
    (tmp_path / "003dots.png").unlink()
    with pytest.raises(InputError, match="1 images with dots .* is defined on all 200"):
        load("vgg", tmp_path)


def test_dots_of_another_size_than_the_image(small_vgg, tmp_path):
    for path in small_vgg.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "127dots.png").unlink()
    PillowImage.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / "127dots.png")
    with pytest.raises(InputError, match=r"127dots\.png: the dot image is 6 x 6, its image 5 x 6"):
        load("vgg", tmp_path)


def test_the_real_vgg():
    directory = real_data("vgg")
    start = time.perf_counter()
    dataset = load("vgg", directory, num_labelled=8)
    assert time.perf_counter() - start < 20  # about 1.3 s on a quiet machine
    assert (len(dataset.labelled), len(dataset.unlabelled)) == (8, 92)
    assert names(dataset.labelled) == ["127", "139", "113", "090", "155", "128", "107", "104"]
    assert {sample.image.shape for sample in dataset.labelled} == {(256, 256, 3)}
    counts = [len(given(sample.points)) for sample in dataset.tests["test"]]
    assert len(counts) == 100
    assert 74 <= min(counts) < max(counts) <= 317


def test_the_real_mbm():
    directory = real_data("mbm")
    dataset = load("mbm", directory, num_labelled=4, num_unlabelled=3)
    images = sorted(path.stem for path in directory.glob("*.png") if "dots" not in path.name)
    order = [images[index] for index in np.random.RandomState(5455).permutation(44)]
    assert names(dataset.labelled) == order[:4]
    assert names(dataset.unlabelled) == order[4:7]
    assert names(dataset.tests["test"]) == order[15:]
    assert dataset.labelled[0].image.shape == (600, 600, 3)
    # Image and dots of one name: dots are on nuclei, which are darker than what is between.
    darker = [
        s.image[tuple(given(s.points).astype(int).T)].mean() < s.image.mean()
        for s in dataset.labelled
    ]
    assert all(darker)


# --- volumes


def test_volumes_by_folder(volumes):
    dataset = load("volumes", volumes)
    assert names(dataset.labelled) == ["t1", "t2", "t3"]
    assert names(dataset.unlabelled) == ["u1", "u2"]
    assert names(dataset.tests["test"]) == ["s1"]
    first = dataset.labelled[0]
    assert first.image.shape == (4, 10, 6, 1)
    assert (first.spacing, first.spacing_known, first.valid) == (SPACING, True, None)
    assert dataset.description == (
        f"Volumes from {volumes}: 3 labelled, 2 unlabelled, 1 test volumes of 4x10x6 to 4x12x6,"
        " 1 channel, voxels of 6 x 1.62 x 1.62 um"
    )


def test_volumes_that_are_not_labelled_are_unlabelled_after_the_others(volumes):
    dataset = load("volumes", volumes, train_names=("t3", "t1"), num_labelled=1)
    assert names(dataset.labelled) == ["t3"]
    assert names(dataset.unlabelled) == ["u1", "u2", "t2", "t1"]
    assert all(sample.points is None for sample in dataset.unlabelled)
    dataset = load("volumes", volumes, train_names=("t2",), num_unlabelled=3)
    assert names(dataset.unlabelled) == ["u1", "u2", "t1"]
    (volumes / "unlabeled").rename(volumes / "unlabelled")
    assert names(load("volumes", volumes, num_labelled=3).unlabelled) == ["u1", "u2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_names": ("t1", "nix")}, "there is no volume 'nix'; there are t1, t2, t3"),
        ({"train_names": ("t1", "t1")}, "stands there twice"),
        ({"unlabelled_names": ("nix",)}, r"data\.unlabelled_names = \('nix',\): there is no"),
        ({"train_names": ("t1",), "num_labelled": 2}, r"data\.num_labelled = 2: there are 1"),
    ],
)
def test_names_of_training_volumes(volumes, options, message):
    with pytest.raises(InputError, match=message):
        load("volumes", volumes, **options)


def test_volumes_need_train_and_dots_and_depth(volumes):
    (volumes / "test" / "s1.csv").unlink()
    with pytest.raises(InputError, match="none of its 1 images has dots"):
        load("volumes", volumes)
    write(volumes / "test" / "s2.tif", shape=(4, 10, 6), spacing=SPACING)
    write_dots(volumes / "test" / "s2.csv", (1, 2, 3), ndim=3)
    with pytest.raises(InputError, match=r"s1\.tif: an image here needs dots"):
        load("volumes", volumes)
    write_dots(volumes / "test" / "s1.csv", (2, 3))
    write(volumes / "test" / "s1.tif")
    with pytest.raises(InputError, match=r"s1\.tif: a volume with axes z, y, x is needed"):
        load("volumes", volumes)
    (volumes / "unlabelled").mkdir()
    with pytest.raises(InputError, match="are both there; one is needed"):
        load("volumes", volumes)
    (volumes / "train").rename(volumes / "other")
    with pytest.raises(InputError, match="has no folder train/"):
        load("volumes", volumes)


def test_region_and_held_out_region(volumes):
    dataset = load(
        "volumes", volumes, train_names=("t1",), region="y<5", held_out_region="y>=7,z>0"
    )
    (train,) = dataset.labelled
    (held_out,) = dataset.tests["held_out"]
    y, z = np.arange(10)[:, None], np.arange(4)[:, None, None]
    np.testing.assert_array_equal(given(train.valid), np.broadcast_to(y < 5, (4, 10, 6)))
    np.testing.assert_array_equal(
        given(held_out.valid), np.broadcast_to((y >= 7) & (z > 0), (4, 10, 6))
    )
    assert list(dataset.tests) == ["test", "held_out"]
    assert len(given(train.points)) == len(given(held_out.points)) == 2  # all are kept, valid tells
    assert dataset.tests["test"][0].valid is None
    assert "1 test, 1 held_out volumes" in dataset.description


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"region": "y<5", "held_out_region": "y>=4"},
            "'y>=4': overlaps config.data.region",
        ),
        ({"held_out_region": "y>=4"}, "overlaps"),
        ({"region": "y<1"}, r"none of the 3 labelled .* has a dot in config\.data\.region = 'y<1'"),
        ({"region": "y<<5"}, "region 'y<<5'"),
    ],
)
def test_regions_that_cannot_be_used(volumes, options, message):
    with pytest.raises(InputError, match=message):
        load("volumes", volumes, **options)


def test_regions_as_text():
    z, y, x = np.indices((4, 5, 6))
    for text, expected in {
        "": z >= 0,
        "y<3": y < 3,
        " z >= 1 , x<=2 ": (z >= 1) & (x <= 2),
        "y>0,y<4,x>1.5": (y > 0) & (y < 4) & (x >= 2),
    }.items():
        mask = np.zeros((4, 5, 6), bool)
        mask[parse_region(text, (4, 5, 6))] = True
        np.testing.assert_array_equal(mask, expected)
    assert parse_region("x>=1", (2, 2)) == (slice(0, 2), slice(1, 2))


@pytest.mark.parametrize("text", ["y", "y<", "y=3", "w<3", "y<3,", "3>y", "y<3;x<2", "y<-1", "y<a"])
def test_regions_that_are_none_name_their_text(text):
    with pytest.raises(InputError, match=f"region '{text}'"):
        parse_region(text, (4, 5, 6))


def test_an_image_has_no_z_region():
    with pytest.raises(InputError, match="'z<3' is not an axis of y, x"):
        parse_region("z<3", (5, 6))


def test_the_real_light_sheet_volumes():
    dataset = load(
        "volumes",
        real_data("lightsheet_cfos"),
        train_names=("969",),
        region="y<120",
        held_out_region="y>=136",
    )
    assert names(dataset.unlabelled) == ["1230u", "695u", "753u", "969u"]
    assert [len(given(s.points)) for s in dataset.tests["test"]] == [438, 132]
    (train,), (held_out,) = dataset.labelled, dataset.tests["held_out"]
    assert (train.image.shape, train.spacing) == ((64, 200, 200, 1), (6.0, 1.62, 1.62))
    assert given(train.labels).max() == len(given(train.points)) == 1734
    voxels = tuple(np.floor(given(train.points) + 0.5).astype(int).T)
    assert given(train.valid)[voxels].sum() == (voxels[1] < 120).sum() > 1000
    assert given(held_out.valid)[voxels].sum() == (voxels[1] >= 136).sum() > 400

    dataset = load("volumes", real_data("lightsheet_microglia"), train_names=("1874",))
    assert names(dataset.labelled) == ["1874"]
    assert len(given(dataset.labelled[0].points)) == 310
    assert names(dataset.unlabelled)[-1] == "6871"
    assert len(dataset.unlabelled) == 9
    assert [len(given(s.points)) for s in dataset.tests["test"]] == [314, 317, 130, 132]


# --- a folder of one's own


def test_a_folder_of_ones_own(folder):
    (folder / ".hidden.csv").write_text("x")
    (folder / "notes.txt").write_text("x")
    dataset = load("folder", folder)
    assert names(dataset.labelled) == list("abcde")
    assert names(dataset.unlabelled) == ["u", "v"]
    assert dict(dataset.tests) == {}
    for index, sample in enumerate(dataset.labelled):
        assert (sample.image == index).all()
        assert given(sample.points).tolist() == [[index, 2], [3, 4]]
        assert sample.source == str(folder / f"{sample.name}.tif")
    assert "5 labelled, 2 unlabelled, 0 test images of 8x9, 1 channel" in dataset.description
    dataset = load("folder", folder, num_labelled=2, num_unlabelled=4)
    assert names(dataset.labelled) == ["a", "b"]
    assert names(dataset.unlabelled) == ["u", "v", "c", "d"]


@pytest.mark.parametrize(("fraction", "held_out"), [(0, 0), (0.01, 1), (0.3, 2), (0.99, 4)])
def test_held_out_images_of_a_folder(folder, fraction, held_out):
    dataset = load("folder", folder, test_fraction=fraction)
    test = names(dataset.tests.get("test", ()))
    assert len(test) == held_out
    assert sorted(test + names(dataset.labelled)) == list("abcde")
    again = load("folder", folder, test_fraction=fraction)
    assert names(again.tests.get("test", ())) == test


def test_held_out_images_depend_on_the_seed(folder):
    chosen = {
        load("folder", folder, test_fraction=0.2, seed=seed).tests["test"][0].name
        for seed in range(12)
    }
    assert len(chosen) > 2


def test_two_labelled_images_are_both_for_training(folder):
    for name in "cde":
        (folder / f"{name}.csv").unlink()
    dataset = load("folder", folder, test_fraction=0.5)
    assert names(dataset.labelled) == ["a", "b"]
    assert not dataset.tests


def test_a_test_folder_is_the_test_set(folder):
    write(folder / "test" / "a.tif", fill=9)
    write_dots(folder / "test" / "a.csv", (1, 1))
    dataset = load("folder", folder, test_fraction=0.5)
    assert names(dataset.labelled) == list("abcde")
    (test,) = dataset.tests["test"]
    assert (test.image == 9).all()


def test_labels_and_valid_regions_of_a_folder(folder):
    labels = np.zeros((8, 9), np.uint8)
    labels[3, 3:6] = 2
    write_image(folder / "a_labels.tif", labels)
    valid = np.zeros((8, 9), bool)
    valid[:6] = True
    write_image(folder / "a_valid.png", valid)
    dataset = load("folder", folder, region="x<7")
    first, second = dataset.labelled[:2]
    np.testing.assert_array_equal(given(first.labels), labels)
    np.testing.assert_array_equal(first.valid, valid & (np.arange(9) < 7))
    np.testing.assert_array_equal(given(second.valid), np.broadcast_to(np.arange(9) < 7, (8, 9)))
    assert second.labels is None
    assert names(dataset.unlabelled) == ["u", "v"]
    with pytest.raises(InputError, match=r"region 'y>6': holds no valid voxel of .*a\.tif"):
        load("folder", folder, region="y>6")


def test_an_ome_name_has_its_dots_under_the_short_name(folder):
    (folder / "a.tif").rename(folder / "a.ome.tif")
    assert names(load("folder", folder).labelled) == list("abcde")


def test_zero_dots_are_legal_in_one_image_but_not_in_all(folder):
    write_dots(folder / "a.csv")
    dataset = load("folder", folder)
    assert given(dataset.labelled[0].points).shape == (0, 2)
    for name in "bcde":
        write_dots(folder / f"{name}.csv")
    with pytest.raises(InputError, match="none of the 5 labelled training images has a dot where"):
        load("folder", folder)


def test_points_without_image(folder):
    write_dots(folder / "z.csv", (1, 1))
    with pytest.raises(InputError, match=r"z\.csv: there is no image z"):
        load("folder", folder)


@pytest.mark.parametrize("role", ["labels", "valid"])
def test_labels_or_mask_without_image_or_dots(folder, role):
    write(folder / f"z_{role}.tif")
    with pytest.raises(InputError, match=rf"z_{role}\.tif: there is no image z"):
        load("folder", folder)
    (folder / f"z_{role}.tif").rename(folder / f"u_{role}.tif")
    if role == "labels":  # their middles are the dots
        assert "u" in names(load("folder", folder).labelled)
        return
    with pytest.raises(InputError, match=rf"u_{role}\.tif: goes with dots, but .* no u\.csv"):
        load("folder", folder)


@pytest.mark.parametrize("role", ["labels", "valid"])
def test_labels_or_mask_of_another_shape(folder, role):
    write(folder / f"a_{role}.tif", shape=(8, 8))
    with pytest.raises(InputError, match=rf"a_{role}\.tif: is 8 x 8, its image .*a\.tif is 8 x 9"):
        load("folder", folder)


def test_labels_without_their_row_and_empty_masks(folder):
    write(folder / "a_labels.tif", fill=3)
    with pytest.raises(InputError, match=r"a_labels\.tif: labels up to 3, but .* has 2 rows"):
        load("folder", folder)
    (folder / "a_labels.tif").unlink()
    write(folder / "a_valid.tif", fill=0)
    with pytest.raises(InputError, match=r"a\.tif: its valid region is empty"):
        load("folder", folder)


def test_two_images_of_one_name(folder):
    write(folder / "a.png")
    with pytest.raises(InputError, match=r"a\.tif: and a\.png have the same name"):
        load("folder", folder)


def test_no_image_has_points(folder):
    for path in folder.glob("*.csv"):
        path.unlink()
    with pytest.raises(InputError, match=r"none of its 7 images has dots; a\.csv beside a\.tif"):
        load("folder", folder)


def test_points_outside_the_image(folder):
    write_dots(folder / "b.csv", (1, 1), (8, 2), (2, 9))
    with pytest.raises(InputError, match=r"b\.csv: 2 of 3 points lie outside .* \(8, 2\)"):
        load("folder", folder)


def test_a_damaged_file_in_a_folder(folder):
    path = folder / "v.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"v\.png"):
        load("folder", folder)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_test_fraction_out_of_range(folder, fraction):
    with pytest.raises(InputError, match=r"data\.test_fraction"):
        load("folder", folder, test_fraction=fraction)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"data\.dir = '.*gone': does not exist"):
        load("folder", tmp_path / "gone")
    with pytest.raises(InputError, match=r"data\.dir = ''"):
        load("vgg", "")
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(InputError, match="the folder is empty"):
        load("mbm", tmp_path)
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        load("folder", tmp_path / "readme.md")
    with pytest.raises(InputError, match="has no image"):
        load("folder", tmp_path)
    with pytest.raises(InputError, match="0 images with dots"):
        load("mbm", tmp_path)
    with pytest.raises(InputError, match=r"data\.kind = 'zip': must be one of vgg"):
        load("zip", tmp_path)


# --- all of a set together


def test_dimensions_and_channels_must_agree(folder):
    write(folder / "u.tif", shape=(4, 8, 9))
    with pytest.raises(InputError, match=r"a\.tif and .*u\.tif: the one is 2D, the other 3D"):
        load("folder", folder)
    write(folder / "u.tif", shape=(8, 9, 2), ndim=2)
    with pytest.raises(InputError, match=r"a\.tif and .*u\.tif: the one has 1 channels, .* 2"):
        load("folder", folder)


def test_voxel_sizes_must_agree(volumes):
    write(volumes / "unlabeled" / "u2.tif", shape=(4, 9, 9), spacing=(6.0, 1.63, 1.62))
    assert load("volumes", volumes).unlabelled[1].spacing == (6.0, 1.63, 1.62)
    write(volumes / "unlabeled" / "u2.tif", shape=(4, 9, 9), spacing=(6.0, 1.64, 1.62))
    message = r"t1\.tif and .*u2\.tif: .* 6 x 1\.62 x 1\.62 um, .* 6 x 1\.64 x 1\.62 um; resample"
    with pytest.raises(InputError, match=message):
        load("volumes", volumes)
    write(volumes / "unlabeled" / "u2.tif", shape=(4, 9, 9))
    with pytest.raises(InputError, match=r"um, the other of unknown size.* data\.spacing"):
        load("volumes", volumes)
    dataset = load("volumes", volumes, spacing=(5.0, 2.0, 2.0), region="y<5", held_out_region="y>6")
    every = (*dataset.labelled, *dataset.unlabelled, *dataset.tests["test"])
    for sample in (*every, *dataset.tests["held_out"]):
        assert (sample.spacing, sample.spacing_known) == ((5.0, 2.0, 2.0), True)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0,), (0.0, 1.0, 1.0), (1.0, 1.0, float("inf"))])
def test_spacing_that_does_not_fit(volumes, spacing):
    with pytest.raises(InputError, match=r"data\.spacing = .*: 3 positive numbers"):
        load("volumes", volumes, spacing=spacing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((8, 9), np.float32)}, "image of shape"),
        ({"image": np.zeros((8, 9, 1))}, "type float64"),
        ({"image": np.zeros((0, 9, 1), np.float32)}, "image of shape"),
        ({"spacing": (1.0,)}, "voxel size"),
        ({"spacing": (1.0, -1.0)}, "voxel size"),
        ({"points": np.zeros((2, 3), np.float32)}, r"points of shape \(2, 3\)"),
        ({"points": np.zeros((2, 2))}, "finite float32"),
        ({"points": np.full((1, 2), np.nan, np.float32)}, "finite float32"),
        ({"points": np.full((1, 2), 8.7, np.float32)}, "1 of 1 points lie outside"),
        ({"valid": np.ones((8, 8), bool)}, "valid of shape"),
        ({"valid": np.ones((8, 9), np.uint8)}, "valid of shape"),
        ({"valid": np.zeros((8, 9), bool)}, "valid region is empty"),
        ({"labels": np.zeros((8, 9), np.uint16)}, "labels of shape"),
    ],
)
def test_the_contract_of_samples(changes, message):
    good = Sample(
        "s",
        np.zeros((8, 9, 1), np.float32),
        np.zeros((0, 2), np.float32),
        (1.0, 1.0),
        valid=np.ones((8, 9), bool),
        labels=np.zeros((8, 9), np.int32),
        source="here",
    )
    datasets.check_sample(good)
    datasets.check_sample(dataclasses.replace(good, points=None, valid=None, labels=None))
    with pytest.raises(InputError, match=f"here: .*{message}"):
        datasets.check_sample(dataclasses.replace(good, **changes))
