"""Points to files, against the csv and XML modules of Python, which write a row at a time."""

from __future__ import annotations

import csv
import io
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from cellcount_jax.errors import InputError
from cellcount_jax.images import exports
from cellcount_jax.images.points import read_points

SPACINGS = {2: (0.65, 0.325), 3: (6.0, 1.62, 1.62)}


def csv_text(rows: Sequence[Sequence[object]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


def points_csv(
    points: np.ndarray, scores: np.ndarray, spacing: Sequence[float] | None
) -> list[list[str]]:
    """The oracle: number by number."""
    axes = {2: ["y", "x"], 3: ["z", "y", "x"]}[points.shape[1]]
    um = [] if spacing is None else [f"{axis}_um" for axis in axes]
    rows = [["id", *axes, *um, "score"]]
    for i, (point, score) in enumerate(zip(points, scores, strict=True)):
        row = [f"{float(v):.7g}" for v in point]
        if spacing is not None:
            row += [f"{float(v) * edge:.7g}" for v, edge in zip(point, spacing, strict=True)]
        rows.append([str(i + 1), *row, f"{float(score):.6g}"])
    return rows


def cellfinder_xml(points: np.ndarray) -> bytes:
    """The oracle: element by element."""
    root = ElementTree.Element("CellCounter_Marker_File")
    properties = ElementTree.SubElement(root, "Image_Properties")
    ElementTree.SubElement(properties, "Image_Filename").text = "placeholder.tif"
    data = ElementTree.SubElement(root, "Marker_Data")
    ElementTree.SubElement(data, "Current_Type").text = "1"
    cells = ElementTree.SubElement(data, "Marker_Type")
    ElementTree.SubElement(cells, "Type").text = "2"
    for point in np.floor(points + 0.5).astype(int).tolist():
        marker = ElementTree.SubElement(cells, "Marker")
        z = point[0] if len(point) == 3 else 0
        for axis, value in (("X", point[-1]), ("Y", point[-2]), ("Z", z)):
            ElementTree.SubElement(marker, f"Marker{axis}").text = str(value)
    ElementTree.indent(root)
    file = io.BytesIO()
    ElementTree.ElementTree(root).write(file, encoding="UTF-8", xml_declaration=True)
    return file.getvalue()


def random_points(number: int, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number + ndim)
    points = rng.uniform(-0.5, 12_000, (number, ndim)).astype(np.float32)
    points[::2] = np.floor(points[::2])
    return points, rng.uniform(0, 1.3, number).astype(np.float32)


def check_all(folder: Path, points: np.ndarray, scores: np.ndarray) -> None:
    """The text formats, to the byte."""
    for spacing in (None, SPACINGS[points.shape[1]]):
        exports.write_csv(folder / "points.csv", points, scores, spacing=spacing)
        expected = csv_text(points_csv(points, scores, spacing))
        assert (folder / "points.csv").read_bytes() == expected
    exports.write_napari(folder / "napari.csv", points)
    header = ["index", *(f"axis-{axis}" for axis in range(points.shape[1]))]
    rows = [[i, *(f"{float(v):.7g}" for v in point)] for i, point in enumerate(points)]
    assert (folder / "napari.csv").read_bytes() == csv_text([header, *rows])
    exports.write_cellfinder(folder / "points.xml", points)
    assert (folder / "points.xml").read_bytes() == cellfinder_xml(points)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 100])
def test_files_are_those_of_a_row_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ndim: int
) -> None:
    monkeypatch.setattr(exports, "_ROWS", 8)
    check_all(tmp_path / "new" / "folder", *random_points(number, ndim))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), ndim=st.sampled_from([2, 3]), dtype=st.sampled_from(["f4", "f8"]))
def test_any_numbers(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, ndim: int, dtype: str
) -> None:
    numbers = st_numpy.from_dtype(np.dtype(dtype), min_value=-1e9, max_value=1e9, allow_nan=False)
    table = data.draw(
        st_numpy.arrays(dtype, (data.draw(st.integers(0, 5)), ndim + 1), elements=numbers)
    )
    check_all(tmp_path_factory.mktemp("any"), table[:, :ndim], table[:, ndim])


def test_other_programs_points_come_back(tmp_path: Path) -> None:
    points, _ = random_points(50, 3)
    exports.write_napari(tmp_path / "napari.csv", points)
    found = read_points(tmp_path / "napari.csv", ndim=3)
    np.testing.assert_allclose(found, points, rtol=1e-6)


def test_memory_does_not_grow_with_the_points(tmp_path: Path) -> None:
    peaks = []
    for number in (2 * exports._ROWS, 6 * exports._ROWS):
        points, scores = random_points(number, 3)
        tracemalloc.start()
        exports.write_csv(tmp_path / "points.csv", points, scores, spacing=SPACINGS[3])
        exports.write_cellfinder(tmp_path / "points.xml", points)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("name", ["write_csv", "write_parquet"])
def test_scores_that_are_not_as_many(tmp_path: Path, name: str) -> None:
    if name == "write_parquet":
        pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    points, scores = random_points(4, 2)
    with pytest.raises(ValueError, match=r"3 scores for 4 points"):
        getattr(exports, name)(tmp_path / "points", points, scores[:3], spacing=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("number", [0, 1, 100])
def test_parquet_has_what_the_csv_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ndim: int, known: bool
) -> None:
    pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    import pyarrow.parquet

    monkeypatch.setattr(exports, "_ROWS_OF_GROUP", 32)
    points, scores = random_points(number, ndim)
    spacing = SPACINGS[ndim] if known else None
    path = tmp_path / "new" / "points.parquet"
    exports.write_parquet(path, points, scores, spacing=spacing)
    table = pyarrow.parquet.read_table(path)
    header, *rows = points_csv(points, scores, spacing)
    assert table.column_names == header
    assert [str(t) for t in table.schema.types] == ["int64", *["double"] * (len(header) - 1)]
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == -(-number // 32)
    values = zip(*(table[name].to_pylist() for name in header), strict=True)
    assert [[str(i), *(f"{v:.7g}" for v in p), f"{s:.6g}"] for i, *p, s in values] == rows
    np.testing.assert_array_equal(table["x"].to_numpy(), points[:, -1])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_parquet_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r'pip install "cellcount_jax\[parquet\]"') as error:
        exports.write_parquet(tmp_path / "p.parquet", *random_points(2, 2), spacing=None)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_cellfinder_itself_reads_its_cells(tmp_path: Path) -> None:
    cells = pytest.importorskip("brainglobe_utils.IO.cells")
    points, _ = random_points(50, 3)
    exports.write_cellfinder(tmp_path / "points.xml", points)
    read = cells.get_cells(str(tmp_path / "points.xml"), cells_only=True)
    expected = np.floor(points + 0.5)
    np.testing.assert_array_equal([(cell.z, cell.y, cell.x) for cell in read], expected)
    cells.save_cells(read, str(tmp_path / "theirs.xml"))
    found = exports.read_cellfinder(tmp_path / "theirs.xml", ndim=3)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ndim", [2, 3])
def test_napari_itself_reads_its_points(tmp_path: Path, ndim: int) -> None:
    napari = pytest.importorskip("napari_builtins.io")
    points, _ = random_points(50, ndim)
    exports.write_napari(tmp_path / "points.csv", points)
    reader = napari.napari_get_reader(str(tmp_path / "points.csv"))
    ((data, _, kind),) = reader(str(tmp_path / "points.csv"))
    assert kind == "points"
    np.testing.assert_allclose(data, points, rtol=1e-6)
