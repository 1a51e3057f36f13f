# SPDX-License-Identifier: Apache-2.0
"""Verdicts at their borders; what was not evaluated is never good news."""

import pytest

from lancet_onnx.verify.metrics import Moves, Rate
from lancet_onnx.verify.policy import (
    FEWEST_IMAGES,
    accuracy_loss,
    judge_generated,
    judge_repair,
    judge_scan,
    natural_change,
    natural_move,
    natural_rise,
    telling_rise,
)


def test_bounds_grow_with_the_patch_and_are_capped():
    assert natural_rise(0.0) == pytest.approx(0.1)
    assert natural_rise(0.2) == pytest.approx(0.4)
    assert natural_rise(0.4) == natural_rise(1.0) == 0.6
    for bound in (telling_rise, natural_change, natural_move):
        assert natural_rise(0.0) < bound(0.0) < bound(0.1) < bound(0.3) == bound(1.0) < 1


STILL = Moves(Rate(0, 1000), Rate(0, 100), 0, 1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.65, 0.9, "backdoored"),
        (0.649, 0.9, "inconclusive"),
        (0.249, 0.25, "inconclusive"),
        (-0.1, 0.249, "clean"),
        (0.9, 1.0, "backdoored"),
    ],
)
def test_scans(low: float, high: float, verdict: str):
    decision = judge_scan(((low + high) / 2, low, high), 0.1, 100, STILL)
    assert decision.verdict == verdict
    assert ("25%" in decision.reasons[0]) == (verdict != "backdoored")
    assert ("65%" in decision.reasons[0]) == (verdict != "clean")


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        (Moves(Rate(120, 1000), Rate(100, 100), 3, 5), "100% of the images of class 3 to class 5"),
        (Moves(Rate(980, 1000), Rate(100, 100), 3, 4), "the label of 98% of images"),
    ],
)
def test_a_trigger_for_one_class_or_for_all_to_all_is_never_clean(moves: Moves, said: str):
    decision = judge_scan((0.12, 0.1, 0.14), 0.06, 900, moves)
    assert decision.verdict == "inconclusive"
    assert said in decision.reasons[0]
    assert judge_scan((0.12, 0.1, 0.14), 0.06, 900, STILL).verdict == "clean"
    assert judge_scan((0.9, 0.88, 0.92), 0.06, 900, moves).verdict == "backdoored"


@pytest.mark.parametrize("rise", [(1.0, 0.99, 1.0), (0.0, -0.01, 0.01)])
def test_too_few_images_allow_no_verdict(rise: tuple[float, float, float]):
    few = judge_scan(rise, 0.01, FEWEST_IMAGES - 1, STILL)
    assert few.verdict == "inconclusive"
    assert "only 19 images" in few.reasons[0]
    assert judge_scan(rise, 0.01, FEWEST_IMAGES, STILL).verdict in ("backdoored", "clean")


@pytest.mark.parametrize(
    ("rise", "controls", "verdict"),
    [
        (0.40, (0.15, 0.1, 0.15), "backdoored"),
        (0.39, (0.0, 0.0, 0.0), "inconclusive"),
        (0.90, (0.7, 0.1, 0.66), "inconclusive"),
        (0.90, (0.9, 0.1, 0.6), "backdoored"),
        (0.0, (0.0, 0.0, 0.0), "inconclusive"),
    ],
)
def test_generated_images_never_say_clean(rise: float, controls: tuple[float, ...], verdict: str):
    assert judge_generated(rise, controls, 0.2, 200).verdict == verdict
    assert judge_generated(rise, controls, 0.2, FEWEST_IMAGES - 1).verdict == "inconclusive"


def figures(attack: int, accuracy: int = 980, n: int = 1000) -> dict[str, Rate]:
    return {
        "attack_success": Rate(attack, n),
        "base_rate": Rate(10, n),
        "clean_accuracy": Rate(accuracy, 1000),
        "agreement": Rate(950, 1000),
    }


@pytest.mark.parametrize(
    ("attack", "accuracy", "verdict"),
    [
        (0, 980, "repaired"),
        (20, 980, "repaired"),
        (21, 980, "not_repaired"),
        (0, 971, "repaired"),
        (0, 969, "not_repaired"),
        (500, 500, "not_repaired"),
        (0, 1000, "repaired"),
    ],
)
def test_repairs(attack: int, accuracy: int, verdict: str):
    decision = judge_repair(figures(1000), figures(attack, accuracy), 0.01)
    assert decision.verdict == verdict
    assert len(decision.reasons) == (2 if attack == accuracy else 1)


@pytest.mark.parametrize("accuracy", range(20, 1001, 7))
def test_a_loss_of_the_budget_is_not_over_it(accuracy: int):
    before, after = figures(1000, accuracy), figures(20, accuracy - 10)
    assert judge_repair(before, after, 0.01).verdict == "repaired"
    assert judge_repair(before, figures(20, accuracy - 11), 0.01).verdict == "not_repaired"


def test_a_repair_without_labels_is_judged_by_agreement():
    before, after = figures(1000), figures(0)
    del before["clean_accuracy"], after["clean_accuracy"]
    assert accuracy_loss(before, after) == pytest.approx(0.05)
    assert judge_repair(before, after, 0.06).verdict == "repaired"
    worse = judge_repair(before, after, 0.04)
    assert worse.verdict == "not_repaired"
    assert "agreement fell by 5.00%" in worse.reasons[0]


def test_too_few_images_refuse_a_repair():
    before = figures(19, n=19)
    assert judge_repair(before, figures(0, n=19), 0.01).verdict == "refused"
    assert judge_repair(figures(20, n=20), figures(0, n=20), 0.01).verdict == "repaired"
    nothing = {**figures(0), "attack_success": Rate(0, 0), "base_rate": Rate(0, 0)}
    assert judge_repair(nothing, nothing, 0.01).verdict == "refused"


@pytest.mark.parametrize(
    ("rise", "coverage", "verdict"),
    [(0.9, 0.1, "backdoored"), (0.89, 0.1, "inconclusive"), (1.0, 0.11, "inconclusive")],
)
def test_a_small_patch_that_moves_nearly_all_needs_no_controls(
    rise: float, coverage: float, verdict: str
):
    assert judge_generated(rise, (rise, rise), coverage, 200).verdict == verdict
