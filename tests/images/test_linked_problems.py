"""Sets of linked OME-TIFF files that cannot be opened, and the file that describes a set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images.files import check_apart
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.inputs import files_of, find_inputs
from cellcount_jax.images.sources import open_source

PLANES = np.random.default_rng(0).integers(0, 250, (6, 12, 10)).astype(np.uint8)
COMPANION = "a.companion.ome"


def write_set(folder: Path, *, files: int = 6, channels: int = 1, companion: bool = True) -> None:
    """The planes in some files, which a companion describes, or each itself."""
    each = len(PLANES) // files
    pieces = "".join(
        f'<TiffData FirstZ="{k // channels}" FirstC="{k % channels}" IFD="{k % each}"'
        f' PlaneCount="1"><UUID FileName="z{k // each}.ome.tif">urn:uuid:{k // each}</UUID>'
        "</TiffData>"
        for k in range(len(PLANES))
    )
    described = (
        '<Image ID="Image:0"><Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint8" SizeX="10"'
        f' SizeY="12" SizeZ="{len(PLANES) // channels}" SizeC="{channels}" SizeT="1">'
        + "".join(f'<Channel ID="C:{c}"/>' for c in range(channels))
        + f"{pieces}</Pixels></Image>"
    )
    content = f'<BinaryOnly MetadataFile="{COMPANION}" UUID="urn:uuid:c"/>'
    for number in range(files):
        text = f'<OME UUID="urn:uuid:{number}">{content if companion else described}</OME>'
        tifffile.imwrite(
            folder / f"z{number}.ome.tif",
            PLANES[number * each : (number + 1) * each],
            description=text,
            metadata=None,
            photometric="minisblack",
        )
    if companion:
        (folder / COMPANION).write_text(f'<OME UUID="urn:uuid:c">{described}</OME>')


@pytest.mark.parametrize("files", [1, 3, 6])
def test_the_file_that_describes_a_set_is_read_with_it(tmp_path: Path, files: int) -> None:
    write_set(tmp_path, files=files, channels=2)
    with open_source(tmp_path / "z0.ome.tif") as source:
        assert source.shape == (3, 12, 10) and source.channels == 2
        pixels = source.read(tuple(map(slice, source.shape)))
        assert source.files[-1] == tmp_path / COMPANION and len(source.files) == files + 1
    np.testing.assert_array_equal(pixels[..., 1], PLANES[1::2])
    (found,) = find_inputs([tmp_path], ndim=3)
    assert found.path == tmp_path / "z0.ome.tif"


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"II*\0" + bytes(99)), "as a TIFF|without an image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "truncated"),
        (lambda path: path.write_bytes(b""), "empty|header=b.."),
        (lambda path: path.unlink(), "1 cannot be found: z[03]"),
    ],
    ids=["header", "end", "empty", "gone"],
)
def test_a_set_with_a_damaged_file_is_one_input(
    tmp_path: Path, damage: Callable[[Path], None], message: str, number: int
) -> None:
    write_set(tmp_path, companion=False)
    damage(tmp_path / f"z{number}.ome.tif")
    files = sorted(tmp_path.iterdir())
    for given in ([tmp_path], files, files[::-1]):
        (found,) = find_inputs(given, ndim=3)
        with pytest.raises(InputError, match=message):
            open_source(found.path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), f"are in {COMPANION}, which is not there"),
        (lambda path: path.write_text("<OME"), f"{COMPANION}: is not understood"),
        (lambda path: path.write_bytes(b"\xff\xfe\xff"), f"{COMPANION}: cannot be read as OME"),
    ],
    ids=["gone", "cut", "bytes"],
)
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_set_without_its_description_is_one_input(
    tmp_path: Path, damage: Callable[[Path], object], message: str, ndim: int
) -> None:
    """Its planes are no images of their own."""
    write_set(tmp_path)
    damage(tmp_path / COMPANION)
    (found,) = find_inputs([tmp_path], ndim=ndim)
    with pytest.raises(InputError, match=message):
        open_source(found.path)


def test_two_sets_without_their_descriptions_are_two_inputs(tmp_path: Path) -> None:
    paths = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_set(tmp_path / name)
        (tmp_path / name / COMPANION).unlink()
        paths.append(tmp_path / name / "z0.ome.tif")
    assert [found.path for found in find_inputs([tmp_path / "x", tmp_path / "y"], ndim=2)] == paths


def test_all_files_of_an_input_are_known(tmp_path: Path) -> None:
    """So that no results lie where one of them is."""
    write_set(tmp_path)
    everything = {tmp_path / COMPANION, *tmp_path.glob("*.tif")}
    (found,) = find_inputs([tmp_path / "z3.ome.tif"], ndim=3)
    assert {found.path, *found.files} == everything
    assert set(files_of(tmp_path / "z3.ome.tif")) == everything
    slices = tmp_path / "slices"
    slices.mkdir()
    for z in range(2):
        (slices / f"z{z}.png").symlink_to(tmp_path / f"plane{z}.png")
        write_image(tmp_path / f"plane{z}.png", PLANES[z][..., None])
    (found,) = find_inputs([slices], ndim=3)
    assert found.files == (slices / "z0.png", slices / "z1.png")
    with pytest.raises(InputError, match="holds .*z1.png, which is read"):
        check_apart([tmp_path], found.files)
