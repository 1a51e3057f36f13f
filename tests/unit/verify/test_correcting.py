# SPDX-License-Identifier: Apache-2.0
"""What is said of a repair of honest errors, at its borders."""

import pytest

from lancet_onnx.verify.correcting import judge_correction
from lancet_onnx.verify.metrics import Rate


def said(
    better: int, worse: int, *, given: Rate | None = None, apart: int = 0, right: int = 1000
) -> tuple[str, str]:
    after = {"repair_rate": Rate(better, 100), "regression_rate": Rate(worse, right)}
    found = judge_correction(after, given, apart, 0.01)
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
    assert "of 8 held-out errors that were given 3 are right now" in reasons
    assert said(30, 5, given=Rate(0, 0))[0] == "repaired"


def test_errors_given_apart_count_as_better_but_not_for_chance():
    assert said(0, 3, given=Rate(5, 8), apart=0)[0] == "not_repaired"
    verdict, reasons = said(0, 3, given=Rate(5, 8), apart=5)
    assert verdict == "repaired"
    assert "p = 0.25" in reasons
    assert "chance" not in reasons
    assert said(0, 5, given=Rate(5, 8), apart=5)[0] == "not_repaired"
    assert said(0, 11, given=Rate(50, 80), apart=50)[0] == "not_repaired"


def test_too_few_right_images_show_nothing():
    verdict, reasons = said(3, 0, right=19)
    assert verdict == "refused"
    assert "--data" in reasons
