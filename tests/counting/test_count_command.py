"""The command `cellcount`: counts with their files, models in files, and errors of one line."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cellcount_jax.counting import claim, doctor, results
from cellcount_jax.evaluation.metrics import match_points
from cellcount_jax.images.image_files import read_image, write_image
from cellcount_jax.images.points import read_points
from cellcount_jax.inference import model_file

Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def image(cells_2d: Path) -> Path:
    """A test image of the 2D run."""
    return cells_2d / "test" / "t0.png"


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_columns(path: Path, *columns: str) -> np.ndarray:
    return np.array([[float(row[name]) for name in columns] for row in read_rows(path)])


def assert_nothing_is_counted(output: Path) -> None:
    """At most there is the table, with the error."""
    if output.exists():
        assert names(output) == ["counts.csv"]
        assert all(row["error"] and not row["count"] for row in read_rows(output / "counts.csv"))


def without(name: str) -> Callable[[Path], object]:
    def change(workdir: Path) -> None:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


NOT_A_RUN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such model; give the workdir"),
    "not evaluated": (without("model.zip"), "so the run was not evaluated, or by an older version"),
    "no run": (
        lambda workdir: [without(name)(workdir) for name in ("model.zip", "checkpoints")],
        "is not the workdir of a finished run; train one with",
    ),
    "torn model": (lambda workdir: (workdir / "model.zip").write_text("{"), "is not a model file"),
}


@pytest.mark.parametrize(("change", "words"), NOT_A_RUN.values(), ids=NOT_A_RUN)
def test_a_folder_that_is_no_run_is_an_error_that_names_the_file(
    tmp_path: Path,
    run_2d: Path,
    image: Path,
    call: Call,
    capsys: Capture,
    change: Callable[[Path], object],
    words: str,
) -> None:
    workdir, output = tmp_path / "run", tmp_path / "output"
    shutil.copytree(run_2d, workdir)
    change(workdir)
    assert call("count", image, "--model", workdir, "--output", output) == 1
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1
    assert errors.startswith(f"error: {workdir}") and words in errors
    assert not output.exists()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_command_on_a_png_image(
    tmp_path: Path, run_2d: Path, image: Path, call: Call, capsys: Capture
) -> None:
    output = tmp_path / "a" / "b"
    assert call("count", image, "--model", run_2d, "--output", output) == 0
    out, errors = capsys.readouterr()
    rows = read_rows(output / "t0" / "points.csv")
    banner, first, last = out.splitlines()
    assert banner == f"{image}: PNG, YX of 40 x 40 uint8, unknown voxel size"
    assert first.startswith(f"{image}: {len(rows)} cells (") and errors == ""
    assert last == f"written to {output}"
    assert len(rows) > 5 and list(rows[0]) == ["id", "y", "x", "score"]
    assert [int(row["id"]) for row in rows] == list(range(1, len(rows) + 1))
    model = model_file.load_model(run_2d)
    expected, scores = model.predict(read_image(image).pixels)
    found = read_columns(output / "t0" / "points.csv", "y", "x", "score")
    np.testing.assert_allclose(found, np.column_stack([expected, scores]), rtol=1e-5)
    summary = json.loads((output / "t0" / "summary.json").read_text())
    assert {"cellcount_jax", "jax", "numpy"} == summary.pop("versions").keys()
    assert summary == {
        "input": str(image),
        "kind": "PNG",
        "axes": "YX",
        "scene": None,
        "axes_given": None,
        "channel": None,
        "time": None,
        "level": 0,
        "mask": None,
        "count": len(rows),
        "integral": None,
        "model": str(run_2d),
        "model_step": model.step,
        "rule": "peaks",
        "threshold": model.thresholds["peaks"],
        "mirror_images": 1,
        "tiles": 1,
        "tiles_constant": 0,
        "tiles_outside_mask": 0,
        "tiles_dark": 0,
        "shape": [40, 40],
        "spacing_um": None,
        "spacing_from": "unknown",
        "rescaled_to_um": None,
        "diameter": None,
        "diameter_from": None,
        "inverted": False,
        "voxels_counted": 1600,
        "doubts": [],
    }
    assert read_image(output / "t0" / "overlay.png").pixels.shape[-1] == 3
    assert names(output / "t0") == [
        "count.json",
        "overlay.png",
        "points.csv",
        "report.html",
        "summary.json",
        "thumbnail.png",
        "work",
    ]
    (row,) = read_rows(output / "counts.csv")
    assert row.pop("folder") == "t0" and row.pop("error") == ""
    assert row == {"input": str(image), "count": str(len(rows)), "voxels": "1600", "doubts": ""}


def test_a_folder_and_a_file_are_counted_into_one_table(
    tmp_path: Path, run_2d: Path, image: Path, call: Call, capsys: Capture
) -> None:
    folder, output = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for name in ("t1.png", "t0.png"):
        shutil.copy(image.with_name(name), folder)
    (folder / "notes.txt").write_text("not an image")
    other = tmp_path / "another.png"
    shutil.copy(image, other)
    assert call("count", folder, other, "--model", run_2d, "--output", output) == 0
    rows = read_rows(output / "counts.csv")
    assert [Path(row["input"]).name for row in rows] == ["t0.png", "t1.png", "another.png"]
    assert rows[0]["count"] == rows[2]["count"]
    total = sum(int(row["count"]) for row in rows)
    page = output / "counts.html"
    line = f"{total} cells in 3 inputs, written to {output}; {page} shows them all\n"
    assert capsys.readouterr().out.endswith(line)
    assert names(output) == ["another", "counts.csv", "counts.html", "t0", "t1"]


def test_a_higher_threshold_counts_fewer(
    tmp_path: Path, run_2d: Path, image: Path, call: Call
) -> None:
    counts = []
    for threshold in ("0.1", "0.5", "0.99"):
        output = tmp_path / threshold
        arguments = ("--model", run_2d, "--output", output, "--threshold", threshold)
        assert call("count", image, *arguments) == 0
        summary = json.loads((output / "t0" / "summary.json").read_text())
        assert summary["threshold"] == float(threshold)
        counts.append(summary["count"])
    assert counts[0] >= counts[1] > counts[2]


@pytest.mark.parametrize("options", [(), ("--max-voxels", "3000")], ids=["whole", "in tiles"])
@pytest.mark.parametrize("case", ["cells", "faint", "blank"])
def test_a_faint_map_holds_no_cells_by_fidts_rule(
    tmp_path: Path, run_2d: Path, image: Path, call: Call, case: str, options: tuple[str, ...]
) -> None:
    exported, file = tmp_path / "fidt.zip", tmp_path / "a.tif"
    model = model_file.load_model(run_2d)
    scale = model.config.target.scale * (20 if case == "faint" else 1)
    model = model.with_settings({"detect.rule": "fidt", "target.scale": scale})
    model_file.export_model(model, exported, card="# FIDT\n")
    pixels = read_image(image).pixels[..., 0].astype(np.uint8)
    write_image(file, np.tile(pixels if case != "blank" else 0 * pixels, (2, 2)))
    assert call("count", file, "--model", exported, "--output", tmp_path / "out", *options) == 0
    folder = tmp_path / "out" / "a"
    summary = json.loads((folder / "summary.json").read_text())
    report = (folder / "report.html").read_text()
    assert (summary["tiles"] > 1) == bool(options)
    assert summary["threshold"] == pytest.approx(100 / 255)
    assert summary["count"] == len(read_rows(folder / "points.csv"))
    if case == "cells":
        assert summary["count"] > 20 and "s maximum (fidt)" in report
    else:
        assert summary["count"] == 0
        assert "no peak is above 0.1: the map is faint (fidt)" in report


def test_points_for_other_programs(
    tmp_path: Path, run_3d: Path, cells_3d: Path, call: Call
) -> None:
    file = cells_3d / "test" / "test.tif"
    output = tmp_path / "out"
    options = ("--cellfinder", "--napari", "--model", run_3d, "--output", output)
    assert call("count", file, *options) == 0
    places = read_columns(output / "test" / "points.csv", *"zyx")
    micrometres = read_columns(output / "test" / "points.csv", "z_um", "y_um", "x_um")
    np.testing.assert_allclose(micrometres, places * (2.0, 1.0, 1.0), rtol=1e-5)
    napari = read_points(output / "test" / "points_napari.csv", ndim=3)
    np.testing.assert_allclose(napari, places, rtol=1e-5)
    root = ElementTree.parse(output / "test" / "points.xml").getroot()
    assert root.tag == "CellCounter_Marker_File"
    markers = root.findall("./Marker_Data/Marker_Type[Type='2']/Marker")
    found = [[int(m.findtext(f"Marker{axis}") or -1) for axis in "ZYX"] for m in markers]
    np.testing.assert_array_equal(found, np.floor(places + 0.5))


def test_an_exported_model_counts_the_same(
    tmp_path: Path, run_2d: Path, image: Path, call: Call, capsys: Capture
) -> None:
    card, exported = tmp_path / "c.md", tmp_path / "m.zip"
    card.write_text("# Mine\n\nFor small cells.\n")
    assert call("export", run_2d, exported, "--card", card) == 0
    assert call("models", exported) == 0
    assert "For small cells." in capsys.readouterr().out
    written = []
    for model in (run_2d, exported):
        output = tmp_path / "counted" / model.stem
        assert call("count", image, "--model", model, "--output", output) == 0
        written.append((output / "t0" / "points.csv").read_bytes())
    assert written[0] == written[1]


def test_the_bundled_models_are_listed_and_the_doctor_is_content(
    call: Call, capsys: Capture
) -> None:
    assert call("models") == 0
    listed = capsys.readouterr().out
    for name in model_file.bundled_models():
        assert name in listed
    assert call("doctor") == 0
    out = capsys.readouterr().out
    assert "microglia3d finds 64 of 64 generated cells" in out and "all is well" in out
    assert "compressed TIFF files: imagecodecs 20" in out


def test_the_doctor_says_that_compressed_files_cannot_be_read(
    call: Call, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr(model_file, "bundled_models", dict)
    assert call("doctor") == 1
    out = capsys.readouterr().out
    assert "compressed TIFF files: NOT as it should be" in out and "pip install imagecodecs" in out


def test_the_doctors_cells_are_found_by_the_other_model_of_volumes() -> None:
    model = model_file.load_model("nuclei3d")
    points, _ = model.predict(doctor.check_image(model.spacing)[0])
    assert len(points) == 64


def test_round_cells_are_found_by_the_bundled_model_of_2d_images(
    tmp_path: Path, call: Call
) -> None:
    places = np.stack(np.meshgrid(*[np.arange(4) * 28 + 22] * 2, indexing="ij"), -1).reshape(-1, 2)
    grid = np.indices((130, 130)).transpose(1, 2, 0)
    distance = np.linalg.norm(grid[:, :, None] - places, axis=-1).min(-1)
    image = (
        300 + np.random.default_rng(0).normal(0, 15, (130, 130)) + 2000 / (1 + np.exp(distance - 5))
    )
    for larger in (1, 2):
        file = tmp_path / f"{larger}.tif"
        write_image(file, image.repeat(larger, 0).repeat(larger, 1).astype(np.uint16))
        output = tmp_path / "out"
        options = ("--model", "nuclei2d", "--output", output, "--diameter", str(10 * larger))
        assert call("count", file, *options) == 0
        found = read_columns(output / str(larger) / "points.csv", *"yx")
        assert len(found) == len(places) == 16
        assert match_points(found, larger * places, max_distance=2.0 * larger).f1 == 1


def test_all_outputs_of_a_volume_in_tiles(
    tmp_path: Path,
    run_3d: Path,
    cells_3d: Path,
    call: Call,
    done_marks: Callable[[Path], dict[str, int]],
    capsys: Capture,
) -> None:
    file, output = cells_3d / "test" / "test.tif", tmp_path / "out"
    labels = np.ones((6, 20, 20), np.int32)
    labels[:, :, 10:] = 614454277
    labels[:, :4] = 0
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "names.csv").write_text("id,name\n1,left\n614454277,right\n")
    options: list[str | Path] = [
        *("--model", run_3d, "--output", output, "--max-voxels", "1000", "--density", "10"),
        *("--regions", tmp_path / "labels.npy", "--region-names", tmp_path / "names.csv"),
        *(
            "--mask",
            tmp_path / "labels.npy",
            "--export",
            "napari",
            "cellfinder",
            "imagej",
            "qupath",
        ),
    ]
    assert call("count", file, *options) == 0
    written = output / "test"
    summary = json.loads((written / "summary.json").read_text())
    assert summary["tiles"] > 1 and summary["mask"] == str(tmp_path / "labels.npy")
    rows = read_rows(written / "points.csv")
    assert len(rows) == summary["count"] > 3 and all(float(row["y"]) >= 8 for row in rows)
    left = sum(float(row["x"]) < 19.5 for row in rows)
    regions = {row["name"]: int(row["count"]) for row in read_rows(written / "regions.csv")}
    assert regions == {"left": left, "right": len(rows) - left, "outside": 0}
    assert len(read_rows(written / "points_napari.csv")) == len(rows)
    assert (written / "density.zarr" / ".zattrs").exists()
    assert f"{len(rows)}</" in (written / "report.html").read_text()
    known = {*results.FILES, claim.WORK, claim.FILE}
    assert known - {path.name for path in written.iterdir()} == {"points.parquet"}
    assert not {path.name for path in written.iterdir()} - known
    before, marks = (written / "points.csv").read_bytes(), done_marks(written)
    assert len(marks) > 6
    assert call("count", file, *options, "--threshold", "0.9") == 0
    assert done_marks(written) == marks, "the map is not computed again"
    assert len(read_rows(written / "points.csv")) < len(rows)
    assert call("count", file, *options) == 0
    assert (written / "points.csv").read_bytes() == before
    # Another count's results stay, unless they may go.
    assert call("count", file, *options, "--spacing", "3,1,1") == 1
    assert "differs in spacing_um" in capsys.readouterr().err
    np.save(tmp_path / "labels.npy", labels > 1)
    assert call("count", file, *options) == 1
    assert "differs in mask" in capsys.readouterr().err
    assert (written / "points.csv").read_bytes() == before
    assert call("count", file, *options, "--spacing", "3,1,1", "--overwrite") == 0
    assert json.loads((written / "summary.json").read_text())["spacing_um"] == [3.0, 1.0, 1.0]


@pytest.mark.usefixtures("models_stay_loaded")
def test_wrong_options_are_one_line(
    tmp_path: Path, run_2d: Path, image: Path, call: Call, capsys: Capture
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((image, "--threshold", "1.5"), "--threshold 1.5: must be between 0 and 1"),
        ((image, "--threshold", "0.01"), "--threshold 0.01: must be at least 0.05"),
        ((image, "--spacing", "1,-2"), "2 positive voxel edges in micrometres"),
        ((image, "--spacing", "1,1,1"), "2 positive voxel edges in micrometres"),
        ((image, "--channel", "7"), "channel '7': is not there; it has 1"),
        ((image, "--time", "3"), "time point 3 is not there"),
        ((image, "--scene", "1"), "scene '1': is not there; it has 1"),
        ((image, "--rescale"), "trained on images without a voxel size"),
        ((image, "--diameter", "-3"), "is a positive number of pixels"),
        ((image, "--diameter", "9"), "does not say how large its cells are"),
        ((image, "--density", "0"), "must be a positive number of um"),
        ((image, "--regions", tmp_path / "none.tif"), "none.tif: no such file"),
        ((image, "--region-names", tmp_path / "none.csv"), "give both"),
        ((image, "--mask", tmp_path / "none.tif"), "none.tif: no such file"),
        ((tmp_path / "empty",), "has no image"),
        ((image, image), "is given 2 times"),
        ((image, "--max-voxels", "5"), "max_voxels"),
    ):
        options = ("--model", run_2d, "--output", tmp_path / "out")
        assert call("count", *arguments, *options) == 1, arguments
        out, errors = capsys.readouterr()
        assert " cells (" not in out and errors.count("\n") == 1 and words in errors, errors
        assert_nothing_is_counted(tmp_path / "out")
    assert call("count", "--debug", image, "--rescale", *options) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_command_on_a_tiff_volume(
    tmp_path: Path, run_3d: Path, cells_3d: Path, call: Call, capfd: Capture
) -> None:
    file = cells_3d / "test" / "test.tif"
    assert call("count", file, "--model", run_3d, "--output", tmp_path / "output") == 0
    out, errors = capfd.readouterr()
    assert errors == ""
    rows = read_rows(tmp_path / "output" / "test" / "points.csv")
    assert f"{file}: {len(rows)} cells (" in out and "voxels of 2 x 1 x 1 um" in out
    assert list(rows[0]) == ["id", "z", "y", "x", "z_um", "y_um", "x_um", "score"]
    points = read_columns(tmp_path / "output" / "test" / "points.csv", *"zyx")
    true = read_points(file.with_suffix(".csv"), ndim=3)
    assert match_points(points, true, max_distance=3.0, spacing=(2.0, 1.0, 1.0)).f1 > 0.85
    summary = json.loads((tmp_path / "output" / "test" / "summary.json").read_text())
    assert summary["count"] == len(rows)
    assert summary["shape"] == [12, 40, 40] and summary["spacing_um"] == [2.0, 1.0, 1.0]


def test_other_voxels_than_in_training_are_pointed_out(
    tmp_path: Path, run_3d: Path, cells_3d: Path, call: Call, capsys: Capture
) -> None:
    volume = read_image(cells_3d / "test" / "test.tif").pixels.astype(np.uint8)
    for edge, warned in ((1.05, False), (1.5, True)):
        file = tmp_path / f"{edge}.tif"
        write_image(file, volume, spacing=(2.0, edge, edge))
        assert call("count", file, "--model", run_3d, "--output", tmp_path / "output") == 0
        assert (f"warning: {file}: voxels of" in capsys.readouterr().out) == warned
        told = json.loads((tmp_path / "output" / file.stem / "summary.json").read_text())["doubts"]
        assert ("voxel size" in [doubt["kind"] for doubt in told]) == warned


def test_a_doubtful_count_says_so_everywhere(
    tmp_path: Path, run_2d: Path, image: Path, call: Call, capsys: Capture
) -> None:
    dark = tmp_path / "dark.png"
    write_image(dark, (255 - read_image(image).pixels).astype(np.uint8))
    output = tmp_path / "output"
    assert call("count", image, dark, "--model", run_2d, "--output", output) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "do not trust" in line)
    assert line.startswith(f"warning: {dark}: ") and "--invert" in line and len(line) < 600
    good, bad = read_rows(output / "counts.csv")
    assert good["doubts"] == "" and bad["doubts"].startswith("inverted")
    told = json.loads((output / "dark" / "summary.json").read_text())["doubts"]
    assert [doubt["kind"] for doubt in told] == bad["doubts"].split("; ")
    for doubt in told:
        assert doubt.keys() == {"kind", "text", "value", "expected"}
        assert len(doubt["expected"]) == 2 and doubt["text"] and doubt["value"] is not None
    assert "This count is doubtful" in (output / "dark" / "report.html").read_text()
    assert "doubtful" not in (output / "t0" / "report.html").read_text()


def bad_files(folder: Path) -> dict[str, str]:
    """Files that the 2D model cannot be applied to -> a part of the error."""
    image = np.arange(400, dtype=np.uint16).reshape(20, 20)
    write_image(folder / "half.tif", image)
    content = (folder / "half.tif").read_bytes()
    (folder / "half.tif").write_bytes(content[: len(content) // 2])
    write_image(folder / "half.png", image)
    content = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(content[: len(content) // 2])
    write_image(folder / "rgb.png", np.zeros((20, 20, 3), np.uint8))
    write_image(folder / "volume.tif", np.zeros((8, 20, 20), np.uint8), ndim=3)
    write_image(folder / "nan.tif", np.full((20, 20), np.nan, np.float32))
    (folder / "notes.txt").write_text("y,x")
    (folder / "empty.tif").write_bytes(b"")
    return {
        "missing.tif": "no such file",
        "half.tif": "truncated",
        "half.png": "half.png",
        "rgb.png": "2D with 3 channels, the model was trained on 2D images with 1; choose one",
        "volume.tif": "3D with 1 channels, the model was trained on 2D",
        "nan.tif": "NaN, infinite or above 1e+30 at (y, x) = (0, 0)",
        "notes.txt": ".tif, .tiff, .png",
        "empty.tif": "empty",
    }


@pytest.mark.usefixtures("models_stay_loaded")
def test_a_file_that_cannot_be_used_is_one_line_and_nothing_is_counted(
    tmp_path: Path, run_2d: Path, call: Call, capsys: Capture
) -> None:
    output = tmp_path / "output"
    for name, words in bad_files(tmp_path).items():
        assert call("count", tmp_path / name, "--model", run_2d, "--output", output) == 1, name
        out, errors = capsys.readouterr()
        assert " cells (" not in out and errors.count("\n") == 1, errors
        assert errors.startswith(f"error: {tmp_path / name}") and words in errors
        assert_nothing_is_counted(output)


def test_an_output_that_is_a_file_is_one_line(
    tmp_path: Path, run_2d: Path, image: Path, call: Call, capsys: Capture
) -> None:
    (tmp_path / "output").write_text("mine")
    assert call("count", image, "--model", run_2d, "--output", tmp_path / "output") == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "output" in errors
    assert (tmp_path / "output").read_text() == "mine"


def test_a_missing_file_as_a_process(
    tmp_path: Path, run_2d: Path, run_module: Callable[..., tuple[int, str, str]]
) -> None:
    file = tmp_path / "missing.png"
    status, out, errors = run_module("cli", "count", file, "--model", run_2d, "--output", tmp_path)
    assert (status, out) == (1, "")
    assert errors == f"error: {file}: no such file or folder.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "a.tif", "--block", "1,x"], "--block: '1,x': whole numbers with commas"),
        (["label", "a.tif", "--spacing", "6;1"], "--spacing: '6;1': numbers with commas"),
    ],
)
def test_lists_of_numbers(arguments: list[str], message: str, call: Call, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        call(*arguments)
    assert message in capsys.readouterr().err


def test_dark_cells_on_bright(run_2d: Path, image: Path, tmp_path: Path, call: Call) -> None:
    pixels = read_image(image).pixels[..., 0]
    pixels -= pixels.min()
    write_image(tmp_path / "bright.tif", pixels)
    write_image(tmp_path / "dark.tif", pixels.max() - pixels)
    output = tmp_path / "out"
    for name, options in (("bright", []), ("dark", ["--invert"])):
        given = ("--model", run_2d, "--output", output, *options)
        assert call("count", tmp_path / f"{name}.tif", *given) == 0
    bright, dark = (
        read_columns(output / name / "points.csv", "y", "x", "score") for name in ("bright", "dark")
    )
    np.testing.assert_array_equal(bright, dark)
    assert json.loads((output / "dark" / "summary.json").read_text())["inverted"]
    assert "--invert" in (output / "dark" / "report.html").read_text()
