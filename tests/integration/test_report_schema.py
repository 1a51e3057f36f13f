# SPDX-License-Identifier: Apache-2.0
"""Every report is what docs/report.schema.json promises."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from gate_report import mixed

from lancet_onnx import (
    DataOptions,
    RepairOptions,
    TriggerOptions,
    doctor,
    inspect,
    repair,
    scan,
    verify,
)
from lancet_onnx.report import Report

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "cli/lancet_onnx_cli/demo"
MODEL, TRIGGER = DEMO / "model.onnx", TriggerOptions(DEMO / "trigger.png")
DATA = DataOptions(DEMO / "images.npz")


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check(report: Report, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(json.loads(report.to_json()))


def test_reports_follow_the_schema(
    validator: jsonschema.Draft202012Validator, tmp_path: Path
) -> None:
    fixed = tmp_path / "fixed.onnx"
    check(inspect(MODEL), validator)
    check(doctor(), validator)
    check(scan(MODEL, TRIGGER, DATA), validator)
    check(scan(MODEL, TRIGGER), validator)
    check(repair(MODEL, TRIGGER, DATA, RepairOptions(fixed, method="flip")), validator)
    check(verify(MODEL, fixed, DATA, TRIGGER), validator)
    check(verify(MODEL, fixed, DATA), validator)


def test_a_missing_field_is_noticed(validator: jsonschema.Draft202012Validator) -> None:
    broken = json.loads(inspect(MODEL).to_json())
    del broken["editable_weights"]
    with pytest.raises(jsonschema.ValidationError, match="editable_weights"):
        validator.validate(broken)


@pytest.mark.parametrize("field", ["fingerprint", "allowed", "result"])
def test_a_check_of_a_gate_has_every_field(
    field: str, validator: jsonschema.Draft202012Validator
) -> None:
    report = json.loads(mixed().to_json())
    validator.validate(report)
    del report["models"][0]["checks"][1][field]
    with pytest.raises(jsonschema.ValidationError, match=field):
        validator.validate(report)
