# SPDX-License-Identifier: Apache-2.0
"""What the tables for a terminal are made of."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def terminal(*, stderr: bool = False) -> Console:
    """Return the console of a stream.

    Colours on stdout are for eyes only: FORCE_COLOR, which pipelines set for their logs, would put
    escape codes into the verdict that a script reads.
    """
    return Console(stderr=True) if stderr else Console(force_terminal=sys.stdout.isatty())


def watched() -> bool:
    """Return whether somebody watches stderr, so that a bar may move there."""
    return sys.stderr.isatty()


def plain_table(*names: str) -> Table:
    """Return a plain table; `names` head columns of names, which fold and are never cut short."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def safe(value: object) -> str:
    """Show text from a model or path: no markup, and what `printable` says."""
    return escape(printable(str(value)))


def printable(text: str) -> str:
    """Return text without terminal control sequences, and without commands to GitHub's runner.

    The runner takes these from any line of a log; a space of no width breaks them.
    """
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        shown = shown.replace("::", ":\u200b:").replace("##[", "##\u200b[")
    return shown
