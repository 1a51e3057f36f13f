# SPDX-License-Identifier: Apache-2.0
"""Checks, allowances and baselines come to a verdict; what proves nothing never passes."""

import pytest

from lancet_onnx.rules import ACCURACY, DEAD, DORMANT, EXPIRED, LISTED, RECONSTRUCTED
from lancet_onnx.verify.gate_policy import (
    Allowance,
    Check,
    Known,
    judge_accuracy,
    judge_attack,
    judged,
    verdict_of,
    worst,
)
from lancet_onnx.verify.metrics import Rate

GOOD = Check("precheck", None, "pass", "in order")
BAD = Check("trigger:t.png", LISTED, "fail", "moves", value=0.5, limit=0.05, target=7)
OPEN = Check("parity-gpu", None, "not_evaluated", "no GPU")
TODAY = "2027-01-31"


def settle(*checks: Check, **more: object) -> tuple[Check, ...]:
    usual = {
        "model": "m.onnx",
        "digest": "a" * 64,
        "allowances": (),
        "allowed_rules": (),
        "known": None,
        "today": TODAY,
    }
    return judged(checks, **{**usual, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("right", "n", "least", "result"),
    [
        (950, 1000, 0.9, "pass"),
        (900, 1000, 0.9, "pass"),  # just held
        (899, 1000, 0.9, "fail"),
        (34, 34, 0.9, "not_evaluated"),  # even all of 34 do not show 90 %
        (35, 35, 0.9, "pass"),
        (10, 30, 0.9, "fail"),  # few, but bad beyond doubt
        (27, 30, 0.95, "not_evaluated"),
        (380, 380, 0.999, "not_evaluated"),
        (381, 381, 0.999, "pass"),  # no more than 99 % asks for
        (380, 381, 0.999, "fail"),
        (0, 0, 0.9, "not_evaluated"),
    ],
)
def test_accuracy(right: int, n: int, least: float, result: str):
    assert judge_accuracy(Rate(right, n), least)[0] == result


@pytest.mark.parametrize(
    ("moved", "n", "most", "result"),
    [
        (0, 1000, 0.05, "pass"),
        (50, 1000, 0.05, "pass"),
        (51, 1000, 0.05, "fail"),
        (0, 72, 0.05, "not_evaluated"),
        (0, 73, 0.05, "pass"),
        (20, 20, 0.05, "fail"),
        (2, 30, 0.05, "not_evaluated"),
        (0, 380, 0.0, "not_evaluated"),
        (0, 381, 0.0, "pass"),
        (1, 381, 0.0, "fail"),
        (0, 0, 0.05, "not_evaluated"),
    ],
)
def test_attack(moved: int, n: int, most: float, result: str):
    assert judge_attack(Rate(moved, n), Rate(0, n), most, 7)[0] == result


@pytest.mark.parametrize(
    ("moved", "anyway", "result"),
    [
        (80, 80, "pass"),
        (80, 70, "pass"),
        (80, 69, "fail"),
        (80, 0, "fail"),
        (55, 46, "pass"),
        (55, 44, "fail"),
    ],
)
def test_what_happens_without_the_trigger_is_not_its_doing(moved: int, anyway: int, result: str):
    """Else a model that confuses two classes could never pass, whatever was repaired."""
    found, text = judge_attack(Rate(moved, 1000), Rate(anyway, 1000), 0.05, 7)
    assert found == result
    assert f"({anyway / 1000:.1%} do without the trigger)" in text


def test_a_class_that_nobody_named_may_be_chance():
    """The class that a patch moves most to is found by looking for the largest share."""
    rate, base = Rate(80, 1000), Rate(10, 1000)
    result, text = judge_attack(rate, base, 0.05, 9, harmless=True)
    assert result == "not_evaluated"
    assert "name the attacker's class" in text
    assert judge_attack(Rate(40, 1000), base, 0.05, 9, harmless=True)[0] == "pass"


def test_a_trigger_that_leads_to_no_one_class_does_not_pass():
    rate, base = Rate(0, 500), Rate(5, 500)
    result = judge_attack(rate, base, 0.05, 7, "the trigger changes the label of 99% of images")
    assert result == ("not_evaluated", "the trigger changes the label of 99% of images")
    assert judge_attack(Rate(400, 500), base, 0.05, 7, "it moves much")[0] == "fail"


def test_the_sentence_has_figure_count_limit_and_what_happens_anyway():
    _, text = judge_attack(Rate(91, 100), Rate(3, 100), 0.05, 7)
    for part in ("91.0%", "100 triggered", "class 7", "3.0%", "at most 5.0%"):
        assert part in text
    _, text = judge_accuracy(Rate(80, 100), 0.9)
    for part in ("80.0%", "100 clean images", "90.0%"):
        assert part in text


@pytest.mark.parametrize(
    ("checks", "allowed", "verdict"),
    [
        ((GOOD,), (), "pass"),
        ((GOOD, BAD, OPEN), (), "fail"),
        ((GOOD, OPEN), (), "not_evaluated"),
        ((GOOD, OPEN), ("parity-gpu",), "pass"),
        ((GOOD, OPEN), ("parity",), "not_evaluated"),
        ((OPEN,), ("parity-gpu",), "not_evaluated"),  # nothing passed
        ((), (), "not_evaluated"),
        ((GOOD, Check("trigger:t.png", LISTED, "not_evaluated", "")), ("trigger",), "pass"),
        ((GOOD, Check("trigger:t.png", LISTED, "not_evaluated", "")), ("trigger:t.png",), "pass"),
        (
            (GOOD, Check("trigger:t.png", LISTED, "not_evaluated", "")),
            ("trigger:other.png",),
            "not_evaluated",
        ),
    ],
)
def test_verdict(checks: tuple[Check, ...], allowed: tuple[str, ...], verdict: str):
    assert verdict_of(checks, allowed) == verdict


def test_the_worst_verdict_counts():
    assert worst(["pass", "fail", "not_evaluated"]) == "fail"
    assert worst(["pass", "not_evaluated"]) == "not_evaluated"
    assert worst(["pass", "pass"]) == "pass"
    assert worst([]) == "not_evaluated"


def allow(**more: object) -> Allowance:
    usual = {"rule": "LNC011", "reason": "known to Ada", "expires": TODAY, "target": 7}
    return Allowance(**{**usual, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "through"),
    [
        (allow(), True),  # good until the day is over
        (allow(model="a" * 64, target=None), True),
        (allow(model="b" * 64), False),
        (allow(target=8), False),
        (allow(rule="LNC002"), False),
    ],
)
def test_an_allowance_lets_through_what_it_names(entry: Allowance, through: bool):
    found = settle(GOOD, BAD, allowances=[entry])
    assert verdict_of(found, ()) == ("pass" if through else "fail")
    assert len(found) == 2
    if through:
        assert found[1].result == "fail", "what was found is still told"
        assert found[1].allowed == {"reason": "known to Ada", "expires": TODAY}


def test_an_expired_allowance_fails_and_is_named():
    found = settle(GOOD, BAD, allowances=[allow(expires="2027-01-30")])
    assert [check.fails for check in found] == [False, True, True]
    assert "allowed until 2027-01-30 (known to Ada)" in found[1].text
    assert found[2].rule is EXPIRED
    for part in ("LNC011", "class 7", "2027-01-30", "known to Ada", "[[allow]]"):
        assert part in found[2].text


def test_an_expired_allowance_fails_even_if_what_it_allowed_is_gone():
    found = settle(GOOD, allowances=[allow(expires="2026-01-01")])
    assert verdict_of(found, ()) == "fail"


def test_an_expired_allowance_of_another_model_says_nothing():
    assert settle(GOOD, allowances=[allow(expires="2026-01-01", model="b" * 64)]) == (GOOD,)


def test_a_renewed_allowance_counts_beside_an_expired_one():
    found = settle(GOOD, BAD, allowances=[allow(expires="2026-01-01"), allow()])
    assert found[1].allowed is not None
    assert "it was allowed" not in found[1].text


def test_allowed_rules_never_fail():
    dead = Check("weights", DEAD, "fail", "zeros")
    assert verdict_of(settle(GOOD, dead, allowed_rules=["LNC014"]), ()) == "pass"
    assert verdict_of(settle(GOOD, dead, allowed_rules=["LNC113"]), ()) == "fail"


@pytest.mark.parametrize(
    ("value", "standing"),
    [(0.5, "known"), (0.4, "known"), (0.502, "known"), (0.506, "worse"), (1.0, "worse")],
)
def test_only_a_worse_attack_than_the_baseline_fails(value: float, standing: str):
    now = Check("trigger:t.png", LISTED, "fail", "", value=value, limit=0.05, target=7)
    (_, found) = settle(GOOD, now, known=[Known(BAD.fingerprint("m.onnx"), 0.5, 0.05)])
    assert found.baseline == standing
    assert found.fails == (standing == "worse")


@pytest.mark.parametrize(("value", "standing"), [(0.8, "known"), (0.85, "known"), (0.7, "worse")])
def test_a_lower_accuracy_is_worse(value: float, standing: str):
    now = Check("clean-accuracy", ACCURACY, "fail", "", value=value, limit=0.9)
    (found,) = settle(now, known=[Known(now.fingerprint("m.onnx"), 0.8, 0.9)])
    assert found.baseline == standing


def test_a_baseline_without_the_finding_makes_it_new():
    assert settle(BAD, known=[])[0].baseline == "new"
    assert settle(BAD, known=None)[0].baseline is None
    other = Known(BAD.fingerprint("other.onnx"), 0.5, 0.05)
    assert settle(BAD, known=[other])[0].fails


def test_findings_without_figures_are_known_again():
    dead = Check("weights", DEAD, "fail", "zeros")
    (found,) = settle(dead, known=[Known(dead.fingerprint("m.onnx"), None, None)])
    assert found.baseline == "known"


def test_fingerprints_are_of_names_and_not_of_figures():
    again = Check("trigger:t.png", LISTED, "pass", "other", value=0.1, limit=0.2, target=7)
    mine = BAD.fingerprint("m.onnx")
    assert again.fingerprint("m.onnx") == mine
    others = [
        BAD.fingerprint("n.onnx"),
        Check("trigger:u.png", LISTED, "fail", "", target=7).fingerprint("m.onnx"),
        Check("trigger:t.png", RECONSTRUCTED, "fail", "", target=7).fingerprint("m.onnx"),
        Check("trigger:t.png", LISTED, "fail", "", target=8).fingerprint("m.onnx"),
    ]
    assert len({mine, *others}) == 5


def test_the_json_form_of_a_check():
    told = BAD.as_dict("m.onnx")
    assert told["severity"] == "error"
    assert told["page"] == "docs/rules.md#lnc011"
    assert Check("weights", DEAD, "fail", "").severity == "warning"
    assert Check("graph-logic", DORMANT, "fail", "").severity == "error"
