"""A trained model on images of any size, in memory and as the command `predict`."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cellcount_jax
from cellcount_jax import inference, stored_model
from cellcount_jax.data import formats
from cellcount_jax.detect import find_peaks
from cellcount_jax.errors import InputError
from cellcount_jax.metrics import match_points
from cellcount_jax.model import create_model

FLIPS = (slice(None), slice(None, None, -1))

pytestmark = pytest.mark.usefixtures("quick_compiling")


def command() -> ModuleType:
    """The module `predict`, without putting it in the place of the package's function."""
    spec = importlib.util.find_spec("cellcount_jax.predict")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(*arguments: str | Path) -> int:
    status: int = command().main([str(argument) for argument in arguments])
    return status


@pytest.fixture(scope="module")
def model_2d(run_2d: Path) -> inference.TrainedModel:
    return stored_model.load_model(run_2d)


@pytest.fixture(scope="module")
def model_3d(run_3d: Path) -> inference.TrainedModel:
    return stored_model.load_model(run_3d)


def with_settings(model: inference.TrainedModel, **settings: object) -> inference.TrainedModel:
    """The model under a changed config; keys have a double underscore for a dot."""
    config = model.config.copy_and_resolve_references()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in settings.items()})
    return dataclasses.replace(model, config=config)


def test_a_loaded_model_finds_the_cells(model_2d: inference.TrainedModel, cells_2d: Path) -> None:
    for name in ("t0", "t1"):
        image = formats.read_image(cells_2d / "test" / f"{name}.png").pixels
        true = formats.read_points(cells_2d / "test" / f"{name}.csv", ndim=2)
        points, scores = cellcount_jax.predict(model_2d, image)
        assert points.shape == (len(scores), 2) and points.dtype == np.float32
        assert (scores > model_2d.thresholds["peaks"]).all()
        assert match_points(points, true, max_distance=2.0).f1 > 0.85
        assert cellcount_jax.count(model_2d, image) == len(points)


def test_points_are_the_peaks_of_the_map(model_2d: inference.TrainedModel, cells_2d: Path) -> None:
    image = formats.read_image(cells_2d / "test" / "t0.png").pixels
    found = inference.predict_maps(model_2d, image).location
    assert found.shape == image.shape[:-1] and found.dtype == np.float32
    expected = find_peaks(found, threshold_abs=model_2d.thresholds["peaks"], min_distance=(1, 1))
    points, scores = inference.predict(model_2d, image)
    np.testing.assert_array_equal(points, expected)
    np.testing.assert_array_equal(scores, found[tuple(expected.astype(int).T)])


def test_the_mean_over_mirror_images(model_2d: inference.TrainedModel, cells_2d: Path) -> None:
    image = formats.read_image(cells_2d / "test" / "t0.png").pixels
    model = with_settings(model_2d, predict__flips=True)
    mirrored = [image[sy, sx] for sy in FLIPS for sx in FLIPS]
    alone = [inference.predict_maps(model_2d, m).location for m in mirrored]
    back = [alone[2 * i + j][sy, sx] for i, sy in enumerate(FLIPS) for j, sx in enumerate(FLIPS)]
    found = inference.predict_maps(model, image).location
    np.testing.assert_allclose(found, np.mean(back, 0), atol=1e-5)
    assert np.abs(back[0] - back[3]).max() > 1e-3, "the network must not be symmetric"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_mask_baseline_gives_probabilities(
    model_2d: inference.TrainedModel, rng: np.random.Generator
) -> None:
    model = with_settings(model_2d, target__kernel="mask")
    image = rng.uniform(0, 200, (16, 18, 1)).astype(np.float32)
    logits: Any = create_model(model.config).apply(
        model.variables, jnp.asarray(model.normalisation(image)[None])
    )
    expected = np.asarray(jax.nn.sigmoid(logits))[0, ..., 0]
    np.testing.assert_allclose(inference.predict_maps(model, image).location, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((20, 20, 3), "2D with 3 channels"), ((8, 20, 20, 1), "3D with 1 channels")],
)
def test_an_image_that_does_not_fit_the_model(
    model_2d: inference.TrainedModel, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InputError, match=f"{words}, the model was trained on 2D images with 1"):
        inference.predict(model_2d, np.ones(shape, np.float32))


def without(name: str) -> Callable[[Path], object]:
    def change(workdir: Path) -> None:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def without_key(name: str, *keys: str) -> Callable[[Path], object]:
    def change(workdir: Path) -> None:
        content = json.loads((workdir / name).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        (workdir / name).write_text(json.dumps(content))

    return change


def torn(name: str) -> Callable[[Path], object]:
    return lambda workdir: (workdir / name).write_text('{"a": ')


NOT_A_RUN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such model; give the workdir"),
    "no config": (without("config.json"), "config.json: no such file, so"),
    "not evaluated": (without("model.json"), "model.json: no such file, so"),
    "no checkpoint": (without("checkpoints"), "checkpoints: holds no checkpoint; train first"),
    "torn config": (torn("config.json"), "config.json: is not valid JSON"),
    "torn model": (torn("model.json"), "model.json: is not valid JSON"),
    "another version": (
        without_key("config.json", "target", "gamma"),
        "was written by another version, which differs in the settings target.gamma",
    ),
    "another version's model": (
        without_key("model.json", "normalisation"),
        "model.json: is not a model of this version",
    ),
}


@pytest.mark.parametrize(("change", "words"), NOT_A_RUN.values(), ids=NOT_A_RUN)
def test_a_folder_that_is_no_run_is_an_error_that_names_the_file(
    tmp_path: Path,
    run_2d: Path,
    cells_2d: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
    words: str,
) -> None:
    workdir, output = tmp_path / "run", tmp_path / "output"
    shutil.copytree(run_2d, workdir)
    change(workdir)
    file = cells_2d / "test" / "t0.png"
    assert call(file, "--model", workdir, "--output", output) == 1
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1
    assert errors.startswith(f"error: {workdir}") and words in errors
    assert not output.exists()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_on_a_png_image(
    tmp_path: Path, run_2d: Path, cells_2d: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = cells_2d / "test" / "t0.png", tmp_path / "a" / "b"
    assert call(file, "--model", run_2d, "--output", output) == 0
    out, errors = capsys.readouterr()
    rows = rows_of(output / "points.csv")
    assert out == f"{file}: {len(rows)} cells, written to {output}\n" and errors == ""
    assert len(rows) > 5 and list(rows[0]) == ["y", "x", "score"]
    summary = json.loads((output / "summary.json").read_text())
    stored = json.loads((run_2d / "model.json").read_text())
    assert summary == {
        "image": str(file),
        "count": len(rows),
        "integral": None,
        "rule": "peaks",
        "threshold": stored["thresholds"]["peaks"],
        "shape": [40, 40],
        "spacing_um": None,
    }
    assert formats.read_image(output / "overlay.png").pixels.shape[-1] == 3
    assert sorted(path.name for path in output.iterdir()) == [
        "overlay.png",
        "points.csv",
        "summary.json",
    ]


def test_the_command_on_a_tiff_volume(
    tmp_path: Path, run_3d: Path, cells_3d: Path, run_module: Callable[..., tuple[int, str, str]]
) -> None:
    file = cells_3d / "test" / "test.tif"
    status, out, errors = run_module(
        "predict", file, "--model", run_3d, "--output", tmp_path / "output"
    )
    assert status == 0 and errors == ""
    rows = rows_of(tmp_path / "output" / "points.csv")
    assert out == f"{file}: {len(rows)} cells, written to {tmp_path / 'output'}\n"
    assert list(rows[0]) == ["z", "y", "x", "score"]
    points = np.array([[float(row[axis]) for axis in "zyx"] for row in rows])
    true = formats.read_points(file.with_suffix(".csv"), ndim=3)
    assert match_points(points, true, max_distance=3.0, spacing=(2.0, 1.0, 1.0)).f1 > 0.85
    summary = json.loads((tmp_path / "output" / "summary.json").read_text())
    assert summary["count"] == len(rows)
    assert summary["shape"] == [12, 40, 40] and summary["spacing_um"] == [2.0, 1.0, 1.0]


def test_other_voxels_than_in_training_are_pointed_out(
    tmp_path: Path, run_3d: Path, cells_3d: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = formats.read_image(cells_3d / "test" / "test.tif").pixels.astype(np.uint8)
    for edge, warned in ((1.05, False), (1.5, True)):
        file = tmp_path / f"{edge}.tif"
        formats.write_image(file, volume, spacing=(2.0, edge, edge))
        assert call(file, "--model", run_3d, "--output", tmp_path / "output") == 0
        assert (f"{file}: voxels of" in caplog.text) == warned


def bad_files(folder: Path) -> dict[str, str]:
    """Files that the 2D model cannot be applied to -> what the error says."""
    image = np.arange(400, dtype=np.uint16).reshape(20, 20)
    formats.write_image(folder / "half.tif", image)
    content = (folder / "half.tif").read_bytes()
    (folder / "half.tif").write_bytes(content[: len(content) // 2])
    formats.write_image(folder / "half.png", image)
    content = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(content[: len(content) // 2])
    formats.write_image(folder / "rgb.png", np.zeros((20, 20, 3), np.uint8))
    formats.write_image(folder / "volume.tif", np.zeros((8, 20, 20), np.uint8), ndim=3)
    formats.write_image(folder / "nan.tif", np.full((20, 20), np.nan, np.float32))
    (folder / "notes.txt").write_text("y,x")
    (folder / "empty.tif").write_bytes(b"")
    return {
        "missing.tif": "no such file",
        "half.tif": "truncated",
        "half.png": "half.png",
        "rgb.png": "2D with 3 channels, the model was trained on 2D images with 1",
        "volume.tif": "3D with 1 channels, the model was trained on 2D",
        "nan.tif": "400 of 400 pixels are NaN or infinite",
        "notes.txt": ".tif, .tiff, .png",
        "empty.tif": "empty",
    }


def test_a_file_that_cannot_be_used_is_one_line_and_nothing_is_written(
    tmp_path: Path, run_2d: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    for name, words in bad_files(tmp_path).items():
        assert call(tmp_path / name, "--model", run_2d, "--output", output) == 1, name
        out, errors = capsys.readouterr()
        assert out == "" and errors.count("\n") == 1, errors
        assert errors.startswith(f"error: {tmp_path / name}") and words in errors
        assert not output.exists()


def test_an_output_that_is_a_file_is_one_line(
    tmp_path: Path, run_2d: Path, cells_2d: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "output").write_text("mine")
    file = cells_2d / "test" / "t0.png"
    assert call(file, "--model", run_2d, "--output", tmp_path / "output") == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "output" in errors
    assert (tmp_path / "output").read_text() == "mine"


def test_a_missing_file_as_a_process(
    tmp_path: Path, run_2d: Path, run_module: Callable[..., tuple[int, str, str]]
) -> None:
    file = tmp_path / "missing.png"
    status, out, errors = run_module("predict", file, "--model", run_2d, "--output", tmp_path)
    assert (status, out) == (1, "")
    assert errors == f"error: {file}: no such file.\n"


def test_with_flips_a_mirrored_image_has_the_mirrored_map(model_2d: inference.TrainedModel) -> None:
    model = with_settings(model_2d, predict__flips=True)
    image = np.random.default_rng(0).uniform(0, 255, (24, 40, 1)).astype(np.float32)
    density = inference.predict_maps(model, image).location
    for axis in (0, 1):
        mirrored = inference.predict_maps(model, np.flip(image, axis)).location
        np.testing.assert_allclose(np.flip(mirrored, axis), density, atol=1e-5)
    alone = with_settings(model_2d, predict__flips=False)
    four = [
        np.flip(inference.predict_maps(alone, np.flip(image, axes)).location, axes)
        for axes in ((), (0,), (1,), (0, 1))
    ]
    np.testing.assert_allclose(density, np.mean(four, axis=0), atol=1e-5)
