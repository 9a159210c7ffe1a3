"""Versions of OME-Zarr, the order of levels, plates and wells; see also test_sources.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr

from cellcount_jax.errors import InputError
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import Source, open_source

VOLUME = np.random.default_rng(0).integers(0, 999, (4, 12, 16)).astype("u2")
AXES = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
SCALE = [6.0, 2.0, 1.5]


def write(
    path: Path,
    attributes: dict[str, Any],
    arrays: dict[str, np.ndarray] | None = None,
    *,
    zarr_format: Literal[2, 3] = 2,
) -> Path:
    """A group with arrays and attributes."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, array in (arrays or {}).items():
        group.create_array(name, data=array, chunks=(4,) * array.ndim)
    group.attrs.update(attributes)
    return path


def image(*paths: str, version: str | None = "0.4", **more: Any) -> dict[str, Any]:
    """The attributes of an image without scales."""
    multiscale = {"axes": AXES, "datasets": [{"path": path} for path in paths], **more}
    return {"multiscales": [multiscale | ({} if version is None else {"version": version})]}


def scaled(scale: list[float], path: str) -> dict[str, Any]:
    steps = [{"type": "translation", "translation": [1, 1, 1]}, {"type": "scale", "scale": scale}]
    return {"path": path, "coordinateTransformations": steps}


def whole(source: Source) -> np.ndarray:
    return source.read((slice(None),) * len(source.shape))[..., 0]


def check(path: Path, kind: str, spacing: tuple[float, ...] | None, **selection: Any) -> None:
    """That the whole of `VOLUME` is read."""
    with open_source(path, Selection(**selection)) as source:
        assert (source.kind, source.spacing) == (kind, spacing)
        np.testing.assert_array_equal(whole(source), VOLUME)


def check_refused(path: Path, message: str, **selection: Any) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_source(path, Selection(**selection))
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and text.endswith(".")


@pytest.mark.parametrize("version", ["0.1", "0.2", None])
def test_axes_of_the_first_versions_are_tczyx(tmp_path: Path, version: str | None) -> None:
    attributes = image("s0", version=version)
    del attributes["multiscales"][0]["axes"]
    path = write(
        tmp_path / "a.zarr", attributes, {"s0": np.stack([VOLUME[None], VOLUME[None] + 1])}
    )
    with open_source(path, Selection(time=0)) as source:
        assert (source.axes, source.stored_shape) == ("TCZYX", (2, 1, *VOLUME.shape))
    check(path, f"OME-Zarr {version or 'of unknown version'}", None, time=0)
    path = write(tmp_path / "b.zarr", attributes, {"s0": VOLUME})
    check_refused(path, r"do not say which the 3 axes of 's0' are \(4 x 12 x 16\).*b\.zarr/s0")


def test_axes_of_version_3_are_texts(tmp_path: Path) -> None:
    attributes = image("0", version="0.3", axes=["z", "y", "x"])
    check(write(tmp_path / "a.zarr", attributes, {"0": VOLUME}), "OME-Zarr 0.3", None)


def version_6(version: str, step: dict[str, Any]) -> dict[str, Any]:
    """An image in two systems, of which `step` leads to one, and a further step to the other."""
    systems = [
        {"name": "atlas", "axes": [{**axis, "unit": "meter"} for axis in AXES]},
        {"name": "physical", "axes": AXES},
    ]
    multiscale = {
        "coordinateSystems": systems,
        "datasets": [{"path": "0", "coordinateTransformations": [step]}],
        "coordinateTransformations": [{"type": "scale", "scale": [9, 9, 9], "output": "atlas"}],
    }
    return {"ome": {"version": version, "multiscales": [multiscale]}}


@pytest.mark.parametrize("version", ["0.6", "0.6rc0"])
def test_coordinate_systems_of_version_6(tmp_path: Path, version: str) -> None:
    """Previews name systems by a text, later ones in an object."""
    scale = {"type": "scale", "scale": SCALE}
    sequence = {"type": "sequence", "transformations": [scale, {"type": "translation"}]}
    for step, spacing in (
        ({**scale, "output": "physical"}, tuple(SCALE)),
        ({**sequence, "output": {"name": "physical"}}, tuple(SCALE)),
        ({"type": "rotation", "output": "physical"}, None),
    ):
        attributes = version_6(version, step)
        path = write(tmp_path / "a.zarr", attributes, arrays={"0": VOLUME}, zarr_format=3)
        check(path, f"OME-Zarr {version}", spacing)
    attributes = version_6(version, {**scale, "output": "elsewhere"})
    write(path, attributes, arrays={"0": VOLUME}, zarr_format=3)
    check_refused(path, "do not say which the 3 axes")


@pytest.mark.parametrize("version", ["0.7", "1.0", "latest"])
def test_an_unknown_version_is_named(tmp_path: Path, version: str) -> None:
    attributes = {"ome": {"version": version, **image("s0", version=None)}}
    path = write(tmp_path / "a.zarr", attributes, {"s0": VOLUME}, zarr_format=3)
    check_refused(path, f"version '{version}', which is not known here; 0.1 to 0.6.*a.zarr/s0")
    check(path / "s0", "Zarr array, format 3", None)  # what the message advises


COARSE = VOLUME[:, ::2, ::2]


@pytest.mark.parametrize(
    "datasets",
    [
        [scaled([6, 4, 3], "small"), scaled(SCALE, "large")],
        [scaled(SCALE, "large"), scaled([6, 4, 3], "small")],
        [{"path": "small"}, {"path": "large"}],
        [{"path": "large"}, {"path": "small"}],
        [scaled([1, 1, 1], "small"), scaled([1, 1, 1], "large")],
    ],
)
def test_level_0_is_the_finest_wherever_it_stands(
    tmp_path: Path, datasets: list[dict[str, Any]]
) -> None:
    attributes = image(datasets=datasets)
    path = write(tmp_path / "a.zarr", attributes, {"large": VOLUME, "small": COARSE})
    with open_source(path) as source:
        np.testing.assert_array_equal(whole(source), VOLUME)
    with open_source(path, Selection(level=1)) as source:
        np.testing.assert_array_equal(whole(source), COARSE)


def test_levels_that_contradict_their_scales(tmp_path: Path) -> None:
    attributes = image(datasets=[scaled([6, 4, 3], "large"), scaled(SCALE, "small")])
    path = write(tmp_path / "a.zarr", attributes, {"large": VOLUME, "small": COARSE})
    check_refused(path, "by its scales 'small' is the finest level, but 'large' has more voxels")


def test_a_level_of_which_the_finer_ones_were_not_copied(tmp_path: Path) -> None:
    attributes = image(datasets=[scaled(SCALE, "large"), scaled([6, 4, 3], "small")])
    path = write(tmp_path / "a.zarr", attributes, {"small": COARSE})
    check_refused(path, "name the array 'large' for level 0, which is not there")
    with open_source(path, Selection(level=1)) as source:
        np.testing.assert_array_equal(whole(source), COARSE)


def write_plate(path: Path) -> Path:
    """Two wells, of which the first was not copied; the other has the fields 3 and 4."""
    write(path, {"plate": {"wells": [{"path": "A/1"}, {"path": "B/03"}]}})
    write(path / "B" / "03", {"well": {"images": [{"path": "3"}, {"path": "4"}]}})
    write(path / "B" / "03" / "3", image("0"), {"0": VOLUME})
    write(path / "B" / "03" / "4", image("0"), {"0": VOLUME + 1})
    return path


def test_a_plate_names_a_field_that_is_there(tmp_path: Path) -> None:
    path = write_plate(tmp_path / "plate.zarr")
    check_refused(path, r"a plate of 2 well\(s\); choose a field with --scene.*example B/03/3")
    check_refused(path, "for example B/03/3", scene="A/1/0")
    check(path, "OME-Zarr 0.4 (field B/03/3 of a plate)", None, scene="B/03/3")
    check(path / "B" / "03" / "3", "OME-Zarr 0.4", None)
    shutil.rmtree(path / "B")
    check_refused(path, "none that its metadata name is there")


def test_a_well_names_its_fields(tmp_path: Path) -> None:
    well = write_plate(tmp_path / "plate.zarr") / "B" / "03"
    check_refused(well, r"holds 2 images: 0 \(3\), 1 \(4\); choose one with --scene")
    for scene in ("3", "0"):
        check(well, "OME-Zarr 0.4 (field 3 of a well of 2)", None, scene=scene)
    shutil.rmtree(well / "4")
    check_refused(well, "name the image '4', which is not there", scene="4")


def test_series_of_bioformats2raw(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", {"bioformats2raw.layout": 3})
    for name in ("0", "1", "b"):
        write(path / name, image("0"), {"0": VOLUME + 7 * (name == "0")})
    check_refused(path, "holds 2 images: 0, 1; choose one with --scene")
    check(path, "OME-Zarr 0.4 (bioformats2raw, series 1 of 2)", None, scene="1")
    write(path / "OME", {"series": ["0", "1", "b"]})
    check(path, "OME-Zarr 0.4 (bioformats2raw, series 2 of 3)", None, scene="b")
