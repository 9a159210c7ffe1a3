"""A folder to learn from in which an image is spread over linked OME-TIFF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_jax.data.entries import scan
from cellcount_jax.data.entry_content import read_entry
from cellcount_jax.errors import InputError

VOLUME = np.random.default_rng(0).integers(0, 900, (4, 16, 12)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [f"a_{z}.ome.tif" for z in range(4)]
    pieces = "".join(
        f'<TiffData FirstZ="{z}" IFD="0"><UUID FileName="{name}">urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    for z, name in enumerate(names):
        text = (
            f'<OME UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" SizeX="12"'
            ' SizeY="16" SizeZ="4" SizeC="1" SizeT="1" DimensionOrder="XYZCT" Type="uint16">'
            f"{pieces}</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / name, VOLUME[z], description=text, metadata=None)
    return tmp_path


def test_it_is_one_image_with_the_dots_of_any_of_its_files(folder: Path) -> None:
    (folder / "a_2.csv").write_text("z,y,x\n1,2,3\n")
    tifffile.imwrite(folder / "b.tif", VOLUME, photometric="minisblack")
    entries = scan(folder)
    assert [entry.name for entry in entries] == ["a_2", "b"]
    sample = read_entry(entries[0], with_dots=True)
    np.testing.assert_array_equal(sample.image[..., 0], VOLUME)


def test_dots_beside_two_of_its_files_are_an_error(folder: Path) -> None:
    for name in ("a_0.csv", "a_2.csv"):
        (folder / name).write_text("z,y,x\n1,2,3\n")
    with pytest.raises(InputError, match=r"a_2\.csv: its image is linked with one that has dots"):
        scan(folder)
