# SPDX-License-Identifier: Apache-2.0
"""Any report as a flat list of results, which every form for pipelines is made of.

A gate has a result for each check of each model. Of the other reports, each finding is one, and the
verdict where a scan found nothing. Text from a model is hostile: here it becomes printable, on one
line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from lancet_onnx.report.report import EXIT_CODES, Report
from lancet_onnx.rules import RULES

Severity = Literal["error", "warning", "note"]
Outcome = Literal["pass", "fail", "not_evaluated"]

_SEVERITY: Mapping[str, Severity] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
}
_OUTCOME: Mapping[int, Outcome] = {0: "pass", 1: "fail", 3: "not_evaluated"}
_PAGE = "docs/rules.md"

MOST_TEXT = 600
"""Characters of a sentence or command: names in a model can be of any length."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one check of one model came to.

    Attributes:
        model: path of the file; empty where the report is of none.
        check: what was checked, such as ``clean-accuracy`` or ``trigger:t.png``.
        rule: identifier of `lancet_onnx.rules`; empty where there is none.
        severity: how bad a failure is.
        outcome: what came out.
        text: one sentence.
        next: the command that goes on from here, or nothing.
        page: where the check is explained.
        fingerprint: the same for the same finding in another run, whatever the file's bytes.
        accepted: why a failure is none of this run's (allowed, or known before); mostly empty.
        baseline: new, known or worse, beside an earlier report; empty without one.
        seconds: what the whole model took; 0 where that is not known.
        value: the figure that was judged, where there is one.
        limit: what it was compared with.
    """

    model: str
    check: str
    rule: str
    severity: Severity
    outcome: Outcome
    text: str
    next: str
    page: str
    fingerprint: str
    accepted: str = ""
    baseline: str = ""
    seconds: float = 0.0
    value: float | None = None
    limit: float | None = None

    @property
    def open(self) -> bool:
        """Whether somebody has to look at it."""
        return self.outcome != "pass" and not self.accepted

    @property
    def id(self) -> str:
        """The rule, or the check where there is no rule."""
        return self.rule or self.check

    @property
    def title(self) -> str:
        """What it is about, in few words."""
        kind = self.check.partition(":")[0]
        return RULES[self.rule].title if self.rule in RULES else kind.replace("-", " ")


def results(report: Report) -> tuple[Result, ...]:
    """Return what the report says of each model, check by check, in the report's order."""
    data = report.to_dict()
    if report.command == "gate" and _rows(data.get("models")):
        rest = [_unfinished(report)] if data.get("partial") else []
        return (*_gate(data), *rest)
    if report.command == "doctor" and _rows(data.get("problems")):
        return tuple(_problems(data))
    found = tuple(_findings(data))
    return found if _rows(data.get("findings")) else (*found, _verdict(report, data))


def remarks(report: Report, found: tuple[Result, ...]) -> tuple[str, ...]:
    """Return the reasons of a report that say more than its results do."""

    def said(reason: str) -> bool:
        return any(
            result.text in reason
            or reason in result.text
            or (result.accepted and f"{result.check}: " in reason)
            for result in found
        )

    reasons = (plain(reason) for reason in report.reasons)
    return tuple(reason for reason in reasons if not said(reason))


def plain(value: object) -> str:
    """Return text on one line without control characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value))


def told_of(value: object) -> str:
    """Return text for people: plain, and of a bounded length; nothing for None."""
    text = plain("" if value is None else value)
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"


def models(found: tuple[Result, ...]) -> dict[str, tuple[Result, ...]]:
    """Return the results of each model, in the order in which models come."""
    grouped: dict[str, list[Result]] = {}
    for result in found:
        grouped.setdefault(result.model, []).append(result)
    return {path: tuple(own) for path, own in grouped.items()}


def _gate(data: Mapping[str, object]) -> Iterator[Result]:
    for model in _rows(data.get("models")):
        path, seconds = plain(model.get("path") or ""), _seconds(model.get("seconds"))
        checks = _rows(model.get("checks"))
        for check in checks:
            severity, outcome = check.get("severity"), check.get("result")
            name, rule = told_of(check.get("id")), plain(check.get("rule") or "")
            yield Result(
                path,
                name,
                rule,
                cast(Severity, severity) if severity in _SEVERITY.values() else "error",
                cast(Outcome, outcome) if outcome in _OUTCOME.values() else "not_evaluated",
                told_of(check.get("text") or name),
                told_of(check.get("next")),
                plain(check.get("page") or _PAGE),
                plain(check.get("fingerprint") or _fingerprint(path, name, rule)),
                _accepted(check, str(model.get("verdict"))),
                plain(check.get("baseline") or ""),
                seconds,
                _figure(check.get("value")),
                _figure(check.get("limit")),
            )
        if not checks:
            outcome = str(model.get("verdict"))
            yield Result(
                path,
                "gate",
                "",
                "error",
                cast(Outcome, outcome) if outcome in _OUTCOME.values() else "not_evaluated",
                "nothing was checked",
                "",
                _PAGE,
                _fingerprint(path, "gate"),
                seconds=seconds,
            )


def _unfinished(report: Report) -> Result:
    """Return what keeps a form that lists checks only from looking like the whole run."""
    told = [reason for reason in report.reasons if reason.startswith("partial: ")]
    text = told_of(told[0] if told else "partial: the run was interrupted")
    print_ = _fingerprint("gate", "partial")
    return Result("", "gate", "", "error", "not_evaluated", text, "", _PAGE, print_)


def _accepted(check: Mapping[str, object], verdict: str) -> str:
    outcome, allowed = check.get("result"), check.get("allowed")
    if outcome == "pass":
        return ""
    if isinstance(allowed, Mapping):
        until = f" until {allowed['expires']}" if allowed.get("expires") else ""
        return told_of(f"allowed{until}: {allowed.get('reason')}")
    if check.get("baseline") == "known":
        return "known from the baseline"
    # Only a policy that names the check lets a model pass beside it.
    return "the policy does without" if outcome == "not_evaluated" and verdict == "pass" else ""


def _findings(data: Mapping[str, object]) -> Iterator[Result]:
    path, seconds = _path(data), _seconds(data.get("seconds"))
    told = "; ".join(plain(reason) for reason in cast(list[object], data["reasons"]))
    for finding in _rows(data.get("findings")):
        rule, target = plain(finding.get("rule")), plain(finding.get("target"))
        yield Result(
            path,
            "scan",
            rule,
            _severity(finding),
            "fail",
            told_of(f"target class {target}: {told}"),
            told_of(finding.get("next")),
            f"{_PAGE}#{rule.lower()}",
            _fingerprint(path, rule, target),
            seconds=seconds,
        )
    for switch in _rows(data.get("graph_logic")):
        rule, node = plain(switch.get("rule")), plain(switch.get("node"))
        yield Result(
            path,
            "graph-logic",
            rule,
            _severity(switch),
            "fail",
            told_of(switch.get("text")),
            "",
            f"{_PAGE}#{rule.lower()}",
            _fingerprint(path, rule, node),
            seconds=seconds,
        )


def _problems(data: Mapping[str, object]) -> Iterator[Result]:
    for problem in _rows(data.get("problems")):
        text, command = told_of(problem.get("text")), told_of(problem.get("command"))
        print_ = _fingerprint("doctor", text)
        yield Result("", "doctor", "", "error", "fail", text, command, "README.md", print_)


def _verdict(report: Report, data: Mapping[str, object]) -> Result:
    path, word = _path(data), report.verdict.replace("_", " ")
    told = "; ".join(plain(reason) for reason in report.reasons)
    outcome = _OUTCOME[EXIT_CODES[report.verdict]]
    if told and outcome == report.verdict == "not_evaluated":
        word = ""  # every form says the outcome itself
    return Result(
        path,
        report.command.replace(" ", "-"),
        "",
        "error",
        outcome,
        told_of(": ".join(part for part in (word, told) if part)),
        "",
        _PAGE,
        _fingerprint(path, report.command),
        seconds=_seconds(data.get("seconds")),
    )


def _path(data: Mapping[str, object]) -> str:
    """Return the file that the report is of: of a comparison, the newer one."""
    judged = [data.get("patch"), data.get("model"), *_rows(data.get("models"))]
    paths = [plain(m["path"]) for m in judged if isinstance(m, Mapping) and m.get("path")]
    return paths[-1] if paths else ""


def _severity(finding: Mapping[str, object]) -> Severity:
    return _SEVERITY.get(str(finding.get("severity")), "error")


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _rows(value: object) -> list[Mapping[str, object]]:
    rows = value if isinstance(value, (list, tuple)) else ()
    return [row for row in rows if isinstance(row, Mapping)]


def _seconds(value: object) -> float:
    return _figure(value) or 0.0


def _figure(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number that no float holds
        return None
