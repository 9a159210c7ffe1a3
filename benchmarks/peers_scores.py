"""A program's settings chosen on training volumes, and what it finds with them on test volumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import difference_of_gaussians as dog
import numpy as np
from peers_cells import Dataset, Method, Settings, path_of
from peers_worker import Failed
from transfer import read_sample

from cellcount_jax.data.sample import Sample
from cellcount_jax.evaluation import metrics, scoring

# Sample, settings -> (N, 4) z, y, x and a score.
Find = Callable[[Sample, Settings], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the training volumes chose.

    Attributes:
      settings: of the program.
      threshold: of the scores; None where detections have none.
      f1: on the training volumes with it.
      candidates: of all settings that were tried, with the F1 of each, or why there is none.
    """

    settings: Settings
    threshold: float | None
    f1: float
    candidates: Sequence[Mapping[str, Any]]


def choose(
    candidates: Sequence[Settings],
    samples: Sequence[Sample],
    find: Find,
    *,
    scored: bool,
    max_distance: float,
) -> Choice:
    """The settings with the highest F1 on the training volumes, the first of equal ones.

    Args:
      candidates: settings to try.
      samples: training volumes; what is outside of their valid region counts nowhere.
      find: the program.
      scored: whether a threshold of the scores is chosen too, see `dog.calibrated`.
      max_distance: of a true detection, in um.

    Raises:
      Failed: the program could do none of them.
    """
    tried: list[dict[str, Any]] = []
    best: Choice | None = None
    for settings in candidates:
        try:
            found = [find(sample, settings) for sample in samples]
        except Failed as error:
            tried.append({"settings": dict(settings), "failed": str(error)})
            continue
        if scored:
            peaks = [
                dog.Peaks(sample, points[kept, :3], points[kept, 3])
                for sample, points in zip(samples, found, strict=True)
                for kept in [scoring.is_valid(points[:, :3], sample)]
            ]
            threshold, f1 = dog.calibrated(peaks, max_distance)
        else:
            threshold, f1 = None, pooled_f1(samples, found, max_distance)
        tried.append({"settings": dict(settings), "threshold": threshold, "f1": f1})
        if best is None or f1 > best.f1:
            best = Choice(settings, threshold, f1, tried)
    if best is None:
        raise Failed(tried[-1]["failed"])
    return best


def pooled_f1(samples: Sequence[Sample], found: Sequence[np.ndarray], max_distance: float) -> float:
    """F1 over several volumes."""
    return metrics.pooled(
        scoring.match(sample, points[:, :3], max_distance=max_distance)
        for sample, points in zip(samples, found, strict=True)
    ).f1


def score(choice: Choice, samples: Sequence[Sample], find: Find, max_distance: float) -> Any:
    """Scores of test volumes with the chosen settings: pooled, and volume by volume."""
    each = []
    for sample in samples:
        points = find(sample, choice.settings)
        if choice.threshold is not None:
            points = points[points[:, 3] > choice.threshold]
        matching = scoring.match(sample, points[:, :3], max_distance=max_distance)
        each.append((sample.name, matching))
    whole = metrics.pooled(matching for _, matching in each)
    counts = [(m.tp + m.fp, m.tp + m.fn) for _, m in each]
    return {
        "f1": whole.f1,
        "precision": whole.precision,
        "recall": whole.recall,
        "mae": float(np.mean([abs(found - true) for found, true in counts])),
        "volumes": [
            {"name": name, "f1": m.f1, "found": m.tp + m.fp, "true": m.tp + m.fn}
            for name, m in each
        ],
    }


def run(
    dataset: Dataset, method: Method, candidates: Sequence[Settings], find: Find, data: Path
) -> dict[str, Any]:
    """Chooses on the training volumes of a data set; then, and only then, scores its tests."""

    def read(volumes: Sequence[tuple[str, str]]) -> list[Sample]:
        return [read_sample(path_of(data, dataset, name), rows) for name, rows in volumes]

    distance = dataset.max_distance
    choice = choose(
        candidates, read(dataset.train), find, scored=method.scored, max_distance=distance
    )
    return {
        "settings": dict(choice.settings),
        "threshold": choice.threshold,
        "f1_on_training_volumes": choice.f1,
        "candidates": list(choice.candidates),
        "train": [name for name, _ in dataset.train],
        "max_distance_um": distance,
        "sets": {
            name: score(choice, read(volumes), find, distance)
            for name, volumes in dataset.tests.items()
        },
    }
