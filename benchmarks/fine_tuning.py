"""A few labelled images: training from a model, and from random weights, at the same steps.

Run it from the repository's root; what is done is kept in --runs, so that it goes on where it was
stopped:

    python benchmarks/fine_tuning.py --model=nuclei2d --output=runs/fine_tuning.json
    python benchmarks/fine_tuning.py --model=nuclei2d --kinds=vgg --part=test --output=...

A kind is `vgg` (one channel, the brightest of the three), `mbm` (in colour) or the images of one
size in `nuclei2d/train`, such as `520x696`. Labelled images are drawn by the seed from six tenths
of a kind's training images. Scores are on two tenths (`--part=develop`, on which
the defaults of `cellcount train --from` were chosen), on the last two (`check`), or on the test
images (`test`). Training is that of `cellcount train FOLDER --diameter D`, with and without
`--from MODEL`; the model as it is, with its own threshold, is scored beside.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timing
from absl import logging

from cellcount_jax.data import public_sets, resampling
from cellcount_jax.data.entries import scan
from cellcount_jax.data.entry_content import read_entry
from cellcount_jax.data.sample import Dataset, Sample, permuted
from cellcount_jax.evaluation import metrics, scoring
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import write_points
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import model_file
from cellcount_jax.training import command, fine_tuning, run_folder, train

ROOT = Path(__file__).parents[1]
PARTS = ("develop", "check", "test")
_DIAMETERS = {"vgg": 10.2, "mbm": 16.0}  # pixels; neither has labels to measure them in
_SPLIT_SEED = 5455  # of the order of the images
_MOST_SCORED = 20  # images


class Kind(NamedTuple):
    """Images of one kind: those to draw labelled ones from, and those to score on."""

    pool: Sequence[Sample]
    scored: Sequence[Sample]
    diameter: float  # of a cell, pixels


def main() -> None:
    """Runs what the command line says, or goes on with it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="nuclei2d", help="bundled, a workdir or a file")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--kinds", nargs="+", default=["vgg", "520x696"])
    parser.add_argument("--labels", nargs="+", type=int, default=[1, 2, 5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--part", choices=PARTS, default="check", help="what is scored")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of both sides"
    )
    parser.add_argument(
        "--set-from", action="append", default=[], metavar="KEY=VALUE", help="of training from it"
    )
    parser.add_argument("--only-from", action="store_true", help="without random weights")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/fine_tuning")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    logging.set_verbosity(logging.WARNING)
    rows = []
    for name in options.kinds:
        kind = read_kind(options.data, name, options.part)
        as_it_is = score_as_it_is(options.model, kind)
        for count in options.labels:
            scores: dict[str, list[float]] = {"random": [], "from": []}
            for seed in range(options.seeds):
                folder = options.runs / options.part / f"{name}_{count}_{seed}"
                write_folder(folder / "images", kind, count, seed)
                for side, found in scores.items():
                    if side == "random" and options.only_from:
                        continue
                    content = run(folder, kind, side, seed, options)
                    found.append(content["f1"])
                    timing.tell({"kind": name, "labelled": count, "seed": seed, side: found[-1]})
            rows.append(
                {"kind": name, "labelled": count, "seeds": options.seeds, "as it is": as_it_is}
                | {side: _mean(found) for side, found in scores.items()}
                | {f"{side} sd": _deviation(found) for side, found in scores.items()}
            )
    better = [row["from"] > (row["random"] or 0) for row in rows]
    verdict = f"from {options.model} better than random weights in {sum(better)} of {len(rows)}"
    timing.publish(rows, options.output, verdict=verdict)


def read_kind(data: Path, name: str, part: str) -> Kind:
    """The images of a kind, in the order of the permutation by `_SPLIT_SEED`."""
    if name in _DIAMETERS:
        load = public_sets.load_vgg if name == "vgg" else public_sets.load_mbm
        found = load(data / name, num_labelled=-1, num_unlabelled=0, split_seed=_SPLIT_SEED)
        training, test = list(found.labelled), list(found.tests["test"])
        diameter = _DIAMETERS[name]
    else:
        shape = tuple(map(int, name.split("x")))
        training, test = (_of_shape(data / "nuclei2d" / part, shape) for part in ("train", "test"))
        training = permuted(training, seed=_SPLIT_SEED)
        diameter = statistics.median(map(_diameter, training))
    six, eight = (len(training) * tenths // 10 for tenths in (6, 8))
    scored = {"develop": training[six:eight], "check": training[eight:], "test": test}[part]
    pool, scored = training[:six], scored[:_MOST_SCORED]
    if name != "mbm":
        pool, scored = _grey(pool), _grey(scored)
    return Kind(pool, scored, diameter)


def write_folder(folder: Path, kind: Kind, count: int, seed: int) -> None:
    """A folder for `cellcount train`, as far as it is not there yet: dots of `count` images."""
    chosen = permuted(kind.pool, seed=seed)[:count]
    for place, samples in ((folder, chosen), (folder / "test", kind.scored)):
        for sample in samples:
            image = sample.image if sample.image.shape[-1] > 1 else sample.image[..., 0]
            write_image(place / f"{sample.name}.tif", image, ndim=2)
            assert sample.points is not None
            write_points(place / f"{sample.name}.csv", sample.points)


def run(
    folder: Path, kind: Kind, side: str, seed: int, options: argparse.Namespace
) -> Mapping[str, Any]:
    """The content of metrics.json of a run, which is finished first if it is not."""
    images = folder / "images"
    origin = options.model if side == "from" else None
    diameter = round(kind.diameter, 1)
    distance = diameter / 2
    if origin is not None:
        distance *= model_file.load_model(origin).config.data.diameter / diameter
    changes = [f"seed={seed}", "consistency.weight=0.0", "evaluation.overlays=0"]
    changes += [f"evaluation.max_distance={distance}", *options.set]
    changes += options.set_from if origin is not None else []
    config = command.make_config(
        images,
        scan(images),
        steps=options.steps,
        diameter=diameter,
        init_from=origin,
        changes=changes,
    )
    words = [side, str(options.steps), *(options.set_from if origin is not None else ())]
    workdir = folder / "_".join((*words, *options.set))
    path = workdir / "evaluation" / "metrics.json"
    if path.exists():
        run_folder.compare(workdir, fine_tuning.parent_of(config)[0])
        found: Mapping[str, Any] = json.loads(path.read_text())
        return found
    content = train.train_and_evaluate(config, workdir)
    if content is None:
        raise KeyboardInterrupt
    return content


def score_as_it_is(name: str, kind: Kind) -> float:
    """F1 of a model with its own threshold on images at the size of its cells."""
    model = model_file.load_model(name)
    data = model.config.data.copy_and_resolve_references()
    data.from_diameter, data.to_spacing = round(kind.diameter, 1), ()
    images = resampling.resample(Dataset("", tuple(kind.scored), (), {}), data).labelled
    distance = data.diameter / 2
    pooled = metrics.pooled(
        scoring.match(sample, model.find(Array(sample.image, 2)).points, max_distance=distance)
        for sample in images
    )
    return pooled.f1


def _of_shape(folder: Path, shape: tuple[int, ...]) -> list[Sample]:
    """The labelled images of a size in a folder."""
    found = (read_entry(entry, with_dots=True) for entry in scan(folder))
    return [sample for sample in found if sample.shape == shape]


def _diameter(sample: Sample) -> float:
    """Of the circle of the median area of an image's cells, pixels."""
    assert sample.labels is not None
    areas = np.bincount(sample.labels.ravel())[1:]
    return 2 * math.sqrt(float(np.median(areas[areas > 0])) / math.pi)


def _grey(samples: Sequence[Sample]) -> list[Sample]:
    """The brightest channel of each pixel, and the dots."""
    return [
        Sample(s.name, s.image.max(-1, keepdims=True), s.points, s.spacing, source=s.source)
        for s in samples
    ]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


if __name__ == "__main__":
    main()
