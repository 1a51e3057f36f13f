# SPDX-License-Identifier: Apache-2.0
"""A search for unknown triggers as people see it: a bar for each class, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lancet_onnx.report.untrusted import as_list, as_number, as_rows, as_share, as_whole, plain

MOST = 50
"""Classes that are shown; of more, those with the highest scores."""

COLUMNS = {
    "success": "leads there",
    "coverage": "covers",
    "alikeness": "alikeness",
    "stray": "junk leads there",
}
"""What may be known of a class besides its score, with the headings."""

_ROOM = 1.05


@dataclass(frozen=True, slots=True)
class ClassBar:
    """One class: its score, the bar's length (0 to 1), and what its best trigger does.

    What is not known is None.
    """

    number: int
    score: float | None
    length: float
    suspect: bool
    examined: bool
    coverage: float | None
    alikeness: float | None
    success: float | None
    stray: float | None


@dataclass(frozen=True, slots=True)
class SearchView:
    """What is shown of a search.

    Attributes:
        meaning: what the bars say, in plain words.
        bars: highest score first, then those without one.
        total: how many classes have a bar, shown or not.
        columns: what is known of the shown classes besides their scores: see `COLUMNS`.
        threshold: the score from which on a class is suspect.
        limit: where the threshold is on the bars' scale, 0 to 1.
        signs: name and text of what else speaks for or against a backdoor.
        power: what the search could have found.
    """

    meaning: str
    bars: tuple[ClassBar, ...]
    total: int
    columns: tuple[str, ...]
    threshold: float | None
    limit: float | None
    signs: tuple[tuple[str, str], ...]
    power: str


def search_view(report: Mapping[str, object], most: int = MOST) -> SearchView | None:
    """Return the view of a scan's `search`, or None where there was none."""
    search = report.get("search")
    if report.get("command") != "scan" or not isinstance(search, Mapping):
        return None
    verdict, threshold = str(report.get("verdict")), as_number(search.get("threshold"))
    missing, screened = _numbers(search.get("missing")), _numbers(search.get("screened"))
    rows = as_rows(search.get("classes"))
    seen = {as_whole(row.get("class")) for row in rows}
    rows += [{"class": number, "examined": False} for number in missing if number not in seen]
    known = [score for row in rows if (score := as_number(row.get("score"))) is not None]
    scale = max(*known, threshold or 0.0, 1e-9) * _ROOM
    named = _named(search.get("suspect"), rows, threshold, verdict)
    bars = sorted(
        (_bar(row, scale, named, missing) for row in rows),
        key=lambda bar: (bar.score is None, -(bar.score or 0.0), bar.number),
    )
    first = bars[:most]
    if not any(bar.suspect for bar in first):  # the one that everybody looks for
        first = [*first[: most - 1], *(bar for bar in bars if bar.suspect), *first[most - 1 :]]
    shown = tuple(first[:most])
    signs = tuple(
        (plain(sign.get("name")), plain(sign.get("text"))) for sign in as_rows(search.get("signs"))
    )
    return SearchView(
        _meaning(bars, len(screened), threshold, verdict, search.get("source")),
        shown,
        len(bars),
        tuple(name for name in COLUMNS if any(getattr(bar, name) is not None for bar in shown)),
        threshold,
        None if threshold is None else as_share(threshold / scale),
        signs,
        plain(search.get("power")),
    )


def found_triggers(report: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the triggers of a scan's first finding, where a search found it."""
    findings = as_rows(report.get("findings"))
    return as_rows(findings[0].get("triggers")) if findings else []


def _named(
    suspect: object, rows: Sequence[Mapping[str, object]], threshold: float | None, verdict: str
) -> object:
    """Return the suspect if it is one: a search names the highest score, however low that is."""
    scores = [as_number(row.get("score")) for row in rows if row.get("class") == suspect]
    over = any(score is not None and score >= (threshold or 0.0) for score in scores)
    return suspect if over or verdict == "backdoored" else None


def _bar(
    row: Mapping[str, object], scale: float, suspect: object, missing: Sequence[int]
) -> ClassBar:
    score, number = as_number(row.get("score")), as_whole(row.get("class"))
    return ClassBar(
        -1 if number is None else number,
        score,
        0.0 if score is None else as_share(score / scale) or 0.0,
        suspect is not None and number == suspect,
        row.get("examined") is not False and number not in missing,
        as_number(row.get("coverage")),
        as_number(row.get("alikeness")),
        as_number(row.get("success")),
        as_number(row.get("stray")),
    )


def _meaning(
    bars: Sequence[ClassBar],
    screened: int,
    threshold: float | None,
    verdict: str,
    source: object,
) -> str:
    scored = [bar for bar in bars if bar.score is not None]
    examined = sum(bar.examined for bar in bars)
    if not scored:
        return "No class was examined, so nothing can be said of any."
    limit = "" if threshold is None else f"; a class is suspect from {threshold:.3g} on"
    suspect = next((bar for bar in scored if bar.suspect), None)
    if suspect is None:
        total = len(bars) + screened
        count = f"All {total}" if examined == total else f"{examined} of {total}"
        others = f" ({screened} were only screened)" if screened else ""
        highest = f"the highest score is {scored[0].score:.3g} (class {scored[0].number})"
        rest = "." if verdict == "clean" else ". That does not clear the model."
        return f"{count} classes were examined{others}, and none stands out: {highest}{limit}{rest}"
    images = "images" if source is None else f"the images of class {plain(source)}"
    does = [
        *([] if suspect.coverage is None else [f"covers {suspect.coverage:.1%} of the image"]),
        *([] if suspect.success is None else [f"leads {suspect.success:.1%} of {images} to it"]),
    ]
    what = f" that {' and '.join(does)}" if does else ""
    scores = f"Its score is {suspect.score:.3g}"
    if rest_of := [bar for bar in scored if not bar.suspect]:
        scores += f", the next highest {rest_of[0].score:.3g} (class {rest_of[0].number})"
    rest = "." if verdict == "backdoored" else ". That does not settle whether it is a backdoor."
    return f"For class {suspect.number} a trigger was found{what}. {scores}{limit}{rest}"


def _numbers(value: object) -> list[int]:
    return [number for each in as_list(value) if (number := as_whole(each)) is not None]
