"""Training from a model: it begins as that model, keeps what is its own, and goes on as a run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax import config as settings
from cellcount_jax.data.entries import scan
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import read_image, write_image
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.points import write_points
from cellcount_jax.inference import model_file
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.training import command, fine_tuning, metrics_log, train

pytestmark = pytest.mark.usefixtures("quick_compiling")

Make = Callable[..., TrainedModel]


def export(model: TrainedModel, path: Path) -> str:
    """Writes a model of `untrained_model`; its path as the name that training is given."""
    model_file.export_model(model, path, card="# Parent\n")
    return str(path)


def with_thresholds(model: TrainedModel) -> TrainedModel:
    rules = {"peaks": 0.3, "components": 0.3, "fidt": 0.4}
    return dataclasses.replace(model, thresholds=rules)


def continued(config: ml_collections.ConfigDict, init_from: str, **changes: Any) -> Any:
    """A short run of a config that goes on from a model."""
    config = config.copy_and_resolve_references()
    config.init_from = init_from
    config.train.steps, config.train.evaluate_every = 16, 0
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(flat)
    fine_tuning.follow(config, model_file.load_model(init_from), given=flat)
    return config


def test_it_begins_as_the_model_and_names_it(
    tmp_path: Path, run_2d: Path, config_2d: ml_collections.ConfigDict
) -> None:
    """Without a step that counts all is the model's, bit by bit: weights and the norms' statistics.

    Adam divides a gradient by its size, so that a learning rate of 1e-30 changes nothing.
    """
    frozen = {"model__norm_freeze": 1.0}  # statistics would move without any learning rate
    config = continued(config_2d, str(run_2d), optim__learning_rate=1e-30, **frozen)
    content = train.train_and_evaluate(config, tmp_path / "run")
    parent, child = model_file.load_model(run_2d), model_file.load_model(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, child.variables, parent.variables)
    assert child.thresholds == parent.thresholds  # of the same training images
    digest = model_file.digest(parent)
    assert content is not None
    assert content["parent"] == {"model": str(run_2d), "sha256": digest}
    assert child.config.init_digest == digest
    exported = tmp_path / "mine.zip"
    about = tmp_path / "about.md"
    about.write_text("# Mine\n\nOf my brains.\n")
    for options in ([], ["--card", str(about), "--overwrite"]):
        assert cli.main(["export", str(tmp_path / "run"), str(exported), *options]) == 0
        for path in (tmp_path / "run" / "model.zip", exported):
            assert f"from the model {run_2d} (sha256 {digest})" in model_file.read_card(path)
    # Alone, from the checkpoint.
    assert train.evaluate_only(config, tmp_path / "run") == content


def test_it_is_not_learned_anew(
    tmp_path: Path, run_2d: Path, config_2d: ml_collections.ConfigDict
) -> None:
    """At its first steps the loss is that of the trained model, far below that at random."""
    train.train_and_evaluate(continued(config_2d, str(run_2d)), tmp_path / "run")
    first, before = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "run", run_2d)
    )
    assert first[0]["supervised"] < 0.3 * before[0]["supervised"]
    # Norms are frozen for a share of the steps, where `model.norm_freeze` was not given.
    config = settings.default_config()
    config.init_from = str(run_2d)
    fine_tuning.follow(config, model_file.load_model(run_2d))
    assert 0 < config.model.norm_freeze < 1


def test_pieces_equal_the_whole_and_another_model_of_the_name_is_an_error(
    tmp_path: Path,
    run_2d: Path,
    config_2d: ml_collections.ConfigDict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = tmp_path / "parent.zip"
    shutil.copy(run_2d / "model.zip", parent)
    config = continued(config_2d, str(parent))
    train.train_and_evaluate(config, tmp_path / "whole")
    write = metrics_log.MetricsWriter.write

    def interrupting(self: metrics_log.MetricsWriter, step: int, values: Any) -> None:
        write(self, step, values)
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(metrics_log.MetricsWriter, "write", interrupting)
        assert train.train_and_evaluate(config, tmp_path / "pieces") is None
    changed = dataclasses.replace(model_file.load_model(parent), count_factor=1.1)
    other = tmp_path / "other.zip"
    export(changed, other)
    parent.rename(tmp_path / "kept.zip")
    other.rename(parent)
    before = (tmp_path / "pieces" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"began with another model than .*parent\.zip is now"):
        train.train_and_evaluate(config, tmp_path / "pieces")
    pinned = config.copy_and_resolve_references()
    pinned.init_digest = model_file.digest(model_file.load_model(tmp_path / "kept.zip"))
    with pytest.raises(InputError, match=r"parent\.zip is another model"):
        train.train_and_evaluate(pinned, tmp_path / "third")
    assert (tmp_path / "pieces" / "metrics.jsonl").read_bytes() == before
    (tmp_path / "kept.zip").rename(parent)
    assert train.train_and_evaluate(config, tmp_path / "pieces") is not None
    for name in ("model.zip", "evaluation/metrics.json"):
        whole, pieces = (tmp_path / folder / name for folder in ("whole", "pieces"))
        assert whole.read_bytes() == pieces.read_bytes()


def test_on_four_devices_it_begins_as_the_model(
    tmp_path: Path,
    run_2d: Path,
    config_file_2d: Path,
    run_module: Callable[..., tuple[int, str, str]],
) -> None:
    status, out, errors = run_module(
        "main",
        f"--config={config_file_2d}",
        f"--config.init_from={run_2d}",
        "--config.train.steps=2",
        "--config.train.evaluate_every=0",
        "--config.optim.learning_rate=1e-30",
        "--config.model.norm_freeze=1.0",
        f"--workdir={tmp_path}",
        devices=4,
    )
    assert status == 0, errors
    assert f"going on from the model {run_2d}" in errors and "F1" in out
    found, parent = (model_file.load_model(folder).variables for folder in (tmp_path, run_2d))
    jax.tree.map(np.testing.assert_array_equal, found, parent)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.levels", 3),
        ("model.norm", "instance"),
        ("model.attention", "global"),
        ("target.scale", 50.0),
        ("target.kernel", "gaussian"),
        ("target.count_head", True),
        ("data.normalisation", "dataset"),
        ("data.ndim", 3),
        ("data.diameter", 9.0),
    ],
)
def test_what_belongs_to_the_model_cannot_be_changed(
    tmp_path: Path, untrained_model: Make, key: str, value: Any
) -> None:
    name = export(with_thresholds(untrained_model(2)), tmp_path / "m.zip")
    model = model_file.load_model(name)
    config = settings.default_config()
    config.init_from = name
    fine_tuning.follow(config, model)
    assert settings.flatten(config.to_dict())[key] == settings.flatten(model.config.to_dict())[key]
    assert fine_tuning.parent_of(config)[1] is not None
    config.update_from_flattened_dict({key: value})
    message = rf"config\.{key} = {value!r}: training goes on from the model .*m\.zip, which has"
    with pytest.raises(InputError, match=message):
        fine_tuning.follow(config, model, given={key})
    with pytest.raises(InputError, match=message):
        fine_tuning.parent_of(config)


def test_the_rest_follows_unless_it_is_given(tmp_path: Path, untrained_model: Make) -> None:
    own = {
        "augment__gain": 0.7,
        "predict__flips": True,
        "detect__min_distance": (3, 3),
        "train__crop": (32, 48),
        "model__dropout": 0.1,
    }
    name = export(with_thresholds(untrained_model(2, **own)), tmp_path / "m.zip")
    config = settings.default_config()
    config.init_from, config.augment.gain = name, 0.2
    fine_tuning.follow(config, model_file.load_model(name), given={"augment.gain"})
    assert config.augment.gain == 0.2
    assert config.predict.flips and config.detect.min_distance == (3, 3)
    assert config.train.crop == (32, 48)
    assert config.model.dropout == settings.default_config().model.dropout
    assert config.data.dir == "" and config.train.steps == settings.default_config().train.steps


def test_the_tolerance_is_in_the_pixels_that_images_are_resampled_to(
    tmp_path: Path, untrained_model: Make
) -> None:
    changes = {"data__diameter": 10.0, "evaluation__max_distance": 4.0}
    name = export(with_thresholds(untrained_model(2, **changes)), tmp_path / "m.zip")
    config = settings.default_config()
    config.init_from, config.data.from_diameter = name, 25.0
    given = {"init_from", "data.from_diameter"}
    fine_tuning.follow(config, model_file.load_model(name), given=given)
    assert config.evaluation.max_distance == 4 and config.data.to_spacing == ()
    config.evaluation.max_distance = 3.0
    given |= {"evaluation.max_distance"}
    fine_tuning.follow(config, model_file.load_model(name), given=given)
    assert config.evaluation.max_distance == 3


def folder_with(path: Path, image: np.ndarray, points: Sequence[Any], **options: Any) -> Path:
    write_image(path / "a.tif", image, **(options or {"ndim": 2}))
    write_points(path / "a.csv", np.asarray(points, np.float32))
    return path


def settings_for(folder: Path, init_from: str, **options: Any) -> ml_collections.ConfigDict:
    return command.make_config(folder, scan(folder), init_from=init_from, **options)


def test_channels_and_dimensions_must_be_the_models(tmp_path: Path, untrained_model: Make) -> None:
    models = {n: export(with_thresholds(untrained_model(n)), tmp_path / f"{n}.zip") for n in (2, 3)}
    rng = np.random.default_rng(0)
    folder = folder_with(tmp_path / "rgb", rng.integers(0, 255, (40, 40, 3), np.uint8), [(4, 5)])
    config = settings_for(folder, models[2], changes=["train.crop=16,16"])
    with pytest.raises(InputError, match=r"a\.tif: has 3 channels, .* choose one of 0 to 2 with"):
        train.train_and_evaluate(config, tmp_path / "run")
    with pytest.raises(InputError, match=r"a\.tif: is 2D, the model .*3\.zip is for 3D images"):
        settings_for(folder, models[3])
    config.init_from = models[3]
    fine_tuning.follow(config, model_file.load_model(models[3]))
    with pytest.raises(InputError, match="is 2D, the model .* is for 3D"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_cells_become_as_large_as_the_models(tmp_path: Path, untrained_model: Make) -> None:
    """`--diameter` is what a cell has in the files; all lengths are those of the model's pixels."""
    changes = {"data__diameter": 10.0, "evaluation__max_distance": 4.0, "train__crop": (48, 48)}
    name = export(with_thresholds(untrained_model(2, **changes)), tmp_path / "m.zip")
    image = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)
    folder = folder_with(tmp_path / "images", image, [(40, 60), (100.5, 3)])
    config = settings_for(folder, name, diameter=25)
    assert (config.data.diameter, config.data.from_diameter) == (10, 25)
    assert config.train.crop == (48, 48) and config.evaluation.max_distance == 4
    dataset = train.load_dataset(config)
    (sample,) = dataset.labelled
    assert sample.shape == (48, 64) and not sample.spacing_known
    assert sample.points is not None
    np.testing.assert_allclose(sample.points, [(15.7, 23.7), (39.9, 0.9)], atol=1e-5)
    np.testing.assert_allclose(sample.in_file(sample.points), [(40, 60), (100.5, 3)], atol=1e-4)
    # Crops fit what the images become.
    assert settings_for(folder, name, diameter=50).train.crop == (24, 32)
    # In um, where the file has the voxel size: 12.5 um are 25 pixels.
    folder_with(folder, image, [(40, 60)], spacing=(0.5, 0.5))
    config = settings_for(folder, name, diameter=12.5)
    assert config.data.from_diameter == 25 and config.evaluation.max_distance == 4
    # Without a diameter cells are taken to be as large as the model's; the tolerance is in um.
    config = settings_for(folder, name)
    assert config.data.from_diameter == 0 and config.evaluation.max_distance == 2
    unsized = export(with_thresholds(untrained_model(2)), tmp_path / "unsized.zip")
    with pytest.raises(InputError, match=r"unsized\.zip does not say how large its cells are"):
        settings_for(folder, unsized, diameter=12.5)


def test_a_model_that_measures_cells_has_them_measured(
    tmp_path: Path, untrained_model: Make, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"data__diameter": 6.0, "predict__estimate_diameter": True, "train__crop": (16, 16)}
    changes["data__normalisation"] = "levels"
    model = dataclasses.replace(
        untrained_model(2, **changes), normalisation=Normalisation("levels")
    )
    name = export(with_thresholds(model), tmp_path / "m.zip")
    y, x = np.indices((96, 96))
    discs = sum(np.hypot(y - a, x - b) < 9 for a in (18, 48, 78) for b in (18, 48, 78))
    image = np.random.default_rng(0).normal(20 + 200 * discs, 3).astype(np.uint8)
    folder = folder_with(tmp_path / "images", image, [(18, 48)])
    config = settings_for(folder, name)
    assert config.data.from_diameter == -1
    (sample,) = train.load_dataset(config).labelled
    assert sample.shape == pytest.approx((96 * 6 / 18,) * 2, abs=2)
    config = settings_for(folder, name, diameter=12)
    assert config.data.from_diameter == 12 and not config.predict.estimate_diameter
    train.fit_normalisation(train.load_dataset(config), config, model)
    assert "dark on a bright" not in caplog.text
    write_image(folder / "a.tif", 255 - image, ndim=2)
    train.fit_normalisation(train.load_dataset(config), config, model)
    assert "a.tif: the cells seem to be dark on a bright background" in caplog.text
    with pytest.raises(InputError, match=r"a\.tif: the cells seem to be dark .* give the diameter"):
        settings_for(folder, name)
    write_image(folder / "a.tif", np.full((96, 96), 7, np.uint8), ndim=2)
    settings_for(folder, name)
    assert "a.tif: no cells can be told from its background" in caplog.text


def test_volumes_are_resampled_to_the_models_voxels(tmp_path: Path, untrained_model: Make) -> None:
    changes = {"train__crop": (4, 16, 16), "evaluation__max_distance": 7.0}
    model = with_thresholds(untrained_model(3, **changes))
    model = dataclasses.replace(model, spacing=(4.0, 2.0, 2.0), spacing_known=True)
    name = export(model, tmp_path / "m.zip")
    image = np.random.default_rng(0).integers(0, 255, (12, 40, 40), np.uint8)
    folder = folder_with(tmp_path / "images", image, [(4, 20, 30)], spacing=(2.0, 1.0, 1.5))
    config = settings_for(folder, name)
    assert config.data.to_spacing == (4, 2, 2) and config.train.crop == (4, 16, 16)
    assert config.evaluation.max_distance == 7
    (sample,) = train.load_dataset(config).labelled
    assert sample.shape == (6, 20, 30) and sample.spacing == (4, 2, 2) and sample.spacing_known
    write_image(folder / "a.tif", image, ndim=3)
    with pytest.raises(InputError, match=r"a\.tif: its voxel size is not known.*data\.spacing=Z,Y"):
        settings_for(folder, name)


def test_the_normalisation_of_a_training_set_stays_and_far_images_are_told(
    tmp_path: Path, untrained_model: Make, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_thresholds(untrained_model(2, data__normalisation="dataset"))
    known = Normalisation("dataset", centre=(100.0,), scale=(20.0,))
    name = export(dataclasses.replace(model, normalisation=known), tmp_path / "m.zip")
    image = np.random.default_rng(0).normal(100, 20, (40, 40)).astype(np.float32)
    folder = folder_with(tmp_path / "images", image, [(4, 5)])
    config = settings_for(folder, name)
    parent = fine_tuning.parent_of(config)[1]
    for values, far in ((image, False), (image * 100, True)):
        write_image(folder / "a.tif", values.astype(np.float32), ndim=2)
        caplog.clear()
        assert train.fit_normalisation(train.load_dataset(config), config, parent) == known
        assert ("are far from those that the model" in caplog.text) == far


def test_the_command_says_what_to_do_next_and_scores_points_in_the_file(
    tmp_path: Path, run_2d: Path, cells_2d: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images twice as large as those of the model, whose cells are then as large as its own."""
    parent = model_file.load_model(run_2d).with_settings({"data.diameter": 5.0})
    name = export(parent, tmp_path / "parent.zip")
    folder = tmp_path / "images"
    for image in ("a0", "a1", "test/t0"):
        pixels = read_image(cells_2d / f"{image}.png").pixels[..., 0]
        both = np.stack([np.zeros_like(pixels), pixels], -1).repeat(2, 0).repeat(2, 1)
        write_image(folder / f"{image}.tif", both.astype(np.uint8), ndim=2)
        text = (cells_2d / f"{image}.csv").read_text().splitlines()[1:]
        dots = np.asarray([[float(v) for v in line.split(",")[:2]] for line in text], np.float32)
        write_points(folder / f"{image}.csv", (dots + 0.5) * 2 - 0.5)
    run = tmp_path / "run"
    arguments = ["train", str(folder), "--from", name, "--diameter", "10", "--steps", "4"]
    arguments += ["--set", "train.scan_length=2", "--set", "data.channel=1"]
    arguments += ["--set", "train.checkpoint_every=4", "--output"]
    assert cli.main([*arguments, str(run)]) == 0
    out = capsys.readouterr()[0].splitlines()
    first = folder / "a0.tif"
    assert out[-2:] == [
        f"  cellcount label {first} --model {run} --channel 1",
        f"  cellcount count {first} --model {run} --channel 1 --diameter 10 --output counted/",
    ]
    scores = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert scores["f1"] > 0.8
    found, true = (
        np.loadtxt(path, delimiter=",", skiprows=1)[:, :2]
        for path in (run / "evaluation" / "test" / "t0.csv", folder / "test" / "t0.csv")
    )
    nearest = np.linalg.norm(found[:, None] - true, axis=-1).min(1)
    assert np.median(nearest) < 2
    # It is counted at that size without being told again.
    counted = tmp_path / "counted"
    count = ["count", str(folder / "test" / "t0.tif"), "--model", str(run), "--channel", "1"]
    assert cli.main([*count, "--output", str(counted)]) == 0
    summary = json.loads((counted / "t0" / "summary.json").read_text())
    assert (summary["diameter"], summary["diameter_from"]) == (10, "as in training")
    assert summary["count"] == len(found)
    # A run does not take the place of the model that it goes on from.
    again = ["train", str(folder), "--from", str(run), "--overwrite", "--output", str(run)]
    assert cli.main(again) == 1
    assert f"--from {run}: is in {run}; give another --output" in capsys.readouterr()[1]
    assert zipfile.is_zipfile(run / "model.zip")
