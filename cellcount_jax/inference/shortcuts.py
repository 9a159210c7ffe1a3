"""Cells and counts of arrays by a function; all options are those of `TrainedModel.predict`."""

from __future__ import annotations

from typing import Any

from cellcount_jax.images.cell_table import Cells
from cellcount_jax.inference.trained_model import TrainedModel


def predict(model: TrainedModel, image: Any) -> Cells:
    """Cell locations in an image and their scores, see `TrainedModel.predict`.

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import load_model, predict
      >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
      >>> image = 100 * np.tile(blob, (4, 4))
      >>> predict(load_model("nuclei2d"), image).points.shape
      (16, 2)
    """
    return model.predict(image)


def count(model: TrainedModel, image: Any) -> int:
    """The number of cells in an image, see `TrainedModel.predict`.

    Examples:
      >>> import numpy as np
      >>> from cellcount_jax import count, load_model
      >>> blob = np.exp(-((np.indices((32, 32)) - 16) ** 2).sum(axis=0) / 32)
      >>> image = 100 * np.tile(blob, (4, 4))
      >>> count(load_model("nuclei2d"), image)
      16
    """
    return len(model.predict(image)[0])
