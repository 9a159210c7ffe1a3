"""Another content of the same files is another count, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from cellcount_jax.inference import model_file, search
from cellcount_jax.inference.trained_model import TrainedModel

Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]
Write = Callable[[Path, np.ndarray], None]

pytestmark = pytest.mark.usefixtures("quick_compiling")

SHAPE = (6, 16, 16)


def as_tiff(path: Path, volume: np.ndarray) -> None:
    tifffile.imwrite(path, volume, photometric="minisblack")


def as_slices(path: Path, volume: np.ndarray) -> None:
    path.mkdir(exist_ok=True)
    for number, plane in enumerate(volume):
        as_tiff(path / f"z{number}.tif", plane)


def as_zarr(path: Path, volume: np.ndarray) -> None:
    zarr.create_array(path, data=volume, chunks=(3, 8, 8), overwrite=True)


def as_linked(path: Path, volume: np.ndarray) -> None:
    """A plane a file, all with the same text; the first one is not written again."""
    names = [path.name, *(f"{path.stem}{z}.tif" for z in range(1, len(volume)))]
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z}</UUID>'
        "</TiffData>"
        for z, name in enumerate(names)
    )
    sizes = " ".join(f'Size{axis}="{n}"' for axis, n in zip("ZYXCT", (*SHAPE, 1, 1), strict=True))
    for z, (name, plane) in enumerate(zip(names, volume, strict=True)):
        text = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}">'
            f'<Image ID="Image:0"><Pixels ID="P:0" DimensionOrder="XYZCT" Type="uint8" {sizes}>'
            f'<Channel ID="C:0"/>{planes}</Pixels></Image></OME>'
        )
        if z or not path.exists():
            tifffile.imwrite(
                path.with_name(name),
                plane,
                description=text,
                metadata=None,
                photometric="minisblack",
            )


KINDS: dict[str, tuple[str, Write]] = {
    "TIFF": ("a.tif", as_tiff),
    "slices": ("a", as_slices),
    "Zarr": ("a.zarr", as_zarr),
    "linked OME-TIFFs": ("a.tif", as_linked),
}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 200, SHAPE).astype(np.uint8)


@pytest.fixture
def count(
    call: Call, monkeypatch: pytest.MonkeyPatch, untrained_model: Callable[..., TrainedModel]
) -> Call:
    """The command with a small model, whose map is 0."""
    model = untrained_model(3, zero=True)
    monkeypatch.setattr(model_file, "load_model", lambda _: model)
    return lambda *arguments: call("count", *arguments, "--model", "m")


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_was_replaced(
    tmp_path: Path, count: Call, capsys: Capture, kind: str
) -> None:
    name, write = KINDS[kind]
    image = tmp_path / name
    command = (image, "--output", tmp_path / "out")
    write(image, noise(0))
    assert count(*command) == 0
    assert count(*command) == 0
    write(image, noise(1))
    assert count(*command) == 1
    assert "holds the results of another count, which differs in the content of the input" in (
        capsys.readouterr().err
    )
    assert count(*command, "--overwrite") == 0
    assert count(*command) == 0


def test_a_description_that_was_replaced(tmp_path: Path, count: Call, capsys: Capture) -> None:
    """The planes are in other places then; the files with them are as they were."""
    volume = noise(0)
    for z, plane in enumerate(volume):
        named = '<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:c"/>'
        text = f'<OME UUID="urn:uuid:{z}">{named}</OME>'
        tifffile.imwrite(
            tmp_path / f"z{z}.ome.tif",
            plane,
            description=text,
            metadata=None,
            photometric="minisblack",
        )

    def describe(order: Iterable[int]) -> None:
        planes = "".join(
            f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="z{k}.ome.tif">'
            f"urn:uuid:{k}</UUID></TiffData>"
            for z, k in enumerate(order)
        )
        (tmp_path / "a.companion.ome").write_text(
            '<OME UUID="urn:uuid:c"><Image ID="Image:0"><Pixels ID="P:0" DimensionOrder="XYZCT"'
            ' Type="uint8" SizeX="16" SizeY="16" SizeZ="6" SizeC="1" SizeT="1"><Channel ID="C:0"/>'
            f"{planes}</Pixels></Image></OME>"
        )

    command = (tmp_path / "z0.ome.tif", "--output", tmp_path / "out")
    describe(range(6))
    assert count(*command) == 0
    assert count(*command) == 0
    describe([0, 2, 1, 3, 4, 5])
    assert count(*command) == 1
    assert "which differs in the content of the input" in capsys.readouterr().err
    assert count(*command, "--overwrite") == 0


def test_an_image_at_an_address_that_was_replaced(
    tmp_path: Path, count: Call, capsys: Capture, server: str
) -> None:
    command = (f"{server}/a.zarr", "--output", tmp_path / "out")
    as_zarr(tmp_path / "a.zarr", noise(0))
    assert count(*command) == 0
    assert count(*command) == 0
    as_zarr(tmp_path / "a.zarr", noise(1))
    assert count(*command) == 1
    printed = capsys.readouterr()
    assert "which differs in the content of the input" in printed.err
    assert "would not be noticed" not in printed.out
    assert count(*command, "--overwrite") == 0


def test_an_address_at_which_a_change_is_not_seen(
    tmp_path: Path, count: Call, capsys: Capture, silent_server: str
) -> None:
    as_zarr(tmp_path / "a.zarr", noise(0))
    command = (f"{silent_server}/a.zarr", "--output", tmp_path / "out")
    assert count(*command, "--dry-run") == 0
    printed = capsys.readouterr()
    assert "a change there would not be noticed; if there was one, count it anew with" in (
        printed.out + printed.err
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_that_was_replaced(tmp_path: Path, count: Call, capsys: Capture, kind: str) -> None:
    name, write = KINDS[kind]
    image, mask = tmp_path / "image.tif", tmp_path / name
    as_tiff(image, noise(0))
    command = (image, "--output", tmp_path / "out", "--mask", mask)
    write(mask, noise(1) // 100)
    assert count(*command) == 0
    write(mask, noise(2) // 100)
    assert count(*command) == 1
    assert "which differs in mask" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["TIFF", "slices", "Zarr"])
def test_regions_that_were_replaced_are_read_again(tmp_path: Path, count: Call, kind: str) -> None:
    name, write = KINDS[kind]
    image, regions = tmp_path / "image.tif", tmp_path / name
    as_tiff(image, noise(0))
    command = (image, "--output", tmp_path / "out", "--regions", regions)
    tables = []
    for label in (3, 4):
        write(regions, np.full(SHAPE, label, np.uint8))
        assert count(*command) == 0
        tables.append((tmp_path / "out/image/regions.csv").read_text())
    assert ["\n3," in table for table in tables] == [True, False]
    assert ["\n4," in table for table in tables] == [False, True]


@pytest.mark.parametrize("replaced", ["image", "mask"])
def test_what_is_written_to_while_it_is_counted(
    tmp_path: Path,
    count: Call,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    replaced: str,
) -> None:
    for name in ("image", "mask"):
        as_slices(tmp_path / name, noise(0))
    find = search.search

    def find_while_it_changes(*arguments: object, **options: object) -> search.Search:
        found = find(*arguments, **options)  # type: ignore[arg-type]
        as_tiff(tmp_path / replaced / "z3.tif", noise(1)[3])
        return found

    monkeypatch.setattr(search, "search", find_while_it_changes)
    command = (tmp_path / "image", "--output", tmp_path / "out", "--mask", tmp_path / "mask")
    assert count(*command) == 1
    assert "was written to while it was counted" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("image/*"))
