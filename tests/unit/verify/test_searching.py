# SPDX-License-Identifier: Apache-2.0
"""What a search for unknown triggers says, at its borders; nothing found is seldom good news."""

from dataclasses import replace

import pytest

from lancet_onnx.verify.metrics import Rate
from lancet_onnx.verify.policy import FEWEST_IMAGES
from lancet_onnx.verify.searching import (
    BLIND_LEFT,
    BOUNDS,
    CLOSE,
    FEW_OF_CLASS,
    HELD,
    KEPT_RECALL,
    ONE_ANSWER,
    OVER_OTHERS,
    POWERFUL,
    SUSPECT,
    Searched,
    compared,
    counted,
    judge_blind,
    judge_search,
    leading,
    score_of,
)

FOUND = Searched(7, 3.0, 0.5, 0.02, (0.98, 0.95, 1.0), 400, 40, 0.1, ())
NOTHING = replace(FOUND, score=0.4)
GOOD = {"missing": 0, "real": True, "images": 500, "one_answer": 0.1}


def verdict(found: Searched | None, **changes) -> str:
    return judge_search(found, **{**GOOD, **changes}).verdict


def said(found: Searched | None, **changes) -> str:
    decision = judge_search(found, **{**GOOD, **changes})
    assert decision.verdict == "inconclusive"
    return " ".join(decision.reasons)


def test_a_cheap_trigger_that_holds_is_a_finding():
    decision = judge_search(FOUND, **GOOD)
    assert decision.verdict == "backdoored"
    assert "class 7" in decision.reasons[0]
    assert "covers 2.0%" in decision.reasons[0]
    assert "+98.0%" in decision.reasons[0]
    # A finding is one whatever else the search did not do.
    for changes in ({"missing": 3}, {"real": False}, {"images": 30}):
        assert verdict(FOUND, **changes) == "backdoored"


def test_nothing_cheap_in_a_whole_search_on_enough_images_is_clean():
    decision = judge_search(NOTHING, **GOOD)
    assert decision.verdict == "clean"
    assert "for all images was found" in decision.reasons[1]
    assert "for one source class and warps" in decision.reasons[1]
    decision = judge_search(replace(NOTHING, paired=True), **GOOD)
    assert decision.verdict == "clean"
    assert "for all images or those of one class was found" in decision.reasons[1]
    assert "source class" not in decision.reasons[1]


def test_a_trigger_of_one_class_counts_where_no_other_is_suspect():
    some, few = BOUNDS["free"] / 0.9, BOUNDS["source"] / 3
    one, other = {"free": some, "source": few}, {"free": 1.0, "source": few}
    assert counted([one, other], [0.0, 0.0]) == [one, other]
    assert leading(one) == "source"
    assert score_of(one, 0.0) == pytest.approx(3.0)
    cheap = {"free": some, "blob": BOUNDS["blob"] / 1.2}
    assert counted([{**cheap, "source": few}, other], [0.0, 0.0]) == [cheap, {"free": 1.0}]
    drowned = [{**cheap, "source": few}, other]
    assert counted(drowned, [0.9, 0.0]) == drowned, "junk leads there as well"
    assert counted([], []) == []


def test_a_trigger_of_one_class_is_told_as_such():
    decision = judge_search(replace(FOUND, source=4), **GOOD)
    assert decision.verdict == "backdoored"
    assert "images of class 4 to it" in decision.reasons[0]
    assert "--from" not in decision.reasons[1]
    assert "held-out images of class 4" in said(replace(FOUND, source=4, images=3))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"missing": 1}, "1 classes were not searched"),
        ({"real": False}, "generated images clear no model"),
        ({"images": POWERFUL - 1}, "99 images are too few"),
    ],
)
def test_what_was_not_looked_at_well_is_not_clean(changes: dict[str, object], why: str):
    assert why in said(NOTHING, **changes)
    assert verdict(NOTHING, images=POWERFUL) == "clean"


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (SUSPECT, "backdoored"),
        (SUSPECT - 1e-6, "inconclusive"),
        (CLOSE, "inconclusive"),
        (CLOSE - 1e-6, "clean"),
    ],
)
def test_scores_at_their_borders(score: float, expected: str):
    assert verdict(replace(FOUND, score=score)) == expected


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rise": (0.8, HELD - 1e-6, 0.9)}, "does not hold on enough"),
        ({"known": FEW_OF_CLASS - 1}, "too few images of the class"),
        ({"score": 0.9}, "too close to what clean models have"),
        ({"score": 0.7, "cheapest": 1.4}, "a cheaper one (score 1.40) works on too few images"),
        ({"score": 0.9, "cheapest": 1.4}, "too close to what clean models have"),
    ],
)
def test_a_weak_finding_is_none_and_not_clean_either(changes: dict[str, object], why: str):
    text = said(replace(FOUND, **changes))
    assert why in text
    assert text.count(";") == said(replace(FOUND, **changes), missing=9).count(";")
    others = {
        "a cheaper one",
        "does not hold on enough",
        "too few images of the class",
        "too close to what",
    }
    assert [o for o in others if o in text and o not in why and why not in o] == []


def test_all_weaknesses_are_told_together():
    text = said(replace(FOUND, rise=(0.5, 0.4, 0.6), known=0))
    assert "does not hold" in text
    assert "too few images of the class" in text
    assert "too close" not in text


def test_findings_hold_at_their_very_borders():
    assert verdict(replace(FOUND, rise=(0.8, HELD, 0.9), known=FEW_OF_CLASS)) == "backdoored"


def test_one_answer_for_all_images_leaves_nothing_to_compare():
    assert "96%" in said(FOUND, one_answer=0.96)
    assert "one label" in said(None, one_answer=1.0)
    assert verdict(FOUND, one_answer=ONE_ANSWER) == "backdoored"


def test_an_ended_budget_says_so():
    assert "budget ended" in said(None)


@pytest.mark.parametrize("found", [FOUND, NOTHING])
def test_too_few_held_out_images_allow_no_verdict(found: Searched):
    assert "only 19 held-out images" in said(replace(found, images=FEWEST_IMAGES - 1))
    assert verdict(replace(found, images=FEWEST_IMAGES)) != "inconclusive"


def test_a_score_is_the_bound_over_the_cost_of_the_better_form():
    assert score_of({"free": BOUNDS["free"]}, 0.0) == 1.0
    assert score_of({"blob": BOUNDS["blob"] / 2}, 0.0) == 2.0
    assert score_of({"free": BOUNDS["free"] / 3, "blob": 2.0}, 0.0) == pytest.approx(3.0)
    assert score_of({"free": 2.0, "blob": BOUNDS["blob"] / 3}, 0.0) == pytest.approx(3.0)
    assert score_of({"free": 0.0}, 0.0) < float("inf")


def test_what_junk_leads_to_as_well_is_less_suspect():
    at = {"window": BOUNDS["window"] / 2}
    assert score_of(at, 0.0) == 2.0
    assert score_of(at, 0.75) == pytest.approx(1.0)
    assert score_of(at, 1.0) == 0.0
    assert score_of(at, 1.0 + 1e-6) == 0.0


def test_a_cheap_trigger_that_junk_matches_clears_nothing():
    text = said(replace(NOTHING, drowned=(3, 8)))
    assert "class 3, 8" in text
    assert "junk" in text
    assert verdict(replace(FOUND, drowned=(3,))) == "backdoored"


def test_a_class_is_compared_with_the_middle_of_the_others():
    assert compared(3.0, []) == 3.0
    assert compared(3.0, [0.1, 0.2, 9.0]) == 3.0
    assert compared(3.0, [2.0, 2.0, 9.0]) == 3.0 / (OVER_OTHERS * 2.0)
    assert compared(3.0, [1 / OVER_OTHERS]) == 3.0
    assert compared(0.5, [0.01]) == 0.5
    assert compared(0.5, [0.0]) == 0.5
    # Everything is easy here, so nothing is suspect.
    assert compared(1.5, [1.4, 1.5, 1.3]) < SUSPECT


def rates(attack: float, clean: float, base: float = 0.0) -> dict[str, Rate]:
    n = 1000
    share = {"attack_success": attack, "clean_accuracy": clean, "base_rate": base}
    full = {"recovery": 0.9, "agreement": 0.95}
    return {name: Rate(round(value * n), n) for name, value in {**share, **full}.items()}


BEFORE = rates(0.99, 0.96, 0.01)
SAME = (Rate(95, 100), Rate(95, 100))


def blind(after: dict[str, Rate], recall=SAME, again: float = 0.2, max_loss: float = 0.01):
    return judge_blind(BEFORE, after, recall, again, max_loss)


def test_what_silences_all_reconstructions_is_repaired():
    decision = blind(rates(0.01, 0.96))
    assert decision.verdict == "repaired"
    assert "99.0%" in decision.reasons[0]
    assert "real trigger is not known" in decision.reasons[0]


@pytest.mark.parametrize(
    ("after", "recall", "again", "why"),
    [
        (rates(0.041, 0.96), SAME, 0.2, "still move 4.1%"),
        (rates(0.01, 0.949), SAME, 0.2, "more than the budget"),
        (rates(0.01, 0.96), (Rate(100, 100), Rate(84, 100)), 0.2, "own images suffer"),
        (rates(0.01, 0.96), SAME, SUSPECT, "still finds a trigger as cheap (score 1.00)"),
    ],
)
def test_one_thing_that_is_wrong_is_no_repair(after, recall, again: float, why: str):
    decision = blind(after, recall, again)
    assert decision.verdict == "not_repaired"
    (reason,) = decision.reasons
    assert why in reason


def test_repairs_hold_at_their_very_borders():
    edge = blind(rates(0.04, 0.95), (Rate(100, 100), Rate(85, 100)), SUSPECT - 1e-6)
    assert edge.verdict == "repaired"


def test_what_is_exactly_allowed_is_not_over_it():
    """Sums and products of such shares are off by a bit for one in ten."""
    allowed = round(BLIND_LEFT * 1000)
    for count in range(0, 900, 7):
        after = rates((count + allowed) / 1000, 0.96)
        before = rates(0.99, 0.96, count / 1000)
        assert judge_blind(before, after, SAME, 0.2, 0.01).verdict == "repaired", count
    for count in range(1, 50):
        kept = round(KEPT_RECALL * 20 * count)
        recall = (Rate(20 * count, 1000), Rate(kept, 1000))
        assert blind(rates(0.01, 0.96), recall).verdict == "repaired", count


def test_a_loss_just_over_the_budget_is_told_apart_from_it():
    (reason,) = blind(rates(0.01, 0.949)).reasons
    assert "lose 1.10%" in reason
    assert "budget of 1.00%" in reason


def test_all_that_is_wrong_is_told():
    decision = blind(rates(0.5, 0.5), (Rate(100, 100), Rate(0, 100)), 2.0)
    assert decision.verdict == "not_repaired"
    assert len(decision.reasons) == 4


def test_a_class_without_images_has_no_recall_to_lose():
    assert blind(rates(0.01, 0.96), (Rate(0, 0), Rate(0, 0))).verdict == "repaired"


def test_too_few_images_to_judge_by_are_refused():
    few = {**rates(0.01, 0.96), "attack_success": Rate(0, FEWEST_IMAGES - 1)}
    assert blind(few).verdict == "refused"
    assert blind(few, again=9.0).verdict == "refused"
