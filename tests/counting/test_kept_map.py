"""The map of an image in one piece is computed once: for other thresholds, files and commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax.images.image_files import write_image
from cellcount_jax.inference import kept, model_file, tiled_maps

Call = Callable[..., int]

# A model's settings, and whether the image is counted in a mask.
MODELS: dict[str, tuple[dict[str, Any], bool]] = {
    "peaks": ({}, False),
    "components": ({"detect__rule": "components"}, False),
    "relative to the maximum": ({"detect__rule": "fidt"}, False),
    "merged cells split": ({"target__count_head": True, "detect__split_from": 1.2}, False),
    "density in a mask": ({"target__kernel": "gaussian"}, True),
}
RESULTS = ("points.csv", "summary.json", "report.html", "overlay.png")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each map that is computed."""
    calls: list[int] = []
    compute = tiled_maps.compute

    def counting(*arguments: Any, **options: Any) -> np.ndarray:
        calls.append(1)
        return compute(*arguments, **options)

    monkeypatch.setattr(tiled_maps, "compute", counting)
    return calls


def noise(path: Path, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).normal(100, 20, (40, 50))
    write_image(path, values.astype(np.float32))
    return path


def save_model(folder: Path, make: Callable[..., Any], **changes: Any) -> Path:
    model = make(2, target__scale=1.0, **changes)
    rule = model.config.detect.rule
    model.thresholds[rule] = 0.2
    model_file.export_model(model, folder / "model.zip", card="")
    return folder / "model.zip"


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.mark.usefixtures("quick_compiling")
@pytest.mark.parametrize(("changes", "masked"), MODELS.values(), ids=MODELS)
def test_another_threshold_finds_what_a_new_count_does(
    tmp_path: Path,
    untrained_model: Callable[..., Any],
    call: Call,
    computed: list[int],
    changes: dict[str, Any],
    masked: bool,
) -> None:
    model = save_model(tmp_path, untrained_model, **changes)
    mask = np.zeros((4, 5), np.uint8)
    mask[1:, 2:] = 1
    write_image(tmp_path / "mask.png", mask)
    options = ("--mask", tmp_path / "mask.png") if masked else ()
    command = ("count", noise(tmp_path / "a.tif"), "--model", model, *options, "--output")
    assert call(*command, tmp_path / "out") == 0
    first = contents(tmp_path / "out" / "a")
    assert first["points.csv"].count(b"\n") > 3 and len(computed) == 1
    for threshold in ("0.06", "0.95"):
        assert call(*command, tmp_path / "out", "--threshold", threshold) == 0
        assert len(computed) == 1
        assert call(*command, tmp_path / threshold, "--threshold", threshold) == 0
        assert contents(tmp_path / "out" / "a") == contents(tmp_path / threshold / "a")
        computed[1:] = []
    assert contents(tmp_path / "out" / "a")["points.csv"] != first["points.csv"]
    assert call(*command, tmp_path / "out", "--napari", "--density") == 0
    assert contents(tmp_path / "out" / "a") == first and len(computed) == 1
    assert (tmp_path / "out" / "a" / "points_napari.csv").exists()


@pytest.mark.usefixtures("quick_compiling")
def test_a_map_of_something_else_is_not_used(
    tmp_path: Path, untrained_model: Callable[..., Any], call: Call, computed: list[int]
) -> None:
    model = save_model(tmp_path, untrained_model)
    file, output = noise(tmp_path / "a.tif"), tmp_path / "out"
    command = ("count", file, "--model", model, "--output")
    assert call(*command, output) == 0
    first, path = contents(output / "a"), output / "a" / "work" / kept.FILE
    # What is damaged, gone or no such file is computed anew.
    whole = path.read_bytes()
    for damaged in (whole[:-30], whole[:80] + bytes([whole[80] ^ 1]) + whole[81:], b"", None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        before = len(computed)
        assert call(*command, output) == 0
        assert len(computed) == before + 1
        assert contents(output / "a") == first and path.read_bytes() == whole
    # So is what was moved there from the count of another image,
    other = tmp_path / "other"
    assert call("count", noise(tmp_path / "b.tif", 1), "--model", model, "--output", other) == 0
    shutil.copy(other / "b" / "work" / kept.FILE, path)
    assert call(*command, output) == 0
    assert contents(output / "a") == first
    # and of an image that has changed since.
    noise(file, 1)
    before = len(computed)
    assert call(*command, output) == 1 and len(computed) == before
    assert call(*command, output, "--overwrite") == 0 and len(computed) == before + 1
    points = (other / "b" / "points.csv").read_bytes()
    assert (output / "a" / "points.csv").read_bytes() == points != first["points.csv"]
    # With other settings of the network too.
    assert call(*command, output, "--thorough", "--overwrite") == 0
    assert len(computed) == before + 2
