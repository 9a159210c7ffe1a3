"""How often counts are doubted that are right, and counts that are wrong.

Run it from the repository's root:

    python benchmarks/doubts.py --model=nuclei2d ../shared/data/nuclei2d/test
    python benchmarks/doubts.py --model=nuclei2d ../shared/data/nuclei2d/test --sized
    python benchmarks/doubts.py --model=nuclei2d ../shared/data/nuclei_he/test --channel=0
    python benchmarks/doubts.py --model=nuclei2d ../shared/data/vgg
    python benchmarks/doubts.py --model=microglia3d ../shared/data/lightsheet_microglia/test

A count is right here with an F1 of 0.85 or more, wrong below 0.7. In folders with NAME.tif,
NAME.csv and NAME_labels.tif a cell is found within half the median diameter of the labels, at
least 4 pixels; in VGG's (its test images) and in volumes within the model's own distance.
`--sized` tells the model the diameter in each image. `--reference` measures the model's reference
on the images of another folder (of VGG's on its training images), for a model that was calibrated
before there were references.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timing

from cellcount_jax.data import public_sets
from cellcount_jax.data.sample import Sample
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.metrics import match_points
from cellcount_jax.images.image_files import read_image, read_instance_labels
from cellcount_jax.images.points import read_points
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import doubts, model_file, reference
from cellcount_jax.inference.trained_model import TrainedModel

RIGHT, WRONG = 0.85, 0.7
_LEAST_DISTANCE = 4.0  # pixels
_SPLIT_SEED = 5455  # of VGG's images, the authors'


def main() -> None:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="labelled images")
    parser.add_argument("--model", required=True, help="as of cellcount count")
    parser.add_argument("--channel", type=int, help="of the images; default: their maximum")
    parser.add_argument("--sized", action="store_true", help="give the diameter of each image")
    parser.add_argument("--reference", type=Path, help="folder to measure the reference on")
    parser.add_argument("--images", type=int, default=-1, help="only so many; -1 = all")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    model = model_file.load_model(options.model)
    if options.reference is not None:
        training = samples(options.reference, options.channel, part="train")
        images = (Array(sample.image, len(sample.shape)) for sample in training)
        counted = ((image, model.find(image)) for image in images)
        model = dataclasses.replace(model, reference=reference.of_images(model, counted))
    rows = [
        judged(model, sample, sized=options.sized)
        for i, sample in enumerate(samples(options.folder, options.channel))
        if options.images < 0 or i < options.images
    ]
    timing.publish(rows, options.output, verdict=verdict(rows))


def samples(folder: Path, channel: int | None, *, part: str = "test") -> Iterator[Sample]:
    """The labelled images of a folder, with one channel."""
    if (folder / "001cell.png").exists():
        found = public_sets.load_vgg(
            folder, num_labelled=100, num_unlabelled=0, split_seed=_SPLIT_SEED
        )
        chosen = found.tests["test"] if part == "test" else found.labelled
    else:
        paths = [path for path in sorted(folder.glob("*.tif")) if path.with_suffix(".csv").exists()]
        chosen = tuple(map(_read, paths))
    for sample in chosen:
        image = sample.image.max(-1) if channel is None else sample.image[..., channel]
        yield dataclasses.replace(sample, image=image[..., None])


def _read(path: Path) -> Sample:
    image = read_image(path)
    points = read_points(path.with_suffix(".csv"), ndim=image.pixels.ndim - 1)
    labels = path.with_name(f"{path.stem}_labels.tif")
    return Sample(
        path.stem,
        image.pixels,
        points,
        spacing=image.spacing or (1.0,) * (image.pixels.ndim - 1),
        labels=read_instance_labels(labels) if labels.exists() else None,
    )


def judged(model: TrainedModel, sample: Sample, *, sized: bool) -> dict[str, Any]:
    """A row: an image, its count and the doubts about it."""
    distance, ndim = model.config.evaluation.max_distance, len(sample.shape)
    width = None
    if sample.labels is not None and ndim == 2:
        areas = np.bincount(sample.labels.ravel())[1:]
        width = 2 * math.sqrt(float(np.median(areas[areas > 0])) / math.pi)
        distance = max(_LEAST_DISTANCE, width / 2)
    assert sample.points is not None
    row = {"image": sample.name, "true": len(sample.points)}
    try:
        image = model.fitted(Array(sample.image, ndim), diameter=width if sized else None)
    except InputError:
        return row | {"found": 0, "f1": 0.0, "doubts": "refused"}
    found = model.find(image.image)
    points = image.back(found.points)
    spacing = model.spacing if model.spacing_known else None
    matched = match_points(points, sample.points, max_distance=distance, spacing=spacing)
    reasons = doubts.find(model, image.image, found)
    kinds = " ".join(doubt.kind.replace(" ", "_") for doubt in reasons)
    return row | {"found": len(points), "f1": matched.f1, "doubts": kinds}


def verdict(rows: list[dict[str, Any]]) -> str:
    """How many of the right and of the wrong counts are doubted, and why."""
    right = [row for row in rows if row["f1"] >= RIGHT]
    wrong = [row for row in rows if row["f1"] < WRONG]
    told = [f"{sum(bool(row['doubts']) for row in some)} of {len(some)}" for some in (right, wrong)]
    kinds = collections.Counter(kind for row in rows for kind in row["doubts"].split())
    why = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    all_doubted = sum(bool(row["doubts"]) for row in rows)
    return (
        f"doubted: {all_doubted} of {len(rows)} counts, {told[0]} right ones, {told[1]} wrong ones"
        f" ({why or 'none'})"
    )


if __name__ == "__main__":
    main()
