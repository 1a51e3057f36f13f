# SPDX-License-Identifier: Apache-2.0
"""A gate's report for people: a table of checks, then what fails, how bad, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console

from lancet_onnx.report import Report, Result, results
from lancet_onnx.report.results import Outcome, models, remarks, verdicts
from lancet_onnx_cli.tables import plain_table, safe

_SHOWN = {
    "pass": "[green]pass[/]",
    "fail": "[bold red]fail[/]",
    "not_evaluated": "[yellow]not evaluated[/]",
    "accepted": "[yellow]accepted[/]",
}


def render_gate(report: Report, console: Console) -> None:
    """Print the checks (of several models: of those that do not pass), and what there is to do."""
    found, words = results(report), verdicts(report)
    grouped = models(found)
    for path, checks in grouped.items():
        if len(grouped) == 1 or words.get(path) != "pass":
            _checks(path, checks, console)
    if len(grouped) > 1:
        _summary(grouped, words, console)
    for path, checks in grouped.items():
        for line in _to_do(_deciding(checks, words.get(path))):
            console.print(line, soft_wrap=True)
    # Of several that pass no check is shown, only the reasons say what was let through.
    several = len(grouped) > 1 and report.verdict == "pass"
    for reason in report.reasons if several else remarks(report, found):
        console.print(f"  {safe(reason)}", soft_wrap=True)


def _checks(path: str, checks: Sequence[Result], console: Console) -> None:
    console.print(safe(path), style="bold", soft_wrap=True)
    table = plain_table("check")
    table.add_column("result", no_wrap=True)
    table.add_column("found", overflow="fold")
    first: dict[str, str] = {}
    for check in checks:
        same = first.setdefault(check.text, check.check)
        text = check.text if same == check.check else f"as for {same}"
        why = f" ({check.accepted})" if check.accepted else ""
        word = _SHOWN["accepted" if check.accepted else check.outcome]
        table.add_row(safe(check.check), word, safe(text + why))
    console.print(table)
    console.print()


def _summary(
    grouped: Mapping[str, Sequence[Result]], words: Mapping[str, Outcome], console: Console
) -> None:
    table = plain_table("model")
    table.add_column("verdict", no_wrap=True)
    table.add_column("because of", overflow="fold")
    for path, checks in grouped.items():
        word = words.get(path, "not_evaluated")
        because = [check.check for check in _deciding(checks, word)]
        table.add_row(safe(path), _SHOWN[word], safe(", ".join(because)))
    console.print(table)
    console.print()


def _to_do(deciding: Sequence[Result]) -> Iterator[str]:
    """Yield a line on what is wrong and how bad, and one on what to do."""
    told: set[str] = set()
    for check in deciding:
        if check.text in told:  # one reason can keep several checks from being evaluated
            continue
        told.add(check.text)
        rule = f" \\[{safe(check.rule)}]" if check.rule else ""
        worse = ", worse than in the baseline" if check.baseline == "worse" else ""
        name = f"{safe(check.model)}: {safe(check.check)}"
        yield f"{_SHOWN[check.outcome]}: {name}: {safe(check.text)}{worse}{rule}"
        if check.next:
            yield f"  next: {safe(check.next)}"
        elif check.rule:
            yield f"  see {safe(check.page)}"


def _deciding(checks: Sequence[Result], verdict: Outcome | None) -> list[Result]:
    """Return the checks that keep a model from passing."""
    return [check for check in checks if check.open and check.outcome == verdict]
