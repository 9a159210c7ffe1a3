"""Folders to train on whose dots are files of ImageJ, QuPath and Cellpose."""

from __future__ import annotations

import logging
from pathlib import Path

import ml_collections
import numpy as np
import pytest
import tifffile
from absl import logging as absl_logging

from cellcount_jax.config import default_config
from cellcount_jax.data import datasets
from cellcount_jax.data.entries import entry_of
from cellcount_jax.data.sample import Dataset
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.imagej_rois import write_rois
from cellcount_jax.images.points import read_points, write_points
from cellcount_jax.images.qupath_points import write_geojson
from cellcount_jax.label.session import Session

DOTS = np.array([[2, 3], [5.25, 7.5]], np.float32)


def load(folder: Path, **options: object) -> Dataset:
    data: ml_collections.ConfigDict = default_config().data
    data.update({"kind": "folder", "dir": str(folder), "test_fraction": 0.0, **options})
    return datasets.load(data, seed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in "abcd":
        write_image(tmp_path / f"{name}.tif", rng.integers(0, 9, (8, 12)).astype(np.uint8))
    write_rois(tmp_path / "a_rois.zip", DOTS)
    write_geojson(tmp_path / "b.geojson", DOTS, np.ones(2))
    labels = np.zeros((8, 12), np.uint16)
    labels[1:4, 2:5], labels[6, 7:10] = 9, 4
    tifffile.imwrite(tmp_path / "c_cp_masks.tif", labels)
    (tmp_path / "d.xml").write_text("<OME/>")  # of a microscope
    return tmp_path


def test_dots_of_other_programs_are_learned_from(folder: Path) -> None:
    dataset = load(folder)
    found = {sample.name: sample for sample in dataset.labelled}
    assert found.keys() == {*"abc"} and [s.name for s in dataset.unlabelled] == ["d"]
    for name in "ab":
        np.testing.assert_allclose(np.asarray(found[name].points), DOTS, atol=1e-5)
    assert np.asarray(found["c"].points).tolist() == [[6, 8], [2, 3]]
    labels = found["c"].labels
    assert labels is not None and labels[2, 3] == 2 and labels[6, 8] == 1 and labels.max() == 2


def test_the_table_of_the_labelling_tool_goes_first(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_points(folder / "a.csv", DOTS[:1])
    with caplog.at_level(logging.WARNING, absl_logging.get_absl_logger().name):
        dataset = load(folder)
    assert len(np.asarray(dataset.labelled[0].points)) == 1
    assert "a_rois.zip: is not used, as the dots are in a.csv" in caplog.text
    write_geojson(folder / "a.geojson", DOTS, np.ones(2))
    (folder / "a.csv").unlink()
    with pytest.raises(InputError, match=r"a_rois\.zip: and a\.geojson have the same name"):
        load(folder)


def test_dots_outside_are_refused(folder: Path) -> None:
    write_rois(folder / "a_rois.zip", DOTS * 10)
    with pytest.raises(InputError, match=r"a_rois\.zip: 2 of 2 points lie outside"):
        load(folder)


def test_planes_of_a_hyperstack_are_those_of_its_image(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 9, (3, 2, 8, 12)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZCYX"})
    (tmp_path / "CellCounter_a.xml").write_text(
        "<CellCounter_Marker_File><Image_Properties><Image_Filename>a.tif</Image_Filename>"
        "</Image_Properties><Marker_Data><Marker_Type><Type>1</Type><Marker><MarkerX>4</MarkerX>"
        "<MarkerY>5</MarkerY><MarkerZ>4</MarkerZ></Marker></Marker_Type></Marker_Data>"
        "</CellCounter_Marker_File>"
    )
    (sample,) = load(tmp_path, channel="1").labelled
    assert np.asarray(sample.points).tolist() == [[1, 5, 4]]


def test_the_labelling_window_begins_with_them(folder: Path) -> None:
    assert entry_of(folder / "b.tif").points == folder / "b.geojson"
    with Session(folder / "b.tif") as session:
        np.testing.assert_allclose(session.dots.points, DOTS, atol=1e-3)
        assert session.dots.verified.all()
        assert any("those of b.geojson; they will be saved to b.csv" in n for n in session.notes)
        session.add((1, 1))
    assert len(read_points(folder / "b.csv", ndim=2)) == 3
    with Session(folder / "b.tif") as session:
        assert len(session.dots) == 3
