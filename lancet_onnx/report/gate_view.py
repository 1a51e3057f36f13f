# SPDX-License-Identifier: Apache-2.0
"""A gate as its page shows it: what fails first, and never more than a page can hold."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lancet_onnx.report.report import Report
from lancet_onnx.report.results import Result, models, plain, remarks, results, told_of

ROOM = 200_000
"""Characters that models and their checks may take."""

FRAME = 450
"""Characters of markup around a model or check."""

_SHARES = ("clean-accuracy", "trigger")
"""Checks whose figures are shares of images; a tolerance would be a bar of no length."""

_ORDER = {"fail": 0, "not_evaluated": 1, "pass": 2}


@dataclass(frozen=True, slots=True)
class CheckView:
    """One check.

    Attributes:
        result: what it came to.
        word: pass, fail, not evaluated or accepted.
        mood: good, bad or warn.
        value: the figure, 0 to 1; None where it is no share.
        limit: what it may be, 0 to 1.
    """

    result: Result
    word: str
    mood: str
    value: float | None
    limit: float | None


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model.

    Attributes:
        path: as it was given.
        sha256: its digest, or nothing.
        verdict: pass, fail or not evaluated.
        mood: good, bad or warn.
        seconds: what it took.
        checks: what is open first; empty where the page has no room.
        commands: what to do next.
    """

    path: str
    sha256: str
    verdict: str
    mood: str
    seconds: float
    checks: tuple[CheckView, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GateView:
    """A gate.

    Attributes:
        summary: how many models pass and fail, in words; nothing of one.
        remarks: what is to be said besides the checks.
        models: worst first; those that there is room for.
        left_out: how many more there are.
    """

    summary: str
    remarks: tuple[str, ...]
    models: tuple[ModelView, ...]
    left_out: int


def gate_view(report: Report) -> GateView | None:
    """Return the view of a gate, or None of another report."""
    if report.command != "gate":
        return None
    told = report.body.get("models")
    bodies = {
        plain(each.get("path") or ""): each
        for each in (told if isinstance(told, (list, tuple)) else ())
        if isinstance(each, Mapping)
    }
    flat = tuple(result for result in results(report) if result.model)
    views = [_model(path, checks, bodies.get(path, {})) for path, checks in models(flat).items()]
    views.sort(key=lambda view: _ORDER[view.verdict.replace(" ", "_")])
    shown = _fitting(views)
    said = tuple(told_of(remark) for remark in remarks(report, flat))
    return GateView(_summary(views), said, shown, len(views) - len(shown))


def _fitting(views: Sequence[ModelView]) -> tuple[ModelView, ...]:
    """Return the models that there is room for, the later ones without their checks."""
    room, shown = ROOM, []
    for view in views:
        texts = [r for check in view.checks for r in (check.result.check, check.result.text)]
        accepted = [check.result.accepted for check in view.checks]
        checks = FRAME * len(view.checks) + _size(*texts, *accepted, *view.commands)
        if room >= checks + FRAME:
            room -= checks
            shown.append(view)
        else:
            shown.append(replace(view, checks=(), commands=()))
        room -= FRAME + _size(view.path)
        if room < 0:
            return tuple(shown[:-1])
    return tuple(shown)


def _size(*texts: str) -> int:
    return sum(len(html.escape(text)) for text in texts)


def _model(path: str, checks: tuple[Result, ...], body: Mapping[str, object]) -> ModelView:
    verdict = str(body.get("verdict"))
    verdict = verdict if verdict in _ORDER else "not_evaluated"
    ordered = sorted(checks, key=lambda r: (not r.open, _ORDER[r.outcome]))
    commands = dict.fromkeys(r.next for r in ordered if r.open and r.next)
    return ModelView(
        told_of(path),
        str(body.get("sha256") or ""),
        verdict.replace("_", " "),
        {"pass": "good", "fail": "bad"}.get(verdict, "warn"),
        checks[0].seconds,
        tuple(_check(result) for result in ordered),
        tuple(commands),
    )


def _check(result: Result) -> CheckView:
    word = "accepted" if result.accepted else result.outcome.replace("_", " ")
    mood = {"pass": "good", "fail": "bad"}.get(word, "warn")
    shares = [figure for figure in (result.value, result.limit) if figure is not None]
    drawn = result.check.partition(":")[0] in _SHARES and len(shares) == 2
    drawn = drawn and all(0 <= share <= 1 for share in shares)
    return CheckView(
        result, word, mood, result.value if drawn else None, result.limit if drawn else None
    )


def _summary(views: Sequence[ModelView]) -> str:
    counts = {word: sum(view.verdict == word for view in views) for word in
              ("fail", "not evaluated", "pass")}  # fmt: skip
    verbs = {
        "fail": ("fails", "fail"),
        "not evaluated": ("could not be evaluated", "could not be evaluated"),
        "pass": ("passes", "pass"),
    }
    parts = [f"{count} {verbs[word][count > 1]}" for word, count in counts.items() if count]
    total = f"{len(views)} model" + ("s" if len(views) != 1 else "")
    return f"{total}: {', '.join(parts)}." if len(views) > 1 else ""
