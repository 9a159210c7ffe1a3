"""Checkpoints: whole or not at all, the newest whole one, the last few, on any devices."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError
from cellcount_jax.training import run_folder
from cellcount_jax.training.step import create_train_state

# Runs on 4 devices: stores a training state that fills all of them.
_SAVE_ON_FOUR_DEVICES = """
import pathlib, sys
import jax, numpy as np
from cellcount_jax import config
from cellcount_jax.training import parallel, run_folder
from cellcount_jax.training.step import create_train_state

settings = config.default_config()
settings.model.features = 2
settings.model.levels = 2
settings.train.crop = (16, 16)
shapes = jax.eval_shape(lambda: create_train_state(jax.random.key(0), settings, channels=1))
state = jax.tree.map(lambda x: np.arange(x.size, dtype=x.dtype).reshape(x.shape), shapes)
devices = jax.local_devices()
assert len(devices) == 4
state = parallel.replicate(state, devices)
assert len(jax.tree.leaves(state.params)[0].devices()) == 4
run_folder.save(pathlib.Path(sys.argv[1]), 3, state, keep=1)
"""


def tree_of(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    return {
        "weights": {"kernel": rng.normal(size=(3, 3, 1, 4)).astype(np.float32)},
        "moments": (rng.normal(size=7), np.int32(step)),
    }


def assert_same(found: Any, expected: Any) -> None:
    pairs = zip(jax.tree.leaves_with_path(found), jax.tree.leaves_with_path(expected), strict=True)
    for (path, a), (other_path, b) in pairs:
        assert path == other_path
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def test_a_tree_comes_back_bit_by_bit(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    run_folder.save(folder, 12, tree_of(12), keep=2)
    restored = run_folder.restore(folder, tree_of(0))
    assert restored is not None
    assert restored[0] == 12
    assert_same(restored[1], tree_of(12))
    assert [path.name for path in folder.iterdir()] == ["12"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert run_folder.steps(folder) == []
        assert run_folder.latest(folder) is None
        assert run_folder.restore(folder, tree_of(0)) is None
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_are_kept_in_the_order_of_numbers(tmp_path: Path, keep: int) -> None:
    for step in (8, 9, 10, 11):
        run_folder.save(tmp_path, step, tree_of(step), keep=keep)
    assert run_folder.steps(tmp_path) == [8, 9, 10, 11][-keep:]
    assert run_folder.latest(tmp_path) == 11


def test_one_that_was_not_finished_does_not_count_and_is_no_obstacle(tmp_path: Path) -> None:
    run_folder.save(tmp_path, 2, tree_of(2), keep=2)
    # What a run leaves that is killed while it writes.
    shutil.copytree(tmp_path / "2", tmp_path / "4.orbax-checkpoint-tmp")
    restored = run_folder.restore(tmp_path, tree_of(0))
    assert restored is not None and restored[0] == 2
    run_folder.save(tmp_path, 4, tree_of(4), keep=2)
    restored = run_folder.restore(tmp_path, tree_of(0))
    assert restored is not None and restored[0] == 4
    assert_same(restored[1], tree_of(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]


# Orbax leaves tasks behind that complain when it meets a damaged file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    whole = tmp_path / "whole"
    for step in (1, 2):
        run_folder.save(whole, step, tree_of(step), keep=2)
    files = [path.relative_to(whole) for path in (whole / "2").rglob("*") if path.is_file()]
    fallen_back = []
    for number, file in enumerate(files):
        damaged = tmp_path / str(number)
        shutil.copytree(whole, damaged)
        content = (damaged / file).read_bytes()
        (damaged / file).write_bytes(content[: int(share * len(content))])
        caplog.clear()
        restored = run_folder.restore(damaged, tree_of(0))
        assert restored is not None
        # Not every file is needed; what comes back is never something in between.
        assert_same(restored[1], tree_of(restored[0]))
        if restored[0] == 1:
            fallen_back.append(file)
            assert f"{damaged / '2'}: damaged, passed over" in caplog.text
        else:
            # The test's own name stands in the paths of what Orbax's left tasks complain about.
            assert "damaged, passed over" not in caplog.text
    assert len(fallen_back) >= 3  # the list of arrays, the index and the arrays themselves


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_empty_newest_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_folder.save(tmp_path, 1, tree_of(1), keep=2)
    (tmp_path / "2").mkdir()
    restored = run_folder.restore(tmp_path, tree_of(0))
    assert restored is not None and restored[0] == 1
    assert f"{tmp_path / '2'}: damaged, passed over" in caplog.text
    # The step that was damaged can be stored again.
    run_folder.save(tmp_path, 2, tree_of(2), keep=2)
    restored = run_folder.restore(tmp_path, tree_of(0))
    assert restored is not None and restored[0] == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_later_one_does_not_push_out_the_whole_ones(tmp_path: Path) -> None:
    run_folder.save(tmp_path, 1, tree_of(1), keep=1)
    (tmp_path / "9").mkdir()
    run_folder.save(tmp_path, 2, tree_of(2), keep=1)
    assert run_folder.steps(tmp_path) == [2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_all_damaged_is_an_error_that_removes_nothing(tmp_path: Path) -> None:
    for step in (1, 2):
        run_folder.save(tmp_path, step, tree_of(step), keep=2)
        (tmp_path / str(step) / "_METADATA").write_text("")
    with pytest.raises(InputError, match=r"none of the checkpoints of steps \[1, 2\] can be read"):
        run_folder.restore(tmp_path, tree_of(0))
    assert run_folder.steps(tmp_path) == [1, 2]


def test_arrays_of_other_shapes_are_an_error_and_not_given_back(tmp_path: Path) -> None:
    run_folder.save(tmp_path, 1, tree_of(1), keep=1)
    like = tree_of(0)
    like["weights"]["kernel"] = np.zeros((3, 3, 2, 4), np.float32)
    with pytest.raises(InputError, match="another number of channels"):
        run_folder.restore(tmp_path, like)


def test_a_checkpoint_of_four_devices_restores_on_one(
    tmp_path: Path, config_2d: ml_collections.ConfigDict
) -> None:
    flags = "--xla_force_host_platform_device_count=4"
    subprocess.run(
        [sys.executable, "-c", _SAVE_ON_FOUR_DEVICES, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        check=True,
    )
    config_2d.model.features = 2
    shapes = jax.eval_shape(lambda: create_train_state(jax.random.key(0), config_2d, channels=1))
    expected = jax.tree.map(lambda x: np.arange(x.size, dtype=x.dtype).reshape(x.shape), shapes)
    restored = run_folder.restore(tmp_path, jax.tree.map(np.zeros_like, expected))
    assert restored is not None and restored[0] == 3
    assert_same(restored[1], expected)


def test_a_run_of_before_a_setting_has_its_default(tmp_path: Path) -> None:
    config = settings.default_config()
    stored = settings.to_json(config)
    del stored["data"]["level"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    run_folder.compare(tmp_path, config)
    config.data.level = 1
    with pytest.raises(InputError, match=r"differ in data\.level \(there 0, given 1\)"):
        run_folder.compare(tmp_path, config)


def test_a_full_disk_is_an_error_without_tracebacks_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tree = {"a": np.zeros(100_000, np.float32)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as if no block were left
        with pytest.raises(OSError, match="large|space|Input.output") as caught:
            run_folder.save(tmp_path / "checkpoints", 1, tree, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value.filename) == str(tmp_path / "checkpoints" / "1")
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="No space left"):
        run_folder.save(tmp_path / "checkpoints", 1, tree, keep=1)
    assert run_folder.steps(tmp_path / "checkpoints") == []
    assert "Traceback" not in capfd.readouterr().err
