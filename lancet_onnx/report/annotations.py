# SPDX-License-Identifier: Apache-2.0
"""Workflow commands that GitHub shows beside a change: one line for each result that is open."""

from __future__ import annotations

from lancet_onnx.report.places import Checkout, placed_in
from lancet_onnx.report.report import Report
from lancet_onnx.report.results import Result, results

_LEVEL = {"error": "error", "warning": "warning", "note": "notice"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = {**_DATA, **str.maketrans({":": "%3A", ",": "%2C"})}


def to_annotations(report: Report, checkout: Checkout | None = None) -> str:
    """Return a line for each result that failed or could not be evaluated; often none at all."""
    return "".join(_line(result, checkout) for result in results(report) if result.open)


def _line(result: Result, checkout: Checkout | None) -> str:
    title = f"lancet-onnx: {result.title} [{result.id}]"
    file = placed_in(checkout, result.model).translate(_PROPERTY) if result.model else ""
    place = f"file={file},line=1," if file else ""
    prefix = "not evaluated: " if result.outcome == "not_evaluated" else ""
    text = prefix + result.text + (f" | next: {result.next}" if result.next else "")
    properties = f"{place}title={title.translate(_PROPERTY)}"
    return f"::{_LEVEL[result.severity]} {properties}::{text.translate(_DATA)}\n"
