"""What carries over from one volume to another: evidence from training volumes alone.

Run it from the repository's root:

    python benchmarks/transfer.py intensities
    python benchmarks/transfer.py contrast --model=runs/NAME --volume=FILE.tif [--rows=88:120]

`intensities` compares kinds of intensities with a difference of Gaussians: its threshold is chosen
on one volume, or part of one, and scored on another. Both volumes of train/ of the microglia, and
eight parts of the c-Fos training volume. `contrast` scores a trained model on a labelled volume
whose cells are made fainter and brighter: I becomes b + f (I - b) over the local background b.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import difference_of_gaussians as dog
import numpy as np

from cellcount_jax.data.sample import Sample
from cellcount_jax.evaluation import metrics, scoring
from cellcount_jax.images import background as local
from cellcount_jax.images import normalise
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.points import read_points
from cellcount_jax.inference import model_file

ROOT = Path(__file__).parents[1]
FACTORS = (0.25, 0.4, 0.6, 1.0, 1.6, 2.5)
_BACKGROUNDS = (60.0, 120.0, 240.0)
_SIGMA = 2.0  # of the difference of Gaussians, in voxels in the plane
_FEWEST = 30  # cells of a part that a threshold is chosen on


def main() -> None:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    intensities = commands.add_parser("intensities")
    intensities.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    contrast = commands.add_parser("contrast")
    contrast.add_argument("--model", required=True, help="workdir or exported file")
    contrast.add_argument("--volume", type=Path, required=True, help="TIFF, with its CSV beside it")
    contrast.add_argument("--rows", default="", help="y from:to that count, e.g. 88:120")
    options = parser.parse_args()
    if options.command == "intensities":
        print(compare_intensities(options.data))
    else:
        print(compare_contrasts(options.model, read_sample(options.volume, options.rows)))


def read_sample(path: Path, rows: str = "") -> Sample:
    """A labelled volume; labels count where y is in `rows`."""
    image = read_image(path)
    assert image.spacing is not None
    valid = None
    if rows:
        first, _, end = rows.partition(":")
        valid = np.zeros(image.pixels.shape[:-1], bool)
        valid[:, int(first) : int(end)] = True
    points = read_points(path.with_suffix(".csv"), ndim=3)
    return Sample(path.stem, image.pixels, points, image.spacing, True, valid, source=str(path))


def compare_intensities(data: Path) -> str:
    """A Markdown table: kinds of intensities, and the F1 of thresholds from elsewhere."""
    microglia = [
        read_sample(data / "lightsheet_microglia" / "train" / f"{name}.tif")
        for name in ("1874", "6871")
    ]
    cfos = read_sample(data / "lightsheet_cfos" / "train" / "969.tif", "0:120")
    of_microglia, of_cfos = kinds(microglia[0].spacing), kinds(cfos.spacing)
    lines = ["| intensities | microglia, the other volume | c-Fos, other parts |", "|---|---|---|"]
    for name in of_cfos:
        whole = [_peaks(sample, of_microglia[name]) for sample in microglia]
        scores = between(whole, 12.0), between(eighths(_peaks(cfos, of_cfos[name])), 8.0)
        lines.append(f"| {name} | {scores[0]:.4f} | {scores[1]:.4f} |")
    return "\n".join(lines)


Transform = Callable[[np.ndarray], np.ndarray]


def kinds(spacing: Sequence[float]) -> dict[str, Transform]:
    """Kinds of intensities by name."""
    found: dict[str, Transform] = {"raw": lambda v: v[..., 0], "log": lambda v: np.log1p(v[..., 0])}
    for method, um in itertools.product(("signal_to_noise", "contrast"), _BACKGROUNDS):
        fitted = normalise.fit([], method, background=um, spacing=spacing)
        found[f"{method}, {um:g} um"] = functools.partial(_first_channel, fitted)
    return found


def _first_channel(transform: Transform, image: np.ndarray) -> np.ndarray:
    return transform(image)[..., 0]


def eighths(found: dog.Peaks) -> list[dog.Peaks]:
    """The peaks of the eight parts, halves along each axis, of a volume's valid region."""
    sample = found.sample
    inside = np.argwhere(np.ones(sample.shape, bool) if sample.valid is None else sample.valid)
    low, end = inside.min(0), inside.max(0) + 1
    middle = (low + end) // 2
    parts = []
    for upper in itertools.product((False, True), repeat=3):
        bounds = zip(np.where(upper, middle, low), np.where(upper, end, middle), strict=True)
        valid = np.zeros(sample.shape, bool)
        valid[tuple(slice(first, last) for first, last in bounds)] = True
        own = dataclasses.replace(sample, valid=valid)
        kept = scoring.is_valid(found.points, own)
        parts.append(dog.Peaks(own, found.points[kept], found.scores[kept]))
    return parts


def between(places: Sequence[dog.Peaks], max_distance: float) -> float:
    """Mean F1 over all ordered pairs: the threshold of one place on another."""
    scores = []
    for here in places:
        sample = here.sample
        if int(scoring.is_valid(np.asarray(sample.points), sample).sum()) < _FEWEST:
            continue
        threshold, _ = dog.calibrated([here], max_distance)
        for there in places:
            if there is not here:
                points, _ = there.above(threshold)
                scores.append(scoring.match(there.sample, points, max_distance=max_distance).f1)
    return statistics.mean(scores)


def _peaks(sample: Sample, transform: Transform) -> dog.Peaks:
    response = dog.response(transform(sample.image), sample.spacing, sigma=_SIGMA)
    return dog.peaks(sample, response, (1, 2, 2))


def compare_contrasts(model_name: str, sample: Sample) -> str:
    """A Markdown table: how bright cells are made, and what the model finds of them."""
    model = model_file.load_model(model_name)
    values = sample.image[..., 0]
    block = normalise.background_block(model.config.data.background, sample.spacing)
    background = local.background(local.measure(values.__getitem__, values.shape, block))
    distance = model.config.evaluation.max_distance
    lines = ["| contrast times | F1 | precision | recall |", "|---|---|---|---|"]
    for factor in FACTORS:
        changed = (background + factor * (values - background))[..., None].astype(np.float32)
        points, _ = model.predict(changed)
        found: metrics.Matching = scoring.match(sample, points, max_distance=distance)
        lines.append(
            f"| {factor:g} | {found.f1:.4f} | {found.precision:.4f} | {found.recall:.4f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
