"""The order of slices by their names: what is understood, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_jax.errors import InputError
from cellcount_jax.images.inputs import find_inputs
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.slice_names import in_order
from cellcount_jax.images.sources import open_source

N = 24
PLAIN = [f"z{i:03}.tif" for i in range(N)]


def shuffled(names: list[str]) -> list[Path]:
    return [Path("brain", name) for name in random.Random(0).sample(names, len(names))]


# Names in their true order.
ONE_SERIES = {
    "padded": PLAIN,
    "not padded": [f"s{i}.tif" for i in range(1, N)],
    "every tenth": [f"brain_{i:05}.tiff" for i in range(0, 10 * N, 10)],
    "a dash that is no sign": [f"brain-{i:03}.tif" for i in range(N)],
    "um around 0": [f"z_{6 * (i - 12)}um.tif" for i in range(N)],
    "um around 0 after a letter": [f"z{6 * (i - 12)}.tif" for i in range(N)],
    "with a plus": [f"z_{6 * (i - 12):+04}um.tif" for i in range(N)],
    "um below 0": [f"z_{6 * (i - N)}um.tif" for i in range(N)],
    "a minus sign of typography": [f"z_{6 * (i - N)}.tif".replace("-", "−") for i in range(N)],
    "decimals as short as can be": [f"z_{0.75 * i:g}.tif" for i in range(N)],
    "decimals of one length": [f"z_{0.75 * i:.2f}.tif" for i in range(N)],
    "decimal commas": [f"z_{0.75 * i:g}".replace(".", ",") + ".tif" for i in range(N)],
    "rounded thirds": [f"z_{i / 3:.2f}.tif" for i in range(N)],
    "a point that is no decimal": [f"brain1.{i}.tif" for i in range(1, N)],
    "a date before": [f"2024.01.15 10-43 z{i}.ome.tif" for i in range(N)],
    "a digit before": [f"brain2_C00_Z{i:04}.tif" for i in range(N)],
    "index and position": [f"{i:03}_{1.5 * i - 20:.1f}um.tif" for i in range(N)],
    "index and time of day": [f"{i:03}_{100000 + i * i}.tif" for i in range(N)],
    "another case": [f"{'Zz'[i % 2]}{i:02}.tif" for i in range(N)],
}


@pytest.mark.parametrize("title", ONE_SERIES)
def test_one_series_in_the_order_of_its_numbers(title: str) -> None:
    names = ONE_SERIES[title]
    planes, channels = in_order(shuffled(names))
    assert [path.name for (path,) in planes] == names
    assert channels == ()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("10-43_UltraII_C{c:02}_xyz-Table Z{z:04}.tif", ("C00", "C01")),
        ("z{z:03}_ch{c}.tif", ("ch0", "ch1")),
        ("Experiment_z{z}c{c}_ORG.tif", ("c0", "c1")),
        ("a_w{c}_z{z}.tif", ("w0", "w1")),
        ("img_channel00{c}_position000_time000000000_z{z:03}.tif", ("channel000", "channel001")),
    ],
)
def test_channels(pattern: str, names: tuple[str, ...]) -> None:
    rows = [[pattern.format(c=c, z=z) for c in (0, 1)] for z in range(N)]
    planes, channels = in_order(shuffled([name for row in rows for name in row]))
    assert [[path.name for path in plane] for plane in planes] == rows
    assert channels == names


REFUSED = {
    "a gap": (PLAIN[:8] + PLAIN[12:], "8 to 11 missing between z007.tif and z012.tif"),
    "one is missing": (PLAIN[:8] + PLAIN[9:], "8 missing between z007.tif and z009.tif"),
    "a gap around 0": ([f"z{6 * i}.tif" for i in range(-9, 9) if i], "0 missing between z-6.tif"),
    "a gap in decimals": (
        [f"z_{i / 3:.2f}.tif" for i in range(N) if i != 9],
        "3 missing between z_2.67.tif and z_3.33.tif",
    ),
    "rounded to the step itself": ([f"z_{0.15 * i:.1f}.tif" for i in range(N)], "0.2 missing"),
    "other steps": ([f"z{i}.tif" for i in (0, 4, 8, 12, 14)], "2 from z12.tif to z14.tif, but 4"),
    "a projection": ([*PLAIN, "MAX_brain.tif"], "MAX_brain.tif: is not named like the other 24"),
    "a thumbnail": ([*PLAIN, "thumb.tif", "z.tif"], r"others are (thumb|z)\.tif"),
    "labels": ([*PLAIN, "z003_labels.tif"], "z003_labels.tif: is not named like"),
    "two of a number": ([*PLAIN, "z3.tif"], "z3.tif have the same number|z003.tif have the same"),
    "times": ([f"t{t}_z{z}.tif" for t in range(3) for z in range(N)], r"t0 to t2 \(3\), z0 to z23"),
    "sections of planes": (
        [f"section_{s:03}_{z:02}.tif" for s in range(9) for z in range(2)],
        "2 numbers vary",
    ),
    "times and channels": (
        [f"t{t}_z{z}_c{c}.tif" for t in range(3) for z in range(N) for c in range(2)],
        "3 numbers vary",
    ),
    "channels by words": (
        [f"brain_{dye}_{z}.tif" for dye in ("DAPI", "GFP") for z in range(N)],
        "several kinds of names",
    ),
    "a channel without a slice": (
        [f"z{z}_c{c}.tif" for z in range(N) for c in range(2) if (z, c) != (7, 1)],
        "channel c1 has no slice beside z7_c0.tif",
    ),
    "a counter over channels": (
        [f"img{i:03}_ch{i % 2}.tif" for i in range(N)],
        "channel ch1 has no slice beside img000_ch0.tif",
    ),
    "two orders": ([f"{i:03}_{7 * i % 10:02}.tif" for i in range(10)], "in different orders"),
    "no numbers": (["a.tif", "b.tif", "c.tif"], "have no number"),
    "nothing alike": (["a1.tif", "b2.tif", "c3.tif"], "not named alike"),
    "case alone": (["Z.tif", "z.tif"], "have no number"),
}


@pytest.mark.parametrize("title", REFUSED)
def test_what_is_no_series_is_refused_with_the_reason(title: str) -> None:
    names, words = REFUSED[title]
    with pytest.raises(InputError, match=words) as error:
        in_order(shuffled(names))
    assert str(error.value).startswith("brain")


# --- folders


def write(folder: Path, planes: dict[str, np.ndarray]) -> None:
    folder.mkdir(exist_ok=True)
    for name, plane in planes.items():
        tifffile.imwrite(folder / name, plane, photometric="minisblack")


def test_channels_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 999, (12, 2, 5, 7)).astype(np.uint16)
    folder = tmp_path / "brain"
    write(
        folder,
        {f"a_C{c:02}_Z{z}.tif": volume[z, c] for z in range(12) for c in range(2)},
    )
    whole = (slice(0, 12), slice(0, 5), slice(0, 7))
    with open_source(folder, as_slices=True) as source:
        assert (source.axes, source.channel_names) == ("ZCYX", ("C00", "C01"))
        assert len(source.files) == 24
        np.testing.assert_array_equal(source.read(whole), np.moveaxis(volume, 1, -1))
    for channel in (1, "1", "C01"):
        with open_source(folder, Selection(channel=channel), as_slices=True) as source:
            part = (slice(3, 9), slice(1, 4), slice(2, 3))
            np.testing.assert_array_equal(source.read(part)[..., 0], volume[3:9, 1, 1:4, 2:3])
    with pytest.raises(InputError, match=r"it has 2 channel\(s\): 0 \(C00\), 1 \(C01\)"):
        open_source(folder, Selection(channel=2), as_slices=True)


def test_channels_in_names_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "brain"
    folder.mkdir()
    for name in ("z0_c0", "z0_c1", "z1_c0", "z1_c1"):
        rgb = np.zeros((5, 7, 3), np.uint8)
        tifffile.imwrite(folder / f"{name}.tif", rgb, photometric="rgb")
    with pytest.raises(InputError, match=r"in their files .* and in their names \(c0, c1\)"):
        open_source(folder, as_slices=True)


def test_what_systems_leave_in_a_folder_is_no_slice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = np.arange(4 * 35, dtype=np.uint8).reshape(4, 5, 7)
    write(tmp_path, {f"z{z}.tif": plane for z, plane in enumerate(volume)})
    for name in ("Thumbs.db", ".DS_Store", "._z0.tif", "desktop.ini", "settings.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "old.tif").symlink_to("nowhere.tif")
    (tmp_path / "round.tif").symlink_to("round.tif")
    (tmp_path / ".#z0.tif").symlink_to("user@machine.1")
    (item,) = find_inputs([tmp_path], ndim=3)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"{tmp_path / name}: is a link that leads nowhere, skipped."
        for name in ("old.tif", "round.tif")
    ]
    with open_source(item.path, as_slices=item.as_slices) as source:
        assert source.kind == "folder of 4 TIFF slices (z0.tif to z3.tif)"
        whole = (slice(0, 4), slice(0, 5), slice(0, 7))
        np.testing.assert_array_equal(source.read(whole)[..., 0], volume)
