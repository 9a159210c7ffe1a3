"""Dots of ImageJ and QuPath, written and read by other libraries than ours, and by hand."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi, roiread, roiwrite

from cellcount_jax.errors import InputError
from cellcount_jax.images.dot_files import holds_dots, read_foreign
from cellcount_jax.images.imagej_rois import write_rois
from cellcount_jax.images.imagej_stack import Stack, stack_of
from cellcount_jax.images.outlines import middle
from cellcount_jax.images.qupath_points import write_geojson
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source

# x, y as ImageJ gives them: the middle of the first pixel is 0.
XY = np.array([[3, 8], [10.25, 2.5], [0, 0]], np.float32)
YX = XY[:, ::-1]


def points_roi(xy: np.ndarray = XY, *, slices: Any = None, counter: int = 0) -> ImagejRoi:
    """A selection of the multi-point tool; `slices` one a point, as on a stack."""
    roi = ImagejRoi.frompoints(xy, name="points")
    roi.roitype = ROI_TYPE.POINT
    if slices is not None:
        roi.counters = np.full(len(xy), counter, np.uint8)
        roi.counter_positions = np.asarray(slices, np.uint32)
    return roi


@pytest.mark.parametrize("whole", [False, True])
def test_the_multi_point_tool_on_an_image(tmp_path: Path, whole: bool) -> None:
    xy = np.floor(XY).astype(int) if whole else XY
    points_roi(xy).tofile(tmp_path / "a.roi")
    assert read_foreign(tmp_path / "a.roi", ndim=2).tolist() == xy[:, ::-1].tolist()


def test_the_multi_point_tool_on_a_stack_counts_slices_from_1(tmp_path: Path) -> None:
    points_roi(slices=[1, 4, 2]).tofile(tmp_path / "a.roi")
    found = read_foreign(tmp_path / "a.roi", ndim=3, stack=Stack(planes=4))
    assert found.tolist() == np.column_stack([[0, 3, 1], YX]).tolist()
    with pytest.raises(InputError, match=r"slice 4, but its image has 3 \(3 planes"):
        read_foreign(tmp_path / "a.roi", ndim=3, stack=Stack(planes=3))
    with pytest.raises(InputError, match="on several slices, but the image is 2D"):
        read_foreign(tmp_path / "a.roi", ndim=2)


def test_slices_of_several_channels_are_planes_only_together(tmp_path: Path) -> None:
    # Of 2 channels, 3 planes and 2 times, channels first: slices 1 to 12 are c1z1t1, c2z1t1, ...
    points_roi(slices=[2, 5, 9]).tofile(tmp_path / "a.roi")
    image = np.zeros((2, 3, 2, 12, 14), np.uint8)  # TZCYX
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "TZCYX"})
    with open_source(tmp_path / "a.tif", Selection(channel="1", time=0)) as source:
        stack = stack_of(source)
    assert stack == Stack(planes=3, channels=2, times=2, time=0)
    found = read_foreign(tmp_path / "a.roi", ndim=3, stack=stack)
    assert found[:, 0].tolist() == [0, 2]  # the third is of the other time
    later = Stack(planes=3, channels=2, times=2, time=1)
    assert read_foreign(tmp_path / "a.roi", ndim=3, stack=later)[:, 0].tolist() == [1]


def test_points_of_the_roi_manager(tmp_path: Path) -> None:
    stacked, hyper = points_roi(XY[:1]), points_roi(XY[1:2])
    stacked.position, hyper.z_position, hyper.c_position = 3, 2, 1
    roiwrite(tmp_path / "a.zip", [stacked, hyper], name=["a", "b"])
    found = read_foreign(tmp_path / "a.zip", ndim=3, stack=Stack(planes=3))
    assert found[:, 0].tolist() == [2, 1]
    points_roi().tofile(tmp_path / "b.roi")
    with pytest.raises(InputError, match="3 of 3 points are on no slice"):
        read_foreign(tmp_path / "b.roi", ndim=3, stack=Stack(planes=3))


def test_outlines_of_cells_are_their_middles_unless_there_are_points(tmp_path: Path) -> None:
    # Four pixels from (10, 4) and a disc, in corners of pixels.
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    disc = np.column_stack([np.cos(angles), np.sin(angles)]) * 5 + (20.5, 30.5)
    rois = [ImagejRoi.frompoints(np.array([[10, 4], [14, 4], [14, 5], [10, 5]]), name="a")]
    rois += [ImagejRoi.frompoints(disc, name="b"), ImagejRoi(name="c")]
    rois[2].roitype, rois[2].left, rois[2].right = ROI_TYPE.OVAL, 2, 6
    rois[2].top, rois[2].bottom = 8, 9
    roiwrite(tmp_path / "a.zip", rois)
    expected = np.array([[4, 11.5], [30, 20], [8, 3.5]])
    np.testing.assert_allclose(read_foreign(tmp_path / "a.zip", ndim=2), expected, atol=1e-4)
    roiwrite(tmp_path / "b.zip", [*rois, points_roi()])
    assert read_foreign(tmp_path / "b.zip", ndim=2).tolist() == YX.tolist()


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_written_for_imagej_its_library_reads(tmp_path: Path, ndim: int) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 70_000, (70_000 if ndim == 2 else 500, ndim)).astype(np.float32)
    if ndim == 3:
        points[:, 0] %= 9.4
    write_rois(tmp_path / "a.zip", points)
    rois = roiread(tmp_path / "a.zip")
    assert isinstance(rois, list) and all(roi.roitype == ROI_TYPE.POINT for roi in rois)
    assert all(roi.options & ROI_OPTIONS.SUB_PIXEL_RESOLUTION for roi in rois)
    found = np.concatenate([np.asarray(roi.coordinates()) for roi in rois])
    slices = np.repeat([roi.position for roi in rois], [roi.n_coordinates for roi in rois])
    if ndim == 2:
        np.testing.assert_array_equal(found, points[:, ::-1])
        assert set(slices) == {0}
    else:
        order = np.argsort(np.floor(points[:, 0] + 0.5), kind="stable")
        np.testing.assert_array_equal(found, points[order, :0:-1])
        np.testing.assert_array_equal(slices, np.floor(points[order, 0] + 0.5) + 1)
    content = (tmp_path / "a.zip").read_bytes()
    write_rois(tmp_path / "a.zip", points)
    assert (tmp_path / "a.zip").read_bytes() == content
    write_rois(tmp_path / "a.zip", points[:0])
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == []


def test_on_a_hyperstack_points_are_of_all_channels(tmp_path: Path) -> None:
    stack = Stack(planes=3, channels=2, times=4, time=3)
    write_rois(tmp_path / "a.zip", np.array([[1.0, 2.0, 3.0]]), stack=stack)
    rois = roiread(tmp_path / "a.zip")
    assert isinstance(rois, list) and len(rois) == 1
    roi = rois[0]
    places = (roi.position, roi.c_position, roi.z_position, roi.t_position)
    assert places == (0, 0, 2, 4)
    assert read_foreign(tmp_path / "a.zip", ndim=3, stack=stack).tolist() == [[1, 2, 3]]


def cell_counter(*types: tuple[int, list[tuple[int, int, int]]]) -> str:
    """As the plugin of Fiji writes it, x, y, slice."""
    kinds = "".join(
        f"<Marker_Type><Type>{kind}</Type><Name>Type {kind}</Name>"
        + "".join(
            f"<Marker><MarkerX>{x}</MarkerX><MarkerY>{y}</MarkerY><MarkerZ>{z}</MarkerZ></Marker>"
            for x, y, z in markers
        )
        + "</Marker_Type>"
        for kind, markers in types
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><CellCounter_Marker_File><Image_Properties>'
        "<Image_Filename>a.tif</Image_Filename></Image_Properties><Marker_Data><Current_Type>0"
        f"</Current_Type>{kinds}</Marker_Data></CellCounter_Marker_File>"
    )


def test_the_cell_counter_counts_slices_from_1_and_all_types(tmp_path: Path) -> None:
    path = tmp_path / "CellCounter_a.xml"
    path.write_text(cell_counter((1, [(5, 2, 1), (6, 3, 4)]), (2, [(7, 4, 2)]), (3, [])))
    found = read_foreign(path, ndim=3, stack=Stack(planes=4))
    assert found.tolist() == [[0, 2, 5], [3, 3, 6], [1, 4, 7]]
    found = read_foreign(path, ndim=3, stack=Stack(planes=2, channels=2))
    assert found[:, 0].tolist() == [0, 1, 0]
    path.write_text(cell_counter((1, [(5, 2, 0)])))  # of cellfinder's planes, from 0
    with pytest.raises(InputError, match="ImageJ counts slices from 1"):
        read_foreign(path, ndim=3, stack=Stack(planes=4))


def feature(geometry: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_points_of_qupath_are_from_the_corner_of_the_pixel(tmp_path: Path) -> None:
    many = {"type": "MultiPoint", "coordinates": [[3.5, 8.5], [10.75, 3]]}
    one = {"type": "Point", "coordinates": [0.5, 0.5], "plane": {"c": -1, "z": 4, "t": 0}}
    ignored = {"name": "Ignore*", "color": [0, 0, 0]}
    area = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    content = [feature(many, objectType="annotation"), feature(one, objectType="annotation")]
    content += [feature(many, classification=ignored), feature(area, objectType="annotation")]
    for number, text in enumerate((content, {"type": "FeatureCollection", "features": content})):
        path = tmp_path / f"{number}.geojson"
        path.write_text(json.dumps(text))
        assert read_foreign(path, ndim=3).tolist() == [[0, 8, 3], [0, 2.5, 10.25], [4, 0, 0]]
    with pytest.raises(InputError, match="in several planes, but the image is 2D"):
        read_foreign(path, ndim=2)
    path.write_text(json.dumps(content[3:]))
    with pytest.raises(InputError, match="1 annotations of areas, but no points"):
        read_foreign(path, ndim=2)


def test_cells_of_qupath_are_the_middles_of_their_nuclei(tmp_path: Path) -> None:
    def square(x: float, y: float, edge: float) -> dict[str, Any]:
        corners = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
        return {"type": "Polygon", "coordinates": [corners]}

    cell = feature(square(0, 0, 20), objectType="cell") | {"nucleusGeometry": square(4, 6, 2)}
    detection = feature(square(30, 40, 1), objectType="detection")
    (tmp_path / "a.geojson").write_text(json.dumps([cell, detection]))
    assert read_foreign(tmp_path / "a.geojson", ndim=2).tolist() == [[6.5, 4.5], [40, 30]]


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_written_for_qupath_a_library_reads(tmp_path: Path, ndim: int) -> None:
    geojson = pytest.importorskip("geojson")
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 999, (40, ndim)).astype(np.float32)
    scores = rng.uniform(0, 1, 40)
    write_geojson(tmp_path / "a.geojson", points, scores)
    content = geojson.loads((tmp_path / "a.geojson").read_text())
    assert content.is_valid and len(content.features) == 40
    xy = np.array([one.geometry.coordinates for one in content.features])
    np.testing.assert_allclose(xy - 0.5, points[:, :-3:-1], rtol=1e-5, atol=1e-4)
    planes = [one.geometry["plane"] for one in content.features]
    z = np.floor(points[:, 0] + 0.5) if ndim == 3 else np.zeros(40)
    assert planes == [{"c": -1, "z": int(plane), "t": 0} for plane in z]
    kinds = {one.properties["objectType"] for one in content.features}
    assert kinds == {"detection"}
    given = [one.properties["measurements"]["score"] for one in content.features]
    np.testing.assert_allclose(given, scores, rtol=1e-5)
    found = read_foreign(tmp_path / "a.geojson", ndim=ndim)
    np.testing.assert_allclose(found[:, -2:], points[:, -2:], rtol=1e-5, atol=1e-4)
    write_geojson(tmp_path / "a.geojson", points[:0], scores[:0])
    assert geojson.loads((tmp_path / "a.geojson").read_text()).features == []


def test_the_middle_of_an_outline_is_that_of_its_area() -> None:
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(1)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radius = rng.uniform(1, 9, 12)
        corners = np.column_stack([np.cos(angles), np.sin(angles)]) * radius[:, None] + 70_000
        centre = shapely.Polygon(corners).centroid
        np.testing.assert_allclose(middle(corners), (centre.x, centre.y), rtol=1e-9)
    np.testing.assert_allclose(middle(np.array([[1, 2], [3, 4]])), (2, 3))  # no area


def test_instance_labels_are_dots(tmp_path: Path) -> None:
    labels = np.zeros((9, 12), np.uint16)
    labels[2:5, 3:6], labels[6:8, 8:12] = 7, 2
    tifffile.imwrite(tmp_path / "a.tif", labels)
    assert read_foreign(tmp_path / "a.tif", ndim=2).tolist() == [[6.5, 9.5], [3, 4]]
    with pytest.raises(InputError, match="has 2 dimensions, 3 are needed"):
        read_foreign(tmp_path / "a.tif", ndim=3)


@pytest.mark.parametrize("name", ["a.roi", "a.zip", "a.xml", "a.geojson", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"Iout", b"PK\5\6" + bytes(18), b"{}", b'[{"a": 1}]'])
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_foreign(tmp_path / name, ndim=2)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes replaced, and the end cut off, mostly little of it."""
    changed = bytearray(content)
    for at in rng.integers(4, len(changed), 3):
        changed[at] = rng.integers(256)
    return bytes(changed[: len(changed) - rng.integers(3) ** 5])


@pytest.mark.parametrize("name", ["a.roi", "a.zip", "a.xml", "a.geojson"])
def test_damaged_files_are_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    points = np.array([[0.0, 5, 9], [1, 22, 30], [2, 27, 4]])
    points_roi(slices=[1, 2, 3]).tofile(tmp_path / "a.roi")
    write_rois(tmp_path / "a.zip", points)
    write_geojson(tmp_path / "a.geojson", points, np.ones(3))
    (tmp_path / "a.xml").write_text(cell_counter((1, [(5, 2, 1), (6, 3, 3)])))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        path.write_bytes(damaged(content, rng))
        try:
            found = read_foreign(path, ndim=3, stack=Stack(planes=3))
            assert found.shape[1:] == (3,) and np.isfinite(found).all()
        except InputError as error:
            assert name in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": 3},
        {"geometry": []},
        {"geometry": {"type": "Point", "coordinates": "ab"}},
        {"geometry": {"type": "Point", "coordinates": [[1, 2], [3]]}},
        {"geometry": {"type": "Point", "coordinates": [1e999, 2]}},
        {"geometry": {"type": "Point", "coordinates": [1, 2], "plane": {"z": "many"}}},
        {"geometry": {"type": "Point", "coordinates": [1, 2], "plane": 7}},
        {"geometry": {"type": "Polygon", "coordinates": []}, "properties": {"objectType": "cell"}},
        {"properties": 5},
        {"properties": {"classification": "Cell"}},
    ],
)
def test_other_geojson_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    content = feature({"type": "Point", "coordinates": [1, 2]}) | changes
    (tmp_path / "a.geojson").write_text(json.dumps([content]))
    with pytest.raises(InputError, match=r"a\.geojson"):
        read_foreign(tmp_path / "a.geojson", ndim=2)


def test_files_of_the_same_endings_that_are_no_dots(tmp_path: Path) -> None:
    (tmp_path / "metadata.xml").write_text("<OME/>")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("model.json", "{}")
    (tmp_path / "a.xml").write_text(cell_counter((1, [])))
    write_rois(tmp_path / "a.zip", np.array([[1.0, 2.0]]))
    names = sorted(path.name for path in tmp_path.iterdir() if holds_dots(path))
    assert names == ["a.xml", "a.zip"]
