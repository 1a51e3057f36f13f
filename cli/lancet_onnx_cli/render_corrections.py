# SPDX-License-Identifier: Apache-2.0
"""What a repair of honest errors did, class by class, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from lancet_onnx_cli.tables import plain_table, safe

SHOWN = 20
"""Classes in the table: those that changed most."""


def corrections(data: Mapping[str, object], console: Console) -> None:
    """Print how many images of which class got better and worse, if the report has it."""
    found = data.get("corrections")
    if not isinstance(found, Mapping) or not found["better"] + found["worse"]:
        return
    changed = [one for one in found["classes"] if one["better"] or one["worse"]]
    changed.sort(key=lambda one: -(one["better"] + one["worse"]))
    table = plain_table("class")
    for column in ("images", "right before", "right now", "better", "worse"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in changed[:SHOWN]:
        table.add_row(
            f"{one['class']} {safe(one['name'] or '')}".strip(),
            str(one["n"]),
            *(f"{one[name] / one['n']:.1%}" for name in ("right_before", "right_after")),
            str(one["better"]),
            str(one["worse"]),
        )
    console.print(table)
    if len(changed) > SHOWN:
        console.print(f"{len(changed) - SHOWN} more classes changed, see -f json")
    console.print()
