"""A volume in linked OME-TIFF files is counted once, with the cells of the volume in one file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile

Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("quick_compiling", "models_stay_loaded")


def test_the_folder_and_any_file_of_it_are_the_volume(
    tmp_path: Path, run_3d: Path, cells_3d: Path, call: Call, capsys: Capture
) -> None:
    whole = next((cells_3d / "test").glob("*.tif"))
    volume, folder = tifffile.imread(whole), tmp_path / "planes"
    folder.mkdir()
    pieces = "".join(
        f'<TiffData FirstZ="{z}" IFD="0"><UUID FileName="z{z}.ome.tif">urn:uuid:{z}</UUID>'
        "</TiffData>"
        for z in range(len(volume))
    )
    depth, height, width = volume.shape
    for z, plane in enumerate(volume):
        text = (
            f'<OME UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" SizeX="{width}"'
            f' SizeY="{height}" SizeZ="{depth}" SizeC="1" SizeT="1" DimensionOrder="XYZCT"'
            f' Type="{volume.dtype}" PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeZ="2">'
            f"{pieces}</Pixels></Image></OME>"
        )
        tifffile.imwrite(folder / f"z{z}.ome.tif", plane, description=text, metadata=None)
    found = []
    for number, path in enumerate((whole, folder, folder / "z7.ome.tif")):
        output = tmp_path / f"out{number}"
        assert call("count", path, "--model", run_3d, "--output", output) == 0
        with (output / "counts.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        found.append((output / Path(row["input"]).name.split(".")[0] / "points.csv").read_bytes())
    assert found[1] == found[2] == found[0] and found[0].count(b"\n") > 1
    assert "z0.ome.tif: is one image with 11 linked" in capsys.readouterr().out
    (folder / "z5.ome.tif").unlink()
    assert call("count", folder, "--model", run_3d, "--output", tmp_path / "out3") == 1
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1 and "z5.ome.tif" in errors
