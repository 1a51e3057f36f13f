# SPDX-License-Identifier: Apache-2.0
"""A gate's report for people: a table of checks, then what fails, how bad, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from lancet_onnx_cli.tables import plain_table, safe

_SHOWN = {
    "pass": "[green]pass[/]",
    "fail": "[bold red]fail[/]",
    "not_evaluated": "[yellow]not evaluated[/]",
    "allowed": "[yellow]allowed[/]",
    "known": "[yellow]known[/]",
}


def render_gate(data: Mapping[str, Any], console: Console) -> None:
    """Print the checks (of several models: of those that do not pass), and what there is to do."""
    models = data["models"]
    for model in models:
        if len(models) == 1 or model["verdict"] != "pass":
            _checks(model, console)
    if len(models) > 1:
        _summary(models, console)
    for model in models:
        for line in _to_do(model):
            console.print(line, soft_wrap=True)
    if data["verdict"] == "pass" or data["partial"]:  # what was let through, or left out
        for reason in data["reasons"]:
            console.print(f"  {safe(reason)}", soft_wrap=True)


def _checks(model: Mapping[str, Any], console: Console) -> None:
    console.print(safe(model["path"]), style="bold", soft_wrap=True)
    table = plain_table("check")
    table.add_column("result", no_wrap=True)
    table.add_column("found", overflow="fold")
    first: dict[str, str] = {}
    for check in model["checks"]:
        same = first.setdefault(check["text"], check["id"])
        text = check["text"] if same == check["id"] else f"as for {same}"
        table.add_row(safe(check["id"]), _SHOWN[_standing(check)], safe(text))
    console.print(table)
    console.print()


def _summary(models: Sequence[Mapping[str, Any]], console: Console) -> None:
    table = plain_table("model")
    table.add_column("verdict", no_wrap=True)
    table.add_column("because of", overflow="fold")
    for model in models:
        because = [check["id"] for check in _deciding(model)]
        shown = _SHOWN[model["verdict"]]
        table.add_row(safe(model["path"]), shown, safe(", ".join(because)))
    console.print(table)
    console.print()


def _to_do(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line on what is wrong and how bad, and one on what to do."""
    told: set[str] = set()
    for check in _deciding(model):
        if check["text"] in told:  # one reason can keep several checks from being evaluated
            continue
        told.add(check["text"])
        rule = f" \\[{check['rule']}]" if check["rule"] else ""
        worse = ", worse than in the baseline" if check["baseline"] == "worse" else ""
        name = f"{safe(model['path'])}: {safe(check['id'])}"
        yield f"{_SHOWN[check['result']]}: {name}: {safe(check['text'])}{worse}{rule}"
        if check["next"]:
            yield f"  next: {safe(check['next'])}"
        elif check["rule"]:
            yield f"  see {safe(check['page'])}"


def _deciding(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the checks that keep a model from passing, worst first."""
    verdict = model["verdict"]
    if verdict == "pass":
        return []
    return [check for check in model["checks"] if _standing(check) == verdict]


def _standing(check: Mapping[str, Any]) -> str:
    """Return the result, or why a failure does not count."""
    if check["result"] != "fail":
        return str(check["result"])
    if check["allowed"]:
        return "allowed"
    return "known" if check["baseline"] == "known" else "fail"
