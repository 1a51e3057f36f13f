# SPDX-License-Identifier: Apache-2.0
"""Bars on stderr, where somebody watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lancet_onnx_cli.output import Output
from lancet_onnx_cli.tables import terminal, watched

if TYPE_CHECKING:
    from lancet_onnx.types import Progress as ReportProgress


@contextmanager
def progress(output: Output) -> Iterator[ReportProgress]:
    """Yield a progress callback that draws a bar on stderr, where somebody watches."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from lancet_onnx.types import no_progress

    if output.quiet or not watched():
        yield no_progress
        return
    left = TextColumn("left"), TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), *left)
    with Progress(*columns, console=terminal(stderr=True), transient=True) as bars:
        task = bars.add_task("reading", total=1.0)
        yield lambda what, share: bars.update(task, description=what, completed=share)


@contextmanager
def waiting(output: Output, what: str) -> Iterator[None]:
    """Draw a bar without an end, and the time that has gone by, while something is done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if output.quiet or not watched():
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal(stderr=True), transient=True) as bars:
        bars.add_task(what, total=None)
        yield
