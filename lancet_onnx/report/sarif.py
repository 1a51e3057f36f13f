# SPDX-License-Identifier: Apache-2.0
"""SARIF 2.1.0, in the shape that GitHub code scanning takes.

GitHub refuses a whole file for one result without a physical location, so every result has one:
line 1 of the model. What has none, such as advice on this machine, is a notification of the tool.
Fingerprints are of rule and place, not of bytes, so that a finding survives another export.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from urllib.parse import quote

from lancet_onnx.report.places import Checkout, placed_in
from lancet_onnx.report.report import Report
from lancet_onnx.report.results import Result, results
from lancet_onnx.report.untrusted import as_rows, as_table, plain
from lancet_onnx.rules import RULES
from lancet_onnx.runtime.installed import NOT_INSTALLED, version_of

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_SCORE = {"critical": "9.5", "high": "8.0", "medium": "5.0", "low": "2.0"}
_SEVERITY = {"error": "high", "warning": "medium", "note": "low"}
_PROBLEM = {"error": "error", "warning": "warning", "note": "recommendation"}
_BASELINE = {"new": "new", "known": "unchanged", "worse": "updated"}

Object = dict[str, object]


def to_sarif(report: Report, checkout: Checkout | None = None, docs: str = "") -> str:
    """Return the SARIF text: a result for whatever did not pass.

    Code hosts want paths from the root of the `checkout`. `docs` is the address of the folder with
    this project's documentation, for links; nothing leaves them out.
    """
    found = [result for result in results(report) if result.outcome != "pass"]
    placed = [result for result in found if result.model]
    rules = {result.id: result for result in reversed(placed)}
    ids = sorted(rules)
    version = version_of("lancet-onnx")
    driver: Object = {
        "name": "lancet-onnx",
        **({} if version == NOT_INSTALLED else {"semanticVersion": version}),
        "rules": [_rule(rules[each], docs) for each in ids],
    }
    run: Object = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"lancet-onnx {report.command}/"},
        "invocations": [_invocation(report, [r for r in found if not r.model])],
        "artifacts": _artifacts(report, checkout),
        "results": [_result(result, ids.index(result.id), checkout) for result in placed],
    }
    whole = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(whole, indent=2) + "\n"


def _rule(result: Result, docs: str) -> Object:
    known, kind = RULES.get(result.rule), result.check.partition(":")[0]
    severity = known.severity if known else _SEVERITY[result.severity]
    title = result.title
    advice = f"See {result.page} in the documentation of lancet-onnx."
    rule: Object = {
        "id": result.id,
        "name": "".join(word.capitalize() for word in kind.split("-")),
        "shortDescription": {"text": title},
        "fullDescription": {"text": f"{title} (check {kind})"},
        "help": {"text": f"{title}. {advice}", "markdown": f"**{title}.** {advice}"},
        "defaultConfiguration": {"level": result.severity},
        "properties": {
            "tags": ["security", "machine-learning"],
            "precision": "high",
            "problem.severity": _PROBLEM[result.severity],
            "security-severity": _SCORE[severity],
        },
    }
    if docs:
        rule["helpUri"] = f"{docs}/{result.page.removeprefix('docs/')}"
    return rule


def _result(result: Result, index: int, checkout: Checkout | None) -> Object:
    found: Object = {
        "ruleId": result.id,
        "ruleIndex": index,
        "level": result.severity,
        "message": _message(_told(result)),
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(result.model, checkout)},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {
            "lancetOnnx/v1": result.fingerprint,
            "primaryLocationLineHash": f"{result.fingerprint}:1",  # the one that GitHub looks at
        },
    }
    if result.accepted:
        found["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": result.accepted}
        ]
    if result.baseline in _BASELINE:
        found["baselineState"] = _BASELINE[result.baseline]
    return found


def _told(result: Result) -> str:
    prefix = "not evaluated: " if result.outcome == "not_evaluated" else ""
    return prefix + result.text + (f". Next: {result.next}" if result.next else "")


def _message(text: str) -> Object:
    return {"text": text.replace("](", "] (")}  # [...](...) would be a link


def _invocation(report: Report, unplaced: Sequence[Result]) -> Object:
    invocation: Object = {"executionSuccessful": not report.body.get("partial")}
    if unplaced:
        invocation["toolExecutionNotifications"] = [
            {"level": result.severity, "message": _message(_told(result))} for result in unplaced
        ]
    return invocation


def _artifacts(report: Report, checkout: Checkout | None) -> list[Object]:
    files = [as_table(report.body.get("model")), *as_rows(report.body.get("models"))]
    return [
        {
            "location": {"uri": _uri(plain(file["path"]), checkout)},
            **({"hashes": {"sha-256": plain(file["sha256"])}} if file.get("sha256") else {}),
        }
        for file in files
        if file.get("path")
    ]


def _uri(path: str, checkout: Checkout | None) -> str:
    pure = PurePath(placed_in(checkout, path))
    return pure.as_uri() if pure.is_absolute() else quote(pure.as_posix())
