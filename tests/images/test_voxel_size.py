from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellcount_jax.images.length_units import length, micrometres
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import open_source

VOLUME = np.zeros((3, 8, 9), np.uint8)
TYPED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# Metres, by the definitions of the units; all of OME's UnitsLength that are lengths.
METRES = {
    **{"Ym": 1e24, "Zm": 1e21, "Em": 1e18, "Pm": 1e15, "Tm": 1e12, "Gm": 1e9, "Mm": 1e6, "km": 1e3},
    **{"hm": 1e2, "dam": 10.0, "m": 1.0, "dm": 1e-1, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6},
    **{"nm": 1e-9, "pm": 1e-12, "fm": 1e-15, "am": 1e-18, "zm": 1e-21, "ym": 1e-24},
    **{"Å": 1e-10, "thou": 2.54e-5, "li": 0.0254 / 12, "in": 0.0254, "pt": 0.0254 / 72},
    **{"ft": 0.3048, "yd": 0.9144, "mi": 1609.344, "ua": 1.495978707e11, "ly": 9.4607304725808e15},
    **{"pc": 3.0856775814913673e16},
}


@pytest.mark.parametrize("unit", METRES)
def test_every_unit_of_ome(unit):
    assert micrometres(unit) == pytest.approx(METRES[unit] * 1e6, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        *(
            (u, 1.0)
            for u in ("um", "UM", "Um", "µm", "μm", "\\u00B5m", "Âµm", " micron ", "microns")
        ),
        *((u, 1.0) for u in ("micrometer", "micrometers", "Micrometre", "micrometres", "Microns")),
        *((u, 1e3) for u in ("mm", "MM", "millimeter", "millimetres")),
        *((u, 1e5) for u in ("dm", "decimeter", "decimetres")),
        *((u, 25400.0) for u in ("inch", "Inches", "in", "IN")),
        ("nanometers", 1e-3),
        ("angstroms", 1e-4),
        ("feet", 304800.0),
    ],
)
def test_spellings_of_units(unit, factor):
    assert micrometres(unit) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    "unit", ["", "pixel", "pixels", "reference frame", "sec", "foo", None, 3, ()]
)
def test_what_is_no_length(unit):
    assert math.isnan(micrometres(unit))


@given(st.floats(1e-9, 1e9), st.booleans(), st.booleans())
def test_numbers_come_back_with_a_comma_and_a_sign(value, comma, negative):
    text = f"{'-' if negative else ''}{value!r}"
    assert length(text.replace(".", ",") if comma and "e" not in text else text) == value
    assert length(-value if negative else value) == value


@pytest.mark.parametrize(
    "text", ["", "0", "-0.0", "nan", "inf", "1e999", "1.000,5", "1,2,3", "1_0", "6 um", "x", None]
)
def test_what_is_no_size(text):
    assert math.isnan(length(text))


def ome(path, changes):
    sizes = {"PhysicalSizeX": 1.62, "PhysicalSizeY": 1.62, "PhysicalSizeZ": 6.0}
    tifffile.imwrite(path, VOLUME, ome=True, metadata={"axes": "ZYX", **sizes})
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata or ""
    for old, new in changes:
        assert old in xml
        xml = xml.replace(old, new)
    tifffile.imwrite(
        path, VOLUME, description=xml.encode(), metadata=None, photometric="minisblack"
    )


@pytest.mark.parametrize(
    ("changes", "spacing", "found"),
    [
        ([('="1.62"', '="1,62"')], (6.0, 1.62, 1.62), ""),
        ([('Z="6.0"', 'Z="-6.0"')], (6.0, 1.62, 1.62), ""),
        ([('Z="6.0"', 'Z="6e-5" PhysicalSizeZUnit="dm"')], (6.0, 1.62, 1.62), ""),
        ([('Z="6.0"', 'Z="0.006" PhysicalSizeZUnit="mm"')], (6.0, 1.62, 1.62), ""),
        ([('Z="6.0"', 'Z=""')], None, 'no z, y 1.62 um, x 1.62 um, PhysicalSizeZ=""'),
        ([('PhysicalSizeZ="6.0"', "")], None, "no z, y 1.62 um, x 1.62 um"),
        ([('Z="6.0"', 'Z="0"')], None, 'no z, y 1.62 um, x 1.62 um, PhysicalSizeZ="0"'),
        # A megametre is none that a microscope has, and no millimetre.
        (
            [('Z="6.0"', 'Z="6" PhysicalSizeZUnit="Mm"')],
            None,
            'no z, y 1.62 um, x 1.62 um, PhysicalSizeZ="6" PhysicalSizeZUnit="Mm"',
        ),
        (
            [('Z="6.0"', 'Z="6" PhysicalSizeZUnit="pixel"')],
            None,
            'no z, y 1.62 um, x 1.62 um, PhysicalSizeZ="6" PhysicalSizeZUnit="pixel"',
        ),
    ],
)
def test_sizes_of_ome(tmp_path, changes, spacing, found):
    path = tmp_path / "a.ome.tif"
    ome(path, changes)
    with open_source(path) as source:
        assert (source.spacing, source.spacing_found) == (spacing, found)
    with open_source(path, Selection(spacing=(3, 2, 1))) as source:
        assert (source.spacing, source.spacing_source) == ((3, 2, 1), "given")


@pytest.mark.parametrize("unit", [unit for unit in METRES if 1e-9 <= METRES[unit] <= 1])
def test_every_unit_in_a_file(tmp_path, unit):
    size = 1.3e-6 / METRES[unit]
    ome(
        tmp_path / "a.ome.tif",
        [(f'{a}="{v}"', f'{a}="{size!r}" PhysicalSize{a}Unit="{unit}"') for a, v in
         zip("ZYX", ("6.0", "1.62", "1.62"), strict=True)],
    )  # fmt: skip
    with open_source(tmp_path / "a.ome.tif") as source:
        assert source.spacing == (1.3, 1.3, 1.3)


@pytest.mark.parametrize(
    ("per_unit", "tag", "metadata", "spacing"),
    [
        (1 / 1.62, "NONE", {"spacing": 6.0, "unit": "um"}, (6.0, 1.62, 1.62)),
        (1 / 1.62, "NONE", {"spacing": -6.0, "unit": "um"}, (6.0, 1.62, 1.62)),
        (1 / 1.62, "NONE", {"spacing": "6,0", "unit": "um"}, (6.0, 1.62, 1.62)),
        (1 / 1.62, "NONE", {"spacing": 6.0, "unit": "micrometers"}, (6.0, 1.62, 1.62)),
        (1 / 1.62, "NONE", {"spacing": 6.0, "unit": "\\u00B5m"}, (6.0, 1.62, 1.62)),
        (1 / 1.62e-5, "NONE", {"spacing": 6e-5, "unit": "dm"}, (6.0, 1.62, 1.62)),
        # ImageJ has pixels per unit of its text, whatever the tag says ...
        (2000, "INCH", {"spacing": 0.002, "unit": "mm"}, (2.0, 0.5, 0.5)),
        (1 / 25, "INCH", {"spacing": 25.0, "unit": "um"}, (25.0, 25.0, 25.0)),
        (1e4, "CENTIMETER", {"spacing": 2e-4, "unit": "cm"}, (2.0, 1.0, 1.0)),
        # ... and others write the tag as the standard has it.
        (25400 / 0.65, "INCH", {"spacing": 2.0, "unit": "um"}, (2.0, 0.65, 0.65)),
        (1e4 / 0.65, "CENTIMETER", {"spacing": 2.0, "unit": "um"}, (2.0, 0.65, 0.65)),
        (1 / 1.62, "NONE", {"unit": "um"}, None),
        (1 / 1.62, "NONE", {"spacing": 6.0, "unit": "pixel"}, None),
    ],
)
@pytest.mark.parametrize("imagej", [True, False])
def test_a_text_with_unit_and_spacing(tmp_path, imagej, per_unit, tag, metadata, spacing):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", **metadata}
    options: Any = {"resolution": (per_unit, per_unit), "resolutionunit": tag}
    options |= {"photometric": "minisblack", "metadata": metadata}
    tifffile.imwrite(path, VOLUME, imagej=imagej, **options)
    with open_source(path) as source:
        assert source.spacing == spacing
        if spacing is None:
            assert "no z" in source.spacing_found or 'spacing="6.0"' in source.spacing_found
        else:
            assert source.spacing_source == ("ImageJ metadata" if imagej else "tifffile's JSON")


@pytest.mark.parametrize(
    ("tag", "per_unit", "edge"),
    [
        ("MILLIMETER", 1e3 / 0.65, 0.65),
        ("MICROMETER", 1 / 0.65, 0.65),
        ("MICROMETER", 1 / 50, 50.0),
        ("CENTIMETER", 1e4 / 0.65, 0.65),
        ("INCH", 25400 / 0.65, 0.65),
        ("INCH", 300, None),  # a printer's
        ("CENTIMETER", 118, None),
        ("NONE", 1 / 0.65, None),
    ],
)
def test_resolution_tags_of_every_unit(tmp_path, tag, per_unit, edge):
    path = tmp_path / "a.tif"
    resolution: Any = {"resolution": (per_unit, per_unit), "resolutionunit": tag}
    tifffile.imwrite(path, VOLUME[0], metadata=None, **resolution)
    with open_source(path) as source:
        assert source.spacing == (None if edge is None else (edge, edge))


@TYPED
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=100),
    st.text("1.,-e", max_size=6),
)
def test_no_size_makes_a_file_unreadable(tmp_path, unit, size):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "unit": unit, "spacing": size, "PhysicalSizeX": size}
    tifffile.imwrite(path, VOLUME, metadata=metadata, photometric="minisblack", resolution=(1, 1))
    with open_source(path) as source:
        assert source.spacing is None or min(source.spacing) > 0
        assert len(source.spacing_found.splitlines()) <= 1
    with open_source(path, Selection(spacing=(3, 2, 1))) as source:
        assert source.spacing == (3, 2, 1)
