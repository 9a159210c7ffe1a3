"""Folders that the labelling tool wrote in: what of an image is labelled, and what is not."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np
import pytest
import tifffile
import zarr
from absl import logging as absl_logging

from cellcount_jax.config import default_config
from cellcount_jax.data import datasets
from cellcount_jax.data.blocks import DONE
from cellcount_jax.data.sample import Dataset
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.selection import Selection
from cellcount_jax.label.session import Session


def load(folder: Path, *, seed: int = 0, **options: object) -> Dataset:
    data: ml_collections.ConfigDict = default_config().data
    data.update({"kind": "folder", "dir": str(folder), "test_fraction": 0.0, **options})
    return datasets.load(data, seed=seed)


def names(samples: Sequence[object]) -> list[str]:
    return [sample.name for sample in samples]  # type: ignore[attr-defined]


def label(
    image: Path, dots: Sequence[Sequence[float]], done: Sequence[Sequence[int]], block: int = 4
) -> None:
    """Dots and blocks of `block` voxels an axis that are done, as the tool writes them."""
    ndim = len(dots[0])
    with Session(image, block=(block,) * ndim) as session:
        for dot in dots:
            session.add(dot)
        if len(done):
            session.mark(done, DONE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 8x12, none of them labelled."""
    rng = np.random.default_rng(0)
    for name in "abc":
        write_image(tmp_path / f"{name}.tif", rng.integers(0, 9, (8, 12)).astype(np.uint8))
    return tmp_path


def test_an_image_labelled_in_a_part_is_unlabelled_as_well(folder: Path) -> None:
    label(folder / "b.tif", [(1, 1), (5, 9)], [(0, 0), (1, 1)])
    dataset = load(folder)
    assert names(dataset.labelled) == ["b"] and names(dataset.unlabelled) == ["a", "c", "b"]
    (sample,), again = dataset.labelled, dataset.unlabelled[-1]
    expected = np.zeros((8, 12), bool)
    expected[:4, :4] = expected[4:, 4:8] = True
    np.testing.assert_array_equal(sample.valid, expected)
    assert sample.points is not None and sample.points.tolist() == [[1, 1], [5, 9]]
    assert again.points is None and again.valid is None and again.image is sample.image
    assert names(load(folder, num_unlabelled=2).unlabelled) == ["a", "c"]


def test_an_image_of_which_all_is_done_is_labelled_everywhere(folder: Path) -> None:
    label(folder / "b.tif", [(1, 1)], list(np.ndindex(2, 3)))
    dataset = load(folder)
    assert dataset.labelled[0].valid is None
    assert names(dataset.unlabelled) == ["a", "c"]


def test_an_image_of_which_nothing_is_done_is_unlabelled_and_the_log_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label(folder / "a.tif", [(1, 1)], [])
    label(folder / "b.tif", [(1, 1)], [(0, 0)])
    absl_logging.set_verbosity(absl_logging.INFO)
    with caplog.at_level(logging.INFO, logger="absl"):
        dataset = load(folder)
    assert names(dataset.labelled) == ["b"] and names(dataset.unlabelled) == ["a", "c", "b"]
    said = [record.getMessage() for record in caplog.records if "blocks" in record.getMessage()]
    assert said == [f"{folder}/a.label.json: none of its blocks is done, used without dots."]


def test_the_mask_holds_within_the_blocks(folder: Path) -> None:
    label(folder / "b.tif", [(1, 1)], [(0, 0), (0, 1)])
    mask = np.zeros((8, 12), np.uint8)
    mask[:, :6] = 1
    write_image(folder / "b_valid.tif", mask)
    expected = np.zeros((8, 12), bool)
    expected[:4, :6] = True
    np.testing.assert_array_equal(load(folder).labelled[0].valid, expected)
    write_image(folder / "b_valid.tif", mask[:, ::-1] * np.arange(8)[:, None] // 7)
    with pytest.raises(InputError, match=r"b\.label\.json: none of its .*, within .*b_valid\.tif"):
        load(folder)


def test_dots_that_nobody_confirmed_count_where_the_block_is_done(folder: Path) -> None:
    label(folder / "b.tif", [(1, 1), (2, 2)], [(0, 0)])
    text = (folder / "b.csv").read_text()
    (folder / "b.csv").write_text(text.replace(",1\n", ",0\n"))
    points = load(folder).labelled[0].points
    assert points is not None and len(points) == 2


def test_numbers_and_held_out_images_count_those_labelled_in_a_part(folder: Path) -> None:
    for name in "abc":
        label(folder / f"{name}.tif", [(1, 1)], [(0, 0)])
    dataset = load(folder, num_labelled=1)
    assert names(dataset.labelled) == ["a"] and names(dataset.unlabelled) == ["b", "c", "a"]
    dataset = load(folder, test_fraction=0.3)
    (held_out,) = dataset.tests["test"]
    assert held_out.valid is not None and held_out.valid.sum() == 16
    # What is tested on is not trained on, not even without its dots.
    rest = sorted({"a", "b", "c"} - {held_out.name})
    assert names(dataset.labelled) == names(dataset.unlabelled) == rest


def test_a_test_image_must_have_a_block_that_is_done(folder: Path) -> None:
    label(folder / "a.tif", [(1, 1)], [(0, 0)])
    test = folder / "test"
    for name in "st":
        write_image(test / f"{name}.tif", np.ones((8, 12), np.uint8))
    label(test / "s.tif", [(1, 1)], [(1, 1)])
    label(test / "t.tif", [(1, 1)], [])
    with pytest.raises(InputError, match=r"test/t\.label\.json: none of its blocks is done"):
        load(folder)


def test_labels_without_a_block_that_is_done_are_an_error_that_says_what_to_do(
    folder: Path,
) -> None:
    label(folder / "a.tif", [(1, 1)], [])
    with pytest.raises(InputError, match=r"no block of any image is done.*mark blocks done"):
        load(folder)


def test_progress_without_image_or_dots(folder: Path) -> None:
    label(folder / "a.tif", [(1, 1)], [(0, 0)])
    label(folder / "b.tif", [(1, 1)], [])
    (folder / "b.csv").unlink()
    assert names(load(folder).unlabelled) == ["b", "c", "a"]
    (folder / "a.csv").unlink()
    with pytest.raises(InputError, match=r"a\.label\.json: marks .* as done, but there is no a\.c"):
        load(folder)
    (folder / "a.tif").unlink()
    with pytest.raises(InputError, match=r"a\.label\.json: there is no image a"):
        load(folder)


def test_progress_of_another_image_names_both(folder: Path) -> None:
    label(folder / "a.tif", [(1, 1)], [(0, 0)])
    write_image(folder / "a.tif", np.ones((8, 13), np.uint8))
    with pytest.raises(InputError, match=r"a\.label\.json: is 8 x 12, .*a\.tif is 8 x 13"):
        load(folder)
    (folder / "a.label.json").write_text(json.dumps({"format": "x"}))
    with pytest.raises(InputError, match=r"a\.label\.json: is not a file of the labelling tool"):
        load(folder)


def test_a_zarr_folder_with_dots_is_an_image(folder: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 99, (8, 12)).astype(np.uint16)
    for name in ("v.ome.zarr", "w.ome.zarr", "a.ome.zarr"):
        array = zarr.create_array(folder / name, shape=pixels.shape, dtype=pixels.dtype)
        array[:] = pixels
    label(folder / "v.ome.zarr", [(1, 1)], [(0, 0)])
    label(folder / "a.tif", [(1, 1)], [(0, 0)])  # a.ome.zarr is the same in another format
    dataset = load(folder)
    assert names(dataset.labelled) == ["a", "v"]
    assert names(dataset.unlabelled) == ["b", "c", "a", "v"]
    np.testing.assert_array_equal(dataset.labelled[1].image[..., 0], pixels)
    assert dataset.labelled[1].source == str(folder / "v.ome.zarr")
    assert dataset.labelled[0].source == str(folder / "a.tif")


def test_the_time_point_and_level_that_were_labelled_are_trained_on(tmp_path: Path) -> None:
    movie = np.random.default_rng(0).integers(0, 9, (3, 8, 12)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", movie, imagej=True, metadata={"axes": "TYX"})
    with Session(tmp_path / "a.tif", Selection(time=2), block=(8, 12)) as session:
        session.add((1, 1))
        session.mark([(0, 0)], DONE)
    group = zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=2)
    for name, array in (("0", np.zeros((16, 24), np.uint8)), ("1", movie[0])):
        group.create_array(name, data=array)
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    levels = [{"path": name} for name in "01"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    with Session(tmp_path / "b.zarr", Selection(level=1), block=(8, 12)) as session:
        session.add((1, 1))
        session.mark([(0, 0)], DONE)
    for options in ({}, {"time": 2}, {"level": 1}):
        if options:  # of one image, which the other does not have
            with pytest.raises(
                InputError, match=r"label\.json: time point \d and level \d were la"
            ):
                load(tmp_path, **options)
            continue
        first, second = load(tmp_path).labelled
        np.testing.assert_array_equal(first.image[..., 0], movie[2])
        np.testing.assert_array_equal(second.image[..., 0], movie[0])


def test_a_channel_of_every_format_is_trained_on(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 9, (8, 12, 3)).astype(np.uint8)
    write_image(tmp_path / "a.png", colour)
    np.save(tmp_path / "b.npy", colour[..., 0])
    np.save(tmp_path / "other.npy", colour[..., 0])
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("y,x\n1,1\n")
    first, second = load(tmp_path, channel="0").labelled
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.image, colour[..., :1])
    with pytest.raises(InputError, match="channel"):
        load(tmp_path)
    np.save(tmp_path / "c.npy", colour[..., 0])
    zarr.create_array(tmp_path / "c.zarr", data=colour[..., 0])
    (tmp_path / "c.csv").write_text("y,x\n1,1\n")
    with pytest.raises(InputError, match=r"c\.zarr: and c\.npy have the same name"):
        load(tmp_path, channel="0")
