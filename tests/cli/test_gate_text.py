# SPDX-License-Identifier: Apache-2.0
"""What a gate says in the terminal, of reports made by hand."""

import io
from dataclasses import replace

from gate_report import ALLOWED, FAILED, KNOWN, UNKNOWN, check, gate, hostile, mixed, model
from lancet_onnx_cli.render import render_text
from rich.console import Console

from lancet_onnx.report import Report


def lines(report: Report) -> list[str]:
    stream = io.StringIO()
    render_text(report, Console(file=stream, width=120))
    return [" ".join(line.split()) for line in stream.getvalue().splitlines() if line.strip()]


def test_a_failing_model_has_its_checks_and_what_to_do():
    said = lines(gate(model("m.onnx", check("precheck"), FAILED, UNKNOWN, ALLOWED, KNOWN)))
    assert said == [
        "m.onnx",
        "check result found",
        "precheck pass precheck is as it is",
        "trigger:t.png fail t.png moves 99.6 % of images to class 7; at most 5 %",
        "clean-accuracy not evaluated no images",
        "graph-logic accepted a switch that never moves (allowed until 2030-01-01: reviewed)",
        "weights accepted NaN in 'w' (known from the baseline)",
        f"fail: m.onnx: trigger:t.png: {FAILED['text']} [LNC001]",
        f"next: {FAILED['next']}",
        "3 of 5 models were not looked at",
        "fail",
    ]


def test_without_a_command_there_is_a_page():
    worse = {**KNOWN, "baseline": "worse", "page": "docs/rules.md#lnc113"}
    said = lines(gate(model("m.onnx", worse), remarks=[]))
    (told,) = (line for line in said if line.startswith("fail: "))
    assert told == "fail: m.onnx: weights: NaN in 'w', worse than in the baseline [LNC113]"
    assert said[-2:] == ["see docs/rules.md#lnc113", "fail"]


def test_of_several_only_those_that_do_not_pass_have_a_table():
    said = lines(mixed())
    assert [line for line in said if line.startswith("models/")] == [
        "models/a.onnx",
        "models/a.onnx fail trigger:t.png, dead-weights",
        "models/b.onnx pass",
    ]
    assert sum(line == "check result found" for line in said) == 1


def test_the_reasons_say_what_was_let_through_where_all_pass():
    several = gate(*(model(name, ALLOWED, verdict="pass") for name in "ab"), verdict="pass")
    several = replace(several, reasons=("a: graph-logic: allowed", "b: graph-logic: allowed"))
    said = lines(several)
    assert said[-3:] == ["a: graph-logic: allowed", "b: graph-logic: allowed", "pass"]
    one = gate(model("a", ALLOWED, verdict="pass"), verdict="pass", remarks=[])
    assert lines(replace(one, reasons=("graph-logic: allowed",))) == [
        "a",
        "check result found",
        "graph-logic accepted a switch that never moves (allowed until 2030-01-01: reviewed)",
        "pass",
    ]


def test_one_cause_of_several_is_said_once():
    checks = [check(name, "not_evaluated", text="no images") for name in ("accuracy", "scan")]
    said = lines(gate(model("m", *checks, verdict="not_evaluated"), verdict="not_evaluated"))
    assert "scan not evaluated as for accuracy" in said
    assert sum(line.startswith("not evaluated: m: ") for line in said) == 1


def test_hostile_text_brings_no_markup_and_no_control_characters():
    stream = io.StringIO()
    render_text(hostile(), Console(file=stream, width=120, force_terminal=True))
    assert "[bold]y[/z]" in stream.getvalue()
    assert "\x1b[31m%0A" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()


def test_a_report_of_anything_is_text():
    for models in (None, [], "x", [3], [{}], [{"checks": [{}]}]):
        assert lines(Report("gate", "not_evaluated", (), {"models": models}))[-1] == "not_evaluated"
