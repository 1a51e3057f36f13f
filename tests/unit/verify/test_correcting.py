# SPDX-License-Identifier: Apache-2.0
"""What is said of a repair of honest errors, at its borders."""

import pytest

from lancet_onnx.verify.correcting import judge_correction
from lancet_onnx.verify.metrics import Rate


def said(better: int, worse: int, *, given: Rate | None = None, right: int = 1000) -> tuple:
    after = {"repair_rate": Rate(better, 100), "regression_rate": Rate(worse, right)}
    found = judge_correction(after, given, 0.01)
    return found.verdict, " ".join(found.reasons)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        (30, 5, "repaired"),
        (6, 5, "repaired"),
        (5, 5, "not_repaired"),
        (4, 5, "not_repaired"),
        (0, 0, "not_repaired"),
        (30, 10, "repaired"),
        (30, 11, "not_repaired"),
    ],
)
def test_more_must_get_better_than_worse_within_the_budget(better: int, worse: int, verdict: str):
    assert said(better, worse)[0] == verdict


def test_a_gain_that_may_be_chance_is_said_to_be():
    assert "chance" in said(6, 5)[1]
    assert "chance" not in said(30, 5)[1]


def test_what_was_given_must_be_among_what_got_better():
    assert said(30, 5, given=Rate(0, 8))[0] == "not_repaired"
    verdict, reasons = said(30, 5, given=Rate(3, 8))
    assert verdict == "repaired"
    assert "3 of 8" in reasons
    assert said(30, 5, given=Rate(0, 0))[0] == "repaired"


def test_too_few_right_images_show_nothing():
    verdict, reasons = said(3, 0, right=19)
    assert verdict == "refused"
    assert "--data" in reasons
