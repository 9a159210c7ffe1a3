"""Counting from Python, which is to give what the command gives."""

from __future__ import annotations

import argparse
import filecmp
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import cellcount_jax
from cellcount_jax import DoubtfulCountWarning, InputError, cli
from cellcount_jax.counting.command import add_arguments
from cellcount_jax.images.image_files import read_image, write_image
from cellcount_jax.images.points import read_points
from cellcount_jax.inference.trained_model import TrainedModel

pytestmark = [
    pytest.mark.usefixtures("quick_compiling"),
    pytest.mark.filterwarnings("ignore::cellcount_jax.inference.doubts.DoubtfulCountWarning"),
]


@pytest.fixture
def files(cells_2d: Path, tmp_path: Path) -> Path:
    """An image, the same as the second of two channels, a mask of half of it, in a folder."""
    folder = tmp_path / "in"
    pixels = read_image(cells_2d / "test" / "t0.png").pixels[..., 0].astype(np.uint8)
    write_image(folder / "one.png", pixels)
    both = np.stack([np.zeros_like(pixels), pixels])
    tifffile.imwrite(folder / "two.ome.tif", both, metadata={"axes": "CYX"})
    write_image(tmp_path / "tissue.png", (np.indices(pixels.shape)[1] < 20).astype(np.uint8))
    return folder


def command(*arguments: Any) -> None:
    """Runs `cellcount count`."""
    assert cli.main(["count", *map(str, arguments)]) == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("one.png", {}),
        ("one.png", {"threshold": 0.45, "thorough": True}),
        ("one.png", {"mask": True}),
        ("two.ome.tif", {"channel": 1}),
    ],
)
def test_python_and_the_command_find_the_same(
    run_2d: Path, files: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    flags: dict[str, tuple[Any, ...]] = {
        "channel": ("--channel", 1),
        "thorough": ("--thorough",),
        "threshold": ("--threshold", 0.45),
        "mask": ("--mask", tmp_path / "tissue.png"),
    }
    given = [flag for option in options for flag in flags[option]]
    command(files / name, "--model", run_2d, "--output", tmp_path / "command", *given)

    model = cellcount_jax.load_model(run_2d)
    of_files = options | ({"mask": tmp_path / "tissue.png"} if "mask" in options else {})
    counts = model.count(files / name, output=tmp_path / "python", **of_files)
    (counted,) = counts
    other = tmp_path / "command" / counted.folder.name
    for one in ("points.csv", "summary.json", "report.html", "count.json"):
        assert filecmp.cmp(counted.folder / one, other / one, shallow=False), one
    for table in ("command", "python"):
        assert (tmp_path / table / "counts.csv").exists()

    array = read_image(files / "one.png").pixels
    if name == "two.ome.tif":
        array = np.concatenate([np.zeros_like(array), array], axis=-1)
    inside = read_image(tmp_path / "tissue.png").pixels[..., 0]
    of_array = options | ({"mask": inside} if "mask" in options else {})
    points, scores = model.predict(array, **of_array)
    np.testing.assert_array_equal(points, read_points(other / "points.csv", ndim=2))
    np.testing.assert_array_equal(points, counted.points)
    np.testing.assert_allclose(scores, counted.scores, rtol=1e-5)
    assert counted.count == counts.total == len(points) > 2
    assert counted.summary["model"] == str(run_2d)


def test_a_volume_of_other_voxels(run_3d: Path, cells_3d: Path, tmp_path: Path) -> None:
    pixels = read_image(cells_3d / "test" / "test.tif").pixels[..., 0].repeat(2, axis=1)
    write_image(tmp_path / "finer.tif", pixels.astype(np.uint8), ndim=3)
    model, spacing = cellcount_jax.load_model(run_3d), (2.0, 0.5, 1.0)
    (counted,) = model.count(
        [tmp_path / "finer.tif"], output=tmp_path / "out", spacing=spacing, rescale=True
    )
    points, scores = model.predict(pixels, spacing=spacing)
    np.testing.assert_allclose(points, counted.points, atol=1e-5)
    np.testing.assert_allclose(scores, counted.scores, rtol=1e-5)
    assert counted.count == len(points) > 5
    frame = counted.to_pandas()
    assert list(frame) == ["id", "z", "y", "x", "z_um", "y_um", "x_um", "score"]
    np.testing.assert_allclose(frame[["z_um", "y_um", "x_um"]], counted.points * spacing)


def test_a_folder_with_a_damaged_file(run_2d: Path, files: Path, tmp_path: Path) -> None:
    (files / "two.ome.tif").write_bytes(b"II*\0")
    (files / "flat.png").write_bytes((files / "one.png").read_bytes())
    lines: list[str] = []
    with pytest.warns(UserWarning, match="1 of 3 inputs were not counted: .*two.ome.tif"):
        counts = cellcount_jax.load_model(run_2d).count(
            str(files), output=str(tmp_path / "out"), show=lines.append
        )
    assert [Path(image.input).name for image in counts] == ["flat.png", "one.png", "two.ome.tif"]
    assert counts.failed == (counts[2],) and counts[2].count is None
    assert len(counts) == 3 and counts.total == 2 * (counts[0].count or 0) > 0
    assert sum("cells" in line for line in lines) == 2
    frame = counts.to_pandas()
    assert frame["count"][:2].tolist() == [image.count for image in counts.images[:2]]
    assert frame["error"].map(bool).tolist() == [False, False, True]


def test_a_doubtful_count_is_warned_of(
    untrained_model: Callable[..., TrainedModel], tmp_path: Path
) -> None:

    pixels = np.random.default_rng(0).integers(0, 255, (48, 48)).astype(np.uint8)
    write_image(tmp_path / "noise.png", pixels)
    with pytest.warns(DoubtfulCountWarning, match="noise.png: .*threshold") as seen:
        counts = untrained_model(2).count(tmp_path / "noise.png", output=tmp_path / "out")
    assert seen[0].filename == __file__
    assert "threshold" in counts[0].doubts


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (np.zeros((8, 8)), {}, r"not a ndarray; model.predict\(array\)"),
        ([np.zeros((8, 8))], {}, "not a list"),
        ("none.tif", {}, "none.tif: no such file"),
        ("none.tif", {"mask": np.ones((8, 8))}, "mask: is a file here"),
    ],
)
def test_what_cannot_be_counted(
    untrained_model: Callable[..., TrainedModel],
    tmp_path: Path,
    inputs: Any,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        untrained_model(2).count(inputs, output=tmp_path / "out", **options)
    with pytest.raises(TypeError, match="treshold"):
        untrained_model(2).count(inputs, output=tmp_path / "out", treshold=0.3)
    assert not (tmp_path / "out").exists()


def test_a_table_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = cellcount_jax.Cells(np.zeros((2, 2), np.float32), np.ones(2, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what pandas imports
        assert list(cells.to_pandas()) == ["id", "y", "x", "score"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="cellcount_jax.pandas."):
        cells.to_pandas()


def test_python_has_the_options_of_the_command() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flags = {action.dest for action in parser._actions} - {"help", "dry_run"}
    options = inspect.signature(cellcount_jax.count_files).parameters
    assert set(options) - {"show"} == flags
