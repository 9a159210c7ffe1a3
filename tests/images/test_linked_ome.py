"""Sets of linked OME-TIFF files, against the arrays that were written into them."""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images import inputs
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source

VOLUME = np.random.default_rng(0).integers(0, 60000, (6, 24, 20)).astype(np.uint16)
SERIES = np.random.default_rng(1).integers(0, 250, (3, 2, 4, 12, 9)).astype(np.uint8)  # t, c, z
NAMESPACE = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'


def own_uuid(name: str) -> str:
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}"


def write_set(
    folder: Path,
    images: list[np.ndarray],
    name: Callable[[int, int, int, int], str],
    *,
    order: str = "XYZCT",
    identity: Callable[[str], str] = lambda name: (
        f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
    ),
    own_identity: bool = True,
    runs: bool = False,
    change: Mapping[str, str] | None = None,
    main: str | None = None,
    byteorder: Literal["<", ">"] = "<",
    **options: Any,
) -> list[Path]:
    """Writes images of t, c, z, y, x; each plane into the file that `name(image, t, c, z)` gives.

    Args:
      runs: one piece of text for all planes of a file, which must follow each other.
      change: of the text.
      main: the file that has the text, which others name; none: all have it.
    """
    files: dict[str, list[np.ndarray]] = {}
    parts = []
    for number, image in enumerate(images):
        sizes = dict(zip("TCZYX", image.shape, strict=True))
        pieces = []
        for slow in itertools.product(*(range(sizes[axis]) for axis in order[:1:-1])):
            place = dict(zip(order[:1:-1], slow, strict=True))
            file = name(number, place["T"], place["C"], place["Z"])
            planes = files.setdefault(file, [])
            first = " ".join(f'First{axis}="{at}"' for axis, at in place.items())
            if not runs or not planes:
                page = "" if runs else f'IFD="{len(planes)}" PlaneCount="1"'
                pieces.append(
                    f'<TiffData {first} {page}><UUID FileName="{file}">{identity(file)}</UUID>'
                    "</TiffData>"
                )
            planes.append(image[place["T"], place["C"], place["Z"]])
        size = " ".join(f'Size{axis}="{n}"' for axis, n in sizes.items())
        channels = "".join(f'<Channel ID="C:{c}" Name="dye {c}"/>' for c in range(sizes["C"]))
        parts.append(
            f'<Image ID="Image:{number}"><Pixels ID="P:{number}" DimensionOrder="{order}"'
            f' Type="{image.dtype}" {size} PhysicalSizeX="{0.5 + number}" PhysicalSizeY="0.5"'
            f' PhysicalSizeZ="2">{channels}{"".join(pieces)}</Pixels></Image>'
        )
    for file, planes in files.items():
        own = f' UUID="{identity(file)}"' if own_identity else ""
        content = "".join(parts)
        if main not in (None, file):
            content = f'<BinaryOnly MetadataFile="{main}" UUID="urn:uuid:0"/>'
        text = f'<?xml version="1.0"?><OME {NAMESPACE}{own}>{content}</OME>'
        for old, new in (change or {}).items():
            assert old in text or main is not None
            text = text.replace(old, new)
        with tifffile.TiffWriter(folder / file, byteorder=byteorder) as writer:
            for number, plane in enumerate(planes):
                description = text if number == 0 else None
                writer.write(plane, description=description, metadata=None, **options)
    if main is not None and main not in files:
        (folder / main).write_text(f"<OME {NAMESPACE}>{''.join(parts)}</OME>")
    return [folder / file for file in files]


def write_volume(folder: Path, **options: Any) -> list[Path]:
    return write_set(folder, [VOLUME[None, None]], lambda i, t, c, z: f"a_z{z}.ome.tif", **options)


def read(path: Path, **selection: Any) -> np.ndarray:
    return read_image(path, Selection(**selection)).pixels


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"byteorder": ">"},
        {"own_identity": False},
        {"identity": lambda name: f"urn:uuid:{name}", "order": "XYTZC"},
        {"main": "a_z4.ome.tif"},
        {"main": "a.companion.ome"},
        {"change": {NAMESPACE: ""}},
    ],
    ids=lambda options: " ".join(options) or "as it is",
)
def test_a_plane_a_file_is_one_volume(tmp_path: Path, options: dict[str, Any]) -> None:
    paths = write_volume(tmp_path, **options)
    for path in (paths[0], paths[3]):
        with open_source(path) as source:
            assert source.kind == "OME-TIFF of 6 linked files"
            companion = [tmp_path / options["main"]] if "companion" in str(options) else []
            assert source.files == (*paths, *companion)
            assert source.spacing == (2.0, 0.5, 0.5) and source.shape == VOLUME.shape
            region = (slice(2, 5), slice(3, 20), slice(4, 9))
            np.testing.assert_array_equal(source.read(region)[..., 0], VOLUME[region])
        np.testing.assert_array_equal(read(path)[..., 0], VOLUME)


@pytest.mark.parametrize(
    ("order", "runs"),
    [("XYZCT", False), ("XYZCT", True), ("XYCZT", False), ("XYZTC", True), ("XYTCZ", False)],
)
def test_a_channel_a_file_is_one_image(tmp_path: Path, order: str, runs: bool) -> None:
    image = SERIES[:1]
    paths = write_set(tmp_path, [image], lambda i, t, c, z: f"c{c}.ome.tif", order=order, runs=runs)
    for path in paths:
        np.testing.assert_array_equal(read(path), np.moveaxis(image[0], 0, -1))
        np.testing.assert_array_equal(read(path, channel="dye 1")[..., 0], image[0, 1])


@pytest.mark.parametrize("order", ["XYZCT", "XYCZT", "XYTZC"])
def test_a_time_point_in_files_of_its_own_is_an_image(tmp_path: Path, order: str) -> None:
    paths = write_set(tmp_path, [SERIES], lambda i, t, c, z: f"t{t}_c{c}_z{z}.ome.tif", order=order)
    for path in paths:
        expected = np.moveaxis(SERIES[int(path.name[1])], 0, -1)
        np.testing.assert_array_equal(read(path), expected)
    found = inputs.find_inputs([tmp_path], ndim=3)
    assert [one.path.name for one in found] == [f"t{t}_c0_z0.ome.tif" for t in range(3)]
    # Two of three in one file: chosen by their number in it.
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    paths = write_set(tmp_path, [SERIES], lambda i, t, c, z: f"t{t > 0}.ome.tif", order=order)
    np.testing.assert_array_equal(read(paths[-1], time=1), np.moveaxis(SERIES[2], 0, -1))


def test_positions_are_images_and_need_only_their_own_files(tmp_path: Path) -> None:
    positions = [(VOLUME[None, None] // (1 + number)).astype(np.uint16) for number in range(3)]
    paths = write_set(tmp_path, positions, lambda i, t, c, z: f"p{i}_{z % 2}.ome.tif")
    paths[-1].unlink()
    for number in range(2):
        image = read_image(tmp_path / f"p{number}_1.ome.tif")
        np.testing.assert_array_equal(image.pixels[..., 0], positions[number][0, 0])
        assert image.spacing == (2.0, 0.5, 0.5 + number)
    with pytest.raises(InputError, match=r"p2_0\.ome\.tif: .* 1 cannot be found: p2_1\.ome\.tif"):
        read(paths[-2])
    shown: list[str] = []
    found = inputs.find_inputs([tmp_path], ndim=3, show=shown.append)
    assert [one.path.name for one in found] == [f"p{number}_0.ome.tif" for number in range(3)]
    assert len(shown) == 3


def test_a_set_is_one_input_whichever_of_its_files_are_given(tmp_path: Path) -> None:
    folder, other = tmp_path / "a", tmp_path / "b.tif"
    folder.mkdir()
    paths = write_volume(folder)
    tifffile.imwrite(other, VOLUME, photometric="minisblack")
    for given in ([folder], [paths[3]], paths[::-1], [folder, paths[2]], [paths[1], folder]):
        found = inputs.find_inputs([*given, other], ndim=3)
        assert [one.path for one in found] == [paths[0], other]
    shutil.copy(paths[2], folder / "copy of a_z2.ome.tif")
    (folder / "a_z4.ome.tif").unlink()
    (one,) = inputs.find_inputs([folder], ndim=3)
    assert one.path == paths[0]


def test_renamed_files_are_found_by_their_uuids(tmp_path: Path) -> None:
    paths = write_volume(tmp_path)
    for number, path in enumerate(paths):  # the order of the names is another one too
        path.rename(tmp_path / f"b{(number * 5 + 3) % 6}.tif")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read(path)[..., 0], VOLUME)
    (found,) = inputs.find_inputs([tmp_path], ndim=3)
    assert found.path.name == "b3.tif"  # of the first plane


def test_other_files_of_the_folder_do_not_matter(tmp_path: Path) -> None:
    paths = write_volume(tmp_path)
    paths[0].rename(tmp_path / "z.tif")  # so that all files are looked at
    for content in (b"", b"II*\0" + bytes(99), paths[1].read_bytes()[:-100]):
        (tmp_path / "other.tif").write_bytes(content)
        np.testing.assert_array_equal(read(paths[1])[..., 0], VOLUME)


def test_exchanged_names_do_not_exchange_planes(tmp_path: Path) -> None:
    paths = write_volume(tmp_path)
    paths[1].rename(tmp_path / "c")
    paths[4].rename(paths[1])
    (tmp_path / "c").rename(paths[4])
    for path in paths:
        np.testing.assert_array_equal(read(path)[..., 0], VOLUME)


def test_one_uuid_for_all_files_leaves_the_names(tmp_path: Path) -> None:
    paths = write_volume(tmp_path)
    own = [own_uuid(path.name) for path in paths]
    for path, identity in zip(paths[1:], own[1:], strict=True):
        content = path.read_bytes()
        path.write_bytes(
            content.replace(f'06" UUID="{identity}"'.encode(), f'06" UUID="{own[0]}"'.encode())
        )
    for path in paths:
        np.testing.assert_array_equal(read(path)[..., 0], VOLUME)


def test_renamed_files_without_uuids_are_an_error(tmp_path: Path) -> None:
    paths = write_volume(tmp_path, own_identity=False)
    for path in paths:
        path.rename(path.with_name(f"new_{path.name}"))
    with pytest.raises(InputError, match=r"name 6 linked file\(s\), a_z0.*give it the name"):
        read(tmp_path / "new_a_z2.ome.tif")


def test_one_renamed_file_without_uuid_is_read(tmp_path: Path) -> None:
    (path,) = write_set(tmp_path, [VOLUME[None, None]], lambda *_: "a.ome.tif", own_identity=False)
    path = path.rename(tmp_path / "b.tif")
    np.testing.assert_array_equal(read(path)[..., 0], VOLUME)


@pytest.mark.parametrize(
    ("damage", "named", "message"),
    [
        (lambda p: p.unlink(), "a_z2", r"6 linked .* 1 cannot be found: a_z3\.ome\.tif"),
        (lambda p: p.write_bytes(b"II*\0" + bytes(99)), "a_z3", "cannot be read as a TIFF"),
        (lambda p: p.write_bytes(p.read_bytes()[:-50]), "a_z3", "truncated"),
        (lambda p: tifffile.imwrite(p, VOLUME[0, :9], ome=False), "a_z3", "another size"),
        (
            lambda p: tifffile.imwrite(p, VOLUME[0].astype(np.int16), ome=False),
            "a_z3",
            "another size, type",
        ),
    ],
)
def test_a_missing_or_damaged_file_is_named(
    tmp_path: Path, damage: Callable[[Path], None], named: str, message: str
) -> None:
    paths = write_volume(tmp_path)
    damage(paths[3])
    with pytest.raises(InputError, match=message) as error:
        read(paths[2])
    assert str(error.value).startswith(f"{tmp_path / named}.ome.tif: ")
    assert len(inputs.find_inputs([tmp_path], ndim=3)) >= 1


def test_a_file_of_another_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = write_volume(tmp_path)
    others = write_volume(tmp_path / "b", identity=lambda name: f"urn:uuid:b{name}")
    shutil.copy(others[4], paths[4])
    with pytest.raises(InputError, match=r"a_z4\.ome\.tif: is not the file of this name"):
        read(paths[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({'SizeZ="6"': 'SizeZ="999999999"'}, "plane 7 of 999999999 is missing"),
        ({'SizeX="20"': 'SizeX="999999999"'}, "promise planes of 24 x 999999999"),
        ({'SizeC="1"': 'SizeC="999999999"'}, "plane 7 of 5999999994 is missing"),
        ({'IFD="0" PlaneCount="1"': 'IFD="0" PlaneCount="999999"'}, "promise 999999"),
        ({'IFD="0" PlaneCount="1"': 'IFD="0" PlaneCount="999999999"'}, "promise 999999999"),
        ({'FirstZ="5"': 'FirstZ="4"'}, "two pages as plane 5"),
        ({'FileName="a_z4': 'FileName="/etc/a_z4'}, None),
        ({'FileName="a_z4': 'FileName="C:\\Users\\me\\a_z4'}, None),
        ({'FileName="a_z4': 'FileName="../a_z4'}, None),
    ],
)
def test_a_text_that_lies(tmp_path: Path, change: dict[str, str], message: str | None) -> None:
    paths = write_volume(tmp_path, change=change)
    if message is None:
        np.testing.assert_array_equal(read(paths[0])[..., 0], VOLUME)
        return
    with pytest.raises(InputError, match=message):
        read(paths[0])


def test_planes_of_time_points_and_positions_are_no_slices(tmp_path: Path) -> None:
    write_set(tmp_path, [SERIES[:, :1, :1]], lambda i, t, c, z: f"t{t}.ome.tif")
    assert len(inputs.find_inputs([tmp_path], ndim=2)) == 3
    with pytest.raises(InputError, match=r"t0\.ome\.tif: is a 2D position or time point"):
        inputs.find_inputs([tmp_path], ndim=3)


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    image = np.tile(VOLUME[:1], (40, 1, 1))[None, None]
    paths = write_set(tmp_path, [image], lambda i, t, c, z: f"z{z:02d}.ome.tif")
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no list of open files")
    before = len(list(descriptors.iterdir()))
    with open_source(paths[0]) as source:
        assert source.read(tuple(slice(None) for _ in source.shape)).shape[0] == 40
        assert len(list(descriptors.iterdir())) < before + 15


def test_a_file_with_another_image_too_is_not_left_out(tmp_path: Path) -> None:
    planes = (((0, "a", 0), (1, "b", 0)), ((0, "b", 1),))
    images = "".join(
        f'<Image ID="Image:{k}"><Pixels ID="Pixels:{k}" SizeX="8" SizeY="8" SizeZ="{len(image)}"'
        ' SizeC="1" SizeT="1" DimensionOrder="XYZCT" Type="uint8">'
        + "".join(
            f'<TiffData FirstZ="{z}" IFD="{page}" PlaneCount="1"><UUID FileName="{name}.tif">'
            f"urn:uuid:{name}</UUID></TiffData>"
            for z, name, page in image
        )
        + "</Pixels></Image>"
        for k, image in enumerate(planes)
    )
    for name, pages in (("a", 1), ("b", 2)):
        text = f'<OME UUID="urn:uuid:{name}">{images}</OME>'
        pixels = np.ones((pages, 8, 8), np.uint8)
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, pixels, description=text, metadata=None, photometric="minisblack")
    for given in (tmp_path, tmp_path / "a.tif", tmp_path / "b.tif"):
        (found,) = inputs.find_inputs([given], ndim=3)
        assert found.path == tmp_path / "b.tif"
        with pytest.raises(InputError, match="holds 2 images"):
            open_source(found.path)
