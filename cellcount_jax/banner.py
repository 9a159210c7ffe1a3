"""What was read, in words, before anything is counted in it."""

from __future__ import annotations

from collections.abc import Sequence

from cellcount_jax.data.sources import Source
from cellcount_jax.inference import TrainedModel

# Voxel sizes that differ by less than this are one.
_ALIKE = 0.1


def describe(source: Source) -> str:
    """What was read, in a line."""
    voxels = "unknown voxel size"
    if source.spacing is not None:
        voxels = f"voxels of {_by(source.spacing)} um ({source.spacing_source})"
    channels = f", {source.channels} channels" if source.channels > 1 else ""
    return (
        f"{source.path}: {source.kind}, {source.axes} of {_by(source.stored_shape)}"
        f" {source.dtype}{channels}, {voxels}"
    )


def warning(model: TrainedModel, source: Source, *, rescale: bool) -> str | None:
    """Where cells may look larger or smaller to the model than those that it knows; or None."""
    if not model.spacing_known:
        return None
    known = _by(model.spacing)
    if source.spacing is None:
        return (
            f"warning: {source.path}: the file does not tell the voxel size; it is taken to be that"
            f" of the training images, {known} um. If it is another, give it with --spacing, and"
            " --rescale"
        )
    ratios = [a / b for a, b in zip(source.spacing, model.spacing, strict=False)]
    if rescale or all(abs(r - 1) < _ALIKE for r in ratios):
        return None
    return (
        f"warning: {source.path}: voxels of {_by(source.spacing)} um, but the model was trained on"
        f" {known} um; cells look larger or smaller to it than they are. --rescale resamples the"
        " image"
    )


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
