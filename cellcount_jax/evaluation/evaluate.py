"""The evaluation of a trained model: calibration, scores of test sets, files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import logging

from cellcount_jax.config import RULES
from cellcount_jax.data import sample
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.evaluation import metrics, scoring
from cellcount_jax.evaluation.threshold import FRACTIONS, calibrate_on_dots
from cellcount_jax.images import files
from cellcount_jax.images.points import write_points
from cellcount_jax.images.regions import Array, Readable, Resampled
from cellcount_jax.inference import model_file, reference
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.job import Maps
from cellcount_jax.inference.search import candidates_of
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.maps import detect
from cellcount_jax.maps.detect import Candidates
from cellcount_jax.report import pictures


class Predicted(NamedTuple):
    """A labelled image with the model's maps and all peaks in them."""

    sample: Sample
    maps: Maps
    candidates: Candidates


def predict(model: TrainedModel, sample: Sample) -> Predicted:
    """The maps of a labelled image and the peaks above 0 in them."""
    maps = model.predict_maps(sample.image, original=sample.original)
    return Predicted(sample, maps, candidates_of(model, maps.location, floor=0.0))


def calibrate(
    model: TrainedModel, images: Sequence[Predicted]
) -> tuple[TrainedModel, dict[str, float | None]]:
    """Chooses every rule's threshold, and the count's factor, on labelled images.

    Args:
      model: before calibration.
      images: that were left out of training; or the training images.

    Returns:
      The model with thresholds, and each rule's F1 on the images, without the splitting
      of `config.detect.split_from`; None for a rule that is not calibrated.
    """
    config, distance = model.config, model.config.evaluation.max_distance
    thresholds: dict[str, float] = {}
    reached: dict[str, float | None] = {}
    for rule in RULES:
        if rule == "fidt":
            thresholds[rule], reached[rule] = detect.FIDT_FRACTION, None
            continue
        if config.detect.threshold > 0:
            thresholds[rule], reached[rule] = config.detect.threshold, None
            continue

        def count_at(threshold: float, rule: str = rule) -> tuple[int, int, int]:
            # Without splitting: a threshold decides which peaks are cells, before they are split.
            found = metrics.pooled(
                scoring.match(
                    image.sample,
                    detect.choose(image.candidates, rule=rule, threshold=threshold).points,
                    max_distance=distance,
                )
                for image in images
            )
            return found.tp, found.fp, found.fn

        thresholds[rule], reached[rule] = calibrate_on_dots(
            count_at, FRACTIONS * model.target_peak, dots=_dots(images)
        )
    factor = _count_factor(model, images)
    model = dataclasses.replace(model, thresholds=thresholds, count_factor=factor)
    return dataclasses.replace(model, reference=_reference(model, images)), reached


def _reference(model: TrainedModel, images: Sequence[Predicted]) -> reference.Reference:
    """What the calibration images look like where the model counts them."""
    return reference.of_images(
        model, ((_readable(image.sample), _found(model, image)) for image in images)
    )


def _readable(sample: Sample) -> Readable:
    """A sample as the image that was counted: what was resampled is measured before that."""
    ndim = len(sample.shape)
    if sample.original is None:
        return Array(sample.image, ndim)
    return Resampled(Array(sample.original, ndim), sample.shape)


def _found(model: TrainedModel, image: Predicted) -> Found:
    """The cells that the model's own rule chooses."""
    candidates, rule = image.candidates, model.config.detect.rule
    chosen = detect.choose(
        candidates, rule=rule, threshold=model.thresholds[rule], target_peak=model.target_peak
    )
    points, scores = model.split_merged(chosen.points, chosen.scores, image.maps.density)
    return Found(points, scores, chosen.threshold, candidates.points, candidates.scores, None)


def _count_factor(model: TrainedModel, images: Sequence[Predicted]) -> float:
    """The factor by which the integrals of the images add up to their dots."""
    found = sum(model.integral(i.maps.density, region=i.sample.valid) or 0.0 for i in images)
    return _dots(images) / found if found > 0 else 1.0


def _dots(images: Sequence[Predicted]) -> int:
    return sum(len(sample.voxels_inside(i.sample)) for i in images)


def evaluate(model: TrainedModel, dataset: Dataset, workdir: Path) -> dict[str, Any]:
    """Calibrates and scores a trained model; writes model.zip and evaluation/.

    Args:
      model: trained, not calibrated.
      dataset: with the test sets; without any, the images that choose the threshold are scored, as
        set 'calibration' where they were left out of training, else 'train'.
      workdir: of the run.

    Returns:
      The content of evaluation/metrics.json.
    """
    config, folder = model.config, workdir / "evaluation"
    chosen_on = dataset.calibration or dataset.labelled
    known = [predict(model, labelled) for labelled in chosen_on]
    model, reached = calibrate(model, known)
    about = f"# {config.name}\n\n{dataset.description}; step {model.step} of training.\n"
    about += model_file.about_parent(config)
    model_file.export_model(model, workdir / model_file.MODEL_FILE, card=about)
    sets = dataset.tests or {"calibration" if dataset.calibration else "train": chosen_on}
    if not dataset.tests:
        logging.warning(
            "no test images: the scores are of %s",
            "what was left out of training to choose the threshold"
            if dataset.calibration
            else "the training images themselves",
        )
    summary: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for set_name, samples in sets.items():
        results: dict[str, list[scoring.ImageResult]] = {rule: [] for rule in RULES}
        for labelled in samples:
            # The maps of one image at a time are kept.
            image = _predicted_before(labelled, known) or predict(model, labelled)
            for rule, found in results.items():
                found.append(_result(model, image, rule))
        summary[set_name] = {rule: scoring.pooled_scores(r) for rule, r in results.items()}
        integral = scoring.integral_scores(results[config.detect.rule])
        if integral is not None:
            summary[set_name]["integral"] = integral
        rows += [
            scoring.table_row(set_name, rule, r) for rule, found in results.items() for r in found
        ]
        _write_images(folder / set_name, results[config.detect.rule], config)
    main_set = next(iter(sets))
    parent = None
    if config.init_from:
        parent = {"model": config.init_from, "sha256": config.init_digest}
    rule = config.detect.rule
    content = {
        "dataset": dataset.description,
        "step": model.step,
        "parent": parent,
        "set": main_set,
        "rule": rule,
        "threshold": model.thresholds[rule],
        **summary[main_set][rule],
        "max_distance": config.evaluation.max_distance,
        "max_distance_unit": "um" if model.spacing_known else "voxel",
        "thresholds": model.thresholds,
        "calibrated_on": {
            "part": "left out of training" if dataset.calibration else "training images",
            "images": len(known),
            "dots": _dots(known),
        },
        "f1_on_training_images": reached,
        "sets": summary,
    }
    table = (row.values() for row in rows)
    files.write_table(folder / "per_image.csv", rows[0], table, line_end="\n")
    files.write_json(folder / "metrics.json", content)
    return content


def _predicted_before(sample: Sample, images: Sequence[Predicted]) -> Predicted | None:
    """A held-out region of one of some images, which has the maps of that image."""
    known = (image for image in images if image.sample.image is sample.image)
    return next((image._replace(sample=sample) for image in known), None)


def _result(model: TrainedModel, image: Predicted, rule: str) -> scoring.ImageResult:
    """The scores of the cells that a rule chooses."""
    chosen = detect.choose(
        image.candidates,
        rule=rule,
        threshold=model.thresholds[rule],
        target_peak=model.target_peak,
    )
    return scoring.score_image(
        image.sample,
        *model.split_merged(chosen.points, chosen.scores, image.maps.density),
        max_distance=model.config.evaluation.max_distance,
        integral=model.integral(image.maps.density, region=image.sample.valid),
    )


def _write_images(
    folder: Path, results: Sequence[scoring.ImageResult], config: ml_collections.ConfigDict
) -> None:
    """Points of every image, and pictures of the first ones."""
    for i, r in enumerate(results):
        path = folder / f"{r.sample.name}.csv"
        write_points(path, r.sample.in_file(r.points), scores=r.scores)
        if i >= config.evaluation.overlays:
            continue
        found = np.zeros(len(r.points), bool)
        found[r.matching.pairs[:, 0]] = True
        seen = np.zeros(len(r.true), bool)
        seen[r.matching.pairs[:, 1]] = True
        pictures.save_overlay(
            folder / f"{r.sample.name}.png",
            r.sample.image,
            predicted=r.points,
            true=r.true,
            matched_predicted=found,
            matched_true=seen,
            valid=r.sample.valid,
            spacing=r.sample.spacing if r.sample.spacing_known else None,
            title=r.sample.name,
        )


def as_table(content: Mapping[str, Any], *, all_rules: bool = True) -> str:
    """The scores of an evaluation as lines for a terminal.

    Args:
      content: of evaluation/metrics.json.
      all_rules: whether the rules that the run does not count by have lines too.
    """
    counts = ("images", "true", "predicted")
    lines = [["set", "rule", "threshold", *counts, "precision", "recall", "F1", "MAE", "RMSE"]]
    for set_name, rules in content["sets"].items():
        for rule, s in rules.items():
            if not all_rules and rule != content["rule"]:
                continue
            if rule == "integral":
                blank = [""] * 7
                lines.append([set_name, rule, *blank, *(f"{s[k]:.2f}" for k in ("mae", "rmse"))])
                continue
            lines.append(
                [
                    set_name,
                    rule + (" *" if rule == content["rule"] else ""),
                    f"{content['thresholds'][rule]:.3g}",
                    *(str(s[k]) for k in counts),
                    *(f"{s[k]:.4f}" for k in ("precision", "recall", "f1")),
                    *(f"{s[k]:.2f}" for k in ("mae", "rmse")),
                ]
            )
    caption = f"true within {content['max_distance']:g} {content['max_distance_unit']}"
    if all_rules:
        caption += "; * the rule of this run"
    else:  # of one rule nothing is to be told apart
        lines = [[line[0], *line[2:]] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return (
        "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        + f"\n{caption}"
    )
