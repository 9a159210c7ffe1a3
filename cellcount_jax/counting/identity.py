"""What the result of a count depends on: image, mask, model and settings."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from cellcount_jax.counting import region_counts
from cellcount_jax.errors import InputError
from cellcount_jax.images.modified import modified
from cellcount_jax.images.selection import Selection
from cellcount_jax.images.sources import Source
from cellcount_jax.inference.fitted import Fitted
from cellcount_jax.inference.job import Job
from cellcount_jax.inference.survey import Mask


def identity_of(
    job: Job,
    source: Source,
    fitted: Fitted,
    *,
    selection: Selection,
    rescale: bool,
    model_digest: str,
) -> dict[str, Any]:
    """All that the result of a count depends on but the threshold, for `claim`.

    Args:
      job: with the model's settings and the mask.
      source: the image.
      fitted: the image as the model takes it.
      selection: the part of the file that is counted.
      rescale: whether it is resampled to the voxels of the model.
      model_digest: of the model.

    Returns:
      It as JSON. The files of image and mask are known by their names, sizes and times.
    """
    predict = job.model.config.predict
    return {
        "input": str(source.path.resolve()),
        "shape": list(source.stored_shape),
        "dtype": str(source.dtype),
        **selection.part,
        "axes_given": selection.axes,
        "spacing_um": None if source.spacing is None else list(source.spacing),
        "rescale": rescale,
        "diameter": fitted.diameter,
        "inverted_from": fitted.inverted_from,
        "model": model_digest,
        "max_voxels": predict.max_voxels,
        "computed_at_a_time": None if job.plan.whole else list(job.plan.window_shape),
        "mirror_images": bool(predict.flips),
        "every_tile": bool(predict.every_tile) or job.plan.whole,
        "version": versions()["cellcount_jax"],
        **_files(source, job.mask),
    }


def key_of(identity: Mapping[str, Any]) -> str:
    """A short name for an identity."""
    text = json.dumps(identity, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """Of the packages that a count depends on, looked up once: it reads many files."""
    packages = ("cellcount_jax", "jax", "numpy")
    return {package: importlib.metadata.version(package) for package in packages}


def check_unchanged(source: Source, mask: Mask | None, identity: Mapping[str, Any]) -> None:
    """Makes sure that image and mask are still those with which a count began.

    Args:
      source: the image.
      mask: where cells are counted.
      identity: of the count, when it began.

    Raises:
      InputError: a file was written to.
    """
    if any(identity[name] != state for name, state in _files(source, mask).items()):
        raise InputError(
            f"{source.path}: it or its mask was written to while it was counted; when that has"
            " ended, count it again, with --overwrite"
        )


def _files(source: Source, mask: Mask | None) -> dict[str, Any]:
    """The state of the files that are read."""
    labels = mask.labels if isinstance(mask, region_counts.Mask) else None
    of_mask = labels and [str(labels.path.resolve()), modified(labels.path, labels.files)]
    return {"modified": modified(source.path, source.files), "mask": of_mask}
