"""`cellcount train`: from what was labelled to a model that counts, and its one-line errors."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
import pytest

from cellcount_jax import cli, variants
from cellcount_jax.data.blocks import DONE
from cellcount_jax.data.entries import scan
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.selection import Selection
from cellcount_jax.label.session import Session
from cellcount_jax.training import command as training_command
from cellcount_jax.training import labels_record, run_folder

pytestmark = pytest.mark.usefixtures("quick_compiling")

# A network that is small enough to compile and run in seconds.
_SMALL = {
    "model.features": "4",
    "model.levels": "2",
    "model.attention": "none",
    "target.max_distance": "8",
    "optim.learning_rate": "1e-2",
    "consistency.weight": "0",
    "train.scan_length": "5",
    "train.checkpoint_every": "20",
    "evaluation.overlays": "1",
}


def call(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def small(**others: str) -> list[str]:
    values = _SMALL | {key.replace("__", "."): value for key, value in others.items()}
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def image_with_cells(
    path: Path, shape: Sequence[int], *, seed: int, spacing: Sequence[float] | None = None
) -> np.ndarray:
    """Writes bright cells on a dim background, 8 voxels apart or more; returns their centres."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(4, n - 3, 8) for n in shape), indexing="ij"), -1)
    centres = grid.reshape(-1, len(shape)) + rng.uniform(-0.5, 0.5, (grid[..., 0].size, len(shape)))
    centres = centres[rng.permutation(len(centres))[: len(centres) * 2 // 3]]
    voxels = np.moveaxis(np.indices(shape), 0, -1)
    image = rng.normal(30, 4, shape)
    for centre in centres:
        image += 150 * np.exp(-np.square(voxels - centre).sum(-1) / 4.5)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    options = {"spacing": spacing} if spacing else {"ndim": len(shape)}
    write_image(path, pixels, **options)
    return centres


def label(
    image: Path, dots: np.ndarray, block: Sequence[int], done: Sequence[Sequence[int]]
) -> None:
    with Session(image, block=block) as session:
        for dot in dots:
            session.add(dot)
        session.mark(done, DONE)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of 48x48: the left part of `a` is labelled, `b` is not."""
    folder = tmp_path / "my images"
    dots = image_with_cells(folder / "a.tif", (48, 48), seed=0)
    image_with_cells(folder / "b.tif", (48, 48), seed=1)
    label(
        folder / "a.tif",
        dots[dots[:, 1] < 31.5],
        (16, 16),
        [(i, j) for i in range(3) for j in (0, 1)],
    )
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_from_labels_to_counts_in_2d(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command: list[str | Path] = ["train", images, "--steps", "20", *small()]
    assert call(*command) == 0
    out, errors = capsys.readouterr()
    assert "1 labelled, 2 unlabelled, 0 test images of 48x48" in errors
    assert "step 20 of 20" in errors
    workdir = Path("runs") / "my images"
    assert "The score is on the training images themselves" in out
    assert out.splitlines()[-3:] == [
        f"The model is in {workdir}. Next:",
        f"  cellcount label '{images}/b.tif' --model '{workdir}'",
        f"  cellcount count '{images}/b.tif' --model '{workdir}' --output counted/",
    ]
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["train"]["crop"] == [48, 48] and stored["data"]["normalisation"] == "robust_log"
    # What is beside what is done is no background: the score is of the labelled part alone.
    scores = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    assert scores["true"] == sum(float(row["x"]) < 31.5 for row in rows_of(images / "a.csv"))

    assert call("count", images / "b.tif", "--model", workdir, "--output", tmp_path / "out") == 0
    assert rows_of(tmp_path / "out" / "counts.csv")[0]["input"].endswith("b.tif")

    # The same command again finds it finished; with other labels it does not go on.
    capsys.readouterr()
    assert call(*command) == 0
    assert "resuming runs/my images after step 20 of 20" in capsys.readouterr()[1]
    with Session(images / "a.tif") as session:
        session.mark([(0, 2)], DONE)
    assert call(*command) == 1
    error = capsys.readouterr()[1].splitlines()[-1]
    assert error == (
        "error: runs/my images: holds a model of other labels than those of now; give another"
        " --output, or --overwrite to replace it."
    )
    (workdir / "notes.txt").write_text("mine")
    assert call(*command, "--overwrite") == 0
    assert "resuming" not in capsys.readouterr()[1]
    assert (workdir / "notes.txt").exists()
    # As where it was killed between its record and its settings.
    for path in workdir.iterdir():
        if path.name not in ("labels.json", "notes.txt"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    labels_record.remove_run(workdir)
    assert [path.name for path in workdir.iterdir()] == ["notes.txt"]


def test_killed_and_given_again_it_goes_on(
    tmp_path: Path, images: Path, run_module: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "run"
    command: list[str | Path] = ["train", images, "--output", workdir, "--steps", "60", *small()]
    status, _, errors = run_module("cli", *command, gets=(signal.SIGKILL, 40))
    assert status == -signal.SIGKILL, errors
    killed_at = run_folder.latest(workdir / "checkpoints")
    assert killed_at == 20
    assert not (workdir / "model.zip").exists(), "it was finished"
    assert call(*command) == 0
    assert f"resuming {workdir} after step {killed_at} of 60" in capsys.readouterr()[1]
    assert call("count", images / "b.tif", "--model", workdir, "--output", tmp_path / "out") == 0


def test_from_labels_to_counts_in_3d(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, workdir = tmp_path / "volumes", tmp_path / "run"
    for seed, name in enumerate("abc"):
        dots = image_with_cells(folder / f"{name}.tif", (8, 32, 32), seed=seed, spacing=(2, 1, 1))
        label(folder / f"{name}.tif", dots, (8, 16, 16), list(np.ndindex(1, 2, 2)))
    changes = small(model__strides="((1,2,2),)", train__crop="8,16,16")
    changes += ["--set", "predict.flips=False"]
    command: list[str | Path] = [
        "train",
        folder,
        "--output",
        workdir,
        "--steps",
        "20",
        "--diameter",
        "12",
        *changes,
    ]
    assert call(*command) == 0
    out, errors = capsys.readouterr()
    assert "2 labelled, 0 unlabelled, 1 test volumes of 8x32x32, 1 channel, voxels of 2 x" in errors
    assert "on the training images themselves" not in out
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["data"]["ndim"] == 3 and stored["data"]["normalisation"] == "contrast"
    assert stored["evaluation"]["max_distance"] == 6 and stored["detect"]["min_distance"] == [
        1,
        2,
        2,
    ]
    assert call("count", folder / "a.tif", "--model", workdir, "--output", tmp_path / "out") == 0


def make(folder: Path, **options: object) -> ml_collections.ConfigDict:
    return training_command.make_config(folder, scan(folder), **options)  # type: ignore[arg-type]


def test_the_radius_is_the_labelling_tools_unless_a_diameter_is_given(images: Path) -> None:
    measured = make(images).evaluation.max_distance  # by the tool
    assert measured == pytest.approx(2.6, abs=0.1)
    with Session(images / "b.tif", radius=9.5) as session:
        session.add((3, 3))
    with Session(images / "b.tif") as session:  # opened again, it is kept
        session.add((9, 9))
    config = make(images)
    assert config.evaluation.max_distance == pytest.approx((measured + 9.5) / 2)  # the median
    assert config.detect.min_distance == (2, 2)
    assert config.data.diameter == pytest.approx(measured + 9.5)
    config = make(images, diameter=20)
    assert config.evaluation.max_distance == 10 and config.detect.min_distance == (3, 3)
    assert config.data.diameter == 20
    config = make(images, diameter=20, changes=["data.spacing=0.5,0.5", "train.steps=70"], steps=30)
    assert config.detect.min_distance == (6, 6) and config.data.diameter == 40
    assert config.train.steps == 70
    with pytest.raises(InputError, match="--diameter -1"):
        make(images, diameter=-1)


def test_a_radius_in_the_other_unit_is_converted(tmp_path: Path) -> None:
    shape, spacing = (8, 16, 16), (0.5, 0.2, 0.2)
    write_image(tmp_path / "px" / "a.tif", np.ones(shape, np.uint8), ndim=3)
    write_image(tmp_path / "um" / "a.tif", np.ones(shape, np.uint8), spacing=spacing)
    with Session(tmp_path / "px" / "a.tif", Selection(spacing=spacing)) as session:  # 1 um
        session.add((1, 1, 1))
    assert make(tmp_path / "px").evaluation.max_distance == pytest.approx(5)
    with Session(tmp_path / "um" / "a.tif", radius=1.2) as session:
        session.add((1, 1, 1))
    assert make(tmp_path / "um").evaluation.max_distance == pytest.approx(1.2)
    # Labelled before its voxel size was in the file.
    path = tmp_path / "um" / "a.label.json"
    stored = {**json.loads(path.read_text()), "unit": "px", "spacing": None, "radius": 4}
    path.write_text(json.dumps(stored))
    assert make(tmp_path / "um").evaluation.max_distance == pytest.approx(0.8)


def test_only_what_is_learned_from_makes_other_labels(images: Path) -> None:
    def digest() -> str:
        return labels_record.digest(scan(images), images)

    first = digest()
    with Session(images / "a.tif") as session:  # the right third is to do
        session.propose(np.array([(3, 40), (9, 47)]), None, by={})
        session.add((30, 40))
    assert digest() == first
    path = images / "a.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert digest() == first
    with Session(images / "a.tif") as session:
        session.add((1, 1))
    second = digest()
    assert second != first
    with Session(images / "a.tif") as session:
        placed = session.dots.nearest((1, 1), session.edges, max_distance=0.1)
        assert placed is not None
        session.remove([placed])
    assert digest() == first
    with Session(images / "a.tif") as session:
        session.mark([(0, 2)], DONE)
    assert digest() not in (first, second)
    image_with_cells(images / "c.tif", (48, 48), seed=2)
    (images / "c.csv").write_text("y,x\n1,1\n")
    third = digest()
    (images / "c.csv").write_text("y,x\n1,2\n")
    assert digest() != third


def test_overwriting_removes_nothing_of_a_folder_that_is_no_run(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example the images' own folder, with files of names that a run has too."""
    mine = {"config.json": '{"mine": 1}', "labels.json": '{"a": "b"}', "evaluation/notes.txt": "x"}
    for name, text in mine.items():
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_text(text)
    for removed in (None, "config.json"):
        if removed:
            (images / removed).unlink()
            del mine[removed]
        before = sorted(images.rglob("*"))
        assert call("train", images, "--output", images, "--overwrite", *small()) == 1
        assert f"{images}: is not the folder of a run" in capsys.readouterr()[1]
        assert call("train", images, "--output", images, *small()) == 1
        assert f"{images / 'labels.json'}: is not the file of a run" in capsys.readouterr()[1]
        assert sorted(images.rglob("*")) == before
        assert {name: (images / name).read_text() for name in mine} == mine


def test_images_and_volumes_in_one_folder(images: Path) -> None:
    write_image(images / "v.tif", np.ones((4, 8, 8), np.uint8), ndim=3)
    with pytest.raises(InputError, match=r"v\.tif: is 3D, but a\.tif is 2D"):
        make(images)


def test_crops_fit_the_smallest_image() -> None:
    config = variants.folder_config(ndim=3)
    variants.use_sizes(config, [(13, 70, 300), (40, 300, 47)])
    assert config.train.crop == (12, 64, 40)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "train.steps"], "--set train.steps: must be KEY=VALUE"),
        (["--set", "train.step=3"], "--set train.step: no such setting; did you mean"),
        (
            ["--set", "train.steps=many"],
            "--set train.steps=many: the value must be of the type int",
        ),
        (["--set", "augment.flips=1"], "--set augment.flips=1: the value must be of the type bool"),
        (["--steps", "17"], "--steps 17: must be a multiple of train.scan_length"),
    ],
)
def test_a_wrong_argument_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    assert call("train", images, "--output", tmp_path / "run", *arguments) == 1
    out, errors = capsys.readouterr()
    assert out == "" and errors.startswith(f"error: {words}") and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_trained_on(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", tmp_path / "no", "--output", tmp_path / "run") == 1
    assert capsys.readouterr()[1] == (
        f"error: {tmp_path}/no: does not exist; a folder with images is needed.\n"
    )
    with Session(images / "a.tif") as session:
        session.mark(list(np.ndindex(3, 3)), 0)
    assert call("train", images, "--output", tmp_path / "run") == 1
    assert "no block of any image is done" in capsys.readouterr()[1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("further", [[], ["--overwrite"]])
def test_a_second_training_in_a_workdir_is_refused(
    tmp_path: Path,
    images: Path,
    held_elsewhere: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    further: list[str],
) -> None:
    workdir = tmp_path / "run"
    with held_elsewhere(run_folder.locked(workdir)):
        (workdir / "notes.txt").write_text("mine")
        assert call("train", images, "--output", workdir, *small(), *further) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {workdir}: another training is writing there (process ")
    assert [path.name for path in workdir.iterdir()] == ["notes.txt"]
