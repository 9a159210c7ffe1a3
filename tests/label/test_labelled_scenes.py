"""Labels are of one scene of a file, and training takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_jax.config import default_config
from cellcount_jax.data import datasets
from cellcount_jax.data.blocks import DONE
from cellcount_jax.data.sample import Dataset
from cellcount_jax.errors import InputError
from cellcount_jax.images.selection import Selection
from cellcount_jax.label.session import Session

SCENES = [np.random.default_rng(k).integers(0, 99, (8, 12), "u1") for k in range(3)]


def load(folder: Path, scene: str) -> Dataset:
    data = default_config().data
    data.update({"kind": "folder", "dir": str(folder), "test_fraction": 0.0, "scene": scene})
    return datasets.load(data, seed=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three images."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for image in SCENES:
            file.write(image, metadata={"axes": "YX"})
    return path


def test_the_scene_that_was_labelled(path: Path) -> None:
    """It does not open with the labels of another, and is trained on without a word."""
    with pytest.raises(InputError, match="holds 3 images: .*choose one with --scene"):
        Session(path)
    with Session(path, Selection(scene="2"), block=(8, 12)) as session:
        session.add((1, 1))
        session.mark([(0, 0)], DONE)
    with pytest.raises(InputError, match=r"is of scene 2, but .* at scene 1; open it with --scene"):
        Session(path, Selection(scene="1"))
    for scene in ("", "2"):
        [sample] = load(path.parent, scene).labelled
        np.testing.assert_array_equal(sample.image[..., 0], SCENES[2])
    with pytest.raises(InputError, match=r"scene 2 was labelled; scene 1 does not"):
        load(path.parent, "1")


def test_the_scene_of_a_setting(path: Path) -> None:
    (path.parent / "a.csv").write_text("y,x\n1,1\n")
    with pytest.raises(InputError, match="holds 3 images: .* for training with --set data.scene="):
        load(path.parent, "")
    [sample] = load(path.parent, "1").labelled
    np.testing.assert_array_equal(sample.image[..., 0], SCENES[1])


def test_labels_cannot_lie_beside_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^https://host/a\.zarr: labels lie beside their image"):
        Session(Path("https://host/a.zarr"))
    assert list(tmp_path.iterdir()) == []
