"""The quarter of an hour on an accelerator: its parts, their time, and what has to travel."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points
from cellcount_jax.training import train

ROOT = Path(__file__).parents[2]

Load = Callable[[str], ModuleType]

# Writes rows as a part does, and then does what the rest of the program says.
WRITES = """
import json, pathlib, subprocess, sys, time
pathlib.Path(sys.argv[1]).write_text(json.dumps({"rows": [{"F1": 0.9}]}))
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports a script of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture
def quarter(load: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script; its parts are not skipped, and the machine has an accelerator."""
    module = load("quarter_hour")
    monkeypatch.setattr(module, "machine", lambda: {"device": "made up"})
    monkeypatch.setattr(module, "lacking", lambda part, data, *, tiny: "")
    return module


def programs(quarter: ModuleType, monkeypatch: pytest.MonkeyPatch, **rest: str) -> None:
    """Puts small programs in place of the parts."""

    def command(part: str, limit: float, output: Path, options: Any) -> list[str]:
        return [sys.executable, "-c", WRITES + rest.get(part, ""), str(output)]

    monkeypatch.setattr(quarter, "command", command)


def results(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_a_part_that_fails_or_takes_too_long_leaves_the_others(
    quarter: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    # Its own process would go on when only its parent was ended.
    slow = f"""
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({str(pid)!r}).write_text(str(child.pid))
time.sleep(600)
"""
    programs(quarter, monkeypatch, step="sys.exit('no such card')", nuclei2d=slow)
    monkeypatch.setattr(quarter, "SHARES", {"step": 1, "vgg": 1, "nuclei2d": 0.03, "counting": 1})
    monkeypatch.setattr(quarter, "_LEAST", 0.0)
    with pytest.raises(SystemExit, match="1"):
        quarter.main([f"--results={tmp_path / 'results'}", "--minutes=2"])
    found = results(tmp_path / "results")
    states = {part: content["state"] for part, content in found.items()}
    assert states == {
        **{"step": "failed", "vgg": "done"},
        **{"nuclei2d": "out of time", "counting": "done"},
    }
    assert "no such card" in found["step"]["reason"]
    assert all(found[part]["rows"] == [{"F1": 0.9}] for part in ("step", "vgg", "counting"))
    assert all(content["machine"] == {"device": "made up"} for content in found.values())
    # On a busy machine its time may be over before it has begun.
    if pid.exists() and pid.read_text():
        assert found["nuclei2d"]["rows"] == [{"F1": 0.9}]
        assert ended(int(pid.read_text()))


def test_a_part_ends_when_its_starter_was_killed(
    quarter: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # It has an alarm: what is left of it when it is asked.
    asks = "import signal; print(signal.alarm(0)); sys.exit('asked')"
    programs(quarter, monkeypatch, step=asks)
    with pytest.raises(SystemExit, match="1"):
        quarter.main([f"--results={tmp_path}", "--minutes=5", "--only=step"])
    *_, left, _ = results(tmp_path)["step"]["reason"].splitlines()
    assert 0 < int(left) <= 310


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has asked for yet, within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_time_that_a_part_leaves_goes_to_the_next_ones(
    quarter: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = []

    def run_part(part: str, limit: float, output: Path, options: Any) -> Any:
        limits.append(limit)
        return quarter.Outcome("skipped", "a test")

    monkeypatch.setattr(quarter, "run_part", run_part)
    with pytest.raises(SystemExit, match="0"):
        quarter.main([f"--results={tmp_path}", "--minutes=8", "--only=vgg,step,counting"])
    total = 150 + 210 + 50
    assert limits == pytest.approx([480 * 150 / total, 480 * 210 / 260, 480], abs=3)
    assert results(tmp_path)["vgg"]["reason"] == "a test"


def test_what_is_missing_skips_a_part(load: Load, tmp_path: Path) -> None:
    lacking = load("quarter_hour").lacking
    assert "no folder vgg in" in lacking("vgg", tmp_path, tiny=False)
    assert "nuclei2d_few or nuclei2d" in lacking("nuclei2d", tmp_path, tiny=False)
    assert lacking("vgg", tmp_path, tiny=True) == lacking("counting", tmp_path, tiny=False) == ""
    (tmp_path / "nuclei2d_few").mkdir()
    assert lacking("nuclei2d", tmp_path, tiny=False) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes=0"], "--minutes 0: must be above 0"),
        (["--only=steps"], "--only steps: no such part; there are step, vgg"),
        (["--tiny", f"--results={ROOT / 'results' / 'x'}"], "a trial writes nothing there"),
    ],
)
def test_options_that_make_no_sense(
    load: Load, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        load("quarter_hour").main(options)
    assert message in capsys.readouterr().err


def test_without_an_accelerator_nothing_is_measured(
    quarter: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quarter, "machine", lambda: {"device": "cpu"})
    with pytest.raises(SystemExit, match="no GPU or TPU"):
        quarter.main([f"--results={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_both_sides_take_the_steps_that_there_is_time_for(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = load("quarter_hour_parts")
    seen = []

    def made_up(config: Any, workdir: Path) -> dict[str, Any]:
        seen.append((config.train.steps, config.consistency.weight))
        workdir.mkdir()
        line = json.dumps({"step": 50, "seconds": 2.0}) + "\n"
        (workdir / "metrics.jsonl").write_text(line * 3)
        test = {"peaks": {"f1": 0.9}, "components": {"f1": 0.8}}
        return {"rule": "peaks", "f1": 0.9, "mae": 3.0, "sets": {"test": test}}

    monkeypatch.setattr(parts.train, "train_and_evaluate", made_up)
    rows: list[dict[str, Any]] = []
    parts.compare(parts.paper(Path("vgg"), tiny=False), 200.0, tmp_path, rows.append)
    # 25 steps a second, as each call of 50 took 2 s; nothing else took any time.
    without, given = (parts.paper(Path(), tiny=False)(weight) for weight in (0.0, 1.0))
    share = parts.step_flops(without) / parts.step_flops(given)
    steps = int(0.9 * 200 * 25 / (1 + share) / 50) * 50
    assert 0 < share < 0.5
    assert seen[0] == (250, 1.0)
    assert [weight for _, weight in seen[1:]] == [1.0, 0.0]
    assert all(abs(n - steps) <= 50 for n, _ in seen[1:]) and seen[1][0] == seen[2][0]
    assert [row["side"] for row in rows] == ["with consistency", "without"]
    assert rows[0]["of"] == 12_750 and rows[0]["F1 components"] == 0.8


@pytest.mark.parametrize(
    ("seconds", "beside", "most", "steps"),
    [
        (100.0, 0.0, 10_000, 450),  # 0.9 of 100 s, 10 steps a second, half of them each
        (100.0, 50.0, 10_000, 200),
        (100.0, 90.0, 10_000, 160),  # never less than a third of the time
        (0.1, 0.0, 10_000, 50),  # nor fewer than the trial
        (100.0, 0.0, 300, 300),
    ],
)
def test_the_steps_that_fit(
    load: Load, seconds: float, beside: float, most: int, steps: int
) -> None:
    found = load("quarter_hour_parts").steps_that_fit(
        seconds, pace=10.0, beside=beside, share=1.0, length=10, most=most
    )
    assert found == steps


def nuclei(folder: Path, *, train: int, test: int) -> Path:
    """A folder like nuclei2d, with labels beside the dots."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for i in range(count):
            path = folder / part / f"{part}{i:03d}.tif"
            write_image(path, rng.integers(0, 99, (16, 16)).astype(np.float32), ndim=2)
            write_points(path.with_suffix(".csv"), np.array([[3.0, 4.0]]))
            write_image(
                path.with_name(f"{path.stem}_labels.tif"), np.ones((16, 16), np.uint8), ndim=2
            )
    return folder


def test_few_labels_of_many_images(load: Load, tmp_path: Path) -> None:
    images = load("quarter_hour_images")
    nuclei(tmp_path / "nuclei2d", train=72, test=2)
    found = images.layout(tmp_path, unlabelled=5)
    images.link(found, tmp_path / "few")
    config = load("quarter_hour_parts").few_labels(tmp_path / "few", tiny=False)(1.0)
    dataset = train.load_dataset(config)
    assert len(dataset.labelled) == 10 and len(dataset.unlabelled) == 5
    assert len(dataset.tests["test"]) == 2
    assert not any("labels" in name for name in found)
    # The labelled ones do not depend on how many others there are.
    more = images.layout(tmp_path)
    assert {n for n in more if n.endswith(".csv")} == {n for n in found if n.endswith(".csv")}
    assert len(more) == 72 + 10 + 4


def test_a_pack(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packing = load("quarter_hour_pack")
    data, folder = tmp_path / "data", tmp_path / "pack"
    nuclei(data / "nuclei2d", train=75, test=1)
    (data / "vgg").mkdir()
    (data / "vgg/001cell.png").write_bytes(b"image")
    asked: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> str:
        asked.append(arguments)
        found = {"jax": "0.10", "Opt_Einsum": "3", "flax": "0.12", "Imported_Only": "1.0"}
        installs = [{"metadata": {"name": n, "version": v}} for n, v in found.items()]
        return json.dumps({"install": installs})

    monkeypatch.setattr(packing, "_pip", pip)
    load("quarter_hour").main([f"--pack={folder}", f"--data={data}"])
    assert "of at most 64" in (said := capsys.readouterr().out) and f"bash {folder}/run.sh" in said
    assert (folder / "data/vgg/001cell.png").read_bytes() == b"image"
    assert len(list((folder / "data/nuclei2d_few").glob("*.csv"))) == 10
    assert asked[1][-2:] == ("Imported_Only==1.0", "flax==0.12")
    needed = (folder / "requirements.txt").read_text()
    assert "flax>=" in needed and "imagecodecs" not in needed
    subprocess.run(["bash", "-n", folder / "run.sh"], check=True)
    with pytest.raises(SystemExit, match="is there already"):
        load("quarter_hour").main([f"--pack={folder}", f"--data={data}"])


def test_a_pack_that_is_too_large_names_its_largest_files(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels/large.whl").write_bytes(bytes(2**20))
    other = tmp_path / "model.zip"
    other.write_bytes(bytes(2**19))
    check = load("quarter_hour_pack").check_size
    assert "1.0 MiB" in check(folder, [other], limit=1.6)
    with pytest.raises(InputError, match=r"1.5 of at most 1.2: too much.*large.whl 1.0, model.zip"):
        check(folder, [other], limit=1.2)


def test_the_real_images_give_ten_labelled_ones(load: Load) -> None:
    directory = ROOT / "../shared/data"
    if not (directory / "nuclei2d").is_dir():
        pytest.skip("the images are not there")
    found = load("quarter_hour_images").layout(directory)
    names = [name for name in found if "/" not in name]
    assert sum(name.endswith(".csv") for name in names) == 10
    assert sum(name.endswith(".tif") for name in names) == 210
