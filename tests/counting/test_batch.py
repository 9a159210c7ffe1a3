"""Batches: broken files among good ones, one table of several counts, names, companions."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax import progress
from cellcount_jax.counting import batch, counts_table, results
from cellcount_jax.errors import InputError
from cellcount_jax.images.inputs import Input

Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("quick_compiling", "models_stay_loaded")


@pytest.fixture
def folder(tmp_path: Path, cells_2d: Path) -> Path:
    """A folder with two images, a.png and c.png."""
    made = tmp_path / "images"
    made.mkdir()
    for source, name in (("t0", "a"), ("t1", "c")):
        shutil.copy(cells_2d / "test" / f"{source}.png", made / f"{name}.png")
    return made


def table(output: Path) -> dict[str, dict[str, str]]:
    """The rows of counts.csv by the name of the input."""
    with (output / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {Path(row["input"]).name: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_broken_file_does_not_end_the_batch(
    tmp_path: Path, run_2d: Path, folder: Path, call: Call, capsys: Capture
) -> None:
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:200])
    np.save(folder / "d.npy", np.full((20, 20), np.nan, np.float32))
    output = tmp_path / "out"
    command = ("count", folder, "--model", run_2d, "--output", output)
    assert call(*command, "--dry-run") == 1
    assert "error: 1 of 4 inputs were not counted:" in capsys.readouterr().err
    assert not output.exists()
    assert call(*command) == 1
    out, errors = capsys.readouterr()
    rows = table(output)
    assert list(rows) == ["a.png", "b.png", "c.png", "d.npy"]
    assert [bool(row["error"]) for row in rows.values()] == [False, True, False, True]
    good = [int(rows[name]["count"]) for name in ("a.png", "c.png")]
    assert min(good) > 5 and rows["b.png"]["count"] == rows["d.npy"]["count"] == ""
    told, *listed = errors.splitlines()
    assert told == "error: 2 of 4 inputs were not counted:"
    assert listed == [rows[name]["error"] for name in ("b.png", "d.npy")]
    assert listed[0].startswith(f"{folder / 'b.png'}: ") and "NaN" in listed[1]
    assert f"not counted: {listed[0]}\n" in out
    page = output / "counts.html"
    line = f"{sum(good)} cells in 2 inputs, written to {output}; {page} shows them all\n"
    assert out.endswith(line)
    # Mended, it takes its place in the table.
    shutil.copy(folder / "a.png", folder / "b.png")
    (folder / "d.npy").unlink()
    assert call(*command) == 0
    rows = table(output)
    assert list(rows) == ["a.png", "b.png", "c.png", "d.npy"]
    assert rows["b.png"]["count"] == rows["a.png"]["count"] and not rows["b.png"]["error"]
    assert rows["d.npy"]["error"], "nothing is forgotten"


def test_an_unexpected_error_of_one_input_does_not_end_the_batch(tmp_path: Path) -> None:
    def count(item: Input) -> batch.Finish:
        if item.name == "b":
            raise IndexError("a\nfault")

        def finish() -> dict[str, Any]:
            if item.name == "c":
                raise PermissionError(13, "Permission denied", "c.png")
            return {"count": 3, "voxels": 9}

        return finish

    told: list[str] = []
    inputs = [Input(name, Path(f"{name}.png")) for name in "abcd"]
    path = tmp_path / "counts.csv"
    rows = batch.count_each(inputs, path, count, failed=lambda error, text: told.append(text))
    assert told == [row["error"] for row in rows if row["error"]]
    assert told[0].startswith(
        "b.png: an error that is none of yours (IndexError: a\\nfault); please"
    )
    assert told[1:] == ["c.png: no permission to read or write it"]
    assert [row["count"] for row in table(tmp_path).values()] == ["3", "", "", "3"]
    with pytest.raises(IndexError):
        batch.count_each(inputs[1:2], path, count, failed=lambda error, text: None)
    with pytest.raises(PermissionError):
        batch.count_each(inputs[2:3], path, count, failed=lambda error, text: None)


def test_an_input_is_finished_while_the_next_one_is_counted(tmp_path: Path) -> None:
    inputs = [Input(name, Path(f"{name}.png")) for name in "abc"]
    counting = {item.name: threading.Event() for item in inputs}

    def count(item: Input) -> batch.Finish:
        counting[item.name].set()

        def finish() -> dict[str, Any]:
            after = chr(ord(item.name) + 1)
            assert after not in counting or counting[after].wait(60)
            return {"count": ord(item.name), "voxels": 9}

        return finish

    rows = batch.count_each(inputs, tmp_path / "counts.csv", count, failed=lambda *_: None)
    assert [row["error"] for row in rows] == ["", "", ""]
    assert [row["count"] for row in table(tmp_path).values()] == ["97", "98", "99"]


def test_a_file_at_a_time_into_one_folder(
    tmp_path: Path, run_2d: Path, folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    (folder / "b.png").write_bytes(b"")
    options = ("--model", run_2d, "--output", output)
    assert call("count", folder / "b.png", *options) == 1
    assert call("count", folder / "c.png", *options, "--threshold", "0.9") == 0
    assert call("count", "images/a.png", *options) == 0
    before = table(output)
    assert list(before) == ["b.png", "c.png", "a.png"]
    assert before["b.png"]["error"] and not before["b.png"]["count"]
    # Again, by another name of the same place.
    monkeypatch.chdir(folder)
    assert call("count", "../images/c.png", *options) == 0
    after = table(output)
    assert list(after) == list(before) and after["a.png"] == before["a.png"]
    assert int(after["c.png"]["count"]) > int(before["c.png"]["count"])
    # Results that are refused to another count keep their row.
    assert call("count", "c.png", *options, "--spacing", "1,1") == 1
    assert table(output) == after
    assert call("count", "c.png", *options, "--spacing", "1,1", "--overwrite") == 0


def test_a_damaged_table_is_told_before_anything_is_counted(
    tmp_path: Path, run_2d: Path, folder: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "counts.csv").write_text("input,count,x\r\na\r\n")
    assert call("count", folder, "--model", run_2d, "--output", output) == 1
    assert "counts.csv: is no table of counts" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["counts.csv"]


def test_a_row_is_there_as_soon_as_its_input_is_counted(
    tmp_path: Path, run_2d: Path, folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, seen = tmp_path / "out", []
    write = results.write

    def look(*given: Any, **options: Any) -> None:
        # What a kill at this moment would leave.
        seen.append([*table(output)] if (output / "counts.csv").exists() else [])
        write(*given, **options)

    monkeypatch.setattr(results, "write", look)
    assert call("count", folder, "--model", run_2d, "--output", output) == 0
    assert seen == [[], ["a.png"]]


def row(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"input": f"/x/{name}.tif", "count": count, "folder": name, "error": "", **more}


WRITER = """
import sys
from pathlib import Path
from cellcount_jax.counting import counts_table
for i in range(100):
    row = {"input": f"/b{i}", "count": i, "folder": f"b{i}"}
    counts_table.merge(Path(sys.argv[1]), row)
"""


def test_no_row_is_lost_where_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as other:
        written = 0
        while other.poll() is None or written < 50:
            counts_table.merge(path, row(f"a{written % 50}", written % 50))
            written += 1
    assert other.returncode == 0
    with path.open(newline="") as file:
        found = {row["folder"]: int(row["count"]) for row in csv.DictReader(file)}
    assert found == {f"a{i}": i for i in range(50)} | {f"b{i}": i for i in range(100)}


def test_merging_rows(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    # An older table, to which somebody has added a column.
    path.write_text(
        'input,count,voxels,doubts,mouse\r\n"/x/a,1.tif",7,9,,m1\r\n/x/b.tif,8,9,,m2\r\n'
    )
    counts_table.merge(path, row("b", 5, integral=4.5))
    counts_table.merge(path, row("c", doubts="size"))
    counts_table.merge(path, row("c", 99), replace=False)
    # Another input's results in the folder of c; and b's in another folder.
    counts_table.merge(path, {**row("c", 2), "input": "/y/c.tif"})
    counts_table.merge(path, {**row("b", 6), "folder": "x_b"})
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["input", "count", "integral", "voxels", "doubts", "folder", "error", "mouse"]
    assert lines == [
        ["/x/a,1.tif", "7", "", "9", "", "", "", "m1"],
        ["/x/b.tif", "6", "", "", "", "x_b", "", ""],
        ["/y/c.tif", "2", "", "", "", "c", "", ""],
    ]
    path.unlink()
    for count in (1, 2):
        counts_table.merge(path, {**row("=a", count), "input": f"/{count}/=a.tif"})
    (line,) = table(tmp_path).values()
    assert line["folder"] == "'=a" and line["count"] == "2"
    with path.open("a") as file:
        file.write("\r\n")  # of an editor
    counts_table.merge(path, row("d", 3))
    assert [line["count"] for line in table(tmp_path).values()] == ["2", "3"]
    for damage in ("name,size\r\n", 'input,count,\r\n"a', "input,count,x\r\na\r\n"):
        path.write_text(damage)
        with pytest.raises(InputError, match="is no table of counts"):
            counts_table.merge(path, row("d"))
        assert path.read_bytes() == damage.encode()


def test_links_to_one_file_are_inputs_by_their_names(
    tmp_path: Path, run_2d: Path, folder: Path, call: Call, capsys: Capture
) -> None:
    objects, output = tmp_path / "objects", tmp_path / "out"
    folder.rename(objects)
    folder.mkdir()
    for name in ("mouse1.png", "mouse2.png"):
        (folder / name).symlink_to("../objects/a.png")
    assert call("count", folder, "--model", run_2d, "--output", output) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{folder / 'mouse1.png'} and {folder / 'mouse2.png'}: are links to one")
    rows = table(output)
    assert list(rows) == ["mouse1.png", "mouse2.png"]
    assert rows["mouse1.png"]["count"] == rows["mouse2.png"]["count"]
    given = (folder, folder / "mouse1.png")
    assert call("count", *given, "--model", run_2d, "--output", output) == 1
    assert "mouse1.png: is given 2 times" in capsys.readouterr().err


def test_inputs_called_as_files_of_the_command(
    tmp_path: Path, run_2d: Path, folder: Path, call: Call
) -> None:
    names = ("Counts.CSV.png", "counts.csv.png", "summary.json.png", "count.json.png", "work.png")
    given, output = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    for name in names:
        shutil.copy(folder / "a.png", given / name)
    (given / "Counts.CSV.png").unlink()
    assert call("count", given, "--model", run_2d, "--output", output) == 0
    rows = table(output)
    assert sorted(rows) == sorted(names[1:])
    assert rows["counts.csv.png"]["folder"] == "counts.csv_png"
    for one in rows.values():
        assert (output / one["folder"] / "summary.json").exists()
    shutil.copy(folder / "a.png", given / "Counts.CSV.png")
    only = given / "Counts.CSV.png"
    assert call("count", only, "--model", run_2d, "--output", tmp_path / "other") == 0
    assert (tmp_path / "other" / "Counts.CSV_png" / "points.csv").exists()


def test_one_bar_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with progress.images(4) as bar:
        for _ in range(4):
            now[0] += 30.0
            progress.say("a.tif: 12 cells")
            bar.update()
    shown = terminal.getvalue().split("\r")
    assert any(part.startswith("counting 2 of 4, about 60 s left ") for part in shown)
    assert sum(part.strip() == "a.tif: 12 cells" for part in terminal.getvalue().split("\n")) >= 1
    terminal.truncate(0)
    with progress.images(1) as bar:
        now[0] += 30.0
        bar.update()
    assert terminal.getvalue().strip("\0") == ""
