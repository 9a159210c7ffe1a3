"""A trained model, and the cells that it finds in images and arrays."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

import cellcount_jax
from cellcount_jax.errors import InputError
from cellcount_jax.images.cell_table import Cells
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Readable, size_text
from cellcount_jax.inference import cells, seen, tiled_maps
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.doubts import DoubtfulCountWarning
from cellcount_jax.inference.fitted import Fitted, fit
from cellcount_jax.inference.job import Job, Maps, Progress, silent
from cellcount_jax.inference.threshold import LOWEST_THRESHOLD, checked_threshold
from cellcount_jax.maps import detect, targets
from cellcount_jax.maps.split_merged import split_merged


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """A trained network with all that prediction needs.

    Attributes:
      config: of the run that trained it; not to be changed, see `with_settings`.
      step: the training step of the variables.
      variables: `params` and `batch_stats` of the network.
      normalisation: of intensities.
      channels: of the images.
      spacing: `(D,)` voxel size of the training images, in micrometres if `spacing_known`.
      spacing_known: whether their voxel size was known.
      thresholds: detection rule -> threshold, calibrated on the training images; empty
        before calibration.
      count_factor: multiplies the integral of the density, so that the counts of the training
        images add up.
      reference: what the images looked like on which the thresholds were calibrated, see
        `doubts.py`; empty = not measured.
      name: what it was loaded by, for results; '' = nothing.

    Examples:
      >>> from cellcount_jax import load_model
      >>> model = load_model("microglia3d").with_settings({"predict.flips": False})
      >>> bool(model.config.predict.flips)  # an eighth of the work
      False
    """

    config: ml_collections.ConfigDict
    step: int
    variables: Any
    normalisation: Normalisation
    channels: int
    spacing: tuple[float, ...]
    spacing_known: bool
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    count_factor: float = 1.0
    reference: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    name: str = ""

    def __repr__(self) -> str:
        of = "pixels" if self.config.data.ndim == 2 else "voxels"
        parts = [f"{self.config.data.ndim}D, {self.channels} channel{'s'[: self.channels > 1]}"]
        if known := self.config.data.diameter:
            parts.append(f"cells of {known:g} {of}")
        if self.spacing_known:
            parts.append(f"{of} of {size_text(self.spacing)} um")
        if value := self.thresholds.get(self.config.detect.rule):
            parts.append(f"threshold {value:.3g}")
        name = f"{self.name!r}: " if self.name else ""
        return f"<TrainedModel {name}{', '.join(parts)}, step {self.step}>"

    def with_settings(self, settings: Mapping[str, Any]) -> TrainedModel:
        """The model with other settings, such as `{"predict.flips": False}`."""
        config = self.config.copy_and_resolve_references()
        config.update_from_flattened_dict(settings)
        return dataclasses.replace(self, config=config)

    @property
    def usual_diameter(self) -> float | None:
        """Of a cell in images like those of the training, pixels, if these were resampled by it."""
        found: float = self.config.data.from_diameter
        return found if found > 0 else None

    @property
    def has_density(self) -> bool:
        """Whether the last map is the density of cells."""
        return bool(self.config.target.count_head or self.config.target.kernel == "gaussian")

    @property
    def splits(self) -> bool:
        """Whether cells on each other are split, see `split_merged`."""
        return bool(self.config.target.count_head and self.config.detect.split_from)

    @property
    def split_reach(self) -> float:
        """The distance from a point within which density belongs to it, in units of the spacing."""
        reach: float = 3 * self.config.target.count_sigma
        return reach * (self.config.target.unit or min(self.spacing))

    @property
    def target_peak(self) -> float:
        """The training target's value at a lone dot, to which thresholds are relative."""
        return targets.peak_value(self.config, targets.target_geometry(self.config, self.spacing))

    @property
    def floor(self) -> float:
        """The map's value up to which peaks are no candidates: at most the model's threshold."""
        rule = self.config.detect.rule
        calibrated = self.thresholds[rule]
        if rule == "fidt":
            calibrated *= detect.FAINT * self.target_peak
        return min(LOWEST_THRESHOLD * self.target_peak, calibrated)

    def threshold_from(self, fraction: float | None) -> float:
        """The threshold of the model's rule from one in 0..1; for None the calibrated one."""
        rule = self.config.detect.rule
        if fraction is None:
            return self.thresholds[rule]
        # FIDT's is a fraction of the highest peak already.
        return fraction if rule == "fidt" else fraction * self.target_peak

    def check_fits(self, ndim: int, channels: int) -> None:
        """Makes sure that the model can take an image.

        Raises:
          InputError: it was trained on others.
        """
        if (ndim, channels) != (self.config.data.ndim, self.channels):
            raise InputError(
                f"the image is {ndim}D with {channels} channels, the model was trained"
                f" on {self.config.data.ndim}D images with {self.channels}"
            )

    def fitted(
        self,
        image: Readable,
        *,
        spacing: Sequence[float] | None = None,
        diameter: float | None = None,
        invert: bool | None = None,
    ) -> Fitted:
        """`fitted.fit` for this model: an image with cells as large, and as bright, as it knows."""
        return fit(self, image, spacing=spacing, diameter=diameter, invert=invert)

    def predict_maps(
        self,
        image: np.ndarray,
        *,
        original: np.ndarray | None = None,
        update: Callable[[int], object] = lambda voxels: None,
    ) -> Maps:
        """The network's maps of an image in memory, in tiles if the image is large.

        With `config.predict.flips` they are the mean over the image mirrored along every set of
        axes.

        Args:
          image: `(*spatial, channels)` raw intensities.
          original: the same before it was resampled, if it was, by which it is normalised.
          update: see `tiled_maps.compute`.

        Raises:
          InputError: the image does not fit the model, or is too large for a model whose result
            would depend on the tiles.
        """
        self.check_fits(image.ndim - 1, image.shape[-1])
        values = self.normalisation(image, original=original)
        found = tiled_maps.compute(self.config, self.variables, values, update=update)
        return Maps(found[..., 0], found[..., -1] if self.has_density else None)

    def split_merged(
        self,
        points: np.ndarray,
        scores: np.ndarray,
        density: np.ndarray | None,
        *,
        own: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`split_merged.split_merged` with the model's settings; all stay if it splits none."""
        if not self.splits or density is None:
            return points, scores
        return split_merged(
            points,
            scores,
            self.count_factor * density,
            least=self.config.detect.split_from,
            reach=self.split_reach,
            spacing=self.spacing,
            own=own,
        )

    def integral(
        self, density: np.ndarray | None, *, region: np.ndarray | None = None
    ) -> float | None:
        """The number of cells by the integral of the density.

        Args:
          density: of `Maps`.
          region: `(*spatial,)` bool, the voxels to integrate over; default all.

        Returns:
          The number, not rounded; None without a density.
        """
        if density is None:
            return None
        counted = density if region is None else density[region]
        return self.count_factor * float(counted.sum(dtype=np.float64))

    def find(
        self,
        image: Readable,
        *,
        threshold: float | None = None,
        progress: Progress = silent,
    ) -> Found:
        """`cells.find` with a temporary folder: the cells of an image of any size."""
        with tempfile.TemporaryDirectory(prefix="cellcount_") as folder:
            job = Job(self, image, Path(folder))
            return cells.find(job, threshold=threshold, progress=progress)

    def predict(
        self,
        array: Any,
        *,
        spacing: Sequence[float] | None = None,
        diameter: float | None = None,
        threshold: float | None = None,
        channel: int | None = None,
        mask: Any = None,
        invert: bool | None = None,
        thorough: bool | None = None,
    ) -> Cells:
        """Cell locations in an array, as `cellcount count` finds them in a file.

        Args:
          array: NumPy, Zarr, dask or another array that NumPy can read, `(*spatial,)` or
            `(*spatial, channels)`, raw intensities.
          spacing: `(D,)` its voxel size in micrometres; if it differs from the model's, the array
            is resampled, as with `--spacing` and `--rescale`. None: the voxels are like those of
            the training images.
          diameter: of the cells in a 2D array, in pixels; it is resampled to that of the model. A
            model with `predict.estimate_diameter` measures it, if it is not given.
          threshold: on the map, 0.05 to 1; None = the model's own.
          channel: number of the one that is used, from 0; None = all.
          mask: array `(*spatial,)` of the same shape: cells are counted where it is not 0.
          invert: whether cells are dark on bright.
          thorough: whether to take the mean over mirror images, 4 times the work for images and 8
            for volumes; None = as the model says.

        Returns:
          Points `(N, D)` float32 in voxels of the array, and their scores `(N,)`, the map's
          largest value of each; a tuple of both.

        Raises:
          InputError: an option that does not fit, see also `arrays.image_of`, `fitted.fit` and
            `predict_maps`.

        Warns:
          DoubtfulCountWarning: the count should not be trusted; why, and what to do.

        Examples:
          >>> import numpy as np
          >>> from cellcount_jax import load_model
          >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
          >>> image = 100 * np.tile(blob, (4, 4))
          >>> points, scores = load_model("nuclei2d").predict(image)
          >>> points.shape, scores.shape
          ((16, 2), (16,))
        """
        model = self if thorough is None else self.with_settings({"predict.flips": thorough})
        if threshold is not None:
            checked_threshold(threshold)
        given = {"spacing": spacing, "diameter": diameter, "channel": channel, "mask": mask}
        with seen.look(model, array, **given, invert=invert) as looked:
            found = looked.found(threshold)
            if reasons := looked.doubts(found):
                text = "; ".join(doubt.text for doubt in reasons)
                warnings.warn(f"doubtful count: {text}", DoubtfulCountWarning, stacklevel=2)
            return looked.cells(found)

    def count(
        self,
        inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        output: str | os.PathLike[str],
        **options: Any,
    ) -> cellcount_jax.Counts:
        """Counts the cells in files, as `cellcount count` does; see `cellcount_jax.count_files`.

        Args:
          inputs: a file or folder, or several.
          output: folder for the results, and counts.csv.
          options: of `cellcount_jax.count_files`, such as `threshold`, `diameter` or `mask`, by the
            names that the command has for them.

        Returns:
          A `Counted` a file: its count, points, scores, doubts and folder.

        Examples:
          >>> import numpy as np
          >>> from cellcount_jax import load_model
          >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
          >>> image = 100 * np.tile(blob, (4, 4))
          >>> np.save("nuclei.npy", image)
          >>> counts = load_model("nuclei2d").count("nuclei.npy", output="mine/")
          >>> counts.total, counts[0].points.shape
          (16, (16, 2))
        """
        # Of a room above this one, which has the command: by its public name.
        return cellcount_jax.count_files(self, inputs, output=output, **options)
