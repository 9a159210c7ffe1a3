"""All commands with results where their inputs are: nothing of the user's is lost, all is one line.

The network is tiny and untrained, and training is replaced by what it writes.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.counting import doctor
from cellcount_jax.evaluation import command as score_command
from cellcount_jax.images.files import replacing
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points
from cellcount_jax.inference import doubts, model_file
from cellcount_jax.label.session import Session
from cellcount_jax.report import page, pictures
from cellcount_jax.training import run_folder, train

Capture = pytest.CaptureFixture[str]
Contents = dict[str, str]

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, untrained_model: Callable[..., Any]) -> Path:
    """A user's folder: images with dots, a model, a run, notes, and links to them."""
    study = tmp_path_factory.mktemp("original") / "study"
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_image(study / "images" / f"{name}.png", rng.integers(0, 255, (24, 24), np.uint8))
        write_points(study / "images" / f"{name}.csv", np.array([[4.0, 5.0], [15.0, 12.0]]))
    write_points(study / "found.csv", np.array([[4.0, 5.0], [15.0, 13.0]]))
    model_file.export_model(untrained_model(2), study / "model.zip", card="# Tiny\n")
    model_file.export_model(untrained_model(2, zero=True), study / "run/model.zip", card="# Run\n")
    (study / "run/config.json").write_text('{"data": {}, "target": {}, "model": {}, "train": {}}')
    for name in ("notes.txt", "evaluation/notes.txt", "checkpoints/notes.txt", "labels.json"):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text("mine")
    # What the results of an earlier count and of an earlier score would be called.
    shutil.copytree(study / "images", study / "a")
    (study / "pictures").mkdir()
    shutil.copy(study / "images/a.png", study / "pictures/a.png")
    os.symlink("images", study / "link")
    os.symlink("images/a.png", study / "picture")
    os.symlink("nowhere", study / "dangling")
    os.symlink("circle", study / "circle")
    (study / "linked").mkdir()
    os.symlink("../images", study / "linked/a")
    return study


@pytest.fixture
def study(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, as the working directory."""
    copy = tmp_path / "study"
    shutil.copytree(original, copy, symlinks=True)
    monkeypatch.chdir(copy)
    yield copy
    for path in copy.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def contents(folder: Path) -> Contents:
    """Of every file a digest, and of every link where it leads."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def trained(config: Any, workdir: Path) -> None:
    """What training writes, without any."""
    run_folder.claim(workdir, config)
    for name in ("metrics.jsonl", "model.zip", "evaluation/metrics.json", "checkpoints/10/arrays"):
        with replacing(workdir / name) as temporary:
            temporary.write_text("new")


def quickly(path: Any, *_: object, **__: object) -> Any:
    """In the place of what takes long: pictures, the report with a thumbnail, and the look for
    doubts, of which there are none."""
    if not isinstance(path, Path):
        return ()
    with replacing(path) as temporary:
        temporary.write_text("new")
    return np.zeros((2, 2, 1), np.uint8)


IMAGE, MODEL = "images/a.png", ("--model", "model.zip")
COMMANDS: dict[str, tuple[str, ...]] = {
    "count": ("count", "images", *MODEL, "--mask", "a/a.png", "--density", "--output"),
    "count in tiles": ("count", "./link/../picture.png", *MODEL, "--max-voxels", "400", "--output"),
    "train": ("train", "images", "--output"),
    "train on the copy": ("train", "a", "--output"),
    "train from a model": ("train", "images", "--from", "model.zip", "--output"),
    "train from a run": ("train", "images", "--from", "run", "--output"),
    "score": ("score", "found.csv", "images/a.csv", "--tolerance", "5px", "--output"),
    "score with an image": (
        *("score", "found.csv", "images/a.csv", "--tolerance", "5px"),
        *("--image", "pictures/a.png", "--output"),
    ),
    "calibrate": ("calibrate", "images", *MODEL, "--output"),
    "calibrate a run": ("calibrate", IMAGE, "--model", "run", "--output"),
    "export": ("export", "model.zip"),
    "export a run": ("export", "run", "--card", "notes.txt"),
}
OUTPUTS = (
    *(".", "..", "images", "images/a.png", "images/a.csv", "images/new", "images/a.png/new"),
    *("model.zip", "run", "run/new", "run/model.zip", "run/evaluation", "notes.txt", "labels.json"),
    *("a", "a/..", "a/../images", "images/../images", "link", "link/a.png", "link/..", "picture"),
    *("dangling", "dangling/new", "circle", "linked", "linked/a", "evaluation", "pictures"),
)


@pytest.mark.parametrize("title", COMMANDS)
def test_results_among_the_inputs(
    study: Path, original: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, title: str
) -> None:
    """Only a model or a run that is not read may be replaced, and only with --overwrite."""
    monkeypatch.setattr(train, "_train_and_evaluate", trained)
    for module, name in ((page, "write_page"), (pictures, "save_overlay"), (doubts, "find")):
        monkeypatch.setattr(module, name, quickly)
    shutil.copy(IMAGE, "picture.png")
    before = contents(study)
    command = list(COMMANDS[title])
    can_overwrite = command[0] != "score"
    statuses, status = [], 0
    for output in OUTPUTS:
        for further in ([], ["--overwrite"]):
            if further and (not can_overwrite or status == 0):
                continue
            status = cli.main([*command, output, *further])
            text = "".join(capsys.readouterr())
            statuses.append(status)
            assert status in (0, 1), (output, further, text)
            assert (status == 0) != ("error: " in text), (output, further, text)
            assert "Errno" not in text and "Traceback" not in text, (output, further, text)
            after = contents(study)
            changed = {name for name in before if after.get(name) != before[name]}
            if further and command[0] == "train" and output == "run":
                changed -= {"run/model.zip", "run/config.json"}
            elif further and command[0] in ("calibrate", "export"):
                changed -= {output} & {"model.zip", "run/model.zip"} - set(command)
            assert not changed, (output, further)
            # As it was, for the next output.
            for name in after.keys() - before.keys():
                (study / name).unlink()
            for name in ("model.zip", "run/model.zip", "run/config.json"):
                shutil.copy(original / name, name)
    assert 1 in statuses


def test_results_in_a_folder_that_cannot_be_written(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Said before anything is computed: no model is read."""
    monkeypatch.setattr(train, "_train_and_evaluate", None)
    monkeypatch.setattr(score_command, "score_pair", None)
    monkeypatch.setattr(model_file, "_read_archive", None)
    (study / "locked").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, m: "locked" not in str(p) and access(p, m))
    for title, command in COMMANDS.items():
        if command[0] != "count" and "from" not in title:
            assert cli.main([*command, "locked/new/x"]) == 1
            error = capsys.readouterr().err
            assert error.startswith("error: locked: no permission to read or write it; give"), title
    assert not list((study / "locked").iterdir())


@dataclasses.dataclass
class Disk:
    """What `os.statvfs` says of one."""

    f_flag: int = 0
    f_blocks: int = 100
    f_bavail: int = 50
    f_bfree: int = 50
    f_frsize: int = 512


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (Disk(f_flag=os.ST_RDONLY), "out: lies on a file system that can only be read"),
        (Disk(f_bavail=0), "out: no space left on the disk"),
    ],
    ids=["read-only", "full"],
)
def test_results_on_a_disk_that_cannot_be_written(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, disk: Disk, words: str
) -> None:
    (study / "out").mkdir()
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    for title in ("count", "train", "score", "calibrate", "export"):
        assert cli.main([*COMMANDS[title], "out/x"]) == 1
        assert words in capsys.readouterr().err


def test_labels_are_saved_beside_images_that_stay(study: Path) -> None:
    """The dots of another program that were there are kept in a copy."""
    before = contents(study)
    for path in (Path("link/a.png"), Path("images/../images/b.png")):
        with Session(path) as session:
            session.add((1, 1))
            session.save()
    after = contents(study)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {"images/a.csv", "images/b.csv"}
    for name in changed:
        assert after[f"{name}.bak"] == before[name]


def test_the_doctor_leaves_the_folder_as_it_is(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(model_file, "bundled_models", lambda: {"tiny": study / "model.zip"})
    before = contents(study)
    assert doctor.run(argparse.Namespace()) == 1
    assert "NOT as it should be" in capsys.readouterr().out
    assert contents(study) == before
