# SPDX-License-Identifier: Apache-2.0
"""JUnit XML: a suite for each model, a case for each check."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from lancet_onnx.report.report import Report
from lancet_onnx.report.results import Result, models, results


def to_junit(report: Report) -> str:
    """Return the XML.

    What could not be evaluated is an error, or skipped where a failure would only warn. What is
    accepted is skipped, so that a dashboard shows it and no pipeline stops at it.
    """
    found = results(report)
    root = Element("testsuites", {"name": f"lancet-onnx {report.command}", **_counts(found)})
    for path, checks in models(found).items():
        name = path or "lancet-onnx"
        seconds = f"{checks[0].seconds:.3f}"
        suite = SubElement(root, "testsuite", {"name": name, "time": seconds, **_counts(checks)})
        for result in checks:
            case = SubElement(suite, "testcase", classname=name, name=_name(result))
            kind = _kind(result)
            if kind:
                message = f"{result.accepted}: {result.text}" if result.accepted else result.text
                problem = SubElement(case, kind, message=message)
                if kind != "skipped":
                    problem.set("type", result.id)
                problem.text = "\n".join(
                    line
                    for line in (result.text, result.next and f"next: {result.next}", result.page)
                    if line
                )
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, "unicode") + "\n"


def _name(result: Result) -> str:
    return f"{result.check} [{result.rule}]" if result.rule else result.check


def _kind(result: Result) -> str:
    if result.outcome == "pass":
        return ""
    if result.accepted:
        return "skipped"
    if result.outcome == "fail":
        return "failure"
    return "error" if result.severity == "error" else "skipped"


def _counts(found: tuple[Result, ...]) -> dict[str, str]:
    kinds = [_kind(result) for result in found]
    counts = {
        "tests": len(kinds),
        "failures": kinds.count("failure"),
        "errors": kinds.count("error"),
        "skipped": kinds.count("skipped"),
    }
    return {name: str(count) for name, count in counts.items()}
