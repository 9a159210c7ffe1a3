"""Scores of known predictions: calibration on training images alone, regions, rules, files."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellcount_jax.config import RULES, default_config
from cellcount_jax.data.sample import Dataset, Sample
from cellcount_jax.evaluation import evaluate
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.points import read_points
from cellcount_jax.inference.job import Maps
from cellcount_jax.inference.trained_model import TrainedModel

SHAPE = (30, 40)


def blobs(points: Sequence[Sequence[float]], heights: Sequence[float] | float = 1.0) -> np.ndarray:
    """A map with a pyramid of the given height and of 3 voxels' width at each of some points."""
    found = np.zeros(SHAPE, np.float32)
    each = [heights] * len(points) if isinstance(heights, int | float) else heights
    for (y, x), height in zip(np.asarray(points, int).reshape(-1, 2), each, strict=True):
        found[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 0.5 * height
        found[y, x] = height
    return found


def sample(name: str, points: Sequence[Sequence[float]], **fields: Any) -> Sample:
    dots = np.asarray(points, np.float32).reshape(-1, 2)
    image = np.random.default_rng(len(dots)).uniform(0, 9, (*SHAPE, 1)).astype(np.float32)
    return dataclasses.replace(Sample(name, image, dots, (1.0, 1.0)), **fields)


def dataset_of(train: Sequence[Sample], **tests: Sequence[Sample]) -> Dataset:
    sets = {name: tuple(samples) for name, samples in tests.items()}
    return Dataset("known images", tuple(train), (), sets)


class Known:
    """Evaluates with maps that are given instead of predicted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
        self.maps: dict[str, np.ndarray] = {}
        self.densities: dict[str, np.ndarray] = {}
        self.workdir = workdir
        self.predicted: list[str] = []
        self.config = default_config()
        self.config.evaluation.max_distance = 2.0
        monkeypatch.setattr(
            TrainedModel, "predict_maps", lambda _, image, **options: self._maps_of(image)
        )
        self._samples: list[Sample] = []

    def _maps_of(self, image: np.ndarray) -> Maps:
        name = next(one.name for one in self._samples if one.image is image)
        self.predicted.append(name)
        return Maps(self.maps[name], self.densities.get(name))

    def stored(self) -> dict[str, Any]:
        with zipfile.ZipFile(self.workdir / "model.zip") as archive:
            content: dict[str, Any] = json.loads(archive.read("model.json"))
            return content

    def run(self, dataset: Dataset) -> dict[str, Any]:
        tests = (s for part in dataset.tests.values() for s in part)
        self._samples, self.predicted = [*dataset.labelled, *dataset.calibration, *tests], []
        for one in self._samples:
            assert one.points is not None
            self.maps.setdefault(one.name, blobs(one.points.tolist()))
        first = dataset.labelled[0]
        model = TrainedModel(
            step=7,
            config=self.config,
            variables={},
            normalisation=Normalisation("standardise"),
            channels=1,
            spacing=first.spacing,
            spacing_known=first.spacing_known,
        )
        return evaluate.evaluate(model, dataset, self.workdir)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Known:
    return Known(monkeypatch, tmp_path / "run")


TRAIN = [sample("a", [[5, 5], [20, 30]]), sample("b", [[9, 9]])]


def test_perfect_maps_are_perfect_under_every_rule(known: Known) -> None:
    test = [sample("t", [[4, 4], [10, 20], [25, 35]]), sample("none", [])]
    content = known.run(dataset_of(TRAIN, test=test))
    assert content["set"] == "test" and content["rule"] == "peaks"
    for rule in RULES:
        scores = content["sets"]["test"][rule]
        assert (scores["precision"], scores["recall"], scores["f1"]) == (1.0, 1.0, 1.0)
        assert (scores["mae"], scores["rmse"]) == (0.0, 0.0)
        assert (scores["images"], scores["true"], scores["predicted"]) == (2, 3, 3)
    assert content["f1_on_training_images"] == {"peaks": 1.0, "components": 1.0, "fidt": None}
    # All thresholds below 1 are perfect; the middle is furthest from losing or inventing cells.
    assert content["threshold"] == pytest.approx(0.5)
    assert content["thresholds"]["fidt"] == pytest.approx(100 / 255)
    assert content["max_distance_unit"] == "voxel"


def test_known_errors_are_counted_and_pooled(known: Known) -> None:
    # Of 4 cells 3 are found, one of them 1 voxel away, with 2 inventions; then 1 of 1.
    first = sample("first", [[4, 4], [4, 20], [15, 10], [25, 35]])
    known.maps["first"] = blobs([[4, 4], [4, 21], [15, 10], [10, 30], [25, 5]])
    known.maps["second"] = blobs([[15, 15]])
    second = sample("second", [[15, 15]])
    content = known.run(dataset_of(TRAIN, test=[first, second]))
    tp, fp, fn = 4, 2, 1
    assert content["precision"] == pytest.approx(tp / (tp + fp))
    assert content["recall"] == pytest.approx(tp / (tp + fn))
    assert content["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert content["mae"] == pytest.approx((1 + 0) / 2)
    assert content["rmse"] == pytest.approx(math.sqrt((1 + 0) / 2))

    with (known.workdir / "evaluation" / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(RULES)
    row = next(r for r in rows if r["image"] == "first" and r["rule"] == "peaks")
    numbers = {name: float(row[name]) for name in row if name not in ("set", "image", "rule")}
    assert numbers == {
        **{"true": 4, "predicted": 5, "tp": 3, "fp": 2, "fn": 1},
        **{"precision": 0.6, "recall": 0.75, "f1": 0.6667},
    }


def test_a_prediction_further_away_than_the_limit_is_wrong(known: Known) -> None:
    known.maps["t"] = blobs([[10, 13]])
    content = known.run(dataset_of(TRAIN, test=[sample("t", [[10, 10]])]))
    assert (content["precision"], content["recall"], content["mae"]) == (0.0, 0.0, 0.0)


def test_distances_are_in_micrometres_where_the_voxel_size_is_known(known: Known) -> None:
    known.maps["t"] = blobs([[10, 13]])  # 3 voxels of 0.5 um off
    fields: dict[str, Any] = {"spacing": (0.5, 0.5), "spacing_known": True}
    train = [dataclasses.replace(one, **fields) for one in TRAIN]
    content = known.run(dataset_of(train, test=[sample("t", [[10, 10]], **fields)]))
    assert content["f1"] == 1.0
    assert content["max_distance_unit"] == "um"


def test_the_threshold_comes_from_the_training_images_alone(known: Known) -> None:
    # On the training images noise reaches 0.5 and cells 0.8; on the test images cells are dim.
    for one in TRAIN:
        assert one.points is not None
        dots = [*one.points.tolist(), [25, 10]]
        known.maps[one.name] = blobs(dots, [0.8] * len(one.points) + [0.5])
    known.maps["t"] = blobs([[10, 10]], 0.4)
    content = known.run(dataset_of(TRAIN, test=[sample("t", [[10, 10]])]))
    assert 0.5 <= content["threshold"] < 0.8
    assert content["threshold"] == pytest.approx((0.5 + 0.78) / 2, abs=0.021)
    assert content["sets"]["test"]["peaks"]["f1"] == 0.0
    # Relative to the map's own maximum, the dim cell is found.
    assert content["sets"]["test"]["fidt"]["f1"] == 1.0


def test_a_given_threshold_is_not_calibrated(known: Known) -> None:
    known.config.detect.threshold = 0.9
    known.maps["t"] = blobs([[10, 10], [20, 20]], [0.85, 0.95])
    content = known.run(dataset_of(TRAIN, test=[sample("t", [[10, 10], [20, 20]])]))
    assert content["thresholds"]["peaks"] == content["thresholds"]["components"] == 0.9
    assert content["predicted"] == 1
    assert content["f1_on_training_images"]["peaks"] is None


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_of_the_config_is_the_one_at_the_top(known: Known, rule: str) -> None:
    known.config.detect.rule = rule
    # Two cells that touch above the threshold: one component, two peaks.
    known.maps["t"] = blobs([[10, 10], [10, 12]])
    content = known.run(dataset_of(TRAIN, test=[sample("t", [[10, 10], [10, 12]])]))
    assert content["rule"] == rule
    assert content["threshold"] == content["thresholds"][rule]
    assert content["predicted"] == content["sets"]["test"][rule]["predicted"]
    points = read_points(known.workdir / "evaluation" / "test" / "t.csv", ndim=2)
    assert len(points) == content["predicted"]


def test_outside_of_the_valid_region_nothing_counts(known: Known) -> None:
    valid = np.zeros(SHAPE, bool)
    valid[:, :20] = True
    # Inside: one found, one missed. Outside: one found, one missed, one invented.
    one = sample("t", [[5, 5], [15, 15], [5, 30], [15, 35]], valid=valid)
    known.maps["t"] = blobs([[5, 5], [5, 30], [25, 30]])
    content = known.run(dataset_of(TRAIN, test=[one]))
    assert (content["true"], content["predicted"]) == (2, 1)
    assert (content["precision"], content["recall"]) == (1.0, 0.5)
    points = read_points(known.workdir / "evaluation" / "test" / "t.csv", ndim=2)
    assert points.tolist() == [[5.0, 5.0]]


def test_a_held_out_region_has_the_maps_of_its_image(known: Known) -> None:
    valid = np.zeros(SHAPE, bool)
    valid[:, 25:] = True
    held_out = dataclasses.replace(TRAIN[0], valid=valid)
    # Another image of the same name is another image.
    test = sample("b", [[3, 3], [8, 8], [20, 20]])
    content = known.run(dataset_of(TRAIN, held_out=[held_out], test=[test]))
    assert known.predicted == ["a", "b", "b"]
    scores = content["sets"]["held_out"]["peaks"]
    assert (scores["true"], scores["predicted"], scores["f1"]) == (1, 1, 1.0)


def test_the_integral_of_a_density_counts_too(known: Known) -> None:
    valid = np.ones(SHAPE, bool)
    valid[:, 20:] = False
    first = dataclasses.replace(sample("first", [[4, 4], [10, 10], [20, 30]]), valid=valid)
    second = sample("second", [[15, 15]])
    for one in (*TRAIN, first, second):
        known.densities[one.name] = np.zeros(SHAPE, np.float32)
    known.densities["first"][3, 4:8] = 1.0  # 4 where 2 dots count
    known.densities["first"][3, 30] = 9.0
    known.densities["second"][0, 0] = 0.5
    content = known.run(dataset_of(TRAIN, test=[first, second]))
    errors = content["sets"]["test"]["integral"]
    assert errors["mae"] == pytest.approx((2 + 0.5) / 2)
    assert errors["rmse"] == pytest.approx(math.sqrt((4 + 0.25) / 2))
    with (known.workdir / "evaluation" / "per_image.csv").open(newline="") as file:
        found = {row["image"]: row["integral"] for row in csv.DictReader(file)}
    assert found == {"first": "4.0", "second": "0.5"}
    assert "integral" in evaluate.as_table(content)


def test_the_training_images_calibrate_the_integral(known: Known) -> None:
    test = sample("t", [[4, 4], [10, 20]])
    for one in (*TRAIN, test):
        known.densities[one.name] = np.zeros(SHAPE, np.float32)
        known.densities[one.name][2, 3] = 0.8 * len(np.asarray(one.points))
    content = known.run(dataset_of(TRAIN, test=[test]))
    assert content["sets"]["test"]["integral"]["mae"] == pytest.approx(0, abs=1e-5)
    assert known.stored()["count_factor"] == pytest.approx(1.25)


def test_with_a_count_head_cells_on_each_other_are_split(known: Known) -> None:
    known.config.target.count_head = True
    test = sample("t", [[10, 10], [10, 13], [20, 30]])
    known.maps["t"] = blobs([[10, 11], [20, 30]])
    for one in (*TRAIN, test):
        known.densities[one.name] = blobs(np.asarray(one.points).tolist()) / 5.0  # 1 a cell
    content = known.run(dataset_of(TRAIN, test=[test]))
    scores = content["sets"]["test"]["peaks"]
    assert (scores["predicted"], scores["f1"], scores["mae"]) == (3, 1.0, 0.0)
    known.config.detect.split_from = 0.0
    unsplit = known.run(dataset_of(TRAIN, test=[test]))["sets"]["test"]["peaks"]
    assert (unsplit["predicted"], unsplit["mae"]) == (2, 1.0)


def test_full_annotations_also_tell_what_lies_inside_a_cell(known: Known) -> None:
    labels = np.zeros(SHAPE, np.int32)
    labels[2:12, 2:12] = 1
    labels[20:23, 20:23] = 2
    # 4 voxels from its dot, further than allowed, but inside the cell.
    known.maps["t"] = blobs([[11, 7], [21, 21]])
    one = sample("t", [[7, 7], [21, 21]], labels=labels)
    content = known.run(dataset_of(TRAIN, test=[one]))
    assert content["f1"] == 0.5
    assert content["inside_cell"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    content = known.run(dataset_of(TRAIN, test=[one, sample("u", [[9, 9]])]))
    assert "inside_cell" not in content  # not every image has an annotation


def test_without_test_images_the_training_images_are_scored_and_said_to_be(
    known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    content = known.run(dataset_of(TRAIN))
    assert content["set"] == "train" and list(content["sets"]) == ["train"]
    assert content["images"] == 2
    assert "the scores are of the training images themselves" in caplog.text


def test_what_was_left_out_of_training_chooses_the_threshold(
    known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    # The training images would have every threshold right.
    held_out = sample("held", [[5, 5], [20, 30]])
    known.maps["held"] = blobs([[5, 5], [20, 30], [9, 9]], [0.9, 0.8, 0.6])
    dataset = dataclasses.replace(dataset_of(TRAIN), calibration=(held_out,))
    content = known.run(dataset)
    assert known.predicted == ["held"]
    assert 0.6 <= content["threshold"] < 0.8
    assert content["calibrated_on"] == {"part": "left out of training", "images": 1, "dots": 2}
    assert content["set"] == "calibration" and "left out of training" in caplog.text
    content = known.run(dataset_of(TRAIN))
    assert content["calibrated_on"] == {"part": "training images", "images": 2, "dots": 3}


def test_parts_of_the_training_images_choose_the_threshold(known: Known) -> None:
    left = np.zeros(SHAPE, bool)
    left[:, :20] = True
    whole = sample("a", [[5, 5], [20, 30]])
    train, held = (dataclasses.replace(whole, valid=part) for part in (left, ~left))
    known.maps["a"] = blobs([[5, 5], [20, 30], [9, 30]], [0.2, 0.8, 0.5])
    content = known.run(dataclasses.replace(dataset_of([train], test=[held]), calibration=(held,)))
    assert known.predicted == ["a"]  # once
    assert 0.5 <= content["threshold"] < 0.8
    assert content["calibrated_on"]["dots"] == 1


def test_the_files_of_an_evaluation(known: Known) -> None:
    known.config.evaluation.overlays = 1
    sets = {
        "test": [sample("t0", [[9, 9], [20, 20]]), sample("t1", [[3, 3]])],
        "held_out": [sample("a", [[5, 5]])],
    }
    content = known.run(dataset_of(TRAIN, **sets))
    folder = known.workdir / "evaluation"
    assert json.loads((folder / "metrics.json").read_text()) == content
    found = sorted(str(p.relative_to(known.workdir)) for p in known.workdir.rglob("*.*"))
    assert found == [
        "evaluation/held_out/a.csv",
        "evaluation/held_out/a.png",
        "evaluation/metrics.json",
        "evaluation/per_image.csv",
        "evaluation/test/t0.csv",
        "evaluation/test/t0.png",
        "evaluation/test/t1.csv",
        "model.zip",
    ]
    assert (folder / "test" / "t0.csv").read_text() == (
        "y,x,score\n9.000,9.000,1\n20.000,20.000,1\n"
    )
    assert known.stored()["thresholds"] == content["thresholds"]


def test_the_table_has_a_line_for_each_set_and_rule(known: Known) -> None:
    content = known.run(dataset_of(TRAIN, test=[sample("t", [[9, 9]])]))
    heading, *lines, caption = evaluate.as_table(content).splitlines()
    assert caption == "true within 2 voxel; * the rule of this run"
    assert heading.split()[:3] == ["set", "rule", "threshold"]
    assert [line.split()[1] for line in lines] == list(RULES)
    assert [("*" in line) for line in lines] == [rule == "peaks" for rule in RULES]
    for line in lines:
        assert line.split()[-5:] == ["1.0000", "1.0000", "1.0000", "0.00", "0.00"]
        assert heading.index("F1") == line.index("1.0000", heading.index("recall") + 6)
