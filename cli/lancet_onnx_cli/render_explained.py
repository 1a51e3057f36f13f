# SPDX-License-Identifier: Apache-2.0
"""An explanation of errors as tables; what it is about are the pictures on the page."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from lancet_onnx.report.explained import Reading, explained_view
from lancet_onnx_cli.tables import plain_table, safe


def explained(data: Mapping[str, object], console: Console) -> None:
    """Print one line for each error, and where the weights behind them are."""
    view = explained_view(data, {})
    if view is None:
        return
    if view.errors:
        patched = any(error.after for error in view.errors)
        table = plain_table("image", "true", "taken for", "region blurred")
        if patched:
            table.add_column("patched", overflow="fold")
        table.add_column("region", justify="right", no_wrap=True)
        table.add_column("other fills", justify="right", no_wrap=True)
        for error in view.errors:
            table.add_row(
                str(error.image),
                safe(error.true),
                _said(error.before),
                _said(error.companion),
                *([_said(error.after)] if patched else []),
                "" if error.area is None else f"{error.area:.1%}",
                "" if error.fills is None else f"{error.fills[0]} of {error.fills[1]}",
            )
        console.print(table)
        console.print()
    if view.places:
        heading = "changed by the patch: node" if view.by_patch else "located in node"
        table = plain_table(heading, "initializer")
        for column in ("weights", "of"):
            table.add_column(column, justify="right", no_wrap=True)
        for place in view.places:
            table.add_row(
                safe(place.node), safe(place.initializer), str(place.located), str(place.weights)
            )
        console.print(table)
        console.print()


def _said(reading: Reading | None) -> str:
    return "" if reading is None else f"{safe(reading.label)} ({reading.sure:.0%})"
