"""What a model sees in an array, of which any threshold chooses the cells at once."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellcount_jax import cache
from cellcount_jax.images.cell_table import Cells
from cellcount_jax.images.regions import Resampled
from cellcount_jax.inference import cells, doubts
from cellcount_jax.inference.arrays import ArrayMask, check_sizes, image_of
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.doubts import Doubt
from cellcount_jax.inference.fitted import Fitted, fit
from cellcount_jax.inference.job import Job, Model, Progress, cell_diameter, silent
from cellcount_jax.inference.search import Search, search
from cellcount_jax.inference.threshold import checked_threshold


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What a model sees in an array. A context manager: what is kept on the disk is removed.

    Attributes:
      model: the model.
      fitted: the array as the model takes it.
      job: on `fitted`.
      searched: its result, of which a threshold chooses.
      folder: of what is kept of an image in tiles.
    """

    model: Model
    fitted: Fitted
    job: Job
    searched: Search
    folder: tempfile.TemporaryDirectory[str]

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes what is kept on the disk; nothing can be chosen any more."""
        self.folder.cleanup()

    @property
    def own_threshold(self) -> float:
        """The model's own threshold, as `found` takes it."""
        model = self.model
        own = model.threshold_from(None)
        return own if model.config.detect.rule == "fidt" else own / model.target_peak

    @property
    def width(self) -> float:
        """The diameter of a cell, about, in voxels of the array along its last axis."""
        image = self.fitted.image
        zoom = 1.0
        if isinstance(image, Resampled):
            zoom = image.original.shape[-1] / image.shape[-1]
        return zoom * cell_diameter(self.model) / self.model.spacing[-1]

    def found(self, threshold: float | None) -> Found:
        """The cells by a threshold on the map, 0.05 to 1, or the model's own; in its voxels.

        Raises:
          InputError: see `checked_threshold`.
        """
        fraction = None if threshold is None else checked_threshold(threshold)
        least = self.model.threshold_from(fraction)
        return cells.choose(self.job, self.searched, threshold=least)

    def cells(self, found: Found) -> Cells:
        """Cells in voxels of the array."""
        return Cells(self.fitted.back(found.points), found.scores)

    def doubts(self, found: Found) -> tuple[Doubt, ...]:
        """Why a count should not be trusted, see `doubts.find`."""
        return doubts.find(self.model, self.job.image, found, mask=self.job.mask)


def look(
    model: Model,
    array: Any,
    *,
    spacing: Sequence[float] | None = None,
    diameter: float | None = None,
    channel: int | None = None,
    mask: Any = None,
    invert: bool | None = None,
    progress: Progress = silent,
) -> Seen:
    """Computes what a model sees in an array.

    Args:
      model: the model.
      array: see `TrainedModel.predict`, also for the options.
      spacing: `(D,)` micrometres.
      diameter: pixels.
      channel: its number.
      mask: `(*spatial,)`.
      invert: whether cells are dark on bright.
      progress: shows how far the reading and the tasks of an image in tiles are.

    Raises:
      InputError: see `TrainedModel.predict`.
    """
    cache.keep_programs()
    check_sizes(model.config.data.ndim, spacing=spacing, diameter=diameter)
    image = image_of(array, model, channel=channel)
    inside = None if mask is None else ArrayMask.of(mask, shape=image.shape)
    fitted = fit(model, image, spacing=spacing, diameter=diameter, invert=invert)
    folder = tempfile.TemporaryDirectory(prefix="cellcount_")
    try:
        # Any threshold is to choose, also one far below the model's own.
        every = model.with_settings({"predict.every_tile": True})
        job = Job(every, fitted.image, Path(folder.name), inside)
        return Seen(model, fitted, job, search(job, progress=progress), folder)
    except BaseException:
        folder.cleanup()
        raise
