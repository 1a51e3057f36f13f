# SPDX-License-Identifier: Apache-2.0
"""Rows as cells, and the Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from corpus.store import Record

if TYPE_CHECKING:
    from corpus.comparing import Row

HEAD = (
    "name", "exporter, opset", "converted", "max difference", "gradients reach", "batch of 4",
    "bound by name",
)  # fmt: skip

_ABOUT = """# What lancet-onnx runs

Written by `python tests/parity/corpus.py check --write docs/coverage.md`; `tests/parity/corpus/`
says how the files are made. Weights are random and seeded, inputs small.

- **max difference**: max|y - onnxruntime| / max|onnxruntime| over all outputs, CPU. A row fails
  over 1e-3 (half precision 3e-2, quantised 0.1). Where onnxruntime has no kernel for an element
  type, ONNX's reference evaluator takes its place (marked R).
- **gradients reach**: leaves with a gradient that is not zero / float and quantised constants on
  a differentiable path to an output. Not counted: bounds, scales and other settings, and leaves
  whose gradient is truly zero (moving them does not move the reference's output either).
- **batch of 4**: the difference for four rows at once, by `torch.func.vmap` over the file's own
  batch size where that is fixed, against the reference in batches of that size, or one by one.
- **bound by name**: float initializers of the file that are leaves under their own name, shape
  and type (half precision as a float32 master copy) / all of them; settings are left out.

The quantised rows are of a processor with VNNI. Without it onnxruntime adds products of eight-bit
numbers in sixteen bits, which saturate; what it then computes is not what ONNX says, and models
whose sums get that far are refused (exit code 3: other scores than onnxruntime's), unless they
were quantised with a reduced range.
"""


def cells(record: Record, row: Row | None) -> tuple[str, ...]:
    """Return the row of one entry."""
    exporter = f"{record.exporter}, {record.opset}"
    if row is None:
        return (record.name, exporter, "not checked", "", "", "", "")
    if not row.converted:
        return (record.name, exporter, "no", "", "", "", "")
    mark = " R" if row.reference != "onnxruntime" else ""
    return (
        record.name,
        exporter,
        "yes",
        _number(row.difference) + mark,
        f"{row.reached}/{row.expected}",
        _number(row.batch),
        f"{row.bound}/{row.floats}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def markdown(
    records: Sequence[Record], rows: Mapping[str, Row | None], absent: Sequence[str]
) -> str:
    """Return the whole page: summary, misses with their reasons, the table."""
    made = [r for r in records if not r.error]
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.name.split("/")[0], []).append(record)
    lines = [_ABOUT, "| group | entries | exported | hold |", "|---|---|---|---|"]
    for name, members in {**groups, "all": list(records)}.items():
        good = [r for r in members if not r.error and _good(r, rows)]
        exported = sum(not r.error for r in members)
        lines.append(f"| {name} | {len(members)} | {exported} | {len(good)} |")
    converted = [row for r in made if (row := rows.get(r.name)) and row.converted]
    operators = {operator for row in converted for operator in row.operators}
    lines += ["", f"{len(operators)} operators: {', '.join(sorted(operators))}.", ""]
    lines += ["## Misses", ""]
    for record in made:
        row = rows.get(record.name)
        if row is None:
            lines.append(f"- `{record.name}`: not checked")
        elif not row.holds(record.kind):
            lines.append(
                f"- `{record.name}`: {_plain('; '.join(row.failures(record.kind) + row.notes))}"
            )
    lines += ["", "## What the exporters themselves do not export", ""]
    lines += [
        f"- `{r.name}` ({r.exporter}, {r.opset}): {_plain(r.error)}" for r in records if r.error
    ]
    if absent:
        names = ", ".join(f"`{name}`" for name in absent)
        lines += ["", f"Not built for this table, for their size or the time: {names}."]
    lines += ["", "## Table", "", _line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(cells(record, rows.get(record.name))) for record in made]
    return "\n".join(lines) + "\n"


def _good(record: Record, rows: Mapping[str, Row | None]) -> bool:
    row = rows.get(record.name)
    return row is not None and row.holds(record.kind)


def _line(parts: Sequence[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("<", "(").replace(">", ")")
