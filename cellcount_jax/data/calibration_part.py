"""The labelled part that training leaves out, for the choice of the detection threshold.

A network knows the images that it was trained on by heart: on them nearly any threshold is right.
What it has not seen shows which one is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from absl import logging

from cellcount_jax.data.sample import Dataset, Sample, permuted, valid_box, voxels_inside

# With fewer the choice is left to chance more than to what is learned by heart: 49 dots of the
# microglia volume 1874 choose a threshold that has F1 0.953 on 6871, where the best has 0.976; all
# 310 by heart, 0.966 of 0.982. Of c-Fos 50 dots in one place lose 0.019, 150 lose 0.009.
LEAST_DOTS = 100
_MANY_IMAGES = 10  # of which whole ones are left out
_GAP = 4  # the cut lies in the widest gap near the wanted one: up to 1/4 more or fewer dots


def with_calibration(dataset: Dataset, *, share: float, seed: int) -> Dataset:
    """A data set with a part of its labels left out of training, for calibration.

    Of ten or more labelled images whole ones are left out. Of fewer, a region of each: the end of
    its valid region, along that one's longest axis, that holds the share of its dots. The cut lies
    in a gap between dots, so that few cells are cut.

    Args:
      dataset: as it was read.
      share: of the labelled images, or of the dots in each, that are left out; 0 = none.
      seed: of the choice of images, and of the end of each image.

    Returns:
      The data set with `calibration`, whose valid regions do not overlap those of `labelled`; as it
      was, with a line in the log, where fewer than 100 dots would be left out.
    """
    if not share:
        return dataset
    many = len(dataset.labelled) >= _MANY_IMAGES
    split = _images if many else _regions
    labelled, calibration = split(dataset.labelled, share=share, seed=seed)
    dots = sum(len(voxels_inside(sample)) for sample in calibration)
    if dots < LEAST_DOTS or not any(len(voxels_inside(sample)) for sample in labelled):
        logging.info(
            "the threshold is chosen on the training images themselves: %d dots would be left out"
            " for it, and %d are needed (config.data.calibration_share = %g)",
            dots,
            LEAST_DOTS,
            share,
        )
        return dataset
    logging.info(
        "left out of training, for the threshold: %d dots, in %s",
        dots,
        f"{len(calibration)} of {len(dataset.labelled)} labelled images"
        if many
        else f"a part of {len(calibration)} labelled image{'s' if len(calibration) > 1 else ''}",
    )
    return dataclasses.replace(dataset, labelled=labelled, calibration=calibration)


def _images(
    samples: tuple[Sample, ...], *, share: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Whole images for training, and for calibration."""
    count = max(1, round(share * len(samples)))
    chosen = set(permuted(range(len(samples)), seed=seed)[:count])
    training = tuple(sample for i, sample in enumerate(samples) if i not in chosen)
    return training, tuple(sample for i, sample in enumerate(samples) if i in chosen)


def _regions(
    samples: tuple[Sample, ...], *, share: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Every image with the region for training, and those with one for calibration."""
    ends = np.random.RandomState(seed).randint(2, size=len(samples)).tolist()
    training, calibration = [], []
    for sample, far in zip(samples, ends, strict=True):
        held_out = _end(sample, share=share, far=bool(far))
        if held_out is None:
            training.append(sample)
            continue
        valid = np.ones(sample.shape, bool) if sample.valid is None else sample.valid
        training.append(dataclasses.replace(sample, valid=valid & ~held_out))
        calibration.append(dataclasses.replace(sample, valid=valid & held_out))
    return tuple(training), tuple(calibration)


def _end(sample: Sample, *, share: float, far: bool) -> np.ndarray | None:
    """`(*shape)` bool, true at one end of a sample; None where it has too few dots to be cut."""
    voxels = voxels_inside(sample)
    count = round(share * len(voxels))
    if count == 0:
        return None
    low, high = valid_box(sample)
    axis = int(np.argmax((high - low) * np.asarray(sample.spacing)))
    places = np.sort(voxels[:, axis])
    if far:
        places = high[axis] - 1 + low[axis] - places[::-1]  # counted from the other end
    reach = count // _GAP
    counts = np.arange(max(count - reach, 1), min(count + reach, len(places) - 1) + 1)
    if not len(counts):
        return None
    gaps = places[counts] - places[counts - 1]
    if not gaps.any():
        return None  # all dots in one plane
    best = int(counts[np.argmax(gaps)])
    size = (places[best - 1] + places[best] + 1) // 2 - low[axis]
    part = slice(high[axis] - size, high[axis]) if far else slice(low[axis], low[axis] + size)
    mask = np.zeros(sample.shape, bool)
    mask[(slice(None),) * axis + (part,)] = True
    return mask
