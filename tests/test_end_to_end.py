"""From dots to a map and back, and whole runs as a user starts them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cellcount_jax
from cellcount_jax.images.image_files import read_image, write_image
from cellcount_jax.training import run_folder

Run = Callable[..., tuple[int, str, str]]

SHAPES = {2: (23, 31), 3: (9, 13, 17)}
SPACINGS = {2: (1.0, 1.0), 3: (3.0, 1.0, 1.5)}


def apart(seed: int, ndim: int, count: int) -> np.ndarray:
    """Up to `count` random voxels, all at least 2 voxels from each other."""
    rng = np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    for voxel in rng.integers(0, SHAPES[ndim], (count, ndim)):
        if all(np.linalg.norm(voxel - other) >= 2 for other in chosen):
            chosen.append(voxel)
    return np.asarray(chosen, np.float32).reshape(-1, ndim)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]), st.booleans())
def test_dots_to_map_to_peaks_are_the_dots(seed: int, ndim: int, anisotropic: bool) -> None:
    points = apart(seed, ndim, count=60)
    spacing = SPACINGS[ndim] if anisotropic else None
    # A fixed number of rows, so that the function is compiled once.
    rows = np.zeros((60, ndim), np.float32)
    rows[: len(points)] = points
    density = cellcount_jax.inverse_distance_map(
        jnp.asarray(rows), SHAPES[ndim], mask=jnp.arange(60) < len(points), spacing=spacing
    )
    found = cellcount_jax.find_peaks(np.asarray(density), threshold_abs=0.5, min_distance=1)
    matching = cellcount_jax.match_points(found, points, max_distance=0.5, spacing=spacing)
    assert (matching.tp, matching.fp, matching.fn) == (len(points), 0, 0)
    assert matching.f1 == 1.0
    assert set(map(tuple, found.tolist())) == set(map(tuple, points.tolist()))


@pytest.mark.parametrize("ndim", [2, 3])
def test_no_dots_to_map_to_peaks_are_none(ndim: int) -> None:
    density = cellcount_jax.inverse_distance_map(jnp.zeros((0, ndim)), SHAPES[ndim])
    assert not np.asarray(density).any()
    found = cellcount_jax.find_peaks(np.asarray(density), threshold_abs=0.0, min_distance=1)
    assert found.shape == (0, ndim)
    assert cellcount_jax.match_points(found, found, max_distance=1.0).f1 == 1.0


def test_a_run_of_four_devices_goes_on_with_one(
    tmp_path: Path,
    run_module: Run,
    run_2d: Path,
    config_file_2d: Path,
    config_2d: ml_collections.ConfigDict,
    quick_compiling: None,
) -> None:
    short = {"train.steps": 8, "train.checkpoint_every": 4, "train.evaluate_every": 0}
    arguments = [f"--config={config_file_2d}", f"--workdir={tmp_path}"]
    arguments += [f"--config.{key}={value}" for key, value in short.items()]
    status, _, errors = run_module("main", *arguments, devices=4)
    assert status == 0, errors
    assert "4 cpu device(s)" in errors
    # The same batches and augmentation: the same loss but for rounding.
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    alone = (run_2d / "metrics.jsonl").read_text().splitlines()
    first, alone_first = (json.loads(text[0])["supervised"] for text in (lines, alone))
    assert first == pytest.approx(alone_first, rel=0.02)
    # As if it had been killed before its last checkpoint.
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    config_2d.update_from_flattened_dict(short)
    assert cellcount_jax.train_and_evaluate(config_2d, tmp_path) is not None
    assert run_folder.steps(tmp_path / "checkpoints") == [4, 8]
    again = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert again[:2] == lines[:2] and len(again) == len(lines) == 4


def points_outside(folder: Path) -> str:
    (folder / "a2.csv").write_text("y,x\n1,1\n50,3\n")
    return f"{folder / 'a2.csv'}: 1 of 2 points lie outside the image of 40 x 40"


def truncated(folder: Path) -> str:
    path = folder / "test" / "t1.tif"
    write_image(path, read_image(path.with_suffix(".png")).pixels, ndim=2)
    path.with_suffix(".png").unlink()
    path.write_bytes(path.read_bytes()[:3000])
    return f"{path}: the file is truncated"


@pytest.mark.parametrize("damage", [points_outside, truncated])
def test_bad_data_is_one_line_and_no_workdir(
    tmp_path: Path,
    cells_2d: Path,
    config_file_2d: Path,
    run_module: Run,
    damage: Callable[[Path], str],
) -> None:
    folder, workdir = tmp_path / "images", tmp_path / "run"
    shutil.copytree(cells_2d, folder)
    expected = damage(folder)
    status, out, errors = run_module(
        "main",
        f"--config={config_file_2d}",
        f"--config.data.dir={folder}",
        f"--workdir={workdir}",
    )
    assert (status, out) == (1, "")
    assert errors.startswith(f"error: {expected}") and errors.count("\n") == 1
    assert not workdir.exists()


def test_the_smoke_config_learns(run_module: Run, tmp_path: Path) -> None:
    status, out, errors = run_module("main", "--config=configs/smoke.py", f"--workdir={tmp_path}/s")
    assert status == 0, errors
    assert "synthetic fluorescence images made by cellcount_jax (not real data)" in out
    scores = json.loads((tmp_path / "s" / "evaluation" / "metrics.json").read_text())
    # Predicting the mean, or any constant, finds at most one cell in an image.
    assert scores["f1"] > 0.8
    lines = [json.loads(x) for x in (tmp_path / "s" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["supervised"] < 0.6 * lines[0]["supervised"]
    assert lines[-1]["step"] == 100
