"""The loop: a run that is stopped, damaged or resumed is the same run, or says what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from cellcount_jax import config as settings
from cellcount_jax.data import datasets
from cellcount_jax.data.sample import voxels_inside
from cellcount_jax.errors import InputError
from cellcount_jax.images import files
from cellcount_jax.images.image_files import read_image, write_image
from cellcount_jax.images.points import write_points
from cellcount_jax.inference import model_file
from cellcount_jax.maps import targets
from cellcount_jax.training import batches, metrics_log, run_folder, stack, train
from cellcount_jax.training.step import create_train_state

pytestmark = pytest.mark.usefixtures("quick_compiling")

Files = dict[str, tuple[int, bytes]]


def lines_of(workdir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    text = (workdir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def state_of(workdir: Path, config: ml_collections.ConfigDict) -> tuple[int, list[np.ndarray]]:
    """Step and all arrays of the latest checkpoint: weights, statistics, moments, count."""
    shapes = jax.eval_shape(lambda: create_train_state(jax.random.key(0), config, channels=1))
    like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    restored = run_folder.restore(workdir / "checkpoints", like)
    assert restored is not None
    return restored[0], [np.asarray(leaf) for leaf in jax.tree.leaves(restored[1])]


def assert_same_run(workdir: Path, other: Path, config: ml_collections.ConfigDict) -> None:
    step, leaves = state_of(workdir, config)
    other_step, other_leaves = state_of(other, config)
    assert step == other_step == config.train.steps
    for a, b in zip(leaves, other_leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    assert lines_of(workdir) == lines_of(other)
    names = ["model.zip", "config.json", "evaluation/metrics.json", "evaluation/per_image.csv"]
    for name in names:
        assert (workdir / name).read_bytes() == (other / name).read_bytes(), name


def snapshot(folder: Path) -> Files:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[int]], None]:
    """Sends this process a SIGTERM when one of some steps has been written."""
    write = metrics_log.MetricsWriter.write

    def use(steps: Iterable[int]) -> None:
        left = set(steps)

        def interrupting(self: metrics_log.MetricsWriter, step: int, values: Any) -> None:
            write(self, step, values)
            if step in left:
                left.remove(step)
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(metrics_log.MetricsWriter, "write", interrupting)

    return use


def test_a_run_writes_what_it_promises(run_2d: Path, config_2d: ml_collections.ConfigDict) -> None:
    assert json.loads((run_2d / "config.json").read_text()) == settings.to_json(config_2d)
    t = config_2d.train
    assert run_folder.steps(run_2d / "checkpoints") == [t.steps - t.checkpoint_every, t.steps]
    lines = lines_of(run_2d)
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(2, t.steps + 1, t.scan_length))
    # The evaluation at the end is in evaluation/ and not in here.
    assert [line["step"] for line in lines if "f1" in line] == [t.evaluate_every]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert any(line["consistency"] > 0 for line in losses)
    for line in losses:
        assert line["loss"] >= line["supervised"] > 0
        # Of the last of the steps that the line is about.
        cosine = 0.5 * (1 + np.cos(np.pi * (line["step"] - 1) / t.steps))
        assert line["learning_rate"] == pytest.approx(1e-2 * cosine, abs=1e-8)


def test_pieces_of_a_run_equal_the_whole_bit_by_bit(
    tmp_path: Path,
    run_2d: Path,
    config_2d: ml_collections.ConfigDict,
    interrupt_after: Callable[[Iterable[int]], None],
) -> None:
    # Between two checkpoints, and where an evaluation is due.
    stops = (42, config_2d.train.evaluate_every)
    interrupt_after(stops)
    handler = signal.getsignal(signal.SIGTERM)
    for stop in stops:
        assert train.train_and_evaluate(config_2d, tmp_path) is None
        assert run_folder.latest(tmp_path / "checkpoints") == stop
        assert lines_of(tmp_path)[-1]["step"] == stop
        assert signal.getsignal(signal.SIGTERM) is handler
    assert train.train_and_evaluate(config_2d, tmp_path) is not None
    assert_same_run(tmp_path, run_2d, config_2d)


# Orbax leaves tasks behind that complain when it meets a damaged file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_newest_checkpoint_costs_some_steps_and_nothing_else(
    tmp_path: Path,
    run_2d: Path,
    config_2d: ml_collections.ConfigDict,
    caplog: pytest.LogCaptureFixture,
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(run_2d, workdir)
    newest = workdir / "checkpoints" / str(config_2d.train.steps)
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-10])
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 160, "lo')
    shutil.rmtree(workdir / "evaluation")
    assert train.train_and_evaluate(config_2d, workdir) is not None
    assert f"{newest}: damaged, passed over" in caplog.text
    assert_same_run(workdir, run_2d, config_2d)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_whose_checkpoints_are_all_damaged_is_left_as_it_is(
    tmp_path: Path, run_2d: Path, config_2d: ml_collections.ConfigDict
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(run_2d, workdir)
    for path in (workdir / "checkpoints").rglob("_METADATA"):
        path.write_text("")
    before = snapshot(workdir)
    for call in (train.train_and_evaluate, train.evaluate_only):
        with pytest.raises(InputError, match=r"none of the checkpoints of steps \[144, 160\]"):
            call(config_2d, workdir)
    assert snapshot(workdir) == before


def test_a_workdir_of_another_config_is_left_as_it_is(
    run_2d: Path, config_2d: ml_collections.ConfigDict
) -> None:
    before = snapshot(run_2d)
    config_2d.optim.learning_rate = 3e-4
    config_2d.train.batch_labelled = 2
    for call in (train.train_and_evaluate, train.evaluate_only):
        with pytest.raises(InputError) as raised:
            call(config_2d, run_2d)
        text = str(raised.value)
        assert text.startswith(f"{run_2d}: holds a run of another config")
        assert "optim.learning_rate (there 0.01, given 0.0003)" in text
        assert "train.batch_labelled (there 4, given 2)" in text
        assert text.count("(there ") == 2
    assert snapshot(run_2d) == before


def test_a_run_of_a_version_without_calibration_share_learned_from_all_labels(
    tmp_path: Path, config_2d: ml_collections.ConfigDict
) -> None:
    stored = settings.to_json(config_2d)
    del stored["data"]["calibration_share"]
    files.write_json(tmp_path / "config.json", stored)
    with pytest.raises(InputError, match=r"data\.calibration_share \(there 0\.0, given 0\.2\)"):
        run_folder.compare(tmp_path, config_2d)
    config_2d.data.calibration_share = 0.0
    run_folder.compare(tmp_path, config_2d)
    assert settings.from_json(stored, tmp_path).data.calibration_share == 0.0


def test_what_chooses_the_threshold_is_not_learned_from(
    tmp_path: Path, config_2d: ml_collections.ConfigDict
) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("a", 600), ("b", 200)):
        write_image(tmp_path / f"{name}.png", rng.integers(0, 99, (40, 120)).astype(np.uint8))
        write_points(tmp_path / f"{name}.csv", rng.uniform(0, (39, 119), (count, 2)))
    config_2d.data.dir = str(tmp_path)
    config_2d.data.region = "x<100"
    config_2d.target.kernel = "gaussian"
    dataset = train.load_dataset(config_2d)
    normalisation = train.fit_normalisation(dataset, config_2d)
    on_device = stack.on_device(dataset, normalisation, config_2d).labelled
    assert len(dataset.labelled) == len(dataset.calibration) == 2
    for index, (sample, held) in enumerate(zip(dataset.labelled, dataset.calibration, strict=True)):
        assert sample.valid is not None and held.valid is not None
        assert not held.valid[:, 100:].any() and not (sample.valid & held.valid).any()
        np.testing.assert_array_equal(sample.valid[0] | held.valid[0], np.arange(120) < 100)
        seen = np.asarray(on_device.points)[index][np.asarray(on_device.mask)[index]]
        assert len(seen) and not held.valid[tuple(seen.T)].any()
        assert not (np.asarray(on_device.valid)[index] & held.valid).any()


def test_images_with_other_channels_than_the_checkpoint_are_an_error(
    tmp_path: Path, run_2d: Path, config_2d: ml_collections.ConfigDict, cells_2d: Path
) -> None:
    # The config is the same: what its folder holds has changed since.
    folder, workdir = tmp_path / "images", tmp_path / "run"
    shutil.copytree(cells_2d, folder)
    shutil.copytree(run_2d, workdir)
    for path in folder.rglob("*.png"):
        grey = read_image(path).pixels.astype(np.uint8)
        write_image(path, np.repeat(grey, 3, axis=-1))
    config_2d.data.dir = str(folder)
    files.write_json(workdir / "config.json", settings.to_json(config_2d))
    before = snapshot(workdir)
    with pytest.raises(InputError, match="another number of channels"):
        train.train_and_evaluate(config_2d, workdir)
    assert snapshot(workdir) == before


def test_checkpoints_without_a_config_are_not_touched(
    tmp_path: Path, config_2d: ml_collections.ConfigDict
) -> None:
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds checkpoints without a config\.json"):
        train.train_and_evaluate(config_2d, tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == [
        "checkpoints",
        "checkpoints/7",
    ]


def test_evaluating_alone_gives_what_training_gave(
    tmp_path: Path, run_2d: Path, config_2d: ml_collections.ConfigDict
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(run_2d, workdir)
    shutil.rmtree(workdir / "evaluation")
    (workdir / "model.zip").unlink()
    content = train.evaluate_only(config_2d, workdir)
    assert content == json.loads((run_2d / "evaluation" / "metrics.json").read_text())
    before, after = snapshot(run_2d), snapshot(workdir)
    assert {name: data for name, (_, data) in after.items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_there_must_be_something_to_evaluate(
    tmp_path: Path, config_2d: ml_collections.ConfigDict
) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(InputError, match="no run to evaluate"):
        train.evaluate_only(config_2d, missing)
    assert not missing.exists()
    files.write_json(tmp_path / "config.json", settings.to_json(config_2d))
    with pytest.raises(InputError, match="has no checkpoint to evaluate; train first"):
        train.evaluate_only(config_2d, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_training_that_diverges_says_so(
    tmp_path: Path, config_2d: ml_collections.ConfigDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"loss": np.asarray([1.0, 1.0]), "gradient_norm": np.asarray([1.0, np.nan])}

    def scanned(*_: Any, **__: Any) -> Callable[..., Any]:
        return lambda state, data, key: (state, losses)

    monkeypatch.setattr(train.parallel, "scanned", scanned)
    with pytest.raises(
        InputError, match=r"training diverged: .* at step 2, .* lower config\.optim"
    ):
        train.train_and_evaluate(config_2d, tmp_path / "run")
    (line,) = lines_of(tmp_path / "run")
    assert line.pop("learning_rate") == pytest.approx(1e-2, rel=1e-3)
    assert line == {"step": 2, "loss": 1.0, "gradient_norm": None}
    assert run_folder.steps(tmp_path / "run" / "checkpoints") == []


def test_training_beats_the_best_constant(
    run_2d: Path, config_2d: ml_collections.ConfigDict
) -> None:
    losses = [line["supervised"] for line in lines_of(run_2d) if "supervised" in line]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    content = json.loads((run_2d / "evaluation" / "metrics.json").read_text())
    assert content["f1"] > 0.9
    assert content["mae"] <= 1
    model = model_file.load_model(run_2d)
    dataset = train.load_dataset(config_2d)
    geometry = targets.target_geometry(config_2d, (1.0, 1.0))
    for sample in dataset.tests["test"]:
        points = voxels_inside(sample)
        target = batches.make_target(
            jnp.asarray(points),
            jnp.ones(len(points), bool),
            None,
            sample.shape,
            config=config_2d,
            geometry=geometry,
        )[..., 0]
        error = np.mean(np.square(model.predict_maps(sample.image).location - target))
        # The mean of the map, known beforehand, would have its variance as error.
        assert error < 0.8 * np.var(target)


def test_a_run_in_three_dimensions(run_3d: Path) -> None:
    content = json.loads((run_3d / "evaluation" / "metrics.json").read_text())
    assert list(content["sets"]) == ["test", "held_out"]
    assert content["max_distance_unit"] == "um"
    assert content["f1"] > 0.85
    assert model_file.load_model(run_3d).spacing == (2.0, 1.0, 1.0)
    assert all(line["consistency"] == 0 for line in lines_of(run_3d))


Change = Callable[[Path], object]


def rewritten(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def removed(pattern: str) -> Change:
    def change(folder: Path) -> None:
        for path in list(folder.glob(pattern)):
            path.unlink()

    return change


def truncated(folder: Path) -> None:
    image = read_image(folder / "a0.png").pixels
    (folder / "a0.png").unlink()
    write_image(folder / "a0.tif", image, ndim=2)
    content = (folder / "a0.tif").read_bytes()
    (folder / "a0.tif").write_bytes(content[: len(content) // 2])


def filled(name: str, value: float) -> Change:
    """Puts a pixel of this value into an image, which becomes a TIFF file."""

    def change(folder: Path) -> None:
        image = read_image(folder / f"{name}.png").pixels
        image[3, 4] = value
        (folder / f"{name}.png").unlink()
        write_image(folder / f"{name}.tif", image, ndim=2)

    return change


def shaped(name: str, shape: tuple[int, ...], ndim: int) -> Change:
    def change(folder: Path) -> None:
        (folder / f"{name}.png").unlink()
        write_image(folder / f"{name}.tif", np.ones(shape, np.uint8), ndim=ndim)

    return change


def not_a_tiff(folder: Path) -> None:
    (folder / "u0.png").unlink()
    (folder / "u0.tif").write_text("this is no image")


def unchanged(_: Path) -> None:
    pass


BAD_INPUT: dict[str, tuple[Change, dict[str, Any], tuple[str, ...]]] = {
    "missing folder": (shutil.rmtree, {}, ("data.dir", "does not exist")),
    "empty folder": (emptied, {}, ("data.dir", "empty")),
    "points without their image": (removed("a1.png"), {}, ("a1.csv", "no image a1")),
    "no image with points": (removed("a*.csv"), {}, ("none of its 6 images has dots",)),
    "no points in any image": (
        lambda folder: [rewritten(f"a{i}.csv", "y,x\n")(folder) for i in range(4)],
        {},
        ("data.dir", "none of the 4 labelled training images has a dot"),
    ),
    "points outside the image": (
        rewritten("a2.csv", "y,x\n1,1\n50,3\n4,-2\n"),
        {},
        ("a2.csv", "2 of 3 points lie outside the image of 40 x 40"),
    ),
    "NaN pixels": (
        filled("a3", np.nan),
        {},
        ("a3.tif", "NaN, infinite or above 1e+30 at (y, x) = (3, 4)"),
    ),
    "infinite pixels": (filled("u1", np.inf), {}, ("u1.tif", "1 such values")),
    "other channels": (shaped("u1", (40, 40, 3), 2), {}, ("u1.tif", "3")),
    "other dimensions": (shaped("u1", (9, 40, 40), 3), {}, ("u1.tif", "3D")),
    "truncated TIFF": (truncated, {}, ("a0.tif", "truncated")),
    "no TIFF": (not_a_tiff, {}, ("u0.tif",)),
    "empty CSV": (rewritten("a0.csv", ""), {}, ("a0.csv", "empty")),
    "missing column": (rewritten("a0.csv", "y,z\n1,1\n"), {}, ("a0.csv", "y,x is needed")),
    "non-number": (
        rewritten("a0.csv", "y,x\n1,1\n2,abc\n"),
        {},
        ("a0.csv", "line 3, column x: 'abc' is not a finite number"),
    ),
    "crop larger than the image": (
        unchanged,
        {"train.crop": (64, 16)},
        ("40 x 40 voxels, smaller than config.train.crop = 64 x 16",),
    ),
    "more labelled than there are": (
        unchanged,
        {"data.num_labelled": 5},
        ("data.num_labelled = 5", "4"),
    ),
    "more unlabelled than there are": (
        unchanged,
        {"data.num_unlabelled": 3},
        ("data.num_unlabelled = 3", "2"),
    ),
    "wrong ndim": (
        unchanged,
        {
            "data.ndim": 3,
            "train.crop": (8, 16, 16),
            "detect.min_distance": (1, 1, 1),
        },
        ("2D, but config.data.ndim = 3",),
    ),
    "negative pixels under a logarithm": (
        filled("test/t1", -5.0),
        {"data.normalisation": "robust_log"},
        ("t1.tif", "negative"),
    ),
    "no full annotation for the mask": (
        unchanged,
        {"target.kernel": "mask"},
        ("a0.png", "config.target.kernel = 'mask' needs a full annotation"),
    ),
    "too large for a model that cannot be tiled": (
        unchanged,
        {"predict.max_voxels": 1599, "model.norm": "instance"},
        ("a0.png", "1600 voxels, more than config.predict.max_voxels = 1599"),
    ),
    "impossible value": (unchanged, {"train.steps": 0}, ("config.train.steps = 0",)),
    "TensorBoard that is not installed": (
        unchanged,
        {"train.tensorboard": True},
        ("config.train.tensorboard = True needs tensorboardX",),
    ),
}


@pytest.mark.parametrize(("change", "changed", "parts"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_named_and_nothing_is_written(
    tmp_path: Path,
    config_2d: ml_collections.ConfigDict,
    cells_2d: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Change,
    changed: dict[str, Any],
    parts: tuple[str, ...],
) -> None:
    monkeypatch.setattr(metrics_log.importlib.util, "find_spec", lambda name: None)
    folder, workdir = tmp_path / "images", tmp_path / "run"
    shutil.copytree(cells_2d, folder)
    change(folder)
    config_2d.data.dir = str(folder)
    config_2d.update_from_flattened_dict(changed)
    with pytest.raises(InputError) as raised:
        train.train_and_evaluate(config_2d, workdir)
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not workdir.exists()


def test_the_folder_of_the_bad_inputs_is_a_good_one(config_2d: ml_collections.ConfigDict) -> None:
    dataset = datasets.load(config_2d.data, seed=0)
    assert len(dataset.labelled) == 4
    assert len(dataset.unlabelled) == 2
    assert len(dataset.tests["test"]) == 2


@pytest.mark.parametrize(
    ("steps", "length", "share", "expected"),
    [
        (100, 10, 0.2, 80),
        (100, 10, 0.0, 100),
        (100, 10, 1.0, 0),
        (30, 10, 0.2, 20),
        (10, 10, 0.2, 10),
    ],
)
def test_norms_are_frozen_for_a_share_at_the_end(
    steps: int, length: int, share: float, expected: int
) -> None:
    config = settings.default_config()
    config.train.steps, config.train.scan_length = steps, length
    config.model.norm_freeze = share
    assert settings.freeze_step(config) == expected


def test_one_compilation_for_each_part_of_training_and_one_for_evaluation(
    config_2d: ml_collections.ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config_2d.train.steps = 8
    config_2d.model.norm_freeze = 0.5
    config_2d.train.evaluate_every = 4
    config_2d.train.checkpoint_every = 4
    # A size of its own, so that no test before has compiled for it.
    config_2d.model.features = 3
    with jax.log_compiles():
        assert train.train_and_evaluate(config_2d, tmp_path / "run") is not None
    compiled = re.findall(r"Finished XLA compilation of (?:jit|pmap)\((\w+)\) in", caplog.text)
    # What scans the steps has no name of its own in all versions of JAX.
    assert len([name for name in compiled if name in ("many", "_fun")]) == 2
    # Labelled and test images, twice, are of one size.
    assert compiled.count("apply") == 1
