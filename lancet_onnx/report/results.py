# SPDX-License-Identifier: Apache-2.0
"""Any report as a flat list of results, which every form for pipelines is made of.

A gate has a result for each check of each model. Of the other reports, each finding is one, and the
verdict where a scan found nothing. Text from a model is hostile: here it becomes printable, on one
line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from lancet_onnx.report.report import EXIT_CODES, Report
from lancet_onnx.report.untrusted import as_list, as_number, as_rows, as_table, bounded, plain
from lancet_onnx.rules import LEVELS, PAGE, RULES, Level, fingerprint_of, page_of

Outcome = Literal["pass", "fail", "not_evaluated"]

_OUTCOME: Mapping[int, Outcome] = {0: "pass", 1: "fail", 3: "not_evaluated"}

MOST_COMMAND = 4000
"""Characters of a command, which may name several long paths."""


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
    severity: Level
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
    if report.command == "gate" and as_rows(data.get("models")):
        rest = [_unfinished(report)] if data.get("partial") else []
        return (*_gate(data), *rest)
    if report.command == "doctor" and as_rows(data.get("problems")):
        return tuple(_problems(data))
    found = tuple(_findings(data))
    return found if as_rows(data.get("findings")) else (*found, _verdict(report, data))


def remarks(report: Report, found: tuple[Result, ...]) -> tuple[str, ...]:
    """Return the reasons of a report that say more than its results do.

    A gate, which can have thousands of both, says itself which these are.
    """
    if report.command == "gate":
        return tuple(map(bounded, as_list(report.body.get("remarks"))))
    texts = [result.text for result in found]
    reasons = map(bounded, report.reasons)
    return tuple(
        reason for reason in reasons if not any(reason in text or text in reason for text in texts)
    )


def models(found: tuple[Result, ...]) -> dict[str, tuple[Result, ...]]:
    """Return the results of each model, in the order in which models come."""
    grouped: dict[str, list[Result]] = {}
    for result in found:
        grouped.setdefault(result.model, []).append(result)
    return {path: tuple(own) for path, own in grouped.items()}


def verdicts(report: Report) -> dict[str, Outcome]:
    """Return what a gate says of each model."""
    rows = as_rows(report.body.get("models"))
    return {plain(row.get("path")): _outcome(row.get("verdict")) for row in rows}


def _gate(data: Mapping[str, object]) -> Iterator[Result]:
    for model in as_rows(data.get("models")):
        path, verdict = plain(model.get("path")), _outcome(model.get("verdict"))
        seconds = as_number(model.get("seconds")) or 0.0
        checks = as_rows(model.get("checks"))
        for check in checks:
            name, rule = bounded(check.get("id")), plain(check.get("rule"))
            severity = check.get("severity")
            yield Result(
                path,
                name,
                rule,
                cast(Level, severity) if severity in get_args(Level) else "error",
                _outcome(check.get("result")),
                bounded(check.get("text")) or name,
                _command(check.get("next")),
                plain(check.get("page")) or PAGE,
                plain(check.get("fingerprint")) or fingerprint_of(path, name, rule),
                _accepted(check, verdict),
                plain(check.get("baseline")),
                seconds,
                as_number(check.get("value")),
                as_number(check.get("limit")),
            )
        if not checks:
            yield Result(
                path,
                "gate",
                "",
                "error",
                verdict,
                "nothing was checked",
                "",
                PAGE,
                fingerprint_of(path, "gate"),
                seconds=seconds,
            )


def _unfinished(report: Report) -> Result:
    """Return what keeps a form that lists checks only from looking like the whole run."""
    text = (remarks(report, ()) or ("the run was interrupted",))[-1]
    print_ = fingerprint_of("gate", "partial")
    return Result("", "gate", "", "error", "not_evaluated", text, "", PAGE, print_)


def _accepted(check: Mapping[str, object], verdict: Outcome) -> str:
    outcome, allowed = check.get("result"), check.get("allowed")
    if outcome == "pass":
        return ""
    if isinstance(allowed, Mapping):
        until = f" until {allowed['expires']}" if allowed.get("expires") else ""
        return bounded(f"allowed{until}: {allowed.get('reason')}")
    if check.get("baseline") == "known":
        return "known from the baseline"
    # Only a policy that names the check lets a model pass beside it.
    return "the policy does without" if outcome == "not_evaluated" and verdict == "pass" else ""


def _findings(data: Mapping[str, object]) -> Iterator[Result]:
    told = "; ".join(map(plain, as_list(data.get("reasons"))))
    for finding in as_rows(data.get("findings")):
        target = plain(finding.get("target"))
        text, command = f"target class {target}: {told}", _command(finding.get("next"))
        yield _finding(data, "scan", finding, target, text, command)
    for switch in as_rows(data.get("graph_logic")):
        place, text = plain(switch.get("node")), plain(switch.get("text"))
        yield _finding(data, "graph-logic", switch, place, text, "")


def _finding(
    data: Mapping[str, object],
    check: str,
    row: Mapping[str, object],
    place: str,
    text: str,
    command: str,
) -> Result:
    path, rule = _path(data), plain(row.get("rule"))
    return Result(
        path,
        check,
        rule,
        LEVELS.get(plain(row.get("severity")), "error"),
        "fail",
        bounded(text),
        command,
        page_of(rule),
        fingerprint_of(path, rule, place),
        seconds=as_number(data.get("seconds")) or 0.0,
    )


def _problems(data: Mapping[str, object]) -> Iterator[Result]:
    for problem in as_rows(data.get("problems")):
        text, command = bounded(problem.get("text")), _command(problem.get("command"))
        mark = fingerprint_of("doctor", text)
        yield Result("", "doctor", "", "error", "fail", text, command, "README.md", mark)


def _verdict(report: Report, data: Mapping[str, object]) -> Result:
    path, word = _path(data), report.verdict.replace("_", " ")
    told = "; ".join(map(plain, report.reasons))
    outcome = _OUTCOME[EXIT_CODES[report.verdict]]
    if told and outcome == report.verdict == "not_evaluated":
        word = ""  # every form says the outcome itself
    return Result(
        path,
        report.command.replace(" ", "-"),
        "",
        "error",
        outcome,
        bounded(": ".join(part for part in (word, told) if part)),
        "",
        PAGE,
        fingerprint_of(path, report.command),
        seconds=as_number(data.get("seconds")) or 0.0,
    )


def _path(data: Mapping[str, object]) -> str:
    """Return the file that the report is of: of a comparison, the newer one."""
    judged = (data.get("patch"), data.get("model"), *as_rows(data.get("models")))
    paths = [path for one in judged if (path := plain(as_table(one).get("path")))]
    return paths[-1] if paths else ""


def _outcome(word: object) -> Outcome:
    """Return a word if it is one of ours; whatever else it says, nothing was evaluated."""
    return cast(Outcome, word) if word in get_args(Outcome) else "not_evaluated"


def _command(value: object) -> str:
    """Return a command for people; half of one is worse than none."""
    text = plain(value)
    return text if len(text) <= MOST_COMMAND else ""
