"""A run makes way for another: all of it, nothing else, and after a kill at any time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError
from cellcount_jax.training import labels_record, run_folder


def write_record(folder: Path) -> None:
    """As a run that was killed before its config.json was written."""
    with pytest.raises(KeyboardInterrupt), labels_record.recorded(folder, "0" * 64):
        text = (folder / "labels.json").read_text()
        raise KeyboardInterrupt
    folder.mkdir(exist_ok=True)
    (folder / "labels.json").write_text(text)


def a_run(folder: Path) -> dict[str, str]:
    """The files of a run that was trained, beside one of the user's."""
    write_record(folder)
    run_folder.claim(folder, settings.default_config())
    contents = {
        name: (folder / name).read_text() for name in ("config.json", "labels.json")
    } | dict.fromkeys(
        ("model.zip", "metrics.jsonl", "evaluation/metrics.json", "checkpoints/10/x", "notes.txt"),
        "text",
    )
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return contents


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("steps", range(7))
def test_a_removal_that_is_killed_leaves_a_run_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    a_run(tmp_path)
    everything = left(tmp_path)
    removed = iter(range(steps))

    def killed_later(remove: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any, **options: Any) -> None:
            if next(removed, None) is None:
                raise KeyboardInterrupt
            remove(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed_later(lambda path: os.rename(path, f"{path}.bin")))
        patched.setattr(Path, "unlink", killed_later(Path.unlink))
        if steps < 6:
            with pytest.raises(KeyboardInterrupt):
                labels_record.remove_run(tmp_path)
            assert run_folder.is_run(tmp_path)
            assert steps == 0 or not (tmp_path / "model.zip").exists()
            assert len(everything & left(tmp_path)) == len(everything) - steps
    labels_record.remove_run(tmp_path)
    assert everything & left(tmp_path) == {"notes.txt"}
    labels_record.remove_run(tmp_path)


def test_a_run_that_was_killed_at_its_start_is_removed(tmp_path: Path) -> None:
    write_record(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    labels_record.remove_run(tmp_path)
    assert left(tmp_path) == {"notes.txt"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", '{"a": "b"}'),
        ("labels.json", '{"sha256": "0", "labels": ["neuron"]}'),
        ("labels.json", "{"),
        ("labels.json/notes.txt", "mine"),
        ("config.json", '{"mine": 1}'),
        ("evaluation/notes.txt", "mine"),  # beside the record of a run that was killed
    ],
)
def test_what_is_of_no_run_stays(tmp_path: Path, name: str, text: str) -> None:
    if not name.startswith("labels.json"):
        write_record(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="is not the (folder|file) of a run"):
        labels_record.remove_run(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / name).read_text() == text


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    workdir, disk = tmp_path / "run", tmp_path / "disk"
    a_run(workdir)
    (workdir / "checkpoints").rename(disk)
    (workdir / "checkpoints").symlink_to(disk)
    labels_record.remove_run(workdir)
    assert left(workdir) == {"notes.txt"} and (disk / "10" / "x").exists()
