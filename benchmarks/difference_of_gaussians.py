"""The classical baseline, without a network: peaks of a difference of Gaussians.

Run it from the repository's root, with the flags of a training run:

    python benchmarks/difference_of_gaussians.py --config=configs/vgg.py \\
        --config.data.dir=../shared/data/vgg --workdir=runs/difference_of_gaussians

The response is G(sigma) - G(1.6 sigma) of the image's mean over channels, Marr and Hildreth's
approximation of the Laplacian. The kind of intensities, sigma, whether cells are bright or dark,
and the threshold are those of the highest F1 on the labelled training images; of equal ones the
config's own normalisation and the smaller sigma stay. Test images are only scored. What comes
out has the layout of a training run's evaluation/metrics.json, with the one rule 'peaks', and
beside it the best filter of each kind of intensities: between them one training image hardly
decides, and test images of another brightness or noise do.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags
from scipy import ndimage

from cellcount_jax import config as settings
from cellcount_jax.data import sample
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import metrics, scoring
from cellcount_jax.evaluation.threshold import calibrate_threshold
from cellcount_jax.images import files
from cellcount_jax.maps.detect import find_peaks
from cellcount_jax.training import train

SIGMAS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
RATIO = 1.6
# Candidate thresholds keep this many peaks for each cell of the training images.
_PEAKS_PER_CELL = np.geomspace(0.4, 2.5, 49)


@dataclasses.dataclass(frozen=True)
class Filter:
    """What is chosen on the training images, beside the threshold.

    Attributes:
      intensities: of the image: one of `config.NORMALISATIONS`, or 'log'.
      sigma: of the narrower Gaussian, in units of the finest voxel edge.
      bright: whether cells are brighter than what is around them.
    """

    intensities: str
    sigma: float
    bright: bool


@dataclasses.dataclass(frozen=True)
class Fit:
    """A filter with its threshold, and the F1 on the training images with it."""

    filter: Filter
    threshold: float
    f1: float


@dataclasses.dataclass(frozen=True, eq=False)
class Peaks:
    """All local maxima of a sample's response where its labels count: points and values."""

    sample: Sample
    points: np.ndarray
    scores: np.ndarray

    def above(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """The points and values of those greater than a threshold."""
        kept = self.scores > threshold
        return self.points[kept], self.scores[kept]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the flags say."""
    # Not the global flags, which are those of the training run.
    given = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "Settings of the run.", flag_values=given)
    flags.DEFINE_string("workdir", None, "Folder for evaluation/metrics.json.", flag_values=given)
    try:
        given(["difference_of_gaussians.py", *(sys.argv[1:] if arguments is None else arguments)])
        if given["config"].value is None or given.workdir is None:
            raise InputError("--config and --workdir are needed")
        content = fit_and_score(given["config"].value)
    except (flags.Error, InputError, OSError) as error:
        sys.exit(f"error: {error}")
    files.write_json(Path(given.workdir) / "evaluation" / "metrics.json", content)
    print(f"{content['dataset']}\nchosen on the training images: {content['chosen']}")
    for name, rules in content["sets"].items():
        print(f"{name}: F1 {rules['peaks']['f1']:.4f}, MAE {rules['peaks']['mae']:.2f}")


def fit_and_score(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Chooses the filter and the threshold on the training images, and scores the test sets.

    Args:
      config: whose data, `detect.min_distance` and `evaluation.max_distance` are used.

    Returns:
      The content of evaluation/metrics.json, with `chosen` and `each_kind`.
    """
    dataset = train.load_dataset(config)
    if not dataset.tests:
        raise InputError(f"config.data.dir = {config.data.dir!r}: has no test images to score")
    fits = fit(dataset, config)
    kinds = transforms(dataset, config)

    def sets(fitted: Fit) -> dict[str, dict[str, Any]]:
        chosen, window = fitted.filter, config.detect.min_distance
        scored = {}
        for name, samples in dataset.tests.items():
            found = [find(s, kinds[chosen.intensities], chosen, window) for s in samples]
            each_image = results(found, fitted.threshold, config.evaluation.max_distance)
            scored[name] = scoring.pooled_scores(each_image)
        return scored

    each = {kind: sets(fitted) for kind, fitted in fits.items()}
    best = max(fits.values(), key=lambda fitted: fitted.f1)  # the first of equal ones
    return {
        "dataset": dataset.description,
        "set": next(iter(dataset.tests)),
        "rule": "peaks",
        "threshold": best.threshold,
        "max_distance": config.evaluation.max_distance,
        "max_distance_unit": "um" if dataset.labelled[0].spacing_known else "voxel",
        "thresholds": {"peaks": best.threshold},
        "f1_on_training_images": {"peaks": best.f1},
        "chosen": dataclasses.asdict(best.filter),
        "sets": {name: {"peaks": s} for name, s in each[best.filter.intensities].items()},
        "each_kind": [
            {
                **dataclasses.asdict(fitted.filter),
                "f1_on_training_images": fitted.f1,
                "f1": {name: s["f1"] for name, s in each[kind].items()},
            }
            for kind, fitted in fits.items()
        ],
    }


def fit(dataset: Dataset, config: ml_collections.ConfigDict) -> dict[str, Fit]:
    """For each kind of intensities what has the highest F1 on the labelled images."""
    best: dict[str, Fit] = {}
    for candidate, found in _candidates(dataset, config):
        fitted = Fit(candidate, *calibrated(found, config.evaluation.max_distance))
        kind = candidate.intensities
        if kind not in best or fitted.f1 > best[kind].f1:
            best[kind] = fitted
    return best


def _candidates(
    dataset: Dataset, config: ml_collections.ConfigDict
) -> Iterator[tuple[Filter, list[Peaks]]]:
    for name, transform in transforms(dataset, config).items():
        images = [transform(sample.image) for sample in dataset.labelled]
        for sigma in SIGMAS:
            responses = [
                response(image, sample.spacing, sigma=sigma)
                for image, sample in zip(images, dataset.labelled, strict=True)
            ]
            for bright in (True, False):
                yield (
                    Filter(name, sigma, bright),
                    [
                        peaks(sample, r if bright else -r, config.detect.min_distance)
                        for sample, r in zip(dataset.labelled, responses, strict=True)
                    ],
                )


def transforms(
    dataset: Dataset, config: ml_collections.ConfigDict
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Kinds of intensities: name -> image `(*spatial, channels)` to `(*spatial,)`.

    The config's normalisation is the first. With one training image several are as good as each
    other there, since they differ by one gain and offset.
    """
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for name in dict.fromkeys((config.data.normalisation, *reversed(settings.NORMALISATIONS))):
        altered = config.copy_and_resolve_references()
        altered.data.normalisation = name
        found[name] = functools.partial(_grey, train.fit_normalisation(dataset, altered))
    found["log"] = functools.partial(_grey, np.log1p)
    return found


def _grey(transform: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    return transform(image).mean(-1)


def response(image: np.ndarray, spacing: Sequence[float], *, sigma: float) -> np.ndarray:
    r"""The difference of Gaussians, positive on bright blobs.

    .. math:: G_\sigma * I - G_{1.6 \sigma} * I

    Args:
      image: `(*spatial,)`.
      spacing: voxel edges; the Gaussians are round in space, not in voxels.
      sigma: in units of the finest edge.

    Returns:
      `(*spatial,)` float32.
    """
    widths = sigma * min(spacing) / np.asarray(spacing)
    narrow, wide = (ndimage.gaussian_filter(image, w) for w in (widths, RATIO * widths))
    return narrow - wide


def peaks(sample: Sample, map: np.ndarray, min_distance: Sequence[int]) -> Peaks:
    """The positive local maxima of a response within the sample's valid region."""
    points, values = find_peaks(
        map, threshold_abs=0.0, min_distance=tuple(min_distance), return_scores=True
    )
    kept = scoring.is_valid(points, sample)
    return Peaks(sample, points[kept], values[kept])


def find(
    sample: Sample,
    transform: Callable[[np.ndarray], np.ndarray],
    chosen: Filter,
    min_distance: Sequence[int],
) -> Peaks:
    """The peaks of an image by one filter."""
    map = response(transform(sample.image), sample.spacing, sigma=chosen.sigma)
    return peaks(sample, map if chosen.bright else -map, min_distance)


def calibrated(found: Sequence[Peaks], max_distance: float) -> tuple[float, float]:
    """The threshold of the highest F1, and that F1."""
    ordered = np.sort(np.concatenate([f.scores for f in found]))[::-1]
    cells = sum(len(sample.voxels_inside(f.sample)) for f in found)
    kept = np.rint(cells * _PEAKS_PER_CELL).astype(int)
    if not len(ordered):
        return 0.0, 0.0
    candidates = np.unique(np.append(ordered, 0.0)[np.minimum(kept, len(ordered))])

    def count_at(threshold: float) -> tuple[int, int, int]:
        pooled = metrics.pooled(
            scoring.match(f.sample, f.above(threshold)[0], max_distance=max_distance) for f in found
        )
        return pooled.tp, pooled.fp, pooled.fn

    return calibrate_threshold(count_at, candidates, tolerance=0.0)


def results(
    found: Sequence[Peaks], threshold: float, max_distance: float
) -> list[scoring.ImageResult]:
    """What is above a threshold, scored image by image."""
    return [
        scoring.score_image(f.sample, *f.above(threshold), max_distance=max_distance) for f in found
    ]


if __name__ == "__main__":
    main()
