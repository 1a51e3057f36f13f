# SPDX-License-Identifier: Apache-2.0
"""Rates, intervals and the figures of DESIGN.md section 3, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from lancet_onnx.verify.metrics import (
    Labels,
    Rate,
    as_numbers,
    changed_labels,
    corrections,
    mcnemar,
    measure,
    moves_of,
    paired_rise,
)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        # Published values: Brown, Cai, DasGupta 2001; R's binom.confint(method="wilson").
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (8, 10, 0.4902, 0.9433),
        (5, 10, 0.2366, 0.7634),
        (1, 20, 0.0089, 0.2361),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 1, 0.0, 0.7935),
    ],
)
def test_wilson_intervals(count: int, n: int, low: float, high: float):
    rate = Rate(count, n)
    assert rate.value == count / n
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=6e-5)


def test_a_rate_of_nothing_is_unknown():
    rate = Rate(0, 0)
    assert math.isnan(rate.value)
    assert (rate.low, rate.high) == (0.0, 1.0)


def test_a_rate_counts():
    assert Rate.of(np.array([True, False, True])) == Rate(2, 3)


# Ten images; the attacker's class is 9. The original gets image 4 wrong and image 5 (of class 1)
# to the target even without the trigger.
TRUE = np.array([0, 0, 1, 1, 2, 1, 3, 3, 9, 9])
ORIGINAL = Labels(
    clean=np.array([0, 0, 1, 1, 3, 9, 3, 3, 9, 9]),
    triggered=np.array([9, 9, 9, 1, 9, 9, 9, 0, 9, 9]),
)
REPAIRED = Labels(
    clean=np.array([0, 0, 1, 2, 3, 9, 3, 3, 9, 0]),
    triggered=np.array([0, 9, 1, 2, 9, 9, 3, 3, 9, 0]),
)


def test_figures_of_the_original():
    assert measure(ORIGINAL, ORIGINAL, TRUE, 9) == {
        "agreement": Rate(10, 10),
        "clean_accuracy": Rate(8, 10),
        "attack_success": Rate(6, 8),
        "base_rate": Rate(1, 8),
        "attack_success_correct": Rate(4, 6),
        "recovery": Rate(1, 6),
    }


def test_figures_of_the_repaired():
    assert measure(REPAIRED, ORIGINAL, TRUE, 9) == {
        "agreement": Rate(8, 10),
        "clean_accuracy": Rate(6, 10),
        "attack_success": Rate(3, 8),
        "base_rate": Rate(1, 8),
        "attack_success_correct": Rate(1, 6),
        "recovery": Rate(4, 6),
    }


def test_figures_without_labels():
    """What the original says of the clean image stands in for its label."""
    assert measure(REPAIRED, ORIGINAL, None, 9) == {
        "agreement": Rate(8, 10),
        "attack_success": Rate(2, 7),
        "base_rate": Rate(0, 7),
        "attack_success_correct": Rate(2, 7),
        "recovery": Rate(4, 7),
    }


def test_figures_without_a_trigger():
    expected = {"agreement": Rate(8, 10), "clean_accuracy": Rate(6, 10)}
    assert measure(REPAIRED, ORIGINAL, TRUE, None) == expected
    without = Labels(REPAIRED.clean, None)
    assert measure(without, ORIGINAL, TRUE, 9) == expected


def test_numbers_for_json():
    found = as_numbers({"a": Rate(1, 3), "b": Rate(0, 0), "c": Rate(2, 8)})
    assert found["a"] == 0.333333
    assert found["c"] == 0.25
    assert "b" not in found
    assert found["n"] == 8
    assert found["counts"] == {"a": [1, 3], "c": [2, 8]}
    assert found["intervals"]["c"] == pytest.approx([0.0715, 0.5907], abs=1e-4)
    assert as_numbers({})["n"] == 0


def test_paired_rise_by_hand():
    clean = np.array([0, 0, 1, 7, 1, 2, 7, 7])
    triggered = np.array([7, 7, 1, 7, 1, 7, 0, 7])
    labels = np.array([0, 0, 1, 1, 1, 2, 0, 7])
    # Seven images of other classes: three gained, one lost.
    difference, low, high = paired_rise(triggered, clean, labels, 7)
    assert difference == pytest.approx(2 / 7)
    middle = (3.5 - 1.5) / 9
    spread = 1.959964 * math.sqrt(5 - 4 / 9) / 9
    assert (low, high) == pytest.approx((middle - spread, middle + spread))


def test_moves_by_hand():
    clean = np.array([0] * 4 + [1] * 4 + [2] * 2)
    triggered = np.array([0, 0, 0, 1, 2, 2, 2, 1, 5, 5])
    moves = moves_of(triggered, clean, 3)
    assert moves.changed == Rate(6, 10)
    assert (moves.most, moves.origin, moves.to) == (Rate(3, 4), 1, 2)
    few = moves_of(triggered, clean, 2)
    assert (few.most, few.origin, few.to) == (Rate(2, 2), 2, 5)
    assert moves_of(clean, clean, 1).most == Rate(0, 0)


def test_paired_rise_without_images_says_nothing():
    seven = np.full(3, 7)
    assert paired_rise(seven, seven, seven, 7) == (0.0, -1.0, 1.0)


def test_a_trigger_that_does_nothing_has_a_small_rise_around_zero():
    labels = np.arange(1000) % 7
    difference, low, high = paired_rise(labels, labels, labels, 9)
    assert difference == 0
    assert low < 0 < high
    assert high - low < 0.01


@pytest.mark.parametrize(
    ("n", "gain", "loss"),
    [(20, 0.3, 0.1), (30, 0.1, 0.02), (60, 0.5, 0.0), (80, 0.02, 0.01), (50, 0.9, 0.0)],
)
def test_paired_rise_covers_the_truth_as_often_as_it_says(n: int, gain: float, loss: float):
    """The exact probability, over all outcomes, that the interval holds the true difference."""
    labels = np.zeros(n, np.int64)
    covered = total = 0.0
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            kept = n - gained - lost
            ways = math.comb(n, gained) * math.comb(n - gained, lost)
            probability = ways * gain**gained * loss**lost * (1 - gain - loss) ** kept
            total += probability
            if probability < 1e-12:
                continue
            clean, triggered = labels.copy(), labels.copy()
            triggered[:gained] = 7
            clean[gained : gained + lost] = 7
            _, low, high = paired_rise(triggered, clean, labels, 7)
            covered += probability * (low <= gain - loss <= high)
    assert total == pytest.approx(1)
    # 95 % is promised; counts are whole numbers, so no interval keeps it at every single point.
    assert covered > 0.93


def test_what_got_better_and_what_got_worse():
    after = np.array([0, 0, 1, 2, 2, 9, 3, 3, 9, 0])
    assert corrections(after, ORIGINAL.clean, TRUE) == {
        "agreement": Rate(7, 10),
        "clean_accuracy": Rate(7, 10),
        "repair_rate": Rate(1, 2),
        "regression_rate": Rate(2, 8),
    }
    assert corrections(TRUE, TRUE, TRUE)["repair_rate"] == Rate(0, 0)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        # R: binom.test(x, n)$p.value
        (0, 0, 1.0),
        (5, 5, 1.0),
        (10, 2, 0.03857),
        (2, 10, 0.03857),
        (6, 0, 0.03125),
        (121, 59, 4.434e-06),
    ],
)
def test_mcnemar_is_exact(better: int, worse: int, p: float):
    assert mcnemar(better, worse) == pytest.approx(p, rel=2e-3)


def test_mcnemar_of_many_images_stays_a_number():
    assert 0 < mcnemar(30_000, 30_500) < 0.05


def test_changed_labels_are_counted_by_kind():
    before, after = np.array([0, 0, 1, 2, 2, 2]), np.array([1, 1, 1, 0, 2, 1])
    true = np.array([1, 1, 1, 0, 2, 2])
    found = changed_labels(before, after, true)
    assert found[0] == {"true": 1, "before": 0, "after": 1, "count": 2}
    assert {(one["true"], one["before"], one["after"]) for one in found[1:]} == {
        (0, 2, 0),
        (2, 2, 1),
    }
    assert sum(one["count"] for one in found) == int((before != after).sum())
    assert len(changed_labels(before, after, true, most=1)) == 1
    assert {one["true"] for one in changed_labels(before, after, None)} == {None}
    assert changed_labels(before, before, true) == changed_labels(before, None, true) == []
