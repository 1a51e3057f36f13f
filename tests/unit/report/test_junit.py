# SPDX-License-Identifier: Apache-2.0
"""JUnit XML: suites are models, cases are checks, and hostile text stays text."""

from xml.etree import ElementTree

from gate_report import EVIL, FAILED, UNKNOWN, check, gate, hostile, mixed, model

from lancet_onnx.report import Report, to_junit


def read(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(to_junit(report).encode())  # noqa: S314 - our own


def kind(case: ElementTree.Element) -> str:
    return case[0].tag if len(case) else "pass"


def test_a_suite_for_each_model_and_a_case_for_each_check():
    root = read(mixed())
    assert (root.tag, root.get("name")) == ("testsuites", "lancet-onnx gate")
    assert [suite.get("name") for suite in root] == ["models/a.onnx", "models/b.onnx"]
    first, second = root
    assert [(case.get("name"), kind(case)) for case in first] == [
        ("precheck", "pass"), ("trigger:t.png [LNC001]", "failure"), ("clean-accuracy", "error"),
        ("dead-weights", "failure"), ("graph-logic [LNC203]", "skipped"),
        ("weights [LNC113]", "skipped"),
    ]  # fmt: skip
    assert [kind(case) for case in second] == ["pass", "pass", "skipped"]
    quiet = {**UNKNOWN, "severity": "warning"}
    assert [kind(case) for case in read(gate(model("m.onnx", quiet)))[0]] == ["skipped"]
    assert {case.get("classname") for case in first} == {"models/a.onnx"}
    assert first.get("time") == "1.500"


def test_counts_are_those_of_the_cases():
    root = read(mixed())
    for each in (root, *root):
        cases = list(each.iter("testcase"))
        assert each.get("tests") == str(len(cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert each.get(name) == str(len(list(each.iter(tag)))), name


def test_a_failure_says_what_how_bad_and_what_next():
    failure, _ = read(mixed()).iter("failure")
    assert failure.get("message") == FAILED["text"]
    assert failure.get("type") == "LNC001"
    assert failure.text == "\n".join((FAILED["text"], f"next: {FAILED['next']}", FAILED["page"]))


def test_reports_of_other_commands_have_one_suite():
    root = read(Report("doctor", "fail", ("two wheels",), {}))
    assert [(suite.get("name"), kind(suite[0])) for suite in root] == [("lancet-onnx", "failure")]


def test_a_part_of_a_run_is_never_all_green():
    root = read(gate(model("m.onnx", check("precheck"), verdict="pass"), partial=True))
    assert root.get("errors") == "1"
    assert [(suite.get("name"), kind(suite[0])) for suite in root] == [
        ("m.onnx", "pass"), ("lancet-onnx", "error"),
    ]  # fmt: skip


def test_hostile_text_adds_no_element_and_no_control_character():
    text = to_junit(hostile())
    assert all(c.isprintable() or c == "\n" for c in text)
    root = read(hostile())
    assert {each.tag for each in root.iter()} == {
        "testsuites", "testsuite", "testcase", "failure", "error", "skipped",
    }  # fmt: skip
    (suite,) = root
    assert suite.get("name") == "".join(c if c.isprintable() else "\ufffd" for c in EVIL)
    assert read(gate(model("]]>", FAILED)))[0].get("name") == "]]>"
