"""What Python gets of counted files: an object an image, and one of them all."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cellcount_jax.images.cell_table import Cells, data_frame
from cellcount_jax.images.points import read_table


@dataclasses.dataclass(frozen=True)
class Counted:
    """The count of one image: a row of counts.csv, and what is in its folder of results.

    Attributes:
      input: the file, or its address.
      scene: number or name of the image in a file of several; None of the only one.
      count: number of cells; None if it was not counted.
      integral: number of cells by the integral of the density; None for a model without one.
      voxels: of the image; None if it was not counted.
      doubts: why the count should not be trusted, a word each; the texts are in `summary`.
      folder: with points.csv, report.html and summary.json.
      error: why it was not counted; '' if it was.

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import count_files, load_model
      >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
      >>> np.save("nuclei.npy", 100 * np.tile(blob, (4, 4)))
      >>> counted = count_files(load_model("nuclei2d"), "nuclei.npy", output="one/")[0]
      >>> counted.count, counted.doubts, counted.points.shape, counted.summary["shape"]
      (16, (), (16, 2), [128, 128])
    """

    input: str
    scene: str | None
    count: int | None
    integral: float | None
    voxels: int | None
    doubts: tuple[str, ...]
    folder: Path
    error: str

    @functools.cached_property
    def summary(self) -> Mapping[str, Any]:
        """The content of summary.json: all that is needed to repeat the count."""
        summary: Mapping[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return summary

    @functools.cached_property
    def cells(self) -> Cells:
        """The content of points.csv, read when it is first asked for."""
        ndim = len(self.summary["shape"])
        points, others = read_table(self.folder / "points.csv", ndim=ndim, others=("score",))
        return Cells(points.astype(np.float32), np.array(others["score"], np.float32))

    @property
    def points(self) -> np.ndarray:
        """`(N, D)` float32 in voxels of the image."""
        return self.cells.points

    @property
    def scores(self) -> np.ndarray:
        """`(N,)` float32, the map's largest value of each."""
        return self.cells.scores

    def to_pandas(self) -> Any:
        """The content of points.csv as a `pandas.DataFrame`.

        Raises:
          InputError: pandas is not installed.
        """
        return self.cells.to_pandas(spacing=self.summary["spacing_um"])


@dataclasses.dataclass(frozen=True)
class Counts:
    """The counts of some images, in their order.

    Attributes:
      images: one each, also of those that could not be counted.
      output: folder of their folders, and of counts.csv.

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import count_files, load_model
      >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
      >>> np.save("nuclei.npy", 100 * np.tile(blob, (4, 4)))
      >>> counts = count_files(load_model("nuclei2d"), "nuclei.npy", output="all/")
      >>> len(counts), counts.total, len(counts.failed), [image.count for image in counts]
      (1, 16, 0, [16])
    """

    images: tuple[Counted, ...]
    output: Path

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Counted]:
        return iter(self.images)

    def __getitem__(self, place: int) -> Counted:
        return self.images[place]

    @property
    def total(self) -> int:
        """The number of cells in all images that were counted."""
        return sum(image.count or 0 for image in self.images)

    @property
    def failed(self) -> tuple[Counted, ...]:
        """The images that could not be counted."""
        return tuple(image for image in self.images if image.error)

    def to_pandas(self) -> Any:
        """The table of counts as a `pandas.DataFrame`, a row an image.

        Raises:
          InputError: pandas is not installed.
        """
        names = [field.name for field in dataclasses.fields(Counted)]
        columns = {name: [getattr(image, name) for image in self.images] for name in names}
        columns["doubts"] = ["; ".join(image.doubts) for image in self.images]
        columns["folder"] = [str(image.folder) for image in self.images]
        return data_frame(columns)
