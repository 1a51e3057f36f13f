# SPDX-License-Identifier: Apache-2.0
"""A search for unknown triggers, and what is left after a repair of what it found, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from lancet_onnx.report.search import COLUMNS, ClassBar, found_triggers, search_view
from lancet_onnx.report.untrusted import as_list, as_number, as_rows, as_table, plain
from lancet_onnx_cli.tables import plain_table, safe

_SHOWN = 10
_WIDTH = 24


def search(data: Mapping[str, object], console: Console) -> None:
    """Print the classes with the highest scores, what that means, and what was found."""
    view = search_view(data, _SHOWN)
    if view is None:
        return
    if view.bars:
        line = "" if view.threshold is None else f"score (| is {view.threshold:.3g})"
        table = plain_table("class", line or "score")
        for column in ("", *(COLUMNS[name] for name in view.columns)):
            table.add_column(column, justify="right", no_wrap=True)
        for bar in view.bars:
            table.add_row(
                f"[bold red]{bar.number} *[/]" if bar.suspect else str(bar.number),
                _drawn(bar, view.limit),
                _number(bar.score) if bar.examined else f"({_number(bar.score)})",
                *(_cell(bar, name) for name in view.columns),
            )
        console.print(table)
        if len(view.bars) < view.total:
            console.print(f"the {len(view.bars)} classes with the highest scores, of {view.total}")
        notes = {
            "* suspect": any(bar.suspect for bar in view.bars),
            "() not examined": not all(bar.examined for bar in view.bars),
        }
        if any(notes.values()):
            console.print("  ".join(note for note, is_so in notes.items() if is_so))
        console.print()
    console.print(safe(view.meaning), soft_wrap=True)
    for name, text in view.signs:
        console.print(f"{safe(name)}: {safe(text)}", soft_wrap=True)
    if view.power:
        console.print(safe(view.power), soft_wrap=True)
    console.print()
    _triggers(data, console)


def residual_risk(data: Mapping[str, object], console: Console) -> None:
    """Print what of the risk is left after a repair of what a search found."""
    if not (risk := as_table(data.get("residual_risk"))):
        return
    table = plain_table("fresh triggers")
    for column in ("strength", "attack success before", "after", "images"):
        table.add_column(column, justify="right")
    for row in as_rows(risk.get("strengths")):
        table.add_row(
            safe(plain(row.get("kind"))),
            _number(row.get("strength")),
            _percent(row.get("before")),
            _percent(row.get("after")),
            safe(plain(row.get("n"))),
        )
    if table.row_count:
        console.print(table)
    recall = as_table(risk.get("recall"))
    if recall.get("before") is not None:
        kept = _percent(recall.get("ratio"))
        console.print(
            f"the suspect class's own images read right: {_percent(recall.get('before'))} before, "
            f"{_percent(recall.get('after'))} after{f' ({kept} of it kept)' if kept else ''}",
            soft_wrap=True,
        )
    for sign in as_list(risk.get("signs")):
        console.print(f"  {safe(sign)}", soft_wrap=True)
    console.print()


def _triggers(data: Mapping[str, object], console: Console) -> None:
    triggers = found_triggers(data)
    if not triggers:
        return
    table = plain_table("trigger found", "stamped by", "form")
    for column in ("covers", "attack success", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in triggers:
        table.add_row(
            safe(each.get("path") or "not kept"),
            safe(plain(each.get("mode"))),
            safe(plain(each.get("form"))),
            _percent(each.get("coverage")),
            _percent(each.get("attack_success")),
            safe(plain(each.get("n"))),
        )
    console.print(table)
    console.print()


def _drawn(bar: ClassBar, limit: float | None) -> str:
    """Draw a bar in letters, with the threshold as a line across it."""
    filled = round(bar.length * _WIDTH)
    if bar.length > 0:
        filled = max(1, filled)
    letters = ["#"] * filled + [" "] * (_WIDTH - filled)
    if limit is not None:
        letters[min(_WIDTH - 1, round(limit * _WIDTH))] = "|"
    return "".join(letters).rstrip()


def _cell(bar: ClassBar, name: str) -> str:
    return _number(bar.alikeness) if name == "alikeness" else _percent(getattr(bar, name))


def _number(value: object) -> str:
    known = as_number(value)
    return "" if known is None else f"{known:.3g}"


def _percent(value: object) -> str:
    known = as_number(value)
    return "" if known is None else f"{known:.1%}"
