"""Which files of a folder belong to others: those of known programs, and of this project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.companions import companions, describe
from cellcount_jax.images.inputs import find_inputs

ALWAYS = (
    "a_cp_masks.png",
    "a_cp_masks_run2.tif",
    "a_seg.npy",
    "b_cp_output.png",
    "a_Simple Segmentation.tif",
    "a-Simple_Segmentation.png",
    "a_Object Predictions.tiff",
    "Label Image.tif",
)
BESIDE = (
    "a_labels.tif",
    "a_valid.tif",
    "A_Mask.png",
    "a-masks.tif",
    "a_seg.tif",
    "a_Probabilities.tif",
    "a_stardist_labels.tif",
    "a.label.tif",
    "a_flows.tif",
    "a_cell_outlines.png",
    "aOverlay.png",
    "a_gt.npy",
)
IMAGES = (
    "a.tif",
    "a_2.tif",
    "ab.tif",
    "a_nuclei.tif",
    "a_cells.tif",
    "a_c1.tif",
    "a_masked_mouse.tif",
    "control_seg.tif",
    "labels.tif",
    "mouse_valid.tif",
    "overlay.png",
)


def test_masks_labels_and_previews_are_told_from_images() -> None:
    everything = [Path("x") / name for name in (*IMAGES, *ALWAYS, *BESIDE)]
    assert [path.name for path in companions(everything)] == [*ALWAYS, *BESIDE]
    alone = [path for path in everything if path.name != "a.tif"]
    assert [path.name for path in companions(alone)] == [*ALWAYS]


def test_what_a_count_leaves_is_no_image(tmp_path: Path) -> None:
    own = [tmp_path / "overlay.png", tmp_path / "density.zarr"]
    assert companions([*own, tmp_path / "a.tif"]) == []
    (tmp_path / "count.json").write_text("{}")
    assert companions([*own, tmp_path / "a.tif"]) == own


def test_what_is_skipped_is_told_in_a_line_and_can_be_named(tmp_path: Path) -> None:
    names = ("a.npy", "a_labels.npy", "a_seg.npy", "a_mask.npy", "a_valid.npy", "b_labels.npy")
    for name in names:
        np.save(tmp_path / name, np.zeros((12, 9), np.uint8))
    (tmp_path / "a.csv").write_text("y,x\n")
    told: list[str] = []
    found = find_inputs([tmp_path], ndim=2, show=told.append)
    assert [item.path.name for item in found] == ["a.npy", "b_labels.npy"]
    assert told == [
        f"{tmp_path}: skipped as masks, labels or pictures of other images, unless named:"
        " a_labels.npy, a_mask.npy, a_seg.npy and 1 more"
    ]
    assert describe(tmp_path, [tmp_path / "a_seg.npy"]).endswith("unless named: a_seg.npy")
    (named,) = find_inputs([tmp_path / "a_seg.npy"], ndim=2, show=told.append)
    assert named.name == "a_seg" and len(told) == 1
    for name in ("a.npy", "b_labels.npy"):
        (tmp_path / name).unlink()
    for name in ("a_labels.npy", "a_mask.npy", "a_valid.npy"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="has no image.*what was skipped is counted if it is nam"):
        find_inputs([tmp_path], ndim=2)


def test_a_file_that_cannot_be_read_is_an_input_among_volumes(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.zeros((4, 12, 9), np.uint8))
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    assert [item.path.name for item in find_inputs([tmp_path], ndim=3)] == ["a.npy", "b.npy"]
    np.save(tmp_path / "a.npy", np.zeros((12, 9), np.uint8))
    with pytest.raises(InputError, match=r"a\.npy: is among the slices"):
        find_inputs([tmp_path], ndim=3)
