# SPDX-License-Identifier: Apache-2.0
"""Markdown for step summaries and comments: verdict, a table for each model, what to do next."""

from __future__ import annotations

from lancet_onnx.report.report import Report
from lancet_onnx.report.results import Result, models, remarks, results
from lancet_onnx.report.untrusted import plain

_WORD = {"pass": "pass", "fail": "**fail**", "not_evaluated": "**not evaluated**"}
_SPECIAL = {ord(c): f"&#{ord(c)};" for c in "&<>\\`*_[]|~#$!:"}
# Mentions and references are of the rendered text, where an entity is the plain letter.
_SPECIAL[ord("@")], _SPECIAL[ord("#")] = "@\u200b", "#\u200b"


ROOM = 500_000
"""Bytes of all tables; GitHub takes a mebibyte of a step."""


def to_markdown(report: Report) -> str:
    """Return the page; names from models are text in it, whatever they look like."""
    found = results(report)
    lines = [f"## lancet-onnx {report.command}: {report.verdict.replace('_', ' ')}"]
    if report.body.get("partial"):
        lines += ["", "The run was interrupted: what follows is a part of it."]
    said = remarks(report, found)
    lines += ["", *(f"- {escaped(remark)}" for remark in said)] if said else []
    by_model = models(found)
    if report.body.get("partial") and len(by_model) > 1:
        by_model.pop("", None)  # said above; it is for forms that list checks only
    sections = sorted(by_model.items(), key=lambda each: not any(r.open for r in each[1]))
    room = ROOM
    for number, (path, checks) in enumerate(sections):
        section = _section(path, checks)
        room -= sum(len(line.encode()) + 1 for line in section)
        if room < 0:
            more = len(sections) - number
            are = "models are" if more > 1 else "model is"
            lines += ["", f"{more} more {are} in the other reports."]
            break
        lines += section
    return "\n".join(lines) + "\n"


def _section(path: str, checks: tuple[Result, ...]) -> list[str]:
    lines = ["", f"### {code(path)}" if path else "### lancet-onnx", ""]
    lines += ["| | check | what was found |", "|---|---|---|", *map(_row, checks)]
    commands = dict.fromkeys(r.next for r in checks if r.open and r.next)
    if commands:
        lines += ["", "What to do next:", "", *fenced(commands)]
    return lines


def escaped(text: str) -> str:
    """Return text in which nothing is Markdown, HTML, an address or a mention."""
    return plain(text).translate(_SPECIAL).replace("www.", "www&#46;")


def code(text: str) -> str:
    """Return text as code on one line, which may stand in a table."""
    return f"<code>{escaped(text)}</code>"


def fenced(lines: dict[str, None]) -> list[str]:
    """Return lines as a block of code, fenced by more backticks than any of them holds."""
    longest = max(len(run) for line in lines for run in _runs(line))
    fence = "`" * max(3, longest + 1)
    return [f"{fence}sh", *lines, fence]


def _runs(line: str) -> list[str]:
    return "".join(c if c == "`" else " " for c in line).split() or [""]


def _row(result: Result) -> str:
    word = _WORD[result.outcome]
    if result.accepted:
        word = f"{result.outcome.replace('_', ' ')}, accepted"
    elif result.outcome != "pass" and result.severity != "error":
        word = f"{word} ({result.severity})"
    text = escaped(result.text) + (f" ({escaped(result.accepted)})" if result.accepted else "")
    rule = f" [{escaped(result.rule)}]" if result.rule and result.outcome != "pass" else ""
    return f"| {word} | {code(result.check)} | {text}{rule} |"
