"""CZI, LIF and ND2 through stand-ins for bioio, and the choice of a scene in files of several."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images.inputs import find_inputs
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import Source, open_source

SUFFIXES = ("czi", "nd2", "lif")


def scene_pixels(count: int) -> list[np.ndarray]:
    """`(T, C, Z, Y, X)` of each scene, of different sizes and contents."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 999, (1, 2, 5, 12, 18 + k)).astype("u2") for k in range(count)]


class FakeLazy:
    """Stands for dask's array: indexing reads."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.chunksize = (1, 1, 1, *array.shape[-2:])

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.array[index]


class FakeImage:
    """Stands for bioio.BioImage: what is asked of it is of the scene that was set, from 0."""

    channel_names = ("DAPI", "GFP")

    def __init__(self, scenes: dict[str, np.ndarray]):
        self.scenes, self._arrays, self._now = tuple(scenes), [*scenes.values()], 0

    def set_scene(self, number: int) -> None:
        self._now = number

    @property
    def dask_data(self) -> FakeLazy:
        return FakeLazy(self._arrays[self._now])

    @property
    def dims(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(order="TCZYX")

    @property
    def physical_pixel_sizes(self) -> tuple[float, float, float]:
        return (2.0, 0.5, 0.25 * (1 + self._now))


Install = Callable[..., Path]


@pytest.fixture(params=SUFFIXES)
def install(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Install:
    """Makes a file of named scenes (`stored` are in it) and the packages that read it."""
    suffix = request.param

    def make(scenes: dict[str, np.ndarray], *, stored: int | None = None) -> Path:
        path = tmp_path / f"brain.{suffix}"
        path.write_bytes(b"x")
        count = len(scenes) if stored is None else stored

        def image(opened: Path, *, reader: str) -> FakeImage:
            assert (opened, reader) == (path, suffix)
            return FakeImage(scenes)

        czi = types.SimpleNamespace(
            get_dims_shape=lambda: [{"C": (0, 2), **({"S": (3, 3 + count)} if count > 1 else {})}]
        )
        nd2 = types.SimpleNamespace(sizes={"C": 2, **({"P": count} if count > 1 else {})})
        modules = {
            "bioio": types.SimpleNamespace(BioImage=image),
            f"bioio_{suffix}": types.SimpleNamespace(Reader=suffix),
            "aicspylibczi": types.SimpleNamespace(CziFile=lambda opened: czi),
            "nd2": types.SimpleNamespace(ND2File=lambda opened: contextlib.nullcontext(nd2)),
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return path

    return make


def whole(source: Source) -> np.ndarray:
    return source.read((slice(None),) * len(source.shape))


@contextlib.contextmanager
def refused(path: Path, message: str) -> Iterator[None]:
    with pytest.raises(InputError, match=message) as error:
        yield
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and text.endswith(".")


def test_a_file_of_one_scene(install: Install) -> None:
    [array] = scene_pixels(1)
    path = install({"only": array})
    kind = path.suffix[1:].upper()
    with open_source(path, Selection(channel="GFP")) as source:
        assert (source.kind, source.spacing) == (kind, (2.0, 0.5, 0.25))
        assert (source.spacing_source, source.chunks) == (f"{kind} metadata", (1, 12, 18))
        np.testing.assert_array_equal(whole(source)[..., 0], array[0, 1])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_packages_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"brain.{suffix}"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "bioio", None)
    with refused(path, "bioio-nd2" if suffix == "nd2" else "EXTRAS=formats bash"):
        open_source(path)


@pytest.mark.parametrize(("scene", "number"), [("1", 1), (1, 1), ("B-2", 1), ("A-1", 0), ("7", 2)])
def test_a_scene_is_chosen_by_number_or_name(
    install: Install, scene: int | str, number: int
) -> None:
    arrays = scene_pixels(3)
    path = install(dict(zip(["A-1", "B-2", "7"], arrays, strict=True)))
    with open_source(path, Selection(channel=0, scene=scene)) as source:
        assert source.kind.endswith(f", scene {number} of 3 ({['A-1', 'B-2', '7'][number]})")
        assert source.spacing == (2.0, 0.5, 0.25 * (1 + number))
        np.testing.assert_array_equal(whole(source)[..., 0], arrays[number][0, 0])


def test_several_scenes_are_listed_and_none_is_taken(install: Install) -> None:
    path = install(dict(zip(["left", "right"], scene_pixels(2), strict=True)))
    with refused(path, r"holds 2 images: 0 \(left\), 1 \(right\); choose one with --scene"):
        open_source(path)
    with refused(path, r"scene 'top': is not there; it has 2 scene\(s\): 0 \(left\), 1 \(right\)"):
        open_source(path, Selection(scene="top"))
    with refused(path, "scene '2': is not there"):
        open_source(path, Selection(scene="2"))


def test_scenes_that_the_metadata_leave_out(install: Install) -> None:
    path = install({"Image:0": scene_pixels(1)[0]}, stored=4)
    if path.suffix == ".lif":  # its scenes are the images in the file, not a list beside them
        return
    for selection in (Selection(), Selection(scene=0)):
        with refused(path, r"holds 4 images \(scenes\), but its metadata name 1"):
            open_source(path, selection)


def test_formats_of_one_image_have_the_scene_0_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 5)))
    with open_source(tmp_path / "a.npy", Selection(scene="0")) as source:
        assert source.shape == (4, 5)
    with refused(tmp_path / "a.npy", r"scene '1': is not there; it has 1 scene\(s\): 0"):
        open_source(tmp_path / "a.npy", Selection(scene="1"))


def test_images_of_an_ome_tiff_are_scenes(tmp_path: Path) -> None:
    """Each with its own size, channel names and voxel size."""
    path = tmp_path / "a.ome.tif"
    images = [np.full((3, 8, 9), 5, "u2"), np.full((2, 4, 10, 11), 7, "u2")]
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, (axes, image) in enumerate(zip(["ZYX", "CZYX"], images, strict=True)):
            metadata: dict[str, Any] = {"axes": axes, "Name": f"Pos {number}"}
            metadata |= {f"PhysicalSize{axis}": 0.5 + number for axis in "XYZ"}
            if number:
                metadata["Channel"] = {"Name": ["DAPI", "GFP"]}
            file.write(image, metadata=metadata, photometric="minisblack")
    with refused(path, r"holds 2 images: 0 \(Pos 0\), 1 \(Pos 1\); choose one with --scene"):
        open_source(path)
    with open_source(path, Selection(scene="Pos 0")) as source:
        assert (source.shape, source.spacing, source.channel_names) == ((3, 8, 9), (0.5,) * 3, ())
        assert (whole(source) == 5).all()
    with open_source(path, Selection(scene="1")) as source:
        assert (source.shape, source.spacing) == ((4, 10, 11), (1.5,) * 3)
        assert source.channel_names == ("DAPI", "GFP")
        assert source.kind == "OME-TIFF, scene 1 of 2 (Pos 1)"
        assert (whole(source) == 7).all()


def test_results_are_named_after_the_scene(tmp_path: Path) -> None:
    """So that two scenes of a file, counted into one folder, keep their results apart."""
    np.save(tmp_path / "a.npy", np.ones((4, 5)))
    names = {
        scene: find_inputs([tmp_path / "a.npy"], ndim=2, scene=scene)[0].name
        for scene in (None, "0", "A/1", "Pos 2")
    }
    # Of one image alone there is one name.
    assert names == {None: "a", "0": "a", "A/1": "a_scene_A_1", "Pos 2": "a_scene_Pos_2"}
