"""Named changes of a config: volumes, the rows of the paper's Table 1, its full training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ml_collections

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError


def use_variant(
    config: ml_collections.ConfigDict, variant: str, known: Mapping[str, Callable[..., None]]
) -> None:
    """Applies what stands behind the colon of --config=FILE:VARIANT, and names the run after it.

    Args:
      config: changed in place.
      variant: '' for none.
      known: variant -> function that changes a config.

    Raises:
      InputError: the variant is unknown.
    """
    if not variant:
        return
    if variant not in known:
        allowed = f"there are {', '.join(sorted(known))}, or none" if known else "it has none"
        raise InputError(f"--config={config.name}.py:{variant}: no such variant; {allowed}")
    known[variant](config)
    config.name = f"{config.name}_{variant}"


def use_volumes(config: ml_collections.ConfigDict) -> None:
    """3D with voxels that are coarser in z, as light-sheet volumes have, on 2 cores."""
    config.data.ndim = 3
    config.data.normalisation = "contrast"
    # Where the contrast of what was not trained on is made 0.25 to 2.5 times as high, the lowest
    # F1 is 0.93 (microglia) and 0.50 (c-Fos); with a gain of 0.3 it is 0.68 and 0.21.
    config.augment.gain = 0.7
    config.augment.offset = 0.5
    config.detect.min_distance = (1, 2, 2)
    # Volumes have cells that nobody dotted, at their faces above all: a weight on the dots
    # would make the map as high there as on dotted cells.
    config.target.dot_weight = 0.0
    # F1 0.948 to 0.972 on a training volume that was not trained on (microglia 6871).
    config.predict.flips = True
    config.model.strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    config.train.crop = (32, 64, 64)
    config.train.batch_labelled = 2
    config.train.batch_unlabelled = 1
    config.train.cut_margin = 3.0
    config.train.steps = 600
    # Twice the steps of 16 features in the same time, and as good on what was not trained on.
    config.model.features = 8
    # About 3 GB of memory with these features, and less of the work is for surroundings.
    config.predict.max_voxels = 20_000_000


def use_gaussian(config: ml_collections.ConfigDict) -> None:
    """Row 'Gaussian kernel' of the paper's Table 1."""
    config.target.kernel = "gaussian"
    config.target.count_head = False
    config.consistency.weight = 0.0


def use_full_annotation(config: ml_collections.ConfigDict) -> None:
    """Row 'Full annotations' of the paper's Table 1: masks, cross-entropy, components."""
    config.target.kernel = "mask"
    config.target.count_head = False
    config.consistency.weight = 0.0
    config.detect.rule = "components"


def use_supervised(config: ml_collections.ConfigDict) -> None:
    """Row 'Inverse distance kernel' of the paper's Table 1."""
    config.consistency.weight = 0.0


def use_self_supervision(config: ml_collections.ConfigDict) -> None:
    """The last row of the paper's Table 1, the default where nothing else is better."""
    config.consistency.weight = 1.0


def use_mean_teacher(config: ml_collections.ConfigDict) -> None:
    """The mean over mirror images is learned, and prediction does without.

    The teacher's weights are a moving average, and its map is the mean over mirror images. With one
    labelled volume a pass becomes as good as that mean, with five it did not (RESULTS.md).
    """
    config.consistency.weight = 1.0
    config.consistency.teacher = "average"
    config.consistency.teacher_flips = True
    config.consistency.perturbation = "none"
    config.consistency.focal = False
    config.predict.flips = False


def use_paper_recipe(config: ml_collections.ConfigDict) -> None:
    """The paper's full training, for an accelerator: network, batch and schedule."""
    use_self_supervision(config)
    volumes = config.data.ndim == 3
    config.train.crop = (56, 200, 200) if volumes else (224, 224)
    config.train.batch_labelled = 1 if volumes else 8
    config.train.batch_unlabelled = 4 if volumes else 80
    config.model.features = 32
    # Of volumes no less than what whole attention blocks of that size need.
    config.predict.max_voxels = 22_000_000 if volumes else 8_000_000
    config.train.steps = 12_750
    config.train.scan_length = 50
    config.train.checkpoint_every = 750
    config.optim.learning_rate = 1e-3
    config.train.cut_margin = 0.0
    config.target.dot_weight = 0.0
    config.target.count_head = False
    config.consistency.ramp_up = 150 / 12_750


# What may stand behind the colon of --config=configs/vgg.py:VARIANT.
VARIANTS = {
    "paper": use_paper_recipe,
    "gaussian": use_gaussian,
    "full_annotation": use_full_annotation,
    "supervised": use_supervised,
    "focal": use_self_supervision,
    "mean_teacher": use_mean_teacher,
}


def folder_config(*, ndim: int = 2) -> ml_collections.ConfigDict:
    """The settings of configs/folder.py: for images, or for volumes where `ndim` is 3."""
    config = settings.default_config()
    config.name = "folder"
    config.data.kind = "folder"
    config.data.normalisation = "robust_log"
    # On real nuclei of many kinds the loss on images without dots takes F1, and half of the time
    # (RESULTS.md): -0.023 and -0.032 with 10 labelled images, -0.068 with 5.
    config.consistency.weight = 0.0
    if ndim == 3:
        use_volumes(config)
    return config


def use_radius(config: ml_collections.ConfigDict, radius: float, edges: Sequence[float]) -> None:
    """Settings in which a cell's size counts.

    A detection is true within a radius of a dot, or a voxel where that is longer. Two peaks are two
    cells if they are apart by more than a third of the radius along some axis: cells that touch
    overlap where the image is blurred.
    Over the cells of VGG, MBM and the two light-sheet sets this gives, to a voxel, what was chosen
    for them by hand.

    Args:
      config: changed in place.
      radius: of a cell, in the unit of `edges`.
      edges: `(D,)` of a voxel: micrometres, or ones where they are unknown.
    """
    config.evaluation.max_distance = float(max(radius, *edges))
    config.detect.min_distance = tuple(max(1, int(radius / 3 / edge)) for edge in edges)


def use_sizes(config: ml_collections.ConfigDict, shapes: Sequence[Sequence[int]]) -> None:
    """Crops that fit the smallest of the images, as far as the network's strides allow.

    Args:
      config: changed in place.
      shapes: `(D,)` of each image.
    """
    smallest = [min(sizes) for sizes in zip(*shapes, strict=True)]
    strides = settings.total_stride(config)
    config.train.crop = tuple(
        min(crop, max(size // stride, 1) * stride)
        for crop, size, stride in zip(config.train.crop, smallest, strides, strict=True)
    )
