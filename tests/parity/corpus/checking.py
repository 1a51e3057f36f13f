# SPDX-License-Identifier: Apache-2.0
"""The check: each row in a forked child, kept in the cache, printed, and written as a table."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from corpus.building import in_child, say
from corpus.store import Record, paths, read
from corpus.table import cells, markdown


def check(
    cache: Path,
    only: Sequence[str] | None,
    *,
    again: bool = False,
    seconds: int = 240,
    target: Path | None = None,
) -> int:
    """Fill in what is missing or failed (`again`: all rows), print, write; 1 if any row fails."""
    import torch

    torch.set_num_threads(1)
    rows = importlib.import_module("corpus.comparing")
    records = [r for r in read(cache) if not only or any(part in r.name for part in only)]
    # Small files first: a check that is cut short has then seen the most.
    for record in sorted(records, key=lambda record: record.bytes):
        if record.error:
            continue
        kept = load_row(cache, record)
        if kept is None or again or not kept.holds(record.kind):
            kept = _one(cache, record, seconds, rows.compare)
        say(" | ".join(cells(record, kept)) + _reasons(kept, record))
    everything = read(cache)
    found = {r.name: load_row(cache, r) for r in everything}
    if target is not None:
        from corpus.catalogue import recipes

        absent = [recipe.name for recipe in recipes() if recipe.name not in found]
        target.write_text(markdown(everything, found, absent))
    made = [r for r in records if not r.error]
    bad = [r for r in made if not _holds(found[r.name], r)]
    say(f"{len(made) - len(bad)} of {len(made)} files hold, {len(bad)} do not")
    return 1 if bad else 0


def _holds(row: object, record: Record) -> bool:
    return row is not None and row.holds(record.kind)  # type: ignore[attr-defined,no-any-return]


def _reasons(row: object, record: Record) -> str:
    failures = row.failures(record.kind)  # type: ignore[attr-defined]
    return "  <-- " + "; ".join(failures) if failures else ""


def load_row(cache: Path, record: Record):  # type: ignore[no-untyped-def]
    """Return the row that was kept, or None."""
    from corpus.comparing import Row

    file = paths(cache, record.name)[2].with_suffix(".row")
    return Row(**json.loads(file.read_text())) if file.exists() else None


def _one(cache: Path, record: Record, seconds: int, compare: Callable[..., object]):  # type: ignore[no-untyped-def]
    file = paths(cache, record.name)[2].with_suffix(".row")
    file.unlink(missing_ok=True)

    def check() -> None:
        from corpus.comparing import Row

        try:
            row = compare(cache, record)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            row = Row(record.name, error=f"reference: {type(error).__name__}: {lines[0][:250]}")
        file.write_text(json.dumps(asdict(row)) + "\n")

    reason = in_child(check, seconds)
    if not file.exists():
        from corpus.comparing import Row

        file.write_text(
            json.dumps(asdict(Row(record.name, error=reason or "the check died"))) + "\n"
        )
    return load_row(cache, record)
