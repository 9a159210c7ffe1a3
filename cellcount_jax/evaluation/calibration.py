"""A model calibrated on some dots of one's own: its threshold and count factor for such images."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cellcount_jax.data.labelled_area import LabelledArea
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import metrics, threshold
from cellcount_jax.evaluation.threshold import Certainty, Evidence
from cellcount_jax.images.regions import Region, all_of, lies_in
from cellcount_jax.inference import faint, reference
from cellcount_jax.inference.fitted import Fitted
from cellcount_jax.inference.job import Job, Progress, silent
from cellcount_jax.inference.search import Search, search
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps import detect

LEAST_DOTS = 10
_LEAST_F1 = 0.5  # at the best threshold; a model below it does not know such cells


@dataclasses.dataclass(frozen=True, eq=False)
class Dotted:
    """An image, and dots that are complete in a part of it.

    Attributes:
      name: of the image, for messages.
      fitted: the image as the model takes it.
      shape: `(D,)` of the original.
      dots: `(N, D)` in voxels of the original, also outside of the area.
      area: where they are complete, in voxels of the original.
    """

    name: str
    fitted: Fitted
    shape: tuple[int, ...]
    dots: np.ndarray
    area: LabelledArea


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What calibration did; a pair is before and after it.

    Attributes:
      images: how many.
      dots: where they are complete.
      thresholds: as fractions of the map's value at a certain cell, as `--threshold` takes them.
      f1: on the dots.
      found: cells where the dots are complete.
      count_factors: of the integral; None for a model without a density.
      certainty: of the threshold after it.
      lowest: whether the threshold is the lowest that there is.
    """

    images: int
    dots: int
    thresholds: tuple[float, float]
    f1: tuple[float, float]
    found: tuple[int, int]
    count_factors: tuple[float, float] | None
    certainty: Certainty
    lowest: bool


def calibrate_on(
    model: TrainedModel, images: Sequence[Dotted], *, seed: int = 0, progress: Progress = silent
) -> tuple[TrainedModel, Outcome]:
    """Chooses a model's threshold, and the factor of its integral, on dots in images.

    The map is computed as for a count, of large images in tiles and only where dots are complete.
    Thresholds compare cells before they are split, see `config.detect.split_from`.

    Args:
      model: a trained model.
      images: of one kind, at least one.
      seed: of the bootstrap.
      progress: shows the work on images in tiles.

    Returns:
      The calibrated model, and what changed.

    Raises:
      InputError: too few dots, or the model does not find them at any threshold.
    """
    names = ", ".join(image.name for image in images)
    dots = [image.dots[image.area.holds(image.dots)] for image in images]
    count = sum(map(len, dots))
    if count < LEAST_DOTS:
        raise InputError(
            f"{names}: {count} dots where they are complete; at least {LEAST_DOTS} are needed, and"
            " about 50 are good"
        )
    rule = model.config.detect.rule
    before = model.thresholds[rule]
    peak = 1.0 if rule == "fidt" else model.target_peak
    tried = threshold.FRACTIONS * peak
    tried = tried[tried >= model.floor] if rule != "fidt" else tried
    # A threshold cannot bring back what is in no tile.
    searching = model.with_settings({"predict.every_tile": True})
    evidence, evidence_before, sums, faintest = [], [], [], []
    for image, known in zip(images, dots, strict=True):
        with tempfile.TemporaryDirectory(prefix="cellcount_") as folder:
            mask = _AreaMask(image, _reach(model, image))
            job = Job(searching, image.fitted.image, Path(folder), mask)
            searched = search(job, progress=progress)
            evidence.append(_evidence(model, image, searched, known, tried))
            evidence_before.append(_evidence(model, image, searched, known, np.array([before])))
            sums.append(_integral(model, image, searched))
            faintest.append(_faintest(job, image, known))
    found, found_before = threshold.pooled(evidence), threshold.pooled(evidence_before)
    if found.f1.max() < _LEAST_F1:
        raise InputError(
            f"{names}: the model does not fit: at the best threshold F1 is {found.f1.max():.2f} on"
            f" {count} dots, and {_LEAST_F1:g} is needed. If there are cells without a dot, say"
            " where all have one (--region, or blocks that are done); if all have one, train on"
            " them: cellcount train FOLDER --from MODEL"
        )
    chosen = found.choose()
    after = float(tried[chosen])
    factors = None
    if model.has_density and None not in sums and (total := math.fsum(s or 0 for s in sums)) > 0:
        factors = (model.count_factor, count / total)
    calibrated = dataclasses.replace(
        model,
        thresholds={**model.thresholds, rule: after},
        count_factor=model.count_factor if factors is None else factors[1],
        reference=faint.lowered(model.reference, float(np.nanmin([math.inf, *faintest]))),
    )
    return calibrated, Outcome(
        images=len(images),
        dots=count,
        thresholds=(before / peak, after / peak),
        f1=(float(found_before.f1[0]), float(found.f1[chosen])),
        found=(int(found_before.found[0]), int(found.found[chosen])),
        count_factors=factors,
        certainty=threshold.certainty(found, chosen, seed=seed),
        lowest=chosen == 0,
    )


def _faintest(job: Job, image: Dotted, dots: np.ndarray) -> float:
    """The normalised brightness of the faintest cells with a dot, see `reference.faintest`."""
    zoom = np.divide(job.image.shape, image.shape)
    measured = None if job.plan.whole else job.survey.measured
    points = (dots + 0.5) * zoom - 0.5
    return reference.faintest(job.model, job.image, points, measured=measured)


def lines(outcome: Outcome) -> list[str]:
    """What calibration did and how sure it is, as sentences."""
    o, sure = outcome, outcome.certainty
    low, high = (100 * limit for limit in sure.cells_per_found)
    told = [
        f"threshold {o.thresholds[0]:.2f} before, {o.thresholds[1]:.2f} now, on {o.dots} dots",
        f"F1 on them {o.f1[0]:.3f} before, {o.f1[1]:.3f} now; about {sure.f1:.2f} is to be expected"
        " elsewhere",
        f"cells found there {o.found[0]} before, {o.found[1]} now",
        f"where it finds 100 cells, {low:.0f} to {high:.0f} are to be expected (90 %)",
    ]
    if o.count_factors is not None:
        told.append(
            f"factor of the integral {o.count_factors[0]:.3g} before, {o.count_factors[1]:.3g} now"
        )
    if sure.more_dots:
        told.append(
            f"about {min(sure.more_dots, 1000)}{' or more' if sure.more_dots > 1000 else ''} dots"
            " more would be worth while: they would bring the count to 10 % either way"
        )
    else:
        told.append("more dots would change little")
    if o.lowest:
        told.append(
            "warning: this is the lowest threshold that there is; the model hardly sees these"
            " cells, and training on them would help (cellcount train FOLDER --from MODEL)"
        )
    return told


@dataclasses.dataclass(frozen=True, eq=False)
class _AreaMask:
    """The area of an image, and what is within reach of it, as the mask of a job."""

    image: Dotted
    reach: np.ndarray

    def touches(self, region: Region, shape: Sequence[int], /) -> bool:
        """Whether cells in a region of the model's image may matter."""
        ours = []
        sides = zip(region, shape, self.image.shape, np.ceil(self.reach).astype(int), strict=True)
        for part, theirs, size, reach in sides:
            # A voxel more on both sides, as a point may lie a little outside of its tile.
            start = max(part.start - 1, 0) * size // theirs - reach
            stop = -(-(part.stop + 1) * size // theirs) + reach
            ours.append(slice(max(start, 0), min(stop, size)))
        return self.image.area.touches(tuple(ours))

    def holds(self, points: np.ndarray, shape: Sequence[int], /) -> np.ndarray:
        """Which points of the model's image lie in the area."""
        return self.image.area.holds(self.image.fitted.back(points))


def _edges(model: TrainedModel, image: Dotted) -> np.ndarray:
    """`(D,)` edges of the original's voxels, in the units of the model's distances."""
    return np.asarray(model.spacing) * np.divide(image.fitted.image.shape, image.shape)


def _reach(model: TrainedModel, image: Dotted) -> np.ndarray:
    """`(D,)` voxels of the original from a cell to its dot, at most."""
    reach: np.ndarray = model.config.evaluation.max_distance / _edges(model, image)
    return reach


def _evidence(
    model: TrainedModel, image: Dotted, searched: Search, dots: np.ndarray, tried: np.ndarray
) -> Evidence:
    """What the model finds in the area of an image at each of some thresholds.

    A cell at the area's border may be found on the other side of it than its dot. Cells outside
    match dots inside; for each, one cell inside without a dot is not taken for wrong, since about
    as many have their dots outside, where they are not known: of those at the border the one with
    the highest score. In a thin area all else would be chance.
    """
    edges, reach = _edges(model, image), _reach(model, image)
    hits = np.zeros((len(tried), len(dots)), bool)
    wrong = []
    for index, value in enumerate(tried.tolist()):
        chosen = detect.choose(
            searched.candidates,
            rule=model.config.detect.rule,
            threshold=value,
            target_peak=model.target_peak,
        )
        points = image.fitted.back(chosen.points)
        inside = image.area.holds(points)
        distance = model.config.evaluation.max_distance
        matching = metrics.match_points(
            points, dots, max_distance=distance, spacing=tuple(edges.tolist())
        )
        hits[index, matching.pairs[:, 1]] = True
        across = int((~inside[matching.pairs[:, 0]]).sum())
        inside[matching.pairs[:, 0]] = False
        scores = chosen.scores[inside]
        at_border = np.flatnonzero(_at_border(image, points[inside], reach))
        best = at_border[np.argsort(-scores[at_border], kind="stable")][:across]
        wrong.append(np.delete(scores, best))
    # A place is known by its score, which is the same at every threshold.
    places = np.unique(np.concatenate(wrong))
    return Evidence(tried, hits, np.array([np.isin(places, scores) for scores in wrong], bool))


def _at_border(image: Dotted, points: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """`(N,)` bool: whether a part of the image outside of the area is within reach of a point."""
    found = np.zeros(len(points), bool)
    for axis, step in enumerate(reach.tolist()):
        for sign in (-1, 1):
            moved = points.copy()
            moved[:, axis] += sign * step
            there = lies_in(moved, all_of(image.shape))
            found |= there & ~image.area.holds(moved)
    return found


def _integral(model: TrainedModel, image: Dotted, searched: Search) -> float | None:
    """The integral of the density over the area, without the count factor; None: not known."""
    parts = list(_densities_inside(image, searched))
    return math.fsum(parts) if parts else None


def _densities_inside(image: Dotted, searched: Search) -> Iterator[float]:
    for part, density in searched.densities():
        for index, values in enumerate(density):  # a plane or row at a time
            start = [part[0].start + index, *(p.start for p in part[1:])]
            places = np.indices(values.shape).reshape(values.ndim, -1).T + start[1:]
            points = np.column_stack([np.full(len(places), start[0]), places])
            inside = image.area.holds(image.fitted.back(points.astype(np.float32)))
            yield float(values.ravel()[inside].sum(dtype=np.float64))


def card_of(model: str, card: str, images: Sequence[str], outcome: Outcome) -> str:
    """The card of a calibrated model, in Markdown.

    Args:
      model: the name of the model that was calibrated.
      card: of that model.
      images: on whose dots.
      outcome: of the calibration.
    """
    told = "\n".join(f"- {line}" for line in lines(outcome))
    return (
        f"# {Path(model).stem}, calibrated\n\n{Path(model).stem} with the threshold for images such"
        f" as {', '.join(images)}, chosen on {outcome.dots} dots in"
        f" {'them' if len(images) > 1 else 'it'}; its weights are the same.\n\n{told}\n\n## Before"
        f" calibration\n\n{card.replace(chr(10) + '#', chr(10) + '##').lstrip('#').strip()}\n"
    )
