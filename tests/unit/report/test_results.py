# SPDX-License-Identifier: Apache-2.0
"""Every report as a flat list of printable results."""

import time
from dataclasses import replace

from gate_report import ALLOWED, EVIL, FAILED, UNKNOWN, check, gate, hostile, mixed, model

from lancet_onnx.report import Report, results
from lancet_onnx.report.results import MOST_COMMAND, Result, remarks, verdicts
from lancet_onnx.report.untrusted import MOST_TEXT

FINDING = {
    "rule": "LNC001", "severity": "critical", "target": 7,
    "trigger": {"path": "a b.png", "mode": "blend", "mask": "m.png", "position": [3, 4]},
    "located": [], "next": "lancet-onnx repair m.onnx --trigger 'a b.png' -o m.fixed.onnx",
}  # fmt: skip
SCAN = {"model": {"path": "m.onnx", "sha256": "0" * 64}, "seconds": 2.0, "graph_logic": []}
SWITCH = {"rule": "LNC203", "severity": "high", "node": "if0", "path": [], "text": "it switches"}


def test_a_gate_has_a_result_for_each_check_of_each_model():
    found = results(mixed())
    assert [(r.model, r.check) for r in found] == [
        *(("models/a.onnx", name) for name in
          ("precheck", "trigger:t.png", "clean-accuracy", "dead-weights", "graph-logic",
           "weights")),
        ("models/b.onnx", "precheck"), ("models/b.onnx", "trigger:t.png"),
        ("models/b.onnx", "dead-weights"),
    ]  # fmt: skip
    assert [r.check for r in found if r.open] == ["trigger:t.png", "clean-accuracy", "dead-weights"]
    trigger = found[1]
    assert (trigger.id, trigger.title) == ("LNC001", "a trigger controls the answer")
    assert (trigger.next, trigger.fingerprint) == (FAILED["next"], FAILED["fingerprint"])
    assert found[4].accepted == "allowed until 2030-01-01: reviewed"
    assert found[5].accepted == "known from the baseline"
    assert found[8].accepted == "allowed: the policy's allowed_rules"
    assert found[0].seconds == 1.5


def test_what_passes_is_not_called_accepted():
    passing = check("trigger", baseline="known", allowed=ALLOWED["allowed"])
    assert results(gate(model("m.onnx", passing)))[0].accepted == ""


def test_what_a_passing_model_was_not_evaluated_for_is_what_its_policy_does_without():
    for verdict, accepted in (("pass", "the policy does without"), ("not_evaluated", "")):
        (found,) = results(gate(model("m.onnx", UNKNOWN, verdict=verdict)))
        assert found.accepted == accepted


def test_a_model_without_a_check_is_never_silent():
    (one,) = results(gate(model("m.onnx", verdict="not_evaluated")))
    assert (one.model, one.outcome, one.open) == ("m.onnx", "not_evaluated", True)
    (odd,) = results(gate(model("m.onnx", verdict="splendid")))
    assert odd.outcome == "not_evaluated"
    (none,) = results(gate(verdict="not_evaluated"))
    assert (none.check, none.outcome) == ("gate", "not_evaluated")


def test_a_result_of_unknown_kind_is_not_evaluated():
    assert results(gate(model("m.onnx", check("trigger", "fine"))))[0].outcome == "not_evaluated"


def test_a_finding_of_a_scan_says_which_repair_goes_with_it():
    data = {"path": "val.npz", "preprocess": "unit"}
    report = Report("scan", "backdoored", ("99 %",), {**SCAN, "findings": [FINDING], "data": data})
    (found,) = results(report)
    assert (found.model, found.rule, found.outcome, found.severity) == (
        "m.onnx", "LNC001", "fail", "error",
    )  # fmt: skip
    assert found.text == "target class 7: 99 %"
    assert found.page == "docs/rules.md#lnc001"
    assert found.next == FINDING["next"]
    (without,) = results(Report("scan", "backdoored", (), {**SCAN, "findings": [{"rule": "X"}]}))
    assert without.next == ""


def test_a_name_of_any_length_is_cut_and_a_number_that_no_float_holds_is_none():
    long = {"id": "trigger:" + "x" * 9999, "text": "y" * 9999, "next": "z" * 9999, "result": "fail",
            "value": 10**400, "limit": 0.5}  # fmt: skip

    def only(**more: object) -> Result:
        entry = {"path": "m.onnx", "verdict": "fail", "checks": [long | more], "seconds": 10**400}
        (found,) = results(Report("gate", "fail", (), {"models": [entry]}))
        return found

    found = only()
    assert {len(found.check), len(found.text)} == {MOST_TEXT}
    assert found.next == "", "half a command is worse than none"
    assert only(next="z" * MOST_COMMAND).next == "z" * MOST_COMMAND
    assert (found.value, found.limit, found.seconds) == (None, 0.5, 0.0)


def test_a_fingerprint_is_of_rule_and_place_not_of_bytes():
    def prints(**more: object) -> list[str]:
        body = {**SCAN, "findings": [{**FINDING, **more}]}
        body["model"] = {"path": "m.onnx", "sha256": str(more)[:64]}
        return [r.fingerprint for r in results(Report("scan", "backdoored", (str(more),), body))]

    assert prints() == prints(severity="high")
    assert prints() != prints(target=8)


def test_reports_without_findings_are_their_verdict():
    clean = Report("scan", "clean", ("2 %",), {**SCAN, "findings": []})
    assert [(r.check, r.outcome) for r in results(clean)] == [("scan", "pass")]
    logic = Report("scan", "inconclusive", (), {**SCAN, "findings": [], "graph_logic": [SWITCH]})
    assert [(r.check, r.outcome) for r in results(logic)] == [
        ("graph-logic", "fail"), ("scan", "not_evaluated"),
    ]  # fmt: skip
    body = {"models": [{"path": "a.onnx"}, {"path": "b.onnx"}]}
    (compared,) = results(Report("verify", "not_repaired", ("worse",), body))
    assert (compared.model, compared.text) == ("b.onnx", "not repaired: worse")
    (advice,) = results(Report("doctor", "fail", ("two wheels",), {}))
    assert (advice.model, advice.outcome) == ("", "fail")


def test_what_is_left_to_say_are_the_reasons_that_no_result_says():
    whole, long = Report("scan", "clean", ("2 %",), {**SCAN}), "y" * MOST_TEXT
    assert remarks(whole, results(whole)) == ()
    cut = Report("scan", "clean", ("2 %", long), {**SCAN})
    assert remarks(cut, results(cut)) == (long,)
    told = gate(model("m.onnx", FAILED), remarks=["1 was left out\n", 3])
    assert remarks(told, results(told)) == ("1 was left out\ufffd", "3")
    odd = gate(model("m.onnx", FAILED), remarks={"a": 1})
    assert remarks(odd, results(odd)) == ()


def test_remarks_of_thousands_of_models_are_there_at_once():
    checks = [check(f"trigger:{n}.png", "fail", text=f"{n} " + "x" * 500) for n in range(10)]
    report = gate(*(model(f"{n}.onnx", *checks) for n in range(2000)), remarks=["one more"])
    report = replace(report, reasons=tuple(f"{n}: failed" for n in range(20_000)))
    found, begin = results(report), time.process_time()
    assert remarks(report, found) == ("one more",)
    assert time.process_time() - begin < 1, "not each reason against each result"


def test_a_gate_says_a_word_of_each_model():
    report = gate(model("a", FAILED), model("b", check("x"), verdict="pass"), model("c", verdict=7))
    assert verdicts(report) == {"a": "fail", "b": "pass", "c": "not_evaluated"}


def test_hostile_text_is_one_printable_line():
    assert not EVIL.isprintable()
    for result in results(hostile()):
        for name in ("model", "check", "rule", "text", "next", "page", "fingerprint", "accepted"):
            assert getattr(result, name).isprintable(), name
        assert result.severity == "error"
