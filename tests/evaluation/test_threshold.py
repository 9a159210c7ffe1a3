"""The choice of a threshold on tables of counts, and its certainty against drawn scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.threshold import (
    FRACTIONS,
    Evidence,
    calibrate_on_dots,
    calibrate_threshold,
    certainty,
    pooled,
)


def counts_from(tp_at):
    """count_at with 100 true cells and no false positives."""
    return lambda threshold: (tp_at[threshold], 0, 100 - tp_at[threshold])


def test_calibration_takes_the_middle_of_the_widest_run_with_the_best():
    tp = [50, 90, 90, 80, 90, 90, 90, 90, 60, 20]
    table = {float(t): n for t, n in enumerate(tp)}
    threshold, f1 = calibrate_threshold(counts_from(table), sorted(table))
    assert threshold == 5.0
    assert f1 == pytest.approx(180 / 190)


def test_calibration_keeps_to_the_run_of_the_best_within_the_tolerance():
    tp = [899, 899, 899, 899, 0, 899, 900, 899, 0]
    table = {float(t): n for t, n in enumerate(tp)}

    def count_at(threshold):
        return table[threshold], 0, 1000 - table[threshold]

    assert calibrate_threshold(count_at, sorted(table))[0] == 6.0
    assert calibrate_threshold(count_at, sorted(table), tolerance=0.0)[0] == 6.0
    threshold, f1 = calibrate_threshold(count_at, sorted(table), tolerance=1.0)
    assert threshold == 4.0 and f1 == 0.0


def test_calibration_without_any_hit_gives_the_highest_threshold():
    assert calibrate_threshold(lambda _: (0, 5, 7), [0.1, 0.2, 0.3]) == (0.3, 0.0)


@pytest.mark.parametrize("thresholds", [[], [0.2, 0.1], [0.1, 0.1], [0.1, float("nan")]])
def test_calibration_needs_increasing_thresholds(thresholds):
    with pytest.raises(InputError, match="increasing"):
        calibrate_threshold(lambda _: (1, 0, 0), thresholds)


def drawn(seed, dots, *, per_dot=1.0):
    """Cells whose scores are normal about 0.55, and wrong places that are so about 0.25."""
    rng = np.random.default_rng(seed)
    wrong = rng.normal(0.25, 0.12, rng.poisson(per_dot * dots))
    cells = rng.normal(0.55, 0.15, dots)
    above = FRACTIONS[:, None]
    return Evidence(FRACTIONS, cells[None] > above, wrong[None] > above)


TRUTH = drawn(1000, 50_000)


def test_f1_and_what_is_found_by_definition():
    evidence = drawn(0, 40)
    for index, f1 in enumerate(evidence.f1):
        tp, fp = int(evidence.hits[index].sum()), int(evidence.wrong[index].sum())
        assert f1 == pytest.approx(2 * tp / (2 * tp + fp + 40 - tp))
        assert evidence.found[index] == tp + fp
    both = pooled([evidence, drawn(1, 10)])
    assert both.dots == 50 and both.wrong.shape[1] > evidence.wrong.shape[1]


def test_few_dots_choose_nearly_as_well_as_many():
    def loss(evidence):
        return TRUTH.f1.max() - TRUTH.f1[evidence.choose()]

    assert loss(TRUTH) < 0.002
    assert np.mean([loss(drawn(seed, 50)) for seed in range(40)]) < 0.01
    # The best threshold itself follows chance more.
    best = [TRUTH.f1.max() - TRUTH.f1[drawn(seed, 50).f1.argmax()] for seed in range(40)]
    assert np.mean([loss(drawn(seed, 50)) for seed in range(40)]) < np.mean(best)


def test_a_step_of_a_quarter_of_a_dot_is_none():
    hits = [20, 20, 20, 20, 19, 18, 17]

    def count_at(threshold):
        return hits[int(threshold)], 0, 20 - hits[int(threshold)]

    assert calibrate_on_dots(count_at, range(7), dots=20) == (1.0, 1.0)
    with pytest.raises(InputError, match="increasing"):
        calibrate_on_dots(count_at, [], dots=20)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    inside, losses, expected = 0, [], []
    for seed in range(60):
        evidence = drawn(seed, 50)
        chosen = evidence.choose()
        sure = certainty(evidence, chosen)
        low, high = sure.cells_per_found
        inside += low <= TRUTH.dots / TRUTH.found[chosen] <= high
        losses.append(TRUTH.f1.max() - TRUTH.f1[chosen])
        expected.append(sure.loss)
        assert sure.f1 < evidence.f1[chosen] + 0.02
    assert 48 <= inside <= 60
    assert np.mean(expected) == pytest.approx(np.mean(losses), abs=0.01)


def test_more_dots_are_worth_while_until_they_are_enough():
    few, many = (certainty(e, e.choose()) for e in (drawn(0, 20), drawn(0, 2000)))
    assert few.more_dots > 20 and many.more_dots == 0
    widths = [np.log(high / low) for low, high in (few.cells_per_found, many.cells_per_found)]
    assert widths[0] > 5 * widths[1] and few.loss > many.loss
    assert certainty(drawn(0, 20), drawn(0, 20).choose()) == few  # seeded
    assert certainty(drawn(0, 20), drawn(0, 20).choose(), seed=1) != few


def test_perfect_evidence_is_sure():
    evidence = drawn(0, 50)
    perfect = dataclasses.replace(
        evidence, hits=np.ones_like(evidence.hits), wrong=evidence.wrong[:, :0]
    )
    sure = certainty(perfect, perfect.choose())
    assert (sure.f1, sure.loss, sure.more_dots) == (1.0, 0.0, 0)
    np.testing.assert_allclose(sure.cells_per_found, 1.0, atol=1e-9)
