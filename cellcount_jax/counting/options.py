"""The settings of a count, beside its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cellcount_jax.counting import results
from cellcount_jax.errors import InputError
from cellcount_jax.images.selection import Selection
from cellcount_jax.inference.fitted import check_sizes
from cellcount_jax.inference.threshold import checked_threshold
from cellcount_jax.inference.trained_model import TrainedModel


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of a count, beside its model.

    Attributes:
      threshold: on the map, in (0, 1); None = the model's.
      rescale: resample an image to the voxels that the model was trained on.
      diameter: of the cells in pixels, to resample a 2D image to that of the model's; None = a
        model that can measures it.
      invert: whether cells are dark on bright; None = no, and an error if it seems so.
      selection: the part of each file that is counted, and its voxel size.
      mask: file of the tissue, of the image's extent: where it is 0, nothing is counted.
      outputs: further files, beside points.csv, report.html and summary.json.
      dry_run: only describe the images and the work on them.
      overwrite: delete the results of another count where they are in the way.
    """

    threshold: float | None = None
    rescale: bool = False
    diameter: float | None = None
    invert: bool | None = None
    selection: Selection = Selection()
    mask: Path | None = None
    outputs: results.Outputs = results.Outputs()
    dry_run: bool = False
    overwrite: bool = False

    @property
    def beside(self) -> tuple[Path, ...]:
        """The files that are read beside the inputs."""
        return tuple(filter(None, (self.mask, *self.outputs.read)))


def check_options(model: TrainedModel, options: Options) -> None:
    """Makes sure that settings fit a model, each other and the files that they name.

    Raises:
      InputError: they do not.
    """
    if options.threshold is not None:
        checked_threshold(options.threshold, name="--threshold")
    check_sizes(model, rescale=options.rescale, diameter=options.diameter)
    results.check_outputs(options.outputs)
    for path in options.beside:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
