"""Cells in memory: where they are, how sure a model is of each, and a table of them for pandas."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cellcount_jax.errors import InputError, how_to_install
from cellcount_jax.images.exports import column_names


class Cells(NamedTuple):
    """The cells of an image; `points, scores = cells` as of any tuple.

    Attributes:
      points: `(N, D)` float32 in voxels of the image, y, x or z, y, x.
      scores: `(N,)` float32, the map's largest value of each.

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import Cells
      >>> cells = Cells(np.array([[3.0, 5.0], [9.0, 1.0]], np.float32), np.array([0.9, 0.4]))
      >>> points, scores = cells
      >>> points[scores > 0.5].tolist()
      [[3.0, 5.0]]
    """

    points: np.ndarray
    scores: np.ndarray

    def to_pandas(self, *, spacing: Sequence[float] | None = None) -> Any:
        """The table of points.csv as a `pandas.DataFrame`.

        Args:
          spacing: `(D,)` voxel edges in micrometres, for the places in micrometres too.

        Returns:
          A row a cell: id from 1, place in voxels (and micrometres), score.

        Raises:
          InputError: pandas is not installed, or the spacing is of another number of axes.

        Examples:
          >>> import numpy as np
          >>> from cellcount_jax import Cells
          >>> cells = Cells(np.array([[3.0, 5.0]], np.float32), np.array([0.9], np.float32))
          >>> list(cells.to_pandas(spacing=(0.5, 0.5)))
          ['id', 'y', 'x', 'y_um', 'x_um', 'score']
        """
        ndim = self.points.shape[1]
        if spacing is not None and len(spacing) != ndim:
            raise InputError(f"spacing {tuple(spacing)}: {ndim} voxel edges are needed")
        places = [self.points] if spacing is None else [self.points, self.points * [*spacing]]
        numbers = np.arange(1, len(self.points) + 1)
        columns = [numbers, *np.concatenate(places, axis=1).T, self.scores]
        return data_frame(dict(zip(column_names(ndim, spacing), columns, strict=True)))


def data_frame(columns: Mapping[str, Any]) -> Any:
    """A `pandas.DataFrame` of columns by name.

    Raises:
      InputError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise InputError(
            f"the table needs pandas, which is not installed: {how_to_install('pandas')}"
        ) from error
    return pandas.DataFrame(columns)
